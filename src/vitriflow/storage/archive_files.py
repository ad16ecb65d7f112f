"""Reading past the page cache, and lists of hashes as ``b3sum --check`` reads them."""

import errno
import io
import mmap
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from blake3 import blake3

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

BLOCK = 4 * 1024**2
SUMS = "BLAKE3SUMS"


class PastCache(io.RawIOBase):
    """A file read from its disk, not from memory: O_DIRECT where that works, else the cache is dropped first.

    Parameters
    ----------
    path
        A plain file; a link isn't followed.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self._buffer = mmap.mmap(-1, BLOCK)  # aligned to pages, as O_DIRECT wants it
        self._start = self._end = 0
        self.method = "O_DIRECT"
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECT)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            self._fd = self._plain()

    def _plain(self) -> int:
        self.method = "fadvise"
        descriptor = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        return descriptor

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int:
        """Fill a buffer as far as the next block goes; 0 at the end."""
        target = memoryview(buffer).cast("B")
        if self._start == self._end:
            self._start, self._end = 0, self._read_block()
        number = min(len(target), self._end - self._start)
        target[:number] = self._buffer[self._start : self._start + number]
        self._start += number
        return number

    def _read_block(self) -> int:
        try:
            return os.readv(self._fd, [self._buffer])
        except OSError as error:
            if self.method != "O_DIRECT" or error.errno != errno.EINVAL:
                raise
        position = os.lseek(self._fd, 0, os.SEEK_CUR)
        os.close(self._fd)
        self._fd = self._plain()
        os.lseek(self._fd, position, os.SEEK_SET)
        return os.readv(self._fd, [self._buffer])

    def close(self) -> None:
        """Give the file and the buffer back."""
        if not self.closed:
            os.close(self._fd)
            self._buffer.close()
        super().close()


def hash_past_cache(path: Path) -> str:
    """BLAKE3 of what is on the disk, in hexadecimal."""
    digest = blake3()
    with PastCache(path) as stream:
        while block := stream.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def sums_text(hashes: Mapping[str, str]) -> bytes:
    r"""Paths and hashes as b3sum writes them: names with a backslash or a newline are escaped, and marked."""
    lines = []
    for path, digest in hashes.items():
        plain = path.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
        mark = "\\" if plain != path else ""
        lines.append(f"{mark}{digest}  {plain}\n")
    return "".join(lines).encode("utf-8", "surrogateescape")


def parse_sums(data: bytes) -> dict[str, str]:
    """Paths and hashes of such a list."""
    found: dict[str, str] = {}
    for line in data.decode("utf-8", "surrogateescape").split("\n"):
        digest, sign, path = line.removeprefix("\\").partition("  ")
        if sign:
            found[_unescaped(path) if line.startswith("\\") else path] = digest
    return found


def _unescaped(path: str) -> str:
    return path.replace("\\\\", "\0").replace("\\n", "\n").replace("\\r", "\r").replace("\0", "\\")
