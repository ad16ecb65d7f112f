"""Inputs made once, and a stand-in that facility.toml names as the program."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.steps.programs.cases import Case, Made, make_all
from tests.steps.programs.standin import StandIn


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make_all(tmp_path_factory.mktemp("made"))


@pytest.fixture
def configure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Write the facility.toml that this process uses."""

    def write(text: str) -> Path:
        path = tmp_path / "facility.toml"
        path.write_text(text)
        monkeypatch.setenv("VITRIFLOW_CONFIG", str(path))
        return path

    return write


@pytest.fixture
def stand_in(tmp_path: Path, configure: Callable[[str], Path]) -> Callable[..., StandIn]:
    """The program of a case, well-behaved unless told otherwise."""

    def make(case: Case, made: Made, **told: object) -> StandIn:
        program = StandIn(tmp_path / "bin", case.executable)
        says = {"says": case.says, "files": case.files(made), "version": case.version}
        program.tell(**{"version_arguments": case.version_arguments, **says, **told})
        if case.step == "refine3d.relion":
            mpi = StandIn(tmp_path / "bin", "relion_refine_mpi")
            mpi.tell(**{**says, "version_arguments": ("never",), **told})
        configure(
            f"[programs.{case.program}]\npath = {str(program.path)!r}\nenvironment = {{STAND_IN = 'as told'}}\n"
        )
        return program

    return make
