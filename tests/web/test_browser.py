"""A real browser: what arrives shows without reload, a point leads to its exposure, nothing overlaps."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, expect, sync_playwright

from tests.web.conftest import fill, serve
from tests.web.factory import World, make_world

pytestmark = [pytest.mark.service, pytest.mark.slow]

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
EVIL = "<img src=x onerror=document.body.dataset.owned=1><script>document.body.dataset.owned=1</script>"


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    with sync_playwright() as play:
        made = play.chromium.launch(executable_path=chromium, args=FLAGS)
        yield made
        made.close()


@dataclass
class Tab:
    """A page of the browser, with all that it asked for and complained of."""

    page: Page
    address: str
    asked: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def go(self, path: str) -> None:
        self.page.goto(self.address + path, wait_until="load")

    def check(self) -> None:
        origin = urlsplit(self.address)[:2]
        foreign = [url for url in self.asked if urlsplit(url)[:2] != origin and not url.startswith("data:")]
        assert foreign == [], "a request left the origin"
        assert self.complaints == []


def serious(message: ConsoleMessage) -> bool:
    """Errors and warnings, but for Chromium's advice on how the tests themselves read a canvas back."""
    return message.type in ("error", "warning") and "willReadFrequently" not in message.text


@contextmanager
def tab(browser: Browser, address: str, width: int = 1280, height: int = 800) -> Iterator[Tab]:
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme="dark")
    page = context.new_page()
    page.set_default_timeout(20_000)
    opened = Tab(page, address)

    def note(request: Request) -> None:
        opened.asked.append(request.url)

    page.on("request", note)
    page.on("pageerror", lambda error: opened.complaints.append(str(error)))
    page.on("console", lambda message: opened.complaints.append(message.text) if serious(message) else None)
    yield opened
    opened.check()
    context.close()


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> World:
    world = make_world(tmp_path_factory.mktemp("shown"))
    fill(world)
    return world


@pytest.fixture(scope="module")
def site(shown: World) -> Iterator[str]:
    with serve(shown) as address:
        yield address


def drawn(page: Page, selector: str) -> None:
    page.wait_for_selector(f"{selector}[data-drawn]")


def test_from_the_list_to_an_exposure_while_new_ones_arrive(browser: Browser, tmp_path: Path) -> None:
    world = make_world(tmp_path)
    world.add()
    with serve(world) as address, tab(browser, address) as opened:
        page = opened.page
        opened.go("/")
        page.click("a.session-row")
        drawn(page, "#session")
        expect(page.locator("#live-text")).to_have_text("live")
        expect(page.locator(".card")).to_have_count(1)
        page.evaluate("window.sameDocument = true")
        new = world.add()
        expect(page.locator(f'.card[data-id="{new}"] img')).to_be_visible()
        expect(page.locator("#count-total")).to_have_text("2")
        expect(page.locator("#count-done")).to_have_text("2")
        assert page.evaluate("window.sameDocument"), "the page was loaded again"
        page.click(f'.card[data-id="{new}"]')
        drawn(page, "#exposure")
        expect(page.locator("#pick-count")).to_contain_text("of")
        assert int(page.get_attribute("#exposure", "data-picks") or 0) > 20


def point_of(page: Page, plot: str, number: int) -> tuple[float, float]:
    """Where the chart drew the exposure of that number (page pixels)."""
    page.locator(f'[data-plot="{plot}"]').scroll_into_view_if_needed()
    where: Any = page.evaluate(
        "([plot, number]) => document.querySelector(`[data-plot='${plot}']`).plot.pixelOf(number)",
        [plot, number],
    )
    return where[0], where[1]


def test_a_point_names_its_exposure_and_a_click_opens_it(browser: Browser, site: str, shown: World) -> None:
    with tab(browser, site) as opened:
        page = opened.page
        opened.go(f"/sessions/{shown.key}")
        drawn(page, "#session")
        x, y = point_of(page, "defocus_A", 3)
        page.mouse.move(x, y)
        hover = page.locator(".balloon")
        expect(hover).to_contain_text("FoilHole_7002")
        expect(hover).to_contain_text("Defocus")
        page.mouse.click(x, y)
        page.wait_for_url(f"**/exposures/{shown.ids[2]}?**")


def test_picks_follow_the_slider_and_the_toggle(browser: Browser, site: str, shown: World) -> None:
    with tab(browser, site) as opened:
        page = opened.page
        opened.go(f"/sessions/{shown.key}/exposures/{shown.ids[0]}")
        drawn(page, "#exposure")
        before = int(page.get_attribute("#exposure", "data-picks") or 0)
        inked = "() => document.getElementById('overlay').getContext('2d')" \
                ".getImageData(0, 0, overlay.width, overlay.height).data.some((v) => v > 0)"  # fmt: skip
        assert page.evaluate(inked)
        page.evaluate("score.value = score.max; score.dispatchEvent(new Event('input'))")
        assert 0 < int(page.get_attribute("#exposure", "data-picks") or 0) < before
        page.keyboard.press("p")
        assert page.get_attribute("#exposure", "data-picks") == "0"
        assert not page.evaluate(inked)


def test_a_circle_lies_on_the_particle_it_marks(browser: Browser, site: str, shown: World) -> None:
    """The factory draws dark rings where its picks are: so the picture must be darker under them."""
    with tab(browser, site) as opened:
        opened.go(f"/sessions/{shown.key}/exposures/{shown.ids[0]}")
        drawn(opened.page, "#exposure")
        under, over = opened.page.evaluate(
            """() => {
                const image = document.getElementById('picture');
                const ink = document.getElementById('overlay');
                const canvas = new OffscreenCanvas(ink.width, ink.height);
                const pen = canvas.getContext('2d');
                pen.drawImage(image, 0, 0, ink.width, ink.height);
                const grey = pen.getImageData(0, 0, ink.width, ink.height).data;
                const marks = ink.getContext('2d').getImageData(0, 0, ink.width, ink.height).data;
                let [a, n, b, m] = [0, 0, 0, 0];
                for (let i = 3; i < marks.length; i += 4) {
                    if (marks[i] > 128) { a += grey[i - 3]; n++; } else { b += grey[i - 3]; m++; }
                }
                return [a / n, b / m];
            }"""
        )
        assert under < over - 3


def test_the_keyboard_travels_between_exposures(browser: Browser, site: str, shown: World) -> None:
    with tab(browser, site) as opened:
        page = opened.page
        opened.go(f"/sessions/{shown.key}/exposures/{shown.ids[1]}")
        page.keyboard.press("ArrowRight")
        page.wait_for_url(f"**/exposures/{shown.ids[2]}?**")
        page.keyboard.press("ArrowLeft")
        page.wait_for_url(f"**/exposures/{shown.ids[1]}?**")
        page.keyboard.press("u")
        page.wait_for_url(f"**/sessions/{shown.key}?**")
        drawn(page, "#session")


def test_a_reason_filters_the_gallery(browser: Browser, site: str, shown: World) -> None:
    with tab(browser, site) as opened:
        page = opened.page
        opened.go(f"/sessions/{shown.key}")
        drawn(page, "#session")
        page.click('[data-filter-reason="ctf.no_rings"]')
        expect(page.locator(".card")).to_have_count(1)
        expect(page.locator(".card .status").first).to_have_text("quarantined")
        page.select_option('select[name="status"]', "done")
        expect(page.locator(".card")).to_have_count(8)


def test_a_lost_server_is_said_and_the_page_comes_back_by_itself(browser: Browser, tmp_path: Path) -> None:
    world = make_world(tmp_path)
    world.add()
    with serve(world) as address:
        port = urlsplit(address).port or 0
        context = browser.new_context(viewport={"width": 1280, "height": 800})
        page = context.new_page()
        page.goto(f"{address}/sessions/{world.key}")
        drawn(page, "#session")
        expect(page.locator("#live")).to_have_attribute("data-state", "on")
    expect(page.locator("#live-text")).to_contain_text("not live since", timeout=60_000)
    world.add()
    with serve(world, port):
        expect(page.locator("#live")).to_have_attribute("data-state", "on", timeout=60_000)
        expect(page.locator("#count-total")).to_have_text("2", timeout=60_000)
        context.close()


def test_markup_in_names_does_nothing_but_show(browser: Browser, tmp_path: Path) -> None:
    world = make_world(tmp_path)
    good = world.add(item=f"Square/{EVIL.replace('/', '_')}")
    world.add("quarantined", item="Square/other", reason=EVIL, code=EVIL[:60])
    world.say(EVIL, "alarm")
    with serve(world) as address, tab(browser, address) as opened:
        page = opened.page
        opened.go(f"/sessions/{world.key}")
        drawn(page, "#session")
        page.mouse.move(*point_of(page, "defocus_A", 1))
        expect(page.locator(".balloon b")).to_contain_text("onerror")
        opened.go(f"/sessions/{world.key}/exposures/{good}")
        drawn(page, "#exposure")
        expect(page.locator("h1")).to_contain_text("onerror")
        assert page.evaluate("document.body.dataset.owned ?? 'safe'") == "safe"


PAGES = {
    "list": ("/", ["header.bar", ".session-row", "footer"]),
    "session": (
        "/sessions/{key}",
        ["header.bar", ".verdict", ".counts", "#summary .figures", ".nodes", "#plot-total_A", "#plot-defocus_A",
         "#plot-astigmatism_A", "#plot-ice_ring", "#plot-n_picks", "#plot-throughput", "#plot-stages",
         ".map", ".squares", "#gallery", "#side"],
    ),
    "exposure": (
        "/sessions/{key}/exposures/{first}",
        ["header.bar", ".exposure-head", "#micrograph", "#spectrum", "#track", "#curves", "#facts", "#provenance"],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("width", "height"), [(1280, 800), (3840, 2160)])
@pytest.mark.parametrize("name", PAGES)
def test_panels_neither_overlap_nor_are_empty(
    browser: Browser, site: str, shown: World, name: str, width: int, height: int
) -> None:
    path, panels = PAGES[name]
    with tab(browser, site, width, height) as opened:
        page = opened.page
        opened.go(path.format(key=shown.key, first=shown.ids[0]))
        if name != "list":
            drawn(page, f"#{name}")
        page.wait_for_timeout(300)
        boxes = {}
        for selector in panels:
            box = page.locator(selector).first.bounding_box()
            assert box is not None, selector
            assert box["width"] > 40, selector
            assert box["height"] > 20, selector
            assert box["x"] >= 0, selector
            assert box["x"] + box["width"] <= width + 1, f"{selector} sticks out"
            boxes[selector] = box
        for a, b in combinations(boxes, 2):
            assert not overlap(boxes[a], boxes[b]), f"{a} overlaps {b}"
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), "scrolls sideways"
        opened.check()
        for selector in panels:
            # Playwright's own style for screenshots is refused by the page's policy: 'initial' needs none.
            shot = page.locator(selector).first.screenshot(caret="initial")
            picture = np.asarray(Image.open(io.BytesIO(shot)).convert("L"), dtype=np.float64)
            assert picture.std() > 2, f"{selector} is empty"
        opened.complaints.clear()


def overlap(a: Any, b: Any) -> bool:
    wide = min(a["x"] + a["width"], b["x"] + b["width"]) - max(a["x"], b["x"])
    high = min(a["y"] + a["height"], b["y"] + b["height"]) - max(a["y"], b["y"])
    return bool(wide > 1 and high > 1)


def test_a_session_without_exposures_fills_itself_when_the_first_comes(
    browser: Browser, tmp_path: Path
) -> None:
    world = make_world(tmp_path)
    with serve(world) as address, tab(browser, address) as opened:
        page = opened.page
        opened.go(f"/sessions/{world.key}")
        expect(page.locator("#gallery")).to_contain_text("No exposures yet")
        expect(page.locator("#plot-defocus_A .nothing")).to_be_visible()
        world.add()
        expect(page.locator(".card")).to_have_count(1)
        expect(page.locator("#plot-defocus_A canvas")).to_be_visible()
        expect(page.locator("#plot-defocus_A .nothing")).to_be_hidden()
