"""Whatever goes wrong with a program has a name, and says what to do."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.steps.programs.case_list import CASES
from tests.steps.programs.cases import Case, Made
from tests.steps.programs.standin import StandIn
from vitriflow.steps import Status

LICENCE = "ERROR: the license has expired on 2020-01-01"
# What happens, how the stand-in is told so, and the code that it leaves
FAULTS: dict[str, tuple[Callable[[Case, Made], dict[str, Any]], set[str]]] = {
    "licence": (lambda case, made: {"says": LICENCE, "files": {}, "code": 3}, {"program.licence"}),
    "licence, exit 0": (lambda case, made: {"says": LICENCE, "files": {}}, {"program.licence"}),
    "exit status": (lambda case, made: {"says": "cannot do it", "code": 9}, {"program.failed"}),
    "memory": (lambda case, made: {"says": "CUDA error: out of memory", "code": 1}, {"worker.out_of_memory"}),
    "no output": (lambda case, made: {"files": {}}, {"program.no_output"}),
    "empty output": (
        lambda case, made: {"files": dict.fromkeys(case.files(made))},
        {"program.empty_output"},
    ),
    "nonsense": (
        lambda case, made: {
            "files": case.nonsense(made),
            "says": case.says if case.nonsense_says is None else case.nonsense_says,
        },
        {"program.nonsense", "metadata.broken", "motion.shift_bounds", "pick.outside", "file.wrong_size"},
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.step)
def test_a_fault_has_its_name(
    case: Case, fault: str, made: Made, stand_in: Callable[..., StandIn], tmp_path: Path
) -> None:
    told, codes = FAULTS[fault]
    stand_in(case, made, **told(case, made))
    _expect(case, made, tmp_path / "out", codes)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.step)
def test_a_program_that_hangs_is_killed(
    case: Case, made: Made, stand_in: Callable[..., StandIn], tmp_path: Path
) -> None:
    stand_in(case, made, hang=True)
    _expect(case, made, tmp_path / "out", {"program.hung"}, time_limit_s=0.2)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.step)
def test_a_missing_program_is_said_with_the_line_to_write(
    case: Case, made: Made, configure: Callable[[str], Path], tmp_path: Path
) -> None:
    configure(f"[programs]\n{case.program} = '/nowhere/{case.executable}'\n")
    text = _expect(case, made, tmp_path / "out", {"program.missing"})
    assert f"[programs] {case.program} =" in text


@pytest.mark.parametrize("case", [case for case in CASES if case.old], ids=lambda case: case.step)
def test_a_version_that_was_never_tried_is_refused_unless_the_facility_says_so(
    case: Case, made: Made, stand_in: Callable[..., StandIn], configure: Callable[[str], Path], tmp_path: Path
) -> None:
    asked = case.version_arguments != ("never asked",)
    old = {"version": case.old} if asked else {"says": f"{case.old}\n{case.says.partition(chr(10))[2]}"}
    program = stand_in(case, made, **old)
    text = _expect(case, made, tmp_path / "out", {"program.version"})
    assert "any_version = true" in text
    configure(f"[programs.{case.program}]\npath = {str(program.path)!r}\nany_version = true\n")
    assert case.run(made, tmp_path / "out").status is Status.DONE


def _expect(case: Case, made: Made, out: Path, codes: set[str], **more: Any) -> str:
    record = case.run(made, out, **more)
    assert record.status is Status.QUARANTINED, record.reason
    assert record.reason_code in codes, record.reason
    assert record.reason is not None
    assert "expected" in record.reason
    assert "found" in record.reason
    assert not record.outputs
    left = {path.suffix for path in out.rglob("*") if path.is_file()}
    assert left <= {".log"}, "nothing half-done is left"
    assert not list(out.rglob("*.work"))
    return record.reason
