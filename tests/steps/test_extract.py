"""The step that cuts particles out."""

import subprocess
from pathlib import Path

import numpy as np
import pytest

from vitriflow.formats import read_particles, read_stack, write_coordinates, write_mrc, write_star
from vitriflow.steps import Artifact, Context, ExtractResult, Kind, Status, find_step, run_step

CTF = {
    "rlnDefocusU": 12000.0,
    "rlnDefocusV": 11800.0,
    "rlnDefocusAngle": 20.0,
    "rlnPhaseShift": 0.0,
    "rlnCtfMaxResolution": 4.0,
    "rlnVoltage": 300.0,
    "rlnSphericalAberration": 2.7,
    "rlnAmplitudeContrast": 0.1,
}
PICKS = [(60.0, 70.0), (150.0, 40.0), (128.0, 128.0), (3.0, 100.0)]


@pytest.fixture
def micrograph(tmp_path: Path) -> Path:
    draw = np.random.default_rng(3)
    image = draw.normal(100, 5, (256, 256)).astype(np.float32)
    y, x = np.mgrid[:256, :256]
    for at in PICKS:
        image -= 20.0 * np.exp(-((y - at[0]) ** 2 + (x - at[1]) ** 2) / 50.0)
    path = tmp_path / "m.mrc"
    write_mrc(path, image.astype(np.float32), 2.0)
    return path


def extract(
    tmp_path: Path, micrograph: Path, picks: list[tuple[float, float]], ctf: bool = True, **parameters: object
) -> ExtractResult:
    step = find_step("extract")
    yx = np.array(picks, dtype=float).reshape(-1, 2)
    write_coordinates(tmp_path / "p.star", yx, np.linspace(1, 2, len(yx)))
    write_star(tmp_path / "c.star", {"ctf": CTF})
    inputs = {
        "micrograph": Artifact(kind=Kind.MICROGRAPH, path=micrograph, pixel_size_A=2.0),
        "coordinates": Artifact(kind=Kind.COORDINATES, path=tmp_path / "p.star"),
    }
    if ctf:
        inputs["ctf"] = Artifact(kind=Kind.CTF, path=tmp_path / "c.star")
    context = Context(tmp_path / "Extract" / "job005", "m", metadata={"optics_group": 3})
    values = {"particle_diameter_A": 60.0, "box_size_px": 48, **parameters}
    record = run_step(step, inputs, step.Parameters.model_validate(values), context)
    assert isinstance(record, ExtractResult)
    return record


def test_particles_are_bright_and_carry_scores_ctf_and_optics_group(tmp_path: Path, micrograph: Path) -> None:
    record = extract(tmp_path, micrograph, PICKS, scaled_box_px=24)
    assert record.status is Status.DONE, record.reason
    assert (record.n_picks, record.n_particles, record.n_over_edge) == (4, 3, 1)
    particles = read_particles(record.outputs["particles"].path)
    stack = read_stack(particles.places()[0][1])
    assert stack.shape == (3, 24, 24)
    assert record.pixel_size_A == pytest.approx(4.0)
    assert all(image[12, 12] > 4.0 for image in stack)
    assert particles.table["rlnAutopickFigureOfMerit"].tolist() == pytest.approx(
        [1.0, 4 / 3, 5 / 3], abs=1e-4
    )
    assert particles.table["rlnDefocusU"].tolist() == [12000.0] * 3
    assert particles.optics["rlnOpticsGroup"].tolist() == [3]
    assert float(particles.optics["rlnImagePixelSize"].iloc[0]) == pytest.approx(4.0)


def test_no_picks_is_a_valid_answer(tmp_path: Path, micrograph: Path) -> None:
    record = extract(tmp_path, micrograph, [])
    assert record.status is Status.DONE
    assert record.n_particles == 0
    assert record.outputs == {}


def test_edge_score_and_contrast_say_how_many_they_left_out(tmp_path: Path, micrograph: Path) -> None:
    record = extract(
        tmp_path, micrograph, [*PICKS, (200.0, 200.0)], edge="pad", min_score=1.2, min_contrast=2.0
    )
    assert (record.n_below_score, record.n_over_edge, record.n_empty, record.n_particles) == (1, 0, 1, 3)


def test_half_floats_take_half_the_room_and_say_the_same(tmp_path: Path, micrograph: Path) -> None:
    full = extract(tmp_path, micrograph, PICKS)
    path = full.outputs["particles"].path.with_name("m_particles.mrcs")
    whole, size = read_stack(path), path.stat().st_size
    half = extract(tmp_path, micrograph, PICKS, float16=True)
    assert half.status is Status.DONE
    assert path.stat().st_size - 1024 == (size - 1024) // 2
    assert np.abs(read_stack(path) - whole).max() < 0.02


@pytest.mark.parametrize("how", ["flip", "multiply"])
def test_ctf_correction_is_written_where_relion_looks_for_it(
    tmp_path: Path, micrograph: Path, how: str
) -> None:
    record = extract(tmp_path, micrograph, PICKS, ctf_correction=how)
    optics = read_particles(record.outputs["particles"].path).optics
    assert int(optics["rlnCtfDataAreCtfPremultiplied"].iloc[0]) == (how == "multiply")
    assert int(optics["rlnCtfDataArePhaseFlipped"].iloc[0]) == (how == "flip")
    without = extract(tmp_path, micrograph, PICKS, ctf=False, ctf_correction=how)
    assert without.status is Status.QUARANTINED
    assert "Wire the ctf input" in (without.reason or "")


def test_picks_of_another_micrograph_are_refused(tmp_path: Path, micrograph: Path) -> None:
    record = extract(tmp_path, micrograph, [(500.0, 20.0)])
    assert record.status is Status.QUARANTINED
    assert record.reason_code == "pick.outside"


def test_a_box_larger_than_the_micrograph_is_refused(tmp_path: Path, micrograph: Path) -> None:
    record = extract(tmp_path, micrograph, PICKS, particle_diameter_A=500.0, box_size_px=None)
    assert record.status is Status.QUARANTINED
    assert "box_size_px" in (record.reason or "")


@pytest.mark.service
def test_relion_reads_the_particles(tmp_path: Path, micrograph: Path, relion: Path) -> None:
    record = extract(tmp_path, micrograph, PICKS)
    star = record.outputs["particles"].path
    made = subprocess.run(
        [str(relion / "relion_stack_create"), "--i", star.name, "--o", "again", "--apply_transformation"],
        cwd=star.parent,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    again = read_stack(star.parent / "again.mrcs")
    assert np.allclose(again, read_stack(star.parent / "m_particles.mrcs"), atol=1e-5)
    written = read_particles(star.parent / "again.star")
    assert written.optics["rlnOpticsGroupName"].tolist() == ["opticsGroup3"]
