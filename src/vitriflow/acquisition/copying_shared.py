"""What copies share: a cap on their rate, and memory that is used again for every file."""

import mmap
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from blake3 import blake3

_BLOCK = 4 * 1024**2
_BESIDE = 256 * 1024  # bytes: less is hashed sooner than handed over


class Limiter:
    """A cap on bytes per second, shared by all copies (token bucket of one second).

    Parameters
    ----------
    bytes_per_s
        None for no cap.
    """

    def __init__(self, bytes_per_s: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        self.bytes_per_s = bytes_per_s
        self._clock = clock
        self._lock = threading.Lock()
        self._free_at = clock()  # when what was taken so far is paid for

    def take(self, n_bytes: int, stop: threading.Event) -> None:
        """Wait until so many bytes may be read; returns early when ``stop`` is set."""
        if self.bytes_per_s is None:
            return
        with self._lock:
            moment = self._clock()
            self._free_at = max(self._free_at, moment - 1.0) + n_bytes / self.bytes_per_s
            wait = self._free_at - moment
        if wait > 0:
            stop.wait(wait)


class Buffer:
    """Memory that O_DIRECT can read into, and a thread that hashes beside the disk; one for each copier.

    Used again for every file, so that memory doesn't grow with their size or number.
    """

    def __init__(self, size: int = _BLOCK) -> None:
        self.views = [memoryview(mmap.mmap(-1, size)) for _ in range(2)]  # each starts at a page
        self._helper: ThreadPoolExecutor | None = None

    def hash_beside(self, digest: blake3, part: memoryview) -> Future[Any] | None:
        """Begin to hash; wait for what is returned before the memory is used again. Small parts are done at once."""
        if len(part) < _BESIDE:
            digest.update(part)
            return None
        if self._helper is None:
            self._helper = ThreadPoolExecutor(1, thread_name_prefix="hashing")
        return self._helper.submit(digest.update, part)

    def close(self) -> None:
        """End the thread."""
        if self._helper is not None:
            self._helper.shutdown()
