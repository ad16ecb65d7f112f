"""One plain sentence on a session that a novice can act on, and its reasons."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from vitriflow import words
from vitriflow.facility.verdict.advice import advise
from vitriflow.facility.verdict.trends import Trend

FloatArray = NDArray[np.float64]

# Verdict limits. Single-particle facilities call a fit beyond about 6 A poor and 10 A useless;
# a path beyond 50 A over a movie of 40 to 60 frames is drift, not settling.
GOOD_SHARE = 0.8
FAIR_SHARE = 0.5
GOOD_FIT_A = 6.0
POOR_FIT_A = 10.0
HIGH_MOTION_A = 50.0
QUIET_S = 900.0


@dataclass(frozen=True)
class Verdict:
    """A sentence on the session, and how serious it is: good, fair, poor or none (too early).

    ``stop`` says that going on would waste the microscope's time: the sentence begins with "Stop".
    ``advice`` is what to do now, for somebody at the microscope; empty while there's nothing to say.
    """

    level: str
    sentence: str
    reasons: list[str] = field(default_factory=list)
    stop: bool = False
    advice: str = ""


@dataclass(frozen=True)
class Facts:
    """What a verdict is made of."""

    total: int
    finished: int  # with the failed ones and those that were set aside
    usable: int
    fit_A: float | None
    motion_A: float | None
    trends: Sequence[Trend]
    gain_alarm: str
    problems: Sequence[tuple[int, str, str]]  # count, status, reason in words
    rejected_by_people: int
    outside_limits: int
    quiet_s: float  # since the last exposure, of an active session; 0 otherwise


def judge(facts: Facts) -> Verdict:
    """The verdict that the facts call for."""
    gain = _gain(facts.gain_alarm)
    if gain:
        more = _state(facts) if facts.finished else "Correct the reference, then process again."
        advice = "Take no more movies until the gain reference is right: 'Why' says what's wrong with it."
        return Verdict("poor", f"Stop: {gain}.", [facts.gain_alarm, more], stop=True, advice=advice)
    if facts.total == 0:
        return Verdict("none", "No exposures yet.")
    if facts.finished == 0:
        return Verdict("none", f"{words.plural(facts.total, 'exposure')} on the way, none finished yet.")
    level, why = _level(facts)
    advice = advise(
        facts,
        level,
        fit_is_poor=(facts.fit_A or 0.0) > GOOD_FIT_A,
        motion_is_high=(facts.motion_A or 0.0) > HIGH_MOTION_A,
        quiet_s=QUIET_S,
    )
    sentence = f"{level.capitalize()}: {_state(facts)}"
    if facts.trends:
        news = " and ".join(f"{trend.words} since {_clock(trend.since)}" for trend in facts.trends[:2])
        sentence = f"{sentence.removesuffix('.')}, but {news}."
        level = "fair" if level == "good" else level
    return Verdict(level, sentence, [*why, *_reasons(facts)], advice=advice)


def _state(facts: Facts) -> str:
    share = 100.0 * facts.usable / facts.finished
    # 99.6 % isn't all of them, and 0.4 % isn't none.
    shown = round(min(max(share, 1.0), 99.0)) if 0 < facts.usable < facts.finished else round(share)
    text = f"{shown} % usable ({facts.usable:,} of {facts.finished:,})"
    return text + (f", {facts.fit_A:.1f} Å typical." if facts.fit_A is not None else ".")


def _level(facts: Facts) -> tuple[str, list[str]]:
    share = facts.usable / facts.finished
    fit, motion = facts.fit_A or 0.0, facts.motion_A or 0.0
    level = "good" if share >= GOOD_SHARE else "fair" if share >= FAIR_SHARE else "poor"
    why = [f"{facts.usable:,} of the {facts.finished:,} exposures that were dealt with can be used."]
    if fit > GOOD_FIT_A:
        why.append(f"Half of the usable exposures fit no better than {fit:.1f} Å.")
        level = "fair" if level == "good" else level
    elif fit:
        why.append(f"Half of the usable exposures fit to {fit:.1f} Å or better.")
    if motion > HIGH_MOTION_A:
        why.append(f"Motion is high ({motion:.0f} Å typical): let the stage settle longer, check the grid.")
        level = "fair" if level == "good" else level
    elif motion:
        why.append(f"Motion is fine ({motion:.1f} Å typical).")
    return ("poor" if fit > POOR_FIT_A else level), why


def _reasons(facts: Facts) -> list[str]:
    reasons = []
    for trend in facts.trends:
        shown = words.QUANTITIES[trend.name]
        before, after = (words.number(value, shown.digits) for value in (trend.before, trend.after))
        unit = f" {shown.unit}" if shown.unit else ""
        reasons.append(
            f"{shown.label}: {before}{unit} before {_clock(trend.since)}, {after}{unit} now; "
            f"{words.plural(trend.count, 'exposure')} since."
        )
    for count, status, text in facts.problems[:3]:
        reasons.append(f"{words.plural(count, 'exposure')} {status}: {_lower(text)}.")
    if facts.rejected_by_people:
        reasons.append(f"{words.plural(facts.rejected_by_people, 'exposure')} set aside by people.")
    if facts.outside_limits:
        reasons.append(f"{words.plural(facts.outside_limits, 'exposure')} outside the limits that were set.")
    if facts.quiet_s > QUIET_S:
        reasons.append(f"Nothing new for {words.duration(facts.quiet_s)} although the session is active.")
    return reasons


def _gain(alarm: str) -> str:
    """A gain check's finding as the end of a sentence: its own first sentence."""
    if not alarm:
        return ""
    text = alarm.partition(": ")[2] or alarm
    first = text.split(". ")[0].rstrip(".")
    return _lower(first)[:200]


def _clock(seconds: float) -> str:
    """A time of day; with its day when that isn't today."""
    moment = datetime.fromtimestamp(seconds, UTC)
    today = datetime.fromtimestamp(time.time(), UTC).date()
    return moment.strftime("%H:%M UTC" if moment.date() == today else "%Y-%m-%d %H:%M UTC")


def median(values: FloatArray) -> float | None:
    """Median of what was measured; None when nothing was."""
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if len(finite) else None


def _lower(text: str) -> str:
    """Lower the first letter unless the word is an abbreviation."""
    return text if text[:2].isupper() else text[:1].lower() + text[1:]
