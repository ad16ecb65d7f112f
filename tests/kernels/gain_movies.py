"""Sums of simulated movies that diagnoses of the gain are tried on."""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitriflow.kernels.gain_diagnosis import FrameSums, GainDiagnosis, diagnose_gain
from vitriflow.simulate import MovieSpec, simulate_movie

Array = NDArray[Any]
SPREAD = 0.04
SIDE = 512


def spec(number: int, shape: tuple[int, int] = (SIDE, SIDE), **changes: Any) -> MovieSpec:
    """One electron a pixel and frame, 16 frames, a counting camera with defects."""
    values: dict[str, Any] = {
        "shape": shape,
        "n_frames": 16,
        "dose_per_frame_e_per_A2": 1.0,
        "pixel_size_A": 1.0,
        "seed": number,
        "n_views": 4,
        "gain_spread": SPREAD,
    }
    return MovieSpec(**(values | changes))


def camera_gain(**changes: Any) -> Array:
    """The gain of the camera, without making a movie of any length."""
    return simulate_movie(spec(1, **({"n_frames": 1} | changes))).gain


def sums_of(
    n_movies: int, change: Callable[[Array, Array], Array] | None = None, first: int = 1, **changes: Any
) -> FrameSums:
    """Sums over movies; ``change(frame, gain)`` stands between the camera and the disk."""
    movies = [simulate_movie(spec(first + i, **changes)) for i in range(n_movies)]
    sums = FrameSums(movies[0].spec.shape)
    for movie in movies:
        frames = (frame if change is None else change(frame, movie.gain) for frame in movie)
        sums.add(frames, len(movie))
    return sums


@cache
def raw_sums(n_movies: int = 5) -> FrameSums:
    """Raw movies of the usual camera."""
    return sums_of(n_movies)


@cache
def corrected_sums() -> FrameSums:
    """Movies of the same camera that were corrected before they were written."""
    return sums_of(5, lambda frame, gain: frame * gain, n_frames=32)


def super_resolution_response(beat: float, side: int = SIDE) -> Array:
    """Of a camera that counts on half pixels: its pixels', each half pixel's own, and a beat of every second one."""
    rng = np.random.default_rng(17)
    pixels = np.kron(1.0 + SPREAD * rng.standard_normal((side // 2, side // 2)), np.ones((2, 2)))
    halves = 1.0 + 0.02 * rng.standard_normal((side, side))
    return (
        pixels * halves * np.tile(1.0 + beat * np.array([[1.0, -0.6], [0.2, -0.6]]), (side // 2, side // 2))
    )


@cache
def super_resolution_sums(beat: float, n_movies: int) -> FrameSums:
    """Movies of one electron a whole pixel and frame, 16 frames, without a specimen."""
    response, rng = super_resolution_response(beat), np.random.default_rng(18)
    sums = FrameSums(response.shape)
    for _ in range(n_movies):
        sums.add((rng.poisson(0.25 * response).astype(np.uint8) for _ in range(16)), 16)
    return sums


def diagnose(sums: FrameSums, gain: Array | None, **options: Any) -> GainDiagnosis:
    """What is said of a reference after these movies."""
    return diagnose_gain(sums.total, sums.n_frames, gain, parts=sums.parts, n_movies=sums.n_movies, **options)
