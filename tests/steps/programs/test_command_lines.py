"""Each program sees exactly the command line that it should, and what it writes becomes our record."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.steps.programs.case_list import CASES
from tests.steps.programs.cases import Case, Made
from tests.steps.programs.made import shifts_of
from tests.steps.programs.standin import StandIn
from vitriflow.formats import read_coordinates, read_star
from vitriflow.steps import (
    Class2DResult,
    CtfResult,
    ExtractResult,
    MotionResult,
    PickResult,
    Status,
    Volume3DResult,
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.step)
def test_a_program_gets_its_exact_command_and_leaves_our_record(
    case: Case, made: Made, stand_in: Callable[..., StandIn], tmp_path: Path
) -> None:
    program = stand_in(case, made)
    record = case.run(made, tmp_path / "out")
    assert (record.status, record.reason) == (Status.DONE, None)
    assert program.calls == case.command(made)
    assert program.environment == "as told"
    if case.answers:
        assert tuple(program.answers) == case.answers
    assert record.program is not None
    said = (case.version or case.says).split("\n")[-1 if case.step == "motion.unblur" else 0]
    assert any(word.strip("v") in record.program for word in said.replace("_v", " ").split()) or not said
    assert record.outputs
    assert all(artifact.path.is_file() for artifact in record.outputs.values())
    assert not list((tmp_path / "out").rglob("*.work")), "the working folder is gone"
    assert list((tmp_path / "out").rglob(f"*_{case.program}.log")), "its log is kept"
    assert record.provenance is not None
    assert any(line.startswith("ran ") for line in record.provenance.log)
    _check_numbers(record, made)


def _check_numbers(record: object, made: Made) -> None:
    if isinstance(record, MotionResult):
        assert np.allclose(record.frame_shifts_A, shifts_of())
        assert record.total_A == pytest.approx(7 * 5**0.5)
        assert record.early_A == pytest.approx(1 * 5**0.5)  # frame 2 ends at 3 e/A^2, frame 3 past 4
        assert (record.dose_weighted, record.pixel_size_A) == (True, 1.0)
        star = read_star(record.outputs["motion"].path)
        assert np.allclose(star["global_shift"]["rlnMicrographShiftX"], shifts_of()[:, 1])
        assert star["general"]["rlnMicrographMovieName"] == str(made.movie)
    elif isinstance(record, CtfResult):
        assert abs(record.defocus_u_A - 12000) < 50
        assert record.quality == "good"
        assert float(read_star(record.outputs["ctf"].path)["ctf"]["rlnDefocusU"]) == record.defocus_u_A
    elif isinstance(record, PickResult):
        assert record.n_picks == len(made.picks_yx)
        yx, _ = read_coordinates(record.outputs["coordinates"].path)
        assert np.abs(np.sort(yx, axis=0) - np.sort(made.picks_yx, axis=0)).max() <= 1.0
    elif isinstance(record, ExtractResult):
        assert (record.n_particles, record.box_size_px, record.pixel_size_A) == (len(made.picks_yx), 32, 4.0)
    elif isinstance(record, Class2DResult):
        assert [(one.class_id, one.n_particles) for one in record.classes] == [(1, 6), (2, 2)]
    else:
        assert isinstance(record, Volume3DResult)
        assert record.resolution_A == 12.5
        assert record.n_particles == 8


def test_a_ctf_that_explains_nothing_is_refused(
    made: Made, stand_in: Callable[..., StandIn], tmp_path: Path
) -> None:
    case = next(case for case in CASES if case.step == "ctf.ctffind4")
    wrong = made.file(
        "wrong.txt", case.files(made)["diagnostic.txt"].read_text().replace("12010 11590", "31000 30500")
    )
    stand_in(case, made, files={"diagnostic.txt": wrong})
    record = case.run(made, tmp_path / "out")
    assert record.status is Status.QUARANTINED
    assert record.reason_code == "ctf.doubtful"
    assert "ctf" not in record.outputs
    assert record.program == "CTFFIND 4 4.1.14"


def test_real_files_of_ctffind_are_read_and_their_nonsense_refused(
    real_data: Path, stand_in: Callable[..., StandIn], made: Made, tmp_path: Path
) -> None:
    case = next(case for case in CASES if case.step == "ctf.ctffind4")
    results = sorted((real_data / "empiar-10204-relion5" / "CtfFind").glob("*_PS.txt"))
    assert results
    stand_in(case, made, files={"diagnostic.txt": results[0]})
    record = case.run(made, tmp_path / "out")
    assert record.status is Status.QUARANTINED
    assert record.reason_code == "ctf.doubtful"
