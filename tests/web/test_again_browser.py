"""In a real browser: what was brushed is processed again, and no other; helpers are let in; nothing overlaps."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from tests.web.conftest import serve
from tests.web.factory import World, make_world
from tests.web.people import PASSWORD, quick_hash
from tests.web.test_browser import browser, drawn, tab
from tests.web.test_logbook_pages import overlaps
from tests.web.test_session_browser import around, drag
from vitriflow.catalog import Processing
from vitriflow.elogbook.people import add_person
from vitriflow.pipeline import load_template

__all__ = ["browser"]  # a fixture
pytestmark = [pytest.mark.service, pytest.mark.slow]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[World, str]]:
    world = make_world(tmp_path_factory.mktemp("again"))
    text = load_template("single-particle").text
    old = {"pixel_size_A": 0.93, "particle_diameter_A": 150.0}
    world.catalog.write(lambda db: db.execute(update(Processing).values(template=text, parameters=old)))
    for _ in range(8):
        world.add()
    with serve(world) as address:
        yield world, address


def test_what_was_brushed_is_processed_again_and_no_other(browser: Browser, site: tuple[World, str]) -> None:
    world, address = site
    with tab(browser, address, 1280, 1000) as opened:
        page = opened.page
        opened.go(f"/sessions/{world.key}")
        drawn(page, "#session")
        expect(page.locator(".again-link")).to_have_count(0)
        drag(page, *around(page, "defocus_A", 2, 5))
        expect(page.locator("#selection")).to_be_visible()
        link = page.locator(".again-link")
        expect(link).to_be_visible()
        count = int(page.locator("#gallery-total").get_attribute("data-total") or 0)
        assert 0 < count < 8
        link.click()
        expect(page.locator(".which")).to_contain_text(f"only {count} exposure")
        assert overlaps(page) == []
        page.fill('input[name="name"]', "brushed")
        page.fill('input[name="particle_diameter_A"]', "200")
        page.get_by_role("button", name="Process again").click()
        expect(page.locator('[data-selected="brushed"]')).to_contain_text(f"{count} exposure")
        expect(page.locator("#begun")).to_contain_text("particle_diameter_A = 200.0")
        assert overlaps(page) == []
    row = world.catalog.read(
        lambda db: db.scalars(select(Processing).where(Processing.name == "brushed")).one()
    )
    assert row.selection is not None
    assert row.selection["n"] == count
    assert set(row.selection["exposures"]) < set(world.ids)
    assert "defocus" in row.selection["words"]


def test_helpers_are_let_in_and_out_on_a_page_without_overlaps(
    browser: Browser, site: tuple[World, str]
) -> None:
    world, _ = site
    hashed = quick_hash(PASSWORD)

    def people(db: Session) -> None:
        add_person(db, "olga", facility_role="operator", password_hash=hashed)
        add_person(db, "nina", password_hash=hashed, unix_name="nina")

    world.catalog.write(people)
    with serve(world) as address, tab(browser, address) as opened:
        page = opened.page
        opened.go(f"/sessions/{world.key}/access")
        page.fill('input[name="login"]', "olga")
        page.fill('input[name="password"]', PASSWORD)
        page.keyboard.press("Enter")
        expect(page.locator("h1")).to_contain_text("Who may log in to tem1 now")
        page.fill('#add-helper input[name="login"]', "nobody")
        page.get_by_role("button", name="Let in until the session stops").click()
        expect(page.locator('[role="alert"]')).to_contain_text("nobody")
        opened.complaints.clear()  # the browser tells of the 422
        page.fill('#add-helper input[name="login"]', "nina")
        page.get_by_role("button", name="Let in until the session stops").click()
        expect(page.locator("#access")).to_contain_text(f"helper of session {world.key}")
        for width in (1280, 3840):
            page.set_viewport_size({"width": width, "height": 900})
            assert overlaps(page) == []
            assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        page.get_by_role("button", name="Remove").click()
        expect(page.locator("#helpers")).to_contain_text("None.")
        expect(page.locator("#access")).not_to_contain_text("helper of session")
