"""The last walk for frames too large to be summed at full size: each is moved, cut in Fourier space, and added.

A movie of a super-resolution camera has four times the pixels of the micrograph that's wanted of it.
Sums at full size, as :mod:`vitriflow.kernels.motion_sums` makes them, would take gigabytes. Here one
frame at a time is moved in bands of rows; a band's rows are transformed and only the columns that stay are
kept; then the columns are transformed and only the rows that stay are kept. That is Fourier cropping,
exactly, and everything that lasts has the size of the micrograph.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from vitriflow.kernels.dose import weights_of_frames
from vitriflow.kernels.fourier import add_times_curve, frequencies
from vitriflow.kernels.frames import FrameStore, in_threads
from vitriflow.kernels.motion_field import MotionField
from vitriflow.kernels.motion_spectrum import GroupSpectra
from vitriflow.kernels.spectrum import Spectrum
from vitriflow.kernels.warp import BLOCK_Y, spline_response, warp_band

if TYPE_CHECKING:
    from vitriflow.kernels.motion import MotionSettings

__all__ = ["BinnedSums", "sum_binned"]

_BAND = 16 * BLOCK_Y  # rows moved and transformed at once
_COLUMNS = 256  # transformed at once
_CURVE_SAMPLES = 16384


@dataclass
class BinnedSums:
    """Sums at the micrograph's size.

    Attributes
    ----------
    micrograph, unweighted, odd, even
        ``new_shape``, or None where not asked for.
    spectrum
        Of groups of frames, or None where the image is too small.
    warnings
        What people should know.
    """

    micrograph: torch.Tensor
    unweighted: torch.Tensor | None
    odd: torch.Tensor | None
    even: torch.Tensor | None
    spectrum: Spectrum | None
    warnings: list[str]


def sum_binned(
    store: FrameStore,
    gain: NDArray[np.float32] | None,
    motion: MotionField,
    live: NDArray[np.int64],
    settings: "MotionSettings",
    new_shape: tuple[int, int],
    to_a_spectrum: int,
    threads: int,
) -> BinnedSums:
    """Move frames onto the first and add them up at ``new_shape``.

    Parameters
    ----------
    store
        The frames, their bad pixels replaced; read one or two at a time.
    gain
        ``(height, width)`` to multiply by, or None.
    motion
        The field, in pixels of the frames.
    live
        Numbers of the frames to add.
    settings
        What was chosen.
    new_shape
        ``(height, width)`` of the micrograph.
    to_a_spectrum
        Frames to each of the spectra that are averaged.
    threads
        CPU threads.
    """
    shape = motion.shape
    mover = _Mover(motion, gain, new_shape, threads)
    weights, per_cycle = _frame_weights(store.n_frames, live, settings)
    weighted: dict[int, torch.Tensor] = {}
    plain = mover.empty() if weights is None or settings.unweighted else None
    group = mover.empty()
    spectra = GroupSpectra(
        new_shape, settings.pixel_size_A * shape[1] / new_shape[1], threads, "cpu", sharpened=True
    )
    held = 0
    chosen = {int(number) for number in live}
    for number, frames in store.groups(1):
        held += 1
        if number in chosen:
            spectrum = mover.spectrum(frames[0], number)
            group += spectrum
            half = number % 2 if settings.halves else 0
            if half not in weighted and (weights is not None or settings.halves):
                weighted[half] = mover.empty()
            if weights is not None:
                add_times_curve(
                    *(weighted[half], spectrum, weights[number]),
                    *(per_cycle, mover.ky, mover.kx),
                    threads=threads,
                )
            elif settings.halves:
                weighted[half] += spectrum
        if held >= to_a_spectrum or number == store.n_frames - 1:
            if plain is not None:
                plain += group
            spectra.take(mover.image(group))
            group.zero_()
            held = 0
    store.release()
    mover.release()
    del group
    unweighted = None if plain is None else mover.image(plain)
    odd, even = (mover.image(weighted.get(i, mover.empty())) if settings.halves else None for i in (0, 1))
    if weights is None:
        assert unweighted is not None
        micrograph, unweighted = unweighted, None
    elif odd is not None and even is not None:
        micrograph = odd + even
    else:
        micrograph = mover.image(weighted.pop(0))
    return BinnedSums(micrograph, unweighted, odd, even, spectra.result(), spectra.warnings)


def _frame_weights(
    n_frames: int, live: NDArray[np.int64], settings: "MotionSettings"
) -> tuple[NDArray[np.float32] | None, float]:
    """Dose weights ``(n_frames, n_k)`` and samples to one cycle/px of the movie; None for plain sums."""
    k = np.linspace(0.0, np.sqrt(0.5) / settings.pixel_size_A, _CURVE_SAMPLES)
    per_cycle = 1.0 / (settings.pixel_size_A * float(k[1]))
    if not settings.dose_weighting or settings.dose_per_frame is None:
        return None, per_cycle
    table = np.zeros((n_frames, _CURVE_SAMPLES), dtype=np.float32)
    for piece, weights in weights_of_frames(
        live,
        k,
        n_frames,
        settings.dose_per_frame,
        pre_exposure=settings.pre_exposure,
        voltage_kV=settings.voltage_kV,
    ):
        table[live, piece] = weights
    return table, per_cycle


class _Mover:
    """Moves single frames, and transforms them to the part of their spectrum that is kept."""

    def __init__(
        self, motion: MotionField, gain: NDArray[np.float32] | None, new_shape: tuple[int, int], threads: int
    ) -> None:
        self._shape = motion.shape
        self._new_shape = new_shape
        self._gain = gain
        self._threads = threads
        self._blocks = motion.on_blocks()
        self._size = (new_shape[0], new_shape[1] // 2 + 1)
        self._half = torch.empty((motion.shape[0], self._size[1]), dtype=torch.complex64)
        ky, kx = frequencies(new_shape)
        self.ky = ky * (new_shape[0] / motion.shape[0])
        """Frequencies of the rows that are kept (cycles/px of the movie)."""
        self.kx = kx * (new_shape[1] / motion.shape[1])

    def release(self) -> None:
        """Let go of what only :meth:`spectrum` needs."""
        self._half = torch.empty((0, 0), dtype=torch.complex64)

    def empty(self) -> torch.Tensor:
        """Zeros of the size of a spectrum that is kept."""
        return torch.zeros(self._size, dtype=torch.complex64)

    def spectrum(self, frame: NDArray[np.generic], number: int) -> torch.Tensor:
        """Cropped transform of one frame, moved; without the division by the spline's response."""
        height, width = self._shape
        bands = range(0, height, _BAND)
        columns = range(0, self._size[1], _COLUMNS)
        shifts = self._blocks[number : number + 1]
        kept = self.empty()
        above, below = (self._new_shape[0] + 1) // 2, self._new_shape[0] // 2

        def along_x(index: int) -> None:
            first, last = bands[index], min(bands[index] + _BAND, height)
            moved = torch.zeros((1, last - first, width), dtype=torch.float32)
            warp_band(frame[None], self._gain, shifts, moved, first)
            self._half[first:last] = torch.fft.rfft(moved[0], dim=1)[:, : self._size[1]]

        def along_y(index: int) -> None:
            part = slice(columns[index], columns[index] + _COLUMNS)
            whole = torch.fft.fft(self._half[:, part].T.contiguous(), dim=1)
            kept[:above, part] = whole[:, :above].T
            kept[above:, part] = whole[:, height - below :].T

        in_threads(along_x, len(bands), self._threads)
        in_threads(along_y, len(columns), self._threads)
        if self._new_shape[0] % 2 == 0 and self._new_shape[0] < height:
            kept[above] = 0  # half of each Nyquist line lies outside
        if self._new_shape[1] % 2 == 0 and self._new_shape[1] < width:
            kept[:, -1] = 0
        return kept

    def image(self, total: torch.Tensor) -> torch.Tensor:
        """The image of a sum of spectra, ``new_shape``, grey values kept, the spline's response undone."""
        scale = self._new_shape[0] * self._new_shape[1] / (self._shape[0] * self._shape[1])
        sharp = total / spline_response(self.ky)
        sharp /= spline_response(self.kx) / scale
        image: torch.Tensor = torch.fft.irfft2(sharp, s=self._new_shape)
        return image
