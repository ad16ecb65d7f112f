"""TIFF and BigTIFF movies written page by page, as a camera does."""

from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import tifffile
from numpy.typing import NDArray

from vitriflow.errors import BadParameter

_CODECS: dict[str, str | None] = {"none": None, "lzw": "lzw", "deflate": "zlib", "zstd": "zstd"}
_CLASSIC_LIMIT = 3_900_000_000


class TiffWriter:
    """Write a TIFF movie page by page; use it in a ``with`` block.

    Frames come in MRC order and are flipped in y, so that row 0 of the file is the top of the
    picture. The chain of pages is closed after each frame, so that a growing file looks whole
    between two frames: that's how cameras' own writers behave.

    Parameters
    ----------
    path
        Where to write; an existing file is replaced.
    compression
        ``none``, ``lzw``, ``deflate`` or ``zstd``. RELION 3.1 reads the first three.
    pixel_size_A
        Pixel size (A), stored as resolution; None leaves it out.
    big
        BigTIFF, needed above 4 GB.
    """

    def __init__(
        self, path: Path, compression: str = "lzw", pixel_size_A: float | None = None, big: bool = False
    ) -> None:
        self.path = Path(path)
        if compression not in _CODECS:
            raise BadParameter("compression", "one of " + ", ".join(_CODECS), repr(compression))
        self._codec = _CODECS[compression]
        self._resolution = None if pixel_size_A is None else (1.0e8 / pixel_size_A, 1.0e8 / pixel_size_A)
        self.n_written = 0
        self._tiff: Any = tifffile.TiffWriter(self.path, bigtiff=big)
        self._shape: tuple[int, ...] = ()
        self._dtype: np.dtype[Any] | None = None

    def write(self, frame: NDArray[Any]) -> None:
        """Append one frame ``(height, width)``, row 0 being the bottom of the picture.

        Raises
        ------
        BadParameter
            When it differs from the first in shape or type.
        """
        frame = np.asarray(frame)
        if self._dtype is None:
            self._shape, self._dtype = frame.shape, frame.dtype
        if frame.ndim != 2 or frame.shape != self._shape or frame.dtype != self._dtype:
            raise BadParameter(
                f"frame {self.n_written + 1} of {self.path.name}",
                expected=f"{self._dtype} of shape {self._shape}, with two dimensions",
                found=f"{frame.dtype} of shape {frame.shape}",
            )
        self._tiff.write(
            np.ascontiguousarray(frame[::-1]),
            contiguous=False,
            compression=self._codec,
            metadata=None,
            photometric="minisblack",
            resolution=self._resolution,
            resolutionunit=None if self._resolution is None else "CENTIMETER",
            rowsperstrip=frame.shape[0],
            software="vitriflow",
        )
        self._tiff.filehandle.flush()
        self.n_written += 1

    def close(self) -> None:
        """Close the file."""
        self._tiff.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def write_tiff_movie(
    path: Path,
    frames: NDArray[Any] | Iterable[NDArray[Any]],
    compression: str = "lzw",
    pixel_size_A: float | None = None,
) -> None:
    """Write a TIFF movie; frames ``(height, width)`` in MRC order.

    An array above 3.9 GB makes a BigTIFF; for an iterable use :class:`TiffWriter` and say so.

    Raises
    ------
    BadParameter
        When there are no frames, or they differ in shape or type.
    """
    big = isinstance(frames, np.ndarray) and frames.nbytes > _CLASSIC_LIMIT
    with TiffWriter(path, compression, pixel_size_A, big) as writer:
        for frame in frames:
            writer.write(frame)
        if writer.n_written == 0:
            raise BadParameter(f"frames for {Path(path).name}", "at least one frame", "none")
