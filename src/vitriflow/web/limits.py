"""Thresholds that people set on a processing's quantities, and which exposures pass them."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vitriflow.catalog import views

if TYPE_CHECKING:
    from vitriflow.web.columns import Snapshot

Pairs = Mapping[str, Sequence[float | None]]  # quantity -> lowest, highest


def within(values: NDArray[np.float64], low: float | None, high: float | None) -> NDArray[np.bool_]:
    """Which values lie between two ends, ends included; what wasn't measured doesn't.

    Compared in single precision, as the page does that counts them while a line is dragged: so both
    always say the same number.
    """
    single = values.astype(np.float32).astype(np.float64)
    kept = np.isfinite(single)
    if low is not None:
        kept &= single >= low
    if high is not None:
        kept &= single <= high
    return kept


def passing(snapshot: "Snapshot", limits: Pairs) -> NDArray[np.bool_]:
    """Which rows are within all limits, (n,); without limits all are."""
    kept = np.ones(snapshot.size, dtype=bool)
    for name, (low, high) in limits.items():
        if name in snapshot.values:
            kept &= within(snapshot.values[name], low, high)
    return kept


def clean_pairs(values: Mapping[str, Any]) -> dict[str, list[float | None]]:
    """Limits as JSON gives them, with numbers that aren't finite taken as no limit."""
    return {name: [_finite(pair[0]), _finite(pair[1])] for name, pair in values.items()}


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


QUANTITIES = views.QUANTITIES
