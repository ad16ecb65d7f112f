"""Removes one file from a microscope's disk, if every condition of the permit is shown to hold.

What is decided from the catalog (proved, no hold, old enough, archived) comes before, in
``facility/release.py``. Here stands what the disks themselves have to say, and the removal.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path, PurePosixPath

from blake3 import blake3

from vitriflow.acquisition.release_log import FreedLine
from vitriflow.acquisition.scan import name_of
from vitriflow.errors import ItemError
from vitriflow.formats import State, check_complete

_BLOCK = 8 * 1024**2


class Refusal(StrEnum):
    """Why a file isn't removed. Stable codes, for counts."""

    NOT_PROVED = "not_proved"
    PROBLEM = "problem"
    REPLACED = "replaced"
    IN_PLACE = "in_place"
    HELD = "held"
    NOT_IN_MANIFEST = "not_in_manifest"
    COPIES = "copies_missing"
    TOO_YOUNG = "too_young"
    NEEDED = "needed_elsewhere"
    SOURCE_AWAY = "source_away"
    GONE = "gone"
    UNSAFE_PATH = "unsafe_path"
    CHANGED = "changed"
    SAME_FILE = "same_file"
    DESTINATION_MISSING = "destination_missing"
    DESTINATION_SIZE = "destination_size"
    NOT_DECODABLE = "not_decodable"
    REHASH = "rehash_differs"
    DENIED = "denied"


class RefusedError(Exception):
    """A condition of the permit doesn't hold, or can't be shown to."""

    def __init__(self, refusal: Refusal, why: str) -> None:
        self.refusal = refusal
        self.why = why
        super().__init__(why)


@dataclass(frozen=True)
class Candidate:
    """A file of the catalog that may be removed: its identity on the source, and where its copy is.

    ``source`` is the session's source folder, ``root`` the session's own; ``key`` and
    ``destination`` are paths below them. ``stamp`` is the source's change time (ns).
    """

    id: int
    session: str
    source: Path
    root: Path
    key: str
    generation: int
    kind: str
    size: int
    stamp: int
    blake3: str
    destination: str | None
    decodable: bool | None

    @property
    def path(self) -> Path:
        """Where it stands on the microscope's disk."""
        return self.source / name_of(self.key)


def check_source(candidate: Candidate, *, rehash: bool = False) -> os.stat_result:
    """Make sure that the source's file is the one that was copied.

    Parameters
    ----------
    rehash
        Read it again, and compare its hash too.

    Raises
    ------
    RefusedError
        When it's gone, changed, or reached by a link.
    """
    with _folder_of(candidate) as folder:
        return _check_name(candidate, folder, PurePosixPath(name_of(candidate.key)).name, rehash)


def check_copy(candidate: Candidate, source: os.stat_result) -> None:
    """Make sure that the copy on disk is there, as long as it should be, and is a movie if it should be one.

    Raises
    ------
    RefusedError
        When it isn't.
    """
    copy = candidate.root / str(candidate.destination)
    try:
        found = copy.lstat()
    except OSError as error:
        why = f"its copy {copy} can't be seen: {error.strerror}"
        raise RefusedError(Refusal.DESTINATION_MISSING, why) from error
    if not stat.S_ISREG(found.st_mode):
        raise RefusedError(Refusal.DESTINATION_MISSING, f"its copy {copy} is no file of its own")
    if (found.st_dev, found.st_ino) == (source.st_dev, source.st_ino):
        raise RefusedError(Refusal.SAME_FILE, f"its copy {copy} is the same file, not another one")
    if found.st_size != candidate.size:
        why = f"its copy {copy} has {found.st_size} bytes instead of {candidate.size}"
        raise RefusedError(Refusal.DESTINATION_SIZE, why)
    if candidate.kind == "movie" and candidate.decodable is not True:
        _check_decodable(candidate, copy)


def _check_decodable(candidate: Candidate, copy: Path) -> None:
    if candidate.decodable is False:
        raise RefusedError(Refusal.NOT_DECODABLE, "its copy can't be decoded")
    try:
        structure = check_complete(copy)
    except (OSError, ItemError) as error:
        raise RefusedError(Refusal.NOT_DECODABLE, f"its copy can't be read: {error}") from error
    if structure.state != State.COMPLETE:
        raise RefusedError(Refusal.NOT_DECODABLE, f"its copy isn't a whole movie: {structure.text}")


def remove(candidate: Candidate, aside: str) -> None:
    """Remove a file whose intent stands in the log.

    It's renamed first: whatever comes under its name meanwhile is another file, and stays. If
    what was renamed isn't the file of the permit, it gets its name back.

    Raises
    ------
    RefusedError
        When the file isn't the one it was, or the disk doesn't let it go; it's there as before.
    """
    with _folder_of(candidate) as folder:
        name = PurePosixPath(name_of(candidate.key)).name
        _check_name(candidate, folder, name, rehash=False)
        try:
            os.rename(name, aside, src_dir_fd=folder, dst_dir_fd=folder)
        except OSError as error:
            raise RefusedError(Refusal.DENIED, f"it can't be removed: {error.strerror}") from error
        try:
            _check_name(candidate, folder, aside, rehash=False)
            os.unlink(aside, dir_fd=folder)
        except RefusedError:
            _put_back(folder, aside, name)
            raise
        except OSError as error:
            _put_back(folder, aside, name)
            raise RefusedError(Refusal.DENIED, f"it can't be removed: {error.strerror}") from error


def finish_intent(line: FreedLine, source: Path) -> str | None:
    """Find out how an interrupted removal ended: ``freed``, ``kept``, or None when the disk is away.

    A file that was only renamed gets its name back: it needs a new permit.
    """
    if not source.is_dir():
        return None
    candidate = Candidate(
        0, line.session, source, source, line.key, line.generation, "", line.size, line.stamp, "", None, None
    )
    try:
        with _folder_of(candidate) as folder:
            name = PurePosixPath(name_of(line.key)).name
            if _exists(folder, line.aside):
                _put_back(folder, line.aside, name)
                return "kept"
            return "kept" if _exists(folder, name) else "freed"
    except RefusedError as error:
        return "freed" if error.refusal == Refusal.GONE else None


def tidy_folder(source: Path, folder: str) -> bool:
    """Remove a folder below ``source`` if it's empty; whether it went. Never the source itself."""
    parts = PurePosixPath(name_of(folder)).parts
    if not parts or ".." in parts or PurePosixPath(folder).is_absolute():
        return False
    try:
        with _opened(source, parts[:-1]) as parent:
            os.rmdir(parts[-1], dir_fd=parent)  # fails when there's anything in it, or it's a link
    except OSError:
        return False
    return True


def _check_name(candidate: Candidate, folder: int, name: str, rehash: bool) -> os.stat_result:
    """Open a name without following links, and compare what it is with what was copied."""
    path = candidate.path
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    except FileNotFoundError as error:
        raise RefusedError(Refusal.GONE, f"{path} isn't there any more") from error
    except OSError as error:
        link = stat.S_ISLNK(_mode(folder, name))
        refusal = Refusal.UNSAFE_PATH if link else Refusal.DENIED
        why = "is a link" if link else f"can't be opened: {error.strerror}"
        raise RefusedError(refusal, f"{path} {why}") from error
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise RefusedError(Refusal.UNSAFE_PATH, f"{path} is no plain file")
        if (found.st_size, found.st_mtime_ns) != (candidate.size, candidate.stamp):
            was = f"{candidate.size} bytes, changed at {candidate.stamp}"
            why = f"{path} has {found.st_size} bytes, changed at {found.st_mtime_ns}; copied were {was}"
            raise RefusedError(Refusal.CHANGED, why)
        if rehash and _hash(descriptor) != candidate.blake3:
            raise RefusedError(Refusal.REHASH, f"{path} holds other bytes than were copied")
        return found
    finally:
        os.close(descriptor)


def _hash(descriptor: int) -> str:
    digest = blake3()
    try:
        while block := os.read(descriptor, _BLOCK):
            digest.update(block)
    except OSError as error:
        raise RefusedError(Refusal.DENIED, f"it can't be read again: {error.strerror}") from error
    return digest.hexdigest()


def _put_back(folder: int, aside: str, name: str) -> None:
    """Give a file its name back, unless another has come under it: then both stay."""
    try:
        if not _exists(folder, name):
            os.rename(aside, name, src_dir_fd=folder, dst_dir_fd=folder)
    except OSError as error:
        why = f"{name} was put aside as {aside} in the same folder, and can't be put back: {error.strerror}"
        raise RefusedError(Refusal.DENIED, why) from error


def _exists(folder: int, name: str) -> bool:
    return _mode(folder, name) != 0


def _mode(folder: int, name: str) -> int:
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
    except OSError:
        return 0


@contextmanager
def _folder_of(candidate: Candidate) -> Iterator[int]:
    """The folder that holds a file, opened step by step without following a link below the source."""
    key = PurePosixPath(name_of(candidate.key))
    if key.is_absolute() or ".." in key.parts or not key.parts:
        raise RefusedError(Refusal.UNSAFE_PATH, f"{candidate.key} isn't below {candidate.source}")
    try:
        opened = _opened(candidate.source, key.parts[:-1])
        descriptor = opened.__enter__()
    except FileNotFoundError as error:
        away = not candidate.source.is_dir()
        refusal = Refusal.SOURCE_AWAY if away else Refusal.GONE
        what = candidate.source if away else candidate.path
        raise RefusedError(refusal, f"{what} isn't there") from error
    except OSError as error:
        why = f"{candidate.path.parent} is a link, or can't be opened: {error.strerror}"
        raise RefusedError(Refusal.UNSAFE_PATH, why) from error
    try:
        yield descriptor
    finally:
        opened.__exit__(None, None, None)


@contextmanager
def _opened(source: Path, parts: tuple[str, ...]) -> Iterator[int]:
    descriptor = os.open(source, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for part in parts:
            inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = inner
        yield descriptor
    finally:
        os.close(descriptor)
