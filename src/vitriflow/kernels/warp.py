"""Move frames by smooth fields of shifts and add them up, straight from the camera's integers.

The interpolation is the cubic B-spline. Its prefilter is a convolution, so it commutes with a
shift: frames are sampled with the four B-spline taps alone, and the sum is divided once by the
spline's transform in Fourier space (:func:`spline_response`). That gives full spline quality at
the price of four taps a dimension.

The shift is constant over a block of ``BLOCK`` pixels, so the taps are separable; with gradients
of real movies (a few pixels over the image) the step between blocks is a few hundredths of a pixel.

Source: Unser, Aldroubi, Eden, IEEE Trans. Signal Process. 41 (1993) 821, part I, eq. 2.7 ff.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray

from vitriflow.kernels.warp_numba import BLOCK_X, BLOCK_Y, warp_rows

__all__ = ["BLOCK_X", "BLOCK_Y", "block_centres", "spline_response", "warp_accumulate", "warp_band"]

_PIECES_PER_THREAD = 4


def block_centres(shape: tuple[int, int]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Coordinates of the centres of the blocks of constant shift.

    Parameters
    ----------
    shape
        ``(height, width)`` of the image (px).

    Returns
    -------
    tuple
        Row coordinates ``(n_blocks_y,)`` and column coordinates ``(n_blocks_x,)`` (px). Blocks at
        the far edges can be smaller; their centres are those of what is inside.
    """
    centres = []
    for size, block in zip(shape, (BLOCK_Y, BLOCK_X), strict=True):
        start = np.arange(0, size, block, dtype=np.float32)
        end = np.minimum(start + block, size)
        centres.append(((start + end - 1.0) / 2.0).astype(np.float32))
    return centres[0], centres[1]


def spline_response(frequency: torch.Tensor) -> torch.Tensor:
    """Fourier transform of the sampled cubic B-spline along one axis, 1/3 to 1.

    Divide the transform of a sum made by :func:`warp_accumulate` by that along y and along x.

    Parameters
    ----------
    frequency
        Any shape (cycles/px).
    """
    return (4.0 + 2.0 * torch.cos(2 * torch.pi * frequency)) / 6.0


def warp_accumulate(
    frames: Sequence[NDArray[np.generic]] | NDArray[np.generic],
    gain: NDArray[np.float32] | None,
    block_shifts: NDArray[np.float32],
    weights: NDArray[np.float32],
    sums: torch.Tensor,
    *,
    threads: int = 1,
) -> None:
    """Shift frames, multiply by the gain, and add them into several weighted sums, in place.

    ``sums[r, y, x] += sum_f weights[r, f] * frame_f(y - shift_y, x - shift_x)``, with the cubic
    B-spline's taps and no prefilter; past the edges the nearest pixel is taken.

    Parameters
    ----------
    frames
        ``(n, height, width)`` or a sequence of ``(height, width)``: counts, any integer or float32.
    gain
        ``(height, width)``, multiplies the counts; None where there is nothing to correct.
    block_shifts
        ``(n, n_blocks_y, n_blocks_x, 2)``, y then x (px): added to a frame's coordinates to bring
        it onto the first frame, one for each block of :func:`block_centres`.
    weights
        ``(n_sums, n)``.
    sums
        ``(n_sums, height, width)``, float32, changed in place; its device decides where this runs.
    threads
        CPU threads to use.
    """
    if sums.device.type == "cpu":
        _warp_cpu(frames, gain, block_shifts, weights, sums.numpy(), threads)
    else:
        warp_accumulate_torch(frames, gain, block_shifts, weights, sums)


def _warp_cpu(
    frames: Sequence[NDArray[np.generic]] | NDArray[np.generic],
    gain: NDArray[np.float32] | None,
    block_shifts: NDArray[np.float32],
    weights: NDArray[np.float32],
    sums: NDArray[np.float32],
    threads: int,
) -> None:
    height = sums.shape[1]
    no_gain = np.ones((1, 1), dtype=np.float32)
    n_rows = -(-height // BLOCK_Y)
    pieces = max(1, min(n_rows, threads * _PIECES_PER_THREAD)) if threads > 1 else 1
    edges = np.linspace(0, n_rows, pieces + 1).astype(int)
    shifts = np.ascontiguousarray(block_shifts, dtype=np.float32)
    factors = np.ascontiguousarray(weights, dtype=np.float32)
    stack = frames if isinstance(frames, np.ndarray) else np.stack(list(frames))

    def work(piece: int) -> None:
        warp_rows(
            stack,
            no_gain if gain is None else gain,
            gain is not None,
            shifts,
            factors,
            sums,
            int(edges[piece]),
            int(edges[piece + 1]),
            0,
        )

    if pieces == 1:
        work(0)
        return
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, range(pieces)))


def warp_band(
    frame: NDArray[np.generic],
    gain: NDArray[np.float32] | None,
    block_shifts: NDArray[np.float32],
    band: torch.Tensor,
    first_line: int,
) -> None:
    """:func:`warp_accumulate` of one frame for some of its rows alone, on the CPU, in this thread.

    Parameters
    ----------
    frame
        ``(1, height, width)``.
    gain, block_shifts
        As there, for this frame.
    band
        ``(1, rows, width)``, float32, changed in place: rows ``first_line`` and on of the image.
    first_line
        A multiple of ``BLOCK_Y``.
    """
    height, rows = frame.shape[1], band.shape[1]
    if first_line % BLOCK_Y or (rows % BLOCK_Y and first_line + rows != height):
        raise ValueError(f"rows {first_line} to {first_line + rows} of {height} aren't whole blocks")
    warp_rows(
        frame,
        np.ones((1, 1), dtype=np.float32) if gain is None else gain,
        gain is not None,
        block_shifts,
        np.ones((1, 1), dtype=np.float32),
        band.numpy(),
        first_line // BLOCK_Y,
        -(-(first_line + rows) // BLOCK_Y),
        first_line,
    )


def warp_accumulate_torch(
    frames: Sequence[NDArray[np.generic]] | NDArray[np.generic],
    gain: NDArray[np.float32] | None,
    block_shifts: NDArray[np.float32],
    weights: NDArray[np.float32],
    sums: torch.Tensor,
) -> None:
    """:func:`warp_accumulate` in plain torch, for any device; the parity test runs it on the CPU."""
    device = sums.device
    height, width = sums.shape[1:]
    factor = torch.from_numpy(gain).to(device) if gain is not None else None
    rows = torch.arange(height, device=device)
    columns = torch.arange(width, device=device)
    block_y, block_x = rows // BLOCK_Y, columns // BLOCK_X
    for index, counts in enumerate(frames):
        frame = torch.from_numpy(_torch_ready(np.asarray(counts))).to(device).to(torch.float32)
        if factor is not None:
            frame = frame * factor
        shift = torch.from_numpy(np.ascontiguousarray(block_shifts[index])).to(device)
        shift = shift[block_y][:, block_x]  # (height, width, 2)
        y = rows[:, None].to(torch.float32) - shift[..., 0]
        x = columns[None, :].to(torch.float32) - shift[..., 1]
        moved = _sample_spline(frame, y, x)
        for sum_index in range(sums.shape[0]):
            sums[sum_index].add_(moved, alpha=float(weights[sum_index, index]))


def _sample_spline(frame: torch.Tensor, y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    height, width = frame.shape
    y0, x0 = torch.floor(y), torch.floor(x)
    taps_y, taps_x = _spline_taps(y - y0), _spline_taps(x - x0)
    iy, ix = y0.to(torch.int64), x0.to(torch.int64)
    flat = frame.reshape(-1)
    moved = torch.zeros_like(frame)
    for j in range(4):
        row = (iy + (j - 1)).clamp_(0, height - 1) * width
        line = torch.zeros_like(frame)
        for i in range(4):
            line += taps_x[i] * flat[row + (ix + (i - 1)).clamp_(0, width - 1)]
        moved += taps_y[j] * line
    return moved


def _spline_taps(t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    u = 1.0 - t
    t2, t3 = t * t, t * t * t
    return (
        u * u * u / 6.0,
        (3.0 * t3 - 6.0 * t2 + 4.0) / 6.0,
        (-3.0 * t3 + 3.0 * t2 + 3.0 * t + 1.0) / 6.0,
        t3 / 6.0,
    )


def _torch_ready(array: NDArray[np.generic]) -> NDArray[np.generic]:
    """Torch computes with few unsigned types; 16 bits of them go to int32."""
    if array.dtype in (np.dtype(np.uint16), np.dtype(np.uint32)):
        return array.astype(np.int32 if array.dtype == np.uint16 else np.int64)
    return np.ascontiguousarray(array)
