"""What lies over the measured columns: people's marks, the limits that they set, and where exposures lie."""

import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy.orm import Session as OrmSession

from vitriflow.catalog import views
from vitriflow.catalog.views.people import Position
from vitriflow.elogbook.limits import usable
from vitriflow.web.columns import DONE, STATUSES, Snapshot
from vitriflow.web.limits import Pairs, passing

BoolArray = NDArray[np.bool_]
NO_MARK, KEEP, REJECT = 0, 1, 2
_CODES = {"keep": KEEP, "reject": REJECT}
_REJECTED = STATUSES.index("rejected")
_KEEP = 32  # sessions that stay in memory
_AGAIN_S = 120.0  # all positions are read anew, for metadata that came late
_PLACES_S = 5.0


@dataclass(frozen=True)
class Positions:
    """Where exposures lie: rows sorted by exposure id; never altered once made.

    Attributes
    ----------
    ids
        Exposure ids, (n,), increasing.
    square, hole
        Index into ``squares`` and ``holes``, (n,); -1 where not known.
    x, y
        Stage position (um), (n,); NaN where not known.
    """

    ids: NDArray[np.int64]
    square: NDArray[np.int32]
    hole: NDArray[np.int32]
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    squares: list[str]
    holes: list[str]
    places: dict[str, tuple[float | None, float | None]]  # of grid squares (um)

    def rows(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Row of each exposure; the last row + 1 (none) where it isn't known."""
        where = np.searchsorted(self.ids, ids)
        found = np.minimum(where, max(len(self.ids) - 1, 0))
        known = (where < len(self.ids)) & (len(self.ids) > 0)
        if len(self.ids):
            known &= self.ids[found] == ids
        return np.where(known, found, len(self.ids)).astype(np.int64)

    def column(self, name: str, ids: NDArray[np.int64]) -> NDArray[Any]:
        """``square``, ``hole``, ``x`` or ``y`` of some exposures."""
        values: NDArray[Any] = getattr(self, name)
        missing = -1 if values.dtype.kind == "i" else np.nan
        return np.append(values, values.dtype.type(missing))[self.rows(ids)]

    @property
    def known(self) -> bool:
        """Whether any exposure has a place."""
        return bool(len(self.squares) or len(self.holes) or np.isfinite(self.x).any())


@dataclass(frozen=True)
class Overlay:
    """People's marks and limits over one processing, and positions, all from one transaction.

    ``stamp`` changes whenever marks or limits do.
    """

    stamp: tuple[int, ...] = (0, 0, 0)
    verdicts: dict[int, int] = field(default_factory=dict)  # exposure -> KEEP or REJECT
    comments: frozenset[int] = frozenset()
    limits: Pairs = field(default_factory=dict)
    limits_by: str = ""
    limits_at: Any = None
    positions: Positions | None = None
    gain_alarm: str = ""  # what the newest gain check found wrong with the reference; empty when it's right

    def marks(self, snapshot: Snapshot) -> NDArray[np.int8]:
        """NO_MARK, KEEP or REJECT for each row of a snapshot, (n,)."""
        column: NDArray[np.int8] = self._kept(snapshot, "marks", lambda: _spread(snapshot, self.verdicts))
        return column

    def commented(self, snapshot: Snapshot) -> BoolArray:
        """Rows that somebody commented, (n,)."""
        return np.asarray(np.isin(snapshot.ids, list(self.comments)))

    def passing(self, snapshot: Snapshot) -> BoolArray:
        """Rows within all limits, (n,); see :func:`vitriflow.web.limits.passing`."""
        column: BoolArray = self._kept(snapshot, "passing", lambda: passing(snapshot, self.limits))
        return column

    def usable(self, snapshot: Snapshot) -> BoolArray:
        """Rows that are good to go on with, (n,): see :func:`vitriflow.elogbook.limits.usable`."""

        def work() -> BoolArray:
            marks = self.marks(snapshot)
            return usable(
                snapshot.status == DONE,
                snapshot.status == _REJECTED,
                snapshot.doubtful,
                self.passing(snapshot),
                marks == KEEP,
                marks == REJECT,
            )

        column: BoolArray = self._kept(snapshot, "usable", work)
        return column

    def _kept(self, snapshot: Snapshot, name: str, work: Any) -> Any:
        key = ("overlay", name)
        known = snapshot.cache.get(key)
        if known is None or known[0] != self.stamp:
            known = snapshot.cache[key] = (self.stamp, work())
        return known[1]


def _spread(snapshot: Snapshot, verdicts: dict[int, int]) -> NDArray[np.int8]:
    column = np.zeros(snapshot.size, dtype=np.int8)
    if verdicts and snapshot.size:
        ids = np.fromiter(verdicts, np.int64, len(verdicts))
        codes = np.fromiter(verdicts.values(), np.int8, len(verdicts))
        rows = np.minimum(np.searchsorted(snapshot.ids, ids), snapshot.size - 1)
        there = snapshot.ids[rows] == ids
        column[rows[there]] = codes[there]
    return column


class _Kept:
    """Marks and positions of one session, brought up to date under a lock."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.stamp: tuple[int, int] | None = None
        self.verdicts: dict[int, int] = {}
        self.comments: frozenset[int] = frozenset()
        self.rows: list[Position] = []
        self.whole = 0  # rows up to this one are of exposures that were whole when read
        self.positions = _columns([], {})
        self.read_at = self.placed_at = -_AGAIN_S
        self.last_event = 0
        self.gain: dict[int | None, str] = {}  # processing -> what its newest gain check found wrong

    def refresh_gain(self, db: OrmSession, session_id: int, processing_id: int | None) -> str:
        self.last_event, fresh = views.gain_events(db, session_id, self.last_event)
        for number, severity, text in fresh:
            self.gain[number] = text if severity == "alarm" else ""
        return self.gain.get(processing_id) or self.gain.get(None) or ""

    def refresh_marks(self, db: OrmSession, session_id: int) -> tuple[int, int]:
        stamp = views.marks_stamp(db, session_id)
        if stamp != self.stamp:
            verdicts, comments = {}, set()
            for number, kind in views.standing_marks(db, session_id):
                if kind in _CODES:
                    verdicts[number] = _CODES[kind]
                else:
                    comments.add(number)
            self.verdicts, self.comments, self.stamp = verdicts, frozenset(comments), stamp
        return stamp

    def refresh_positions(self, db: OrmSession, session_id: int) -> Positions:
        moment = time.monotonic()
        if moment - self.read_at > _AGAIN_S:
            self.whole, self.read_at = 0, moment
        kept = self.rows[: self.whole]
        fresh = views.positions_since(db, session_id, kept[-1][0] if kept else 0)
        stale = moment - self.placed_at > _PLACES_S
        if fresh != self.rows[self.whole :] or stale:
            self.rows = kept + fresh
            places = self.positions.places
            if stale:
                places, self.placed_at = views.places(db, session_id, "grid_square"), moment
            if fresh or places != self.positions.places or len(self.positions.ids) != len(self.rows):
                self.positions = _columns(self.rows, places)
            growing = next((i for i, row in enumerate(fresh) if not row[1]), len(fresh))
            self.whole = len(kept) + growing
        return self.positions


def _columns(rows: list[Position], places: dict[str, tuple[float | None, float | None]]) -> Positions:
    squares: dict[str, int] = {}
    holes: dict[str, int] = {}

    def code(known: dict[str, int], name: str | None) -> int:
        return -1 if not name else known.setdefault(name, len(known))

    return Positions(
        ids=np.array([row[0] for row in rows], dtype=np.int64),
        square=np.array([code(squares, row[2]) for row in rows], dtype=np.int32),
        hole=np.array([code(holes, row[3]) for row in rows], dtype=np.int32),
        x=np.array([row[4] for row in rows], dtype=np.float64),
        y=np.array([row[5] for row in rows], dtype=np.float64),
        squares=list(squares),
        holes=list(holes),
        places=places,
    )


class OverlayStore:
    """Overlays of the sessions that were looked at lately."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[int, _Kept] = OrderedDict()

    def overlay(
        self, db: OrmSession, session_id: int, processing_id: int | None, *, positions: bool = False
    ) -> Overlay:
        """Marks and limits as this transaction sees them; with ``positions``, where exposures lie too."""
        with self._lock:
            kept = self._kept.setdefault(session_id, _Kept())
            self._kept.move_to_end(session_id)
            while len(self._kept) > _KEEP:
                self._kept.popitem(last=False)
        set_ = views.newest_limits(db, processing_id) if processing_id else None
        with kept.lock:
            stamp = kept.refresh_marks(db, session_id)
            return Overlay(
                stamp=(*stamp, set_["id"] if set_ else 0),
                verdicts=kept.verdicts,
                comments=kept.comments,
                limits=set_["values"] if set_ else {},
                limits_by=set_["author"] if set_ else "",
                limits_at=set_["at"] if set_ else None,
                gain_alarm=kept.refresh_gain(db, session_id, processing_id),
                positions=kept.refresh_positions(db, session_id) if positions else None,
            )
