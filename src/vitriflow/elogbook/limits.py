"""What people's limits and marks mean for exposures: the one rule that pages, reports and exports follow."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
Pairs = Mapping[str, Sequence[float | None]]  # quantity -> lowest, highest


def within(values: FloatArray, low: float | None, high: float | None) -> BoolArray:
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
    return np.asarray(kept)


def within_all(values: Mapping[str, FloatArray], limits: Pairs, n: int) -> BoolArray:
    """Which rows are within all limits, (n,); without limits all are.

    Parameters
    ----------
    values
        Quantity -> column, (n,) each; a limit of a quantity that isn't there doesn't count.
    limits
        Quantity -> lowest and highest value that passes.
    n
        Rows.
    """
    kept = np.ones(n, dtype=bool)
    for name, (low, high) in limits.items():
        if name in values:
            kept &= within(values[name], low, high)
    return kept


def usable(
    done: BoolArray,
    refused: BoolArray,
    doubtful: BoolArray,
    passing: BoolArray,
    keep: BoolArray,
    reject: BoolArray,
) -> BoolArray:
    """Which rows are good to go on with, (n,).

    Done, with a CTF that isn't doubtful, within the limits, and not rejected by a person. What a
    person keeps is usable whatever gates and limits say, as long as it was processed to the end.

    Parameters
    ----------
    done, refused
        Processed to the end; or refused by a gate of the pipeline. (n,) each, as all others.
    doubtful
        The CTF can't be trusted.
    passing
        Within all limits.
    keep, reject
        What people last said.
    """
    good = done & ~doubtful & passing & ~reject
    return np.asarray(good | ((done | refused) & keep))


def for_export(passing: BoolArray, keep: BoolArray, reject: BoolArray) -> BoolArray:
    """Which exposures go on to other programs when only those within the limits are to, (n,).

    What a person rejects never does; what a person keeps does whatever the limits say.
    """
    return np.asarray((passing | keep) & ~reject)


def clean_pairs(values: Mapping[str, Sequence[float | None]]) -> dict[str, list[float | None]]:
    """Limits as JSON gives them, with numbers that aren't finite taken as no limit."""
    return {name: [_finite(pair[0]), _finite(pair[1])] for name, pair in values.items()}


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
