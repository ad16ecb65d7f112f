"""Rules over what is measured of a session's exposures: medians, fractions and ages over a window, with limits."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import Any

import numpy as np
from jinja2 import Template
from jinja2.sandbox import SandboxedEnvironment
from numpy.typing import NDArray
from sqlalchemy import func, select
from sqlalchemy.orm import Session as OrmSession

from vitriflow import words
from vitriflow.catalog import (
    Experiment,
    Exposure,
    ExposureState,
    Measure,
    Microscope,
    Processing,
    Sample,
    Session,
    SessionState,
)
from vitriflow.config import RuleSection
from vitriflow.config.monitoring import MACHINE, MEASURED, STATES, WAITING
from vitriflow.monitors.alarms import Level, Reading

FloatArray = NDArray[np.float64]
USUAL_WINDOW = 30
_MOST = 2000  # exposures that a window in minutes may hold
_UNPROCESSED = "no_processing"  # in a session's settings: its files are only taken in
_LABELS = {
    "waiting_min": ("Oldest exposure that waits", "min", 0),
    "cpu_percent": ("CPU", "%", 0),
    "load_per_core": ("Load of each core", "", 1),
    "memory_percent": ("Memory", "%", 0),
    "swap_percent": ("Swap", "%", 0),
    "network_MB_per_s": ("Network", "MB/s", 1),
    "network_errors_per_s": ("Network errors", "/s", 1),
    "gpu_percent": ("GPU", "%", 0),
    "gpu_memory_percent": ("GPU memory", "%", 0),
    "gpu_temperature_C": ("GPU temperature", "°C", 0),
}
_STATISTICS: dict[str, Callable[[FloatArray], Any]] = {
    "median": np.median,
    "mean": np.mean,
    "max": np.max,
    "min": np.min,
    "p95": lambda values: np.percentile(values, 95),
}
_USUAL = (
    "{{ label }} of {{ session or host }} is {{ value }}{% if unit %} {{ unit }}{% endif %} "
    "({{ window }}); the limit is {{ limit }}."
)


@dataclass(frozen=True)
class _Rows:
    """Exposures of a session that were dealt with, by id: ids (n,), times (s), states, quality and measured values."""

    ids: NDArray[np.int64]
    times: FloatArray
    states: NDArray[Any]
    doubtful: NDArray[np.bool_]
    values: dict[str, FloatArray]

    def part(self, chosen: NDArray[np.bool_]) -> "_Rows":
        return _Rows(
            self.ids[chosen],
            self.times[chosen],
            self.states[chosen],
            self.doubtful[chosen],
            {name: column[chosen] for name, column in self.values.items()},
        )

    def of(self, quantity: str) -> FloatArray:
        """Its finite values in order of id; for a state 1 and 0."""
        if quantity == "doubtful":
            return self.doubtful.astype(float)
        if quantity == "set_aside":
            return np.isin(self.states, ("rejected", "quarantined", "failed")).astype(float)
        if quantity in STATES:
            return np.asarray(self.states == quantity, dtype=float)
        column = self.values[quantity]
        return column[np.isfinite(column)]


@dataclass(frozen=True)
class _Scene:
    """One active session, as rules see it."""

    session: Session
    names: dict[str, str]  # microscope, sample, experiment
    newest: _Rows
    first: _Rows
    waiting_min: float


def look_at_sessions(
    orm: OrmSession, rules: Sequence[RuleSection], moment: datetime
) -> dict[str, list[Reading]]:
    """What each rule over exposures and sessions says of each active session.

    Parameters
    ----------
    orm
        A transaction.
    rules
        All rules; those over machines are passed over.
    moment
        Now.

    Returns
    -------
    Readings by the rule's name; a rule that's turned off has none, so that its alarms are cleared.
    """
    ours = [rule for rule in rules if rule.quantity not in MACHINE]
    found: dict[str, list[Reading]] = {rule.name: [] for rule in ours}
    active = [rule for rule in ours if rule.enabled]
    if not active:
        return found
    for scene in _scenes(orm, active, moment):
        for rule in active:
            if not rule.microscopes or scene.names["microscope"] in rule.microscopes:
                found[rule.name].append(_read(rule, scene, moment))
    return found


def limits_of(rule: RuleSection, value: float) -> tuple[Level, float | None]:
    """The level of a value by a rule's limits, and the limit that it's beyond."""
    over, under = rule.clears
    if rule.above is not None and value >= rule.above:
        return Level.WRONG, rule.above
    if rule.below is not None and value <= rule.below:
        return Level.WRONG, rule.below
    clear = (over is None or value <= over) and (under is None or value >= under)
    return (Level.OVER if clear else Level.BETWEEN), None


def statistic_of(rule: RuleSection, values: FloatArray) -> float | None:
    """The rule's statistic of a window; None of fewer values than it needs."""
    if len(values) < rule.least:
        return None
    if rule.statistic == "count":
        return float(values.sum()) if rule.quantity in STATES else float(len(values))
    if rule.statistic == "fraction":
        return float(values.mean())
    return float(_STATISTICS[rule.statistic](values))


def sentence(rule: RuleSection, value: float, limit: float | None, names: dict[str, Any]) -> str:
    """What people are told, by the rule's template."""
    label, unit, digits = _label(rule.quantity)
    shown = {
        "label": label,
        "unit": unit,
        "value": _shown(rule, value, digits),
        "limit": "" if limit is None else _shown(rule, limit, digits),
        "session": "", "microscope": "", "sample": "", "experiment": "", "host": "", "service": "",
        "n": "", "window": "", "before": "",
    } | {name: one for name, one in names.items() if one is not None}  # fmt: skip
    if rule.against_start and limit is not None:
        shown["limit"] = f"{limit:g} x the start"
    if isinstance(shown["before"], float):
        shown["before"] = _shown(rule, shown["before"], digits)
    return _template(rule.message or _USUAL).render(shown)


@cache
def _template(text: str) -> Template:
    return SandboxedEnvironment(autoescape=False).from_string(text)


def _label(quantity: str) -> tuple[str, str, int]:
    if quantity in words.QUANTITIES:
        known = words.QUANTITIES[quantity]
        return known.label, known.unit, known.digits
    if quantity in STATES:
        return f"Exposures {quantity.replace('_', ' ')}", "", 0
    return _LABELS[quantity]


def _shown(rule: RuleSection, value: float, digits: int) -> str:
    if rule.statistic == "fraction":
        return f"{100 * value:.0f} %"
    return words.number(value, 0 if rule.statistic == "count" else digits)


def window_words(rule: RuleSection, n: int) -> str:
    """The window as a message names it."""
    return f"{rule.minutes:g} min" if rule.minutes is not None else f"{n} exposures"


def _read(rule: RuleSection, scene: _Scene, moment: datetime) -> Reading:
    subject = f"session:{scene.session.key}"
    quiet = Reading(subject, Level.BETWEEN, session_id=scene.session.id, severity=rule.severity)
    names: dict[str, Any] = {"session": scene.session.key, **scene.names}
    if rule.quantity in WAITING:
        value, judged = scene.waiting_min, scene.waiting_min
    else:
        start = None
        window = scene.newest
        if rule.against_start:
            start, window = _start(rule, scene)
            if start is None or abs(start) < 1e-9:
                return quiet
            names["before"] = start
        values = _windowed(rule, window, moment)
        found = statistic_of(rule, values)
        if found is None:
            return quiet
        names |= {"n": len(values), "window": window_words(rule, len(values))}
        value, judged = found, found if start is None else found / start
    level, limit = limits_of(rule, judged)
    text = sentence(rule, value, limit, names) if level == Level.WRONG else ""
    return Reading(
        subject, level, text, round(value, 4), scene.session.id, scene.names["microscope"], rule.severity
    )


def _windowed(rule: RuleSection, rows: _Rows, moment: datetime) -> FloatArray:
    if rule.minutes is not None:
        return rows.part(rows.times >= moment.timestamp() - 60 * rule.minutes).of(rule.quantity)
    return rows.of(rule.quantity)[-(rule.exposures or USUAL_WINDOW) :]


def _start(rule: RuleSection, scene: _Scene) -> tuple[float | None, _Rows]:
    """The statistic over the first exposures, and the newest ones that aren't of those.

    The first exposures stay the same for the whole session, so that what's slowly worsening doesn't
    become the new measure.
    """
    wanted = max(rule.exposures or USUAL_WINDOW, rule.least)
    column = scene.first.values.get(rule.quantity)
    rows = np.arange(len(scene.first.ids)) if column is None else np.flatnonzero(np.isfinite(column))
    if len(rows) < wanted:
        return None, scene.newest
    last = scene.first.ids[rows[wanted - 1]]
    start = statistic_of(rule, scene.first.part(scene.first.ids <= last).of(rule.quantity))
    return start, scene.newest.part(scene.newest.ids > last)


def _scenes(orm: OrmSession, rules: Sequence[RuleSection], moment: datetime) -> list[_Scene]:
    newest = max(rule.exposures or (_MOST if rule.minutes else USUAL_WINDOW) for rule in rules)
    starts = [max(rule.exposures or USUAL_WINDOW, rule.least) for rule in rules if rule.against_start]
    query = (
        select(Session, Microscope.name, Sample.name, Experiment.name)
        .join(Microscope, Microscope.id == Session.microscope_id)
        .join(Sample, Sample.id == Session.sample_id)
        .join(Experiment, Experiment.id == Sample.experiment_id)
        .where(Session.state == SessionState.ACTIVE)
    )
    found = []
    for session, microscope, sample, experiment in orm.execute(query).all():
        processing = orm.scalar(
            select(func.min(Processing.id)).where(Processing.session_id == session.id)
        )  # the live one: what was processed again later isn't news
        names = {"microscope": microscope, "sample": sample, "experiment": experiment}
        found.append(
            _Scene(
                session,
                names,
                _rows(orm, session.id, processing, 3 * newest, last=True),
                _rows(orm, session.id, processing, 3 * max(starts, default=0), last=False),
                _waiting_min(orm, session, processing, moment),
            )
        )
    return found


def _rows(orm: OrmSession, session_id: int, processing: int | None, number: int, *, last: bool) -> _Rows:
    """The newest or first exposures that were dealt with; those set aside at intake are among them."""
    columns = [getattr(Measure, name) for name in MEASURED]
    rows: dict[int, tuple[Any, ...]] = {}
    if processing is not None and number:
        query = select(
            Measure.exposure_id, Measure.complete_at, Measure.status, Measure.ctf_quality, *columns
        ).where(Measure.processing_id == processing)
        order = Measure.exposure_id.desc() if last else Measure.exposure_id
        rows = {row[0]: tuple(row) for row in orm.execute(query.order_by(order).limit(min(number, _MOST)))}
    if last:
        problems = (
            select(Exposure.id, Exposure.first_seen_at)
            .where(Exposure.session_id == session_id, Exposure.state == ExposureState.PROBLEM)
            .order_by(Exposure.id.desc())
            .limit(min(number, _MOST))
        )
        oldest = min(rows, default=0)
        for number_, seen in orm.execute(problems):
            if number_ > oldest:
                rows.setdefault(number_, (number_, seen, "quarantined", None, *[None] * len(columns)))
    kept = [rows[one] for one in sorted(rows) if rows[one][2] != "open"]
    values = np.array([row[4:] for row in kept], dtype=float).reshape(len(kept), len(columns))
    return _Rows(
        np.array([row[0] for row in kept], dtype=np.int64),
        np.array([row[1].timestamp() if row[1] else np.nan for row in kept], dtype=float),
        np.array([row[2] for row in kept], dtype="U16"),
        np.array([row[3] in ("doubtful", "no rings") for row in kept], dtype=bool),
        {name: values[:, column] for column, name in enumerate(MEASURED)},
    )


def _waiting_min(orm: OrmSession, session: Session, processing: int | None, moment: datetime) -> float:
    """Age of the oldest exposure that's whole and not dealt with (min)."""
    if (session.settings or {}).get(_UNPROCESSED):
        return 0.0
    oldest = newest = None
    if processing is not None:
        mine = Measure.processing_id == processing
        oldest = orm.scalar(select(func.min(Measure.complete_at)).where(mine, Measure.status == "open"))
        newest = orm.scalar(select(func.max(Measure.exposure_id)).where(mine))
    untouched = orm.scalar(
        select(func.min(Exposure.complete_at)).where(
            Exposure.session_id == session.id,
            Exposure.state == ExposureState.COMPLETE,
            Exposure.id > (newest or 0),
        )
    )
    since = [when.replace(tzinfo=moment.tzinfo) for when in (oldest, untouched) if when is not None]
    return max((moment - min(since)) / timedelta(minutes=1), 0.0) if since else 0.0
