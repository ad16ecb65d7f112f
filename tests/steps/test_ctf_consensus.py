"""The step that makes one CTF of several."""

from pathlib import Path

import pytest

from vitriflow.formats import read_star, write_star
from vitriflow.steps import Artifact, Context, CtfConsensusResult, Kind, Status, find_step, run_step


def consensus(tmp_path: Path, *defocus: float | None, **parameters: float) -> CtfConsensusResult:
    step = find_step("ctf.consensus")
    inputs = {}
    for number, mean in enumerate(defocus, 1):
        if mean is None:
            continue
        path = tmp_path / f"{number}.star"
        values = {
            "rlnDefocusU": mean + 50.0,
            "rlnDefocusV": mean - 50.0,
            "rlnDefocusAngle": 10.0,
            "rlnPhaseShift": 0.0,
            "rlnCtfMaxResolution": 4.0 + number,
            "rlnVoltage": 300.0,
            "rlnSphericalAberration": 2.7,
            "rlnAmplitudeContrast": 0.1,
        }
        write_star(path, {"ctf": values})
        inputs[f"ctf_{number}"] = Artifact(kind=Kind.CTF, path=path)
    record = run_step(
        step, inputs, step.Parameters.model_validate(parameters), Context(tmp_path / "out", "m")
    )
    assert isinstance(record, CtfConsensusResult)
    return record


def test_estimates_that_agree_are_averaged(tmp_path: Path) -> None:
    record = consensus(tmp_path, 12000, 12100)
    assert record.status is Status.DONE
    assert (record.n_estimates, record.n_agreeing) == (2, 2)
    assert record.defocus_u_A == pytest.approx(12100.0)
    assert record.agreement_A == pytest.approx(1.98, abs=0.01)
    written = read_star(record.outputs["ctf"].path)["ctf"]
    assert float(written["rlnDefocusV"]) == pytest.approx(12000.0)
    assert float(written["rlnCtfMaxResolution"]) == 6.0  # the worse of both


def test_the_odd_one_of_three_is_named_and_left_out(tmp_path: Path) -> None:
    record = consensus(tmp_path, 12000, 40000, 12100)
    assert record.status is Status.DONE
    assert record.apart == ["ctf_2"]
    assert record.defocus_u_A == pytest.approx(12100.0)


def test_two_that_disagree_are_set_aside_with_both_numbers(tmp_path: Path) -> None:
    record = consensus(tmp_path, 12000, 40000)
    assert record.status is Status.QUARANTINED
    assert record.reason_code == "ctf.doubtful"
    assert "12050" in (record.reason or "")
    assert "40050" in (record.reason or "")
    assert record.outputs == {}


def test_one_is_handed_on_alone_where_the_other_failed(tmp_path: Path) -> None:
    record = consensus(tmp_path, None, 12000)
    assert record.status is Status.DONE
    assert record.quality == "doubtful"
    assert any("only one" in text for text in record.warnings)
    strict = consensus(tmp_path, None, 12000, min_agreeing=2)
    assert strict.status is Status.QUARANTINED


def test_none_at_all_and_a_broken_file_are_told(tmp_path: Path) -> None:
    assert consensus(tmp_path, None, None).status is Status.QUARANTINED
    step = find_step("ctf.consensus")
    good = consensus(tmp_path, 12000)
    (tmp_path / "bad.star").write_text("data_other\n\n_rlnX 1\n")
    inputs = {
        "ctf_1": Artifact(kind=Kind.CTF, path=tmp_path / "bad.star"),
        "ctf_2": good.outputs["ctf"],
        "ctf_3": Artifact(kind=Kind.CTF, path=tmp_path / "gone.star"),
    }
    record = run_step(step, inputs, step.Parameters(), Context(tmp_path / "out2", "m"))
    assert record.status is Status.DONE, record.reason
    assert len([text for text in record.warnings if "can't be used" in text]) == 2
