"""Simulated movies with known motion, made once and shared by the motion tests."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitriflow.kernels import MotionField
from vitriflow.simulate import MotionSpec, MovieSpec, simulate_movie


@dataclass(frozen=True)
class Case:
    """A movie in memory, its gain reference, and what is true of it."""

    frames: NDArray[Any]
    gain: NDArray[np.float32]
    truth: MotionField
    spec: MovieSpec

    @property
    def shape(self) -> tuple[int, int]:
        return self.frames.shape[1], self.frames.shape[2]


@lru_cache(maxsize=6)
def movie(
    side: int = 1024,
    n_frames: int = 12,
    seed: int = 1,
    dose: float = 1.2,
    doming_A: float = 3.0,
    star: Path | None = None,
    **more: Any,
) -> Case:
    """Simulate a movie; the same arguments give the same one without work."""
    motion = MotionSpec(doming_A=doming_A, relion_star=star)
    shape = more.pop("shape", (side, side))
    spec = MovieSpec(
        shape=shape, n_frames=n_frames, seed=seed, dose_per_frame_e_per_A2=dose, motion=motion, **more
    )
    made = simulate_movie(spec)
    true = made.truth.motion
    coefficients = true.local_coefficients_px.copy()
    coefficients[:, :, 0] += true.global_shifts_px
    frames = np.stack(list(made))
    frames.setflags(write=False)
    return Case(frames, made.gain.copy(), MotionField(coefficients - coefficients[:1], shape), spec)


def rms_error(found: MotionField, truth: MotionField) -> NDArray[np.float64]:
    """RMS difference over frames and field, for y and x (px); both fields are zero on frame 1."""
    height, width = truth.shape
    grid = (np.arange(10) + 0.5) / 10
    y, x = np.meshgrid(grid * height, grid * width, indexing="ij")
    difference = found.at(y, x) - truth.at(y, x)
    return np.sqrt((difference**2).mean(axis=(0, 1, 2)))
