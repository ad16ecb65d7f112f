"""The page of all alarms: what is, what was, and who was told."""

from pathlib import Path
from typing import Any

import pytest

from tests.web.conftest import running
from tests.web.factory import make_world
from tests.web.test_logbook_pages import overlaps
from vitriflow.catalog import Alarm, now
from vitriflow.config import Config
from vitriflow.web import create_app

EVIL = "<script>document.body.dataset.owned = 1</script>"


@pytest.mark.service
def test_alarms_say_who_was_told_and_whether_it_reached_them(tmp_path: Path, chromium: str) -> None:
    from playwright.sync_api import sync_playwright

    world = make_world(tmp_path)
    told = [
        {"to": "ops", "change": "raised", "sent": True, "tries": 1},
        {"to": "chat", "change": "raised", "sent": False, "tries": 3, "why": "refused"},
    ]

    def work(orm: Any) -> None:
        common = {"subject": "s", "severity": "alarm", "raised_at": now()}
        orm.add(Alarm(rule="rule:motion_rising", text=f"Motion rose {EVIL}", told=told, **common))
        orm.add(Alarm(rule="silence", text="No new file", cleared_at=now(), told=[], **common))

    world.catalog.write(work)
    config = Config.model_validate({"notices": {"to": {"ops": {"url": "json://localhost/"}}}})
    app = create_app(world.url(), config=config, poll_s=0.2)
    with running(app) as address, sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for width, height in ((1280, 800), (3840, 2160)):
            page = browser.new_page(viewport={"width": width, "height": height})
            page.goto(f"{address}/wall")
            page.click("text=All alarms")
            page.wait_for_selector("table")
            body = page.inner_text("main")
            assert "motion_rising" in body
            assert "ops: delivered" in body
            assert "chat: not delivered after 3 tries" in body
            assert "People are told by: ops." in body
            assert page.evaluate("document.body.dataset.owned") is None
            assert overlaps(page) == []
            page.close()
        page = browser.new_page()
        page.goto(f"{address}/alarms")
        page.click("button:has-text('Seen')")
        page.goto(f"{address}/alarms")
        assert "local" in page.inner_text("tbody")
        browser.close()
