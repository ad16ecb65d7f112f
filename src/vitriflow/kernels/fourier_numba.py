"""CPU hot loops in Fourier space; they release the GIL."""

from collections.abc import Callable
from typing import Any

import numba
import numpy as np

_jit: Callable[..., Callable[..., Any]] = numba.njit(nogil=True, cache=True, fastmath=True)


@_jit
def add_times_curve(total, spectrum, curve, per_step, ky, kx, first, last):  # type: ignore[no-untyped-def]
    """``total += spectrum * curve(|k|)`` for rows ``first`` to ``last``; the curve's nearest sample counts."""
    n = len(curve) - 1
    for y in range(first, last):
        ky2 = ky[y] * ky[y]
        for x in range(total.shape[1]):
            sample = int(np.sqrt(ky2 + kx[x] * kx[x]) * per_step + np.float32(0.5))
            total[y, x] += spectrum[y, x] * curve[min(sample, n)]
