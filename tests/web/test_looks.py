"""Every page at two widths, dark and light: nothing overlaps, is empty or cut off, and everybody can use it."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.routing import APIRoute
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Page
from sqlalchemy import insert, select, update

from tests.web.conftest import fill, running
from tests.web.factory import World, make_world
from tests.web.looks import barriers, faults
from tests.web.people import PASSWORD, Facility, csrf, populate, quick_hash
from tests.web.test_browser import browser
from vitriflow.catalog import (
    Alarm,
    Catalog,
    Experiment,
    Measure,
    Processing,
    Sample,
    SessionState,
    now,
    upgrade,
)
from vitriflow.config import load_config
from vitriflow.elogbook.people import add_person
from vitriflow.pipeline import load_template
from vitriflow.web import create_app
from vitriflow.web.auth import all_routes

__all__ = ["browser"]  # a fixture
pytestmark = [pytest.mark.service, pytest.mark.slow]

AXE = Path(__file__).parent / "vendor" / "axe.min.js"
#: Where screenshots are kept, for people who want to look at them.
KEPT = os.environ.get("VITRIFLOW_SCREENSHOTS", "")
SIZES = {"laptop": (1280, 800), "wall": (3840, 2160)}


@dataclass(frozen=True)
class Look:
    """A page, who looks at it, and what shows that it's ready."""

    name: str
    path: str
    who: str = "ada"
    ready: str = ""
    status: int = 200


LOOKS = [
    Look("sign-in", "/sign-in", who=""),
    Look("sessions", "/"),
    Look("sessions-none", "/", who="nora"),
    Look("session", "/sessions/{key}?processing=live", ready="#session[data-drawn]"),
    Look("session-researcher", "/sessions/{key}?processing=live", who="rita", ready="#session[data-drawn]"),
    Look("session-empty", "/sessions/empty", ready="#session[data-drawn]"),
    Look("exposure", "/sessions/{key}/exposures/{done}?processing=live", ready="#exposure[data-drawn]"),
    Look(
        "exposure-set-aside", "/sessions/{key}/exposures/{bad}?processing=live", ready="#exposure[data-drawn]"
    ),
    Look("exposure-open", "/sessions/{key}/exposures/{open}?processing=live", ready="#exposure[data-drawn]"),
    Look("report", "/sessions/{key}/report"),
    Look("reprocess", "/sessions/{key}/reprocess"),
    Look("graph", "/sessions/{key}/graph?processing=live"),
    Look("compare", "/sessions/{key}/compare?first=live&second=narrow"),
    Look("access", "/sessions/{key}/access"),
    Look("wall", "/wall"),
    Look("alarms", "/alarms"),
    Look("experiments", "/experiments"),
    Look("experiment", "/experiments/C123"),
    Look("new-sample", "/experiments/C123/new-sample"),
    Look("sample", "/experiments/C123/samples/apoferritin"),
    Look("members", "/experiments/C123/people"),
    Look("people", "/people"),
    Look("me", "/me"),
    Look("audit", "/audit"),
    Look("error-403", "/people", who="rita", status=403),
    Look("error-404", "/nowhere", status=404),
    Look("error-422", "/?offset=much", status=422),
    Look("error-500", "/breaks", status=500),
]


def _populate(world: World) -> None:
    """What a facility has after a while: alarms, a second processing, limits of nothing, an empty experiment."""
    template = load_template("single-particle").text
    common = {"subject": "tem1", "severity": "alarm", "raised_at": now()}
    told = [
        {"to": "ops", "change": "raised", "sent": True, "tries": 1},
        {"to": "chat", "change": "raised", "sent": False, "tries": 3, "why": "refused"},
    ]

    def work(orm: Any) -> None:
        orm.add(
            Alarm(
                rule="rule:motion_rising", text="Motion rose from 8 to 23 A since 14:10", told=told, **common
            )
        )
        orm.add(Alarm(rule="silence", text="No new file for 12 minutes", cleared_at=now(), told=[], **common))
        settings = {"particle_diameter_A": 150.0, "voltage_kV": 300.0, "pixel_size_A": 0.93}
        orm.execute(update(Processing).values(template=template, parameters=settings))
        orm.execute(update(Sample).where(Sample.name == "apoferritin").values(settings=settings))
        first = orm.get_one(Processing, world.processing_id)
        narrow = {**settings, "particle_diameter_A": 120.0}
        told_of = {"session_id": world.session_id, "root": first.root, "change": first.change}
        second = Processing(name="narrow", template=template, parameters=narrow, created_at=now(), **told_of)
        orm.add(second)
        orm.flush()
        own = ("processing_id", "total_A")
        columns = [one.name for one in Measure.__table__.columns if one.name not in own]
        mine = select(Measure.__table__).where(Measure.processing_id == world.processing_id)
        rows = [{name: row[name] for name in columns} for row in orm.execute(mine).mappings()]
        moved = [{**row, "processing_id": second.id, "total_A": 9.0 + row["exposure_id"] % 5} for row in rows]
        orm.execute(insert(Measure), moved)
        orm.add(Experiment(name="B7", title="", created_at=now()))
        add_person(orm, "nora", name="Nora Newcomer", password_hash=quick_hash(PASSWORD))

    world.catalog.write(work)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Facility]:
    folder = tmp_path_factory.mktemp("looks")
    (folder / "tem1" / "grid_a").mkdir(parents=True)
    (folder / "data").mkdir()
    (folder / "facility.toml").write_text(
        f'[storage]\nroot = "data"\n[microscopes.tem1]\nsources = ["{folder}/tem1"]\n'
        f'[microscopes.tem2]\nsources = ["{folder}/tem2"]\n[notices.to.ops]\nurl = "json://localhost/"\n',
        encoding="utf-8",
    )
    config = load_config(folder / "facility.toml")
    catalog = Catalog(config.catalog_url)
    upgrade(catalog)
    world = make_world(folder, catalog=catalog)
    fill(world)
    for _ in range(14):
        world.add()
    world.add(full=True)
    make_world(folder, "empty", catalog=catalog, sample="empty grid", processing=False)
    make_world(folder, "closed", catalog=catalog, sample="ribosome", state=SessionState.CLOSED).add()
    _populate(world)
    app = create_app(
        config.catalog_url, title="Test facility", config=config, poll_s=0.2, scan_interval_s=1.0
    )
    app.add_api_route("/breaks", lambda: 1 / 0, include_in_schema=False)
    made = Facility(world, app)
    made.tokens = populate(world)
    with running(app) as made.address:
        _write_log(made)
        yield made
        for client in made.clients.values():
            client.close()
    catalog.close()


def _write_log(house: Facility) -> None:
    ada = house.client("ada")
    form = {"csrf": csrf(ada)}
    home = "/experiments/C123"
    ada.post(f"{home}/log", data={**form, "text": "Ice is **thin** on square 102", "tags": "ice grid-2"})
    ada.post(f"{home}/boxes", data={**form, "name": "B1", "container": "puck 7", "n_grids": "4"})


@pytest.fixture(scope="module")
def contexts(house: Facility, browser: Browser) -> Iterator[dict[tuple[str, str], BrowserContext]]:
    """Browsers of people at each width, made when first asked for."""
    made: dict[tuple[str, str], BrowserContext] = {}
    yield made
    for one in made.values():
        one.close()


def opened(house: Facility, browser: Browser, contexts: Any, who: str, size: str) -> Page:
    if (who, size) not in contexts:
        width, height = SIZES[size]
        context = browser.new_context(viewport={"width": width, "height": height}, color_scheme="dark")
        if who:
            jar = house.client(who).cookies.jar
            context.add_cookies([{"name": c.name, "value": c.value or "", "url": house.address} for c in jar])
        context.new_page().set_default_timeout(120_000)
        contexts[who, size] = context
    page: Page = contexts[who, size].pages[0]
    return page


def filled(house: Facility, path: str) -> str:
    world = house.world
    names = {"key": world.key, "done": world.ids[0], "bad": world.ids[4], "open": world.ids[10]}
    return re.sub(r"\{(\w+)\}", lambda match: str(names[match[1]]), path)


def colours(picture: bytes, path: Path) -> int:
    """How many colours a screenshot has, seen from afar: a page on which nothing shows has few."""
    path.write_bytes(picture)
    small = Image.open(path).convert("RGB").resize((320, 200))
    return len(np.unique(np.asarray(small).reshape(-1, 3), axis=0))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("look", LOOKS, ids=lambda look: look.name)
def test_every_page_is_whole_and_open_to_everybody(
    house: Facility, browser: Browser, contexts: Any, tmp_path: Path, look: Look, size: str
) -> None:
    page = opened(house, browser, contexts, look.who, size)
    page.emulate_media(color_scheme="dark")
    answer = page.goto(house.address + filled(house, look.path), wait_until="load")
    assert answer is not None
    assert answer.status == look.status
    if look.ready:
        page.wait_for_selector(look.ready)
    where = Path(KEPT) if KEPT else tmp_path
    # Colours don't depend on the width, and what axe judges hardly does: both ways of them on one screen.
    for scheme in ("dark", "light") if size == "laptop" or KEPT else ("dark",):
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        # Painting all of a wall takes long in software; what could be empty stands in its upper half.
        part = {"x": 0, "y": 0, "width": SIZES[size][0], "height": min(SIZES[size][1], 1000)}
        how: Any = {"full_page": True} if KEPT else {"clip": part, "type": "jpeg"}
        picture = page.screenshot(animations="disabled", **how)
        assert colours(picture, where / f"{look.name}-{size}-{scheme}.png") > 12, f"nothing shows, {scheme}"
        if size == "laptop":
            rules = None if scheme == "dark" else ["color-contrast"]
            assert barriers(page, AXE.read_text(encoding="utf-8"), rules) == [], scheme
    assert faults(page) == []


def test_no_page_was_forgotten(house: Facility) -> None:
    visited = [filled(house, look.path).partition("?")[0] for look in LOOKS]
    for route in all_routes(house.app.routes):
        if not isinstance(route, APIRoute) or "GET" not in (route.methods or ()):
            continue
        if route.path.startswith("/api/") or "/part/" in route.path or route.path == "/metrics":
            continue
        assert any(route.path_regex.match(path) for path in visited), route.path
