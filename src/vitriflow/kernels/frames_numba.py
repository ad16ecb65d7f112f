"""CPU hot loops of :mod:`vitriflow.kernels.frames`; they release the GIL."""

from collections.abc import Callable
from typing import Any

import numba
import numpy as np

# Sums may be reordered, but NaN and infinity have to survive: they are how bad values are found.
_jit: Callable[..., Callable[..., Any]] = numba.njit(
    nogil=True, cache=True, fastmath={"reassoc", "contract", "nsz"}
)


@_jit
def add_rows(frames, total, sums, first, last):  # type: ignore[no-untyped-def]
    """Add rows ``first`` to ``last`` of all frames to ``total``; each row's sum goes to ``sums``."""
    n, _, width = frames.shape
    for y in range(first, last):
        line = total[y]
        for f in range(n):
            row = frames[f, y]
            whole = np.float64(0.0)
            for x in range(width):
                value = np.float32(row[x])
                line[x] += value
                whole += np.float64(value)
            sums[f, y] = whole


@_jit
def pool_rows(frames, gain, has_gain, pool, pooled, first, last):  # type: ignore[no-untyped-def]
    """Fill rows ``first`` to ``last`` of ``pooled`` with means of ``pool`` x ``pool`` pixels."""
    n = frames.shape[0]
    width = pooled.shape[2]
    scale = np.float32(1.0 / (pool * pool))
    line = np.empty(width * pool, dtype=np.float32)
    for y in range(first, last):
        for f in range(n):
            line[:] = np.float32(0.0)
            for j in range(pool):
                row = frames[f, y * pool + j]
                if has_gain:
                    factors = gain[y * pool + j]
                    for x in range(width * pool):
                        line[x] += np.float32(row[x]) * factors[x]
                else:
                    for x in range(width * pool):
                        line[x] += np.float32(row[x])
            for x in range(width):
                value = np.float32(0.0)
                for i in range(pool):
                    value += line[x * pool + i]
                pooled[f, y, x] = value * scale
