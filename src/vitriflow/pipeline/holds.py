"""Trouble that isn't any item's own: work waits for it to pass, says so, and goes on by itself."""

import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vitriflow.errors import Reason
from vitriflow.pipeline.ledger import Note
from vitriflow.pipeline.settings import Settings

_GONE = frozenset({str(Reason.VANISHED), str(Reason.UNREADABLE), str(Reason.NOT_A_MOVIE), str(Reason.EMPTY)})


class Holds:
    """Whether work may start: not while the results' disk is full, nor while the source is away.

    While it's held, one call at a time is let through every ``hold_probe_s``; when one goes well, work goes on.

    Parameters
    ----------
    source
        Folder that exposures are read from.
    root
        Folder that results are written to.
    settings
        Times and limits.
    """

    def __init__(self, source: Path, root: Path, settings: Settings) -> None:
        self._folders = {source: _device(source), root: _device(root)}
        self._root = root
        self._away: Path | None = None
        self._settings = settings
        self._why: str | None = None  # what is the matter, while work is held
        self._next_probe = 0.0
        self._next_check = 0.0
        self.notes: list[Note] = []

    @property
    def held(self) -> bool:
        """Whether work is held."""
        return self._why is not None

    def blames(self, record: Mapping[str, Any]) -> bool:
        """Whether a record failed for a reason that isn't its item's own; work is then held."""
        code = record.get("reason_code")
        if code == str(Reason.DISK_FULL):
            self._hold(f"The disk of {self._root} is full")
            return True
        if code in _GONE:
            self._away = next((folder for folder in self._folders if self._is_away(folder)), None)
            if self._away is not None:
                self._hold(f"The folder {self._away} is gone: is its disk still mounted?")
                return True
        return False

    def allowance(self, free_slots: int, in_flight: int) -> int:
        """How many calls may start now."""
        moment = time.monotonic()
        if self._why is None:
            if moment >= self._next_check:
                self._next_check = moment + 1.0
                if self._too_full():
                    room = self._settings.min_free_bytes >> 20
                    self._hold(f"The disk of {self._root} has less than {room} MiB left")
            if self._why is None:
                return free_slots
        if in_flight or moment < self._next_probe:
            return 0
        self._next_probe = moment + self._settings.hold_probe_s
        away = self._away is not None and self._is_away(self._away)
        return 0 if away or self._too_full() else min(1, free_slots)

    def went_well(self) -> None:
        """A call that was started while work was held has gone well."""
        if self._why is not None:
            self.notes.append(("info", f"Processing goes on. ({self._why}: no longer.)"))
            self._why = self._away = None

    def until_probe_s(self) -> float:
        """Seconds until the next try."""
        return max(0.0, self._next_probe - time.monotonic())

    def _hold(self, why: str) -> None:
        if self._why is None:
            self.notes.append(
                ("warning", f"{why}. Processing waits, and goes on by itself when that's mended.")
            )
            self._next_probe = time.monotonic() + self._settings.hold_probe_s
        self._why = why

    def _too_full(self) -> bool:
        try:
            return shutil.disk_usage(self._root).free < self._settings.min_free_bytes
        except OSError:
            return False  # not there yet: the first step makes it

    def _is_away(self, folder: Path) -> bool:
        """Whether a folder is gone, or is an empty mount point now where a disk was mounted before."""
        there = _device(folder)
        if there is None:
            # The results' folder is made by the first step; it's only missed once it has been there.
            return folder != self._root or self._folders[folder] is not None
        if self._folders[folder] is None:
            self._folders[folder] = there
        try:
            return there != self._folders[folder] and next(folder.iterdir(), None) is None
        except OSError:
            return True


def _device(folder: Path) -> int | None:
    """The device that a folder is on (stat(2), st_dev); None when it's not there."""
    try:
        return folder.stat().st_dev
    except OSError:
        return None
