"""The facility wall: what runs where, alarms that are acknowledged, services and disks."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.web.conftest import client_for, fill, running
from tests.web.factory import make_world
from tests.web.test_logbook_pages import overlaps
from vitriflow.catalog import Alarm, Node, now
from vitriflow.config import load_config
from vitriflow.web import create_app


@pytest.fixture
def app(tmp_path: Path) -> Any:
    world = make_world(tmp_path)
    fill(world)
    (tmp_path / "facility.toml").write_text(
        f'[storage]\nroot = "{tmp_path}"\n[microscopes.tem1]\nsources = ["{tmp_path}"]\n[microscopes.tem2]\n'
        f'sources = ["{tmp_path}/not-mounted"]\n',
        encoding="utf-8",
    )

    def work(orm: Any) -> None:
        for text, scope in (("No new file for 20 min", "tem1"), ("The storage will be full in 3 h", None)):
            orm.add(
                Alarm(
                    rule="x", subject=text[:9], microscope=scope, severity="alarm", text=text, raised_at=now()
                )
            )
        for name, ago in (("a:acquire", 1), ("b:process", 900)):
            seen = now() - timedelta(seconds=ago)
            orm.add(
                Node(name=name, service=name[2:], started_at=seen, seen_at=seen, details={"host": name[0]})
            )

    world.catalog.write(work)
    return create_app(world.url(), config=load_config(tmp_path / "facility.toml"), poll_s=0.2)


def test_every_microscope_stands_there_with_what_it_works_on(app: Any) -> None:
    with client_for(app) as client:
        wall = client.get("/api/wall").json()
    first, second = wall["microscopes"]
    assert (first["name"], second["name"], second["session"]) == ("tem1", "tem2", None)
    session = first["session"]
    counts = session["counts"]
    assert session["state"] == "active"
    assert counts["total"] == session["done"] + session["backlog"] + session["set_aside"]
    assert first["level"] == "poor"
    assert [one["text"] for one in first["alarms"]] == ["No new file for 20 min"]
    assert [one["text"] for one in wall["alarms"]] == ["The storage will be full in 3 h"]
    assert {one["service"]: one["alive"] for one in wall["nodes"]} == {"acquire": True, "process": False}
    assert {one["name"]: one["known"] for one in wall["disks"]} == {
        "storage": True,
        "tem1": True,
        "tem2": False,
    }


def test_an_alarm_is_acknowledged_once_and_stays_until_it_is_over(app: Any) -> None:
    with client_for(app) as client:
        number = client.get("/api/wall").json()["alarms"][0]["id"]
        assert client.post(f"/api/alarms/{number}/acknowledge").status_code == 200
        again = client.get("/api/wall").json()["alarms"][0]
        assert again["acknowledged_by"] == "local"
        assert client.post("/api/alarms/999999/acknowledge").status_code == 404


@pytest.mark.service
def test_the_wall_is_readable_on_a_desk_and_across_a_room(app: Any, chromium: str, tmp_path: Path) -> None:
    from playwright.sync_api import sync_playwright

    with running(app) as address, sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for width, height in ((1280, 800), (3840, 2160)):
            page = browser.new_page(viewport={"width": width, "height": height})
            page.set_default_timeout(60_000)
            page.goto(f"{address}/wall")
            page.get_by_text("doesn't answer").wait_for()
            page.screenshot(path=tmp_path / f"wall-{width}.png")
            assert overlaps(page) == []
            size = page.locator(".scope h2").first.evaluate("e => parseFloat(getComputedStyle(e).fontSize)")
            assert size >= 0.014 * width
            page.close()
        page = browser.new_page()
        page.goto(f"{address}/wall")
        page.get_by_role("button", name="Seen").first.click()
        page.get_by_text("seen by local").first.wait_for()
        browser.close()


def test_the_wall_of_a_server_without_configuration_shows_what_the_catalog_knows(tmp_path: Path) -> None:
    world = make_world(tmp_path)
    with client_for(create_app(world.url())) as client:
        wall = client.get("/api/wall").json()
        assert [one["name"] for one in wall["microscopes"]] == ["tem1"]
        assert wall["disks"] == []
        page: httpx.Response = client.get("/wall")
        assert "tem1" in page.text
