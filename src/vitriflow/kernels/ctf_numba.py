"""The one loop over pixels that the precise CTF fit turns around; it releases the GIL."""

from collections.abc import Callable
from typing import Any

import numba
import numpy as np

_jit: Callable[..., Callable[..., Any]] = numba.njit(nogil=True, cache=True, fastmath=True)

N_MOMENTS = 25


@_jit
def ring_moments(  # type: ignore[no-untyped-def]
    squared, cos2, sin2, value, weight, ring, parameters, per_defocus, aberration, offset, out
):
    """Sums over the pixels of each ring that the normal equations are made of.

    With ``s = sin(chi)^2``, ``d = ds/dchi`` and ``q`` the derivatives of chi by the four parameters,
    the columns of ``out (n_rings, 25)`` are the weighted sums of s, s^2, s v; of d q (4); of
    s d q (4); of v d q (4); and of d^2 q q' (10, upper triangle row by row).
    """
    out[:] = 0.0
    q = np.empty(4)
    for i in range(squared.size):
        k2 = squared[i]
        z = parameters[0] + 0.5 * (parameters[1] * cos2[i] + parameters[2] * sin2[i])
        twice = 2.0 * (k2 * (per_defocus * z - aberration * k2) + offset + parameters[3])
        s = 0.5 - 0.5 * np.cos(twice)
        d = np.sin(twice)
        w, v = weight[i], value[i]
        q[0] = per_defocus * k2
        q[1] = 0.5 * q[0] * cos2[i]
        q[2] = 0.5 * q[0] * sin2[i]
        q[3] = 1.0
        row = out[ring[i]]
        ws = w * s
        wd = w * d
        row[0] += ws
        row[1] += ws * s
        row[2] += ws * v
        place = 15
        for one in range(4):
            slope = wd * q[one]
            row[3 + one] += slope
            row[7 + one] += slope * s
            row[11 + one] += slope * v
            for two in range(one, 4):
                row[place] += slope * d * q[two]
                place += 1
