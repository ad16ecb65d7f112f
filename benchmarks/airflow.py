"""What Airflow adds: latency when idle, and exposures an hour through DAG runs, with five no-op nodes.

A real Airflow 3 (LocalExecutor, PostgreSQL) and vitriflow's services on the same machine, as the tests start them.
"""

import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from sqlalchemy import func, select
from tests.airflow.facility import ConductedHouse
from tests.airflow.server import ENVIRONMENT, AirflowServer
from tests.facility.acquiring import frames, write_movie
from tests.facility.command import until
from tests.servers import PostgresServer

from benchmarks.measure import table
from vitriflow.catalog import Exposure, Lot, Measure

TEMPLATE = """\
name: five
title: Five nodes that do nothing
nodes:
  align: {step: debug.noop, inputs: {movie: exposure.movie}}
  ctf: {step: debug.noop, inputs: {micrograph: align.micrograph}}
  pick: {step: debug.noop, inputs: {micrograph: align.micrograph}}
  extract: {step: debug.noop, inputs: {micrograph: pick.micrograph}}
  picture: {step: debug.noop, inputs: {micrograph: align.micrograph}}
"""
RATE_PER_H = 1000
AIM_S = 10.0


def run(full: bool) -> tuple[str, dict[str, Any]]:
    """Measure; a section of Markdown, and its data."""
    if not (ENVIRONMENT / "bin" / "airflow").is_file():
        raise RuntimeError("Airflow isn't there: run 'make airflow-env'")
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))[-1].parent
    with tempfile.TemporaryDirectory(prefix="vitriflow-airflow-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        database = PostgresServer(programs, folder / "database")
        database.start()
        house = ConductedHouse(folder / "house", TEMPLATE, runs=4, largest=32)
        airflow = AirflowServer(
            folder / "airflow", database.new_database(), house.address, house.say("airflow", "token").strip()
        )
        try:
            airflow.begin()
            with house.up():
                airflow.wait()
                until(lambda: "tem1-daq" in airflow.dags())
                data = _measure(house, folder, full)
        finally:
            airflow.stop()
            database.stop()
    return _said(data), data


def _measure(house: ConductedHouse, folder: Path, full: bool) -> dict[str, Any]:
    movie = folder / "movie.mrc"
    write_movie(movie, frames(1))
    session, _ = house.begin("bench", "idle", "tem1", "a")
    house.expose("tem1", "a", movie, "first.mrc")
    until(lambda: house.ended(session) == {"done": 1})
    idle = _idle(house, movie, session, 30 if full else 6)
    steady = _steady(house, movie, 3600.0 if full else 150.0)
    burst = _burst(house, movie, session, 1000 if full else 100)
    lots = house.read(lambda orm: orm.execute(select(func.count(Lot.id), func.max(Lot.n_exposures))).one())
    return {
        "idle_s": idle,
        "steady": steady,
        "burst": burst,
        "lots": {"runs": lots[0], "largest": lots[1]},
        "load_average": os.getloadavg()[0],
    }


def _latencies(house: ConductedHouse, after: int) -> list[float]:
    """Time from whole to result of exposures beyond a number (s)."""
    query = (
        select(Measure.latency_s)
        .join(Exposure, Exposure.id == Measure.exposure_id)
        .where(Exposure.id > after, Measure.latency_s.is_not(None))
        .order_by(Exposure.id)
    )
    return [float(one) for one in house.read(lambda orm: list(orm.scalars(query)))]


def _newest(house: ConductedHouse) -> int:
    return int(house.read(lambda orm: orm.scalar(select(func.max(Exposure.id)))) or 0)


def _done(house: ConductedHouse, session: str) -> int:
    return house.ended(session).get("done", 0)


def _idle(house: ConductedHouse, movie: Path, session: str, number: int) -> dict[str, float]:
    """One exposure at a time, the next when Airflow has come to rest."""
    before = _newest(house)
    for one in range(number):
        there = _done(house, session)
        house.expose("tem1", "a", movie, f"idle{one}.mrc")
        until(lambda there=there: _done(house, session) > there)
        time.sleep(12.0)
    found = _latencies(house, before)
    return {"p50": statistics.median(found), "max": max(found), "n": len(found)}


def _steady(house: ConductedHouse, movie: Path, seconds: float) -> dict[str, float]:
    """Exposures at the rate of the goal: whether their latency stays as it is."""
    before, began, number = _newest(house), time.monotonic(), 0
    while (now := time.monotonic() - began) < seconds:
        while number <= now * RATE_PER_H / 3600:
            house.expose("tem1", "a", movie, f"steady{number}.mrc")
            number += 1
        time.sleep(0.2)
    behind = number - len(_latencies(house, before))
    until(lambda: len(_latencies(house, before)) == number)
    found = _latencies(house, before)
    third = max(1, len(found) // 3)
    return {
        "exposures": number,
        "behind_at_the_end": behind,
        "p50_first_third": statistics.median(found[:third]),
        "p50_last_third": statistics.median(found[-third:]),
        "max": max(found),
    }


def _burst(house: ConductedHouse, movie: Path, session: str, number: int) -> dict[str, float]:
    """All at once: how fast a backlog goes."""
    there, began = _done(house, session), time.monotonic()
    for one in range(number):
        house.expose("tem1", "a", movie, f"burst{one}.mrc")
    until(lambda: _done(house, session) == there + number, timeout_s=3600.0)
    seconds = time.monotonic() - began
    return {"exposures": number, "seconds": seconds, "per_hour": 3600.0 * number / seconds}


def _said(data: dict[str, Any]) -> str:
    idle, steady, burst, lots = data["idle_s"], data["steady"], data["burst"], data["lots"]
    rows = [
        ("one exposure when idle, whole to result (s)", f"p50 {idle['p50']:.1f}, longest {idle['max']:.1f}"),
        (
            f"{steady['exposures']:.0f} exposures at {RATE_PER_H} an hour, whole to result (s)",
            f"p50 {steady['p50_first_third']:.1f} in the first third, {steady['p50_last_third']:.1f} in the last; "
            f"{steady['behind_at_the_end']:.0f} open at the end",
        ),
        (f"{burst['exposures']:.0f} exposures at once", f"{burst['per_hour']:.0f} an hour"),
        ("DAG runs, and the largest lot", f"{lots['runs']}, {lots['largest']} exposures"),
    ]
    return "\n".join(
        [
            "## Through Airflow",
            "",
            "Five no-op nodes, Airflow 3.3.2 with LocalExecutor and PostgreSQL, everything on this machine.",
            "",
            table(("what", "found"), rows),
        ]
    )


def met(data: dict[str, Any]) -> dict[str, bool]:
    """Whether the goals are met: latency when idle, and a steady rate without a growing backlog."""
    steady = data["steady"]
    return {
        "idle": data["idle_s"]["p50"] < AIM_S,
        "steady": steady["p50_last_third"] < max(2 * steady["p50_first_third"], 30.0)
        and data["burst"]["per_hour"] >= RATE_PER_H,
    }
