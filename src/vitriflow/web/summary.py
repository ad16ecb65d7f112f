"""One session in numbers and one sentence: counts that reconcile, rate, latency, verdict."""

import time
from dataclasses import dataclass, field

import numpy as np

from vitriflow.catalog import views
from vitriflow.web import words
from vitriflow.web.columns import DONE, STATUSES, FloatArray, Snapshot

# The rate is taken over the last half hour of work: long enough for slow cameras, short enough to
# show a stop.
RATE_WINDOW_S = 1800.0
# Verdict limits. Single-particle facilities call a fit beyond about 6 A poor and 10 A useless;
# a path beyond 50 A over a movie of 40 to 60 frames is drift, not settling.
GOOD_SHARE = 0.8
FAIR_SHARE = 0.5
GOOD_FIT_A = 6.0
POOR_FIT_A = 10.0
HIGH_MOTION_A = 50.0
QUIET_S = 900.0


@dataclass(frozen=True)
class Problem:
    """Exposures set aside for one reason."""

    code: str
    text: str
    status: str
    count: int
    newest: list[int]


@dataclass(frozen=True)
class Verdict:
    """A sentence on the session, and how serious it is: good, fair, poor or none (too early)."""

    level: str
    sentence: str
    reasons: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Counts:
    """Exposures that came in and where they stand: ``total`` is the sum of the five."""

    total: int
    done: int
    failed: int
    rejected: int
    quarantined: int
    open: int
    growing: int  # part of open: seen on disk, not whole yet

    @property
    def reconciles(self) -> bool:
        """Whether the five add up to what came in."""
        return self.done + self.failed + self.rejected + self.quarantined + self.open == self.total


@dataclass(frozen=True)
class Summary:
    """What the head of a session's page shows. Times in seconds, ``last`` in seconds since 1970 UTC."""

    counts: Counts
    usable: int
    doubtful: int
    rate_per_h: float | None
    latency_p50_s: float | None
    latency_p95_s: float | None
    last: float | None
    problems: list[Problem]
    verdict: Verdict


def _count(snapshot: Snapshot) -> Counts:
    """Counts of a session.

    Exposures that no processing has taken up yet are open; those set aside at intake are in the
    snapshot as quarantined. So the sum holds whatever the pipeline is doing.
    """
    measured = snapshot.counts()
    untouched = max(snapshot.came_in - snapshot.size, 0)
    still_open = measured["open"] + untouched
    return Counts(
        total=snapshot.size + untouched,
        done=measured["done"],
        failed=measured["failed"],
        rejected=measured["rejected"],
        quarantined=measured["quarantined"],
        open=still_open,
        growing=min(snapshot.growing, still_open),
    )


def _median(values: FloatArray) -> float | None:
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if len(finite) else None


def _percentile(values: FloatArray, percent: float) -> float | None:
    finite = values[np.isfinite(values)]
    return float(np.percentile(finite, percent)) if len(finite) else None


def _rate_per_h(finished: FloatArray) -> float | None:
    """Exposures finished an hour, over the last half hour before the newest one."""
    moments = finished[np.isfinite(finished)]
    if len(moments) < 2:
        return None
    newest = float(moments.max())
    recent = moments[moments > newest - RATE_WINDOW_S]
    span = newest - float(recent.min())
    return None if span <= 0 else (len(recent) - 1) * 3600.0 / span


def _problems(snapshot: Snapshot) -> list[Problem]:
    """Reasons with their counts, most frequent first."""
    found = []
    for code, status in enumerate(STATUSES):
        if status in ("open", "done"):
            continue
        rows = np.flatnonzero(snapshot.status == code)
        if not len(rows):
            continue
        for reason in np.unique(snapshot.reason[rows]):
            mine = rows[snapshot.reason[rows] == reason]
            newest = snapshot.ids[mine[-3:]][::-1].tolist()
            name = snapshot.lexicon.word(reason)
            found.append(Problem(name, words.reason_words(name), status, len(mine), newest))
    return sorted(found, key=lambda problem: (-problem.count, problem.text))


def _verdict(
    snapshot: Snapshot, counts: Counts, usable: int, problems: list[Problem], state: str, last: float | None
) -> Verdict:
    finished = counts.total - counts.open
    if counts.total == 0:
        return Verdict("none", "No exposures yet.")
    if finished == 0:
        return Verdict("none", f"{words.plural(counts.total, 'exposure')} on the way, none finished yet.")
    share = usable / finished
    good = (snapshot.status == DONE) & ~snapshot.doubtful
    fit = _median(snapshot.values["fit_resolution_A"][good])
    motion = _median(snapshot.values["total_A"][good])
    parts = [f"{usable:,} of {finished:,} usable"]
    reasons = []
    if fit is not None:
        parts.append(f"median fit resolution {fit:.1f} Å")
        if fit > GOOD_FIT_A:
            reasons.append(f"Half of the usable exposures fit no better than {fit:.1f} Å.")
    if motion is not None:
        calm = motion <= HIGH_MOTION_A
        parts.append("motion fine" if calm else f"motion high ({motion:.0f} Å typical)")
        if not calm:
            reasons.append("Stage drift or charging: let the stage settle longer, check the grid.")
    level = "good" if share >= GOOD_SHARE else "fair" if share >= FAIR_SHARE else "poor"
    if level == "good" and ((fit or 0.0) > GOOD_FIT_A or (motion or 0.0) > HIGH_MOTION_A):
        level = "fair"
    if (fit or 0.0) > POOR_FIT_A:
        level = "poor"
    reasons += [f"{words.plural(p.count, 'exposure')} {p.status}: {_lower(p.text)}." for p in problems[:2]]
    quiet = time.time() - last if last is not None else 0.0
    if state == "active" and quiet > QUIET_S:
        reasons.append(f"Nothing new for {words.duration(quiet)} although the session is active.")
    return Verdict(level, "; ".join(parts) + ".", reasons)


def _lower(text: str) -> str:
    """Lower the first letter unless the word is an abbreviation."""
    return text if text[:2].isupper() else text[:1].lower() + text[1:]


def summarise(session: views.SessionView, snapshot: Snapshot) -> Summary:
    """Counts, rate, latency, problems and verdict of a session."""
    numbers = snapshot.cache.get("numbers")
    if numbers is None:
        complete = snapshot.times["complete"]
        finite = complete[np.isfinite(complete)]
        numbers = (
            int(np.count_nonzero(snapshot.doubtful)),
            _rate_per_h(snapshot.times["finished"]),
            _percentile(snapshot.values["latency_s"], 50),
            _percentile(snapshot.values["latency_s"], 95),
            float(finite.max()) if len(finite) else None,
            _problems(snapshot),
        )
        snapshot.cache["numbers"] = numbers
    doubtful, rate, p50, p95, last, problems = numbers
    counts = _count(snapshot)
    usable = counts.done - doubtful
    return Summary(
        counts=counts,
        usable=usable,
        doubtful=doubtful,
        rate_per_h=rate,
        latency_p50_s=p50,
        latency_p95_s=p95,
        last=last,
        problems=problems,
        verdict=_verdict(snapshot, counts, usable, problems, session.state, last),
    )
