"""The manifest of a session: one JSON line for each file that was proved, only ever added to.

Described for strangers in docs/reference/manifest.md. Beside it stands ``manifest.b3``, the same
hashes as ``b3sum --check`` reads them.
"""

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from vitriflow.errors import VitriflowError

_TAIL = 64 * 1024
_NO_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EBADF)


@dataclass(frozen=True, slots=True)
class ManifestLine:
    """One proved file.

    Attributes
    ----------
    path
        Below the session's folder, with forward slashes.
    size
        Bytes.
    blake3
        Hash of its bytes, in hexadecimal.
    proved_at
        When it was proved (ISO 8601, UTC).
    mode
        ``copy``: a copy that was read back and found equal. ``in_place``: hashed where it is.
    method
        How it was read: ``O_DIRECT``, ``fadvise`` (cache dropped first) or ``read`` (in place).
    source
        Its path below the microscope's folder.
    generation
        1 for the first file of that name, more when other bytes came under the same name.
    kind, software
        What it was recognised as.
    stamp
        The source's own change time (ns): never compared with a clock.
    """

    path: str
    size: int
    blake3: str
    proved_at: str
    mode: str = "copy"
    method: str = ""
    source: str = ""
    generation: int = 1
    kind: str = "unknown"
    software: str = ""
    stamp: int = 0


class Manifest:
    """Adds to a session's manifest. One process at a time: the session's lease sees to that.

    Opening it repairs what a power cut left: a torn last line is cut off (its file is proved again).

    Parameters
    ----------
    path
        ``manifest.jsonl`` in the session's folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.sums = path.with_suffix(".b3")
        self.repaired = _repair(path)
        self._hashes: dict[str, str] = {line.path: line.blake3 for line in read_manifest(path)}
        self._stale = True  # what the sums hold isn't known: written anew
        with suppress(OSError):
            self._rewrite_sums()

    def append(self, lines: Sequence[ManifestLine]) -> None:
        """Add lines and sync them to disk before returning; ones that are there already aren't repeated.

        Raises
        ------
        OSError
            When the disk is full or away; nothing half-written stays.
        """
        fresh = [line for line in lines if self._hashes.get(line.path) != line.blake3]
        if not fresh:
            return
        self._stale = self._stale or any(line.path in self._hashes for line in fresh)
        _append(self.path, b"".join(orjson.dumps(line) + b"\n" for line in fresh))
        self._hashes.update({line.path: line.blake3 for line in fresh})
        try:
            if self._stale:
                self._rewrite_sums()
            else:
                _append(self.sums, b"".join(_sum_line(line.path, line.blake3) for line in fresh))
        except OSError:
            self._stale = True  # it only repeats what the manifest says: written anew next time

    def _rewrite_sums(self) -> None:
        """Write the whole of ``manifest.b3`` anew: after a start, and when a path has other bytes now."""
        temporary = self.sums.with_name(f".{self.sums.name}.{os.getpid()}")
        with temporary.open("wb") as stream:
            for path, blake3 in self._hashes.items():
                stream.write(_sum_line(path, blake3))
        temporary.chmod(0o640)
        temporary.replace(self.sums)
        self._stale = False


def read_manifest(path: Path) -> Iterator[ManifestLine]:
    """Read a manifest line by line; of a missing one, nothing. A torn last line is passed over.

    Fields that this version doesn't know are passed over, so that later versions can add some.

    Raises
    ------
    VitriflowError
        When a line that isn't the last can't be read, naming it.
    """
    try:
        stream = path.open("rb")
    except FileNotFoundError:
        return
    with stream:
        for number, raw in enumerate(stream, start=1):
            if not raw.endswith(b"\n"):
                return
            yield _line(path, number, raw)


def newest_lines(path: Path) -> dict[str, ManifestLine]:
    """The last line of each path: what a session's folder should hold now."""
    return {line.path: line for line in read_manifest(path)}


def _line(path: Path, number: int, raw: bytes) -> ManifestLine:
    try:
        values: dict[str, Any] = orjson.loads(raw)
        known = {name: values[name] for name in ManifestLine.__dataclass_fields__ if name in values}
        return ManifestLine(**known)
    except (orjson.JSONDecodeError, TypeError) as error:
        raise VitriflowError(
            f"{path}, line {number}",
            "a JSON object with path, size, blake3 and proved_at",
            raw[:120].decode("utf-8", "replace").strip(),
            "Restore the file from a backup or an archive; 'vitriflow verify' proves the files again against it.",
        ) from error


def _append(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
    try:
        before = os.fstat(descriptor).st_size
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
            os.fsync(descriptor)
        except OSError:
            os.ftruncate(descriptor, before)
            raise
    finally:
        os.close(descriptor)
    if before == 0:
        sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Make the names in a folder last through a power cut (where the file system lets a folder be synced)."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise
    finally:
        os.close(descriptor)


def _repair(path: Path) -> int:
    """Cut off a torn last line; the bytes that went."""
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        return 0
    with path.open("r+b") as stream:
        end = size
        while end > 0:
            start = max(0, end - _TAIL)
            stream.seek(start)
            found = stream.read(end - start).rfind(b"\n")
            if found >= 0:
                end = start + found + 1
                break
            end = start
        if end < size:
            stream.truncate(end)
            stream.flush()
            os.fsync(stream.fileno())
    return size - end


def _sum_line(path: str, blake3: str) -> bytes:
    r"""A line as b3sum writes it: names with a backslash or a newline are escaped, and marked in front."""
    plain = path.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
    mark = "\\" if plain != path else ""
    return f"{mark}{blake3}  {plain}\n".encode()
