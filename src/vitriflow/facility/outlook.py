"""Stop or go on: what a session's classes say about collecting more."""

import math
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session as OrmSession

from vitriflow.catalog import Catalog, Measure, ResultRow, now
from vitriflow.errors import BadParameter
from vitriflow.monitors import Outlook, Point, forecast

_WINDOW_H = 1.0
_CLASSES = 3  # the most populated of those selected stand for the sample
_BETTER = 0.9  # of today's resolution: the target where nobody names one


@dataclass(frozen=True)
class SessionOutlook:
    """The forecast with what it was made from.

    Attributes
    ----------
    outlook
        See :class:`vitriflow.monitors.Outlook`; None where no classification has run.
    node
        The classification that it's from.
    points
        ``particles`` and ``resolution_A`` of its leading classes, batch by batch.
    extracted_per_hour, kept_share, kept_per_hour
        Particles of the last hour; the share of them in selected classes; both together.
    words
        One or two sentences for people.
    """

    outlook: Outlook | None
    node: str | None
    points: list[Point]
    extracted_per_hour: float
    kept_share: float | None
    kept_per_hour: float | None
    words: str

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return asdict(self)


def session_outlook(catalog: Catalog, processing_id: int, target_A: float | None = None) -> SessionOutlook:
    """What more collection would bring to a processing's classes.

    Parameters
    ----------
    processing_id
        The processing.
    target_A
        Wanted resolution of a class (A); a tenth better than now without.

    Raises
    ------
    BadParameter
        When the target isn't a resolution.
    """
    if target_A is not None and not (math.isfinite(target_A) and 0.5 <= target_A <= 100):
        raise BadParameter(
            "target", "a resolution from 0.5 to 100 A", f"{target_A:g}", "Give one in angstroms: 4.5"
        )
    rows, per_hour = catalog.read(lambda orm: (_records(orm, processing_id), _per_hour(orm, processing_id)))
    if not rows:
        words = "No 2D classification has run yet, so nothing tells what more particles would bring."
        return SessionOutlook(None, None, [], per_hour, None, None, words)
    node = rows[-1][0]
    records = [record for name, record in rows if name == node]
    points = [point for record in records if (point := _point(record)) is not None]
    last = records[-1]
    classified = last.get("n_classified") or 0
    share = min(1.0, (last.get("n_selected") or 0) / classified) if classified else None
    kept = None if share is None else per_hour * share
    lead = points[-1] if points else None
    into_one = kept * lead.particles / classified / share if kept and lead and share else None
    target = target_A or (lead.resolution_A * _BETTER if lead else 10.0)
    outlook = forecast(points, target, into_one, _limit(last))
    return SessionOutlook(outlook, node, points, per_hour, share, kept, _words(outlook, kept))


def _records(orm: OrmSession, processing_id: int) -> list[tuple[str, dict[str, Any]]]:
    """Node and record of each batch that made classes, in order of time."""
    query = (
        select(ResultRow.node, ResultRow.record)
        .where(
            ResultRow.processing_id == processing_id,
            ResultRow.item_type.in_(("batch", "session")),
            ResultRow.status == "done",
        )
        .order_by(ResultRow.id)
    )
    return [(node, record) for node, record in orm.execute(query) if record.get("classes")]


def _per_hour(orm: OrmSession, processing_id: int) -> float:
    """Particles extracted an hour: of the last hour, or of the shorter time since the first."""
    since = now() - timedelta(hours=_WINDOW_H)
    query = select(func.sum(Measure.n_particles), func.min(Measure.finished_at)).where(
        Measure.processing_id == processing_id, Measure.finished_at >= since, Measure.n_particles.is_not(None)
    )
    total, first = orm.execute(query).one()
    if not total or first is None:
        return 0.0
    hours = max((now() - first).total_seconds() / 3600.0, 1.0 / 60.0)
    return float(total) / min(hours, _WINDOW_H)


def _point(record: dict[str, Any]) -> Point | None:
    """The leading classes as one point: the middle one by resolution."""
    leading = [one for one in record["classes"] if one.get("selected", True) and one.get("resolution_A")]
    leading = sorted(leading, key=lambda one: -one["n_particles"])[:_CLASSES]
    if not leading:
        return None
    middle = sorted(leading, key=lambda one: float(one["resolution_A"]))[len(leading) // 2]
    return Point(int(middle["n_particles"]), float(middle["resolution_A"]))


def _limit(record: dict[str, Any]) -> float | None:
    """The finest detail that was compared (A): as set, or the images' Nyquist frequency."""
    provenance = record.get("provenance") or {}
    said = (provenance.get("parameters") or {}).get("max_resolution_A")
    pixel = record.get("pixel_size_A")
    limits = [float(value) for value in (said, 2.0 * pixel if pixel else None) if value]
    return max(limits) if limits else None


def _words(outlook: Outlook, kept_per_hour: float | None) -> str:
    rate = "" if not kept_per_hour else f" {kept_per_hour:,.0f} good particles arrive an hour."
    if outlook.b_factor_A2 is None or outlook.resolution_now_A is None:
        return f"No forecast: {outlook.reason}.{rate}"
    now_A = f"Leading classes are at {outlook.resolution_now_A:.1f} A"
    if outlook.hours_left == 0.0:
        return f"{now_A}: the {outlook.target_A:.3g} A asked for are reached.{rate}"
    gain = f"twice the particles would bring {outlook.gain_A:.1f} A"
    if outlook.hours_left is None:
        return f"{now_A}; {gain}. {outlook.reason[:1].upper()}{outlook.reason[1:]}."
    high = "without an upper limit" if outlook.high_hours is None else f"to {outlook.high_hours:.1f}"
    low = outlook.low_hours or 0.0
    return (
        f"{now_A}; about {outlook.hours_left:.1f} hours more (95 %: {low:.1f} {high}) to {outlook.target_A:.3g} A; "
        f"{gain}.{rate} Classes are averages of one view: a map's resolution is another."
    )
