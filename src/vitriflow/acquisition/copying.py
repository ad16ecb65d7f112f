"""Copies one file and reads it back past the page cache. Knows nothing of the catalog.

A copy reads the source once, hashing on the way (BLAKE3), writes under a temporary name in the
destination's folder, syncs it, and gives it its own name only if nobody has that name. Proof
reads the disk again: with O_DIRECT where the file system can, else after the cache was dropped.
"""

import ctypes
import errno
import fcntl
import os
import re
import stat
import threading
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blake3 import blake3

from vitriflow.acquisition.copying_shared import Buffer, Limiter

PAGE = 4096
FILE_MODE = 0o640  # nothing world-readable
FOLDER_MODE = 0o750
_TEMPORARY = re.compile(r"\.vitriflow-\d+\.part")
_AT_FDCWD = -100
_RENAME_NOREPLACE = 1
_SYNC_WRITE = 2  # SYNC_FILE_RANGE_WRITE: begin to write back, don't wait
_SYNC_EVERY = 16 * 1024**2
_NOT_HERE = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EPERM, errno.EMLINK, errno.EXDEV)
_NO_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EBADF)
_libc = ctypes.CDLL(None, use_errno=True)


class SourceError(Exception):
    """Reading from the source failed; ``error`` says how."""

    def __init__(self, error: OSError) -> None:
        self.error = error
        super().__init__(str(error))


class DestinationError(Exception):
    """Writing to or reading from the destination failed; ``error`` says how."""

    def __init__(self, error: OSError) -> None:
        self.error = error
        super().__init__(str(error))


class ChangedError(Exception):
    """The source isn't the file that was announced: it grew, shrank, or was replaced meanwhile."""


class TakenError(Exception):
    """The destination's name is taken."""


class StoppedError(Exception):
    """The copy was asked to stop."""


@dataclass(frozen=True, slots=True)
class Copied:
    """What was copied."""

    size: int
    blake3: str


def temporary_for(destination: Path, number: int) -> Path:
    """Where a file grows before it gets its name: beside it, and too short a name to be refused."""
    return destination.with_name(f".vitriflow-{number}.part")


def is_temporary(name: str) -> bool:
    """Whether a name is one of :func:`temporary_for`."""
    return _TEMPORARY.fullmatch(name) is not None


def copy_file(
    source: Path,
    temporary: Path,
    size: int,
    stamp: int,
    *,
    buffer: Buffer,
    limiter: Limiter,
    stop: threading.Event,
) -> Copied:
    """Copy ``source`` to ``temporary`` and sync it.

    Parameters
    ----------
    size, stamp
        Bytes and change time (ns) that the source had when it was seen whole; before and after reading
        it has to have them still.

    Raises
    ------
    SourceError, DestinationError, ChangedError, StoppedError
        The temporary file is removed then.
    """
    reading = _open_source(source, size, stamp)
    try:
        writing = _make(temporary)
        try:
            try:
                digest = _pour(reading, writing, size, buffer, limiter, stop)
                _check(reading, source, size, stamp)
                try:
                    os.fsync(writing)
                except OSError as error:
                    raise DestinationError(error) from error
            finally:
                with suppress(OSError):  # what matters was synced; a failed one is removed below
                    os.close(writing)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise
    finally:
        with suppress(OSError):
            os.close(reading)
    return Copied(size, digest)


def hash_source(
    source: Path, size: int, stamp: int, *, buffer: Buffer, limiter: Limiter, stop: threading.Event
) -> str:
    """BLAKE3 of a source that has to stay as it was announced. Raises as :func:`copy_file`."""
    reading = _open_source(source, size, stamp)
    try:
        digest = _pour(reading, None, size, buffer, limiter, stop)
        _check(reading, source, size, stamp)
    finally:
        with suppress(OSError):
            os.close(reading)
    return digest


def read_back(path: Path, buffer: Buffer, stop: threading.Event | None = None) -> tuple[str, int, str]:
    """Hash a file as the disk has it, past the page cache.

    Returns
    -------
    BLAKE3, size in bytes, and the method: ``O_DIRECT``, or ``fadvise`` where the file system
    can't, which drops the file's pages from the cache first (a hint that it mostly follows).

    Raises
    ------
    OSError, StoppedError
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECT)
        method = "O_DIRECT"
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        descriptor = os.open(path, os.O_RDONLY)
        method = "fadvise"
    try:
        if method == "O_DIRECT":
            try:
                return (*_hash_descriptor(descriptor, buffer, stop), method)
            except OSError as error:
                if error.errno != errno.EINVAL:  # some say so only when read
                    raise
                fcntl.fcntl(descriptor, fcntl.F_SETFL, 0)  # no longer past the cache
                os.lseek(descriptor, 0, os.SEEK_SET)
        with suppress(OSError):
            os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        return (*_hash_descriptor(descriptor, buffer, stop), "fadvise")
    finally:
        os.close(descriptor)


def publish(temporary: Path, destination: Path) -> None:
    """Give a file its own name, if nobody has it, and make that last through a power cut.

    Raises
    ------
    TakenError
        When something stands there; it isn't touched.
    DestinationError
    """
    try:
        if not _rename_exclusively(temporary, destination):
            _link_exclusively(temporary, destination)
        sync_folder(destination.parent)
    except FileExistsError as error:
        raise TakenError(str(destination)) from error
    except OSError as error:
        raise DestinationError(error) from error


def make_folders(folder: Path, root: Path) -> None:
    """Make a folder below ``root`` and all between, each synced into the one above it.

    Raises
    ------
    DestinationError
    """
    missing = []
    try:
        while folder != root and not folder.is_dir():
            missing.append(folder)
            folder = folder.parent
        for path in reversed(missing):
            with suppress(FileExistsError):  # another thread was quicker; a file there shows up below
                path.mkdir(mode=FOLDER_MODE)
            if not path.is_dir():
                raise NotADirectoryError(errno.ENOTDIR, "a file stands where a folder is needed", str(path))
            sync_folder(path.parent)
    except OSError as error:
        raise DestinationError(error) from error


def sync_folder(folder: Path) -> None:
    """Sync the names in a folder to disk, where its file system can."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise
    finally:
        os.close(descriptor)


# -- the parts ---------------------------------------------------------------------------------


def _open_source(source: Path, size: int, stamp: int) -> int:
    try:
        descriptor = os.open(source, os.O_RDONLY | os.O_NONBLOCK)
        state = os.fstat(descriptor)
    except OSError as error:
        raise SourceError(error) from error
    if not stat.S_ISREG(state.st_mode) or (state.st_size, state.st_mtime_ns) != (size, stamp):
        os.close(descriptor)
        raise ChangedError
    with suppress(OSError):
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_SEQUENTIAL)
    return descriptor


def _check(descriptor: int, source: Path, size: int, stamp: int) -> None:
    """After the last byte, what was read and what has the name now have to be what was announced."""
    try:
        for state in (os.fstat(descriptor), os.stat(source)):  # noqa: PTH116  (beside fstat)
            if (state.st_size, state.st_mtime_ns) != (size, stamp):
                raise ChangedError
    except OSError as error:
        raise SourceError(error) from error


def _make(temporary: Path) -> int:
    try:
        with suppress(FileNotFoundError):
            temporary.unlink()  # left over from a process that was killed
        return os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE)
    except OSError as error:
        raise DestinationError(error) from error


def _pour(
    reading: int, writing: int | None, size: int, buffer: Buffer, limiter: Limiter, stop: threading.Event
) -> str:
    """Read all, hash it and write it; BLAKE3 in hexadecimal."""
    digest = blake3()
    hashing: Future[Any] | None = None
    done = synced = 0
    while True:
        if stop.is_set():
            raise StoppedError
        view = buffer.views[0]
        limiter.take(min(len(view), max(size - done, 0)), stop)
        try:
            got = os.readv(reading, [view])
        except OSError as error:
            raise SourceError(error) from error
        if got == 0:
            break
        hashing = buffer.hash_beside(digest, view[:got])
        try:
            if writing is not None:
                _write(writing, view[:got])
                if done + got - synced >= _SYNC_EVERY:
                    _begin_write_back(writing, synced, done + got - synced)
                    synced = done + got
        finally:
            if hashing is not None:
                hashing.result()
        done += got
    if done != size:
        raise ChangedError
    return digest.hexdigest()


def _write(descriptor: int, part: memoryview) -> None:
    try:
        while part:
            part = part[os.write(descriptor, part) :]
    except OSError as error:
        raise DestinationError(error) from error


def _begin_write_back(descriptor: int, start: int, length: int) -> None:
    """Let the disk begin, so that the sync at the end has little left to wait for. A hint: it may fail."""
    _libc.sync_file_range(
        ctypes.c_int(descriptor), ctypes.c_int64(start), ctypes.c_int64(length), ctypes.c_uint(_SYNC_WRITE)
    )


def _hash_descriptor(descriptor: int, buffer: Buffer, stop: threading.Event | None) -> tuple[str, int]:
    digest, done, turn = blake3(), 0, 0
    hashing: Future[Any] | None = None
    try:
        while got := os.readv(descriptor, [buffer.views[turn]]):
            if hashing is not None:
                hashing.result()
            hashing = buffer.hash_beside(digest, buffer.views[turn][:got])
            turn = 1 - turn
            done += got
            if got % PAGE:  # the end: O_DIRECT mustn't go on from an odd place
                break
            if stop is not None and stop.is_set():
                raise StoppedError
    finally:
        if hashing is not None:
            hashing.result()
    return digest.hexdigest(), done


def _rename_exclusively(old: Path, new: Path) -> bool:
    """renameat2(2) with RENAME_NOREPLACE; False where the file system doesn't know it."""
    names = (os.fsencode(old), os.fsencode(new))
    if _libc.renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_NOREPLACE) == 0:
        return True
    code = ctypes.get_errno()
    if code in _NOT_HERE:
        return False
    raise OSError(code, os.strerror(code), str(new))


def _link_exclusively(old: Path, new: Path) -> None:
    """A second name, which fails when it's taken; without hard links a look first (one writer holds the lease)."""
    try:
        os.link(old, new)
        old.unlink()
    except FileExistsError:
        raise
    except OSError as error:
        if error.errno not in _NOT_HERE:
            raise
        if os.path.lexists(new):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(new)) from error
        old.rename(new)
