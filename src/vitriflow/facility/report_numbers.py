"""The measured columns of one processing, with counts that reconcile: what a report counts and plots."""

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy.orm import Session as OrmSession

from vitriflow import words
from vitriflow.catalog import views
from vitriflow.elogbook.limits import usable, within_all
from vitriflow.elogbook.marks import verdicts_of

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
STATUSES = ("done", "rejected", "quarantined", "failed", "open")
_DOUBTFUL = ("doubtful", "no rings")
_SHOWN = (
    "total_A",
    "early_A",
    "late_A",
    "defocus_A",
    "astigmatism_A",
    "fit_resolution_A",
    "ice_ring",
    "n_picks",
    "mean_intensity",
    "latency_s",
)


@dataclass(frozen=True)
class Columns:
    """One row for each exposure that the processing knows, or that was set aside before it, by id.

    Attributes
    ----------
    ids, status, reason
        (n,).
    times
        When each was whole, seconds since 1970 (UTC), (n,); NaN where not known.
    values
        Measured columns, (n,) each; NaN where not measured.
    usable
        Good to go on with, as the session's page counts it, (n,).
    passing
        Within the limits that people set, (n,).
    verdicts
        What people last said, by exposure: keep or reject.
    came_in
        Exposures of the session, or those that the processing is for.
    """

    ids: NDArray[np.int64]
    status: NDArray[Any]
    reason: NDArray[Any]
    times: FloatArray
    values: dict[str, FloatArray]
    usable: BoolArray
    passing: BoolArray
    verdicts: dict[int, str]
    came_in: int
    whole: bool = True  # the processing is for all exposures, those to come too

    @cached_property
    def counts(self) -> dict[str, int]:
        """Exposures by where they stand; the five add up to ``total``. ``usable`` is a part of them."""
        number = Counter(self.status.tolist())
        untouched = max(self.came_in - len(self.ids), 0)
        found = {name: int(number.get(name, 0)) for name in STATUSES}
        found["open"] += untouched
        return {"total": len(self.ids) + untouched, **found, "usable": int(np.count_nonzero(self.usable))}

    def statistics(self) -> list[dict[str, Any]]:
        """Count, median, 5th and 95th percentile of each quantity that was measured."""
        found = []
        for name in _SHOWN:
            values = self.values[name][np.isfinite(self.values[name])]
            if not len(values):
                continue
            shown = words.QUANTITIES[name]
            low, middle, high = (float(value) for value in np.percentile(values, (5, 50, 95)))
            found.append(
                {
                    "name": name,
                    "label": shown.label,
                    "unit": shown.unit,
                    "digits": shown.digits,
                    "n": len(values),
                    "median": middle,
                    "p5": low,
                    "p95": high,
                }
            )
        return found

    def set_aside(self) -> list[dict[str, Any]]:
        """Reasons with counts and the newest exposures of each, most frequent first."""
        found = []
        for status in ("rejected", "quarantined", "failed"):
            rows = np.flatnonzero(self.status == status)
            for code, count in Counter(self.reason[rows].tolist()).items():
                mine = rows[self.reason[rows] == code]
                found.append(
                    {
                        "status": status,
                        "code": code,
                        "text": words.reason_words(code),
                        "count": count,
                        "newest": [int(number) for number in self.ids[mine[-3:]][::-1]],
                    }
                )
        return sorted(found, key=lambda one: (-one["count"], one["text"]))


def read_columns(orm: OrmSession, session_id: int, processing: views.ProcessingView | None) -> Columns:
    """The columns of a processing as this transaction sees them (of none: only what was set aside at intake)."""
    measured = (
        [] if processing is None else [tuple(row) for row in views.measures_since(orm, processing.id, -1)]
    )
    known = {row[0] for row in measured}
    chosen = None if processing is None else views.selection_of(orm, processing.id)
    blank = [None] * len(views.QUANTITIES)
    problems = [
        (number, 0, "quarantined", code, None, complete, None, None, *blank)
        for number, code, complete in views.intake_problems(orm, session_id)
        if number not in known and (chosen is None or number in chosen)
    ]
    rows = sorted([*measured, *problems], key=lambda row: row[0])
    status = np.array([row[2] for row in rows], dtype="U16")
    table = np.array([row[8:] for row in rows], dtype=float).reshape(len(rows), len(views.QUANTITIES))
    values = {name: table[:, number] for number, name in enumerate(views.QUANTITIES)}
    ids = np.array([row[0] for row in rows], dtype=np.int64)
    doubtful = np.array([row[4] in _DOUBTFUL for row in rows], dtype=bool)
    limits = (views.newest_limits(orm, processing.id) if processing else None) or {"values": {}}
    passing = within_all(values, limits["values"], len(ids))
    said = verdicts_of(orm, session_id)
    return Columns(
        ids=ids,
        status=status,
        reason=np.array([row[3] or "" for row in rows], dtype="U64"),
        times=np.array([_seconds(row[5]) for row in rows], dtype=float),
        values=values,
        usable=usable(
            status == "done",
            status == "rejected",
            doubtful,
            passing,
            _said(ids, said, "keep"),
            _said(ids, said, "reject"),
        ),
        passing=passing,
        verdicts=said,
        whole=chosen is None,
        came_in=views.count_exposures(orm, session_id)[0] if chosen is None else len(chosen),
    )


def _said(ids: NDArray[np.int64], said: dict[int, str], kind: str) -> BoolArray:
    return np.asarray(np.isin(ids, [number for number, one in said.items() if one == kind]))


def _seconds(moment: datetime | None) -> float:
    return float("nan") if moment is None else moment.astimezone(UTC).timestamp()
