"""A parameter that turns out wrong is put right, by command and by REST; the graph shows where all stands."""

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from sqlalchemy import select, update

from tests.web.conftest import client_of
from tests.web.factory import World, make_world
from tests.web.test_exposure_commands import run
from vitriflow.catalog import Audit, Catalog, Processing, ResultRow, Task, upgrade
from vitriflow.errors import BadParameter
from vitriflow.pipeline import load_template

OLD = {"pixel_size_A": 0.93, "voltage_kV": 300.0, "particle_diameter_A": 150.0}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[World, Path, httpx.Client]]:
    out = tmp_path_factory.mktemp("corrections")
    catalog = Catalog(f"sqlite:///{out / 'catalog.db'}")
    upgrade(catalog)
    world = make_world(out, "s1", catalog=catalog)
    text = load_template("single-particle").text
    catalog.write(lambda db: db.execute(update(Processing).values(template=text, parameters=OLD)))
    for outcome in ("done", "done", "quarantined"):
        world.add(outcome)
    with client_of(world) as client:
        yield world, out, client


def revisions(world: World, node: str) -> list[int]:
    query = select(ResultRow.revision).where(ResultRow.node == node).order_by(ResultRow.revision)
    return world.catalog.read(lambda db: list(db.scalars(query)))


def test_a_correction_tells_what_it_touches_before_it_does_it(made: tuple[World, Path, httpx.Client]) -> None:
    world, out, client = made
    told = json.loads(
        run(out, "correct", "s1", "--set", "particle_diameter_A=200", "--dry-run", "--json").stdout
    )
    assert told["touched"]["redone"] == ["pick"]
    assert told["touched"]["changed"] == {"pick": {"particle_diameter_A": [150.0, 200.0]}}
    asked = {"parameters": {"voltage_kV": 200}, "dry_run": True}
    touched = client.post("/api/sessions/s1/corrections", json=asked).json()["touched"]
    assert touched["redone"][0] == "motion", "the dose weights hang on the voltage"
    assert touched["kept"] == []
    assert world.catalog.read(lambda db: db.scalars(select(Processing)).one().parameters) == OLD
    run(out, "correct", "s1", "--set", "nonsense=1", "--yes", fails=BadParameter)
    run(out, "correct", "s2", "--set", "voltage_kV=200", "--yes", fails=BadParameter)
    assert (
        client.post("/api/sessions/s1/corrections", json={"parameters": {"nonsense": 1}}).status_code == 422
    )
    assert client.post("/api/sessions/s1/corrections", json={}).status_code == 422


def test_a_correction_redoes_just_what_hangs_on_it_and_is_in_the_records(
    made: tuple[World, Path, httpx.Client],
) -> None:
    world, out, client = made
    before = revisions(world, "motion")
    done = client.post("/api/sessions/s1/corrections", json={"parameters": {"particle_diameter_A": 200}})
    assert done.status_code == 202
    assert done.json()["carried_out"] is True
    assert revisions(world, "motion") == before
    assert set(revisions(world, "pick")) == {-1}, "the old picks stay readable"
    query = select(Task.state).where(Task.node == "pick", Task.revision == 1)
    assert set(world.catalog.read(lambda db: list(db.scalars(query)))) <= {"ready", "stopped"}
    run(out, "correct", "s1", "--from", "ctf", "--yes")
    assert set(revisions(world, "ctf")) == {-2}
    audits = select(Audit.action).where(Audit.action == "processing.correct")
    assert len(world.catalog.read(lambda db: list(db.scalars(audits)))) == 2


def test_the_graph_has_every_node_with_its_counts(made: tuple[World, Path, httpx.Client]) -> None:
    _, _, client = made
    graph = client.get("/api/sessions/s1/graph").json()
    nodes = {node["name"]: node for node in graph["nodes"]}
    assert list(nodes) == ["exposure", "motion", "ctf", "pick", "preview"]
    assert nodes["exposure"]["counts"]["came_in"] == 3
    assert nodes["motion"]["column"] < nodes["ctf"]["column"]
    assert {"from": "motion", "to": "pick", "port": "micrograph", "kind": "micrograph"} in graph["edges"]
    assert client.get("/api/sessions/none/graph").status_code == 404


def test_a_verdict_needs_a_gate(made: tuple[World, Path, httpx.Client]) -> None:
    world, _, client = made
    body = {"gate": "ctf", "exposures": [world.ids[0]], "accept": True}
    answer = client.post("/api/sessions/s1/verdicts", json=body)
    assert answer.status_code == 422
    assert "gate" in answer.text


def test_the_pipeline_is_drawn_with_every_node_and_its_counts(made: tuple[World, Path, httpx.Client]) -> None:
    _, _, client = made
    page = client.get("/sessions/s1/graph").text
    for node in ("exposure", "motion", "ctf", "pick", "preview"):
        assert f'data-node="{node}"' in page
    part = client.get("/sessions/s1/part/graph?processing=live").text
    assert part.startswith("<svg")
    assert part.count("<path") == 6, "one line for each input"
    assert client.get("/sessions/s1/part/graph?processing=none").status_code == 404
    assert "/sessions/s1/graph?processing=" in client.get("/sessions/s1").text
