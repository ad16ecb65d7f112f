"""What the engine itself costs: exposures a second through a chain of four steps that do nothing.

A catalog is filled with exposures that were processed before, then new ones are taken through,
and timed, by the real coordinator with the real process pool, on SQLite. First with few exposures
in the catalog, then with many.

    python -m benchmarks.engine [--full] [--url URL]
"""

import argparse
import json
import statistics
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from sqlalchemy import func, insert, select

from vitriflow.catalog import (
    Catalog,
    Experiment,
    Exposure,
    Measure,
    Microscope,
    ResultRow,
    Sample,
    Session,
    Task,
    now,
    upgrade,
)
from vitriflow.pipeline import Coordinator, LocalPool, Settings, counts, parse_template, start_processing

FEW, MANY = 1_000, 50_000
BATCH = 1_000
CHAIN = """
name: chain
nodes:
  a: {step: debug.noop, inputs: {movie: exposure.movie}}
  b: {step: debug.noop, inputs: {micrograph: a.micrograph}}
  c: {step: debug.noop, inputs: {micrograph: b.micrograph}}
  d: {step: debug.noop, inputs: {micrograph: c.micrograph}}
"""


def run(full: bool, url: str | None = None) -> tuple[str, dict[str, Any]]:
    """Measure, and give a Markdown section and the numbers."""
    with tempfile.TemporaryDirectory() as folder:
        catalog = Catalog(url or f"sqlite:///{folder}/catalog.db")
        upgrade(catalog)
        session = _session(catalog, Path(folder))
        processing = start_processing(
            catalog, session, "p1", parse_template(CHAIN, "chain"), {}, Path(folder) / "p1"
        )
        with LocalPool(2) as pool:
            pool.submit(abs, 1).result()
            _timed(catalog, session, processing, pool, 200)  # warm
            repeats = 5 if full else 3
            levels = [_level(catalog, session, processing, pool, there, repeats) for there in (FEW, MANY)]
        clock = time.perf_counter()
        found = counts(catalog, processing)
        counting_ms = 1e3 * (time.perf_counter() - clock)
        catalog.close()
    if not found.reconciles or found.exposures.open:
        raise RuntimeError(f"not all exposures were processed: {found}")
    few, many = levels
    data = {
        "exposures_per_s": many["exposures_per_s"],
        "growth": few["exposures_per_s"] / many["exposures_per_s"],
        "cpu_growth": many["cpu_ms"] / few["cpu_ms"],
        "counting_ms": counting_ms,
        "levels": levels,
    }
    lines = [
        "| exposures in the catalog | exposures/s (median, least, greatest) | coordinator's CPU per exposure |",
        "| ---: | ---: | ---: |",
        *(
            f"| {one['there']:,} | {one['exposures_per_s']:.0f} ({min(one['all']):.0f}, {max(one['all']):.0f})"
            f" | {one['cpu_ms']:.2f} ms |"
            for one in levels
        ),
    ]
    text = (
        f"Four no-op nodes, two worker processes, {'a server' if url else 'SQLite'}; "
        f"{BATCH:,} new exposures each time.\n\n"
        + "\n".join(lines)
        + f"\n\nCost per exposure at {MANY:,} over that at {FEW:,}: {data['growth']:.2f}"
        f" (CPU time alone: {data['cpu_growth']:.2f})."
        f" Counting everything at {MANY:,}: {counting_ms:.0f} ms."
    )
    return text, data


def _level(
    catalog: Catalog, session: int, processing: int, pool: LocalPool, there: int, repeats: int
) -> dict[str, Any]:
    _fill(catalog, session, processing, there)
    rates, cpu = [], []
    for _ in range(repeats):
        seconds, used = _timed(catalog, session, processing, pool, BATCH)
        rates.append(BATCH / seconds)
        cpu.append(1e3 * used / BATCH)
    return {
        "there": there,
        "exposures_per_s": statistics.median(rates),
        "all": rates,
        "cpu_ms": statistics.median(cpu),
    }


def _timed(
    catalog: Catalog, session: int, processing: int, pool: LocalPool, number: int
) -> tuple[float, float]:
    """Take so many new exposures through: wall time and this process's CPU time (s)."""
    first = catalog.read(lambda s: s.scalar(select(func.count()).select_from(Exposure))) or 0
    rows = [_exposure(session, first + i) for i in range(number)]
    catalog.write(lambda s: s.connection().execute(insert(Exposure), rows) and None)
    coordinator = Coordinator(catalog, processing, pool, Settings())
    wall, cpu = time.perf_counter(), time.process_time()
    coordinator.run(threading.Event(), until_idle=True)
    return time.perf_counter() - wall, time.process_time() - cpu


def _exposure(session: int, number: int) -> dict[str, Any]:
    name = f"GridSquare_{number // 100}/Data/FoilHole_{number}_Data"
    return {
        "session_id": session,
        "key": f"{name}.tiff",
        "item": name,
        "path": f"/nowhere/{name}.tiff",
        "state": "complete",
        "first_seen_at": now(),
        "complete_at": now(),
        "details": {"pixel_size_A": 0.83, "voltage_kV": 300.0, "n_frames": 40},
    }


def _fill(catalog: Catalog, session: int, processing: int, wanted: int) -> None:
    """Add exposures that are done, as copies of one that was really processed, up to so many."""
    there = catalog.read(lambda s: s.scalar(select(func.count()).select_from(Exposure))) or 0
    query = select(ResultRow.node, ResultRow.record).order_by(ResultRow.id).limit(4)
    records = {node: record for node, record in catalog.read(lambda s: s.execute(query).all())}  # noqa: C416
    moment = now()
    for start in range(there, wanted, 5_000):
        numbers = range(start, min(start + 5_000, wanted))

        def work(s: Any, numbers: range = numbers) -> None:
            db = s.connection()
            highest = db.scalar(select(func.max(Exposure.id))) or 0
            db.execute(insert(Exposure), [_exposure(session, n) for n in numbers])
            new = list(db.scalars(select(Exposure.id).where(Exposure.id > highest)))
            mine = [
                {"processing_id": processing, "node": node, "item_id": i} for i in new for node in records
            ]
            times = {"queued_at": moment, "started_at": moment, "finished_at": moment}
            db.execute(insert(Task), [{**row, "state": "done", "attempts": 1, **times} for row in mine])
            results = [
                {**row, "status": "done", "record": records[row["node"]], "created_at": moment}
                for row in mine
            ]
            db.execute(insert(ResultRow), results)
            complete = dict(
                db.execute(select(Exposure.id, Exposure.complete_at).where(Exposure.id > highest)).all()
            )
            plotted = [
                {"processing_id": processing, "exposure_id": i, "status": "done", "complete_at": complete[i]}
                for i in new
            ]
            db.execute(insert(Measure), plotted)

        catalog.write(work)


def _session(catalog: Catalog, folder: Path) -> int:
    def work(session: Any) -> int:
        microscope, experiment = Microscope(name="tem1"), Experiment(name="bench", created_at=now())
        session.add_all([microscope, experiment])
        session.flush()
        sample = Sample(experiment_id=experiment.id, name="bench")
        session.add(sample)
        session.flush()
        made = Session(
            key="bench",
            microscope_id=microscope.id,
            sample_id=sample.id,
            source=str(folder),
            root=str(folder),
            created_at=now(),
        )
        session.add(made)
        session.flush()
        return made.id

    return catalog.write(work)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--full", action="store_true", help="more repeats")
    parser.add_argument("--url", help="an empty database to use instead of an SQLite file")
    given = parser.parse_args()
    section, numbers = run(given.full, given.url)
    print(section)
    print()
    print(json.dumps(numbers, indent=1))
