"""The CPU hot loop of :mod:`vitriflow.kernels.motion_patches`; it releases the GIL."""

from collections.abc import Callable
from typing import Any

import numba
import numpy as np

_jit: Callable[..., Callable[..., Any]] = numba.njit(nogil=True, cache=True, fastmath=True)


@_jit
def move_and_sum(spectra, phase_y, phase_x, ring, total, rings):  # type: ignore[no-untyped-def]
    """Shift ``spectra (n, h, w)`` in place, add them into ``total (h, w)``, ring powers into ``rings (2, r)``.

    ``rings[0]`` takes the power of the sum, ``rings[1]`` the sum of the powers.
    """
    n, height, width = spectra.shape
    for y in range(height):
        own = np.zeros(width, dtype=np.float32)
        for f in range(n):
            p = phase_y[f, y]
            for x in range(width):
                value = spectra[f, y, x] * (p * phase_x[f, x])
                spectra[f, y, x] = value
                total[y, x] += value
                own[x] += value.real * value.real + value.imag * value.imag
        for x in range(width):
            twice = 1.0 if x == 0 or x == width - 1 else 2.0
            whole = total[y, x]
            rings[0, ring[y, x]] += twice * (whole.real * whole.real + whole.imag * whole.imag)
            rings[1, ring[y, x]] += twice * own[x]


@_jit
def slopes(spectra, total, weight, wy, wx, gradient, curvature):  # type: ignore[no-untyped-def]
    """Gradient ``(n, 2)`` and curvature ``(n, 3)`` (yy, xx, yx) of each frame's correlation with the others."""
    n, height, width = spectra.shape
    for f in range(n):
        gy = gx = hyy = hxx = hxy = np.float64(0.0)
        for y in range(height):
            real_sum = imag_sum = np.float32(0.0)
            along_imag = np.float32(0.0)
            along_real = np.float32(0.0)
            twice_real = np.float32(0.0)
            for x in range(width):
                value = spectra[f, y, x]
                others = total[y, x] - value
                w = weight[y, x]
                real = w * (others.real * value.real + others.imag * value.imag)
                imag = w * (others.real * value.imag - others.imag * value.real)
                k = wx[x]
                real_sum += real
                imag_sum += imag
                along_imag += k * imag
                along_real += k * real
                twice_real += k * k * real
            gy += wy[y] * imag_sum
            gx += along_imag
            hyy += wy[y] * wy[y] * real_sum
            hxx += twice_real
            hxy += wy[y] * along_real
        gradient[f, 0] = gy
        gradient[f, 1] = gx
        curvature[f, 0] = hyy
        curvature[f, 1] = hxx
        curvature[f, 2] = hxy
