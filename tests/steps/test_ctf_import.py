"""The step ctf.import: other programs' numbers, believed only where the spectrum bears them out."""

import csv
from pathlib import Path
from typing import Any

import pytest
from benchmarks.ctf_checks import PIXEL_A, Drawn, draw_spectrum, write_as_ctffind

from tests.formats.test_ctffind import HEADER
from vitriflow.formats import read_star, write_mrc
from vitriflow.steps.base import Context
from vitriflow.steps.ctf_import import CtfImportParameters
from vitriflow.steps.records import Artifact, CtfResult, Kind, Status
from vitriflow.steps.registry import find_step
from vitriflow.steps.running import run_step

TRUTH = Drawn(11000.0, 400.0, 30.0, voltage_kV=200.0, cs_mm=1.4, seed=3)


def imported(
    path: Path, out: Path, item: str, metadata: dict[str, Any] | None = None, **values: Any
) -> CtfResult:
    record = run_step(
        find_step("ctf.import"),
        {"power_spectrum": Artifact(kind=Kind.POWER_SPECTRUM, path=path)},
        CtfImportParameters(**values),
        Context(out, item, metadata=metadata or {}),
    )
    assert isinstance(record, CtfResult)
    return record


@pytest.fixture(scope="module")
def spectrum(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("drawn") / "exposure_7_PS.mrc"
    write_mrc(path, draw_spectrum(TRUTH).numpy().astype("float32"), PIXEL_A)
    return path


def result(folder: Path, row: str) -> Path:
    path = folder / "exposure_7_PS.txt"
    path.write_text(HEADER + row)
    return path


def test_right_numbers_are_good_and_written_as_they_are(tmp_path: Path, spectrum: Path) -> None:
    given = result(tmp_path, "1 11210 10805 29 0 0.21 3.4\n")
    record = imported(spectrum, tmp_path / "out", "exposure_7", results=given)
    assert (record.status, record.quality, record.warnings) == (Status.DONE, "good", [])
    assert (record.defocus_u_A, record.defocus_v_A, record.defocus_angle_deg) == (11210, 10805, 29)
    row = read_star(record.outputs["ctf"].path)["ctf"]
    assert float(row["rlnVoltage"]) == 200.0
    assert record.outputs["diagnostic"].path.is_file()


def test_right_numbers_stay_good_where_the_program_itself_was_in_doubt(
    tmp_path: Path, spectrum: Path
) -> None:
    given = result(tmp_path, "1 11210 10805 29 0 0.05 9.0\n")
    record = imported(spectrum, tmp_path / "out", "exposure_7", results=given)
    assert record.quality == "good"
    assert "bears the imported CTF out, though its own cross correlation" in record.warnings[0]


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ("1 43000 42000 29 0 0.30 3.4\n", "off our own good fit"),
        ("1 11210 10805 -60 0 0.30 3.4\n", "the two agree to"),
        ("1 11800 11400 29 0 0.30 3.4\n", "the two agree to"),
    ],
)
def test_wrong_numbers_are_doubtful_however_sure_the_program_was(
    tmp_path: Path, spectrum: Path, row: str, why: str
) -> None:
    record = imported(spectrum, tmp_path / "out", "exposure_7", results=result(tmp_path, row))
    assert (record.status, record.quality) == (Status.DONE, "doubtful")
    assert why in record.warnings[0]


def test_numbers_for_a_spectrum_without_rings_are_quarantined(tmp_path: Path) -> None:
    path = tmp_path / "exposure_7_PS.mrc"
    write_mrc(path, draw_spectrum(Drawn(11000, 0, 0, ssnr=0.0)).numpy().astype("float32"), PIXEL_A)
    record = imported(
        path, tmp_path / "out", "exposure_7", results=result(tmp_path, "1 11210 10805 29 0 0.3 4\n")
    )
    assert (record.status, record.quality) == (Status.QUARANTINED, "no rings")
    assert "no rings that could bear out" in str(record.reason)
    assert "ctf" not in record.outputs


def test_optics_that_the_microscope_contradicts_are_told(tmp_path: Path, spectrum: Path) -> None:
    given = result(tmp_path, "1 11210 10805 29 0 0.21 3.4\n")
    record = imported(spectrum, tmp_path / "out", "exposure_7", {"voltage_kV": 300.0}, results=given)
    assert any("was told voltage_kV 200, here it's 300" in warning for warning in record.warnings)
    assert record.quality == "doubtful"


def test_a_result_of_another_micrograph_is_not_taken(tmp_path: Path, spectrum: Path) -> None:
    for number in (1, 2):
        (tmp_path / f"other_{number}.txt").write_text(
            HEADER.replace("exposure_7", f"other_{number}") + "1 11210 10805 29 0 0.2 4\n"
        )
    record = imported(spectrum, tmp_path / "out", "exposure_7", results=tmp_path)
    assert record.status is Status.QUARANTINED
    assert "one result for exposure_7" in str(record.reason)


def test_real_wrong_results_are_doubtful_and_the_reference_in_their_format_is_good(
    tmp_path: Path, real_data: Path
) -> None:
    """Four of the twelve; the benchmark imports all."""
    folder = real_data / "empiar-10204-relion5"
    with (folder / "ctf_reference.csv").open() as file:
        rows = list(csv.DictReader(file))
    template = folder / "CtfFind" / "20170629_00021_frameImage_PS.txt"
    for row in rows:
        write_as_ctffind(template, row, tmp_path)
    for row in rows[::3]:
        path = folder / "MotionCorr" / f"{row['micrograph']}_frameImage_PS.mrc"
        wrong = imported(path, tmp_path / "w", path.stem, results=folder / "CtfFind")
        right = imported(path, tmp_path / "r", path.stem, results=tmp_path)
        assert (wrong.quality, right.quality) == ("doubtful", "good"), (row, right.warnings)
        assert "doubtful" in wrong.warnings[0]
        assert "cross correlation is 0.0" in wrong.warnings[0]
