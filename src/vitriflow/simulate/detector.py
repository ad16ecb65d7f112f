"""The camera: local warp, Poisson counting, gain, dead and hot pixels.

The hot loop is one numba kernel that releases the interpreter, run on bands of rows by threads.
Each row of each frame has its own random stream, so the result doesn't depend on the threads.
"""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from vitriflow.simulate.spec import MovieSpec
from vitriflow.simulate.workers import n_threads

Float = NDArray[np.float32]

GRID_STEP = 32  # px between nodes of the local shift field
_BAND = 64  # rows a thread takes at once


@dataclass(frozen=True)
class Camera:
    """What the pixels of one camera are like.

    Attributes
    ----------
    gain
        ``(height, width)``, multiply convention: raw counts times gain are electrons; 0 marks a
        pixel that counts nothing.
    efficiency
        ``(height, width)``, 1 / gain, 0 where dead.
    hot_pixels
        ``(n, 2)``, y then x, pixels that count far too much and that the gain doesn't know.
    dead_columns
        x of the columns that count nothing.
    """

    gain: Float
    efficiency: Float
    hot_pixels: NDArray[np.int64]
    dead_columns: NDArray[np.int64]


def make_camera(spec: MovieSpec) -> Camera:
    """The camera that ``spec.gain_seed`` stands for; all movies of a session share it."""
    rng = np.random.default_rng([spec.gain_seed, 0xCA3E8A])
    height, width = spec.shape
    response = np.ones(spec.shape, dtype=np.float32)
    if spec.gain_spread > 0:
        response += spec.gain_spread * rng.standard_normal(spec.shape, dtype=np.float32)
        # readout blocks and a slow slope, as real references show
        block = 1.0 + 0.5 * spec.gain_spread * rng.standard_normal((8, 4))
        response *= np.repeat(np.repeat(block, -(-height // 8), 0)[:height], -(-width // 4), 1)[:, :width]
        slope_y, slope_x = 0.5 * spec.gain_spread * rng.standard_normal(2)
        response += np.float32(slope_y) * np.linspace(-1, 1, height, dtype=np.float32)[:, None]
        response += np.float32(slope_x) * np.linspace(-1, 1, width, dtype=np.float32)[None, :]
    response = np.clip(response, 0.3, 3.0).astype(np.float32)
    response /= response.mean()
    n_columns = min(spec.n_dead_columns, width // 8)
    columns = np.sort(rng.choice(width, n_columns, replace=False)).astype(np.int64)
    response[:, columns] = 0.0
    dead = rng.integers(0, height * width, spec.n_dead_pixels)
    response.reshape(-1)[dead] = 0.0
    hot = rng.choice(height * width, spec.n_hot_pixels, replace=False)
    hot = hot[response.reshape(-1)[hot] > 0]
    gain = np.divide(1.0, response, out=np.zeros_like(response), where=response > 0)
    return Camera(gain, response, np.stack(np.unravel_index(hot, spec.shape), axis=1), columns)


_RECIPROCAL = np.concatenate([[0.0], 1.0 / np.arange(1, 256)])
_BLOCK = 16  # px along a row that share one local shift: it changes by thousandths of a pixel a pixel


@njit(cache=True, inline="always")
def _uniform(state):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    """Turn a counter into a number in [0, 1): splitmix64 (Steele et al. 2014)."""
    z = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return np.float64(z >> np.uint64(11)) * (1.0 / 9007199254740992.0)


@njit(cache=True, inline="always")
def _cubic(t):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    """Weights of Keys' cubic convolution (1981, a = -1/2), ``t`` past the second of four pixels."""
    t2 = t * t
    t3 = t2 * t
    return (
        np.float32(0.5 * (-t3 + 2.0 * t2 - t)),
        np.float32(0.5 * (3.0 * t3 - 5.0 * t2 + 2.0)),
        np.float32(0.5 * (-3.0 * t3 + 4.0 * t2 + t)),
        np.float32(0.5 * (t3 - t2)),
    )


@njit(cache=True, nogil=True, fastmath=True)
def _warp_row(image, y, margin, shift_y, shift_x, grid_step, row):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Look up row ``y`` of the frame in ``image`` through the grid of local shifts."""
    node, width = y // grid_step, row.size
    py = (y - node * grid_step) / grid_step
    for start in range(0, width, _BLOCK):
        middle = min(start + 0.5 * (_BLOCK - 1), width - 1.0)
        column = int(middle) // grid_step
        px = (middle - column * grid_step) / grid_step
        a, b, c, d = (1 - py) * (1 - px), (1 - py) * px, py * (1 - px), py * px
        dy = a * shift_y[node, column] + b * shift_y[node, column + 1]
        dy += c * shift_y[node + 1, column] + d * shift_y[node + 1, column + 1]
        dx = a * shift_x[node, column] + b * shift_x[node, column + 1]
        dx += c * shift_x[node + 1, column] + d * shift_x[node + 1, column + 1]
        iy, ix = math.floor(dy), math.floor(dx)
        v0, v1, v2, v3 = _cubic(dy - iy)
        h0, h1, h2, h3 = _cubic(dx - ix)
        top, left = y + margin + iy - 1, start + margin + ix - 1
        l0, l1, l2, l3 = image[top], image[top + 1], image[top + 2], image[top + 3]
        for i in range(min(_BLOCK, width - start)):
            j = left + i
            row[start + i] = (
                v0 * (h0 * l0[j] + h1 * l0[j + 1] + h2 * l0[j + 2] + h3 * l0[j + 3])
                + v1 * (h0 * l1[j] + h1 * l1[j + 1] + h2 * l1[j + 2] + h3 * l1[j + 3])
                + v2 * (h0 * l2[j] + h1 * l2[j + 1] + h2 * l2[j + 2] + h3 * l2[j + 3])
                + v3 * (h0 * l3[j] + h1 * l3[j + 1] + h2 * l3[j + 2] + h3 * l3[j + 3])
            )


@njit(cache=True, nogil=True, fastmath=True)
def _negative_exponential(mean, result):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    """exp(-mean) for 0 <= mean <= 32: a fourth-order series at mean / 1024, squared ten times; vectorises."""
    for i in range(mean.size):
        t = mean[i] * (-1.0 / 1024.0)
        e = 1.0 + t * (1.0 + t * (0.5 + t * (1.0 / 6.0 + t * (1.0 / 24.0))))
        e2 = e * e
        e4 = e2 * e2
        e8 = e4 * e4
        e16 = e8 * e8
        e32 = e16 * e16
        e64 = e32 * e32
        e128 = e64 * e64
        e256 = e128 * e128
        e512 = e256 * e256
        result[i] = e512 * e512


@njit(cache=True, nogil=True)
def _count_row(mean, zero, state, reciprocal, out):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    """Poisson counts of one row; ``zero`` holds exp(-mean) where mean is below 30."""
    golden = np.uint64(0x9E3779B97F4A7C15)
    for x in range(out.size):
        state = state + golden
        u = _uniform(state)
        m = mean[x]
        if m < 30.0:
            # inversion: walk up the distribution function until it passes u
            term = zero[x]
            total = term
            count = 0
            while u > total and count < 255:
                count += 1
                term *= m * reciprocal[count]
                total += term
            out[x] = count
        else:
            state = state + golden
            normal = math.sqrt(-2.0 * math.log(1.0 - u)) * math.cos(2.0 * math.pi * _uniform(state))
            out[x] = int(min(65535.0, max(0.0, math.floor(m + math.sqrt(m) * normal + 0.5))))


@njit(cache=True, nogil=True, fastmath=True)
def _expose(  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    image, margin, shift_y, shift_x, grid_step, warped, rate, efficiency, slope_y, slope_x,
    seed, reciprocal, first, last, out,
):  # fmt: skip
    """Expose rows ``first`` to ``last`` of one frame; see `expose` for the meaning of the arguments."""
    height, width = out.shape
    row = np.empty(width, np.float32)
    mean = np.empty(width, np.float64)
    zero = np.empty(width, np.float64)
    for y in range(first, last):
        if warped:
            _warp_row(image, y, margin, shift_y, shift_x, grid_step, row)
        else:
            row[:] = image[y + margin, margin : margin + width]
        beam = 1.0 + slope_y * (y / height - 0.5) - 0.5 * slope_x
        across = slope_x / width
        for x in range(width):
            value = rate * (beam + across * x) * (1.0 + row[x]) * efficiency[y, x]
            mean[x] = max(value, 0.0)
        _negative_exponential(mean, zero)
        # two rounds of mixing set the streams of rows and frames far apart
        start = np.uint64(_uniform(seed ^ np.uint64(y + 1)) * 9007199254740992.0)
        state = start * np.uint64(0x2545F4914F6CDD1D)
        _count_row(mean, zero, state, reciprocal, out[y])


def in_bands(function: Callable[[int, int], Any], height: int) -> None:
    """Call ``function(first, last)`` for bands of rows on as many threads as this process may use."""
    bands = [(first, min(first + _BAND, height)) for first in range(0, height, _BAND)]
    with ThreadPoolExecutor(max_workers=n_threads()) as pool:
        list(pool.map(lambda band: function(*band), bands))


def expose(
    image: Float,
    margin: int,
    local_shift_px: NDArray[np.float64],
    rate: float,
    camera: Camera,
    slope: tuple[float, float],
    seed: int,
) -> NDArray[np.uint16]:
    """Count electrons for one frame.

    Parameters
    ----------
    image
        Contrast, ``(height + 2 margin, width + 2 margin)`` or larger, moved by the global shift.
    margin
        Pixels of ``image`` before the frame's first row and column.
    local_shift_px
        ``(2, ny, nx)`` on nodes every `GRID_STEP` px: where on ``image`` to look, y then x.
    rate
        Mean electrons per pixel.
    camera
        Efficiency and defects of the pixels.
    slope
        Relative change of illumination over the field in y and x.
    seed
        Of this frame.

    Returns
    -------
    ndarray
        Raw counts, ``(height, width)``, Poisson distributed about ``rate x (1 + contrast) / gain``.
    """
    height, width = camera.gain.shape
    out = np.empty((height, width), dtype=np.uint16)
    shift_y, shift_x = local_shift_px.astype(np.float32)
    warped = bool(np.abs(local_shift_px).max() > 1e-6)

    def band(first: int, last: int) -> None:
        _expose(
            image, margin, shift_y, shift_x, GRID_STEP, warped, rate, camera.efficiency, *slope,
            np.uint64(seed), _RECIPROCAL, first, last, out,
        )  # fmt: skip

    in_bands(band, height)
    if len(camera.hot_pixels):
        rng = np.random.default_rng([seed & 0xFFFFFFFF, 0x407])
        y, x = camera.hot_pixels.T
        # each hot pixel has its own steady rate, far above the dose
        rates = rate * (20.0 + 10.0 * (np.arange(len(y)) % 7)) + 10.0
        out[y, x] = rng.poisson(rates)
    return out
