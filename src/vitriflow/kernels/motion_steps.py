"""Which frames are aligned as one, and how coarsely: what bounds memory and time, however long the movie."""

import numpy as np
from numpy.typing import NDArray

from vitriflow.kernels.motion_field import N_TERMS, MotionField

__all__ = ["all_frames", "centres", "choose_pool", "in_steps"]

_POOLED_BUDGET = 320 * 1024**2
_MOST_POOLED = 8
_MOST_ALIGNED = 160  # of more frames neighbours are aligned as one

Steps = list[NDArray[np.int64]]


def in_steps(live: NDArray[np.int64], shape: tuple[int, int]) -> Steps:
    """Numbers of the frames that are aligned as one: each by itself, unless there are too many for memory."""
    smallest = 4 * max(1, shape[0] // _MOST_POOLED) * max(1, shape[1] // _MOST_POOLED)
    most = max(2, min(_MOST_ALIGNED, _POOLED_BUDGET // smallest))
    together = -(-len(live) // most)
    return [live[i : i + together] for i in range(0, len(live), together)]


def choose_pool(shape: tuple[int, int], n_frames: int) -> int:
    """Pixels to pool to a side: as few as memory and time allow, since detail helps to align."""
    pool = 1
    while n_frames * (shape[0] // pool) * (shape[1] // pool) * 4 > _POOLED_BUDGET and pool < _MOST_POOLED:
        pool += 1
    return pool


def centres(steps: Steps) -> NDArray[np.float64]:
    """Number of the frame, not whole, that stands for each step."""
    return np.array([numbers.mean() for numbers in steps], dtype=np.float64)


def all_frames(found: MotionField, steps: Steps, n_frames: int) -> MotionField:
    """The field for all frames: between those that were aligned by interpolation."""
    if len(steps) == n_frames:
        return found
    middles, numbers = centres(steps), np.arange(n_frames, dtype=np.float64)
    flat = found.coefficients.reshape(len(steps), -1)
    every = np.stack([np.interp(numbers, middles, column) for column in flat.T], axis=1)
    if len(steps[0]) > 1 and len(steps) > 1:  # half a step at either end: go on as fast as next to it
        for outside, near, far in ((numbers < middles[0], 0, 1), (numbers > middles[-1], -1, -2)):
            velocity = (flat[near] - flat[far]) / (middles[near] - middles[far])
            every[outside] = flat[near] + (numbers[outside, None] - middles[near]) * velocity
    coefficients = every.reshape(n_frames, 2, N_TERMS)
    return MotionField(coefficients - coefficients[:1], found.shape)
