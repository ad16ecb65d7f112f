"""CTF results of other programs: read as they stand, refused where they can't be read."""

import contextlib
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitriflow.errors import BadFile, Reason
from vitriflow.formats import describe, read_avrot, read_ctf_results, write_star

HEADER = (
    "# Output from CTFFind version 4.1.14, run on 2024-08-30 16:05:30\n"
    "# Input file: Movies/exposure_7_PS.mrc ; Number of micrographs: 1\n"
    "# Pixel size: 1.400 Angstroms ; acceleration voltage: 200.0 keV ; spherical aberration: 1.40 mm ; "
    "amplitude contrast: 0.10\n"
    "# Box size: 512 pixels ; min. res.: 30.0 Angstroms ; max. res.: 5.0 Angstroms ; min. def.: 5000.0 um; "
    "max. def. 50000.0 um\n"
    "# Columns: #1 - micrograph number; #2 - defocus 1 [Angstroms]; #3 - defocus 2; #4 - azimuth of "
    "astigmatism; #5 - additional phase shift [radians]; #6 - cross correlation; #7 - spacing (in Angstroms) "
    "up to which CTF rings were fit successfully\n"
)
RIGHT = "1.000000 10123.7 9808.5 75.41 0.000000 0.198 3.20\n"
WRONG = "1.000000 41496.8 40021.4 -17.46 0.000000 0.0460 7.62\n"


def text(folder: Path, row: str, header: str = HEADER, name: str = "exposure_7_PS.txt") -> Path:
    path = folder / name
    path.write_text(header + row)
    return path


def test_a_ctffind_file_is_read_with_the_optics_that_it_was_told(tmp_path: Path) -> None:
    (ctf,) = read_ctf_results(text(tmp_path, RIGHT))
    assert (ctf.name, ctf.defocus_u_A, ctf.defocus_v_A, ctf.angle_deg) == (
        "exposure_7_PS",
        10123.7,
        9808.5,
        75.41,
    )
    assert (ctf.cross_correlation, ctf.resolution_A) == (0.198, 3.20)
    assert (ctf.voltage_kV, ctf.cs_mm, ctf.amplitude_contrast, ctf.pixel_size_A) == (200.0, 1.4, 0.1, 1.4)


def test_columns_are_found_by_their_names_also_those_of_ctffind_5(tmp_path: Path) -> None:
    header = HEADER.replace(
        "rings were fit successfully",
        "rings were fit successfully; #8 - Estimated tilt axis angle; #9 - Estimated tilt angle; "
        "#10 - Estimated sample thickness (in Angstroms)",
    )
    (ctf,) = read_ctf_results(text(tmp_path, RIGHT.strip() + " 84.0 21.5 300.0\n", header))
    assert (ctf.tilt_axis_deg, ctf.tilt_deg, ctf.resolution_A) == (84.0, 21.5, 3.20)


def test_a_phase_in_radians_becomes_degrees_and_swapped_axes_are_turned(tmp_path: Path) -> None:
    (ctf,) = read_ctf_results(text(tmp_path, "1 9000 9400 80.0 1.570796 0.2 4.0\n"))
    assert ctf.phase_deg == pytest.approx(90.0, abs=1e-3)
    assert (ctf.defocus_u_A, ctf.defocus_v_A) == (9400.0, 9000.0)
    assert ctf.angle_deg == pytest.approx(-10.0)


def test_an_infinite_resolution_is_none(tmp_path: Path) -> None:
    (ctf,) = read_ctf_results(text(tmp_path, "1 9000 8400 80.0 0 0.2 inf\n"))
    assert ctf.resolution_A is None


def test_relions_star_is_read_with_its_optics_groups(tmp_path: Path) -> None:
    optics = pd.DataFrame(
        {"rlnOpticsGroup": [1, 2], "rlnVoltage": [300.0, 200.0], "rlnSphericalAberration": [2.7, 1.4]}
    )
    rows = pd.DataFrame(
        {
            "rlnMicrographName": ["MotionCorr/a.mrc", "MotionCorr/b.mrc"],
            "rlnOpticsGroup": [1, 2],
            "rlnDefocusU": [10000.0, 20000.0],
            "rlnDefocusV": [9800.0, 19500.0],
            "rlnDefocusAngle": [10.0, 100.0],
            "rlnCtfFigureOfMerit": [0.2, 0.15],
            "rlnCtfMaxResolution": [3.5, 4.0],
        }
    )
    write_star(tmp_path / "micrographs_ctf.star", {"optics": optics, "micrographs": rows})
    one, two = read_ctf_results(tmp_path / "micrographs_ctf.star")
    assert (one.name, one.voltage_kV, two.voltage_kV, two.cs_mm) == ("a", 300.0, 200.0, 1.4)
    assert two.angle_deg == pytest.approx(-80.0)
    report = describe(tmp_path / "micrographs_ctf.star")
    assert not report.problems
    assert any("CTF of 2 micrographs" in line for line in report.lines)


def test_a_folder_gives_its_results_and_passes_over_curves(tmp_path: Path) -> None:
    text(tmp_path, RIGHT)
    text(tmp_path, WRONG, name="exposure_8_PS.txt")
    text(tmp_path, "0.1 0.2\n", name="exposure_7_PS_avrot.txt")
    (tmp_path / "notes.txt").write_text("coffee at ten")
    assert len(read_ctf_results(tmp_path)) == 2


def test_a_folder_without_results_says_what_to_name(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("coffee at ten")
    with pytest.raises(BadFile, match="Name the folder that the CTF job wrote"):
        read_ctf_results(tmp_path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", Reason.EMPTY),
        (HEADER, Reason.METADATA_BROKEN),
        (HEADER + "1 nan 9000 10 0 0.2 4\n", Reason.METADATA_BROKEN),
        (HEADER + "1 9500 9000 ten 0 0.2 4\n", Reason.METADATA_BROKEN),
        (HEADER + "1 9500 9000\n", Reason.METADATA_BROKEN),
        ("defoci of last night\n1 2 3\n", Reason.METADATA_BROKEN),
        (HEADER.replace("# Columns", "# 6 lines per micrograph: Columns") + RIGHT, Reason.METADATA_BROKEN),
    ],
)
def test_what_is_no_result_is_refused_by_name(tmp_path: Path, content: str, reason: Reason) -> None:
    path = tmp_path / "x.txt"
    path.write_text(content)
    with pytest.raises(BadFile) as caught:
        read_ctf_results(path)
    assert caught.value.reason == reason
    assert str(path) in str(caught.value)


@given(st.text(max_size=300))
@settings(max_examples=60, deadline=None)
def test_any_text_is_read_or_refused_by_name(tmp_path_factory: pytest.TempPathFactory, junk: str) -> None:
    path = tmp_path_factory.mktemp("junk") / "x.txt"
    path.write_text(HEADER + junk, encoding="utf-8")
    for reader in (read_ctf_results, read_avrot):
        with contextlib.suppress(BadFile):
            reader(path)


def test_validate_calls_a_low_correlation_doubtful_in_words(tmp_path: Path) -> None:
    report = describe(text(tmp_path, WRONG))
    assert report.kind == "CTF results"
    assert "cross correlation is 0.046" in report.problems[0]
    assert not describe(text(tmp_path, RIGHT)).problems


def test_a_jump_from_the_neighbours_is_told(tmp_path: Path) -> None:
    rows = pd.DataFrame(
        {
            "rlnMicrographName": [f"m{number}.mrc" for number in range(9)],
            "rlnDefocusU": [
                10000.0 + 100 * (number % 3) + (30000.0 if number == 4 else 0.0) for number in range(9)
            ],
            "rlnDefocusV": [
                9800.0 + 100 * (number % 3) + (30000.0 if number == 4 else 0.0) for number in range(9)
            ],
            "rlnDefocusAngle": [10.0] * 9,
            "rlnCtfMaxResolution": [4.0] * 9,
        }
    )
    write_star(tmp_path / "m.star", {"micrographs": rows})
    (problem,) = describe(tmp_path / "m.star").problems
    assert "m4 is doubtful" in problem
    assert "neighbours" in problem


def test_real_ctffind_files_are_read_and_all_of_them_called_doubtful(real_data: Path) -> None:
    folder = real_data / "empiar-10204-relion5" / "CtfFind"
    results = read_ctf_results(folder)
    assert len(results) == 12
    assert {ctf.voltage_kV for ctf in results} == {200.0}
    for path in sorted(folder.glob("*_PS.txt")):
        assert any("doubtful" in problem for problem in describe(path).problems), path
    curves = read_avrot(next(folder.glob("*_avrot.txt")))
    assert len(curves.fit) == len(curves.spatial_frequency_per_A) > 300
