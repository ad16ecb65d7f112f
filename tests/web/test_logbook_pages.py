"""An operator's way through the elogbook's pages in a real browser, and how they look at two widths."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.databases import new_sqlite
from tests.web.conftest import running
from vitriflow.config import load_config
from vitriflow.web import create_app

pytestmark = pytest.mark.service


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("pages")
    (folder / "tem1" / "grid_a").mkdir(parents=True)
    (folder / "facility.toml").write_text(
        f'[storage]\nroot = "data"\n[microscopes.tem1]\nsources = ["{folder}/tem1"]\n', encoding="utf-8"
    )
    config = load_config(folder / "facility.toml")
    config.storage.root.mkdir()
    catalog = new_sqlite(config.storage.root / "catalog.db")
    catalog.close()
    with running(create_app(config.catalog_url, config=config, poll_s=0.2)) as found:
        yield found


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        started = play.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield started
        started.close()


def overlaps(page: Any) -> list[str]:
    """Pairs of things to read or use that lie over each other, and what sticks out of the page."""
    found: list[str] = page.evaluate(
        """() => {
          const bad = [];
          const kinds = 'main button, main input:not([type=hidden]), main select, main textarea, main h1, ' +
            'main h2, main td, header a, header button';
          const shown = [...document.querySelectorAll(kinds)]
            .filter(e => e.checkVisibility() && !e.closest('.hidden'));
          const boxes = shown.map(e => [e, e.getBoundingClientRect()]).filter(([, r]) => r.width && r.height);
          for (const [e, r] of boxes) {
            const out = r.left < -1 || (r.right > innerWidth + 1 && !e.closest('.table'));
            if (out) bad.push('sticks out: ' + e.outerHTML.slice(0, 80));
          }
          for (let i = 0; i < boxes.length; i++) for (let j = i + 1; j < boxes.length; j++) {
            const [a, r] = boxes[i], [b, s] = boxes[j];
            if (a.contains(b) || b.contains(a)) continue;
            const w = Math.min(r.right, s.right) - Math.max(r.left, s.left);
            const h = Math.min(r.bottom, s.bottom) - Math.max(r.top, s.top);
            if (w > 2 && h > 2) bad.push(a.outerHTML.slice(0, 60) + ' over ' + b.outerHTML.slice(0, 60));
          }
          return bad;
        }"""
    )
    return found


def test_from_an_empty_facility_to_an_active_session(address: str, browser: Any, tmp_path: Path) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    troubles: list[str] = []
    page.on(
        "console", lambda m: troubles.append(m.text) if m.type == "error" and "422" not in m.text else None
    )
    page.goto(address)
    page.set_default_timeout(60_000)
    page.get_by_role("link", name="Experiments").click()
    page.locator("#new-experiment [name=name]").fill("bad name")
    page.get_by_role("button", name="Make experiment").click()
    assert "bad name" in page.get_by_role("alert").inner_text()
    assert page.locator("#new-experiment [name=name]").input_value() == "bad name"
    page.locator("#new-experiment [name=name]").fill("cm1")
    page.locator("#new-experiment [name=title]").fill("Apoferritin")
    page.get_by_role("button", name="Make experiment").click()
    page.get_by_role("link", name="New sample").click()
    page.locator("[name=sample_name]").fill("apo")
    page.locator("[name=particle_diameter_A]").fill("wide")
    page.get_by_role("button", name="Make sample").click()
    assert "wide" in page.locator("[data-wrong]").inner_text()
    page.locator("[name=particle_diameter_A]").fill("130")
    page.locator("[name=symmetry]").fill("O")
    page.get_by_role("button", name="Make sample").click()
    assert page.locator("[name=particle_diameter_A]").input_value() == "130.0"
    page.locator("#activate [name=source]").fill("grid_a")
    page.get_by_role("button", name="Activate").click()
    page.wait_for_url("**/sessions/**")
    key = page.url.rsplit("/", 1)[1]
    page.get_by_role("button", name="Pause").click()
    page.get_by_role("button", name="Resume").click()
    page.get_by_role("button", name="Stop").click()
    page.get_by_role("link", name="cm1", exact=True).click()
    page.get_by_label("New entry").fill("Ice is **thin**")
    page.get_by_label("Tags").fill("ice")
    (tmp_path / "notes.txt").write_text("see here")
    page.locator("[name=files]").set_input_files(tmp_path / "notes.txt")
    page.get_by_role("button", name="Write", exact=True).click()
    log = page.locator("#log").inner_text()
    assert "thin" in log
    assert "notes.txt" in log
    assert f"session {key}" in log
    page.get_by_label("Box").fill("B1")
    page.get_by_role("button", name="Add box").click()
    page.get_by_label("Sample on grid 1").select_option("apo")
    page.locator("#grids ~ .table tr").nth(1).get_by_role("button", name="Save").click()
    assert page.get_by_label("Sample on grid 1").input_value() == "apo"
    assert troubles == []
    for path in (
        "/experiments",
        "/experiments/cm1",
        "/experiments/cm1/samples/apo",
        "/experiments/cm1/new-sample",
    ):
        for width, height in ((1280, 900), (3840, 2160)):
            page.set_viewport_size({"width": width, "height": height})
            page.goto(address + path)
            picture = page.screenshot(path=tmp_path / f"{path.replace('/', '_')}-{width}.png")
            assert len(picture) > 10_000
            assert overlaps(page) == []
    page.close()


def test_a_form_of_another_site_is_refused(address: str) -> None:
    import httpx

    answer = httpx.post(
        f"{address}/experiments", data={"name": "evil"}, headers={"origin": "http://elsewhere.example"}
    )
    assert answer.status_code == 403
