"""Measured values of a processing as numpy columns, kept in the server and brought up to date by change.

A snapshot never alters, so that any thread can read it while the next one is made. 50,000
exposures are about 9 MB.
"""

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
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
_RECOUNT_S = 60.0
FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


class Lexicon:
    """Words by number and numbers by word, so that a column of words is a column of numbers.

    Grows only, so that readers need no lock; writers hold their store's.
    """

    def __init__(self) -> None:
        self._words = [""]
        self._codes = {"": 0}

    def code(self, word: str | None) -> int:
        """The number of a word, given now if it's new."""
        code = self._codes.get(word or "")
        if code is None:
            self._words.append(word or "")
            code = self._codes[word or ""] = len(self._words) - 1
        return code

    def find(self, word: str) -> int:
        """The number of a word; -1 when no row ever had it."""
        return self._codes.get(word, -1)

    def word(self, code: int) -> str:
        """The word of a number."""
        return self._words[code]


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
        Reason code and CTF quality, (n,), as numbers of ``lexicon``.
    values
        One float column, (n,), for each of ``catalog.views.QUANTITIES``; NaN where not measured.
    times
        ``complete``, ``first_result`` and ``finished`` as seconds since 1970 UTC, (n,), NaN if not yet.
    came_in
        Exposures of the session (of a processing of some: those), those included that no processing has taken up yet.
    growing
        Exposures seen on disk that aren't whole yet.
    whole
        Whether the processing is for all exposures of the session, those to come too.
    """

    change: int
    ids: IntArray
    changes: IntArray
    status: NDArray[np.int8]
    reason: NDArray[np.int32]
    quality: NDArray[np.int32]
    values: dict[str, FloatArray]
    times: dict[str, FloatArray]
    lexicon: Lexicon
    came_in: int = 0
    growing: int = 0
    whole: bool = True
    cache: dict[Any, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def size(self) -> int:
        """Number of rows."""
        return len(self.ids)

    @property
    def doubtful(self) -> NDArray[np.bool_]:
        """Rows that are done, but with a CTF that explains little or nothing, (n,)."""
        poor = [self.lexicon.find(word) for word in ("doubtful", "no rings")]
        return np.asarray((self.status == DONE) & np.isin(self.quality, poor))

    def row_of(self, exposure_id: int) -> int | None:
        """Row of an exposure, or None."""
        row = int(np.searchsorted(self.ids, exposure_id))
        return row if row < self.size and self.ids[row] == exposure_id else None

    def counts(self) -> dict[str, int]:
        """Rows by status; the five always add up to the number of rows."""
        numbers = np.bincount(self.status, minlength=len(STATUSES))
        return {name: int(numbers[code]) for code, name in enumerate(STATUSES)}


def _seconds(moments: Iterable[datetime | None]) -> FloatArray:
    return np.array([np.nan if at is None else at.timestamp() for at in moments], dtype=np.float64)


def _from_rows(rows: list[tuple[Any, ...]], change: int, lexicon: Lexicon) -> Snapshot:
    """Rows of ``views.measures_since`` as columns; they must be in order of exposure id."""
    width = 8 + len(views.QUANTITIES)
    columns: list[tuple[Any, ...]] = list(zip(*rows, strict=True)) if rows else [()] * width
    return Snapshot(
        change=change,
        ids=np.array(columns[0], dtype=np.int64),
        changes=np.array(columns[1], dtype=np.int64),
        status=np.array([_CODE.get(name, 0) for name in columns[2]], dtype=np.int8),
        reason=np.array([lexicon.code(word) for word in columns[3]], dtype=np.int32),
        quality=np.array([lexicon.code(word) for word in columns[4]], dtype=np.int32),
        times={name: _seconds(columns[5 + place]) for place, name in enumerate(TIMES)},
        # None becomes NaN
        values={
            name: np.array(columns[8 + place], dtype=np.float64)
            for place, name in enumerate(views.QUANTITIES)
        },
        lexicon=lexicon,
    )


def merge(old: Snapshot, new: Snapshot, change: int) -> Snapshot:
    """Both snapshots in one; where both have an exposure, the new row counts."""
    where = np.searchsorted(old.ids, new.ids)
    known = np.zeros(new.size, dtype=bool)
    inside = where < old.size
    known[inside] = old.ids[where[inside]] == new.ids[inside]
    added = ~known
    in_order = old.size == 0 or not added.any() or bool(new.ids[added][0] > old.ids[-1])

    def update(a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
        joined = np.concatenate([a, b[added]])
        joined[where[known]] = b[known]
        return joined

    ids = update(old.ids, new.ids)
    order = None if in_order else np.argsort(ids, kind="stable")

    def join(a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
        joined = update(a, b)
        return joined if order is None else joined[order]

    return replace(
        old,
        change=change,
        ids=join(old.ids, new.ids),
        changes=join(old.changes, new.changes),
        status=join(old.status, new.status),
        reason=join(old.reason, new.reason),
        quality=join(old.quality, new.quality),
        values={name: join(old.values[name], new.values[name]) for name in old.values},
        times={name: join(old.times[name], new.times[name]) for name in old.times},
        cache={},
    )


LOWEST, MIDDLE, HIGHEST = -1, 0, 1


def thin(values: FloatArray, budget: int) -> tuple[IntArray, IntArray]:
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
        the lowest, the median and the highest of each of budget // 3 equal runs.
    kinds
        What each stands for, (m,): ``MIDDLE`` for itself or its run's median, ``LOWEST``, ``HIGHEST``.
    """
    rows = np.flatnonzero(np.isfinite(values)).astype(np.int64)
    if len(rows) <= budget:
        return rows, np.full(len(rows), MIDDLE, dtype=np.int64)
    width = -(-len(rows) // max(budget // 3, 1))
    # Runs as rows of a table; what the last run lacks is filled with its last value.
    padded = np.pad(rows, (0, -len(rows) % width), mode="edge").reshape(-1, width)
    table = values[padded]
    middle = np.argpartition(table, width // 2, axis=1)[:, width // 2]
    chosen = np.stack([middle, table.argmin(axis=1), table.argmax(axis=1)])
    kinds = np.repeat([MIDDLE, LOWEST, HIGHEST], len(padded))
    picked, first = np.unique(np.take_along_axis(padded, chosen.T, axis=1).T, return_index=True)
    return picked.astype(np.int64), kinds[first]


class _Store:
    """The columns of one processing, brought up to date under a lock."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.lexicon = Lexicon()
        self.measured = _from_rows([], -1, self.lexicon)
        self.shown = self.measured
        self.problems: tuple[int, ...] = ()
        self.came_in = (0, 0)  # exposures, newest id
        self.counted_at = -math.inf
        self.chosen: frozenset[int] | None = None  # of a processing of some exposures: which

    def refresh(self, db: OrmSession, session_id: int, processing: views.ProcessingView | None) -> Snapshot:
        problems = views.intake_problems(db, session_id)
        growing = views.count_growing(db, session_id)
        change = processing.change if processing is not None else 0
        with self.lock:
            if processing is not None and processing.selected is not None:
                self.chosen = self.chosen or views.selection_of(db, processing.id) or frozenset()
                chosen = self.chosen
                problems, growing = [row for row in problems if row[0] in chosen], 0
                came_in = len(chosen)
            else:
                came_in = self._count(db, session_id)
            # A reader whose transaction is older than the store's must not put old rows back.
            if change > self.measured.change and processing is not None:
                rows = views.measures_since(db, processing.id, self.measured.change)
                if rows:
                    fresh = _from_rows([tuple(row) for row in rows], change, self.lexicon)
                    self.measured = merge(self.measured, fresh, change)
                    self.shown = self._with_problems(problems)
                else:  # only tasks moved: what was worked out of the values holds, their counts don't
                    kept = {key: value for key, value in self.shown.cache.items() if key != "nodes"}
                    self.measured = replace(self.measured, change=change)
                    self.shown = replace(self.shown, change=change, cache=kept)
            if tuple(row[0] for row in problems) != self.problems:
                self.shown = self._with_problems(problems)
            if (came_in, growing) != (self.shown.came_in, self.shown.growing):
                whole = self.chosen is None
                self.shown = replace(self.shown, came_in=came_in, growing=growing, whole=whole)
            return self.shown

    def _count(self, db: OrmSession, session_id: int) -> int:
        """Exposures of the session: only the new ones are counted, and all once in a while."""
        total, newest = self.came_in
        if time.monotonic() - self.counted_at > _RECOUNT_S:
            total = newest = 0
            self.counted_at = time.monotonic()
        added, last = views.count_exposures(db, session_id, newest)
        self.came_in = (total + added, max(newest, last))
        return self.came_in[0]

    def _with_problems(self, problems: list[tuple[int, str | None, datetime | None]]) -> Snapshot:
        """Add exposures that were set aside before they reached the pipeline: they count too."""
        self.problems = tuple(row[0] for row in problems)
        change = max(self.measured.change, 0)
        extra = [
            (exposure, 0, "quarantined", code, None, complete, None, None, *[None] * len(views.QUANTITIES))
            for exposure, code, complete in sorted(problems)
            if self.measured.row_of(exposure) is None
        ]
        if not extra:
            return replace(self.measured, change=change, cache={})
        return merge(self.measured, _from_rows(extra, change, self.lexicon), change)


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
