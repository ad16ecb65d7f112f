"""The session page in a real browser: select in one plot and see it in all, limits, marks, the map, keys."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.web.conftest import fill, serve
from tests.web.factory import World, make_world
from tests.web.test_browser import Tab, browser, drawn, tab
from tests.web.test_logbook_pages import overlaps

__all__ = ["browser"]  # a fixture
pytestmark = [pytest.mark.service, pytest.mark.slow]


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> World:
    world = make_world(tmp_path_factory.mktemp("shown"))
    fill(world)
    world.add(full=True)
    for _ in range(20):
        world.add()
    return world


@pytest.fixture(scope="module")
def site(shown: World) -> Iterator[str]:
    with serve(shown) as address:
        yield address


def session(opened: Tab, world: World, query: str = "") -> Page:
    opened.go(f"/sessions/{world.key}{query}")
    drawn(opened.page, "#session")
    return opened.page


def drag(page: Page, start: list[float], end: list[float], shift: bool = False) -> None:
    if shift:
        page.keyboard.down("Shift")
    page.mouse.move(*start)
    page.mouse.down()
    page.mouse.move(*end, steps=4)
    page.mouse.up()
    if shift:
        page.keyboard.up("Shift")


def ask(page: Page, plot: str, call: str) -> Any:
    box = page.locator(f'[data-plot="{plot}"]')
    box.scroll_into_view_if_needed()
    return box.evaluate(f"(box) => box.plot.{call}")


def around(page: Page, plot: str, first: int, last: int) -> tuple[list[float], list[float]]:
    """Corners of a rectangle over the whole height of a plot, from one number to another."""
    low, high = (ask(page, plot, f"pixelOf({n})")[0] for n in (first, last))
    box = page.locator(f'[data-plot="{plot}"]').bounding_box()
    assert box is not None
    return [low - 2, box["y"] + 3], [high + 2, box["y"] + box["height"] - 3]


def test_what_is_selected_in_a_plot_is_selected_in_all_and_the_gallery_shows_it(
    browser: Browser, site: str, shown: World
) -> None:
    with tab(browser, site) as opened:
        page = session(opened, shown)
        before = page.locator('[data-plot="n_picks"] canvas').evaluate("(c) => c.toDataURL()")
        drag(page, *around(page, "defocus_A", 16, 25))
        expect(page.locator("#selected-count")).to_have_text(f"10 of {shown.made - 1} selected")
        expect(page.locator("#gallery-total")).to_have_text("10 exposures")
        page.wait_for_function(
            "(before) => document.querySelector('[data-plot=n_picks] canvas').toDataURL() !== before",
            arg=before,
        )
        drag(page, *around(page, "n_picks", 16, 19), shift=True)
        expect(page.locator("#selected-count")).to_contain_text("4 of")
        page.click("#open-selected")
        expect(page.locator(".card")).to_have_count(4)
        assert "brush=defocus_A" in page.url
        page.reload()
        drawn(page, "#session")
        expect(page.locator("#selected-count")).to_contain_text("4 of")
        page.click("#clear-selection")
        expect(page.locator("#selection")).to_be_hidden()
        expect(page.locator("#gallery-total")).to_have_text(f"{shown.made - 1} exposures")


def test_a_limit_is_dragged_saved_and_counts_the_same_everywhere(
    browser: Browser, site: str, shown: World
) -> None:
    with tab(browser, site) as opened:
        page = session(opened, shown)
        x, y = ask(page, "defocus_A", "handleOf(1)")
        still = page.locator('[data-plot="defocus_A"]').bounding_box()
        drag(page, [x, y], [x, y + 40])
        expect(page.locator("#pass-count")).to_contain_text(f"of {shown.made - 1} pass")
        assert page.locator('[data-plot="defocus_A"]').bounding_box() == still, (
            "the plot moved under the hand"
        )
        passing = int(page.get_attribute("#pass-count", "data-passing") or 0)
        assert 0 < passing < shown.made
        expect(page.locator("#pass-note")).to_have_text("not saved")
        page.click("#save-limits")
        expect(page.locator("#count-passing")).to_have_text(str(passing))
        expect(page.locator("#pass-note")).to_contain_text("set by local")
        page.select_option('select[name="limits"]', "fail")
        expect(page.locator("#gallery-total")).to_have_text(f"{shown.made - 1 - passing} exposures")
        page.reload()
        drawn(page, "#session")
        assert int(page.get_attribute("#pass-count", "data-passing") or 0) == passing
        # The keyboard's way: numbers typed, all taken back, saved.
        field = page.locator('[data-limit="defocus_A"][data-end="1"]')
        assert float(field.input_value()) > 1000
        field.fill("")
        page.locator('[data-limit="n_picks"][data-end="0"]').fill("100000")
        expect(page.locator("#pass-count")).to_have_attribute("data-passing", "0")
        page.click("#reset-limits")
        expect(page.locator("#pass-count")).to_have_attribute("data-passing", str(shown.made - 1))
        page.click("#save-limits")
        expect(page.locator("#passing")).to_be_hidden()


def test_people_mark_a_selection_and_single_cards_by_keyboard_and_undo_it(
    browser: Browser, site: str, shown: World
) -> None:
    with tab(browser, site) as opened:
        page = session(opened, shown)
        drag(page, *around(page, "defocus_A", 16, 20))
        page.click('[data-mark-selected="reject"]')
        expect(page.locator("#toast-text")).to_have_text("5 exposures rejected")
        expect(page.locator("#count-people")).to_have_text("5")
        expect(page.locator('.slot[data-mark="reject"]')).to_have_count(5)
        page.click("#toast-undo")
        expect(page.locator("#count-people")).to_have_count(0)
        expect(page.locator('.slot[data-mark="reject"]')).to_have_count(0)
        page.keyboard.press("Escape")
        expect(page.locator("#selection")).to_be_hidden()
        # The cards are fetched anew: the second one is another as long as they aren't there.
        expect(page.locator("#gallery-total")).to_have_text(f"{shown.made - 1} exposures")
        page.locator("#gallery h2").click()
        page.keyboard.press("j")
        page.keyboard.press("j")
        second = page.locator(".card").nth(1)
        expect(second).to_be_focused()
        chosen = second.get_attribute("data-id")
        page.keyboard.press("y")
        expect(page.locator('.slot[data-mark="keep"] .card')).to_have_attribute("data-id", str(chosen))
        expect(page.locator(f'.card[data-id="{chosen}"]')).to_be_focused()
        page.keyboard.press("z")
        expect(page.locator('.slot[data-mark="keep"]')).to_have_count(0)
        page.keyboard.press("c")
        page.fill("#comment-text", "look here")
        page.click('#comment-box button[value="save"]')
        expect(page.locator('.badge[data-mark="comment"]')).to_have_count(1)
        page.locator(f'.card[data-id="{chosen}"]').focus()
        page.keyboard.press("Enter")
        page.wait_for_url(f"**/exposures/{chosen}?**")
        drawn(page, "#exposure")
        expect(page.locator("#marks")).to_contain_text("look here")
        page.click('#marks [data-mark="reject"]')
        expect(page.locator('#marks button[data-mark="reject"]')).to_have_attribute("aria-pressed", "true")
        page.locator("#marks [data-undo]").first.click()
        expect(page.locator('#marks button[data-mark="reject"]')).to_have_attribute("aria-pressed", "false")


def test_a_square_of_the_map_shows_its_exposures(browser: Browser, site: str, shown: World) -> None:
    with tab(browser, site) as opened:
        page = session(opened, shown)
        expect(page.locator("#squares tr")).to_have_count(5)
        page.locator("#map").scroll_into_view_if_needed()
        where = page.locator("#map").evaluate("(box) => box.plot.pixelOf('GridSquare_102')")
        page.mouse.move(*where)
        expect(page.locator(".balloon")).to_contain_text("GridSquare_102")
        page.mouse.click(*where)
        expect(page.locator("#selected-count")).to_contain_text("6 of")
        expect(page.locator("#gallery-total")).to_have_text("6 exposures")
        page.click('[data-square="GridSquare_103"]')
        expect(page.locator("#gallery-total")).to_have_text("8 exposures")
        for level in ("hole", "stage"):
            page.click(f'[data-level="{level}"]')
        page.select_option("#map-colour", "ice_ring")
        expect(page.locator("#map-scale")).to_contain_text("Ice ring")


def test_without_positions_the_page_says_so(browser: Browser, tmp_path: Path) -> None:
    world = make_world(tmp_path)
    world.add(square=None)
    with serve(world) as address, tab(browser, address) as opened:
        page = session(opened, world)
        expect(page.locator("#map-empty")).to_contain_text("No exposure says where on the grid it lies")
        expect(page.locator("#squares-empty")).to_be_visible()


def test_the_verdict_has_its_reasons_one_click_away_and_keeps_them_open(
    browser: Browser, tmp_path: Path
) -> None:
    world = make_world(tmp_path)
    world.add()
    with serve(world) as address, tab(browser, address) as opened:
        page = session(opened, world)
        expect(page.locator(".verdict .sentence")).to_contain_text("Good: 100 % usable (1 of 1)")
        expect(page.locator(".because ul")).to_be_hidden()
        page.click(".because summary")
        expect(page.locator(".because ul")).to_be_visible()
        world.add()
        expect(page.locator(".verdict .sentence")).to_contain_text("(2 of 2)")
        expect(page.locator(".because ul")).to_be_visible()


def test_the_full_micrograph_is_zoomed_and_moved_with_its_picks(
    browser: Browser, site: str, shown: World
) -> None:
    with tab(browser, site) as opened:
        page = opened.page
        opened.go(f"/sessions/{shown.key}/exposures/{shown.ids[14]}")
        drawn(page, "#exposure")
        page.click('[data-zoom="one"]')
        expect(page.locator("#zoom-value")).to_have_text("100 %")
        page.wait_for_function("() => document.getElementById('stage').dataset.waiting === '0'")
        assert any("/tile/0/" in url for url in opened.asked)
        left = float(page.get_attribute("#stage", "data-left") or 0)
        box = page.locator("#stage").bounding_box()
        assert box is not None
        drag(page, [box["x"] + 200, box["y"] + 200], [box["x"] + 120, box["y"] + 200])
        assert abs(float(page.get_attribute("#stage", "data-left") or 0) - left - 80) < 1.5
        page.locator("#stage").focus()
        page.keyboard.press("ArrowRight")
        assert float(page.get_attribute("#stage", "data-left") or 0) > left + 100
        assert f"/exposures/{shown.ids[14]}" in page.url, "arrows move a picture that's zoomed into"
        page.mouse.wheel(0, 300)
        page.wait_for_function("() => parseFloat(document.getElementById('stage').dataset.zoom) < 6")
        page.keyboard.press("0")
        expect(page.locator("#stage")).to_have_attribute("data-zoom", "1.000")


@pytest.mark.parametrize(("width", "height"), [(1280, 800), (3840, 2160)])
@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_nothing_lies_over_anything_with_selection_limits_and_marks_shown(
    browser: Browser, site: str, shown: World, width: int, height: int, scheme: str
) -> None:
    with tab(browser, site, width, height) as opened:
        page = opened.page
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        session(opened, shown, "?brush=defocus_A:5000:12000")
        page.locator('[data-limit="n_picks"][data-end="0"]').fill("80")
        page.click("#help-button")
        expect(page.locator("#pass-count")).to_be_visible()
        expect(page.locator("#selected-count")).to_be_visible()
        assert overlaps(page) == []
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), "scrolls sideways"
        opened.go(f"/sessions/{shown.key}/exposures/{shown.ids[14]}")
        drawn(page, "#exposure")
        # Buttons for zooming lie on the picture, by intent, and touch nothing else.
        assert overlaps(page) == []
