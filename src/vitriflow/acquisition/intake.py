"""Takes a session in: watches its source folder and registers exposures where they are.

Every look ends in at most one transaction. What is remembered between looks can be lost at
any time: a new process finds it again in the catalog and on disk.
"""

import os
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from blake3 import blake3
from sqlalchemy import select, update
from sqlalchemy.orm import Session as OrmSession

from vitriflow.acquisition.metadata import Found, MetadataFinder
from vitriflow.acquisition.recognise import FileKind, item_of, recognise, sum_of_movie
from vitriflow.acquisition.scan import FileSeen, SourceLostError, look
from vitriflow.acquisition.watch import Clock, Judge, Verdict, Watched
from vitriflow.catalog import Catalog, Event, Exposure, ExposureState, Session, now
from vitriflow.errors import BadFile, Reason
from vitriflow.formats import Completeness, State, check_complete

_HASH_BLOCK = 8 * 1024**2
_FINISH_PER_LOOK_S = 2.0  # hashing is cut up, so that a backlog shows up bit by bit


@dataclass
class LookReport:
    """What one look at the source found."""

    found: int = 0
    new: int = 0
    completed: int = 0
    problems: int = 0
    waiting: int = 0
    lost: str | None = None


@dataclass
class _Change:
    """What a look wants to write about one file."""

    file: FileSeen
    state: ExposureState
    values: dict[str, Any] = field(default_factory=dict)


class Intake:
    """Registers the exposures of one session.

    Parameters
    ----------
    catalog, session_id
        Where they go.
    source
        The folder that the microscope writes.
    kind
        ``movie`` or ``micrograph``: what the session's pipeline takes.
    quiet_s, patience_s
        See :class:`Judge`.
    """

    def __init__(
        self,
        catalog: Catalog,
        session_id: int,
        source: Path,
        *,
        kind: str = "movie",
        quiet_s: float = 2.0,
        patience_s: float = 60.0,
        clock: Clock = time.monotonic,
    ) -> None:
        self.catalog = catalog
        self.session_id = session_id
        self.source = source
        self.kind = kind
        self.judge = Judge(quiet_s, patience_s, clock)
        self._watched: dict[str, Watched] = {}
        self._done: dict[str, tuple[int, int | None]] = {}  # key -> size, change stamp when known
        self._items: dict[str, str] = {}
        self._problems: dict[str, str] = {}
        self._denied: set[str] = set()  # couldn't be read: looked at again when it can
        self._frames: dict[str, int | None] = {}
        self._survey: dict[str, int] = {}
        self._lost = False
        self._metadata = MetadataFinder()
        self._expects_metadata: set[str] = set()
        self._load()

    def _load(self) -> None:
        def work(orm: OrmSession) -> list[Exposure]:
            return list(orm.scalars(select(Exposure).where(Exposure.session_id == self.session_id)))

        for row in self.catalog.read(work):
            if row.problem_code != Reason.DUPLICATE_NAME:
                self._items[row.item] = row.key
            if row.state == ExposureState.COMPLETE:
                self._done[row.key] = (row.size, None)
                self._note_frames(row.key, row.details.get("n_frames"))
                if row.details.get("metadata_file"):
                    self._expects_metadata.add(row.software)
            elif row.state == ExposureState.PROBLEM:
                self._problems[row.key] = row.problem_code or ""
                if row.problem_code == Reason.UNREADABLE:
                    self._denied.add(row.key)
                self._done[row.key] = (row.size, None)

    def look(self) -> LookReport:
        """Look once at the source and write what changed.

        A source that can't be listed is reported (``lost``), told once as an event, and
        looked for again at the next call; nothing known is forgotten meanwhile.
        """
        try:
            files = {file.key: file for file in look(self.source)}
        except SourceLostError as error:
            self._tell_lost(str(error))
            return LookReport(lost=str(error))
        if self._lost:
            self._lost = False
            self._say("info", f"The source folder {self.source} is back")
        report = LookReport(found=len(files))
        changes, survey = self._judge_all(files, report)
        if changes or survey != self._survey:
            self._write(changes, survey)
            self._survey = survey
        return report

    # -- what to do about each file ------------------------------------------------------

    def _judge_all(
        self, files: dict[str, FileSeen], report: LookReport
    ) -> tuple[list[_Change], dict[str, int]]:
        survey: Counter[str] = Counter()
        changes: list[_Change] = []
        clock = self.judge.clock
        kinds = {key: recognise(key).kind if _is_text(key) else FileKind.UNKNOWN for key in files}
        sums = self._sums(kinds)
        candidates = []
        for key, kind in kinds.items():
            if kind == FileKind.MOVIE and item_of(key) in sums:
                kind = FileKind.PREVIEW
            if kind == FileKind.MOVIE:
                candidates.append(files[key])
            survey[str(kind)] += 1
        started = clock()
        for file in sorted(candidates, key=lambda f: -f.changed_ns):
            if clock() - started > _FINISH_PER_LOOK_S and file.key not in self._watched:
                report.waiting += 1
                continue
            change = self._judge_one(file, report, late=clock() - started > _FINISH_PER_LOOK_S, files=files)
            if change is not None:
                changes.append(change)
        for key in [key for key in self._watched if key not in files]:
            changes += self._vanished(key, report)
        return changes, dict(sorted(survey.items()))

    def _sums(self, kinds: dict[str, FileKind]) -> set[str]:
        """Items that are only the sum of a movie's frames, which EPU leaves beside the movie."""
        if self.kind != "movie":
            return set()
        return {item for key, kind in kinds.items() if kind == FileKind.MOVIE and (item := sum_of_movie(key))}

    def _judge_one(
        self, file: FileSeen, report: LookReport, *, late: bool, files: dict[str, FileSeen]
    ) -> _Change | None:
        clock = self.judge.clock()
        known = self._done.get(file.key)
        if known is not None:
            allowed = file.key in self._denied and os.access(file.path, os.R_OK)
            if known[0] == file.size and known[1] in (None, file.changed_ns) and not allowed:
                self._done[file.key] = (file.size, file.changed_ns)
                return None
            return self._reopened(file, clock, report)
        watched = self._watched.get(file.key)
        fresh = watched is None
        if watched is None:
            watched = self._watched[file.key] = Watched(file, clock, clock)
            report.new += 1
        watched.update(file, clock)
        if not late:
            change = self._finish(watched, report, files)
            if change is not None:
                return change
        report.waiting += 1
        return _Change(file, ExposureState.SEEN) if fresh else None

    def _reopened(self, file: FileSeen, clock: float, report: LookReport) -> _Change:
        """A finished file that changes again goes back to being watched; people are told."""
        report.waiting += 1
        was_problem = self._problems.pop(file.key, None)
        self._done.pop(file.key)
        self._denied.discard(file.key)
        watched = self._watched[file.key] = Watched(file, clock, clock)
        watched.deceptive = True
        self.judge.forget_frames(self._frames.pop(file.key, None))
        if was_problem is None:
            what = f"{file.key} changed after it was taken in; results there are of the file as it was"
            self._say("warning", f"{what}. Run with --processing NEW-NAME to process it as it is now.")
        return _Change(file, ExposureState.SEEN, {"problem_code": None, "problem": None})

    def _finish(self, watched: Watched, report: LookReport, files: dict[str, FileSeen]) -> _Change | None:
        file = watched.file
        stamp = (file.size, file.changed_ns)
        if watched.checked != stamp or watched.structure is None:
            try:
                watched.structure = check_complete(file.path)
            except BadFile as error:
                watched.structure = Completeness(State.BROKEN, error.reason, str(error))
            except OSError as error:  # held by a virus scanner or the camera: try again later
                watched.structure = Completeness(
                    State.GROWING, Reason.UNREADABLE, error.strerror or str(error)
                )
                watched.checked = None
                return self._conclude(watched, Verdict("wait"), Found(), report)
            watched.checked = stamp
        metadata = self._metadata.find(file.key, files)
        verdict = self.judge.judge(watched, watched.structure, metadata.n_frames)
        if verdict.state == "whole" and self._awaits_metadata(watched, metadata.path):
            return None
        return self._conclude(watched, verdict, metadata, report)

    def _awaits_metadata(self, watched: Watched, path: str | None) -> bool:
        """Wait a little for the XML or mdoc that follows a movie, if this software wrote one before."""
        software = recognise(watched.file.key).software
        if path is not None:
            self._expects_metadata.add(software)
            return False
        still = self.judge.clock() - watched.last_change
        return software in self._expects_metadata and still < self.judge.patience_s / 4

    def _conclude(
        self, watched: Watched, verdict: Verdict, metadata: Found, report: LookReport
    ) -> _Change | None:
        file, structure = watched.file, watched.structure
        if structure is None:
            return None
        if verdict.state == "wait":
            unreadable = structure.reason == Reason.UNREADABLE and structure.state == State.GROWING
            if not unreadable or self.judge.clock() - watched.last_change < self.judge.patience_s:
                return None
            return self._problem(file, Reason.UNREADABLE, structure.text, report)
        if verdict.state == "broken":
            reason = structure.reason or Reason.UNREADABLE
            return self._problem(file, reason, f"{file.key}: {verdict.why}", report)
        item = item_of(file.key)
        first = self._items.setdefault(item, file.key)
        if first != file.key:
            text = (
                f"{file.key} has the same name as {first}, which came first; their results would "
                "overwrite each other. Rename one, or move it to a folder of its own."
            )
            return self._problem(file, Reason.DUPLICATE_NAME, text, report)
        wrong = self._wrong_kind(file, structure)
        if wrong is not None:
            return self._problem(file, Reason.NOT_A_MOVIE, wrong, report)
        try:
            digest = _hash(file.path)
        except OSError:
            return None  # still held by someone, or gone: the next look knows
        self._note_frames(file.key, structure.n_frames)
        self._settle(file)
        report.completed += 1
        found = {**metadata.details, "n_frames": structure.n_frames, "shape": structure.shape}
        return _Change(
            file, ExposureState.COMPLETE, {"details": found, "blake3": digest, "complete_at": now()}
        )

    def _wrong_kind(self, file: FileSeen, structure: Completeness) -> str | None:
        frames = structure.n_frames or 1
        if self.kind == "micrograph" and frames > 1:
            return f"{file.key} is a movie of {frames} frames; this session takes ready micrographs"
        if self.kind == "movie" and frames == 1 and (self.judge.usual_frames() or 1) > 1:
            return f"{file.key} is a single image among movies of {self.judge.usual_frames()} frames"
        return None

    def _problem(self, file: FileSeen, reason: Reason, text: str, report: LookReport) -> _Change:
        self._settle(file)
        self._problems[file.key] = reason
        if reason == Reason.UNREADABLE and not os.access(file.path, os.R_OK):
            self._denied.add(file.key)
        report.problems += 1
        return _Change(file, ExposureState.PROBLEM, {"problem_code": str(reason), "problem": text})

    def _note_frames(self, key: str, n_frames: int | None) -> None:
        self._frames[key] = n_frames
        self.judge.note_frames(n_frames)

    def _settle(self, file: FileSeen) -> None:
        self._watched.pop(file.key, None)
        self._done[file.key] = (file.size, file.changed_ns)

    def _vanished(self, key: str, report: LookReport) -> list[_Change]:
        """A file that went away before it was whole is given up when patience is over."""
        watched = self._watched[key]
        if self.judge.clock() - watched.last_change < self.judge.patience_s:
            return []
        text = f"{key} was removed or renamed before it was whole"
        change = self._problem(watched.file, Reason.VANISHED, text, report)
        return [change]

    # -- what is written ------------------------------------------------------------------

    def _write(self, changes: list[_Change], survey: dict[str, int]) -> None:
        def work(orm: OrmSession) -> None:
            stamp = now()
            for change in changes:
                self._write_one(orm, change, stamp)
            if survey != self._survey:
                orm.execute(update(Session).where(Session.id == self.session_id).values(survey=survey))

        self.catalog.write(work)

    def _write_one(self, orm: OrmSession, change: _Change, stamp: datetime) -> None:
        key = change.file.key
        row = orm.scalar(select(Exposure).where(Exposure.session_id == self.session_id, Exposure.key == key))
        if row is None:
            row = Exposure(
                session_id=self.session_id,
                key=key,
                item=item_of(key),
                path=str(change.file.path),
                kind=self.kind,
                software=recognise(key).software,
                first_seen_at=stamp,
                details={},
            )
            orm.add(row)
        row.state = change.state
        row.size = change.file.size
        if change.state != ExposureState.PROBLEM:
            row.problem_code = row.problem = None
        for name, value in change.values.items():
            setattr(row, name, value)

    def _tell_lost(self, why: str) -> None:
        if not self._lost:
            self._lost = True
            lost = f"The source folder {self.source} can't be read ({why})"
            self._say("alarm", f"{lost}. Nothing is lost; waiting for it to come back")

    def _say(self, severity: str, text: str) -> None:
        self.catalog.write(
            lambda orm: orm.add(Event(at=now(), session_id=self.session_id, severity=severity, text=text))
        )


def _hash(path: Path) -> str:
    """BLAKE3 of a file, read once in blocks (not mapped: a share that vanishes must not kill us)."""
    digest = blake3()
    with path.open("rb") as stream:
        while block := stream.read(_HASH_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _is_text(key: str) -> bool:
    """False for a name that isn't UTF-8: it can't be stored or shown, so it's counted as unknown."""
    try:
        key.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
