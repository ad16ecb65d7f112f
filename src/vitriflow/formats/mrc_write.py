"""MRC files written frame by frame, as a camera does, or in one go."""

import math
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from mrcfile.dtypes import HEADER_DTYPE
from numpy.typing import NDArray

from vitriflow.errors import BadParameter
from vitriflow.formats._mrc_header import IMOD_STAMP

_MODE_OF = {"int8": 0, "uint8": 0, "int16": 1, "float32": 2, "uint16": 6, "float16": 12}
_HEADER = HEADER_DTYPE.newbyteorder("<")
_VERSION = 20141


class _Statistics:
    """Minimum, maximum, mean and deviation of all pixels that passed by."""

    def __init__(self) -> None:
        self.low = math.inf
        self.high = -math.inf
        self.total = 0.0
        self.squares = 0.0
        self.count = 0

    def add(self, frame: NDArray[Any]) -> None:
        with np.errstate(all="ignore"):  # values that aren't finite are written as they are
            self.low = min(self.low, float(frame.min()))
            self.high = max(self.high, float(frame.max()))
            self.total += float(frame.sum(dtype=np.float64))
            self.squares += float(np.square(frame, dtype=np.float64).sum())
        self.count += frame.size

    def into(self, record: Any) -> None:
        if not self.count:
            return
        mean = self.total / self.count
        record["dmin"], record["dmax"], record["dmean"] = self.low, self.high, mean
        record["rms"] = math.sqrt(max(0.0, self.squares / self.count - mean * mean))


class MrcWriter:
    """Write an MRC file frame by frame; use it in a ``with`` block.

    With ``n_frames`` given, the header announces them before the first frame is written, as
    cameras do: until the last one is there, the file is seen as growing. Without it, the
    header announces none until the file is closed.

    ``uint8`` becomes mode 0 with IMOD's flag for unsigned bytes; RELION reads mode 0 as signed,
    so values above 127 are for programs that know the flag. ``float16`` (mode 12) can't be read
    by RELION before version 4. What steps hand to RELION is ``float32``.

    Parameters
    ----------
    path
        Where to write; an existing file is replaced.
    shape
        ``(height, width)`` in pixels.
    dtype
        int8, uint8, int16, uint16, float32 or float16.
    pixel_size_A
        Pixel size (A); None leaves it out.
    n_frames
        Number of frames, where it's known beforehand.
    label
        Text for the header, up to 80 ASCII characters; others become question marks.
    """

    def __init__(
        self,
        path: Path,
        shape: tuple[int, int],
        dtype: Any,
        pixel_size_A: float | None = None,
        n_frames: int | None = None,
        label: str = "",
    ) -> None:
        self.path = Path(path)
        self.shape = (int(shape[0]), int(shape[1]))
        self.dtype = np.dtype(dtype)
        if self.dtype.name not in _MODE_OF:
            raise BadParameter(
                f"type of the values of {self.path.name}",
                expected="one of " + ", ".join(_MODE_OF),
                found=self.dtype.name,
                remedy="Convert the frames first.",
            )
        self._announced = n_frames
        self._pixel_size_A = pixel_size_A
        self._label = label.encode("ascii", "replace")[:80]
        # Statistics of a movie's integers cost time and serve nobody.
        self._statistics = _Statistics() if self.dtype.kind == "f" else None
        self.n_written = 0
        self._file = self.path.open("wb")
        self._file.write(self._header(n_frames or 0))
        self._file.flush()

    def _header(self, n_frames: int) -> bytes:
        record = np.zeros(1, _HEADER)[0]
        height, width = self.shape
        record["nx"], record["ny"], record["nz"] = width, height, n_frames
        record["mx"], record["my"], record["mz"] = width, height, 1  # a stack, not a volume
        record["mode"] = _MODE_OF[self.dtype.name]
        if self._pixel_size_A is not None:
            size = self._pixel_size_A
            record["cella"] = (size * width, size * height, size)
        record["cellb"] = (90.0, 90.0, 90.0)
        record["mapc"], record["mapr"], record["maps"] = 1, 2, 3
        # The standard's way to say "not determined": a maximum below the minimum.
        record["dmin"], record["dmax"], record["dmean"], record["rms"] = 0.0, -1.0, -2.0, -1.0
        if self._statistics is not None:
            self._statistics.into(record)
        record["nversion"] = _VERSION
        if self.dtype.name in {"int8", "uint8"}:
            flags = 1 if self.dtype.name == "int8" else 0
            words = np.zeros(21, "<i4")
            words[10:12] = IMOD_STAMP, flags
            record["extra2"] = words.tobytes()
        record["map"] = b"MAP "
        record["machst"] = (0x44, 0x44, 0, 0)
        if self._label:
            record["nlabl"] = 1
            record["label"][0] = self._label
        data: bytes = record.tobytes()
        return data

    def write(self, frame: NDArray[Any]) -> None:
        """Append one frame ``(height, width)``; it's on its way to the disk when this returns.

        Raises
        ------
        BadParameter
            When its shape is another, or its values don't fit the type of the file.
        OSError
            When the disk is full or gone.
        """
        if self._announced is not None and self.n_written >= self._announced:
            raise BadParameter(self.path.name, f"{self._announced} frames", "one more", "Announce them all.")
        self._file.write(as_frame(frame, self.shape, self.dtype, self.path, self._statistics))
        self._file.flush()
        self.n_written += 1

    def close(self) -> None:
        """Finish the header and close the file.

        With fewer frames than were announced the file stays short, as one cut off by a crash.
        """
        if self._file.closed:
            return
        try:
            self._file.seek(0)
            self._file.write(self._header(self.n_written if self._announced is None else self._announced))
        finally:
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def as_frame(
    frame: NDArray[Any],
    shape: tuple[int, int],
    dtype: np.dtype[Any],
    path: Path,
    statistics: _Statistics | None = None,
) -> bytes:
    """The bytes of a frame in the file's type, little-endian, refusing values that don't fit."""
    frame = np.asarray(frame)
    if frame.shape != shape:
        raise BadParameter(f"a frame of {path.name}", f"{shape[0]} x {shape[1]}", f"{frame.shape}")
    if frame.dtype != dtype and dtype.kind in "iu" and frame.size:
        limits = np.iinfo(dtype)
        low, high = frame.min(), frame.max()
        if not (low >= limits.min and high <= limits.max):
            raise BadParameter(
                f"values of a frame of {path.name}",
                expected=f"{limits.min} to {limits.max}, which fit {dtype.name}",
                found=f"{low} to {high}",
                remedy="Write a wider type.",
            )
    converted = np.ascontiguousarray(frame, dtype=dtype.newbyteorder("<"))
    if statistics is not None and converted.size:
        statistics.add(converted)
    return converted.tobytes()


def write_mrc(
    path: Path,
    frames: NDArray[Any] | Iterable[NDArray[Any]],
    pixel_size_A: float | None,
    n_frames: int | None = None,
    label: str = "",
) -> None:
    """Write an image or a movie as MRC. The type of the (first) array decides the mode.

    float64 is written as float32. Atomicity is the caller's: this writes to the path given.

    Parameters
    ----------
    path
        Where to write; an existing file is replaced.
    frames
        One array ``(height, width)``, or an iterable of such arrays, in MRC order.
    pixel_size_A
        Pixel size (A); None leaves it out.
    n_frames
        Number of frames of an iterable, where it's known.
    label
        Text for the header, up to 80 ASCII characters.

    Raises
    ------
    BadParameter
        When there are no frames, or they differ in shape, or values don't fit.
    """
    if isinstance(frames, np.ndarray) and frames.ndim == 2:
        frames, n_frames = [frames], 1
    elif isinstance(frames, np.ndarray):
        n_frames = len(frames)
    writer: MrcWriter | None = None
    try:
        for frame in frames:
            if writer is None:
                dtype = np.dtype(np.float32) if frame.dtype == np.float64 else frame.dtype.newbyteorder("=")
                writer = MrcWriter(path, frame.shape, dtype, pixel_size_A, n_frames, label)
            writer.write(frame)
    finally:
        if writer is not None:
            writer.close()
    if writer is None:
        raise BadParameter(f"frames for {Path(path).name}", "at least one frame", "none")
