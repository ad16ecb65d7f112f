"""Movies to disk: in their format, with faults on request, and slowly."""

import io
import os
import time
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import tifffile
from numba import njit
from numpy.typing import NDArray
from PIL import Image as Picture

from vitriflow.formats import EerWriter, MrcWriter, TiffWriter, write_mrc
from vitriflow.simulate.movie import SimulatedMovie
from vitriflow.simulate.plan import Fault, FileFormat, SessionSpec

_CHUNK = 1 << 20
_TICK_S = 0.05
_PREVIEW_PX = 512


def write_movie(movie: SimulatedMovie, path: Path, session: SessionSpec, fault: Fault | None) -> bytes:
    """Write a movie at full speed; return a JPEG of its sum.

    Faults of the pixels are put in here; those of the file are left to `spoil`.
    """
    picture = _Preview()
    frames = picture.watch(_spoilt(movie, fault))
    pixel = movie.spec.pixel_size_A
    if session.format is FileFormat.MRC:
        height, width = movie.spec.shape
        shape = (height - 32, width) if fault is Fault.WRONG_SIZE else (height, width)
        dtype = "float32" if fault is Fault.NAN else movie.spec.dtype
        with MrcWriter(path, shape, dtype, pixel, movie.spec.n_frames, "vitriflow simulate") as mrc:
            for frame in frames:
                mrc.write(frame)
    elif session.format is FileFormat.EER:
        _write_eer(frames, path, session, movie)
    else:
        with TiffWriter(path, session.format.compression, pixel) as tiff:
            for frame in frames:
                tiff.write(frame)
    return picture.jpeg()


def _spoilt(movie: SimulatedMovie, fault: Fault | None) -> Iterator[NDArray[Any]]:
    """Frames with a fault of the pixels, if that's the fault."""
    for number, frame in enumerate(movie):
        if fault is Fault.ZEROS:
            yield np.zeros_like(frame)
        elif fault is Fault.CONSTANT:
            yield np.ones_like(frame)
        elif fault is Fault.WRONG_SIZE:
            yield frame[:-32]
        elif fault is Fault.NAN:
            broken = frame.astype(np.float32)
            if number == movie.spec.n_frames // 2:
                broken[: frame.shape[0] // 4] = np.nan
            yield broken
        else:
            yield frame


class _Preview:
    """Keeps a small sum of the frames that pass by."""

    def __init__(self) -> None:
        self._sum: NDArray[np.float32] | None = None

    def watch(self, frames: Iterable[NDArray[Any]]) -> Iterator[NDArray[Any]]:
        for frame in frames:
            step = max(1, max(frame.shape) // _PREVIEW_PX)
            height, width = (side // step * step for side in frame.shape)
            tiles = frame[:height, :width].reshape(height // step, step, width // step, step)
            small = tiles.mean(axis=(1, 3), dtype=np.float32)
            self._sum = small if self._sum is None else self._sum + small
            yield frame

    def jpeg(self) -> bytes:
        """The sum as a picture, row 0 at the bottom as people see it."""
        image = np.nan_to_num(np.zeros((8, 8), np.float32) if self._sum is None else self._sum)
        low, high = np.percentile(image, [1, 99])
        scaled = np.clip((image - low) / max(high - low, 1e-6), 0, 1)
        buffer = io.BytesIO()
        Picture.fromarray((255 * scaled[::-1]).astype(np.uint8)).save(buffer, "JPEG", quality=85)
        return buffer.getvalue()


def _write_eer(
    frames: Iterable[NDArray[Any]], path: Path, session: SessionSpec, movie: SimulatedMovie
) -> None:
    """Spread each frame's electrons over its raw frames; a pixel counts once a raw frame."""
    spread = session.eer_frames_per_fraction
    rng = np.random.default_rng([movie.spec.seed, 0xEE2])
    n_raw = spread * movie.spec.n_frames
    metadata = {
        "numberOfFrames": str(n_raw),
        "exposureTime": f"{n_raw * 0.004:.3f}",
        "totalDose": f"{movie.spec.total_dose_e_per_A2 * movie.spec.pixel_size_A**2:.4f}",
        "sensorImageHeight": str(movie.spec.shape[0]),
        "sensorImageWidth": str(movie.spec.shape[1]),
    }
    writer: EerWriter | None = None
    try:
        for frame in frames:
            if writer is None:
                writer = EerWriter(path, (frame.shape[0], frame.shape[1]), metadata)
            for events in scatter_in_time(frame, spread, rng):
                y, x = np.divmod(events, frame.shape[1])
                inside = rng.integers(0, 4, size=(2, len(events)))
                writer.write_events(4 * y + inside[0], 4 * x + inside[1])
    finally:
        if writer is not None:
            writer.close()


@njit(cache=True, nogil=True)
def _scatter(counts, starts, n_raw):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    """Pixels sorted by raw frame, and where each raw frame begins among them."""
    bounds = np.zeros(n_raw + 1, np.int64)
    for i in range(counts.size):
        n = min(counts[i], n_raw)
        for j in range(n):
            bounds[(starts[i] + j * (n_raw // n)) % n_raw + 1] += 1
    bounds = np.cumsum(bounds)
    place = bounds[:-1].copy()
    pixels = np.empty(bounds[-1], np.int64)
    for i in range(counts.size):
        n = min(counts[i], n_raw)
        for j in range(n):
            raw = (starts[i] + j * (n_raw // n)) % n_raw
            pixels[place[raw]] = i
            place[raw] += 1
    return pixels, bounds


def scatter_in_time(
    counts: NDArray[Any], n_raw: int, rng: np.random.Generator
) -> Iterator[NDArray[np.int64]]:
    """Pixels (flat index, ascending) that count in each of ``n_raw`` raw frames.

    Each electron falls into a random raw frame; two in one pixel never into the same one (they
    go on in even strides from the first), so a pixel can't count more often than there are raw frames.
    """
    flat = counts.reshape(-1).astype(np.int64)
    pixels, bounds = _scatter(flat, rng.integers(0, n_raw, flat.size, dtype=np.int16), n_raw)
    for first, last in pairwise(bounds):
        yield pixels[first:last]


def write_gain(path: Path, gain: NDArray[np.float32], pixel_size_A: float) -> None:
    """Write a gain reference (multiply convention): MRC, or the TIFF that ``.gain`` files are."""
    if path.suffix == ".gain":
        # not flipped: EER's own references lie as the events do
        tifffile.imwrite(path, gain, metadata=None, photometric="minisblack")
    else:
        write_mrc(path, gain, pixel_size_A)


def spoil(data_path: Path, fault: Fault | None, seed: int) -> None:
    """Put a fault of the file, not of its pixels, into a whole file."""
    size = data_path.stat().st_size
    if fault is Fault.TRUNCATED:
        os.truncate(data_path, int(0.6 * size))
    elif fault is Fault.EMPTY:
        os.truncate(data_path, 0)
    elif fault is Fault.GARBAGE:
        data_path.write_bytes(np.random.default_rng([seed, 13]).bytes(min(size, 1 << 20)))


def trickle(source: Path, target: Path, seconds: float, stop: Event) -> bool:
    """Copy a file in pieces at an even pace, so that it's seen half-written.

    Returns
    -------
    bool
        False when ``stop`` was set before the end; the file then stays as it is, cut off.
    """
    size = source.stat().st_size
    started = time.monotonic()
    with source.open("rb") as reader, target.open("xb") as writer:
        written = 0
        while not stop.is_set():
            part = 1.0 if seconds <= 0 else min((time.monotonic() - started + _TICK_S) / seconds, 1.0)
            goal = size if part >= 1.0 else int(part * size)
            while written < goal:
                piece = reader.read(min(_CHUNK, goal - written))
                if not piece:
                    break
                writer.write(piece)
                written += len(piece)
            writer.flush()
            if written >= size:
                return True
            stop.wait(_TICK_S)
    return False
