"""Gain references, defects and hot pixels: what a camera adds that the specimen didn't."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Repairs",
    "find_hot_pixels",
    "gain_factor",
    "plan_repairs",
]

_SMALLEST_GAIN = 1e-3  # relative to the median: below it a pixel counts as dead
_LARGEST_GAIN = 10.0
_NEIGHBOURS = 8
_WIDEST = 32
_MOST_HOT = 0.005  # of all pixels: more can't be single bad pixels


def gain_factor(
    reference: NDArray[np.generic],
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """What to multiply counts by, and which pixels the reference calls defective.

    Parameters
    ----------
    reference
        ``(height, width)``: what counts are multiplied by, 0 at defects.

    Returns
    -------
    tuple
        ``factor (height, width)`` float32, 1 at defects, and ``defects (height, width)``: pixels
        that are zero, negative, not finite, or more than ten times off the median.

    Raises
    ------
    ValueError
        When more than a quarter of the reference can't be used.
    """
    factor = np.array(reference, dtype=np.float32)
    with np.errstate(invalid="ignore"):
        good = np.isfinite(factor) & (factor > 0)
        # Of some pixels: picking all good ones out would copy an image of perhaps 100 million.
        step = max(1, good.size // 200_000)
        some = factor.reshape(-1)[::step][good.reshape(-1)[::step]]
        middle = float(np.median(some)) if len(some) else 0.0
        good &= (factor > _SMALLEST_GAIN * middle) & (factor < _LARGEST_GAIN * middle)
    if good.mean() < 0.75:
        raise ValueError(f"{1.0 - good.mean():.0%} of the gain reference is zero, negative or not finite")
    factor[~good] = 1.0
    return factor, ~good


def find_hot_pixels(
    total: NDArray[np.float32],
    factor: NDArray[np.float32] | None,
    *,
    sigma: float = 6.0,
    block: int = 64,
) -> NDArray[np.bool_]:
    """Pixels of the sum of all frames that stand out of their surroundings, or never counted.

    Parameters
    ----------
    total
        ``(height, width)``: sum of the frames, before the gain.
    factor
        ``(height, width)``: the gain to multiply by, or None.
    sigma
        How many standard deviations of the surrounding block count as hot.
    block
        Side of the blocks whose mean and deviation are taken (px).

    Returns
    -------
    numpy.ndarray
        ``(height, width)``, True at pixels to replace. All False when more than one in 200 would
        be: then it's no matter of single pixels.
    """
    height, width = total.shape
    found = np.zeros(total.shape, dtype=bool)
    for top in range(0, height, block):
        rows = slice(top, min(top + block, height))
        strip = total[rows] * factor[rows] if factor is not None else total[rows].astype(np.float32)
        edges = np.arange(0, width, block)
        counts = np.diff(np.append(edges, width)) * strip.shape[0]
        limit = np.full(len(edges), np.inf, dtype=np.float32)
        floor = np.full(len(edges), -np.inf, dtype=np.float32)
        columns = np.arange(width) // block
        for _ in range(2):  # the second time without the first's finds, which inflate the deviation
            kept = np.clip(strip, floor[columns], limit[columns])
            mean = np.add.reduceat(kept.sum(axis=0, dtype=np.float64), edges) / counts
            squares = np.einsum("yx,yx->x", kept, kept, dtype=np.float64)
            deviation = np.sqrt(np.maximum(np.add.reduceat(squares, edges) / counts - mean**2, 0.0))
            limit = (mean + sigma * deviation).astype(np.float32)
            floor = (mean - sigma * deviation).astype(np.float32)
        # Never counted though its neighbours did: dead, where chance would give less than e^-12.
        dead = (total[rows] == 0) & (mean[columns] > 12.0) & (deviation[columns] > 0)
        found[rows] = ((strip > limit[columns]) & (deviation[columns] > 0)) | dead
    if found.mean() > _MOST_HOT:
        found[:] = False
    return found


@dataclass(frozen=True)
class Repairs:
    """Bad pixels and the good neighbours that stand in for them.

    Attributes
    ----------
    targets
        ``(n,)`` flat indices of the bad pixels.
    sources
        ``(n, 8)`` flat indices of good neighbours; each frame takes one of them by a fixed
        shuffle, so that the replacement keeps the noise of a single pixel.
    """

    targets: NDArray[np.int64]
    sources: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.targets)

    def apply(self, frame: NDArray[np.generic], number: int) -> None:
        """Replace the bad pixels of frame ``number``, in place."""
        if len(self.targets) == 0:
            return
        picks = np.random.default_rng([number, len(self.targets)]).integers(
            0, self.sources.shape[1], len(self.targets)
        )
        flat = frame.reshape(-1)
        flat[self.targets] = flat[self.sources[np.arange(len(self.targets)), picks]]

    def smooth_gain(self, factor: NDArray[np.float32]) -> None:
        """Give bad pixels the mean gain of their stand-ins, in place."""
        if len(self.targets):
            flat = factor.reshape(-1)
            flat[self.targets] = flat[self.sources].mean(axis=1)


def plan_repairs(bad: NDArray[np.bool_]) -> Repairs:
    """Choose good neighbours for each bad pixel, the nearest first.

    Parameters
    ----------
    bad
        ``(height, width)``.

    Raises
    ------
    ValueError
        When a bad pixel has no good one within 32 px: the defect is a hole, not a pixel.
    """
    height, width = bad.shape
    ys, xs = np.nonzero(bad)
    targets = (ys * width + xs).astype(np.int64)
    sources = np.full((len(targets), _NEIGHBOURS), -1, dtype=np.int64)
    filled = np.zeros(len(targets), dtype=np.int64)
    reach = np.arange(-_WIDEST, _WIDEST + 1)
    offsets = np.stack(np.meshgrid(reach, reach, indexing="ij"), axis=-1).reshape(-1, 2)
    order = np.argsort((offsets**2).sum(axis=1), kind="stable")[1:]
    open_ = np.arange(len(targets))
    for dy, dx in offsets[order]:
        if len(open_) == 0:
            break
        y, x = ys[open_] + dy, xs[open_] + dx
        fits = (y >= 0) & (y < height) & (x >= 0) & (x < width)
        fits[fits] = ~bad[y[fits], x[fits]]
        chosen = open_[fits]
        sources[chosen, filled[chosen]] = y[fits] * width + x[fits]
        filled[chosen] += 1
        open_ = open_[filled[open_] < _NEIGHBOURS]
    if (filled == 0).any():
        raise ValueError(f"{int((filled == 0).sum())} defective pixels have no good one within {_WIDEST} px")
    # Fewer than eight were in reach (tiny images): repeat those that were.
    for index in np.nonzero(filled < _NEIGHBOURS)[0]:
        sources[index] = np.resize(sources[index, : filled[index]], _NEIGHBOURS)
    return Repairs(targets, sources)
