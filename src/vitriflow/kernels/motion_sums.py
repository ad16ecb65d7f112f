"""The last walk: frames moved and added up, weighted, and turned into micrographs."""

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from vitriflow.kernels.dose import low_rank_weights, weights_of_frames
from vitriflow.kernels.fourier import add_times_curve, fourier_crop, frequencies
from vitriflow.kernels.frames import FrameStore
from vitriflow.kernels.motion_binned import sum_binned
from vitriflow.kernels.motion_field import MotionField
from vitriflow.kernels.motion_spectrum import GroupSpectra
from vitriflow.kernels.spectrum import Spectrum
from vitriflow.kernels.warp import spline_response, warp_accumulate

if TYPE_CHECKING:
    from vitriflow.kernels.motion import MotionSettings

__all__ = ["SUMS_BUDGET", "Sums", "add_moved_frames", "binned_shape"]

_CURVE_SAMPLES = 16384
_CURVE_STRIDE = 128
_LARGEST_GROUP = 16  # frames
SUMS_BUDGET = 900 * 1024**2  # six sums of 5760 x 4092 fit, five of 11520 x 8184 don't


@dataclass
class Sums:
    """What a movie adds up to once its motion is undone; see ``Corrected`` for the meaning."""

    micrograph: torch.Tensor
    unweighted: torch.Tensor | None
    odd: torch.Tensor | None
    even: torch.Tensor | None
    dose_weighted: bool
    pixel_size_A: float
    spectrum: Spectrum | None
    warnings: list[str] = field(default_factory=list)


def binned_shape(shape: tuple[int, int], bin_factor: float) -> tuple[int, int]:
    """Size after binning: as it was for 1, else the even size below ``size / bin_factor``."""
    if bin_factor == 1.0:
        return shape
    height, width = (2 * math.floor(size / bin_factor / 2 + 1e-6) for size in shape)
    if min(height, width) < 2:
        raise ValueError(f"binning {shape} by {bin_factor} leaves nothing")
    return (height, width)


def add_moved_frames(
    store: FrameStore,
    gain: NDArray[np.float32] | None,
    motion: MotionField,
    live: NDArray[np.int64],
    settings: "MotionSettings",
    *,
    device: str,
    threads: int,
    sums_budget_bytes: int = SUMS_BUDGET,
) -> Sums:
    """Move frames onto the first and make the sums that ``settings`` ask for.

    Parameters
    ----------
    store
        The frames, their bad pixels replaced; let go of afterwards.
    gain
        ``(height, width)`` to multiply by, or None.
    motion
        The field (px).
    live
        Numbers of the frames to add; the others weigh nothing.
    settings
        What was chosen.
    device, threads
        Where and with how many threads.
    sums_budget_bytes
        Sums at full size that would take more on the CPU are binned frame by frame instead.

    Raises
    ------
    ValueError
        When binning leaves nothing.
    """
    shape = motion.shape
    at_once, to_a_spectrum = _grouping(store.n_frames, settings)
    k, curves, factors = _plan(store.n_frames, live, settings)
    if (
        device == "cpu"
        and settings.bin_factor > 1
        and len(factors) * 4 * math.prod(shape) > sums_budget_bytes
    ):
        return _binned(store, gain, motion, live, settings, to_a_spectrum, threads)
    rows = factors
    if settings.halves:
        odd = np.arange(store.n_frames) % 2 == 0  # frame 1 is odd
        rows = np.concatenate([factors * odd, factors * ~odd])
    rows = np.concatenate([rows, np.zeros((1, store.n_frames), dtype=np.float32)])
    rows[-1, live] = 1.0
    sums = torch.zeros((len(rows), *shape), dtype=torch.float32, device=device)
    spectra = GroupSpectra(shape, settings.pixel_size_A, threads, device)
    blocks = motion.on_blocks()
    held = 0
    for start, group in store.groups(at_once):
        frames = slice(start, start + len(group))
        warp_accumulate(group, gain, blocks[frames], rows[:, frames], sums, threads=threads)
        held += len(group)
        if held >= to_a_spectrum or frames.stop == store.n_frames:
            spectra.take(sums[-1])
            sums[-1].zero_()
            held = 0
        del group  # it's a view: the movie couldn't be let go of
    store.release()
    if settings.halves:
        n = len(factors)
        halves = [
            _finish(sums[i * n : (i + 1) * n], curves[-1:], k, shape, settings, threads)[0] for i in (0, 1)
        ]
        sums[:n] += sums[n : 2 * n]
        sums = sums[:n]
    else:
        halves = []
        sums = sums[:-1]
    finished = _finish(sums, curves, k, shape, settings, threads)
    new_shape = (finished[0].shape[0], finished[0].shape[1])
    weighted = settings.dose_weighting and settings.dose_per_frame is not None
    return Sums(
        micrograph=finished[-1],
        unweighted=finished[0] if weighted and settings.unweighted else None,
        odd=halves[0] if halves else None,
        even=halves[1] if halves else None,
        dose_weighted=weighted,
        pixel_size_A=settings.pixel_size_A * shape[1] / new_shape[1],
        spectrum=spectra.result(),
        warnings=spectra.warnings,
    )


def _binned(
    store: FrameStore,
    gain: NDArray[np.float32] | None,
    motion: MotionField,
    live: NDArray[np.int64],
    settings: "MotionSettings",
    to_a_spectrum: int,
    threads: int,
) -> Sums:
    new_shape = binned_shape(motion.shape, settings.bin_factor)
    found = sum_binned(store, gain, motion, live, settings, new_shape, to_a_spectrum, threads)
    return Sums(
        micrograph=found.micrograph,
        unweighted=found.unweighted,
        odd=found.odd,
        even=found.even,
        dose_weighted=settings.dose_weighting and settings.dose_per_frame is not None,
        pixel_size_A=settings.pixel_size_A * motion.shape[1] / new_shape[1],
        spectrum=found.spectrum,
        warnings=found.warnings,
    )


def _grouping(n_frames: int, settings: "MotionSettings") -> tuple[int, int]:
    """Frames to warp at once, and frames to a spectrum.

    A spectrum is of about ``spectrum_dose`` (of 16 frames where the dose isn't known): rings stand out of the
    counting noise with the root of it. The movie is cut into such parts of nearly equal length.
    """
    dose = settings.dose_per_frame
    wanted = 16.0 if dose is None else max(1.0, settings.spectrum_dose / dose)
    parts = max(1, round(n_frames / wanted))
    length = math.ceil(n_frames / parts)
    pieces = math.ceil(length / _LARGEST_GROUP)
    return math.ceil(length / pieces), length


def _plan(
    n_frames: int, live: NDArray[np.int64], settings: "MotionSettings"
) -> tuple[NDArray[np.float64], list[NDArray[np.float64]], NDArray[np.float32]]:
    """How to make the wanted images.

    Returns frequencies ``(n_k,)`` (1/A), for each image its curves ``(n_sums, n_k)``, and the factors
    ``(n_sums, n_frames)`` of the frames in the sums.
    """
    top = math.sqrt(0.5) / settings.pixel_size_A  # the corner of the spectrum
    k = np.linspace(0.0, top, _CURVE_SAMPLES)
    plain = np.zeros((1, n_frames), dtype=np.float32)
    plain[0, live] = 1.0
    if not settings.dose_weighting or settings.dose_per_frame is None:
        return k, [np.ones((1, len(k)))], plain
    dose = {"pre_exposure": settings.pre_exposure, "voltage_kV": settings.voltage_kV}
    # The curves are smooth: some of their samples tell which sums to make, then all samples are fitted.
    sampled = [
        w for _, w in weights_of_frames(live, k[::_CURVE_STRIDE], n_frames, settings.dose_per_frame, **dose)
    ]
    some, _ = low_rank_weights(np.concatenate(sampled, axis=1), with_plain=settings.unweighted)
    solve = np.linalg.pinv(some.T.astype(np.float64))
    curve = np.zeros((len(some), len(k)))
    for piece, weights in weights_of_frames(live, k, n_frames, settings.dose_per_frame, **dose):
        curve[:, piece] = solve @ weights
    factors = np.zeros((len(some), n_frames), dtype=np.float32)
    factors[:, live] = some
    first = np.zeros((len(some), len(k)))
    first[0] = 1.0
    return k, ([first] if settings.unweighted else []) + [curve], factors


def _finish(
    sums: torch.Tensor,
    curves: list[NDArray[np.float64]],
    k: NDArray[np.float64],
    shape: tuple[int, int],
    settings: "MotionSettings",
    threads: int,
) -> list[torch.Tensor]:
    """Combine sums in Fourier space into one image for each set of curves, sharpened and binned."""
    new_shape = binned_shape(shape, settings.bin_factor)
    size = (new_shape[0], new_shape[1] // 2 + 1)
    combined = [torch.zeros(size, dtype=torch.complex64, device=sums.device) for _ in curves]
    # Frequencies of the binned images, in cycles per px of the movie.
    ky, kx = frequencies(new_shape, sums.device)
    ky, kx = ky * (new_shape[0] / shape[0]), kx * (new_shape[1] / shape[1])
    per_cycle = 1.0 / (settings.pixel_size_A * float(k[1]))
    for index, image in enumerate(sums):
        spectrum = torch.fft.rfft2(image)
        if new_shape != shape:
            spectrum = fourier_crop(spectrum, shape, new_shape)
        for total, curve in zip(combined, curves, strict=True):
            if np.any(curve[index]):
                add_times_curve(total, spectrum, curve[index], per_cycle, ky, kx, threads=threads)
        del spectrum
    scale = new_shape[0] * new_shape[1] / (shape[0] * shape[1])
    along_y, along_x = spline_response(ky), spline_response(kx)
    done = []
    for total in combined:
        total /= along_y
        total /= along_x / scale
        done.append(torch.fft.irfft2(total, s=new_shape))
    return done
