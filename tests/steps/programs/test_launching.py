"""A program is started without a shell, and never outlives its time."""

from pathlib import Path

import pytest

from tests.facility.command import until
from tests.steps.programs.standin import StandIn
from vitriflow.errors import ProgramError, Reason
from vitriflow.steps.programs.launching import launch, wrapped
from vitriflow.steps.programs.tools import Tool, explain_exit


def test_arguments_reach_it_untouched_by_any_shell(tmp_path: Path) -> None:
    program = StandIn(tmp_path).tell()
    odd = ["a b", "$(touch oops)", "; rm -rf x", "*", "ü", ""]
    done = launch([str(program.path), *odd], tmp_path, tmp_path / "log")
    assert done.code == 0
    assert program.calls == [odd]
    assert not (tmp_path / "oops").exists()


def test_its_children_die_with_it_also_those_of_another_session(tmp_path: Path) -> None:
    program = StandIn(tmp_path).tell(hang=True, says="thinking")
    with pytest.raises(ProgramError) as caught:
        launch([str(program.path)], tmp_path, tmp_path / "log", time_limit_s=3.0, name="Thinker")
    assert caught.value.reason is Reason.PROGRAM_HUNG
    assert "thinking" in str(caught.value)
    child = int(program.child.read_text())
    until(lambda: _gone(child))


def _gone(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_modules_and_a_wrapper_stand_before_it_as_arguments(tmp_path: Path) -> None:
    words = wrapped(["x", "a b"], ["apptainer", "exec", "im age.sif"], ["relion/3.1"])
    assert words[:3] == ["bash", "-l", "-c"]
    assert words[4:] == ["vitriflow", "1", "relion/3.1", "apptainer", "exec", "im age.sif", "x", "a b"]
    assert wrapped(["x"], [], []) == ["x"]
    # Where 'module' fails, or there's none, that's what is said
    done = launch(wrapped(["true"], [], ["no-such/module"]), tmp_path, tmp_path / "log", time_limit_s=60)
    error = explain_exit(Tool("x", "X", ("x",)), done.code, done.text)
    assert error.reason is Reason.PROGRAM_MISSING
    assert "module" in str(error)


def test_a_signal_is_told_as_one() -> None:
    error = explain_exit(Tool("x", "X", ("x",)), -11, "Segmentation fault")
    assert error.reason is Reason.PROGRAM_FAILED
    assert "signal 11" in str(error)
