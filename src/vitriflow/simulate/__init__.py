"""A microscope that isn't there: movies with known truth, and sessions that play in real time."""

from vitriflow.simulate.motion import Motion
from vitriflow.simulate.movie import SimulatedMovie, Truth, simulate_movie
from vitriflow.simulate.particles import SimulatedParticles, simulate_particles
from vitriflow.simulate.plan import Exposure, Fault, FileFormat, LayoutName, SessionSpec, plan_session
from vitriflow.simulate.session import SessionReport, Written, simulate_session
from vitriflow.simulate.spec import MotionSpec, MovieSpec

__all__ = [
    "Exposure",
    "Fault",
    "FileFormat",
    "LayoutName",
    "Motion",
    "MotionSpec",
    "MovieSpec",
    "SessionReport",
    "SessionSpec",
    "SimulatedMovie",
    "SimulatedParticles",
    "Truth",
    "Written",
    "plan_session",
    "simulate_movie",
    "simulate_particles",
    "simulate_session",
]
