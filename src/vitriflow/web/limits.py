"""Thresholds that people set on a processing's quantities, and which exposures pass them."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vitriflow.catalog import views
from vitriflow.elogbook.limits import Pairs, clean_pairs, within, within_all

if TYPE_CHECKING:
    from vitriflow.web.columns import Snapshot

__all__ = ["QUANTITIES", "Pairs", "clean_pairs", "passing", "within"]


def passing(snapshot: "Snapshot", limits: Pairs) -> NDArray[np.bool_]:
    """Which rows are within all limits, (n,); without limits all are."""
    return within_all(snapshot.values, limits, snapshot.size)


QUANTITIES = views.QUANTITIES
