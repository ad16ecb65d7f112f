"""What goes wrong around the engine, and that nothing is lost or done twice by it."""

import collections
import multiprocessing
import random
import sqlite3
import threading
from pathlib import Path

import pytest
from sqlalchemy import func, select, update

from tests.pipeline.conftest import PATIENT_S, House, chain, wait_for
from tests.pipeline.killing import coordinate
from tests.servers import PostgresServer
from vitriflow.catalog import Attempt, Catalog, Event, Exposure, Lease, Measure, ResultRow, now, upgrade
from vitriflow.errors import Busy
from vitriflow.pipeline import LocalPool

KILLS = 24


@pytest.fixture
def running(home: House):
    """Start a coordinator on a thread; stop it at the end."""
    stop = threading.Event()
    started = []

    def start(executor=None, **settings) -> threading.Thread:
        coordinator = home.coordinator(executor, **settings)
        thread = threading.Thread(target=coordinator.run, args=(stop,))
        thread.start()
        started.append((coordinator, thread))
        return thread

    yield start
    stop.set()
    for coordinator, thread in started:
        coordinator.wake()
        thread.join(PATIENT_S)
        assert not thread.is_alive()


def holder(house: House) -> str:
    return house.catalog.read(lambda s: s.scalar(select(Lease.owner)) or "")


def texts(house: House) -> list[str]:
    return house.catalog.read(lambda s: list(s.scalars(select(Event.text).order_by(Event.id))))


@pytest.mark.slow
def test_a_coordinator_killed_again_and_again_loses_nothing_and_does_nothing_twice(house: House) -> None:
    dice = random.Random(KILLS)
    house.start(chain(motion="reject", ctf="quarantine", pick="flaky"), seconds=0.002)
    url = house.catalog.engine.url.render_as_string(hide_password=False)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.pipeline.killing"])
    names = []
    interrupted = 0
    for kill in range(KILLS):
        fresh = [
            f"k{kill}_{i}{trouble}"
            for i, trouble in enumerate(["", "_quarantine", "", "_reject", "", "_flaky"])
        ]
        house.add(*fresh)
        names += fresh
        process = context.Process(target=coordinate, args=(url, house.processing_id, kill % 6 == 5))
        process.start()
        if kill % 4:  # every fourth is killed wherever it is in starting up
            wait_for(lambda pid=process.pid: f":{pid}:" in holder(house))
        if kill % 3 == 2:  # and every third when it has finished something, however slow this machine is
            before = house.counts().exposures.done
            wait_for(lambda before=before: house.counts().exposures.done > before)
        process.join(dice.uniform(0.0, 0.3))
        assert process.is_alive(), f"it ended by itself with {process.exitcode}"
        process.kill()
        process.join()
        process.close()
        left = house.counts()  # reconciles, at any instant
        interrupted += sum(tally.running for tally in left.nodes.values())
    assert interrupted > 0, "no kill struck while a task ran: this test showed nothing"
    assert house.counts().exposures.done > 0, "nothing was done between kills: this test showed nothing"
    counts = house.run()
    assert counts.exposures.came_in == len(names) == 6 * KILLS
    assert counts.exposures.open == 0
    ended = collections.Counter()
    rows = house.catalog.read(
        lambda s: s.execute(select(ResultRow.item_id, ResultRow.node, ResultRow.record)).all()
    )
    for item, node, record in rows:
        ended[item, node] += 1
        for artifact in record["outputs"].values():
            path = Path(artifact["path"])
            assert not path.name.startswith("."), "a temporary file was taken for a result"
            assert path.read_text() == path.stem, "half a file"
    assert set(ended.values()) == {1}
    rejected = [name for name in names if name.endswith("reject")]
    assert len(ended) == 3 * len(names) - 2 * len(rejected)
    assert counts.exposures.rejected == counts.exposures.quarantined == counts.exposures.failed == KILLS
    made = house.catalog.read(lambda s: s.scalar(select(func.count()).select_from(Attempt)))
    assert not [path for path in house.folder.rglob(".*") if path.is_file()], (
        "half-written files were left behind"
    )
    assert made >= 2 * KILLS, "the flaky ones were tried again, and each try is kept"


@pytest.mark.slow
def test_a_worker_killed_in_a_task_takes_only_that_task_with_it(home: House) -> None:
    home.start(chain(ctf="die"))
    home.add("m1_die", "m2", "m3", "m4")
    with LocalPool(1) as pool:
        counts = home.run(pool)
    assert home.states("m1_die") == {"motion": "done", "ctf": "failed", "pick": "done"}
    assert counts.exposures.done == 3
    assert home.measure("m1_die").reason_code == "worker.died"
    assert "signal 9" in home.measure("m1_die").reason
    attempts = home.catalog.read(lambda s: list(s.scalars(select(Attempt.reason))))
    assert any("running motion, ctf, pick" in reason for reason in attempts), "the first try was one call"


@pytest.mark.slow
def test_a_step_that_hangs_is_stopped_at_its_time_limit(home: House) -> None:
    home.start(chain(ctf="hang"), time_limit_s=0.7)
    home.add("m1_hang", "m2", "m3")
    with LocalPool(1) as pool:
        counts = home.run(pool, max_attempts=2)
    assert home.states("m1_hang") == {"motion": "done", "ctf": "failed", "pick": "done"}
    assert home.measure("m1_hang").reason == "ran for more than 0.7 s"
    assert home.measure("m1_hang").reason_code == "worker.time_limit"
    assert counts.exposures.done == 2


@pytest.mark.slow
def test_a_step_that_takes_too_much_memory_is_stopped(home: House) -> None:
    home.start(chain(ctf="grow"), memory_bytes=128 * 2**20)
    home.add("m1_grow", "m2")
    with LocalPool(1) as pool:
        counts = home.run(pool, max_attempts=2)
    assert home.states("m1_grow") == {"motion": "done", "ctf": "failed", "pick": "done"}
    assert home.measure("m1_grow").reason_code == "worker.out_of_memory"
    assert counts.exposures.done == 1


def test_a_call_that_can_not_be_stopped_is_given_up_and_its_late_result_ignored(home: House) -> None:
    home.start(chain(ctf="slow"), time_limit_s=0.05, seconds=0.3)
    home.add("m1")
    counts = home.run(max_attempts=1)  # on threads, which nobody can kill
    assert counts.exposures.failed == 1
    assert set(home.states("m1").values()) == {"failed"}


def test_a_full_disk_holds_work_says_so_and_lets_it_go_on_by_itself(
    home: House, running, tmp_path: Path
) -> None:
    marker = tmp_path / "full"
    marker.touch()
    home.start(chain(ctf="full"), marker=str(marker))
    home.add(*(f"m{i}_full" for i in range(6)))
    running()
    wait_for(lambda: texts(home))
    assert "full. Processing waits" in texts(home)[0]
    assert home.counts().exposures.open == 6
    marker.unlink()
    wait_for(lambda: home.counts().exposures.done == 6)
    wait_for(lambda: len(texts(home)) == 2)
    assert texts(home)[1].startswith("Processing goes on.")
    made = home.catalog.read(lambda s: s.scalar(select(func.count()).select_from(Attempt)))
    assert made == 0, "a full disk is no fault of the item"


def test_work_waits_before_the_disk_is_full(home: House) -> None:
    home.start(chain())
    home.add("m1")
    (home.folder / "root" / "processed" / "p1").mkdir(parents=True)
    stop = threading.Event()
    coordinator = home.coordinator(min_free_bytes=2**60)
    thread = threading.Thread(target=coordinator.run, args=(stop,))
    thread.start()
    wait_for(lambda: texts(home))
    stop.set()
    coordinator.wake()
    thread.join(PATIENT_S)
    assert "has less than" in texts(home)[0]
    assert home.counts().exposures.open == 1
    assert home.run().exposures.done == 1


def test_a_source_that_vanishes_holds_work_until_it_is_back(home: House, running, tmp_path: Path) -> None:
    marker = tmp_path / "unmounted"
    home.start(chain(motion="vanish"), marker=str(marker))
    running()
    home.add("m0_vanish")
    wait_for(lambda: home.counts().exposures.done == 1)
    (home.folder / "source").rename(home.folder / "elsewhere")
    marker.touch()
    home.add(*(f"m{i}_vanish" for i in range(1, 6)))
    wait_for(lambda: texts(home))
    assert "is gone" in texts(home)[0]
    (home.folder / "elsewhere").rename(home.folder / "source")
    marker.unlink()
    wait_for(lambda: home.counts().exposures.done == 6)


def test_one_file_that_vanishes_is_set_aside_alone(home: House) -> None:
    home.start(chain(motion="vanish"))
    home.add("m1_vanish", "m2")
    counts = home.run()
    assert (counts.exposures.quarantined, counts.exposures.done) == (1, 1)
    assert texts(home) == []


def test_a_coordinator_that_was_replaced_writes_nothing_more(house: House) -> None:
    house.start(chain(), seconds=0.1)
    house.add(*(f"m{i}" for i in range(20)))
    refused = []
    coordinator = house.coordinator()

    def run() -> None:
        with pytest.raises(Busy, match="taken over by another"):
            coordinator.run(threading.Event())
        refused.append(True)

    thread = threading.Thread(target=run)
    thread.start()
    wait_for(lambda: house.counts().exposures.done >= 1)
    house.catalog.write(lambda s: s.execute(update(Lease).values(owner="another", epoch=99)))
    before = house.catalog.read(lambda s: s.scalar(select(func.max(Measure.change))))
    thread.join(PATIENT_S)
    assert refused
    assert house.catalog.read(lambda s: s.scalar(select(func.max(Measure.change)))) == before
    house.catalog.write(lambda s: s.execute(update(Lease).values(expires_at=now())))
    assert house.run().exposures.done == 20


def test_a_database_locked_by_another_program_for_a_while_only_delays(home: House, running) -> None:
    home.start(chain(), seconds=0.01)
    home.add(*(f"m{i}" for i in range(20)))
    running()
    wait_for(lambda: home.counts().exposures.done >= 2)
    other = sqlite3.connect(home.catalog.engine.url.database, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    stuck = home.counts().exposures.done
    threading.Event().wait(0.7)
    assert home.counts().exposures.done == stuck, "nobody else can have written"
    other.execute("ROLLBACK")
    other.close()
    wait_for(lambda: home.counts().exposures.done == 20)


@pytest.mark.service
@pytest.mark.slow
def test_a_server_restarted_under_the_engine_loses_nothing(postgres: PostgresServer, tmp_path: Path) -> None:
    catalog = Catalog(postgres.new_database())
    upgrade(catalog)
    house = House(catalog, tmp_path / "house")
    house.start(chain(ctf="quarantine"), seconds=0.02)
    house.add(*(f"m{i}" for i in range(150)), *(f"m{i}_quarantine" for i in range(10)))
    stop = threading.Event()
    coordinator = house.coordinator()
    thread = threading.Thread(target=coordinator.run, args=(stop,))
    thread.start()
    for share in (10, 40):
        wait_for(lambda share=share: house.counts().exposures.done >= share)
        postgres.stop()
        threading.Event().wait(0.5)
        assert thread.is_alive()
        postgres.start()
    wait_for(lambda: house.counts().exposures.open == 0 and house.counts().arriving == 0)
    stop.set()
    coordinator.wake()
    thread.join(PATIENT_S)
    counts = house.counts()
    assert (counts.exposures.done, counts.exposures.quarantined) == (150, 10)
    assert catalog.read(lambda s: s.scalar(select(func.count()).select_from(ResultRow))) == 480
    assert any("could not be used" in text for text in texts(house))
    for executor in house.executors:
        executor.shutdown()
    catalog.close()


def test_exposures_registered_out_of_order_are_found(home: House, running) -> None:
    home.start(chain())
    running()
    home.add("later", id=1000)
    wait_for(lambda: home.counts().exposures.done == 1)
    home.add("earlier", id=500)  # as when its transaction took longer to commit
    wait_for(lambda: home.counts().exposures.done == 2)
    assert home.catalog.read(lambda s: s.scalar(select(func.max(Exposure.id)))) == 1000
