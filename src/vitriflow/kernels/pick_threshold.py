"""Where to cut the scores of one micrograph, judged from that micrograph alone.

Peaks of the score map are a mixture: noise, and particles above it. What noise looks like is
taken from the peaks of the *inverted* map, where no particle is (in proteomics: decoys). Next to
dense particles the bright fringes raise those, so the noise's scale may shrink in the fit, but
never grow. The cut is where the expected F measure is greatest.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

__all__ = ["Cut", "automatic_threshold"]

Array = NDArray[np.float64]

MIN_PEAKS = 30
ENOUGH = 4000  # peaks that a fit is made to; more change nothing but its time
SIGNIFICANT = 4.0  # deviations by which peaks must outnumber decoys somewhere
SCALES = np.linspace(0.5, 1.0, 26)
STARTS = (0.5, 0.8, 0.97)  # parts of the peaks that are taken for noise at first
DOUBT = 6.0  # log likelihood that a smaller noise must gain
ITERATIONS = 50
# Recall against precision in the F measure that is made greatest. Below 1: a strong particle drives off
# the noise peaks around it, so that the fit sees less noise than there is.
BETA = 0.7
FAR, FAR_COUNT = 1.5, 3  # so many peaks so far above the highest decoy are no chance either
GRID = 400
MIN_SEPARATION = 1.5  # of noise and particles, in the noise's deviations


@dataclass(frozen=True)
class Cut:
    """A threshold and what it's expected to give.

    Attributes
    ----------
    threshold
        Scores at or above it count; infinite when nothing is there.
    expected_f1
        By the mixture, 0 to 1.
    present
        Whether peaks outnumber decoys anywhere by more than chance.
    """

    threshold: float
    expected_f1: float
    present: bool


def _normal(values: Array, mean: Array, deviation: Array) -> Array:
    z = (values - mean) / deviation
    return np.asarray(np.exp(-0.5 * z**2) / (deviation * math.sqrt(2.0 * math.pi)))


def _excess(heights: Array, decoys: Array) -> tuple[float, Array, Array]:
    """Greatest significance of (peaks - decoys) above any height, and both counts by height."""
    above = np.arange(1, heights.size + 1, dtype=np.float64)  # heights come best first
    ascending = np.sort(decoys)
    false = decoys.size - np.searchsorted(ascending, heights, side="left").astype(np.float64)
    # one pseudo-count keeps a lone high peak from counting for much
    significance = (above - false) / np.sqrt(above + false + 1.0)
    return float(significance.max()), above, false


def _by_decoys(heights: Array, above: Array, false: Array) -> Cut:
    """Best expected F1 when every decoy stands for one false peak: never too lax."""
    true = np.maximum(above - false, 0.0)
    f1 = 2.0 * true / (above + true.max())
    best = int(f1.argmax())
    return Cut(float(heights[best]), float(f1[best]), True)


def _density(decoys: Array) -> tuple[Array, Array]:
    """The decoys' smoothed density on a grid: heights and density, of area 1."""
    width = max(1.06 * float(decoys.std()) * decoys.size**-0.2, 1e-3)  # Silverman's rule
    grid = np.linspace(0.0, float(decoys.max()) + 4.0 * width, GRID)
    bins = np.clip((decoys / grid[1]).astype(np.int64), 0, GRID - 1)
    counts = np.bincount(bins, minlength=GRID).astype(np.float64)
    density = ndimage.gaussian_filter1d(counts, width / grid[1], mode="constant")
    return grid, density / max(float(density.sum() * grid[1]), 1e-12)


@dataclass(frozen=True)
class _Mixture:
    """Noise of the decoys' shape at a smaller scale, and particles (normal)."""

    weight: float
    mean: float
    deviation: float
    scale: float


def _mixture(heights: Array, decoys: Array, grid: Array, density: Array) -> _Mixture:
    """Expectation maximisation for each scale of the noise and each start at once; the likeliest wins."""
    heights = heights[:: max(1, heights.size // ENOUGH)]  # sorted, so every k-th keeps their distribution
    starts = np.array(STARTS)
    scales = np.repeat(SCALES, len(starts))[:, None]
    starts = np.tile(starts, len(SCALES))[:, None]
    values = heights[None, :]
    null = np.interp(values / scales, grid, density, right=0.0) / scales
    spread = max(float(decoys.std()), 1e-3)
    weight = 1.0 - starts
    mean = np.quantile(heights, 0.5 * (1.0 + starts[:, 0]))[:, None]
    deviation = np.full_like(scales, max(float(heights.std()), 1e-3))
    lowest = scales * (float(decoys.mean()) + MIN_SEPARATION * spread)
    for _ in range(ITERATIONS):
        signal = weight * _normal(values, mean, deviation)
        share = signal / np.maximum(signal + (1.0 - weight) * null, 1e-300)
        total = np.maximum(share.sum(axis=1, keepdims=True), 1e-9)
        weight = np.clip(total / heights.size, 1e-3, 1.0 - 1e-3)
        mean = np.maximum((share * values).sum(axis=1, keepdims=True) / total, lowest)
        deviation = np.sqrt((share * (values - mean) ** 2).sum(axis=1, keepdims=True) / total)
        deviation = np.maximum(deviation, 0.5 * spread)
    fit = weight * _normal(values, mean, deviation) + (1.0 - weight) * null
    likelihood = np.log(np.maximum(fit, 1e-12)).sum(axis=1)
    # Fringes raise decoys only where particles are dense: a smaller noise has to earn its place
    likelihood -= DOUBT * (scales[:, 0] < 1.0)
    best = int(likelihood.argmax())
    return _Mixture(
        float(weight[best, 0]), float(mean[best, 0]), float(deviation[best, 0]), float(scales[best, 0])
    )


def _upper(values: Array, mean: float, deviation: float) -> Array:
    return np.array([0.5 * math.erfc((v - mean) / (deviation * math.sqrt(2.0))) for v in values])


def automatic_threshold(heights: Array, decoys: Array) -> Cut:
    """Choose a threshold for peaks against decoys.

    Parameters
    ----------
    heights
        ``(n,)`` of the score map's peaks, best first.
    decoys
        ``(m,)`` of the inverted map's peaks, found in the same way.

    Returns
    -------
    Cut
        With an infinite threshold when the peaks look like the decoys: an empty micrograph.
    """
    if heights.size == 0:
        return Cut(math.inf, 0.0, False)
    significance, above, false = _excess(heights, decoys)
    far = int((heights > FAR * float(decoys.max(initial=1.0))).sum())
    if significance < SIGNIFICANT and far < FAR_COUNT:
        return Cut(math.inf, 0.0, False)
    strict = _by_decoys(heights, above, false)
    if heights.size < MIN_PEAKS or decoys.size < MIN_PEAKS:
        return strict
    grid, density = _density(decoys)
    fit = _mixture(heights, decoys, grid, density)
    levels = np.linspace(0.0, max(fit.mean, 1e-3), 300)
    true = fit.weight * _upper(levels, fit.mean, fit.deviation)
    below = np.interp(levels / fit.scale, grid, np.cumsum(density) * grid[1], right=1.0)
    called = true + (1.0 - fit.weight) * (1.0 - below)
    f1 = 2.0 * true / (called + fit.weight)
    best = int((true / (called + BETA**2 * fit.weight)).argmax())
    return Cut(min(float(levels[best]), strict.threshold), float(f1[best]), True)
