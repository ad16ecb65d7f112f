"""Fine alignment: the whole motion field at once, from many patches.

Each patch of each frame is compared with the sum of the same patch over the other frames. One
Newton step of the weighted cross-correlation gives a small shift and how well it's known (the
curvature). All of them together are explained by a field that is smooth in space (RELION's six
terms) and as smooth in time as the evidence asks for. So no patch has to be aligned by itself:
what one patch can't tell, its neighbours in space and time do.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from vitriflow.kernels.motion_field import N_TERMS, MotionField, spatial_terms
from vitriflow.kernels.motion_patches import Cutter, Patches
from vitriflow.kernels.motion_smooth import smooth_track

__all__ = ["Refinement", "refine_field"]

_LEAST_PATCHES = 4  # to a side, for the estimate of noise, where the field itself is global
_COARSE = 700  # px to a side: above it the first rounds are done on frames pooled once more
_COARSE_ROUNDS, _FINE_ROUNDS = 4, 2
_COARSE_PX, _FINE_PX = 0.1, 0.02  # a round that changes the field by less (RMS, px) is the last
_LOOKED_AT = 5  # patches whose power is looked at before the first fine round
_WORST = 3.0  # a patch whose misfit is this many times the usual is left out


@dataclass(frozen=True)
class Refinement:
    """What fine alignment found.

    Attributes
    ----------
    field
        The motion field.
    patches
        The patches that it was asked of.
    good
        ``(n_patches,)``: False where a patch couldn't be followed and the field was fitted without it.
    noise_px
        Standard deviation of one patch's shift in one frame (px).
    signal
        ``(n_k,)`` and ``noise``: radial power of the specimen and of the noise of one frame's patch.
    frequency
        ``(n_k,)`` their spatial frequency (cycles per unpooled px).
    pool
        Pixels pooled to a side.
    rounds
        Newton rounds done.
    """

    field: MotionField
    patches: Patches
    good: NDArray[np.bool_]
    noise_px: float
    signal: NDArray[np.float64]
    noise: NDArray[np.float64]
    frequency: NDArray[np.float64]
    pool: int
    rounds: int


def refine_field(
    pooled: torch.Tensor,
    start: NDArray[np.float64],
    *,
    pool: int,
    shape: tuple[int, int],
    grid: tuple[int, int],
    b_factor: float,
    roughness: NDArray[np.float64] | None = None,
    threads: int = 1,
) -> Refinement:
    """Refine global shifts into a motion field.

    Parameters
    ----------
    pooled
        ``(n, height // pool, width // pool)`` frames, float32.
    start
        ``(n, 2)`` global shifts, y then x (unpooled px).
    pool
        Pixels pooled to a side.
    shape
        ``(height, width)`` of the unpooled frames.
    grid
        Patches in y and x; (0, 0) asks for a global shift alone.
    b_factor
        Of the first round's weight (unpooled px^2); afterwards it follows from the signal and the
        noise that are found.
    roughness
        See :func:`vitriflow.kernels.motion_smooth.smooth_track`.
    threads
        CPU threads.

    Returns
    -------
    Refinement
    """
    coefficients = np.zeros((len(pooled), 2, N_TERMS))
    coefficients[:, :, 0] = start - start[:1]
    fit = _Fit(MotionField(coefficients, shape), np.ones(0, dtype=bool), 0.0)
    rounds = 0
    levels = [(pooled, pool, _FINE_PX, _FINE_ROUNDS)]
    once_more = round(min(pooled.shape[1:]) / _COARSE * 1.2)
    if once_more > 1:
        coarse = torch.nn.functional.avg_pool2d(pooled[:, None], once_more)[:, 0]
        levels.insert(0, (coarse, pool * once_more, _COARSE_PX, _COARSE_ROUNDS))
    local = min(grid) > 0
    for level, (frames, pooling, tolerance, most) in enumerate(levels):
        size = (frames.shape[1], frames.shape[2])
        layout = Patches.lay(size, grid if local else (_LEAST_PATCHES, _LEAST_PATCHES))
        cutter = Cutter(frames, layout, pooling, b_factor, threads)
        centres = layout.centres_px(pooling)
        n_patches = len(centres)
        terms = spatial_terms(centres[:, 0], centres[:, 1], shape)[:, : N_TERMS if local else 1]
        before = _at(fit.field, centres)
        weight = cutter.first_weight
        if level > 0:
            some = np.unique(np.linspace(0, n_patches - 1, _LOOKED_AT).round().astype(np.int64))
            known = cutter.split_power(cutter.look(before, some), len(some))
            weight = cutter.best_weight(*known, len(some))
        for turn in range(most):
            steps, curvature, power = cutter.newton(before, weight)
            fit = _fit_field(before + steps, curvature, terms, shape, roughness)
            signal, noise = cutter.split_power(power, n_patches)
            weight = cutter.best_weight(signal, noise, n_patches)
            after = _at(fit.field, centres)
            change = float(np.sqrt(np.mean((after - before) ** 2)))
            before = after
            rounds += 1
            # The very first round's weight is a guess: it's never the last.
            if change < tolerance and (turn > 0 or level > 0):
                break
    return Refinement(
        fit.field, layout, fit.good, fit.noise_px, signal, noise, cutter.frequency, pooling, rounds
    )


def _at(field: MotionField, centres: NDArray[np.float64]) -> NDArray[np.float64]:
    """Shifts at the patches, ``(n_patches, n, 2)`` (px)."""
    return np.moveaxis(field.at(centres[:, 0], centres[:, 1]), 0, 1)


@dataclass(frozen=True)
class _Fit:
    field: MotionField
    good: NDArray[np.bool_]
    noise_px: float


def _fit_field(
    observed: NDArray[np.float64],
    curvature: NDArray[np.float64],
    terms: NDArray[np.float64],
    shape: tuple[int, int],
    roughness: NDArray[np.float64] | None,
) -> _Fit:
    """Explain shifts ``(n_patches, n, 2)`` of known weight ``(n_patches, 2)`` by a field."""
    n_patches, n, _ = observed.shape
    known = curvature.mean(axis=1)
    good = known > 0.02 * np.median(known[known > 0]) if (known > 0).any() else known > 0
    n_terms = terms.shape[1]
    for _ in range(3):
        if good.sum() < max(2 * n_terms, n_patches // 2):
            break
        misfit = np.zeros(n_patches)
        for axis in (0, 1):
            weights = np.where(good, curvature[:, axis], 0.0)
            fitted, _ = _least_squares(observed[:, :, axis], weights, terms)
            residual = observed[:, :, axis] - terms @ fitted
            misfit += (residual**2).mean(axis=1) * curvature[:, axis]
        typical = np.median(misfit[good])
        bad = good & (misfit > _WORST**2 * typical)
        if not bad.any():
            break
        good = good & ~bad
    if good.sum() < max(2 * n_terms, n_patches // 2):
        # Too few patches can be followed for a local field: the mean over all that tell anything.
        terms = terms[:, :1]
        n_terms = 1
        good = known > 0
    coefficients = np.zeros((n, 2, N_TERMS))
    variances = []
    for axis in (0, 1):
        weights = np.where(good, curvature[:, axis], 0.0)
        fitted, root = _least_squares(observed[:, :, axis], weights, terms)
        residual = observed[:, :, axis] - terms @ fitted
        freedom = max(n * (int(good.sum()) - n_terms), 1)
        variance = float((weights[:, None] * residual**2).sum() / freedom)
        tracks = root.T @ fitted  # independent of each other, each with that variance
        smooth = np.stack([smooth_track(track, variance, roughness) for track in tracks])
        coefficients[:, axis, :n_terms] = np.linalg.solve(root.T, smooth).T
        variances.append(variance / max(float(np.median(weights[good])), 1e-30) if good.any() else 0.0)
    coefficients -= coefficients[:1]
    return _Fit(MotionField(coefficients, shape), good, float(np.sqrt(np.mean(variances))))


def _least_squares(
    observed: NDArray[np.float64], weights: NDArray[np.float64], terms: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Factors ``(n_terms, n)`` of the terms, and the Cholesky root of their information matrix."""
    scale = max(float(weights.max()), 1e-30)
    information = (terms * weights[:, None]).T @ terms + 1e-9 * scale * np.eye(terms.shape[1])
    root = np.linalg.cholesky(information)
    right = (terms * weights[:, None]).T @ observed
    return np.asarray(np.linalg.solve(information, right), dtype=np.float64), np.asarray(
        root, dtype=np.float64
    )
