"""What every movie offers, whatever its format."""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray


class Movie(ABC):
    """Frames of one exposure, read one at a time; the movie is never held whole.

    Every frame is a contiguous 2-D array ``(height, width)`` in native byte order whose row 0
    is the bottom of the picture as people see it, as in MRC. TIFF movies are flipped in y on
    reading, as RELION does; MRC and EER are not.

    Attributes
    ----------
    path
        The file.
    format
        ``mrc``, ``tiff`` or ``eer``.
    shape
        ``(height, width)`` of a frame in pixels.
    dtype
        Type of the values, as stored.
    n_frames
        Number of frames (for EER: of fractions after grouping).
    pixel_size_A
        What the file says, or None where it says nothing usable.
    raw_frames_per_frame
        Raw camera frames summed into one of ours; 1 but for EER.
    n_raw_frames
        Raw camera frames in the file; the same as ``n_frames`` but for EER.
    metadata
        What the file's own header says, as text.
    """

    format: str = ""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.shape: tuple[int, int] = (0, 0)
        self.dtype: np.dtype[Any] = np.dtype(np.uint8)
        self.n_frames = 0
        self.pixel_size_A: float | None = None
        self.raw_frames_per_frame = 1
        self.n_raw_frames = 0
        self.metadata: dict[str, str] = {}

    @abstractmethod
    def _read(self, index: int) -> NDArray[Any]:
        """Frame ``index``; called from several threads at a time."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the file."""

    def frame(self, index: int) -> NDArray[Any]:
        """One frame, counted from 0; negative counts from the end.

        Raises
        ------
        IndexError
            When there is no such frame.
        BadFile
            When the file was cut short or its data can't be decoded.
        """
        position = index + self.n_frames if index < 0 else index
        if not 0 <= position < self.n_frames:
            raise IndexError(f"{self.path.name} has {self.n_frames} frames; there is no frame {index}")
        return self._read(position)

    def frames(self, start: int = 0, stop: int | None = None, workers: int = 1) -> Iterator[NDArray[Any]]:
        """Frames ``start`` to ``stop`` (not included) in order, decoded in up to ``workers`` threads.

        At most ``workers + 1`` frames are held at any time besides the one handed out.

        Raises
        ------
        BadFile
            When the file was cut short or its data can't be decoded.
        """
        wanted = range(*slice(start, stop).indices(self.n_frames))
        if workers <= 1 or len(wanted) < 2:
            for index in wanted:
                yield self._read(index)
            return
        pool = ThreadPoolExecutor(workers, thread_name_prefix="decode")
        ahead: deque[Future[NDArray[Any]]] = deque()
        try:
            for index in wanted:
                ahead.append(pool.submit(self._read, index))
                if len(ahead) > workers:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
