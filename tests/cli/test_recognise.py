"""``vitriflow recognise`` as a newcomer types it."""

from pathlib import Path

import orjson
import pytest
from typer.testing import CliRunner

from vitriflow.cli.app import app
from vitriflow.errors import BadParameter

FIELDS = {
    "path",
    "kind",
    "software",
    "exposure",
    "tilt_series",
    "grid_square",
    "foil_hole",
    "metadata",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    names = [
        "Images-Disc1/GridSquare_7/Data/FoilHole_1_Data_2_3_20250108_154915_EER.eer",
        "Images-Disc1/GridSquare_7/Data/FoilHole_1_Data_2_3_20250108_154915.xml",
        "Images-Disc1/GridSquare_7/Data/FoilHole_1_Data_2_9_20250108_154955_EER.eer",
        "Position_1_001_-3.00_20250715_012434_EER.eer",
        "Position_1_002_3.00_20250715_012434_EER.eer",
        *(f"notes {n:02d}.docx" for n in range(30)),
    ]
    for name in names:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path


def states(folder: Path) -> dict[str, tuple[int, int, int]]:
    found = {}
    for path in folder.rglob("*"):
        state = path.stat()
        found[str(path)] = (state.st_size, state.st_mtime_ns, state.st_ctime_ns)
    return found


def test_it_says_in_words_what_there_is_and_touches_nothing(folder: Path) -> None:
    before = states(folder)
    done = CliRunner().invoke(app, ["recognise", str(folder)])
    assert done.exit_code == 0, done.output
    for words in (
        "4  movies (epu 2, tomo5 2)",
        "4  exposures",
        "2  optics groups by name",
        "Position_1: 2 movies, -3 to 3 degrees",
        "7: 1 foil holes, 2 exposures",
        "No recogniser claims these 30:",
        "notes 19.docx",
        "and 10 more",
    ):
        assert words in done.output
    assert states(folder) == before


def test_json_is_an_array_with_an_object_for_each_file(folder: Path) -> None:
    done = CliRunner().invoke(app, ["recognise", str(folder), "--json"])
    entries = orjson.loads(done.stdout)
    assert len(entries) == 35
    assert all(set(entry) == FIELDS for entry in entries)
    assert [entry["path"] for entry in entries] == sorted(entry["path"] for entry in entries)


def test_an_empty_folder_says_so(tmp_path: Path) -> None:
    assert "no file here" in CliRunner().invoke(app, ["recognise", str(tmp_path)]).output
    assert orjson.loads(CliRunner().invoke(app, ["recognise", str(tmp_path), "--json"]).stdout) == []


def test_a_folder_that_isnt_there_is_an_error(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["recognise", str(tmp_path / "none")])
    assert isinstance(done.exception, BadParameter)
    assert "nothing there" in str(done.exception)
