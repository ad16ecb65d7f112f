"""Measured values of a processing as numpy columns, kept in the server and brought up to date by change.

A snapshot never alters, so that any thread can read it while the next one is made. 50,000
exposures are about 9 MB.
"""

import threading
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy.orm import Session as OrmSession

from vitriflow.catalog import views

STATUSES = ("open", "done", "rejected", "quarantined", "failed")
_CODE = {name: code for code, name in enumerate(STATUSES)}
QUARANTINED = _CODE["quarantined"]
DONE = _CODE["done"]
TIMES = ("complete", "first_result", "finished")
FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Snapshot:
    """One moment of a processing: a row for each exposure, sorted by exposure id.

    Attributes
    ----------
    ids
        Exposure ids, (n,), increasing.
    changes
        The processing's change number at each row's last write, (n,).
    status
        Index into :data:`STATUSES`, (n,).
    reason, quality
        Reason code and CTF quality, (n,), "" where there's none.
    values
        One float column, (n,), for each of ``catalog.views.QUANTITIES``; NaN where not measured.
    times
        ``complete``, ``first_result`` and ``finished`` as seconds since 1970 UTC, (n,), NaN if not yet.
    """

    change: int
    ids: IntArray
    changes: IntArray
    status: NDArray[np.int8]
    reason: NDArray[np.object_]
    quality: NDArray[np.object_]
    values: dict[str, FloatArray]
    times: dict[str, FloatArray]
    cache: dict[Any, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def size(self) -> int:
        """Number of rows."""
        return len(self.ids)

    def row_of(self, exposure_id: int) -> int | None:
        """Row of an exposure, or None."""
        row = int(np.searchsorted(self.ids, exposure_id))
        return row if row < self.size and self.ids[row] == exposure_id else None

    def counts(self) -> dict[str, int]:
        """Rows by status; the five always add up to the number of rows."""
        numbers = np.bincount(self.status, minlength=len(STATUSES))
        return {name: int(numbers[code]) for code, name in enumerate(STATUSES)}


def empty_snapshot(change: int = -1) -> Snapshot:
    """A snapshot with no rows."""
    return _from_rows([], change)


def _seconds(moments: Iterable[datetime | None]) -> FloatArray:
    return np.array([np.nan if at is None else at.timestamp() for at in moments], dtype=np.float64)


def _floats(column: Iterable[float | None]) -> FloatArray:
    return np.array([np.nan if value is None else value for value in column], dtype=np.float64)


def _words(column: Iterable[str | None]) -> NDArray[np.object_]:
    return np.array([value or "" for value in column], dtype=object)


def _from_rows(rows: list[tuple[Any, ...]], change: int) -> Snapshot:
    """Rows of ``views.measures_since`` as columns, sorted by exposure id."""
    rows = sorted(rows, key=lambda row: row[0])
    width = 8 + len(views.QUANTITIES)
    columns: list[tuple[Any, ...]] = list(zip(*rows, strict=True)) if rows else [()] * width
    return Snapshot(
        change=change,
        ids=np.array(columns[0], dtype=np.int64),
        changes=np.array(columns[1], dtype=np.int64),
        status=np.array([_CODE.get(name, 0) for name in columns[2]], dtype=np.int8),
        reason=_words(columns[3]),
        quality=_words(columns[4]),
        times={name: _seconds(columns[5 + place]) for place, name in enumerate(TIMES)},
        values={name: _floats(columns[8 + place]) for place, name in enumerate(views.QUANTITIES)},
    )


def merge(old: Snapshot, new: Snapshot, change: int) -> Snapshot:
    """Both snapshots in one; where both have an exposure, the new row counts."""
    kept = ~np.isin(old.ids, new.ids)
    ids = np.concatenate([old.ids[kept], new.ids])
    order = np.argsort(ids, kind="stable")

    def join(a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
        return np.concatenate([a[kept], b])[order]

    return Snapshot(
        change=change,
        ids=ids[order],
        changes=join(old.changes, new.changes),
        status=join(old.status, new.status),
        reason=join(old.reason, new.reason),
        quality=join(old.quality, new.quality),
        values={name: join(old.values[name], new.values[name]) for name in old.values},
        times={name: join(old.times[name], new.times[name]) for name in old.times},
    )


def thin(values: FloatArray, budget: int) -> IntArray:
    """Rows to plot so that a column of any length fits a budget and no outlier is lost.

    Parameters
    ----------
    values
        A column, (n,), NaN where not measured.
    budget
        Most rows to return.

    Returns
    -------
    rows
        Rows with a finite value, (m,), increasing, m <= budget: all of them when they fit, else
        the lowest, the highest and the median of each of budget // 3 equal runs.
    """
    rows = np.flatnonzero(np.isfinite(values))
    if len(rows) <= budget:
        return rows.astype(np.int64)
    bins = max(budget // 3, 1)
    edges = np.linspace(0, len(rows), bins + 1).astype(np.int64)
    label = np.repeat(np.arange(bins), np.diff(edges))
    order = np.lexsort((values[rows], label))
    lowest, highest = edges[:-1], edges[1:] - 1
    chosen = np.concatenate([order[lowest], order[(lowest + highest) // 2], order[highest]])
    return np.asarray(np.unique(rows[chosen]), dtype=np.int64)


class _Store:
    """The columns of one processing, brought up to date under a lock."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.measured = empty_snapshot()
        self.shown = self.measured
        self.problems: tuple[int, ...] = ()

    def refresh(self, db: OrmSession, session_id: int, processing: views.ProcessingView | None) -> Snapshot:
        problems = views.intake_problems(db, session_id)
        key = tuple(row[0] for row in problems)
        change = processing.change if processing is not None else 0
        with self.lock:
            # A reader whose transaction is older than the store's must not put old rows back.
            if change > self.measured.change and processing is not None:
                rows = views.measures_since(db, processing.id, self.measured.change)
                fresh = _from_rows([tuple(row) for row in rows], change)
                self.measured = merge(self.measured, fresh, change)
            elif change == self.shown.change and key == self.problems:
                return self.shown
            self.shown = _with_problems(self.measured, problems, change)
            self.problems = key
            return self.shown


def _with_problems(
    measured: Snapshot, problems: list[tuple[int, str | None, datetime | None]], change: int
) -> Snapshot:
    """Add exposures that were set aside before they reached the pipeline: they count too."""
    known = set(measured.ids.tolist()) if problems else set()
    extra = [
        (exposure, 0, "quarantined", code, None, complete, None, None, *[None] * len(views.QUANTITIES))
        for exposure, code, complete in problems
        if exposure not in known
    ]
    return merge(measured, _from_rows(extra, change), max(change, measured.change))


class ColumnStore:
    """Columns of the processings that were looked at lately.

    Parameters
    ----------
    keep
        How many processings stay in memory.
    """

    def __init__(self, keep: int = 32) -> None:
        self._keep = keep
        self._lock = threading.Lock()
        self._stores: OrderedDict[tuple[int, int], _Store] = OrderedDict()

    def snapshot(self, db: OrmSession, session_id: int, processing: views.ProcessingView | None) -> Snapshot:
        """The processing as this transaction sees it, reading only rows that changed since last time."""
        key = (session_id, processing.id if processing is not None else 0)
        with self._lock:
            store = self._stores.setdefault(key, _Store())
            self._stores.move_to_end(key)
            while len(self._stores) > self._keep:
                self._stores.popitem(last=False)
        return store.refresh(db, session_id, processing)
