"""Random reads of a file that may be growing, be replaced, or vanish while we look at it."""

import errno
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from vitriflow.errors import BadFile, Reason

_GONE = {errno.ENOENT, errno.ESTALE, errno.ENOTCONN, errno.ENODEV, errno.EHOSTDOWN, errno.ENXIO}


def broken_read(path: Path, error: OSError) -> BadFile:
    """Our error for an operating system's error while opening or reading ``path``."""
    if error.errno in _GONE:
        return BadFile(
            Reason.VANISHED,
            str(path),
            expected="a readable file",
            found=error.strerror or "nothing there",
            remedy="Check that the folder is mounted and that the file wasn't moved.",
        )
    return BadFile(
        Reason.UNREADABLE,
        str(path),
        expected="a readable file",
        found=error.strerror or str(error),
        remedy="Check the permissions, and that it's a plain file on a healthy disk.",
    )


class RawFile:
    """Bytes of a file by position. Thread safe: there is no current position.

    Raises
    ------
    BadFile
        When the file can't be opened or read (``file.vanished``, ``file.unreadable``).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._fd = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        except OSError as error:
            raise broken_read(path, error) from error
        except ValueError as error:  # a zero byte in the name
            raise broken_read(path, OSError(errno.EINVAL, str(error))) from error

    def size(self) -> int:
        """Size of the file now (bytes)."""
        try:
            return os.fstat(self._fd).st_size
        except OSError as error:
            raise broken_read(self.path, error) from error

    def read(self, offset: int, n_bytes: int) -> bytes:
        """Up to ``n_bytes`` from ``offset``; fewer only where the file ends."""
        parts: list[bytes] = []
        n_bytes = min(n_bytes, self.size() - offset)  # a damaged header can ask for anything
        if offset < 0:
            return b""
        try:
            while n_bytes > 0:
                part = os.pread(self._fd, n_bytes, offset)
                if not part:
                    break
                parts.append(part)
                offset += len(part)
                n_bytes -= len(part)
        except OSError as error:
            raise broken_read(self.path, error) from error
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def read_into(self, buffer: memoryview, offset: int) -> int:
        """Fill a writable, contiguous byte buffer; returns how many bytes there were."""
        done = 0
        try:
            while done < len(buffer):
                n_read = os.preadv(self._fd, [buffer[done:]], offset + done)
                if n_read == 0:
                    break
                done += n_read
        except OSError as error:
            raise broken_read(self.path, error) from error
        return done

    def close(self) -> None:
        """Close the file; reading after that is an error. Closing twice is not."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
