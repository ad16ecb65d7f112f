"""The CPU hot loop of :mod:`vitriflow.kernels.warp`: it releases the GIL, so threads share the rows."""

from collections.abc import Callable
from typing import Any

import numba
import numpy as np

BLOCK_Y = 16
BLOCK_X = 32
_TOGETHER = 4  # frames added at once, so that a sum is loaded and stored a quarter as often
_HALO = 3  # a cubic spline reads one pixel before and two after

_jit: Callable[..., Callable[..., Any]] = numba.njit


@_jit(nogil=True, cache=True, fastmath=True, inline="always")
def _taps(t):  # type: ignore[no-untyped-def]
    one = np.float32(1.0)
    sixth = np.float32(1.0 / 6.0)
    u = one - t
    t2 = t * t
    t3 = t2 * t
    return (
        u * u * u * sixth,
        (np.float32(3.0) * t3 - np.float32(6.0) * t2 + np.float32(4.0)) * sixth,
        (np.float32(3.0) * (t2 - t3 + t) + one) * sixth,
        t3 * sixth,
    )


@_jit(nogil=True, cache=True, fastmath=True)
def warp_rows(  # type: ignore[no-untyped-def]
    frames, gain, has_gain, shifts, weights, sums, first_row, last_row, first_line
):
    """Warp and add the block rows ``first_row <= row < last_row``; see ``warp_accumulate``.

    ``sums`` begins with the image's row ``first_line``.
    """
    n_frames, height, width = frames.shape
    n_sums = sums.shape[0]
    n_blocks_x = shifts.shape[2]
    source = np.empty((BLOCK_Y + _HALO, BLOCK_X + _HALO), dtype=np.float32)
    across = np.empty((BLOCK_Y + _HALO, BLOCK_X), dtype=np.float32)
    moved = np.zeros((_TOGETHER, BLOCK_Y * BLOCK_X), dtype=np.float32)
    total = np.empty((n_sums, BLOCK_Y * BLOCK_X), dtype=np.float32)
    for block_y in range(first_row, last_row):
        y_start = block_y * BLOCK_Y
        n_y = min(BLOCK_Y, height - y_start)
        for block_x in range(n_blocks_x):
            x_start = block_x * BLOCK_X
            n_x = min(BLOCK_X, width - x_start)
            total[:] = np.float32(0.0)
            for f in range(n_frames):
                shift_y = shifts[f, block_y, block_x, 0]
                shift_x = shifts[f, block_y, block_x, 1]
                floor_y = np.floor(-shift_y)
                floor_x = np.floor(-shift_x)
                a0, a1, a2, a3 = _taps(np.float32(-shift_y - floor_y))
                b0, b1, b2, b3 = _taps(np.float32(-shift_x - floor_x))
                top = y_start + int(floor_y) - 1
                left = x_start + int(floor_x) - 1
                inside = (
                    top >= 0
                    and left >= 0
                    and top + BLOCK_Y + _HALO <= height
                    and left + BLOCK_X + _HALO <= width
                )
                if inside:
                    if has_gain:
                        for j in range(BLOCK_Y + _HALO):
                            for i in range(BLOCK_X + _HALO):
                                source[j, i] = (
                                    np.float32(frames[f, top + j, left + i]) * gain[top + j, left + i]
                                )
                    else:
                        for j in range(BLOCK_Y + _HALO):
                            for i in range(BLOCK_X + _HALO):
                                source[j, i] = np.float32(frames[f, top + j, left + i])
                else:
                    for j in range(BLOCK_Y + _HALO):
                        y = min(max(top + j, 0), height - 1)
                        for i in range(BLOCK_X + _HALO):
                            x = min(max(left + i, 0), width - 1)
                            value = np.float32(frames[f, y, x])
                            if has_gain:
                                value *= gain[y, x]
                            source[j, i] = value
                for j in range(BLOCK_Y + _HALO):
                    for i in range(BLOCK_X):
                        across[j, i] = (
                            b0 * source[j, i]
                            + b1 * source[j, i + 1]
                            + b2 * source[j, i + 2]
                            + b3 * source[j, i + 3]
                        )
                slot = f % _TOGETHER
                for j in range(BLOCK_Y):
                    for i in range(BLOCK_X):
                        moved[slot, j * BLOCK_X + i] = (
                            a0 * across[j, i]
                            + a1 * across[j + 1, i]
                            + a2 * across[j + 2, i]
                            + a3 * across[j + 3, i]
                        )
                if slot == _TOGETHER - 1:
                    for r in range(n_sums):
                        w0, w1 = weights[r, f - 3], weights[r, f - 2]
                        w2, w3 = weights[r, f - 1], weights[r, f]
                        for i in range(BLOCK_Y * BLOCK_X):
                            total[r, i] += (
                                w0 * moved[0, i] + w1 * moved[1, i] + w2 * moved[2, i] + w3 * moved[3, i]
                            )
                elif f == n_frames - 1:
                    for r in range(n_sums):
                        for s in range(slot + 1):
                            w0 = weights[r, f - slot + s]
                            for i in range(BLOCK_Y * BLOCK_X):
                                total[r, i] += w0 * moved[s, i]
            for r in range(n_sums):
                for j in range(n_y):
                    for i in range(n_x):
                        sums[r, y_start - first_line + j, x_start + i] += total[r, j * BLOCK_X + i]
