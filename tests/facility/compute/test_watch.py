"""People are told once that a pool doesn't work, and once that it does again; a coordinator on pilots loses nothing."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import select

from tests.databases import sqlite_catalog
from tests.facility.command import until
from tests.facility.compute.conftest import pilots_below
from tests.pipeline.conftest import QUICK, House
from vitriflow.catalog import Attempt, Catalog, Event
from vitriflow.facility.compute import ParslPool, Problem, SharedPool
from vitriflow.facility.pool_watch import PoolWatch
from vitriflow.pipeline import Coordinator

__all__ = ["sqlite_catalog"]
NOOP = """
name: noop
nodes:
  a: {step: debug.noop, inputs: {movie: exposure.movie}, set: {seconds: 0.5, write: true}}
  b: {step: debug.noop, inputs: {micrograph: a.micrograph}}
"""


class Troubled(SharedPool):
    """A pool with the problems that it's given."""

    trouble: tuple[Problem, ...] = ()

    def problems(self) -> list[Problem]:
        return list(self.trouble)


class Nothing:
    """Runs nothing."""

    slots = {"cpu": 1, "gpu": 0}

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        return


def test_a_problem_is_told_once_while_it_lasts_and_once_when_it_is_over(
    sqlite_catalog: Catalog, tmp_path: Path
) -> None:
    house = House(sqlite_catalog, tmp_path / "house")
    pool = Troubled(Nothing())  # type: ignore[arg-type]
    watch = PoolWatch(house.catalog, pool, lambda: [house.session_id])

    def told() -> list[tuple[str, str]]:
        query = select(Event.severity, Event.text).order_by(Event.id)
        return [
            (severity, text) for severity, text in house.catalog.read(lambda orm: orm.execute(query).all())
        ]

    watch.look()
    assert told() == []
    for minutes in (15, 16, 17):
        pool.trouble = (Problem("farm/waiting", f"No pilot has started for {minutes} min."),)
        watch.look()
    assert told() == [("alarm", "No pilot has started for 15 min.")]
    pool.trouble = ()
    watch.look()
    watch.look()
    assert told()[1:] == [("info", "Over: No pilot has started for 15 min.")]
    pool.shutdown()


@pytest.mark.slow
def test_a_pilot_that_is_killed_in_mid_task_costs_its_call_another_try_and_nothing_else(
    sqlite_catalog: Catalog, tmp_path: Path, scratch: Path, open_pool: Callable[..., ParslPool]
) -> None:
    house = House(sqlite_catalog, tmp_path / "house")
    house.add(*(f"m{number}" for number in range(6)))
    house.start(NOOP)
    shared = SharedPool(open_pool())
    coordinator = Coordinator(
        house.catalog,
        house.processing_id,
        shared.for_experiment("e"),
        QUICK.model_copy(update={"lease_s": 30}),
    )
    runner = threading.Thread(target=coordinator.run, args=(threading.Event(), True))
    runner.start()
    try:
        until(lambda: house.counts().exposures.done >= 1)
        for process in [one for pilot in pilots_below(scratch) for one in (*pilot.children(True), pilot)]:
            process.kill()
    finally:
        runner.join(240)
        shared.shutdown(cancel_futures=True)
    assert house.counts().exposures.done == 6
    reasons = house.catalog.read(lambda orm: list(orm.scalars(select(Attempt.reason_code))))
    assert reasons
    assert set(reasons) == {"worker.died"}
    assert len(list((tmp_path / "house").rglob("m?.txt"))) == 6
