"""The report of a session: its numbers reconcile, it needs nothing but itself, and nobody's text is markup in it."""

import os
import re
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson
import pytest
from sqlalchemy import select

from tests.databases import new_sqlite
from tests.web.conftest import OUTCOMES
from tests.web.factory import World, make_world
from vitriflow.catalog import (
    Alarm,
    Event,
    Limits,
    LogEntry,
    Mark,
    OpticsGroup,
    Sample,
    Session,
    SessionState,
    now,
)
from vitriflow.config import Config
from vitriflow.errors import BadConfig, BadParameter
from vitriflow.facility.report import make_report, write_report
from vitriflow.facility.report_keeper import ReportKeeper
from vitriflow.facility.report_pictures import as_data

EVIL = "<img src=https://evil.example/x onerror=alert(1)><script>document.title='owned'</script>{{ 7 * 7 }}"


def make(folder: Path, **names: Any) -> World:
    catalog = new_sqlite(folder / "catalog.db")
    world = make_world(folder, catalog=catalog, **names)
    start = now() - timedelta(minutes=40)
    for number, outcome in enumerate(OUTCOMES):
        world.add(
            outcome,
            quality="doubtful" if number == 12 else "good",
            complete_at=start + timedelta(minutes=number),
        )

    def work(orm: Any) -> None:
        session = orm.get_one(Session, world.session_id)
        session.settings = {
            **session.settings, "voltage_kV": 300.0, "nominal_magnification": 105000, "n_frames": 40,
            "target_defocus_min_A": 8000, "target_defocus_max_A": 18000,
        }  # fmt: skip
        sample = orm.get_one(Sample, session.sample_id)
        common = {"session_id": world.session_id, "at": now()}
        orm.add(
            LogEntry(
                experiment_id=sample.experiment_id, author="olga", text=f"Changed the grid {EVIL}", **common
            )
        )
        orm.add(Event(severity="info", text="Gain check on 8 movies: the gain reference fits", **common))
        orm.add(
            Alarm(
                rule="silence", subject="x", session_id=world.session_id, severity="alarm",
                text="No new file for 31 min", raised_at=now(),
            )
        )  # fmt: skip
        orm.add(OpticsGroup(session_id=world.session_id, number=1, name="g1", basis="beam_shift"))
        first, *_ = world.ids
        mark = {"session_id": world.session_id, "author": "rita", "at": now()}
        orm.add(Mark(exposure_id=first, kind="reject", **mark))
        orm.add(
            Limits(
                processing_id=world.processing_id, values={"defocus_A": [8000, None]}, author="carl", at=now()
            )
        )

    world.catalog.write(work)
    return world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make(tmp_path_factory.mktemp("report"), sample=f"apo {EVIL}")


def test_its_counts_add_up_and_are_those_of_the_page(world: World) -> None:
    from vitriflow.web.lookup import find_scene
    from vitriflow.web.site import Site
    from vitriflow.web.summary import summarise

    values = make_report(Config(), world.catalog, world.key).values
    counts = values["counts"]
    assert counts["total"] == len(OUTCOMES)
    assert counts["total"] == sum(
        counts[one] for one in ("done", "rejected", "quarantined", "failed", "open")
    )
    assert sum(one["count"] for one in values["set_aside"]) == (
        counts["rejected"] + counts["quarantined"] + counts["failed"]
    )
    assert sum(one["exposures"] for one in values["optics"]) == counts["total"]
    site = Site("x", world.catalog, None)  # type: ignore[arg-type]
    scene = world.catalog.read(lambda orm: find_scene(site, orm, world.key))
    summary = summarise(scene.session, scene.snapshot, scene.overlay)
    for name in ("total", "done", "rejected", "quarantined", "failed", "open"):
        assert counts[name] == getattr(summary.counts, name), name
    assert counts["usable"] == summary.usable < counts["done"]


def test_it_says_how_and_with_what_it_was_made(world: World) -> None:
    report = make_report(Config(), world.catalog, world.key)
    page = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", report.html))
    for said in (
        "on tem1 at 300 kV",
        "Falcon 4i camera",
        "at a nominal magnification of 105,000",
        "The planned defocus was 0.8 to 1.8 µm",
        "Beam-induced motion was corrected with motion.native (version 1)",
        "Gain check on 8 movies: the gain reference fits",
        "No new file for 31 min",
        "Changed the grid",
        "CTF out of bounds",
        "astigmatism 1,140 A is above the limit of 800 A",
        "the file ends after 7 of 40 frames",
        "beam_shift",
    ):
        assert said in page, said
    for title in ("Total motion", "Defocus", "Fit resolution", "Picks", "Throughput"):
        assert title in page
    assert report.html.count("<svg") >= 6
    assert report.html.count("data:image/jpeg;base64,") >= 4


def test_text_of_people_is_no_markup_and_no_template(world: World) -> None:
    report = make_report(Config(), world.catalog, world.key)
    assert "<script" not in report.html
    assert "<img src=https" not in report.html
    assert "{{ 7 * 7 }}" in report.html
    assert "&lt;script&gt;" in report.html


def test_a_session_without_anything_has_a_report_too(tmp_path: Path) -> None:
    world = make_world(tmp_path, processing=False)
    report = make_report(Config(), world.catalog, world.key)
    assert "No exposures came in." in report.html
    assert "Nothing was processed yet." in report.html
    with pytest.raises(BadParameter, match="none such"):
        make_report(Config(), world.catalog, "nobody's")
    with pytest.raises(BadParameter, match="one of: none yet"):
        make_report(Config(), world.catalog, world.key, "live")


def test_a_facility_changes_the_page_by_its_own_template_and_hears_what_is_wrong_with_it(
    world: World, tmp_path: Path
) -> None:
    own = tmp_path / "own.html"
    config = Config.model_validate({"reports": {"template": own, "pictures": 0}})
    own.write_text('{% extends "report.html" %}{% block foot %}Ours: {{ session.sample }}{% endblock %}')
    page = make_report(config, world.catalog, world.key).html
    assert "Ours: apo &lt;img" in page
    assert "<svg" in page
    for text, said in (
        ("{{ nothing_of_that_name }}", "undefined"),
        ("{% for %}", "line 1"),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "unsafe"),
    ):
        own.write_text(text)
        with pytest.raises(BadConfig, match=said) as caught:
            make_report(config, world.catalog, world.key)
        assert "own.html" in str(caught.value)


def test_it_is_written_whole_or_not_at_all(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = make_report(Config(), world.catalog, world.key)
    path = write_report(report, tmp_path, Config())
    assert path.read_text(encoding="utf-8") == report.html
    assert path.name == f"{world.key}.report.html"
    assert [one.name for one in tmp_path.iterdir()] == [path.name]

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    path.write_text("the one before", encoding="utf-8")
    with pytest.raises(BadParameter, match="No space left"):
        write_report(report, path, Config())
    assert path.read_text(encoding="utf-8") == "the one before"
    assert [one.name for one in tmp_path.iterdir()] == [path.name]
    monkeypatch.undo()
    with pytest.raises(BadParameter, match="No such file"):
        write_report(report, tmp_path / "no" / "folder.html", Config())


def test_a_picture_that_is_none_is_left_out(tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    assert as_data(broken) == as_data(tmp_path / "gone.png") == as_data(None) == ""


def test_it_is_written_at_close_and_of_active_sessions_on_schedule(tmp_path: Path) -> None:
    world = make(tmp_path, key="s1")
    folder = tmp_path / "www"
    config = Config.model_validate({"reports": {"publish_to": folder, "every_h": 1.0, "pictures": 0}})
    keeper = ReportKeeper(config, world.catalog)
    begun = now()
    assert keeper.look(begun + timedelta(minutes=50)) == []
    assert keeper.look(begun + timedelta(minutes=61)) == ["s1"]
    assert keeper.look(begun + timedelta(minutes=70)) == []
    assert keeper.look(begun + timedelta(minutes=125)) == ["s1"]
    path = folder / "s1.report.html"
    assert "(active)" in path.read_text(encoding="utf-8")
    closed = begun + timedelta(minutes=140)

    def close(orm: Any) -> None:
        session = orm.get_one(Session, world.session_id)
        session.state, session.closed_at = SessionState.CLOSED, closed

    world.catalog.write(close)
    assert keeper.look(closed) == ["s1"]
    assert "(closed)" in path.read_text(encoding="utf-8")
    other = ReportKeeper(config, world.catalog)
    assert other.look(closed) == []  # its turn isn't now
    # Two exposures were open at the close: written again while that's so, and not for ever.
    assert keeper.look(closed + timedelta(minutes=5)) == []
    assert keeper.look(closed + timedelta(minutes=11)) == ["s1"]
    assert keeper.look(closed + timedelta(days=3)) == []


def test_what_cannot_be_written_is_told_once(tmp_path: Path) -> None:
    world = make_world(tmp_path, state=SessionState.CLOSED)
    world.catalog.write(lambda orm: setattr(orm.get_one(Session, world.session_id), "closed_at", now()))
    (tmp_path / "file").write_text("not a folder")
    config = Config.model_validate({"reports": {"publish_to": tmp_path / "file" / "www"}})
    keeper = ReportKeeper(config, world.catalog)
    for minutes in (1, 12, 23):
        assert keeper.look(now() + timedelta(minutes=minutes)) == []
    told = world.catalog.read(lambda orm: list(orm.scalars(select(Event.text))))
    assert len(told) == 1
    assert "can't be written" in told[0]


def test_the_command_writes_it_or_prints_its_numbers(world: World, tmp_path: Path) -> None:
    file = tmp_path / "facility.toml"
    file.write_text(f'[catalog]\nurl = "{world.url()}"\n[reports]\npictures = 0\n', encoding="utf-8")

    def command(*arguments: str) -> subprocess.CompletedProcess[str]:
        whole = [sys.executable, "-m", "vitriflow.cli", "report", *arguments, "--config", str(file)]
        return subprocess.run(whole, capture_output=True, text=True, timeout=120, check=False)

    target = tmp_path / "a report.html"
    done = command(world.key, "--to", str(target))
    assert (done.returncode, done.stdout.strip()) == (0, str(target)), done.stderr
    assert "</html>" in target.read_text(encoding="utf-8")
    numbers = orjson.loads(command(world.key, "--json").stdout)
    assert numbers["counts"]["total"] == len(OUTCOMES)
    refused = command("$(touch owned); rm -rf /")
    assert refused.returncode == 2
    assert "a session's name" in refused.stderr


@pytest.mark.service
@pytest.mark.parametrize("width", [1280, 3840])
def test_it_opens_offline_asks_for_nothing_and_nothing_overlaps(
    world: World, tmp_path: Path, chromium: str, width: int
) -> None:
    from playwright.sync_api import sync_playwright

    path = write_report(make_report(Config(), world.catalog, world.key), tmp_path, Config())
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        context = browser.new_context(viewport={"width": width, "height": 1000}, offline=True)
        page = context.new_page()
        asked: list[str] = []
        complaints: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda message: complaints.append(message.text))
        page.goto(path.as_uri(), wait_until="load")
        assert [url for url in asked if urlsplit(url).scheme != "data"] == [path.as_uri()]
        assert complaints == []
        assert "owned" not in page.title().replace("'owned'", "")
        pictures = page.evaluate("[...document.images].map((one) => one.naturalWidth)")
        assert len(pictures) >= 4
        assert all(pictures)
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        boxes = page.evaluate(
            """() => [...document.querySelectorAll('h1, h2, h3, p, table, svg, img, figcaption, .tiles div, footer')]
                .map((one) => [one.tagName + ' ' + one.textContent.slice(0, 30), one.getBoundingClientRect()])
                .map(([name, box]) => [name, box.left, box.top, box.right, box.bottom])"""
        )
        assert all(right > left and bottom > top for _, left, top, right, bottom in boxes)
        over = [
            (one[0], other[0])
            for number, one in enumerate(boxes)
            for other in boxes[number + 1 :]
            if min(one[3], other[3]) - max(one[1], other[1]) > 1
            and min(one[4], other[4]) - max(one[2], other[2]) > 1
        ]
        assert over == []
        if width == 1280:
            pdf = page.pdf(prefer_css_page_size=True)
            assert pdf.count(b"/Type /Page") > 1
        browser.close()
