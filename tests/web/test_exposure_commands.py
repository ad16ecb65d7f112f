"""What the pages do to exposures, by command and by REST: mark, limit, process again, compare, export."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import select, update
from typer.testing import CliRunner

from tests.web.conftest import client_of
from tests.web.factory import World, make_world
from vitriflow.catalog import Catalog, Processing, upgrade
from vitriflow.cli.app import app
from vitriflow.errors import BadParameter, VitriflowError
from vitriflow.facility.session_form import BadForm
from vitriflow.pipeline import load_template

OLD = {"pixel_size_A": 0.93, "voltage_kV": 300.0, "particle_diameter_A": 150.0, "fit_phase_shift": True}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[World, Path, httpx.Client]]:
    out = tmp_path_factory.mktemp("commands")
    catalog = Catalog(f"sqlite:///{out / 'catalog.db'}")
    upgrade(catalog)
    world = make_world(out, "s1", catalog=catalog)
    text = load_template("single-particle").text
    catalog.write(lambda db: db.execute(update(Processing).values(template=text, parameters=OLD)))
    for outcome in ("done", "done", "done", "rejected", "quarantined", "done"):
        world.add(outcome)
    with client_of(world) as client:
        yield world, out, client


def run(out: Path, *arguments: object, fails: type[Exception] | None = None) -> Any:
    result = CliRunner().invoke(app, [*map(str, arguments), "--out", str(out)])
    if fails is not None:
        assert isinstance(result.exception, fails), result.output
        return result.exception
    assert result.exit_code == 0, (result.output, result.exception)
    return result


def usable(client: httpx.Client) -> int:
    return int(client.get("/api/sessions/s1/counts").json()["usable"])


def processing(world: World, name: str) -> Processing:
    query = select(Processing).where(Processing.name == name)
    return world.catalog.read(lambda db: db.scalars(query).one())


def test_marks_are_made_and_taken_back_by_command(made: tuple[World, Path, httpx.Client]) -> None:
    world, out, client = made
    before = usable(client)
    one, two = world.ids[:2]
    run(out, "mark", "s1", "reject", "--only", f"id={one},{two}", "--text", "crystalline ice")
    assert usable(client) == before - 2
    marks = client.get("/api/sessions/s1/marks").json()["marks"]
    assert {(mark["kind"], mark["text"]) for mark in marks} == {("reject", "crystalline ice")}
    run(out, "mark", "s1", "undo", "--only", "mark=reject")
    assert usable(client) == before
    assert "crystalline" not in str(run(out, "mark", "s1", "keep", fails=BadParameter))
    assert "WHAT" in str(run(out, "mark", "s1", "keep", "--only", "colour=red", fails=BadParameter))
    assert "Select some" in str(run(out, "mark", "s1", "keep", "--only", "name=zzz", fails=BadParameter))
    assert "pass the other" in str(run(out, "mark", "s1", "keep", "--only", "id=99", fails=BadParameter))


def test_limits_are_set_one_by_one_and_shown(made: tuple[World, Path, httpx.Client]) -> None:
    _, out, client = made
    run(out, "limits", "s1", "--set", "fit_resolution_A=:50")
    shown = run(out, "limits", "s1", "--set", "total_A=0.5:", "--json").stdout
    assert json.loads(shown)["values"] == {"fit_resolution_A": [None, 50.0], "total_A": [0.5, None]}
    assert client.get("/api/sessions/s1/limits").json()["author"].endswith("@command")
    assert "fit_resolution_A: - to 50" in run(out, "limits", "s1").stdout
    assert "LOWEST:HIGHEST" in str(run(out, "limits", "s1", "--set", "total_A=5", fails=BadParameter))
    assert "there are no limits" in run(out, "limits", "s1", "--clear").stdout


def test_only_what_was_chosen_is_processed_again_by_command(made: tuple[World, Path, httpx.Client]) -> None:
    world, out, _ = made
    told = run(out, "reprocess", "s1", "wide", "--set", "particle_diameter_A=300", "--only", "status=done")
    assert "Began processing 'wide' of 4 exposures." in told.stderr
    row = processing(world, "wide")
    assert row.selection is not None
    assert (row.selection["n"], row.selection["words"]) == (4, "done")
    assert set(row.selection["exposures"]) == {world.ids[place] for place in (0, 1, 2, 5)}
    wrong = run(out, "reprocess", "s1", "x", "--set", "symmetry=C4", "--only", "status=done", fails=BadForm)
    assert "a processing can't change this" in str(wrong)
    none = run(out, "reprocess", "s1", "x", "--only", "status=failed", fails=BadParameter)
    assert "nothing passes this filter" in str(none)


def test_what_was_switched_on_can_be_switched_off_again(made: tuple[World, Path, httpx.Client]) -> None:
    world, out, _ = made
    note = run(out, "reprocess", "s1", "plain", "--set", "phase_plate=false", "--set", "voltage_kV=300")
    assert processing(world, "plain").parameters["fit_phase_shift"] is False
    assert "voltage_kV is 300.0 already, so that changes nothing" in note.stderr
    assert processing(world, "plain").selection is None


def test_rest_begins_one_of_a_selection_and_compares(made: tuple[World, Path, httpx.Client]) -> None:
    world, _, client = made
    form = client.get("/api/sessions/s1/processings/form").json()
    assert {"name", "value", "help"} <= form["fields"][0].keys()
    body = {
        "name": "byrest",
        "base": "live",
        "parameters": {"particle_diameter_A": 90, "voltage_kV": 300},
        "only": {"exposures": world.ids[:2], "status": "done"},
    }
    answer = client.post("/api/sessions/s1/processings", json=body)
    assert answer.status_code == 201, answer.text
    assert answer.json()["exposures"] == 2
    assert answer.json()["notes"] == ["voltage_kV is 300.0 already, so that changes nothing"]
    listed = client.get("/api/sessions/s1").json()["processings"]
    assert {one["name"]: one["selected"] for one in listed}["byrest"] == 2
    found = client.get("/api/sessions/s1/compare?first=live&second=byrest").json()
    assert {"name": "particle_diameter_A", "first": "150.0", "second": "90.0"} in found["parameters"]
    assert all(row["both"] == 0 for row in found["medians"])  # nothing of it is done yet
    for wrong in (
        {**body, "name": "w1", "only": {"status": "no-such"}},
        {**body, "name": "w2", "only": {"exposures": [10**9]}},
        {**body, "name": "w3", "parameters": {"no_such": 1}},
        {**body, "name": "../w4"},
        {**body, "name": "w5", "only": {"brush": "x"}},
    ):
        assert client.post("/api/sessions/s1/processings", json=wrong).status_code == 422, wrong
    names = {one["name"] for one in client.get("/api/sessions/s1").json()["processings"]}
    assert not names & {"w1", "w2", "w3", "w5"}


def test_the_page_offers_what_is_filtered_and_begins_just_that(
    made: tuple[World, Path, httpx.Client],
) -> None:
    world, _, client = made
    gallery = client.get("/sessions/s1/part/gallery?status=done&processing=live").text
    link = re.search(r'href="(/sessions/s1/reprocess\?[^"]+)"', gallery)
    assert link is not None
    assert "reprocess?" not in client.get("/sessions/s1/part/gallery?processing=live").text
    form = client.get(link[1].replace("&amp;", "&")).text
    assert "only 4 exposures: done" in form
    sent = dict(re.findall(r'type="hidden" name="([^"]+)" value="([^"]*)"', form))
    sent |= {"name": "frompage", "which": "selected", "particle_diameter_A": "200"}
    begun = client.post("/sessions/s1/reprocess", data=sent)
    assert begun.status_code == 303, begun.text
    assert (processing(world, "frompage").selection or {})["n"] == 4
    shown = client.get(begun.headers["location"]).text
    assert "is for 4 exposures only: done" in shown
    assert "began processing &#39;frompage&#39;" in shown
    everything = client.post("/sessions/s1/reprocess", data=sent | {"name": "every", "which": "all"})
    assert everything.status_code == 303
    assert processing(world, "every").selection is None


def test_an_export_without_results_says_so_by_command_and_by_rest(
    made: tuple[World, Path, httpx.Client],
) -> None:
    _, out, client = made  # these results have no files of a RELION project
    found = client.get("/api/sessions/s1/micrographs?processing=live&which=all")
    assert found.status_code == 422
    assert "micrographs to export" in found.text
    assert client.get("/api/sessions/s1/micrographs?which=some").status_code == 422
    run(out, "export", "s1", "--processing", "live", fails=BadParameter)


def test_compare_says_it_in_a_table_and_in_json(made: tuple[World, Path, httpx.Client]) -> None:
    _, out, _ = made
    run(out, "reprocess", "s1", "second", "--set", "particle_diameter_A=80")
    found = json.loads(run(out, "compare", "s1", "live", "second", "--json").stdout)
    assert found["parameters"] == [{"name": "particle_diameter_A", "first": "150.0", "second": "80.0"}]
    assert "Fit resolution" in run(out, "compare", "s1", "live", "live").stdout


def test_with_one_processing_there_is_nothing_to_compare(tmp_path: Path) -> None:
    catalog = Catalog(f"sqlite:///{tmp_path / 'catalog.db'}")
    upgrade(catalog)
    make_world(tmp_path, "s1", catalog=catalog)
    catalog.close()
    assert "only 'live'" in str(run(tmp_path, "compare", "s1", fails=VitriflowError))


def test_a_misspelt_parameter_is_told_the_nearest(made: tuple[World, Path, httpx.Client]) -> None:
    _, out, _ = made
    wrong = run(out, "reprocess", "s1", "x", "--set", "particle_diametre_A=90", fails=BadForm)
    assert "did you mean particle_diameter_A?" in str(wrong)
