"""How fluid the session page is in a real browser over many exposures.

The server and Chromium run on this machine. Measured are the time from the start of the navigation, and
from the page's own document having arrived, to the first paint of all points, and how long single
interactions take until the next frame has been painted: brushing, dragging a limit, changing the axis,
opening a map level, filtering the gallery.

    python -m benchmarks.web_pages --exposures 50000 --out results/web_pages
"""

import argparse
import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.web import KEY, fill, server
from vitriflow.catalog import Catalog

PAINT_MS = 200.0
INTERACTION_MS = 100.0

# Runs one interaction and gives the time until the frame that shows it was handed to the screen (ms).
TIMED = """async (work) => {
  const frame = () => new Promise((go) => requestAnimationFrame(() => setTimeout(go, 0)));
  const box = document.querySelector('[data-plot="defocus_A"]');
  const canvas = box.querySelector("canvas");
  const at = (x, y, type) => canvas.dispatchEvent(new PointerEvent(type, {
    bubbles: true, button: 0, pointerId: 1, clientX: x + box.getBoundingClientRect().left,
    clientY: y + box.getBoundingClientRect().top }));
  canvas.setPointerCapture = () => {};
  const s = box.plot.space;
  const times = [];
  await frame();
  if (work === "brush") at(s.left + 5, s.top + 5, "pointerdown");
  if (work === "limit") at(s.right + 4, s.top, "pointerdown");
  for (let i = 1; i <= 20; i++) {
    const began = performance.now();
    if (work === "brush") at(s.left + 5 + i * 6, s.top + 5 + i * 3, "pointermove");
    if (work === "limit") at(s.right + 4, s.top + i * 3, "pointermove");
    if (work === "hover") at(s.left + i * 7, s.top + i * 3, "pointermove");
    if (work === "axis") document.querySelector(`[data-axis="${i % 2 ? "t" : "n"}"]`).click();
    if (work === "map") document.querySelector(`[data-level="${["square", "hole", "stage"][i % 3]}"]`).click();
    await frame();
    times.push(performance.now() - began);
    await new Promise((go) => setTimeout(go, 30));
  }
  if (work === "brush" || work === "limit") at(s.left + 60, s.top + 30, "pointerup");
  return times;
}"""


def _filtered(page: Any, value: str) -> float:
    """Time until the gallery shows what a filter asks for (ms), the server's part included."""
    script = """(value) => new Promise((go) => {
      const began = performance.now();
      document.body.addEventListener("htmx:afterSwap", (event) => event.detail.target.id === "gallery-window" &&
        requestAnimationFrame(() => setTimeout(() => go(performance.now() - began), 0)), { once: true });
      const field = document.querySelector('select[name="status"]');
      field.value = value;
      field.dispatchEvent(new Event("change", { bubbles: true }));
    })"""
    return float(page.evaluate(script, value))


def run(full: bool, exposures: int = 0, width: int = 1280, height: int = 800) -> tuple[str, dict[str, Any]]:
    """A Markdown section and its data: 50,000 exposures in the full set, 5,000 in the short one."""
    from playwright.sync_api import sync_playwright

    count = exposures or (50_000 if full else 5_000)
    with tempfile.TemporaryDirectory(prefix="vitriflow-bench-") as name, sync_playwright() as play:
        catalog = Catalog(f"sqlite:///{Path(name) / 'catalog.db'}")
        fill(catalog, Path(name), count)
        browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        with server(catalog.url) as base:
            paints, data_paints, tables = [], [], []
            for _ in range(6):
                page = browser.new_page(viewport={"width": width, "height": height})
                page.goto(f"{base}/sessions/{KEY}", wait_until="commit")
                page.wait_for_selector("#session[data-paint]", timeout=60_000)
                paints.append(float(page.get_attribute("#session", "data-paint") or "nan"))
                seen = page.evaluate(
                    """() => {
                      const entry = performance.getEntriesByType("resource").find((e) => e.name.includes("/table"));
                      const asked = performance.getEntriesByName("asked")[0].startTime;
                      return [entry.responseEnd - entry.startTime, Math.max(entry.responseEnd, asked)];
                    }"""
                )
                tables.append(seen[0])
                data_paints.append(paints[-1] - seen[1])
                page.close()
                time.sleep(0.2)
            page = browser.new_page(viewport={"width": width, "height": height})
            page.goto(f"{base}/sessions/{KEY}")
            page.wait_for_selector("#session[data-paint]", timeout=60_000)
            page.wait_for_timeout(1500)
            works = {one: page.evaluate(TIMED, one) for one in ("brush", "limit", "hover", "axis", "map")}
            works["gallery"] = [_filtered(page, value) for value in ("quarantined", "done", "all") * 4]
        browser.close()
        catalog.close()
    data = {"exposures": count, "paint_ms": paints, "table_ms": tables, "drawing_ms": data_paints}
    data["interactions_ms"] = works
    return _table(data), data


def _table(data: dict[str, Any]) -> str:
    first, *later = data["paint_ms"]
    lines = [
        f"## The session page in Chromium over {data['exposures']:,} exposures",
        "",
        f"First paint of all points after the navigation's start: first visit {first:.0f} ms, then "
        f"{np.median(later):.0f} ms (median of {len(later)}; limit {PAINT_MS:.0f} ms). Of it, fetching the table takes "
        f"{np.median(data['table_ms'][1:]):.0f} ms, and from the data in the script's hands to the paint "
        f"{np.median(data['drawing_ms'][1:]):.0f} ms.",
        "",
        "| interaction | to the next frame p50 / p95 (ms) | under 100 ms |",
        "| --- | --- | --- |",
    ]
    for name, times in data["interactions_ms"].items():
        p50, p95 = np.percentile(times, (50, 95))
        lines.append(f"| {name} | {p50:.0f} / {p95:.0f} | {'yes' if p95 < INTERACTION_MS else 'NO'} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--exposures", type=int, default=50_000)
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--height", type=int, default=800)
    parser.add_argument("--out", type=Path, help="where to write PREFIX.json and PREFIX.md")
    options = parser.parse_args()
    text, data = run(True, options.exposures, options.width, options.height)
    print(text)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.with_suffix(".json").write_text(json.dumps(data, indent=2))
        options.out.with_suffix(".md").write_text(text)


if __name__ == "__main__":
    main()
