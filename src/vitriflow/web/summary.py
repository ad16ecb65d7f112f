"""One session in numbers and one sentence: counts that reconcile, rate, latency, verdict."""

import time
from dataclasses import dataclass

import numpy as np

from vitriflow.catalog import views
from vitriflow.web import words
from vitriflow.web.columns import DONE, STATUSES, FloatArray, Snapshot
from vitriflow.web.overlay import KEEP, REJECT, Overlay
from vitriflow.web.verdict import Facts, Verdict, judge, median, trends_of

# The rate is taken over the last half hour of work: long enough for slow cameras, short enough to
# show a stop.
RATE_WINDOW_S = 1800.0
BARE = Overlay()


@dataclass(frozen=True)
class Problem:
    """Exposures set aside for one reason."""

    code: str
    text: str
    status: str
    count: int
    newest: list[int]


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
class Limited:
    """What people did: exposures that they rejected, kept, commented; and how many pass their limits.

    ``passing`` is None while no limits are set; ``outside`` counts those done that don't pass.
    """

    rejected: int = 0
    kept: int = 0
    commented: int = 0
    passing: int | None = None
    outside: int = 0
    ended: int = 0


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
    people: Limited


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


def _facts(
    session: views.SessionView,
    snapshot: Snapshot,
    overlay: Overlay,
    counts: Counts,
    problems: list[Problem],
    last: float | None,
) -> tuple[Facts, Limited]:
    key, stamp = "facts", (overlay.stamp, overlay.gain_alarm)
    known = snapshot.cache.get(key)
    if known is None or known[0] != stamp:
        usable = overlay.usable(snapshot)
        marks, within = overlay.marks(snapshot), overlay.passing(snapshot)
        ended = snapshot.status != STATUSES.index("open")
        numbers = (
            int(np.count_nonzero(usable)),
            median(snapshot.values["fit_resolution_A"][usable]),
            median(snapshot.values["total_A"][usable]),
        )
        limited = Limited(
            rejected=int(np.count_nonzero(marks == REJECT)),
            kept=int(np.count_nonzero(marks == KEEP)),
            commented=int(np.count_nonzero(overlay.commented(snapshot))),
            passing=int(np.count_nonzero(within)) if overlay.limits else None,
            outside=int(np.count_nonzero(~within & (snapshot.status == DONE))) if overlay.limits else 0,
            ended=int(np.count_nonzero(ended)),
        )
        known = snapshot.cache[key] = (stamp, numbers, limited)
    _, (usable_count, fit, motion), limited = known
    awaits = session.state == "active" and snapshot.whole
    quiet = time.time() - last if last is not None and awaits else 0.0
    facts = Facts(
        total=counts.total,
        finished=counts.total - counts.open,
        usable=usable_count,
        fit_A=fit,
        motion_A=motion,
        trends=trends_of(snapshot),
        gain_alarm=overlay.gain_alarm,
        problems=[(one.count, one.status, one.text) for one in problems],
        rejected_by_people=limited.rejected,
        outside_limits=limited.outside,
        quiet_s=quiet,
    )
    return facts, limited


def summarise(session: views.SessionView, snapshot: Snapshot, overlay: Overlay = BARE) -> Summary:
    """Counts, rate, latency, problems and verdict of a session, with what people marked and set."""
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
    facts, limited = _facts(session, snapshot, overlay, counts, problems, last)
    return Summary(
        counts=counts,
        usable=facts.usable,
        doubtful=doubtful,
        rate_per_h=rate,
        latency_p50_s=p50,
        latency_p95_s=p95,
        last=last,
        problems=problems,
        verdict=judge(facts),
        people=limited,
    )
