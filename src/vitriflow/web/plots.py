"""Columns for the plots: thinned to what a screen can show, and only what is new when asked so."""

from typing import Any

import numpy as np

from vitriflow.web import words
from vitriflow.web.columns import MIDDLE, STATUSES, FloatArray, IntArray, Snapshot, thin

DEFAULT_POINTS = 1500
MOST_POINTS = 4000
_STEPS = (200, 500, 1000, 1500, 2500, MOST_POINTS)  # few, so that what is kept stays small
PLOTTED = (
    "total_A",
    "early_A",
    "late_A",
    "defocus_A",
    "astigmatism_A",
    "fit_resolution_A",
    "n_picks",
    "latency_s",
)
_SHARES = {"least": 0, "p1": 1, "p5": 5, "median": 50, "p95": 95, "p99": 99, "most": 100}


def column_answer(snapshot: Snapshot, since: int, known: int, points: int) -> dict[str, Any]:
    """What ``/columns`` answers.

    Parameters
    ----------
    snapshot
        The processing now.
    since
        Change number that the asker has seen; below 0 for none.
    known
        How many exposures the asker knows of.
    points
        Most points a quantity.

    Returns
    -------
    answer
        ``reset`` says whether the asker must forget what it has. Each quantity has parallel lists
        ``id``, ``n`` (number of the exposure in the session, from 1), ``t`` (seconds since 1970,
        when the file was whole; null if not known) and ``y``, with its count, median, 5th and 95th
        percentile over all exposures, not only over those that are listed. ``k`` is 0 for a value
        that stands for itself or is the median of its run, -1 and 1 for the lowest and highest of
        a run; ``thinned`` says whether there are runs.
    """
    points = max((step for step in _STEPS if step <= points), default=_STEPS[0])
    rows = _new_rows(snapshot, since, known, points)
    reset = rows is None
    return {
        "change": snapshot.change,
        "total": snapshot.size,
        "reset": reset,
        "points": points,
        "quantities": {name: _quantity(snapshot, name, rows, points) for name in PLOTTED},
    }


def _new_rows(snapshot: Snapshot, since: int, known: int, points: int) -> IntArray | None:
    """Rows after ``since``, or None when the asker had better start afresh.

    Exposures are numbered in order of id. When one comes in between, all later numbers move; that
    shows as an old row among the last ``total - known``.
    """
    if since < 0 or since > snapshot.change or known > snapshot.size:
        return None
    rows = np.flatnonzero(snapshot.changes > since)
    added = snapshot.size - known
    tail_is_new = added == 0 or bool(np.all(snapshot.changes[-added:] > since))
    if not tail_is_new or len(rows) > points:
        return None
    return np.asarray(rows, dtype=np.int64)


def _quantity(snapshot: Snapshot, name: str, rows: IntArray | None, points: int) -> dict[str, Any]:
    values = snapshot.values[name]
    shown = words.QUANTITIES[name]
    if rows is None:
        chosen, kinds = _thinned(snapshot, name, points)
    else:
        chosen = rows[np.isfinite(values[rows])]
        kinds = np.full(len(chosen), MIDDLE)
    moments = snapshot.times["complete"][chosen]
    return {
        "label": shown.label,
        "unit": shown.unit,
        "digits": shown.digits,
        **statistics(snapshot, name),
        "id": snapshot.ids[chosen],
        "n": chosen + 1,
        "t": np.round(moments, 1),  # NaN is written as null
        "y": np.round(values[chosen], shown.digits + 1),
        "k": kinds,
        "thinned": rows is None and len(chosen) < statistics(snapshot, name)["count"],
        "s": [STATUSES[code] for code in snapshot.status[chosen]],
    }


def _thinned(snapshot: Snapshot, name: str, points: int) -> tuple[IntArray, IntArray]:
    key = ("thin", name, points)
    if key not in snapshot.cache:
        snapshot.cache[key] = thin(snapshot.values[name], points)
    chosen: tuple[IntArray, IntArray] = snapshot.cache[key]
    return chosen


def statistics(snapshot: Snapshot, name: str) -> dict[str, Any]:
    """Count, median, 5th and 95th percentile of a column; worked out once a snapshot."""
    found = spread(snapshot, name)
    return {key: found[key] for key in ("count", "median", "p5", "p95")}


def spread(snapshot: Snapshot, name: str) -> dict[str, Any]:
    """Statistics, with what a plot's range is made of: least, 1st and 99th percentile, most."""
    key = ("spread", name)
    if key not in snapshot.cache:
        values: FloatArray = snapshot.values[name]
        finite = values[np.isfinite(values)]
        found: dict[str, Any] = dict.fromkeys(_SHARES)
        if len(finite):
            shares = np.percentile(finite, list(_SHARES.values()))
            found = {word: float(value) for word, value in zip(_SHARES, shares, strict=True)}
        snapshot.cache[key] = {"count": len(finite), **found}
    known: dict[str, Any] = snapshot.cache[key]
    return known
