"""The aligned movie: each frame by itself, its motion undone, neither weighted nor summed."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from vitriflow.kernels.fourier import fourier_crop, frequencies
from vitriflow.kernels.frames import FrameStore
from vitriflow.kernels.motion_field import MotionField
from vitriflow.kernels.motion_sums import binned_shape
from vitriflow.kernels.warp import spline_response, warp_accumulate

if TYPE_CHECKING:
    from vitriflow.kernels.motion import MotionSettings

__all__ = ["moved_frames"]


def moved_frames(
    store: FrameStore,
    gain: NDArray[np.float32] | None,
    motion: MotionField,
    live: NDArray[np.int64],
    settings: "MotionSettings",
    *,
    device: str,
    threads: int,
) -> Iterator[NDArray[np.float32]]:
    """Frames one at a time, moved onto the first; they add up to the sum without dose weighting.

    A frame costs two Fourier transforms besides its move, and one frame's memory: the sums share
    theirs, so a movie takes about twice as long with its frames as without.

    Parameters
    ----------
    store
        The frames, their bad pixels replaced; walked through once more.
    gain
        ``(height, width)`` to multiply by, or None.
    motion
        The field (px).
    live
        Numbers of the frames that count; another is given as zeros, so that numbers stay.
    settings
        Of which binning counts.
    device, threads
        Where and with how many threads.

    Yields
    ------
    numpy.ndarray
        ``(height, width)`` float32, of the micrograph's size.
    """
    shape = motion.shape
    new_shape = binned_shape(shape, settings.bin_factor)
    ky, kx = frequencies(new_shape, torch.device(device))
    ky, kx = ky * (new_shape[0] / shape[0]), kx * (new_shape[1] / shape[1])  # cycles per px of the movie
    scale = new_shape[0] * new_shape[1] / (shape[0] * shape[1])
    response_y, response_x = spline_response(ky), spline_response(kx) / scale
    counts = set(live.tolist())
    blocks = motion.on_blocks()
    moved = torch.zeros((1, *shape), dtype=torch.float32, device=device)
    for start, group in store.groups(1):
        moved.zero_()
        if start in counts:
            weight = np.ones((1, 1), dtype=np.float32)
            warp_accumulate(group, gain, blocks[start : start + 1], weight, moved, threads=threads)
        spectrum = torch.fft.rfft2(moved[0])
        if new_shape != shape:
            spectrum = fourier_crop(spectrum, shape, new_shape)
        spectrum /= response_y
        spectrum /= response_x
        yield torch.fft.irfft2(spectrum, s=new_shape).cpu().numpy()
        del group
