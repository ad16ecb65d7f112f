"""How quickly pages and API answer over a catalog of many exposures.

Makes an SQLite catalog (or fills the one at --url) with one session of N exposures, four nodes
each, starts the real server on the loopback address, and asks each route many times: at rest, and
with a new exposure committed before every request, which is what a live session looks like.

    python -m benchmarks.web --exposures 50000 --out results/web
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image
from sqlalchemy import insert, update

from vitriflow.catalog import (
    Base,
    Catalog,
    Event,
    Experiment,
    Exposure,
    Measure,
    Microscope,
    Processing,
    ResultRow,
    Sample,
    Session,
    Task,
    now,
)

KEY = "bench"
NODES = ("motion", "ctf", "pick", "preview")
LIMIT_MS = 100.0
CHUNK = 10_000
PICTURE = "previews/thumbnail.jpg"  # one for all exposures


def fill(catalog: Catalog, folder: Path, count: int) -> None:
    """One session, one processing, ``count`` exposures, 1 in 50 of them quarantined."""
    Base.metadata.create_all(catalog.engine)
    rng = np.random.default_rng(1)
    picture = folder / PICTURE
    picture.parent.mkdir(exist_ok=True)
    Image.fromarray(rng.integers(90, 160, (256, 256)).astype(np.uint8)).save(picture, quality=80)
    start = now() - timedelta(seconds=8 * count)
    common = {"created_at": start}
    root = {"root": str(folder), "source": str(folder)}
    with catalog.engine.begin() as db:
        db.execute(insert(Microscope), [{"id": 1, "name": "tem1", "settings": {}}])
        db.execute(insert(Experiment), [{"id": 1, "name": "C1", "title": "", **common}])
        db.execute(insert(Sample), [{"id": 1, "experiment_id": 1, "name": "bench", "settings": {}}])
        db.execute(
            insert(Session),
            [
                {
                    "id": 1,
                    "key": KEY,
                    "microscope_id": 1,
                    "sample_id": 1,
                    "state": "active",
                    "settings": {},
                    "survey": {"movie": count},
                    **root,
                    **common,
                }
            ],
        )
        db.execute(
            insert(Processing),
            [
                {
                    "id": 1,
                    "session_id": 1,
                    "name": "live",
                    "template": "",
                    "parameters": {},
                    "root": str(folder),
                    "state": "running",
                    "change": count,
                    **common,
                }
            ],
        )
        texts = [
            {"session_id": 1, "at": start + timedelta(seconds=i), "severity": "info", "text": f"event {i}"}
            for i in range(500)
        ]
        db.execute(insert(Event), texts)
    for first in range(1, count + 1, CHUNK):
        ids = range(first, min(first + CHUNK, count + 1))
        _fill_chunk(catalog, rng, ids, start, folder)


def _fill_chunk(catalog: Catalog, rng: np.random.Generator, ids: range, start: Any, folder: Path) -> None:
    exposures, measures, tasks, results = [], [], [], []
    for i in ids:
        item = f"GridSquare_{i // 400}/Data/FoilHole_{i}_Data"
        complete = start + timedelta(seconds=8 * i)
        bad = i % 50 == 0
        exposures.append(_exposure_row(i, item, complete, folder))
        measures.append(_measure_row(rng, i, complete, bad))
        for node in NODES:
            state = ("stopped" if node != "motion" else "quarantined") if bad else "done"
            tasks.append(
                {"processing_id": 1, "node": node, "item_id": i, "state": state, "finished_at": complete}
            )
            if not bad:
                results.append(
                    {
                        "processing_id": 1,
                        "node": node,
                        "item_id": i,
                        "status": "done",
                        "record": _record(node, folder),
                        "created_at": complete,
                    }
                )
    with catalog.engine.begin() as db:
        db.execute(insert(Exposure), exposures)
        db.execute(insert(Measure), measures)
        db.execute(insert(Task), tasks)
        db.execute(insert(ResultRow), results)


def _exposure_row(i: int, item: str, complete: Any, folder: Path) -> dict[str, Any]:
    return {
        "id": i,
        "session_id": 1,
        "key": f"{item}.tiff",
        "item": item,
        "path": str(folder / f"{item}.tiff"),
        "state": "complete",
        "size": 400_000_000,
        "grid_square": f"GridSquare_{i // 400}",
        "foil_hole": f"FoilHole_{i // 4}",
        "details": {
            "voltage_kV": 300.0,
            "stage_x_um": 90.0 * (i // 400 % 12) + 4.0 * (i // 4 % 10),
            "stage_y_um": 90.0 * (i // 4800) + 4.0 * (i // 40 % 10),
        },
        "first_seen_at": complete,
        "complete_at": complete,
    }


def _measure_row(rng: np.random.Generator, i: int, complete: Any, bad: bool) -> dict[str, Any]:
    row: dict[str, Any] = {
        "processing_id": 1,
        "exposure_id": i,
        "change": i,
        "status": "quarantined" if bad else "done",
        "reason_code": "file.truncated" if bad else None,
        "reason": "the file ends after 7 of 40 frames" if bad else None,
        "complete_at": complete,
        "finished_at": complete + timedelta(seconds=12),
        "latency_s": None if bad else float(12 + rng.gamma(2, 2)),
    }
    for name, value in {
        "early_A": rng.gamma(4, 1.0),
        "late_A": rng.gamma(4, 1.5),
        "total_A": rng.gamma(6, 2.0),
        "defocus_A": rng.uniform(7000, 20000),
        "astigmatism_A": rng.gamma(3, 60),
        "fit_resolution_A": 3 + rng.gamma(2, 0.4),
        "ice_ring": 1 + rng.gamma(2, 0.1),
        "mean_intensity": 1.2 + rng.normal(0, 0.05),
        "n_picks": int(rng.integers(30, 300)),
    }.items():
        row[name] = None if bad else value
    return {**row, "ctf_quality": None if bad else "good"}


def _record(node: str, folder: Path) -> dict[str, Any]:
    """Records of the size that real ones have, where it matters: previews and motion."""
    record: dict[str, Any] = {"step": node, "status": "done", "warnings": [], "outputs": {}}
    if node == "motion":
        record |= {"frame_shifts_A": [[0.0, 0.0]] * 40, "total_A": 11.0}
    elif node == "ctf":
        record |= {"defocus_u_A": 12000.0, "defocus_v_A": 11800.0, "curves": {}}
    elif node == "pick":
        record |= {"n_picks": 120, "threshold": 0.3}
    else:
        path = str(folder / PICTURE)
        record |= {"scale": 0.25, "outputs": {"thumbnail": {"kind": "picture", "path": path}}}
    return record


@contextmanager
def server(url: str) -> Iterator[str]:
    """The real server, in a process of its own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "uvicorn", "--factory", "vitriflow.web:create_app_from_env"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--log-level", "warning"]
    process = subprocess.Popen(command, env={**os.environ, "VITRIFLOW_CATALOG_URL": url})
    base = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            try:
                httpx.get(f"{base}/api/health", timeout=5)
                break
            except httpx.TransportError:
                time.sleep(0.1)
        yield base
    finally:
        process.terminate()
        process.wait(10)


def measure(client: httpx.Client, path: str, repeats: int, before: Callable[[], None]) -> dict[str, float]:
    """Wall time of a route (ms): p50, p95 and largest, with its size (kB)."""
    times, length = [], 0
    for _ in range(repeats):
        before()
        began = time.perf_counter()
        answer = client.get(path)
        times.append(1e3 * (time.perf_counter() - began))
        if answer.status_code != 200:
            raise SystemExit(f"{path} answered {answer.status_code}: {answer.text[:300]}")
        length = len(answer.content)
    p50, p95 = np.percentile(times, (50, 95))
    return {"p50_ms": float(p50), "p95_ms": float(p95), "max_ms": max(times), "kB": length / 1e3}


def routes(count: int) -> dict[str, str]:
    """What is asked, by what it is."""
    api, page = f"/api/sessions/{KEY}", f"/sessions/{KEY}"
    middle = count // 2 + 1
    return {
        "sessions (page)": "/",
        "session (page)": page,
        "summary (part)": f"{page}/part/summary",
        "gallery (part)": f"{page}/part/gallery",
        "gallery, worst fit first (part)": f"{page}/part/gallery?sort=fit_resolution_A&offset=480",
        "gallery, quarantined (part)": f"{page}/part/gallery?status=quarantined",
        "problems and events (part)": f"{page}/part/side",
        "exposure (page)": f"{page}/exposures/{middle}",
        "sessions (API)": "/api/sessions",
        "counts (API)": f"{api}/counts",
        "session (API)": api,
        "columns, all (API)": f"{api}/columns",
        "columns, new only (API)": f"{api}/columns?since={count - 1}&known={count - 1}",
        "table, all (API)": f"{api}/table",
        "table, new only (API)": f"{api}/table?since={count - 1}&known={count - 1}",
        "grid squares (API)": f"{api}/squares",
        "gallery, brushed (part)": f"{page}/part/gallery?brush=defocus_A:9000:12000:n:100:20000",
        "exposures (API)": f"{api}/exposures",
        "exposure (API)": f"{api}/exposures/{middle}",
        "events (API)": f"{api}/events",
    }


def changer(catalog: Catalog, count: int) -> Callable[[], None]:
    """Commits a new value for one exposure, as a running pipeline does all the time."""
    state = {"change": count}

    def change() -> None:
        state["change"] += 1
        number = state["change"]
        with catalog.engine.begin() as db:
            db.execute(update(Processing).where(Processing.id == 1).values(change=number))
            mine = (Measure.processing_id == 1) & (Measure.exposure_id == count - number % 97)
            db.execute(update(Measure).where(mine).values(change=number, total_A=12.5))

    return change


def table(results: dict[str, dict[str, dict[str, float]]]) -> str:
    """The results as Markdown."""
    lines = [
        "| route | kB | at rest p50 / p95 (ms) | while live p50 / p95 (ms) | under 100 ms |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, both in results.items():
        rest, live = both["rest"], both["live"]
        good = max(rest["p95_ms"], live["p95_ms"]) < LIMIT_MS
        lines.append(
            f"| {name} | {rest['kB']:.0f} | {rest['p50_ms']:.1f} / {rest['p95_ms']:.1f} "
            f"| {live['p50_ms']:.1f} / {live['p95_ms']:.1f} | {'yes' if good else 'NO'} |"
        )
    return "\n".join(lines)


def run(full: bool, exposures: int = 0, url: str = "", repeats: int = 0) -> tuple[str, dict[str, Any]]:
    """A Markdown section and its data: 50,000 exposures in the full set, 5,000 in the short one."""
    count = exposures or (50_000 if full else 5_000)
    repeats = repeats or (30 if full else 15)
    with tempfile.TemporaryDirectory(prefix="vitriflow-bench-") as name:
        folder = Path(name)
        catalog = Catalog(url or f"sqlite:///{folder / 'catalog.db'}")
        fill(catalog, folder, count)
        change = changer(catalog, count)
        with server(catalog.url) as base, httpx.Client(base_url=base, timeout=60) as client:
            began = time.perf_counter()
            client.get(f"/sessions/{KEY}").raise_for_status()
            first_ms = 1e3 * (time.perf_counter() - began)
            results = {}
            for shown, path in routes(count).items():
                client.get(path)
                rest = measure(client, path, repeats, lambda: None)
                results[shown] = {"rest": rest, "live": measure(client, path, repeats, change)}
        catalog.close()
    text = (
        f"## Pages and API over {count:,} exposures\n\n"
        f"{repeats} requests a route to the real server; 'while live' has a change committed before each. "
        f"First page after the server's start: {first_ms:.0f} ms.\n\n{table(results)}\n"
    )
    return text, {"exposures": count, "first_page_ms": first_ms, "routes": results}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--exposures", type=int, default=50_000)
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--url", default="", help="an empty catalog to fill, instead of a new SQLite file")
    parser.add_argument("--out", type=Path, help="where to write PREFIX.json and PREFIX.md")
    options = parser.parse_args()
    text, data = run(True, options.exposures, options.url, options.repeats)
    print(text)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.with_suffix(".json").write_text(json.dumps(data, indent=2))
        options.out.with_suffix(".md").write_text(text)


if __name__ == "__main__":
    main()
