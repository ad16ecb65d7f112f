"""``vitriflow run FOLDER --once``: what each microscope writes becomes results, counts and a RELION project."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from tests.facility.command import House
from tests.facility.conftest import STRONG, Played, play
from vitriflow.facility.judging import compare, load_truth
from vitriflow.formats import read_star
from vitriflow.simulate import MovieSpec

pytestmark = pytest.mark.slow
NODES = ("ctf", "motion", "pick", "preview")
INT16 = STRONG.model_copy(update={"dtype": "int16"})
KINDS: dict[str, dict[str, Any]] = {
    "epu-mrc": {"layout": "epu", "format": "mrc"},
    "epu-eer": {"layout": "epu", "format": "eer", "eer_frames_per_fraction": 10},
    "serialem-tiff": {"layout": "serialem", "format": "tiff-lzw"},
    "tomo5-mrc-int16": {"layout": "tomo5", "format": "mrc", "tilts": 3, "movie": INT16},
}


@dataclass(frozen=True)
class Finished:
    """A session that was played and processed."""

    kind: str
    played: Played
    house: House
    truths: dict[str, Path]
    terminal: str


@pytest.fixture(scope="module", params=KINDS)
def finished(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    folder = tmp_path_factory.mktemp(request.param)
    played = play(folder, **KINDS[request.param])
    house = House(folder / "house")
    more = ("--set", "eer_frames_per_fraction=10") if "eer" in request.param else ()
    done = house.vitriflow("run", played.source, "--once", *played.settings, *more)
    truths = {str(w.movie.relative_to(played.source)): w.truth for w in played.report.movies}
    return Finished(request.param, played, house, truths, done.stderr)


def test_every_movie_gets_every_result_and_counts_reconcile(finished: Finished) -> None:
    counts = finished.house.counts()
    assert counts.reconciles
    assert counts.exposures.came_in == counts.exposures.done == len(finished.truths)
    assert counts.arriving == counts.set_aside == 0
    expected = sorted((key, node) for key in finished.truths for node in NODES)
    assert finished.house.results() == expected


def test_results_agree_with_what_was_simulated(finished: Finished) -> None:
    motion, ctf, picks = (finished.house.records(node) for node in ("motion", "ctf", "pick"))
    for key, path in finished.truths.items():
        found = compare(key, load_truth(path), motion[key], ctf[key], picks[key])
        assert found.failures() == []
        assert ctf[key]["quality"] == "good"


def test_pixel_size_voltage_and_dose_come_from_the_microscopes_files(finished: Finished) -> None:
    spec: MovieSpec = KINDS[finished.kind].get("movie", STRONG)
    for record in finished.house.records("motion").values():
        provenance = record["provenance"]
        sources, used = provenance["parameter_sources"], provenance["parameters"]
        assert sources["voltage_kV"] == sources["pixel_size_A"] == "file"
        assert used["voltage_kV"] == spec.voltage_kV
        assert used["pixel_size_A"] == pytest.approx(spec.pixel_size_A, rel=1e-3)
        assert record["pixel_size_A"] == pytest.approx(spec.pixel_size_A, rel=1e-3)
        assert record["dose_per_frame_e_per_A2"] == pytest.approx(spec.dose_per_frame_e_per_A2, rel=0.01)
        assert record["dose_weighted"]
        assert sources["gain_reference"] == "set"
        assert sources["patches_y"] == "default"
    for record in finished.house.records("ctf").values():
        provenance = record["provenance"]
        assert provenance["parameters"]["voltage_kV"] == spec.voltage_kV
        assert provenance["parameter_sources"]["voltage_kV"] == "file"


def test_the_exposure_remembers_the_cameras_file_by_its_hash(finished: Finished) -> None:
    for key, row in finished.house.exposures().items():
        content = (finished.played.source / key).read_bytes()
        assert row.size == len(content)
        assert row.blake3 == blake3(content).hexdigest()


def test_the_processing_folder_is_a_relion_project(finished: Finished) -> None:
    project = finished.house.project
    assert (project / "default_pipeline.star").is_file()
    (job,) = (project / "CtfFind").iterdir()
    star = read_star(job / "micrographs_ctf.star")
    optics, micrographs = star["optics"], star["micrographs"]
    assert len(micrographs) == len(finished.truths)
    assert {float(value) for value in optics["rlnVoltage"]} == {STRONG.voltage_kV}
    for name in micrographs["rlnMicrographName"]:
        assert (project / name).is_file()
    ctf = finished.house.records("ctf")
    defocus = sorted(float(value) for value in micrographs["rlnDefocusU"])
    assert defocus == pytest.approx(sorted(record["defocus_u_A"] for record in ctf.values()), abs=1.0)


def test_the_session_is_closed_and_says_so_on_disk(finished: Finished) -> None:
    session = finished.house.session()
    record = json.loads((Path(session.root) / "session.json").read_text(encoding="utf-8"))
    assert session.state == record["state"] == "closed"
    assert session.closed_at is not None
    assert (Path(session.root) / "raw").resolve() == finished.played.source.resolve()


def test_the_terminal_names_the_session_and_counts_what_is_done(finished: Finished) -> None:
    assert finished.house.session().key in finished.terminal
    assert f"{len(finished.truths)} done" in finished.terminal.splitlines()[-1]


def test_no_half_written_file_is_left(finished: Finished) -> None:
    project = finished.house.project
    marks = {".gui_projectdir", ".pipeline_has_changed"}
    assert [p for p in project.rglob(".*") if p.name not in marks] == []


def test_the_microscopes_folder_is_only_read(finished: Finished) -> None:
    written = {w.movie for w in finished.played.report.movies}
    there = {
        p for p in finished.played.source.rglob("*") if p.suffix in {".mrc", ".tif", ".eer"} and p in written
    }
    assert there == written
    assert not [p for p in finished.played.source.rglob("*") if p.suffix in {".star", ".jpg.tmp", ".json"}]


def test_another_run_finds_nothing_to_do(finished: Finished) -> None:
    before = finished.house.records("motion")
    finished.house.vitriflow("run", finished.played.source, "--once")
    assert finished.house.records("motion") == before
    assert finished.house.counts().exposures.done == len(finished.truths)
