"""``describe`` and ``vitriflow validate``: what a file is and what is wrong with it, in words."""

import json
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from vitriflow.cli.validate import validate
from vitriflow.formats import describe, write_mrc, write_star, write_tiff_movie

app = typer.Typer()
app.command()(validate)


def test_movies_are_told_by_kind_size_and_values(whole: dict[str, Path]) -> None:
    found = describe(whole["mrc"])
    assert (found.kind, found.format, found.problems) == ("movie", "mrc", [])
    assert found.lines[0] == "MRC movie of 5 frames, 32 x 24 (width x height), values int16"
    assert "pixel size 1.1 A" in found.lines
    assert describe(whole["eer"]).lines[1].startswith("12 raw frames")
    assert describe(whole["tif"]).format == "tiff"


def test_a_growing_movie_is_a_problem_that_says_how_far_it_is(whole: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "a.mrc").write_bytes(whole["mrc"].read_bytes()[:-100])
    (problem,) = describe(tmp_path / "a.mrc").problems
    assert problem == (
        "holds 4.9 of the 5 frames that its header announces (or still being written) [file.truncated]"
    )


def test_constant_and_broken_values_are_problems(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).normal(size=(3, 8, 8)).astype(np.float32)
    frames[0] = 0
    frames[2, 1, 1] = np.nan
    write_mrc(tmp_path / "a.mrc", frames, 1.0)
    assert describe(tmp_path / "a.mrc").problems == [
        "frame 1 is 0 everywhere",
        "frame 3 holds values that aren't finite numbers",
    ]


def test_infinities_of_both_signs_are_a_problem_not_a_warning(tmp_path: Path) -> None:
    frames = np.ones((1, 8, 8), np.float32)
    frames[0, 0, :2] = np.inf, -np.inf
    write_mrc(tmp_path / "a.mrc", frames, 1.0)
    assert describe(tmp_path / "a.mrc").problems == ["its only frame holds values that aren't finite numbers"]


def test_gain_references_star_and_defects_are_known(tmp_path: Path) -> None:
    import pandas as pd

    gain = np.ones((8, 10), np.float32)
    gain[3, 3] = 0
    write_mrc(tmp_path / "gain_ref.mrc", gain, None)
    found = describe(tmp_path / "gain_ref.mrc")
    assert found.kind == "gain reference"
    assert "1 pixels are zero: defects" in found.lines
    write_star(tmp_path / "a.star", {"movies": pd.DataFrame({"rlnMicrographMovieName": ["a", "b"]})})
    assert describe(tmp_path / "a.star").lines == ["data_movies: a table of 2 rows: rlnMicrographMovieName"]
    (tmp_path / "d.txt").write_text("CameraSizeX 10\nBadRows 3\n")
    assert describe(tmp_path / "d.txt").kind == "defect list"
    (tmp_path / "e.txt").write_text("1 2 3 4\n5 6 7 8\n")
    assert describe(tmp_path / "e.txt").kind == "defect list"
    (tmp_path / "f.txt").write_text("shopping list\n")
    assert describe(tmp_path / "f.txt").problems


def test_a_gain_of_negative_numbers_is_a_problem(tmp_path: Path) -> None:
    write_mrc(tmp_path / "my_gain.mrc", np.linspace(-1, 1, 80, dtype=np.float32).reshape(8, 10), None)
    assert "40 negative pixels" in describe(tmp_path / "my_gain.mrc").problems[0]


def test_metadata_are_told_with_units(real_data: Path) -> None:
    folder = real_data / "epu-afis-session/Images-Disc1/GridSquare_5324661/Data"
    found = describe(folder / "FoilHole_5330589_Data_5338216_5338218_20200206_172047.xml")
    assert found.kind == "EPU metadata"
    assert "dose 30.42 e/A^2" in found.lines[0]
    assert "asked for a defocus of 22500 A" in found.lines[0]
    found = describe(real_data / "mdoc/mdocfile-tilt_series.mdoc")
    assert found.lines[0] == "mdoc of a tilt series by SerialEM, 41 sections"
    assert "tilts from -60.0 to 60.0 degrees" in found.lines


def test_everything_real_is_found_good(real_data: Path) -> None:
    relion5 = real_data / "empiar-10204-relion5"
    files = [
        *sorted((real_data / "mdoc").glob("*.mdoc")),
        *sorted((relion5 / "MotionCorr").glob("*_PS.mrc"))[:2],
        *sorted((relion5 / "AutoPick").glob("*.star"))[:2],
        *sorted((relion5 / "Extract").rglob("*.mrcs"))[:1],
        *sorted((real_data / "apoferritin-autocryopicker/micrographs").glob("*.png"))[:1],
        *sorted((real_data / "empiar-10017-jpeg").rglob("*.jpg"))[:1],
    ]
    assert len(files) == 11
    assert {str(path): describe(path).problems for path in files} == {str(path): [] for path in files}


def test_a_missing_file_is_a_problem_not_a_traceback(tmp_path: Path) -> None:
    assert "[file.vanished]" in describe(tmp_path / "gone.tif").problems[0]


def test_the_command_tells_each_file_and_fails_when_one_is_bad(
    tmp_path: Path, whole: dict[str, Path]
) -> None:
    bad = tmp_path / "cut é.mrc"
    bad.write_bytes(whole["mrc"].read_bytes()[:2000])
    done = CliRunner().invoke(app, [str(whole["mrc"]), str(bad)])
    assert done.exit_code == 1
    assert f"{whole['mrc']}: movie (mrc), good" in done.output
    assert f"{bad}: movie (mrc), not good" in done.output
    assert "! holds 0.6 of the 5 frames" in done.output
    assert CliRunner().invoke(app, [str(whole["mrc"])]).exit_code == 0


def test_the_command_prints_one_json_array(whole: dict[str, Path]) -> None:
    done = CliRunner().invoke(app, ["--json", str(whole["tif"]), str(whole["eer"])])
    assert done.exit_code == 0
    records = json.loads(done.stdout)
    assert [record["format"] for record in records] == ["tiff", "eer"]
    assert records[0]["problems"] == []


@pytest.mark.parametrize("pixel_size", [None, 0.5])
def test_a_pixel_size_that_is_not_said_is_called_so(tmp_path: Path, pixel_size: float | None) -> None:
    write_tiff_movie(tmp_path / "a.tif", np.eye(8, dtype=np.uint8)[None], "none", pixel_size)
    expected = "pixel size 0.5 A" if pixel_size else "pixel size not said"
    assert expected in describe(tmp_path / "a.tif").lines
