"""The pattern of a camera's pixels: in sums of frames, in a gain reference, and how they compare."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

Float = NDArray[np.float32]
Mask = NDArray[np.bool_]

# Clockwise quarter turns with row 0 drawn at the top, then a flip (1 in y, 2 in x): RELION's --gain_rot and
# --gain_flip. The names are those of the parameter gain_orientation.
ORIENTATIONS: dict[str, tuple[int, int]] = {
    "as_is": (0, 0),
    "rotated_90": (1, 0),
    "rotated_180": (2, 0),
    "rotated_270": (3, 0),
    "flipped_y": (0, 1),
    "flipped_x": (0, 2),
    "rotated_90_flipped_y": (1, 1),
    "rotated_90_flipped_x": (1, 2),
}

_BOX = 11  # px: a camera's pattern is sharper than this, a specimen smoother
_OUTLIER = 6.0  # standard deviations past which a pixel is a defect, not part of the pattern
_ROUNDS = 2  # of finding outliers: they hide others, and spoil the mean around them
_SURE_DEAD = 12.0  # counts expected where none came: chance would give e^-12
_DENSE = 0.7  # share of pixels that count anything, past which the spread of counts is like a normal one
_ENOUGH_GOOD = 0.25  # of a box, for its mean to mean something
_NEAR = 3  # px around no shift that don't count as "elsewhere"


def orient(array: NDArray[Any], label: str) -> NDArray[Any]:
    """Lay an image ``(height, width)`` the way that ``label`` of `ORIENTATIONS` says; a view."""
    turns, flip = ORIENTATIONS[label]
    turned = np.rot90(array, -turns)
    if flip == 1:
        return turned[::-1]
    return turned[:, ::-1] if flip == 2 else turned


def _good_share(good: Mask) -> Float:
    """Part of the box around each pixel that is good."""
    share: Float = uniform_filter(good.astype(np.float32), _BOX)
    return share


def _local_mean(image: Float, good: Mask, share: Float | None = None) -> tuple[Float, Mask]:
    """Mean of the good pixels of the box around each pixel, and where there are enough of them."""
    share = _good_share(good) if share is None else share
    enough = share > _ENOUGH_GOOD
    level = uniform_filter(np.where(good, image, np.float32(0)), _BOX)
    np.divide(level, share, out=level, where=enough)
    level[~enough] = 0.0
    return level, enough


def _few_counts(values: Float) -> float:
    """How far above its surroundings chance takes a pixel where most count nothing: a few counts."""
    counted = values[values > 0]
    if counted.size == 0 or counted.size > _DENSE * values.size:
        return 0.0
    return _OUTLIER * float(np.median(counted))


@dataclass(frozen=True)
class Pattern:
    """What pixels count differently from those around them.

    Attributes
    ----------
    deviation
        ``(height, width)``: counts above those of the surroundings, over the mean count; 0 where masked.
    level
        ``(height, width)``: counts of the surroundings over the mean count; 0 where masked. Large where
        a relative deviation is known well.
    good
        ``(height, width)``: pixels that are neither defective nor outliers.
    counts
        Mean counts per pixel.
    """

    deviation: Float
    level: Float
    good: Mask
    counts: float


def count_pattern(total: Float, good: Mask | None = None, share: Float | None = None) -> Pattern:
    """Take a camera's pattern from a sum of frames.

    A pixel with response r (mean 1) counts S with mean L r where its surroundings count L, so
    (S - L) / L is r - 1 with a variance of 1 / L, however few the counts are. Weighting by L is the
    best that counting noise allows.

    Parameters
    ----------
    total
        ``(height, width)``: sum of frames.
    good
        ``(height, width)``: pixels to use; None finds them.
    share
        ``(height, width)``: part of the box around each pixel that is in ``good``, where it's known.
    """
    found = np.isfinite(total) if good is None else good
    level, enough = _local_mean(total, found, share)
    if good is None:
        for _ in range(_ROUNDS):
            usable = enough & (level > 0)
            score = (total - level) / np.sqrt(np.where(usable, level, np.float32(1)))
            kept = score[found & usable]
            limit = _OUTLIER * float(kept.std(dtype=np.float64)) if kept.size else 0.0
            dead = (total == 0) & (level > _SURE_DEAD)
            few = total <= level + np.float32(_few_counts(total[found & usable]))
            found = usable & ((np.abs(score) <= limit) | few) & (score >= -limit) & ~dead
            level, enough = _local_mean(total, found)
    found = found & enough & (level > 0)
    mean = max(float(total[found].mean(dtype=np.float64)) if found.any() else 0.0, 1e-30)
    deviation = np.where(found, (total - level) / np.float32(mean), np.float32(0))
    return Pattern(deviation, np.where(found, level / np.float32(mean), np.float32(0)), found, mean)


def gain_pattern(gain: Float) -> tuple[Float, Mask]:
    """Pattern that raw counts show when this reference is to be multiplied: -log of it, high-passed.

    Parameters
    ----------
    gain
        ``(height, width)``: what counts are multiplied by; 0 or less marks defects.

    Returns
    -------
    tuple
        ``(height, width)`` pattern, 0 at defects and outliers, and where it's good.
    """
    good = np.isfinite(gain) & (gain > 0)
    log = np.zeros(gain.shape, dtype=np.float32)
    np.log(gain, out=log, where=good)
    log[good] -= np.median(log[good][:: max(1, int(good.sum()) // 100_000)])
    for _ in range(_ROUNDS):
        level, enough = _local_mean(log, good)
        rest = log - level
        kept = rest[good & enough]
        spread = float(kept.std(dtype=np.float64)) if kept.size else 0.0
        good = good & enough & (np.abs(rest) <= max(_OUTLIER * spread, 1e-9))
    level, enough = _local_mean(log, good)
    good = good & enough
    return np.where(good, level - log, np.float32(0)), good


def _beats(deviation: Float, level: Float) -> NDArray[np.float64]:
    """What every second row and column have in common, ``(2, 2)``: halves of a pixel in super-resolution.

    It repeats all over the camera, so that it's alike wherever two patterns are laid on each other: it
    tells no orientation, and would drown what does.
    """
    means = np.zeros((2, 2))
    for y in range(2):
        for x in range(2):
            weight = float(level[y::2, x::2].sum(dtype=np.float64))
            means[y, x] = float(deviation[y::2, x::2].sum(dtype=np.float64)) / weight if weight > 0 else 0.0
    return means


def _without_beats(deviation: Float, level: Float, beats: NDArray[np.float64]) -> Float:
    """The rest of a pattern."""
    rest = deviation.copy()
    for y in range(2):
        for x in range(2):
            rest[y::2, x::2] -= np.float32(beats[y, x]) * level[y::2, x::2]
    return rest


@dataclass(frozen=True)
class Score:
    """How well one orientation of a reference explains the movies' pattern.

    Attributes
    ----------
    orientation
        Its name, as the parameter gain_orientation takes it.
    fit
        Slope of the movies' pattern against what the reference predicts: 1 when it belongs to the
        movies and is to be multiplied, -1 when it's to be divided by, 0 when they have nothing in common.
    error
        Standard deviation of ``fit``, from how well the two agree where they are laid on each other
        displaced, so whatever structure either has counts in.
    """

    orientation: str
    fit: float
    error: float

    @property
    def sigmas(self) -> float:
        """``fit`` over its error, without sign."""
        return abs(self.fit) / self.error if self.error > 0 else 0.0


def _elsewhere(correlation: NDArray[Any]) -> float:
    """Root mean square of a correlation map away from no shift."""
    flat = correlation.ravel()
    whole = float(np.dot(flat, flat))  # single precision is plenty for an error
    wrapped = np.r_[0 : _NEAR + 1, -_NEAR:0]
    near = np.square(correlation[np.ix_(wrapped, wrapped)], dtype=np.float64)
    return float(np.sqrt(max(whole - float(near.sum()), 0.0) / max(correlation.size - near.size, 1)))


def score_orientations(pattern: Pattern, expected: Float) -> list[Score]:
    """Compare the movies' pattern with that of a reference in each orientation that has its size.

    Parameters
    ----------
    pattern
        From the movies, ``(height, width)``.
    expected
        From `gain_pattern`, as stored, of the same size or with height and width swapped.

    Returns
    -------
    list
        Eight scores when both are square; four otherwise; none when the sizes differ.
    """
    shape = pattern.deviation.shape
    rest = _without_beats(pattern.deviation, pattern.level, _beats(pattern.deviation, pattern.level))
    # On this thread alone: scipy's own pool refuses work while another thread of the process forks.
    spectrum = scipy.fft.rfft2(rest)
    known = (expected != 0).astype(np.float32)
    expected = _without_beats(expected, known, _beats(expected, known))
    scores = []
    for label in ORIENTATIONS:
        laid = np.ascontiguousarray(orient(expected, label))
        if laid.shape != shape:
            continue
        other = scipy.fft.rfft2(laid)
        np.conjugate(other, out=other)
        other *= spectrum
        correlation = scipy.fft.irfft2(other, s=shape)
        power = float(np.einsum("yx,yx,yx->", laid, laid, pattern.level, dtype=np.float64))
        if power > 0:
            scores.append(Score(label, float(correlation[0, 0]) / power, _elsewhere(correlation) / power))
    return scores


def likeness(expected: Float, first: str, second: str) -> float:
    """Correlation coefficient of a pattern in two orientations of one size, -1 to 1."""
    a, b = orient(expected, first), orient(expected, second)
    power = float(np.square(expected, dtype=np.float64).sum())
    return float(np.einsum("yx,yx->", a, b, dtype=np.float64)) / power if power > 0 else 1.0


@dataclass(frozen=True)
class Level:
    """Strength of a pattern, relative to the counts (0.01 is 1 %).

    Attributes
    ----------
    rms
        Best estimate.
    low, high
        Three standard deviations of its square below and above.
    """

    rms: float
    low: float
    high: float

    @classmethod
    def of(cls, variance: float, error: float) -> "Level":
        """From a variance, which noise can make negative, and its standard deviation."""
        low, middle, high = (float(np.sqrt(max(variance + s * error, 0.0))) for s in (-3.0, 0.0, 3.0))
        return cls(middle, low, high)


@dataclass(frozen=True)
class Strength:
    """Patterns that two independent sums share.

    Attributes
    ----------
    pixels
        From pixel to pixel, all of it.
    rows, columns
        Part of it that whole rows and whole columns have in common.
    """

    pixels: Level
    rows: Level
    columns: Level


def shared_strength(first: Float, second: Float, good: Mask) -> Strength:
    """Measure the pattern that two independent sums share; noise averages out.

    Parameters
    ----------
    first, second
        ``(height, width)``: sums of different frames.
    good
        ``(height, width)``: pixels to use.
    """
    share = _good_share(good)
    a, b = count_pattern(first, good, share), count_pattern(second, good, share)
    beats = [_beats(one.deviation, one.level) for one in (a, b)]
    rest = [_without_beats(one.deviation, one.level, beat) for one, beat in zip((a, b), beats, strict=True)]
    correlation = scipy.fft.irfft2(
        scipy.fft.rfft2(rest[0]) * np.conj(scipy.fft.rfft2(rest[1])),
        s=good.shape,
    )
    weight = max(float(np.einsum("yx,yx->", a.level, b.level, dtype=np.float64)), 1e-30)
    repeated = float(np.mean(beats[0] * beats[1]))
    pixels = Level.of(float(correlation[0, 0]) / weight + repeated, _elsewhere(correlation) / weight)
    return Strength(pixels, _shared_lines(a, b, axis=1), _shared_lines(a, b, axis=0))


def _shared_lines(a: Pattern, b: Pattern, axis: int) -> Level:
    """What lines along ``axis`` share between two patterns."""
    level = np.minimum(a.level.sum(axis=axis, dtype=np.float64), b.level.sum(axis=axis, dtype=np.float64))
    seen = level > 0.25 * np.median(level)  # a line that is nearly all masked says nothing
    if seen.sum() < 2:
        return Level.of(0.0, 0.0)
    first = a.deviation.sum(axis=axis, dtype=np.float64)[seen] / level[seen]
    second = b.deviation.sum(axis=axis, dtype=np.float64)[seen] / level[seen]
    error = float(np.sqrt(np.mean(first**2) * np.mean(second**2) / seen.sum()))
    return Level.of(float(np.mean(first * second)), error)
