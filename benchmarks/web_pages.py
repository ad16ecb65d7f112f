"""How fluid the session page is in a real browser over 50,000 exposures.

The server and Chromium run on this machine, over the loopback address. A visit is timed from the start of
the navigation until the frame with the points that are on the screen has been painted; an interaction from
the event until the next frame that shows it has been painted, or, where the server has its part, until what
it answered has been.

    python -m benchmarks.web_pages --exposures 50000 --out results/web_pages
"""

import argparse
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.web import KEY, fill, server
from vitriflow.catalog import Catalog

PAINT_MS = 200.0
INTERACTION_MS = 100.0
VISITS = 8
SCREENS = {"1280 x 800": (1280, 800), "3840 x 2160": (3840, 2160)}
# Where a visit's time goes: moments after the navigation's start, in order (ms).
MOMENTS = """() => {
  const page = performance.getEntriesByType("navigation")[0];
  const table = performance.getEntriesByType("resource").find((e) => e.name.includes("/table"));
  const scripts = performance.getEntriesByType("resource").filter((e) => e.name.endsWith(".js"));
  const at = (name) => performance.getEntriesByName(name)[0].startTime;
  return {
    "page's document came": page.responseEnd,
    "table asked for": table.startTime,
    "scripts came": Math.max(...scripts.map((e) => e.responseEnd)),
    "script ran": at("asked"),
    "table came": table.responseEnd,
    "table in the script's hands": at("arrived"),
    "points painted": Number(document.getElementById("session").dataset.paint),
  };
}"""
PREPARE = """(place) => {
  document.getElementById(place).scrollIntoView();
  window.frame = () => new Promise((go) => requestAnimationFrame(() => setTimeout(go, 0)));
}"""
# Runs one interaction 20 times and gives each time until its frame was painted (ms).
TIMED = """async (work) => {
  const box = document.querySelector('[data-plot="defocus_A"]');
  const canvas = box.querySelector("canvas");
  const at = (x, y, type) => canvas.dispatchEvent(new PointerEvent(type, {
    bubbles: true, button: 0, pointerId: 1, clientX: x + box.getBoundingClientRect().left,
    clientY: y + box.getBoundingClientRect().top }));
  canvas.setPointerCapture = () => {};
  const s = box.plot.space;
  const colours = [...document.getElementById("map-colour").options].map((one) => one.value);
  const works = {
    brush: (i) => at(s.left + 5 + i * 6, s.top + 5 + i * 3, "pointermove"),
    limit: (i) => at(s.right + 4, s.top + i * 3, "pointermove"),
    hover: (i) => at(s.left + i * 7, s.top + i * 3, "pointermove"),
    axis: (i) => document.querySelector(`[data-axis="${i % 2 ? "t" : "n"}"]`).click(),
    level: (i) => document.querySelector(`[data-level="${["square", "hole", "stage"][i % 3]}"]`).click(),
    recolour: (i) => {
      const field = document.getElementById("map-colour");
      field.value = colours[i % colours.length];
      field.dispatchEvent(new Event("change", { bubbles: true }));
    },
    travel: () =>
      document.activeElement.dispatchEvent(new KeyboardEvent("keydown", { key: "j", bubbles: true })),
  };
  const times = [];
  await frame();
  if (work === "brush") at(s.left + 5, s.top + 5, "pointerdown");
  if (work === "limit") at(s.right + 4, s.top, "pointerdown");
  for (let i = 1; i <= 20; i++) {
    const began = performance.now();
    works[work](i);
    await frame();
    times.push(performance.now() - began);
    await new Promise((go) => setTimeout(go, 60));
  }
  if (work === "brush" || work === "limit") at(s.left + 60, s.top + 30, "pointerup");
  return times;
}"""
# Asks something of the gallery and waits until what the server answered has been painted (ms).
ASKED = """([field, value]) => new Promise((go) => {
  const began = performance.now();
  const swapped = (event) => {
    if (event.detail.target.id !== "gallery-window") return;
    document.body.removeEventListener("htmx:afterSwap", swapped);
    requestAnimationFrame(() => setTimeout(() => go(performance.now() - began), 0));
  };
  document.body.addEventListener("htmx:afterSwap", swapped);
  if (field === "next") return document.querySelector(".pager button:last-child").click();
  const chosen = document.querySelector(`select[name="${field}"]`);
  chosen.value = value;
  chosen.dispatchEvent(new Event("change", { bubbles: true }));
})"""
GALLERY = {
    "gallery: filter by status": [("status", one) for one in ("quarantined", "done", "all") * 5],
    "gallery: sort": [("sort", one) for one in ("defocus_A", "n_picks", "fit_resolution_A", "newest") * 4],
    "gallery: next page": [("next", "")] * 12,
}
SHOWN = {
    "brush": "brush a plot",
    "limit": "drag a limit",
    "hover": "point at an exposure",
    "axis": "number or time as the axis",
    "level": "map: squares, holes, exposures",
    "recolour": "map of exposures: another colour",
    "travel": "gallery: next card by keyboard",
}


def _visit(page: Any, address: str) -> dict[str, float]:
    page.goto(address, wait_until="commit")
    page.wait_for_selector("#session[data-drawn]", timeout=60_000)
    moments: dict[str, float] = page.evaluate(MOMENTS)
    return moments


def _visits(browser: Any, address: str, size: tuple[int, int]) -> dict[str, list[dict[str, float]]]:
    """Visits with an empty cache, each in a browser profile of its own, and again in one that was here."""
    viewport = {"width": size[0], "height": size[1]}
    found: dict[str, list[dict[str, float]]] = {"first": [], "again": []}
    again = browser.new_page(viewport=viewport)
    _visit(again, address)
    for _ in range(VISITS):
        page = browser.new_page(viewport=viewport)
        found["first"].append(_visit(page, address))
        page.context.close()
        again.goto("about:blank")
        found["again"].append(_visit(again, address))
    again.close()
    return found


def _interactions(browser: Any, address: str, size: tuple[int, int]) -> dict[str, list[float]]:
    page = browser.new_page(viewport={"width": size[0], "height": size[1]})
    _visit(page, address)
    page.wait_for_timeout(1500)
    found: dict[str, list[float]] = {}
    for place, works in (
        ("plots", ("brush", "limit", "hover", "axis")),
        ("places", ("level", "recolour")),
        ("gallery", ("travel",)),
    ):
        page.evaluate(PREPARE, place)
        page.wait_for_timeout(300)
        for work in works:
            if work == "recolour":
                page.click('[data-level="stage"]')
                page.wait_for_timeout(300)
            found[SHOWN[work]] = page.evaluate(TIMED, work)
    page.keyboard.press("Escape")
    page.wait_for_timeout(1000)
    for name, steps in GALLERY.items():
        found[name] = []
        for step in steps:
            found[name].append(float(page.evaluate(ASKED, list(step))))
            page.wait_for_timeout(100)
    page.close()
    return found


def run(_full: bool, exposures: int = 0, folder: Path | None = None) -> tuple[str, dict[str, Any]]:
    """A Markdown section and its data; both sets measure the same."""
    from playwright.sync_api import sync_playwright

    count = exposures or 50_000
    data: dict[str, Any] = {"exposures": count, "load": [os.getloadavg()[0]], "screens": {}}
    with tempfile.TemporaryDirectory(prefix="vitriflow-bench-") as name, sync_playwright() as play:
        where = folder or Path(name)
        filled = (where / "catalog.db").exists()
        where.mkdir(exist_ok=True)
        catalog = Catalog(f"sqlite:///{where / 'catalog.db'}")
        if not filled:
            fill(catalog, where, count)
        browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        with server(catalog.url) as base:
            address = f"{base}/sessions/{KEY}"
            # The server reads the newest sessions when it starts: visitors come after that.
            start = browser.new_page()
            data["first_after_start_ms"] = _visit(start, address)["points painted"]
            start.close()
            for screen, size in SCREENS.items():
                visits = _visits(browser, address, size)
                data["screens"][screen] = {
                    "visits": visits,
                    "interactions_ms": _interactions(browser, address, size),
                }
        browser.close()
        catalog.close()
    data["load"].append(os.getloadavg()[0])
    return _text(data), data


def worst_interaction(data: dict[str, Any]) -> tuple[str, float]:
    """The interaction with the largest median at any screen, and that median (ms)."""
    medians = {
        f"{name}, {screen}": float(np.median(times))
        for screen, one in data["screens"].items()
        for name, times in one["interactions_ms"].items()
    }
    name = max(medians, key=lambda one: medians[one])
    return name, medians[name]


def paint(data: dict[str, Any], visits: str, screen: str = "1280 x 800") -> list[float]:
    """First paint of the data in each visit of a kind (ms)."""
    return [one["points painted"] for one in data["screens"][screen]["visits"][visits]]


def _spread(times: list[float]) -> str:
    return f"{np.median(times):.0f} ({min(times):.0f}..{max(times):.0f})"


def _text(data: dict[str, Any]) -> str:
    loads = " to ".join(f"{one:.1f}" for one in data["load"])
    lines = [
        f"## The session page in Chromium over {data['exposures']:,} exposures",
        "",
        f"Median (least..greatest), ms; load average {loads}. {VISITS} visits of each kind, taking turns: with an "
        "empty browser cache, and of a browser that was here before. Moments count from the navigation's start; "
        "what's painted then are the plots that are on the screen, the others follow one by one. First visit "
        f"after the server's start: {data['first_after_start_ms']:.0f} ms.",
        "",
        "| moment of a visit | "
        + " | ".join(f"{s}, {k}" for s in data["screens"] for k in ("first", "again"))
        + " |",
        "| --- |" + " --- |" * (2 * len(data["screens"])),
    ]
    kinds = [one["visits"][kind] for one in data["screens"].values() for kind in ("first", "again")]
    for moment in kinds[0][0]:
        cells = [_spread([visit[moment] for visit in visits]) for visits in kinds]
        lines.append(f"| {moment} | " + " | ".join(cells) + " |")
    lines += [
        "",
        "| interaction | "
        + " | ".join(f"{screen}: median (least..greatest)" for screen in data["screens"])
        + " | medians under 100 ms |",
        "| --- |" + " --- |" * (len(data["screens"]) + 1),
    ]
    each = [one["interactions_ms"] for one in data["screens"].values()]
    for name in each[0]:
        good = all(np.median(times[name]) < INTERACTION_MS for times in each)
        cells = " | ".join(_spread(times[name]) for times in each)
        lines.append(f"| {name} | {cells} | {'yes' if good else '**no**'} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--exposures", type=int, default=50_000)
    parser.add_argument("--out", type=Path, help="where to write PREFIX.json and PREFIX.md")
    parser.add_argument("--folder", type=Path, help="keep the catalog here, for the next run")
    options = parser.parse_args()
    text, data = run(True, options.exposures, options.folder)
    print(text)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.with_suffix(".json").write_text(json.dumps(data, indent=2))
        options.out.with_suffix(".md").write_text(text)


if __name__ == "__main__":
    main()
