"""Score maps for picking: difference or Laplacian of Gaussians, and a template learnt on the spot.

The learnt template answers what blob filters can't: ring-shaped or crowded particles, whose gaps
and rims look like blobs too. It starts from the blob filter's best peaks, averages the whitened
image around them to a radial profile, uses that as a matched filter, and repeats. A profile has
so few values that little noise can be fitted to it; what there is of that is told from particles
by the skewness of the scores.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from vitriflow.kernels.fourier import frequencies
from vitriflow.kernels.pick_prepare import Prepared

__all__ = ["Peaks", "blob_scores", "find_peaks", "learnt_scores", "skewness"]

DOG_RATIO = 1.6  # of the two Gaussians' widths: closest to a Laplacian (Marr & Hildreth 1980)
ROUNDS = 4
MORE_ROUNDS = 4  # where particles are faint, or aren't there
FAINT = 0.5  # a skewness below which it's one of the two
TEMPLATE_RADIUS = 0.8  # of the template, in diameters
SEED_FLOOR = 0.7  # standard deviations; lower peaks are never the best, only slow
SEED_POOL = 6000  # peaks that seeds are taken from
BEST_PART, MIN_SEEDS, MAX_SEEDS = 0.3, 5, 400
SURE = 1.2  # a skewness beyond which no other start can do better
WHITEN_FLOOR = 1e-3


@dataclass(frozen=True)
class Peaks:
    """Local maxima: ``positions (n, 2)`` in y, x (binned px, subpixel), ``heights (n,)``, best first."""

    positions: NDArray[np.float64]
    heights: NDArray[np.float64]


def skewness(scores: torch.Tensor, good: torch.Tensor) -> float:
    """Third standardised moment: how much more is found on the particles' side than on the other."""
    values = _standardised(scores, good) * good
    return float((values**2 * values).sum() / good.sum())


def _standardised(scores: torch.Tensor, good: torch.Tensor) -> torch.Tensor:
    # Sums under a weight: picking the good pixels out would cost several times as much
    weight = good.to(scores.dtype)
    count = weight.sum().clamp(min=1.0)
    centred = scores - (scores * weight).sum() / count
    return centred / ((centred.square() * weight).sum() / count).sqrt().clamp(min=1e-12)


def blob_scores(prepared: Prepared, diameters: tuple[float, ...], method: str = "dog") -> list[torch.Tensor]:
    """Difference of Gaussians (Voss et al. 2009) or Laplacian of Gaussian, one map a diameter.

    Parameters
    ----------
    prepared
        From :func:`vitriflow.kernels.pick_prepare.prepare`.
    diameters
        Of discs that the filters answer to best (binned px).
    method
        ``dog`` or ``log``.

    Returns
    -------
    list
        Maps ``(h, w)`` in standard deviations over the good pixels; high on particles.
    """
    shape = (prepared.image.shape[0], prepared.image.shape[1])
    ky, kx = frequencies(shape, prepared.image.device)
    square = (2.0 * math.pi) ** 2 * (ky**2 + kx**2)
    spectrum = torch.fft.rfft2(prepared.image)
    maps = []
    for diameter in diameters:
        # A disc of radius r is answered best by a Laplacian of sigma = r / sqrt(2)
        variance = diameter**2 / 8.0
        if method == "log":
            transfer = variance * square * torch.exp(-0.5 * variance * square)
        else:
            # Widths on both sides of the Laplacian's, with the same peak frequency to first order
            narrow, wide = variance / DOG_RATIO, variance * DOG_RATIO
            transfer = torch.exp(-0.5 * narrow * square) - torch.exp(-0.5 * wide * square)
        maps.append(_standardised(torch.fft.irfft2(spectrum * transfer, s=shape), prepared.good))
    return maps


def find_peaks(
    scores: torch.Tensor, allowed: torch.Tensor, distance: float, floor: float, most: int | None = None
) -> Peaks:
    """Local maxima above ``floor``, the best first, none closer to a better one than ``distance``.

    Parameters
    ----------
    scores
        ``(h, w)``.
    allowed
        ``(h, w)``: False where no peak may be.
    distance
        Least distance of two peaks (binned px).
    floor
        Least height.
    most
        Look at no more than the highest so many; None: at all.
    """
    grid = scores.cpu().numpy()
    y, x = _local_maxima(grid, allowed.cpu().numpy(), floor)
    heights = grid[y, x].astype(np.float64)
    order = np.argsort(-heights, kind="stable")[:most]
    y, x, heights = y[order], x[order], heights[order]
    positions = np.stack([y + _vertex(grid, y, x, 0), x + _vertex(grid, y, x, 1)], axis=1)
    kept = _thinned(positions, distance)
    return Peaks(positions[kept], heights[kept])


def _local_maxima(
    grid: NDArray[np.float32], allowed: NDArray[np.bool_], floor: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pixels above the floor and not below any of their eight neighbours; never on the rim."""
    candidate = allowed & (grid > floor)
    candidate[[0, -1], :] = False
    candidate[:, [0, -1]] = False
    index = np.flatnonzero(candidate)
    flat, width = grid.ravel(), grid.shape[1]
    for step in (1, -1, width, -width, width + 1, width - 1, -width + 1, -width - 1):
        index = index[flat[index] >= flat[index + step]]
    return index // width, index % width


def _vertex(
    grid: NDArray[np.float32], y: NDArray[np.int64], x: NDArray[np.int64], axis: int
) -> NDArray[np.float64]:
    """Offset of the parabola's top through a peak and its two neighbours, 0 at the image's rim."""
    step_y, step_x = (1, 0) if axis == 0 else (0, 1)
    last_y, last_x = grid.shape[0] - 1, grid.shape[1] - 1
    before = grid[np.maximum(y - step_y, 0), np.maximum(x - step_x, 0)].astype(np.float64)
    after = grid[np.minimum(y + step_y, last_y), np.minimum(x + step_x, last_x)].astype(np.float64)
    curvature = before - 2.0 * grid[y, x] + after
    offset = np.where(curvature < 0, 0.5 * (before - after) / np.minimum(curvature, -1e-12), 0.0)
    inside = (y >= step_y) & (x >= step_x) & (y <= last_y - step_y) & (x <= last_x - step_x)
    return np.where(inside, np.clip(offset, -0.5, 0.5), 0.0)


def _thinned(positions: NDArray[np.float64], distance: float) -> NDArray[np.bool_]:
    """Which of the positions (best first) stay when each drives off its worse neighbours."""
    kept = np.zeros(len(positions), dtype=np.bool_)
    open_ = ~kept
    pairs = np.zeros((0, 2), dtype=np.int64)
    if len(positions) > 1:
        pairs = cKDTree(positions).query_pairs(distance, output_type="ndarray")  # better one first
    while open_.any():
        pairs = pairs[open_[pairs].all(axis=1)]
        first = open_.copy()
        first[pairs[:, 1]] = False  # somebody better near by is still open
        kept |= first
        open_ &= ~first
        open_[pairs[first[pairs[:, 0]], 1]] = False
    return kept


def _whitened(prepared: Prepared) -> torch.Tensor:
    """The image with its radial power made even: noise becomes white, a matched filter just."""
    image = prepared.image
    shape = (image.shape[0], image.shape[1])
    spectrum = torch.fft.rfft2(image)
    ky, kx = frequencies(shape, image.device)
    shell = ((ky**2 + kx**2).sqrt() * min(shape)).round().long()
    shell = shell.clamp(max=min(shape) // 2)
    power = torch.zeros(int(shell.max()) + 1, device=image.device)
    power.index_add_(0, shell.flatten(), spectrum.abs().square().flatten())
    power /= torch.bincount(shell.flatten(), minlength=power.numel()).clamp(min=1)
    power = power.clamp(min=WHITEN_FLOOR * float(power.max()))
    white = torch.fft.irfft2(spectrum / power[shell].sqrt(), s=shape)
    return _standardised(white, prepared.good) * prepared.good


def _profile(white: torch.Tensor, seeds: NDArray[np.float64], radius: int) -> NDArray[np.float64] | None:
    """Mean over seeds and angles of the image around them: ``(radius + 1,)``; None without seeds."""
    height, width = white.shape
    at = np.rint(seeds).astype(np.int64)
    inside = ((at >= radius) & (at < np.array([height, width]) - radius)).all(axis=1)
    at = at[inside][:MAX_SEEDS]
    if len(at) < MIN_SEEDS:
        return None
    dy, dx = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    offset = torch.from_numpy((dy * width + dx).ravel()).to(white.device)
    start = torch.from_numpy(at[:, 0] * width + at[:, 1]).to(white.device)
    mean = white.reshape(-1)[start[:, None] + offset[None]].mean(dim=0).double().cpu().numpy()
    r = np.hypot(dy, dx).ravel()
    low = np.floor(r).astype(np.int64)
    part = r - low
    size = int(low.max()) + 2
    total = np.bincount(low, mean * (1 - part), size) + np.bincount(low + 1, mean * part, size)
    count = np.bincount(low, 1 - part, size) + np.bincount(low + 1, part, size)
    return np.asarray((total / np.maximum(count, 1e-9))[: radius + 1])


def _template(profile: NDArray[np.float64], shape: tuple[int, int], device: torch.device) -> torch.Tensor:
    """A disc with that radial profile, zero mean, unit power, centred on pixel (0, 0), wrapped round."""
    radius = profile.size - 1
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    r = np.hypot(y, x)
    disc = np.interp(r, np.arange(radius + 1), profile, right=0.0)
    disc *= np.clip((radius - r) / (0.15 * radius), 0.0, 1.0)
    inside = r <= radius
    disc[inside] -= disc[inside].mean()
    disc /= max(float(np.sqrt((disc**2).sum())), 1e-12)
    template = np.zeros(shape, dtype=np.float32)
    template[y % shape[0], x % shape[1]] = disc
    return torch.from_numpy(template).to(device)


def _learn(
    white: torch.Tensor, spectrum: torch.Tensor, start: torch.Tensor, good: torch.Tensor, diameter: float
) -> torch.Tensor | None:
    """Alternate between peaks and template; the last score map."""
    shape = (white.shape[0], white.shape[1])
    radius = math.ceil(TEMPLATE_RADIUS * diameter)
    scores = start
    for turn in range(ROUNDS + MORE_ROUNDS):
        if turn == ROUNDS and skewness(scores, good) > FAINT:
            break
        peaks = find_peaks(scores, good, 0.6 * diameter, SEED_FLOOR, SEED_POOL)
        best = peaks.positions[: max(3 * MIN_SEEDS, round(BEST_PART * len(peaks.positions)))]
        profile = _profile(white, best, radius)
        if profile is None:
            return None
        template = _template(profile, shape, white.device)
        scores = torch.fft.irfft2(spectrum * torch.fft.rfft2(template), s=shape)
    return scores


def learnt_scores(prepared: Prepared, starts: list[torch.Tensor]) -> torch.Tensor | None:
    """Scores by a radial template learnt from the micrograph itself.

    Parameters
    ----------
    prepared
        From :func:`vitriflow.kernels.pick_prepare.prepare`.
    starts
        Blob maps ``(h, w)`` to begin from; each is tried.

    Returns
    -------
    torch.Tensor or None
        ``(h, w)``, in standard deviations: the most skewed of those that the starts lead to.
        None where there are too few peaks to learn from.
    """
    white = _whitened(prepared)
    spectrum = torch.fft.rfft2(white)
    found: list[tuple[float, torch.Tensor]] = []
    for start in starts:
        learnt = _learn(white, spectrum, start, prepared.good, prepared.diameter)
        if learnt is not None:
            scores = _standardised(learnt, prepared.good)
            found.append((skewness(scores, prepared.good), scores))
            if found[-1][0] > SURE:
                break
    return max(found, key=lambda pair: pair[0])[1] if found else None
