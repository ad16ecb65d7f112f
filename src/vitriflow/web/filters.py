"""Which exposures a gallery shows: the filters of an address, and the rows that pass them."""

import math
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from fastapi import Depends, Query

from vitriflow.catalog import views
from vitriflow.errors import BadParameter
from vitriflow.web.columns import STATUSES, IntArray, Snapshot
from vitriflow.web.limits import within
from vitriflow.web.overlay import KEEP, REJECT, BoolArray, Overlay

Word = Annotated[str, Query(max_length=64, pattern=r"^[A-Za-z0-9_.-]*$")]
Name = Annotated[str, Query(max_length=128)]
SORTS = ("newest", *views.QUANTITIES)
SET_ASIDE = "problem"  # rejected, quarantined or failed
MARKS = {
    "": "any",
    "keep": "kept by people",
    "reject": "rejected by people",
    "not-reject": "not rejected by people",
    "comment": "commented",
    "none": "no mark",
}
PASSES = {"": "any", "pass": "within", "fail": "outside"}
BRUSH = (
    "quantity:lowest:highest:axis:lowest:highest, with 'n' (number) or 't' (seconds since 1970) as axis; "
    "several with ';'"
)
_MOST_BRUSHES = 12


@dataclass(frozen=True)
class Filter:
    """What is asked for: every part that isn't empty has to hold."""

    status: str = "all"
    reason: str = ""
    mark: str = ""
    limits: str = ""
    square: str = ""
    hole: str = ""
    brush: str = ""

    @property
    def by_place(self) -> bool:
        """Whether positions are needed."""
        return bool(self.square or self.hole)


def filter_of(
    status: Word = "all",
    reason: Word = "",
    mark: Word = "",
    limits: Word = "",
    square: Name = "",
    hole: Name = "",
    brush: Annotated[str, Query(max_length=1500, description=BRUSH)] = "",
) -> Filter:
    """The filter of a request."""
    return Filter(status, reason, mark, limits, square, hole, brush)


Wanted = Annotated[Filter, Depends(filter_of)]


def select_rows(
    snapshot: Snapshot, overlay: Overlay, wanted: Filter, sort: str, descending: bool
) -> IntArray:
    """Rows that pass a filter, in the order asked for; what wasn't measured comes last.

    Raises
    ------
    BadParameter
        When a part of the filter, or sort, isn't a known word.
    """
    rows = np.flatnonzero(chosen(snapshot, overlay, wanted))
    if sort in ("", "newest"):
        return np.asarray(rows[::-1] if descending else rows, dtype=np.int64)
    if sort not in views.QUANTITIES:
        raise BadParameter("sort", expected="one of " + ", ".join(SORTS), found=repr(sort)[:80])
    keys = snapshot.values[sort][rows]
    order = np.argsort(-keys if descending else keys, kind="stable")  # NaN sorts last either way
    return np.asarray(rows[order], dtype=np.int64)


def chosen(snapshot: Snapshot, overlay: Overlay, wanted: Filter) -> BoolArray:
    """Which rows pass a filter, (n,)."""
    mask = _by_status(snapshot, wanted.status)
    if wanted.reason:
        mask &= snapshot.reason == snapshot.lexicon.find(wanted.reason)
    _known("mark", wanted.mark, tuple(MARKS))
    if wanted.mark == "comment":
        mask &= overlay.commented(snapshot)
    elif wanted.mark == "not-reject":
        mask &= overlay.marks(snapshot) != REJECT
    elif wanted.mark:
        mask &= overlay.marks(snapshot) == {"keep": KEEP, "reject": REJECT, "none": 0}[wanted.mark]
    _known("limits", wanted.limits, tuple(PASSES))
    if wanted.limits:
        mask &= overlay.passing(snapshot) == (wanted.limits == "pass")
    if wanted.by_place and overlay.positions is not None:
        for name, known in (("square", overlay.positions.squares), ("hole", overlay.positions.holes)):
            said = getattr(wanted, name)
            if said:
                code = known.index(said) if said in known else -2
                mask &= overlay.positions.column(name, snapshot.ids) == code
    for one in read_brushes(wanted.brush):
        mask &= one.rows(snapshot)
    return mask


def _by_status(snapshot: Snapshot, status: str) -> BoolArray:
    if status in STATUSES:
        return np.asarray(snapshot.status == STATUSES.index(status))
    if status == SET_ASIDE:
        return np.asarray(snapshot.status >= STATUSES.index("rejected"))
    _known("status", status, ("", "all", *STATUSES, SET_ASIDE))
    return np.ones(snapshot.size, dtype=bool)


def _known(what: str, said: str, words: tuple[str, ...]) -> None:
    if said not in words:
        raise BadParameter(what, expected="one of " + ", ".join(filter(None, words)), found=repr(said)[:80])


@dataclass(frozen=True)
class Brush:
    """A rectangle drawn on a plot: a range of a quantity and, perhaps, one of number or time."""

    quantity: str
    low: float
    high: float
    axis: str = "n"
    first: float = -math.inf
    last: float = math.inf

    def rows(self, snapshot: Snapshot) -> BoolArray:
        """Rows inside, (n,)."""
        at = snapshot.times["complete"] if self.axis == "t" else np.arange(1.0, snapshot.size + 1.0)
        inside = within(snapshot.values[self.quantity], self.low, self.high)
        if math.isfinite(self.first) or math.isfinite(self.last):
            inside &= (at >= self.first) & (at <= self.last)
        return np.asarray(inside)


def read_brushes(text: str) -> list[Brush]:
    """Rectangles from an address.

    Raises
    ------
    BadParameter
        When one can't be understood.
    """
    found = []
    for part in filter(None, text.split(";")):
        try:
            quantity, low, high, *more = part.split(":")
            axis, first, last = more or ("n", "-inf", "inf")
            one = Brush(quantity, float(low), float(high), axis, float(first), float(last))
        except ValueError:
            raise BadParameter("brush", BRUSH, repr(part)[:80], "Draw it again on the page.") from None
        numbers = (one.low, one.high, one.first, one.last)
        if one.quantity not in views.QUANTITIES or axis not in ("n", "t") or any(map(math.isnan, numbers)):
            raise BadParameter("brush", BRUSH, repr(part)[:80], "Draw it again on the page.")
        found.append(one)
    if len(found) > _MOST_BRUSHES:
        raise BadParameter("brush", f"at most {_MOST_BRUSHES} rectangles", str(len(found)))
    return found
