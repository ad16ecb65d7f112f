"""What Parsl on Slurm costs: a task's way there and back, and exposures through pilots by the real coordinator.

A Slurm of its own is started (as root, with Debian's packages: 'make services'), with one node on this
machine. First single tasks, one after the other; then exposures of four no-op nodes, in equal parts, so
that a cost that grows would show.

    python -m benchmarks.cluster [--full]
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.clusters import Slurm

from benchmarks.engine import CHAIN, _session, _timed
from vitriflow.catalog import Catalog, upgrade
from vitriflow.config import PoolSection
from vitriflow.facility.compute import ParslPool
from vitriflow.pipeline import counts, parse_template, start_processing

TASKS = 1_000
EXPOSURES = 10_000
PARTS = 10


def run(full: bool) -> tuple[str, dict[str, Any]]:
    """Measure, and give a Markdown section and the numbers."""
    why = Slurm.missing()
    if why:
        raise RuntimeError(why)
    slurm = Slurm()
    os.environ.update(slurm.environment)
    try:
        return _measured(slurm.shared, EXPOSURES if full else EXPOSURES // 5)
    finally:
        slurm.stop()
        for name in slurm.environment:
            os.environ.pop(name, None)


def _measured(scratch: Path, exposures: int) -> tuple[str, dict[str, Any]]:
    section = PoolSection(
        kind="slurm", partition="cpu", scratch=scratch, workers_per_node=2, poll_s=1.0, idle_s=600.0
    )
    pool = ParslPool("bench", section)
    try:
        started = time.perf_counter()
        pool.submit(abs, -1).result(300)
        first_s = time.perf_counter() - started
        for _ in range(50):
            pool.submit(abs, -1).result(60)  # both workers have imported what they need
        ms = sorted(_one_task(pool) for _ in range(TASKS))
        clock = time.perf_counter()
        for future in [pool.submit(abs, -number) for number in range(TASKS)]:
            future.result(60)
        rate = TASKS / (time.perf_counter() - clock)
        parts = _exposures(pool, exposures)
    finally:
        pool.shutdown(cancel_futures=True)
    third = max(1, PARTS // 3)
    early = statistics.median(part["ms"] for part in parts[:third])
    late = statistics.median(part["ms"] for part in parts[-third:])
    data = {
        "first_s": first_s,
        "p50_ms": statistics.median(ms),
        "p95_ms": ms[int(0.95 * len(ms))],
        "tasks_per_s": rate,
        "exposures": exposures,
        "exposures_per_s": exposures / sum(part["seconds"] for part in parts),
        "growth": late / early,
        "parts": parts,
    }
    text = (
        f"A pilot of two workers on a Slurm of one node. The first task, with the pilot's start: {first_s:.1f} s. "
        f"Then a task there and back: p50 {data['p50_ms']:.1f} ms, p95 {data['p95_ms']:.1f} ms; "
        f"{rate:.0f} tasks/s when many wait.\n\n"
        f"{exposures:,} exposures of four no-op nodes by the coordinator: {data['exposures_per_s']:.0f} exposures/s; "
        f"cost per exposure in the last third over the first: {data['growth']:.2f}."
    )
    return text, data


def _one_task(pool: ParslPool) -> float:
    """There and back (ms)."""
    clock = time.perf_counter()
    pool.submit(abs, -1).result(60)
    return 1e3 * (time.perf_counter() - clock)


def _exposures(pool: ParslPool, number: int) -> list[dict[str, float]]:
    """Take exposures through in equal parts: seconds, and milliseconds for each exposure."""
    with tempfile.TemporaryDirectory() as folder:
        catalog = Catalog(f"sqlite:///{folder}/catalog.db")
        upgrade(catalog)
        session = _session(catalog, Path(folder))
        processing = start_processing(
            catalog, session, "p1", parse_template(CHAIN, "chain"), {}, Path(folder) / "p1"
        )
        parts = []
        for _ in range(PARTS):
            seconds, _ = _timed(catalog, session, processing, pool, number // PARTS)
            parts.append({"seconds": seconds, "ms": 1e3 * seconds * PARTS / number})
        found = counts(catalog, processing)
        catalog.close()
    if not found.reconciles or found.exposures.done != number:
        raise RuntimeError(f"not all exposures were processed: {found}")
    return parts


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--full", action="store_true", help=f"{EXPOSURES:,} exposures")
    section_text, numbers = run(parser.parse_args().full)
    print(section_text)
    print()
    print(json.dumps(numbers, indent=1))
