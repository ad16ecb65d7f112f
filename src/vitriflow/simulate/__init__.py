"""A microscope that isn't there."""

from vitriflow.simulate.motion import Motion
from vitriflow.simulate.movie import SimulatedMovie, Truth, simulate_movie
from vitriflow.simulate.spec import MotionSpec, MovieSpec

__all__ = ["Motion", "MotionSpec", "MovieSpec", "SimulatedMovie", "Truth", "simulate_movie"]
