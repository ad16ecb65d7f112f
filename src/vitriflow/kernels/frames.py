"""Frames of a movie, in groups, as often as asked: from memory where they fit, else read again."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vitriflow.kernels.frames_numba import add_rows, pool_rows
from vitriflow.kernels.gain import Repairs

__all__ = ["FrameStore", "add_frames", "in_pieces", "in_threads", "pool_frames"]

Frame = NDArray[Any]


def in_pieces(work: Callable[[int, int], None], n_rows: int, threads: int) -> None:
    """Call ``work(first, last)`` on pieces of ``n_rows`` rows, in threads; it has to release the GIL."""
    pieces = min(n_rows, 4 * threads) if threads > 1 else 1
    edges = np.linspace(0, n_rows, pieces + 1).astype(int)
    if pieces <= 1:
        work(0, n_rows)
        return
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda i: work(int(edges[i]), int(edges[i + 1])), range(pieces)))


def in_threads(work: Callable[[int], None], n: int, threads: int) -> None:
    """Call ``work(0)`` to ``work(n - 1)`` in ``threads`` threads, each with torch on one core.

    Many small torch operations are shared out better whole than each of them over the cores.
    """
    before = torch.get_num_threads()
    try:
        # In the calling thread too: on a busy machine cores that wait for each other inside of small
        # operations cost more than they help (ten times, for transforms of 700 px).
        torch.set_num_threads(1)
        if threads <= 1 or n <= 1:
            for index in range(n):
                work(index)
            return
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            list(pool.map(work, range(n)))
    finally:
        torch.set_num_threads(before)


class FrameStore:
    """Frames of one movie that can be walked through several times.

    Parameters
    ----------
    source
        Called for each walk that can't be served from memory; gives the frames in order, each
        ``(height, width)``, counts of one type.
    n_frames
        How many there are.
    budget_bytes
        Keep them all in memory, as they came, when they fit into this much; else ``source`` is
        asked again on each walk.
    """

    def __init__(self, source: Callable[[], Iterable[Frame]], n_frames: int, budget_bytes: int) -> None:
        self._source = source
        self._budget = budget_bytes
        self._kept: Frame | None = None
        self._repaired = False
        self.n_frames = n_frames
        self.repairs: Repairs | None = None

    @property
    def kept(self) -> bool:
        """Whether the whole movie is in memory."""
        return self._kept is not None

    def release(self) -> None:
        """Give the memory back; the next walk asks the source again."""
        self._kept = None
        self._repaired = False

    def groups(self, size: int) -> Iterator[tuple[int, Frame]]:
        """Walk through the movie: ``(number of the first frame, (n, height, width))``, n up to ``size``.

        Bad pixels are replaced once ``repairs`` is set. A group is valid until the next is asked for.
        """
        if self._kept is not None:
            if self.repairs is not None and not self._repaired:
                for number in range(self.n_frames):
                    self.repairs.apply(self._kept[number], number)
                self._repaired = True
            for start in range(0, self.n_frames, size):
                yield start, self._kept[start : start + size]
            return
        yield from self._walk(size)

    def _walk(self, size: int) -> Iterator[tuple[int, Frame]]:
        whole: Frame | None = None
        buffer: Frame | None = None
        start = count = 0
        for number, frame in enumerate(self._source()):
            values = frame.astype(np.float32) if frame.dtype == np.float16 else frame
            if number == 0 and values.nbytes * self.n_frames <= self._budget:
                whole = np.empty((self.n_frames, *values.shape), dtype=values.dtype)
            if whole is not None:
                target = whole
            else:
                if buffer is None:
                    buffer = np.empty((min(size, self.n_frames), *values.shape), dtype=values.dtype)
                target = buffer
            place = number if whole is not None else count
            target[place] = values
            if whole is None and self.repairs is not None:
                self.repairs.apply(target[place], number)
            count += 1
            if count == size or number == self.n_frames - 1:
                yield start, target[place - count + 1 : place + 1]
                start, count = number + 1, 0
        if start != self.n_frames:
            raise ValueError(f"the movie gave {start + count} frames where {self.n_frames} were announced")
        self._kept = whole


def add_frames(frames: Frame, total: NDArray[np.float32], threads: int = 1) -> NDArray[np.float64]:
    """Add frames to ``total`` in place, as they are.

    Parameters
    ----------
    frames
        ``(n, height, width)``.
    total
        ``(height, width)``.
    threads
        CPU threads.

    Returns
    -------
    numpy.ndarray
        ``(n,)``: sum of each frame's values; not finite where a value isn't.
    """
    rows = np.zeros((frames.shape[0], frames.shape[1]), dtype=np.float64)
    in_pieces(lambda first, last: add_rows(frames, total, rows, first, last), frames.shape[1], threads)
    return np.asarray(rows.sum(axis=1))


def pool_frames(
    frames: Frame, factor: NDArray[np.float32] | None, pool: int, threads: int = 1
) -> NDArray[np.float32]:
    """Means of ``pool`` x ``pool`` pixels, gain included.

    Parameters
    ----------
    frames
        ``(n, height, width)``.
    factor
        ``(height, width)`` gain to multiply by, or None.
    pool
        Pixels to a side; what is left over at the far edges is dropped.
    threads
        CPU threads.

    Returns
    -------
    numpy.ndarray
        ``(n, height // pool, width // pool)``.
    """
    n, height, width = frames.shape
    pooled = np.zeros((n, height // pool, width // pool), dtype=np.float32)
    gain = np.ones((1, 1), dtype=np.float32) if factor is None else factor
    in_pieces(
        lambda first, last: pool_rows(frames, gain, factor is not None, pool, pooled, first, last),
        height // pool,
        threads,
    )
    return pooled
