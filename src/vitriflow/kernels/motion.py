"""Motion correction of one movie: what moved, and the sums with it undone.

Two or three walks through the frames. The first adds them up as they are and finds what is wrong
with pixels and frames. The second keeps them pooled, small enough for memory, and the motion is
found on those. The last shifts the frames and adds them into a handful of sums, from which the
dose-weighted and plain micrographs follow with one Fourier transform each.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vitriflow.errors import BadImage, BrokenInvariant, Reason
from vitriflow.kernels.frames import FrameStore, add_frames, pool_frames
from vitriflow.kernels.gain import Repairs, find_hot_pixels, plan_repairs
from vitriflow.kernels.likeness import blocks
from vitriflow.kernels.motion_checks import PatternProbe, check_frames, check_shifts, check_sums
from vitriflow.kernels.motion_field import N_TERMS, MotionField
from vitriflow.kernels.motion_refine import Refinement, refine_field
from vitriflow.kernels.motion_search import search_shifts
from vitriflow.kernels.motion_stack import moved_frames
from vitriflow.kernels.motion_steps import all_frames, centres, choose_pool, in_steps
from vitriflow.kernels.motion_sums import SUMS_BUDGET, add_moved_frames
from vitriflow.kernels.spectrum import Spectrum

__all__ = ["Corrected", "MotionSettings", "correct_movie"]

_GROUP, _GROUP_PIXELS = 8, 2**28  # frames handled together on the first two walks, and their pixels at most
_FRAME_BUDGET = 800 * 1024**2  # movies up to this size are decoded once and kept
_PATTERN_WARNS, _PATTERN_FAILS = 0.1, 0.5


@dataclass(frozen=True)
class MotionSettings:
    """What a person can choose. Lengths of images in pixels of the movie, doses in e/A^2.

    Attributes
    ----------
    pixel_size_A, voltage_kV
        Of the movie.
    dose_per_frame, pre_exposure
        e/A^2; None where it isn't known, then nothing is dose-weighted.
    patches
        In y and x; (0, 0) corrects the global shift alone.
    b_factor_px2
        Blur of the cross-correlation that frames are searched with (px^2).
    max_shift_px
        Largest believable shift of a frame against the first, along each axis.
    bin_factor
        The output is Fourier-cropped by it.
    dose_weighting, unweighted, halves
        Which sums to make.
    pool
        Pixels pooled to a side for alignment; None chooses by the size of the frames.
    group_dose
        Frames weaker than this are searched in groups (e/A^2).
    spectrum_dose
        Dose of the groups whose spectra are averaged (e/A^2).
    """

    pixel_size_A: float
    voltage_kV: float = 300.0
    dose_per_frame: float | None = None
    pre_exposure: float = 0.0
    patches: tuple[int, int] = (5, 5)
    b_factor_px2: float = 150.0
    max_shift_px: float = 50.0
    bin_factor: float = 1.0
    dose_weighting: bool = True
    unweighted: bool = False
    halves: bool = False
    pool: int | None = None
    group_dose: float = 1.0
    spectrum_dose: float = 16.0


@dataclass
class Corrected:
    """A corrected movie.

    Attributes
    ----------
    micrograph, unweighted, odd, even
        ``(height, width)`` float32, or None where not asked for. ``micrograph`` is dose-weighted
        when the dose is known and weighting was asked for, else the plain sum.
    dose_weighted
        Which of the two it is.
    pixel_size_A
        Of these images.
    spectrum
        Amplitude spectrum of grouped, aligned frames; None where the image is too small for one.
    motion
        The motion, in pixels of the movie.
    refinement
        Patches, noise and signal behind it; None for a single frame.
    frame_means
        ``(n_frames,)`` mean counts per pixel after the gain.
    skipped
        Frames left out, counted from 0.
    hot_pixels, defects
        Pixels replaced because they stood out, and because the reference or the list said so.
    pattern_share
        Part of the alignment's signal that doesn't move with the specimen; 0 is right.
    notes, warnings
        What a person may want to know, and what they should.
    seen
        Coarse picture of the frames before any alignment, to check the sums by.
    """

    micrograph: torch.Tensor
    unweighted: torch.Tensor | None
    odd: torch.Tensor | None
    even: torch.Tensor | None
    dose_weighted: bool
    pixel_size_A: float
    spectrum: Spectrum | None
    motion: MotionField
    refinement: Refinement | None
    frame_means: NDArray[np.float64]
    skipped: list[int]
    hot_pixels: int
    defects: int
    pattern_share: float
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    seen: NDArray[np.float64] | None = None


def correct_movie(
    source: Callable[[], Iterable[NDArray[Any]]],
    n_frames: int,
    shape: tuple[int, int],
    settings: MotionSettings,
    *,
    gain: NDArray[np.float32] | None = None,
    defects: NDArray[np.bool_] | None = None,
    device: str = "cpu",
    threads: int = 1,
    frame_budget_bytes: int = _FRAME_BUDGET,
    sums_budget_bytes: int = SUMS_BUDGET,
    each_frame: Callable[[NDArray[np.float32]], None] | None = None,
) -> Corrected:
    """Find and undo the motion of one movie.

    Parameters
    ----------
    source
        Gives the frames in order, ``(height, width)`` counts, each time it's called; up to three
        times where the movie is larger than ``frame_budget_bytes``, once otherwise.
    n_frames, shape
        Number of frames and ``(height, width)`` (px).
    settings
        What was chosen.
    gain
        ``(height, width)`` to multiply counts by; changed in place at bad pixels.
    defects
        ``(height, width)``, True at pixels known to be bad.
    device
        Torch device of the heavy work.
    threads
        CPU threads.
    frame_budget_bytes
        Movies up to this size are kept in memory.
    sums_budget_bytes
        Binned movies whose sums at full size would take more are binned frame by frame (CPU).
    each_frame
        Called with each frame in order, moved onto the first; see :func:`.motion_stack.moved_frames`.

    Returns
    -------
    Corrected

    Raises
    ------
    BadImage
        All zero, constant, not finite.
    BrokenInvariant
        The alignment followed the camera's fixed pattern, or shifts out of bounds.
    """
    store = FrameStore(source, n_frames, frame_budget_bytes)
    scan = _scan(store, shape, gain, defects, threads)
    probe = PatternProbe(shape, n_frames)
    live = np.array([i for i in range(n_frames) if i not in scan.skipped])
    notes, warnings = list(scan.notes), list(scan.warnings)

    steps = in_steps(live, shape)
    pool = settings.pool or choose_pool(shape, len(steps))
    refinement = None
    motion = MotionField(np.zeros((n_frames, 2, N_TERMS)), shape)
    share, seen = 0.0, None
    if len(live) > 1:
        pooled = torch.from_numpy(_pool(store, gain, pool, probe, steps, _at_once(shape), threads)).to(device)
        refinement = _align(pooled, steps, shape, pool, settings, threads)
        seen = blocks(pooled.mean(dim=0))
        del pooled
        motion = all_frames(refinement.field, steps, n_frames)
        check_shifts(motion, settings.max_shift_px)
        share = probe.share(refinement)
        if share > _PATTERN_FAILS:
            raise BrokenInvariant(
                Reason.FIXED_PATTERN,
                "alignment",
                expected="frames that are aligned by what the specimen shows",
                found=f"{share:.0%} of what they share stands still on the camera",
                remedy="Check the gain reference: missing, of another camera, or turned or flipped.",
            )
        if share > _PATTERN_WARNS:
            warnings.append(
                f"{share:.0%} of what the frames share stands still on the camera: "
                "the gain reference may be old, turned or flipped"
            )
        notes.append(_describe(refinement, pool))
    else:
        notes.append("a single frame: nothing to align")

    if each_frame is not None:
        for frame in moved_frames(store, gain, motion, live, settings, device=device, threads=threads):
            each_frame(frame)
    sums = add_moved_frames(
        store,
        gain,
        motion,
        live,
        settings,
        device=device,
        threads=threads,
        sums_budget_bytes=sums_budget_bytes,
    )
    check_sums({"micrograph": sums.micrograph, "unweighted": sums.unweighted})
    return Corrected(
        sums.micrograph,
        sums.unweighted,
        sums.odd,
        sums.even,
        sums.dose_weighted,
        sums.pixel_size_A,
        sums.spectrum,
        motion,
        refinement,
        scan.means,
        scan.skipped,
        scan.hot,
        scan.defects,
        share,
        notes,
        warnings + sums.warnings,
        seen,
    )


def _at_once(shape: tuple[int, int]) -> int:
    return max(1, min(_GROUP, _GROUP_PIXELS // (shape[0] * shape[1])))


@dataclass(frozen=True)
class _Scan:
    means: NDArray[np.float64]
    skipped: list[int]
    hot: int
    defects: int
    notes: list[str]
    warnings: list[str]


def _scan(
    store: FrameStore,
    shape: tuple[int, int],
    gain: NDArray[np.float32] | None,
    defects: NDArray[np.bool_] | None,
    threads: int,
) -> _Scan:
    """First walk: what the frames add up to, which are empty, which pixels are bad."""
    total = np.zeros(shape, dtype=np.float32)
    at_once = _at_once(shape)
    sums = np.concatenate([add_frames(group, total, threads) for _, group in store.groups(at_once)])
    skipped, warnings = check_frames(sums, total)
    hot = find_hot_pixels(total, gain)
    known = np.zeros(shape, dtype=bool) if defects is None else defects
    new = hot & ~known
    try:
        repairs: Repairs = plan_repairs(known | hot)
    except ValueError as error:
        raise BadImage(
            Reason.GAIN_BAD,
            "defective pixels",
            expected="single pixels, rows or columns with good ones nearby",
            found=str(error),
            remedy="Check the defect list and the gain reference.",
        ) from error
    store.repairs = repairs
    mean_gain = 1.0
    if gain is not None:
        repairs.smooth_gain(gain)
        # Row by row: the product of both would be another image of full size.
        corrected = sum(float(np.dot(row, factors)) for row, factors in zip(total, gain, strict=True))
        mean_gain = corrected / max(float(total.sum(dtype=np.float64)), 1e-30)
    notes = [f"{int(new.sum())} hot or dead pixels and {int(known.sum())} known defects replaced"]
    means = sums / (shape[0] * shape[1]) * mean_gain
    return _Scan(means, skipped, int(new.sum()), int(known.sum()), notes, warnings)


def _pool(
    store: FrameStore,
    gain: NDArray[np.float32] | None,
    pool: int,
    probe: PatternProbe,
    steps: list[NDArray[np.int64]],
    at_once: int,
    threads: int,
) -> NDArray[np.float32]:
    """Second walk: the frames that count, pooled; the mean of those that are aligned as one."""
    pooled: NDArray[np.float32] | None = None
    place_of = {int(number): place for place, numbers in enumerate(steps) for number in numbers}
    for start, group in store.groups(at_once):
        small = pool_frames(group, gain, pool, threads)
        probe.add(start, group, gain)
        if pooled is None:
            pooled = np.zeros((len(steps), *small.shape[1:]), dtype=np.float32)
        for number, frame in enumerate(small, start):
            if number in place_of:
                place = place_of[number]
                pooled[place] += frame / np.float32(len(steps[place]))
    assert pooled is not None
    return pooled


def _align(
    pooled: torch.Tensor,
    steps: list[NDArray[np.int64]],
    shape: tuple[int, int],
    pool: int,
    settings: MotionSettings,
    threads: int,
) -> Refinement:
    dose = settings.dose_per_frame
    # Where the dose isn't known a counting camera's mean tells it well enough to form groups.
    dose_px = dose if dose is not None else float(pooled.mean()) / settings.pixel_size_A**2
    dose_px *= len(steps[0])
    group = int(
        np.clip(np.ceil(settings.group_dose / max(dose_px, 1e-6) - 1e-6), 1, max(1, len(pooled) // 4))
    )
    coarse = max(1, -(-4 // pool))
    small = torch.nn.functional.avg_pool2d(pooled[:, None], coarse)[:, 0] if coarse > 1 else pooled
    scale = pool * coarse
    shifts = search_shifts(
        small,
        b_factor=settings.b_factor_px2 / scale**2,
        max_shift=settings.max_shift_px / scale,
        group=group,
        threads=threads,
    )
    elapsed = (centres(steps) + 1) * (dose if dose is not None else 1.0)
    roughness = 0.1 + np.exp(-elapsed[1:-1] / 4.0) if len(steps) > 3 else None
    return refine_field(
        pooled,
        scale * shifts.cpu().numpy().astype(np.float64),
        pool=pool,
        shape=shape,
        grid=_fitting_grid(settings.patches, pooled.shape[1:]),
        b_factor=settings.b_factor_px2,
        roughness=roughness,
        threads=threads,
    )


def _fitting_grid(patches: tuple[int, int], pooled_shape: Iterable[int]) -> tuple[int, int]:
    """Fewer patches where the image is too small for those that were asked for."""
    if min(patches) == 0:
        return (0, 0)
    grid = [int(np.clip(size // 48, 1, wanted)) for wanted, size in zip(patches, pooled_shape, strict=True)]
    return (grid[0], grid[1]) if grid[0] * grid[1] >= 9 else (0, 0)


def _describe(refinement: Refinement, pool: int) -> str:
    bad = int((~refinement.good).sum())
    return (
        f"aligned at {pool}x pooling in {refinement.rounds} rounds; a patch's shift in one frame is known to "
        f"{refinement.noise_px:.2f} px; {bad} of {len(refinement.good)} patches left out"
    )
