"""Whether a quantity became worse, and since when: by ranks, so that single outliers and odd scales don't matter.

The newest values of a quantity are searched for the place where they split best into a before and an
after (Pettitt 1979, Applied Statistics 28, 126). A change is told when chance hardly makes it, nearly all
values after it are worse than those before, the medians differ by enough to matter, and it has
lasted to the present.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
WINDOWS = (300, 120, 60)  # newest values that are looked at: a short window finds what has just begun
FEWEST = 24
SIDE = 8  # values before and after, at least
CHANCE = 5e-4
OVERLAP = 0.8  # share of pairs (before, after) in which the later one is worse
RECENT = 12  # newest values whose median has to be still on the worse side


@dataclass(frozen=True)
class Watched:
    """What becoming worse means for a quantity: its direction, by how much, and how to say it."""

    name: str
    sign: int  # +1 when higher is worse
    ratio: float  # change of the median relative to the median before, at least
    least: float  # and in the quantity's own unit
    words: str


WATCHED = (
    Watched("ice_ring", +1, 0.15, 0.1, "ice is getting thicker"),
    Watched("fit_resolution_A", +1, 0.10, 0.3, "fit resolution is getting worse"),
    Watched("total_A", +1, 0.30, 2.0, "motion is rising"),
    Watched("mean_intensity", -1, 0.10, 0.0, "intensity is falling (thicker ice, or the beam)"),
    Watched("n_picks", -1, 0.30, 5.0, "fewer particles are picked"),
    Watched("astigmatism_A", +1, 0.50, 150.0, "astigmatism is rising"),
)


@dataclass(frozen=True)
class Trend:
    """A quantity that became worse. ``since`` is seconds since 1970, when the first worse exposure was whole."""

    name: str
    words: str
    since: float
    before: float
    after: float
    count: int  # exposures since


def change_point(values: FloatArray) -> tuple[int, float] | None:
    """The best split of a series into before and after.

    Parameters
    ----------
    values
        In order of time, (n,), all finite.

    Returns
    -------
    The index of the first value after, and how likely chance alone makes as good a split
    (approximate, 0 to 1); None for a series of fewer than ``FEWEST``.
    """
    n = len(values)
    if n < FEWEST:
        return None
    order = np.argsort(values, kind="stable")
    ranks = np.empty(n)
    ranks[order] = np.arange(1, n + 1)
    distinct, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    if len(distinct) < n:  # ties share the mean of their ranks
        ends = np.cumsum(counts)
        ranks = (ends - (counts - 1) / 2.0)[inverse]
    u = 2.0 * np.cumsum(ranks)[:-1] - np.arange(1, n) * (n + 1.0)
    inner = np.abs(u[SIDE - 1 : n - SIDE])
    place = int(np.argmax(inner)) + SIDE - 1
    chance = 2.0 * np.exp(-6.0 * u[place] ** 2 / (float(n) ** 3 + float(n) ** 2))
    return place + 1, float(min(chance, 1.0))


def find_trend(watched: Watched, values: FloatArray, moments: FloatArray) -> Trend | None:
    """Whether the newest values of a quantity became worse.

    Parameters
    ----------
    values, moments
        The column and when each exposure was whole (s since 1970), (n,), in any order, NaN where not known.
    """
    finite = np.isfinite(values) & np.isfinite(moments)
    values, moments = values[finite], moments[finite]
    newest = np.argsort(moments, kind="stable")[-WINDOWS[0] :]
    values, moments = values[newest], moments[newest]
    found = (_within(watched, values[-window:], moments[-window:]) for window in WINDOWS)
    return next((trend for trend in found if trend is not None), None)


def _within(watched: Watched, values: FloatArray, moments: FloatArray) -> Trend | None:
    split = change_point(values)
    if split is None or split[1] > CHANCE:
        return None
    at, _ = split
    before, after = values[:at], values[at:]
    worse = watched.sign * (after[:, None] - before[None, :])
    overlap = float(np.mean((worse > 0) + 0.5 * (worse == 0)))
    old, new = float(np.median(before)), float(np.median(after))
    now = float(np.median(after[-RECENT:]))
    enough = max(watched.ratio * abs(old), watched.least)
    if overlap < OVERLAP or min(watched.sign * (new - old), watched.sign * (now - old)) < enough:
        return None
    return Trend(watched.name, watched.words, float(moments[at]), old, now, len(after))


def find_trends(columns: dict[str, FloatArray], moments: FloatArray) -> list[Trend]:
    """All quantities that became worse, in the order of :data:`WATCHED`."""
    found = (find_trend(one, columns[one.name], moments) for one in WATCHED if one.name in columns)
    return [trend for trend in found if trend is not None]
