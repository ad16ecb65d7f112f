"""How long exposures take from being first seen to each later moment, on our own clock."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

import numpy as np
from sqlalchemy import func, select
from sqlalchemy.orm import Session as OrmSession

from vitriflow.catalog.tables import Exposure, Processing, Task

NEWEST = 2000  # exposures that are looked at: what is now, not what was weeks ago
MOMENTS = ("complete", "copied", "proved", "queued", "finished")


def span_stats(orm: OrmSession, session_id: int, newest: int = NEWEST) -> dict[str, dict[str, Any]]:
    """Medians and 95th percentiles of the times from first seen to each moment (s).

    Parameters
    ----------
    session_id
        The session.
    newest
        Over so many of its newest exposures.

    Returns
    -------
    For each of ``complete``, ``copied``, ``proved``, ``queued`` and ``finished`` that any exposure has
    come to: ``n``, ``p50_s`` and ``p95_s``. A processing that was started later than the files came
    counts its waiting too.
    """
    chosen = (
        select(Exposure.id)
        .where(Exposure.session_id == session_id)
        .order_by(Exposure.id.desc())
        .limit(newest)
        .subquery()
    )
    columns = (Exposure.first_seen_at, Exposure.complete_at, Exposure.copied_at, Exposure.proved_at)
    rows = orm.execute(select(Exposure.id, *columns).join(chosen, chosen.c.id == Exposure.id)).all()
    seen = {row[0]: row[1] for row in rows}
    spans: dict[str, list[float]] = {name: [] for name in MOMENTS}
    for row in rows:
        for name, moment in zip(MOMENTS, row[2:], strict=False):
            if moment is not None:
                spans[name].append(_seconds(row[1], moment))
    tasks = (
        select(Task.item_id, func.min(Task.queued_at), func.max(Task.finished_at))
        .join(Processing, Processing.id == Task.processing_id)
        .join(chosen, chosen.c.id == Task.item_id)
        .where(Processing.session_id == session_id, Task.item_type == "exposure")
        .group_by(Task.item_id)
    )
    for item, queued, finished in orm.execute(tasks):
        for name, moment in (("queued", queued), ("finished", finished)):
            if moment is not None:
                spans[name].append(_seconds(seen[item], moment))
    return {name: _summary(values) for name, values in spans.items() if values}


def _seconds(since: datetime, moment: datetime) -> float:
    """Some databases give the time of an aggregate without its zone; all are UTC."""
    return (moment.replace(tzinfo=None) - since.replace(tzinfo=None)).total_seconds()


def _summary(values: Iterable[float]) -> dict[str, Any]:
    numbers = np.fromiter(values, float)
    return {
        "n": len(numbers),
        "p50_s": round(float(np.percentile(numbers, 50)), 3),
        "p95_s": round(float(np.percentile(numbers, 95)), 3),
    }
