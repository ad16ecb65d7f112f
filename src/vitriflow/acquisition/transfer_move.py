"""Moves one file: what to do when it's there already, is held, has changed, or the disk says no."""

import errno
import os
import stat
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from vitriflow.acquisition import copying
from vitriflow.acquisition.copying import (
    ChangedError,
    DestinationError,
    SourceError,
    StoppedError,
    TakenError,
)
from vitriflow.acquisition.copying_shared import Buffer, Limiter
from vitriflow.acquisition.custody import destination_of
from vitriflow.acquisition.scan import LOST, name_of
from vitriflow.catalog import FileState, now

_REFUSED = (
    errno.ENAMETOOLONG,
    errno.EINVAL,
    errno.EILSEQ,
    errno.EFBIG,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ELOOP,
)


class Step(StrEnum):
    """What became of a file, or of an attempt at it."""

    COPIED = "copied"
    PROVED = "proved"
    CHANGED = "changed"  # the source isn't what was announced: the watcher decides
    VANISHED = "vanished"
    HELD = "held"  # somebody holds the file; tried again
    SOURCE_LOST = "source_lost"  # the whole share is away
    DESTINATION = "destination"  # full, away, or closed to us
    CONFLICT = "conflict"  # other bytes stand there
    CORRUPT = "corrupt"  # the disk gave other bytes back
    REFUSED = "refused"  # this file can't be written there at all
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class Job:
    """One file that is to be copied, or was copied and is to be proved."""

    id: int
    key: str
    generation: int
    kind: str
    software: str
    state: str
    size: int
    stamp: int
    blake3: str | None
    attempts: int

    @property
    def destination(self) -> str:
        """Where it goes, below the session's folder."""
        return destination_of(self.key, self.generation)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a job. A job that goes well has two: copied, then proved."""

    job: Job
    step: Step
    at: datetime
    blake3: str | None = None
    method: str = ""
    text: str = ""

    @property
    def is_last(self) -> bool:
        """Whether the job is over with this."""
        return self.step != Step.COPIED


class Mover:
    """Moves files of one session; used by several threads, each with its own buffer.

    Parameters
    ----------
    source, root
        The microscope's folder, and the session's.
    limiter
        The cap that all copies share.
    stop
        Set when copies are to be given up.
    tell
        Called with each outcome.
    """

    def __init__(
        self,
        source: Path,
        root: Path,
        limiter: Limiter,
        stop: threading.Event,
        tell: Callable[[Outcome], None],
    ) -> None:
        self.source = source
        self.root = root
        self.limiter = limiter
        self.stop = stop
        self._tell = tell

    def move(self, job: Job, buffer: Buffer) -> None:
        """Copy and prove one file, and tell what became of it."""
        try:
            self._move(job, buffer)
        except StoppedError:
            self._say(job, Step.STOPPED)
        except ChangedError:
            self._say(job, Step.CHANGED)
        except SourceError as trouble:
            self._source_trouble(job, trouble.error)
        except DestinationError as trouble:
            self._destination_trouble(job, trouble.error)

    def _move(self, job: Job, buffer: Buffer) -> None:
        destination = self.root / job.destination
        if job.state == FileState.COPIED and job.blake3 is not None:
            self._prove(job, destination, job.blake3, buffer)
            return
        copying.make_folders(destination.parent, self.root)
        temporary = copying.temporary_for(destination, job.id)
        if os.path.lexists(destination):
            with suppress(OSError):
                temporary.unlink()
            self._take_up(job, destination, buffer)
            return
        copied = copying.copy_file(
            self._source_of(job),
            temporary,
            job.size,
            job.stamp,
            buffer=buffer,
            limiter=self.limiter,
            stop=self.stop,
        )
        try:
            copying.publish(temporary, destination)
        except TakenError:
            temporary.unlink(missing_ok=True)
            self._conflict(job, destination)
            return
        except DestinationError:
            with suppress(OSError):
                temporary.unlink()
            raise
        self._say(job, Step.COPIED, blake3=copied.blake3)
        self._prove(job, destination, copied.blake3, buffer)

    def _take_up(self, job: Job, destination: Path, buffer: Buffer) -> None:
        """Something stands there. If it's the same bytes (we were killed just then), they needn't be copied."""
        try:
            state = destination.lstat()
        except OSError as error:
            raise DestinationError(error) from error
        if not stat.S_ISREG(state.st_mode) or state.st_size != job.size:
            self._conflict(job, destination)
            return
        digest = copying.hash_source(
            self._source_of(job), job.size, job.stamp, buffer=buffer, limiter=self.limiter, stop=self.stop
        )
        found, _, method = self._read_back(destination, buffer)
        if found != digest:
            self._conflict(job, destination)
            return
        self._say(job, Step.COPIED, blake3=digest)
        self._say(job, Step.PROVED, blake3=digest, method=method)

    def _prove(self, job: Job, destination: Path, digest: str, buffer: Buffer) -> None:
        try:
            found, size, method = self._read_back(destination, buffer)
        except DestinationError as trouble:
            if trouble.error.errno != errno.ENOENT or not self.root.is_dir():
                raise
            self._say(job, Step.CORRUPT, text="is not there any more")
            return
        if found == digest and size == job.size:
            self._say(job, Step.PROVED, blake3=digest, method=method)
            return
        try:
            destination.unlink()  # our own copy, and wrong: nothing may take it for the file
            copying.sync_folder(destination.parent)
        except OSError as error:
            raise DestinationError(error) from error
        self._say(job, Step.CORRUPT, text=f"gave other bytes back ({size} of {job.size}, {method})")

    def _read_back(self, destination: Path, buffer: Buffer) -> tuple[str, int, str]:
        try:
            return copying.read_back(destination, buffer, self.stop)
        except OSError as error:
            raise DestinationError(error) from error

    # -- what went wrong --------------------------------------------------------------------

    def _source_trouble(self, job: Job, error: OSError) -> None:
        why = error.strerror or str(error)
        if error.errno == errno.ENOENT or error.errno in LOST:
            lost = self.source_lost()
            if lost is not None:
                self._say(job, Step.SOURCE_LOST, text=lost)
                return
        self._say(job, Step.VANISHED if error.errno == errno.ENOENT else Step.HELD, text=why)

    def source_lost(self) -> str | None:
        """Why the whole source can't be read just now; None when it can."""
        try:
            with os.scandir(self.source) as entries:
                if next(entries, None) is None:
                    return "it's empty, and shouldn't be: the share may not be mounted"
        except OSError as error:
            return error.strerror or str(error)
        return None

    def _destination_trouble(self, job: Job, error: OSError) -> None:
        why = error.strerror or str(error)
        if error.errno in _REFUSED:
            self._say(job, Step.REFUSED, text=why)
        else:
            self._say(job, Step.DESTINATION, text=why)

    def _conflict(self, job: Job, destination: Path) -> None:
        same = next((n for n in _names(destination.parent) if _is_case_of(n, destination.name)), None)
        text = f"{destination} holds other bytes, and is not overwritten"
        if same is not None:
            text += f" (it's called {same} there: the file system doesn't tell capitals from small letters)"
        self._say(job, Step.CONFLICT, text=text)

    def _source_of(self, job: Job) -> Path:
        return self.source / name_of(job.key)

    def _say(self, job: Job, step: Step, blake3: str | None = None, method: str = "", text: str = "") -> None:
        self._tell(Outcome(job, step, now(), blake3, method, text))


def _names(folder: Path) -> list[str]:
    try:
        return [path.name for path in folder.iterdir()]
    except OSError:
        return []


def _is_case_of(name: str, wanted: str) -> bool:
    return name != wanted and name.casefold() == wanted.casefold()
