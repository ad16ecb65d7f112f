"""A session is processed again from its page, with changed parameters, and compared with before."""

from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import Browser
from sqlalchemy import select, update

from tests.web.conftest import client_of
from tests.web.factory import World, make_world
from tests.web.people import csrf
from tests.web.test_browser import browser, tab
from tests.web.test_logbook_pages import overlaps
from vitriflow.catalog import Event, Measure, Processing
from vitriflow.pipeline import load_template, plan_of

__all__ = ["browser"]  # a fixture


@pytest.fixture(scope="module")
def processed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[World, httpx.Client]]:
    world = make_world(tmp_path_factory.mktemp("again"))
    text = load_template("single-particle").text
    old = {"pixel_size_A": 0.93, "voltage_kV": 300.0, "particle_diameter_A": 150.0}
    world.catalog.write(lambda db: db.execute(update(Processing).values(template=text, parameters=old)))
    for _ in range(6):
        world.add()
    with client_of(world) as client:
        yield world, client


def names(world: World) -> list[str]:
    return world.catalog.read(lambda db: list(db.scalars(select(Processing.name).order_by(Processing.id))))


def send(client: httpx.Client, world: World, **fields: str) -> httpx.Response:
    data = {"csrf": csrf(client, "/"), "base": "live", **fields}
    return client.post(f"/sessions/{world.key}/reprocess", data=data)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"name": "b", "particle_diameter_A": "wide"}, "valid number"),
        ({"name": "b", "particle_diameter_A": "150"}, "Change at least one"),
        ({"name": "b"}, "Change at least one"),
        ({"name": "live", "particle_diameter_A": "90"}, "doesn&#39;t have yet"),
        ({"name": "../up", "particle_diameter_A": "90"}, "name of the processing"),
        ({"name": "b", "no_such": "1"}, "no step of it reads"),
        ({"name": "b", "base": "gone", "particle_diameter_A": "90"}, "gone"),
    ],
)
def test_what_makes_no_sense_begins_nothing(
    processed: tuple[World, httpx.Client], fields: dict[str, str], said: str
) -> None:
    world, client = processed
    answer = send(client, world, **fields)
    assert answer.status_code in (404, 422)
    assert said in answer.text
    assert names(world) == ["live"]


def test_the_form_begins_a_processing_beside_the_first_and_they_are_compared(
    processed: tuple[World, httpx.Client],
) -> None:
    world, client = processed
    page = client.get(f"/sessions/{world.key}/reprocess").text
    assert 'name="particle_diameter_A" value="" placeholder="150.0"' in page
    answer = send(client, world, name="narrow", particle_diameter_A="90")
    assert answer.status_code == 303, answer.text
    made = world.catalog.read(
        lambda db: db.scalars(select(Processing).where(Processing.name == "narrow")).one()
    )
    assert made.parameters["voltage_kV"] == 300.0  # what wasn't changed stays
    assert made.root == str(world.root / "processed" / "narrow")
    plan = plan_of(world.catalog, made.id)
    assert {node.parameters.particle_diameter_A for node in plan.nodes if node.name.startswith("pick")} == {
        90.0
    }
    events = world.catalog.read(lambda db: list(db.scalars(select(Event.text))))
    assert "local began processing 'narrow', like 'live' but for particle_diameter_A = 90.0" in events

    def finish(db) -> None:
        for row in db.scalars(select(Measure).where(Measure.processing_id == world.processing_id)).all():
            values = {column: getattr(row, column) for column in Measure.__mapper__.columns.keys()}  # noqa: SIM118
            values |= {"processing_id": made.id, "n_picks": row.n_picks + 7}
            db.add(Measure(**values))
        db.execute(update(Processing).where(Processing.id == made.id).values(change=99))

    world.catalog.write(finish)
    shown = client.get(answer.headers["location"] + "&quantity=n_picks").text
    assert "<td>+7</td><td>6</td>" in shown.replace("\n", "")
    assert "<td>150.0</td><td>90.0</td>" in shown
    assert shown.count("<circle") == 6 + shown.count('<circle cx="16"')
    assert client.get(f"/sessions/{world.key}/compare?first=live&second=nonsense").status_code == 404


def test_the_processing_service_takes_it_up(processed: tuple[World, httpx.Client]) -> None:
    from vitriflow.config import Config
    from vitriflow.facility.service.process import ProcessService

    world, client = processed
    if "later" not in names(world):
        assert send(client, world, name="later", particle_diameter_A="70").status_code == 303
    service = ProcessService(Config(), world.catalog)
    wanted = world.catalog.read(service._wanted)
    assert "later" in [name for _, name, _ in wanted]


@pytest.mark.service
@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 3840])
def test_form_and_comparison_have_nothing_lie_over_anything(
    browser: Browser, processed: tuple[World, httpx.Client], width: int
) -> None:
    world, client = processed
    with tab(browser, str(client.base_url), width, 900) as opened:
        for path in ("reprocess", "compare?first=live&quantity=n_picks"):
            opened.go(f"/sessions/{world.key}/{path}")
            assert overlaps(opened.page) == []
            assert opened.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        opened.complaints.clear()
