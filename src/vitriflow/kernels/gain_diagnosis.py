"""Looks at the first movies and says whether the gain reference belongs to them, and how it's to be laid on."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vitriflow.kernels.gain_diagnosis_pattern import (
    ORIENTATIONS,
    Level,
    Pattern,
    Score,
    Strength,
    count_pattern,
    gain_pattern,
    likeness,
    orient,
    score_orientations,
    shared_strength,
)
from vitriflow.kernels.gain_diagnosis_sums import FrameSums
from vitriflow.kernels.gain_diagnosis_words import put_in_words

__all__ = [
    "ORIENTATIONS",
    "FrameSums",
    "GainDiagnosis",
    "Level",
    "Score",
    "Strength",
    "Verdict",
    "diagnose_gain",
]

Float = NDArray[np.float32]
Severity = Literal["info", "warning", "alarm"]

_FLAT = 0.003  # of a reference's spread: below it no orientation matters
_BARE = 0.01  # of the movies' pattern: below it they are corrected
_ERROR = 0.1  # of a fit, that lets 1 be told from 0 at ten standard deviations
_FITS = 0.4  # a good reference has 1; its own noise lowers that
_DIVIDES = -0.6  # lower than what a noisy reference leaves in movies corrected with it
_IMPRINT = -0.1
_SIGMAS = 8.0
_MARGIN = 6.0  # standard deviations between the best orientation and any other
_ALIKE = 0.98  # correlation past which two orientations of a reference do the same
_LEFT = 0.5  # of the reference's spread, left after correction: worth a warning
_LINES = 0.003  # of the counts, common to whole rows or columns after correction: worth a warning
_PATIENCE = 45  # more movies than that won't come while it still matters


class Verdict(StrEnum):
    """What is the matter with a gain reference."""

    RIGHT = "right"
    WRONG_ORIENTATION = "wrong_orientation"
    WRONG_CONVENTION = "wrong_convention"
    CORRECTED_ALREADY = "corrected_already"
    OTHER_CAMERA = "other_camera"
    WRONG_SIZE = "wrong_size"
    FLAT = "flat"
    MISSING = "missing"
    NOT_NEEDED = "not_needed"
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class GainDiagnosis:
    """What the first movies say about the gain reference.

    Attributes
    ----------
    verdict
        What is the matter, if anything.
    severity
        ``info`` when nothing is to be done, ``warning`` for what could be better, ``alarm`` for what
        spoils every movie.
    text
        A sentence for people, with what to set.
    set_orientation, set_convention
        The orientation and convention that fit, by the names that the parameters gain_orientation and
        gain_convention take; None where nothing fits or it can't be told.
    alike
        Orientations that do the same as ``set_orientation``, itself included.
    used_orientation, used_convention
        What was asked about.
    scores
        Fit of each orientation that has the movies' size, best first.
    margin_sigmas
        By how many standard deviations the best orientation is ahead of any that isn't alike.
    more_movies
        How many more movies would decide; None when it's decided, or when no number of them would.
    n_movies, n_frames, counts
        What was looked at; ``counts`` is the mean of the sum of all frames, per pixel.
    gain_spread
        Spread of the reference from pixel to pixel, relative; None without one.
    movies
        Pattern that the movies carry before correction; None while it can't be told.
    left
        Pattern that remains after correction with what fits; None where nothing does.
    """

    verdict: Verdict
    severity: Severity
    text: str
    set_orientation: str | None
    set_convention: str | None
    alike: tuple[str, ...]
    used_orientation: str
    used_convention: str
    scores: tuple[Score, ...]
    margin_sigmas: float | None
    more_movies: int | None
    n_movies: int
    n_frames: int
    counts: float
    gain_spread: float | None
    movies: Strength | None
    left: Strength | None

    @property
    def wrong(self) -> bool:
        """Whether processing with what was asked about would spoil the movies."""
        return self.severity == "alarm"

    @property
    def decided(self) -> bool:
        """Whether more movies would change nothing."""
        return self.verdict is not Verdict.UNDECIDED


def diagnose_gain(
    frame_sum: Float,
    n_frames: int,
    gain: Float | None = None,
    *,
    parts: tuple[Float, Float] | None = None,
    n_movies: int = 1,
    orientation: str = "as_is",
    convention: Literal["multiply", "divide"] = "multiply",
) -> GainDiagnosis:
    """Compare the fixed pattern of the first movies with a gain reference.

    The movies' pattern is regressed, weighted by counts, on what the reference predicts in each
    orientation. See docs/explanations/gain.md for the equations.

    Parameters
    ----------
    frame_sum
        ``(height, width)``: sum of the raw frames of all movies, in counts.
    n_frames
        How many frames were summed.
    gain
        ``(height, width)`` as stored, or with height and width swapped; 0 marks defects. None when
        the movies are to be used as they are.
    parts
        Two sums that share no frame (`FrameSums.parts`), each ``(height, width)``. Without them the
        movies' own pattern isn't known, and only a reference that fits can be told.
    n_movies
        How many movies were summed. A single one's parts share its specimen, so it can show that
        there's no pattern, and can't show that there's one.
    orientation, convention
        How the reference would be used: what is judged.

    Returns
    -------
    GainDiagnosis

    Raises
    ------
    KeyError
        For an unknown orientation.
    """
    if orientation not in ORIENTATIONS:
        raise KeyError(f"{orientation} isn't one of {', '.join(ORIENTATIONS)}")
    pattern = count_pattern(frame_sum)
    blank = GainDiagnosis(
        verdict=Verdict.UNDECIDED,
        severity="info",
        text="",
        set_orientation=None,
        set_convention=None,
        alike=(),
        used_orientation=orientation,
        used_convention=convention,
        scores=(),
        margin_sigmas=None,
        more_movies=None,
        n_movies=n_movies,
        n_frames=n_frames,
        counts=pattern.counts,
        gain_spread=None,
        movies=None if parts is None else shared_strength(*parts, pattern.good),
        left=None,
    )
    if gain is None:
        found = _without_gain(blank)
    elif sorted(gain.shape) != sorted(frame_sum.shape):
        found = replace(blank, verdict=Verdict.WRONG_SIZE, severity="alarm")
    else:
        found = _with_gain(blank, pattern, np.asarray(gain, np.float32), parts)
    return replace(found, text=put_in_words(found))


def _carries(d: GainDiagnosis, threshold: float) -> bool | None:
    """Whether the movies carry a pattern above ``threshold``; None while it can't be told."""
    if d.movies is None:
        return None
    if d.movies.pixels.high < threshold:
        return False
    # One movie's parts share the specimen, which may be all that there is.
    return True if d.n_movies > 1 and d.movies.pixels.low > threshold else None


def _more_for_pattern(d: GainDiagnosis, threshold: float) -> int | None:
    """Movies that it takes to tell a pattern from ``threshold``: its error falls with their number."""
    if d.movies is None or d.n_movies < 2:
        return 1
    level = d.movies.pixels
    error = level.high**2 - level.rms**2  # three standard deviations
    times = error / threshold**2
    if times <= 1.0:  # known well enough to tell nothing from twice the threshold: it lies close to it
        times = error / max(abs(level.rms**2 - threshold**2), 1e-12)
    return _patient(d.n_movies * (times - 1.0))


def _patient(more: float) -> int | None:
    return None if more > _PATIENCE else max(1, math.ceil(more))


def _without_gain(d: GainDiagnosis) -> GainDiagnosis:
    carries = _carries(d, _BARE)
    if carries is None:
        return replace(d, more_movies=_more_for_pattern(d, _BARE))
    if carries:
        return replace(d, verdict=Verdict.MISSING, severity="alarm")
    return replace(d, verdict=Verdict.NOT_NEEDED)


def _with_gain(
    d: GainDiagnosis, pattern: Pattern, gain: Float, parts: tuple[Float, Float] | None
) -> GainDiagnosis:
    expected, good = gain_pattern(gain)
    spread = float(expected[good].std(dtype=np.float64)) if good.any() else 0.0
    d = replace(d, gain_spread=spread)
    if spread < _FLAT:
        return _flat(d)
    scores = sorted(score_orientations(pattern, expected), key=lambda score: -abs(score.fit))
    if not scores:  # all of the image is masked
        return replace(d, more_movies=1)
    d = replace(d, scores=tuple(scores))
    best = scores[0]
    same = {s.orientation: likeness(expected, best.orientation, s.orientation) for s in scores}
    alike = tuple(label for label in same if same[label] > _ALIKE)
    margin = _margin(scores, same)
    d = replace(d, margin_sigmas=margin)
    enough = min(_ERROR, abs(best.fit) / _SIGMAS) if abs(best.fit) > abs(_IMPRINT) else _ERROR
    error = max(score.error for score in scores)
    clear = best.sigmas >= _SIGMAS and (margin is None or margin >= _MARGIN)
    if clear and error <= _ERROR and not _DIVIDES < best.fit < _FITS:
        return _fitting(d, pattern, gain, parts, alike)
    if error > _ERROR or not (clear or abs(best.fit) < _FITS):
        more = _patient(d.n_movies * ((max(error, best.error) / enough) ** 2 - 1.0))
        return replace(d, more_movies=more)
    return _not_fitting(d, clear)


def _margin(scores: Sequence[Score], same: dict[str, float]) -> float | None:
    """How far the best is ahead of all that aren't alike, in standard deviations of the difference."""
    best, margins = scores[0], []
    for other in scores[1:]:
        shared = same[other.orientation]
        if shared > _ALIKE:
            continue
        variance = best.error**2 + other.error**2 - 2.0 * shared * best.error * other.error
        ahead = abs(best.fit) - abs(other.fit)
        margins.append(ahead / max(math.sqrt(max(variance, 0.0)), 0.1 * best.error, 1e-12))
    return min(margins) if margins else None


def _flat(d: GainDiagnosis) -> GainDiagnosis:
    carries = _carries(d, _BARE)
    if carries is None:
        return replace(d, more_movies=_more_for_pattern(d, _BARE))
    return replace(d, verdict=Verdict.FLAT, severity="alarm" if carries else "info")


def _fitting(
    d: GainDiagnosis,
    pattern: Pattern,
    gain: Float,
    parts: tuple[Float, Float] | None,
    alike: tuple[str, ...],
) -> GainDiagnosis:
    """Judge how a reference that belongs to the movies is used, and what it leaves."""
    best = d.scores[0]
    found = d.used_orientation if d.used_orientation in alike else best.orientation
    convention: Literal["multiply", "divide"] = "multiply" if best.fit > 0 else "divide"
    verdict = Verdict.RIGHT
    severity: Severity = "info"
    if found != d.used_orientation:
        verdict, severity = Verdict.WRONG_ORIENTATION, "alarm"
    elif convention != d.used_convention:
        verdict, severity = Verdict.WRONG_CONVENTION, "alarm"
    left = None
    if parts is not None:
        laid = np.ascontiguousarray(orient(gain, found))
        good = pattern.good & np.isfinite(laid) & (laid > 0)
        factor = np.ones_like(laid)
        if convention == "multiply":
            factor[good] = laid[good]
        else:
            factor[good] = float(laid[good].mean(dtype=np.float64)) / laid[good]
        left = shared_strength(parts[0] * factor, parts[1] * factor, good)
        if severity == "info" and d.n_movies > 1 and _leaves_much(left, d.gain_spread or 0.0):
            severity = "warning"
    return replace(
        d,
        verdict=verdict,
        severity=severity,
        set_orientation=found,
        set_convention=convention,
        alike=alike,
        left=left,
    )


def _leaves_much(left: Strength, spread: float) -> bool:
    return left.pixels.low > max(_BARE, _LEFT * spread) or max(left.rows.low, left.columns.low) > _LINES


def _not_fitting(d: GainDiagnosis, clear: bool) -> GainDiagnosis:
    """Tell corrected movies from another camera's reference, when fits are known well and none is good."""
    best, spread = d.scores[0], d.gain_spread or 0.0
    threshold = min(max(_BARE, 0.25 * spread), 0.5 * spread)
    carries = _carries(d, threshold)
    if carries and d.movies is not None and clear and _DIVIDES < best.fit < _IMPRINT:
        # Movies corrected with a noisy reference carry that noise, upside down.
        carries = d.movies.pixels.rms**2 > 2.0 * abs(best.fit) * spread**2
    if carries is None:
        return replace(d, more_movies=_more_for_pattern(d, threshold))
    verdict = Verdict.OTHER_CAMERA if carries else Verdict.CORRECTED_ALREADY
    return replace(d, verdict=verdict, severity="alarm")
