"""A simulated day on two microscopes, run from the pages alone: real services, real browser, two people."""

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.facility.command import House, until
from tests.facility.conftest import DIAMETER_A, Played, play
from tests.facility.test_notices import mail_server
from tests.facility.test_service import say

pytestmark = [pytest.mark.service, pytest.mark.slow]
MICROSCOPES = """
[microscopes.tem1]
sources = ["{folder}/tem1"]
mode = "copy"
voltage_kV = 200.0

[microscopes.tem2]
sources = ["{folder}/tem2"]

[web]
port = 0

[monitors]
look_every_s = 1.0

[notices.to.operators]
[notices.to.operators.mail]
host = "127.0.0.1"
port = {mail}
security = "none"
sender = "vitriflow@localhost"
recipients = ["ops@localhost"]
"""


@dataclass
class Facility:
    """A facility that runs, and who may sign in."""

    house: House
    address: str
    passwords: dict[str, str]
    letters: list[EmailMessage]


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Played:
    return play(tmp_path_factory.mktemp("played"), exposures=3, unique=1)


@pytest.fixture(scope="module")
def facility(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Facility]:
    folder = tmp_path_factory.mktemp("day")
    for name in ("tem1", "tem2"):
        (folder / name).mkdir()
    with mail_server() as (box, mail):
        more = MICROSCOPES.format(folder=folder, mail=mail)
        yield from _running(House(folder / "house", more=more), box.letters)


def _running(house: House, letters: list[EmailMessage]) -> Iterator[Facility]:
    passwords = {}
    for login, role in (("olga", "--operator"), ("rosa", None), ("eve", None)):
        roles = [role] if role else []
        passwords[login] = say(house, "people", "add", login, "--generate", *roles).split()[-1]
    with house.running("up"):
        address = until(lambda: re.search(r"http://127\.0\.0\.1:[1-9]\d*", house.said)).group()
        until(lambda: _answers(address))
        yield Facility(house, address, passwords, letters)


def _answers(address: str) -> bool:
    try:
        return httpx.get(f"{address}/api/health", timeout=60).status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        started = play.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield started
        started.close()


def sign_in(browser: Any, facility: Facility, login: str) -> Any:
    context = browser.new_context(viewport={"width": 1280, "height": 900}, base_url=facility.address)
    page = context.new_page()
    page.set_default_timeout(120_000)
    page.goto("/")
    page.get_by_label("Login").fill(login)
    page.get_by_label("Password").fill(facility.passwords[login])
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("link", name=login).wait_for()
    return page


def activate(page: Any, experiment: str, sample: str, microscope: str, gain: Path) -> str:
    """An operator makes an experiment and a sample, and activates it. Gives the session's address."""
    page.goto("/experiments")
    page.locator("#new-experiment [name=name]").fill(experiment)
    page.get_by_role("button", name="Make experiment").click()
    page.get_by_role("link", name="New sample").click()
    page.locator("[name=sample_name]").fill(sample)
    page.locator("[name=particle_diameter_A]").fill(str(DIAMETER_A))
    page.locator("[name=n_frames]").fill("99")  # the movies have 8: somebody will be told
    page.get_by_text("References", exact=True).click()
    page.locator("[name=gain_reference]").fill(str(gain))
    page.get_by_role("button", name="Make sample").click()
    page.locator("#activate [name=microscope]").select_option(microscope)
    page.get_by_role("button", name="Activate").click()
    page.wait_for_url("**/sessions/**")
    return str(page.url)


def test_an_operator_runs_two_microscopes_and_a_researcher_sees_only_her_own(
    facility: Facility, played: Played, browser: Any, tmp_path: Path
) -> None:
    olga = sign_in(browser, facility, "olga")
    first = activate(olga, "cm1", "apo", "tem1", played.gain)
    second = activate(olga, "cm2", "holo", "tem2", played.gain)
    for name in ("tem1", "tem2"):  # the microscopes' software makes the sessions' folders now
        shutil.copytree(played.source, facility.house.folder.parent / name / played.source.name)
    olga.goto("/experiments/cm1/people")
    olga.locator("#let-in [name=login]").fill("rosa")
    olga.get_by_role("button", name="Let in").click()
    olga.get_by_role("cell", name="rosa").first.wait_for()

    for address in (first, second):
        olga.goto(address)
        olga.locator("#count-done", has_text="3").wait_for()
        assert "usable" in olga.locator(".verdict .sentence").inner_text()
    olga.goto("/wall")
    assert {one.inner_text() for one in olga.locator(".scope h2").all()} == {"tem1", "tem2"}
    session = first.rsplit("/", 1)[1]
    log = facility.house.vitriflow("verify", session)
    assert log.returncode == 0

    rosa = sign_in(browser, facility, "rosa")
    assert rosa.get_by_role("heading", name="apo").count() == 1
    assert rosa.get_by_role("heading", name="holo").count() == 0
    assert rosa.goto(second).status == 404
    assert rosa.goto(first).status == 200
    assert rosa.get_by_role("button", name="Stop").count() == 0
    eve = sign_in(browser, facility, "eve")
    assert eve.locator(".session-row").count() == 0
    assert eve.goto(first).status == 404

    until(lambda: any("99" in letter.as_string() for letter in facility.letters))
    look_closer(olga, first)
    process_again(olga, first)
    for address in (first, second):
        olga.goto(address)
        olga.get_by_role("button", name="Stop").click()
        olga.locator(".crumbs .pill", has_text="closed").wait_for()
    read_offline(browser, olga, first, tmp_path)


def look_closer(page: Any, address: str) -> None:
    """Mark an exposure, take that back, and set a limit."""
    page.goto(address)
    page.locator('.slot button[data-mark="reject"]').first.click()
    page.locator("#count-people", has_text="1").wait_for()
    page.click("#toast-undo")
    page.locator("#count-people").wait_for(state="detached")
    page.locator('[data-limit="n_picks"][data-end="0"]').fill("100000")
    page.locator('#pass-count[data-passing="0"]').wait_for()
    page.click("#save-limits")
    page.locator("#pass-note", has_text="set by olga").wait_for()


def process_again(page: Any, address: str) -> None:
    """A second processing of the same exposures, by the same service, while the session is active."""
    page.goto(f"{address}/reprocess")
    page.locator("[name=name]").fill("narrow")
    page.locator("[name=particle_diameter_A]").fill("90")
    page.locator("main form button.main").click()
    page.wait_for_url("**/compare?**")
    page.goto(f"{address}?processing=narrow")
    page.locator("#count-done", has_text="3").wait_for()


def read_offline(browser: Any, page: Any, address: str, folder: Path) -> None:
    """The report is one file that opens without any network."""
    page.goto(address)
    page.get_by_role("link", name="Report").click()
    page.wait_for_url("**/report**")
    answer = page.request.get(page.url)
    assert answer.status == 200
    saved = folder / "report.html"
    saved.write_bytes(answer.body())
    context = browser.new_context(offline=True)
    asked: list[str] = []
    reader = context.new_page()
    reader.on("request", lambda request: asked.append(request.url))
    reader.goto(saved.as_uri())
    text = reader.locator("body").inner_text()
    assert "apo" in text
    assert "cm1" in text
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    assert reader.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
    context.close()
