"""Small movies with a strong signal, made once; houses to run the command in."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.facility.command import House
from vitriflow.simulate import MovieSpec, SessionReport, SessionSpec, simulate_session

DIAMETER_A = 120.0
QUICK = """\
name: quick
nodes:
  motion: {step: motion.native, inputs: {movie: exposure.movie}, set: {patches_y: 0, patches_x: 0}}
  preview: {step: preview, inputs: {micrograph: motion.micrograph}}
"""
LIGHT = """\
name: light
nodes:
  look: {step: debug.noop, inputs: {movie: exposure.movie}}
"""
# Strong contrast at a high dose: rings and particles show in a movie that takes a second
STRONG = MovieSpec(
    shape=(512, 512),
    n_frames=8,
    pixel_size_A=1.5,
    voltage_kV=200.0,
    dose_per_frame_e_per_A2=3.0,
    contrast=4.0,
    ice_noise=2.0,
    n_views=8,
    particle_diameter_A=DIAMETER_A,
)


@dataclass(frozen=True)
class Played:
    """A simulated session on disk."""

    report: SessionReport

    @property
    def source(self) -> Path:
        """The folder that the microscope wrote."""
        return self.report.microscope

    @property
    def gain(self) -> Path:
        return self.report.gain

    @property
    def settings(self) -> tuple[str, ...]:
        """What a person has to say on the command line."""
        return ("--set", f"particle_diameter_A={DIAMETER_A}", "--set", f"gain_reference={self.gain}")

    @property
    def light(self) -> tuple[str, ...]:
        """Settings for tests of how exposures come in and are counted: a step that leaves the movie alone.

        A worker that needs no numeric library is there in a third of the time.
        """
        template = self.gain.parent.parent / "light.yaml"
        template.write_text(LIGHT, encoding="utf-8")
        return ("--template", str(template))

    @property
    def quick(self) -> tuple[str, ...]:
        """Settings for tests to which it's all the same what is done: motion correction and pictures only."""
        template = self.gain.parent.parent / "quick.yaml"
        template.write_text(QUICK, encoding="utf-8")
        return ("--template", str(template), "--set", f"gain_reference={self.gain}")


def play(out: Path, **wanted: object) -> Played:
    """Let the simulator write a session at once."""
    values: dict[str, object] = {
        "exposures": 2,
        "format": "mrc",
        "movie": STRONG,
        "defocus_A": (15000.0, 20000.0),
    }
    return Played(simulate_session(SessionSpec.model_validate(values | wanted), out))


@pytest.fixture(scope="session")
def six(tmp_path_factory: pytest.TempPathFactory) -> Played:
    """Six sound EPU movies, for copying from."""
    return play(tmp_path_factory.mktemp("six"), exposures=6, unique=3)


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path / "house")


@pytest.fixture
def copied(six: Played, tmp_path: Path) -> Callable[[int], Played]:
    """Give a fresh microscope's folder with so many of the six movies."""

    def copy(number: int) -> Played:
        source = tmp_path / "tem1" / "session"
        movies = {written.movie for written in six.report.movies[number:]}
        shutil.copytree(
            six.source,
            source,
            ignore=lambda folder, names: [name for name in names if _is_of(Path(folder) / name, movies)],
        )
        gain = source / six.gain.relative_to(six.source)
        return Played(SessionReport(source, six.report.truth, gain, six.report.movies[:number]))

    return copy


def _is_of(path: Path, movies: set[Path]) -> bool:
    """Whether a file is one of these movies, or beside one."""
    return any(
        path.parent == movie.parent and path.stem.startswith(movie.stem.removesuffix("_Fractions"))
        for movie in movies
    )
