"""Steps that work on many exposures: what triggers let go, and that nothing is lost or done twice."""

import json
import multiprocessing
import random
import threading
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, select, update

from tests.pipeline.conftest import PATIENT_S, House, wait_for
from tests.pipeline.killing import coordinate
from vitriflow.catalog import Batch, BatchMember, Exposure, Lease, ResultRow, Session, Task
from vitriflow.errors import BadTemplate
from vitriflow.pipeline import LocalPool, explain, make_plan, parse_template

FLOW = """
name: flow
nodes:
  motion: {step: play.any, inputs: {movie: exposure.movie}, set: {minds: '%(minds)s'}}
  flow: {step: trigger, inputs: {micrograph: motion.micrograph}, set: %(when)s}
  classes: {step: %(step)s, inputs: {micrograph: flow.micrograph}}
"""


def flow(when: str, minds: str = "", step: str = "play.gather") -> str:
    return FLOW % {"when": when, "minds": minds, "step": step}


def batches(house: House) -> list[tuple[str, list[str]]]:
    """Cause and new members of each batch that stands."""
    query = (
        select(Batch.id, Batch.cause, Exposure.item)
        .join(BatchMember, BatchMember.batch_id == Batch.id)
        .join(Exposure, Exposure.id == BatchMember.exposure_id)
        .where(Batch.revision == 1)
        .order_by(Batch.id, Exposure.id)
    )
    found: dict[int, tuple[str, list[str]]] = {}
    for number, cause, item in house.catalog.read(lambda s: s.execute(query).all()):
        found.setdefault(number, (cause, []))[1].append(item)
    return list(found.values())


def results(house: House, node: str = "classes") -> list[dict[str, Any]]:
    """Records that a node left of batches, in their order."""
    query = (
        select(ResultRow.record)
        .where(ResultRow.node == node, ResultRow.revision == 1)
        .order_by(ResultRow.item_id)
    )
    return house.catalog.read(lambda s: list(s.scalars(query)))


def close(house: House, state: str = "closed") -> None:
    house.catalog.write(lambda s: s.execute(update(Session).values(state=state)))


def test_batches_follow_each_other_and_the_state_grows(house: House) -> None:
    house.start(flow("{micrographs: 3}"))
    house.add(*(f"m{i}" for i in range(7)))
    counts = house.run()
    assert sorted(len(members) for _, members in batches(house)) == [1, 3, 3]
    assert sorted(m for _, members in batches(house) for m in members) == [f"m{i}" for i in range(7)]
    assert batches(house)[-1][0] == "end"
    assert counts.batches["classes"].done == 3
    assert [len(record["held"]) for record in results(house)] == [3, 6, 7]
    assert len({record["outputs"]["state"]["path"] for record in results(house)}) == 3


def test_a_growing_batch_has_all_members_and_says_which_are_new(home: House) -> None:
    home.start(flow("{micrographs: 2, release: growing}"))
    home.add("m1", "m2")
    home.run()
    home.add("m3", "m4", "m5")
    home.run()
    last = results(home)[-1]
    assert last["seen"] == ["m1", "m2", "m3", "m4", "m5"]
    assert sorted(last["held"]) == last["seen"]
    assert last["n_new"] < 5
    newest = home.catalog.read(lambda s: s.scalars(select(Batch).order_by(Batch.id.desc())).first())
    assert (newest.mode, newest.n_items) == ("growing", 5)


def test_particles_count_as_well_as_micrographs(home: House) -> None:
    home.start(flow("{particles: 14}"))  # each brings 7
    home.add(*(f"m{i}" for i in range(4)))
    home.run()
    assert [(cause, len(members)) for cause, members in batches(home)] == [("particles", 2)] * 2


def test_once_lets_one_batch_go(home: House) -> None:
    home.start(flow("{micrographs: 2, release: once}"))
    home.add(*(f"m{i}" for i in range(5)))
    counts = home.run()
    assert len(batches(home)) == 1
    assert counts.exposures.done == 5
    home.add("m9")
    assert home.run().batches["classes"].came_in == 1


@pytest.fixture
def running(home: House):
    """A coordinator on a thread, stopped at the end."""
    stop = threading.Event()
    started = []

    def start(**settings: Any) -> None:
        coordinator = home.coordinator(**settings)
        thread = threading.Thread(target=coordinator.run, args=(stop,))
        thread.start()
        started.append((coordinator, thread))

    yield start
    stop.set()
    for coordinator, thread in started:
        coordinator.wake()
        thread.join(PATIENT_S)
        assert not thread.is_alive()


def test_a_stalled_stream_goes_on_by_time(home: House, running) -> None:
    home.start(flow("{micrographs: 100, after_s: 0.3}"))
    home.add("m1", "m2")
    running()
    wait_for(lambda: home.counts().batches.get("classes") and home.counts().batches["classes"].done)
    assert {cause for cause, _ in batches(home)} == {"time"}


def test_a_session_closed_while_it_runs_releases_the_rest_and_nothing_hangs(home: House, running) -> None:
    home.start(flow("{micrographs: 100}", minds="fail"), seconds=0.02)
    home.add(*(f"m{i}" for i in range(5)), "m5_fail")
    running(max_attempts=1)
    close(home)
    wait_for(lambda: home.counts().batches.get("classes") and home.counts().batches["classes"].done == 1)
    counts = home.counts()
    assert (counts.exposures.done, counts.exposures.failed, counts.exposures.open) == (5, 1, 0)
    assert batches(home) == [("end", [f"m{i}" for i in range(5)])]
    close(home, "active")  # it goes on, and gets new data
    home.add("m7")
    wait_for(lambda: home.counts().exposures.done == 6)
    close(home)
    wait_for(lambda: home.counts().batches["classes"].done == 2)
    assert batches(home)[-1] == ("end", ["m7"])


def test_a_broken_item_holds_no_batch_back(home: House) -> None:
    home.start(flow("{micrographs: 2}", minds="quarantine"))
    home.add("m1", "m2_quarantine", "m3")
    counts = home.run()
    assert [members for _, members in batches(home)] == [["m1", "m3"]]
    assert home.states("m2_quarantine") == {"motion": "quarantined", "flow": "stopped"}
    assert counts.exposures.quarantined == 1


STOPPING = """
name: stopping
nodes:
  motion: {step: play.any, inputs: {movie: exposure.movie}}
  enough: {step: counter, inputs: {micrograph: motion.micrograph}, set: {enough: 3}}
  flow: {step: trigger, inputs: {micrograph: motion.micrograph}, set: {micrographs: 100, stop_on: enough}}
  classes: {step: play.gather, inputs: {micrograph: flow.micrograph}}
"""


def test_a_signal_from_another_branch_releases_what_waits_and_stops_the_trigger(home: House) -> None:
    home.start(STOPPING)
    home.add("m1", "m2", "m3")
    home.run()
    home.add("m4", "m5")
    counts = home.run()
    assert [cause for cause, _ in batches(home)] == ["stop"]
    assert counts.exposures.done == 5, "what stays behind isn't faulty"
    assert home.record("m4", "enough")["outputs"] == {}


CHAIN = """
name: chained
nodes:
  motion: {step: play.any, inputs: {movie: exposure.movie}}
  flow: {step: trigger, inputs: {micrograph: motion.micrograph}, set: {micrographs: 2}}
  classes: {step: play.gather, inputs: {micrograph: flow.micrograph}, set: {minds: '%s', marker: '%s'}}
  choice: {step: play.choose, inputs: {classes: classes.classes}}
  report: {step: play.report, inputs: {micrograph: motion.micrograph, classes: choice.classes}}
"""


def test_batch_steps_follow_each_other_and_a_session_step_comes_last(home: House) -> None:
    home.start(CHAIN % ("", ""))
    home.add("m1", "m2", "m3")
    home.run()
    assert len(results(home, "choice")) == 2
    (report,) = results(home, "report")
    assert report["seen"] == ["m1", "m2", "m3"]
    newest = results(home, "choice")[-1]["outputs"]["classes"]["path"]
    assert report["provenance"]["inputs"]["classes"]["path"] == newest
    assert json.loads(Path(newest).read_text()) == []
    home.run()
    assert len(results(home, "report")) == 1, "nothing came since"
    home.add("m4")
    home.run()
    assert [len(one["seen"]) for one in results(home, "report")] == [3, 4]


def test_a_batch_that_fails_stops_what_hangs_on_it_and_not_the_next(home: House, tmp_path: Path) -> None:
    marker = tmp_path / "trouble"
    marker.touch()
    home.start(CHAIN % ("fail", marker))
    home.add("m1", "m2", "m3", "m4")
    counts = home.run()
    assert (counts.batches["classes"].failed, counts.batches["classes"].done) == (1, 1)
    assert (counts.batches["choice"].stopped, counts.batches["choice"].done) == (1, 1)
    assert counts.batches["report"].done == 1


def test_a_worker_killed_in_a_batch_makes_it_again_from_the_same_state(home: House, tmp_path: Path) -> None:
    marker = tmp_path / "trouble"
    home.start(CHAIN % ("die", marker))
    home.add("m1", "m2")
    pool = LocalPool(1)
    home.executors.append(pool)
    home.run(pool)
    marker.touch()
    home.add("m3", "m4")
    home.run(pool)
    assert not marker.exists(), "the worker wasn't killed: this test showed nothing"
    assert [sorted(one["held"]) for one in results(home)] == [["m1", "m2"], ["m1", "m2", "m3", "m4"]]
    folder = home.folder / "root" / "processed" / "p1" / "Class2D"
    assert not [path for path in folder.rglob(".*") if path.is_file()], "half-written files remain"


def test_a_batch_that_nobody_runs_any_more_is_run_again(home: House) -> None:
    home.start(flow("{micrographs: 2}"))
    home.add("m1", "m2")
    home.run()

    # As a coordinator leaves it that is killed while the batch runs: announced, and no result.
    def undo(session: Any) -> None:
        session.query(ResultRow).where(ResultRow.node == "classes").delete()
        session.execute(update(Task).where(Task.node == "classes").values(state="running", attempts=0))

    home.catalog.write(undo)
    home.run()
    assert len(batches(home)) == 1
    assert [one["held"] for one in results(home)] == [["m1", "m2"]]


def test_an_exposure_done_anew_does_not_go_on_twice(home: House) -> None:
    from vitriflow.catalog import now

    home.start(flow("{micrographs: 1}"))
    home.add("m1")
    home.run()
    home.change("m1", complete_at=now())
    counts = home.run()
    assert counts.exposures.done == 1
    assert len(batches(home)) == 1


@pytest.mark.parametrize(
    ("nodes", "line", "message"),
    [
        ("  a: {step: play.gather, inputs: {micrograph: exposure.movie}}", 3, "a trigger"),
        ("  t: {step: trigger, inputs: {movie: exposure.movie}}", 3, "micrographs, particles and after_s"),
        (
            "  t: {step: trigger, inputs: {movie: exposure.movie}, set: {micrographs: 0}}",
            3,
            "greater than or equal to 1",
        ),
        (
            "  m: {step: play.any, inputs: {movie: exposure.movie}}\n"
            "  t: {step: trigger, inputs: {movie: exposure.movie}, set: {micrographs: 1}}\n"
            "  a: {step: play.gather, inputs: {micrograph: t.micrograph}}",
            5,
            "t.PORT with PORT one of movie",
        ),
        (
            "  m: {step: play.any, inputs: {movie: exposure.movie}}\n"
            "  t: {step: trigger, inputs: {micrograph: m.micrograph}, set: {micrographs: 1}}\n"
            "  u: {step: trigger, inputs: {micrograph: m.micrograph}, set: {micrographs: 1}}\n"
            "  a: {step: play.gather, inputs: {micrograph: t.micrograph}}\n"
            "  b: {step: play.gather, inputs: {micrograph: u.micrograph, classes: a.classes}}",
            7,
            "one trigger",
        ),
        (
            "  m: {step: play.any, inputs: {movie: exposure.movie}}\n"
            "  t: {step: trigger, inputs: {micrograph: m.micrograph}, set: {micrographs: 1}}\n"
            "  n: {step: play.any, inputs: {micrograph: t.micrograph}}",
            5,
            "can't use a batch",
        ),
        (
            "  m: {step: play.any, inputs: {movie: exposure.movie}}\n"
            "  t: {step: trigger, inputs: {micrograph: m.micrograph}, set: {micrographs: 1, stop_on: n}}",
            4,
            "the name of another node",
        ),
    ],
)
def test_batches_that_cannot_work_are_refused_with_the_line(nodes: str, line: int, message: str) -> None:
    with pytest.raises(BadTemplate, match=rf"t.yaml, line {line}.*{message}"):
        make_plan(parse_template(f"name: t\nnodes:\n{nodes}\n", "t.yaml"))


def test_a_result_of_a_batch_is_followed_to_the_camera_files_of_its_members(home: House) -> None:
    home.start(flow("{micrographs: 2}"))
    home.add("m1", "m2", "m3")
    home.run()
    query = select(ResultRow.id).where(ResultRow.node == "classes").order_by(ResultRow.id)
    first = home.catalog.read(lambda s: s.scalars(query).first())
    (link,) = explain(home.catalog, first)
    assert len(link.inputs) == 2
    assert {file.key for file in link.inputs.values()} < {"m1.mrc", "m2.mrc", "m3.mrc"}
    assert link.item == "batch 1 of flow, released by micrographs"


@pytest.mark.slow
def test_a_coordinator_killed_again_and_again_releases_every_exposure_once(
    home: House, tmp_path: Path
) -> None:
    dice = random.Random(3)
    journal = tmp_path / "journal"
    home.start(flow("{micrographs: 2, after_s: 0.1}"), journal=str(journal), seconds=0.01)
    url = home.catalog.engine.url.render_as_string(hide_password=False)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.pipeline.killing"])
    names: list[str] = []
    for kill in range(8):
        fresh = [f"k{kill}_{i}" for i in range(5)]
        home.add(*fresh)
        names += fresh
        process = context.Process(target=coordinate, args=(url, home.processing_id, False))
        process.start()
        fewest = len(names) - 3
        wait_for(lambda fewest=fewest: home.counts().exposures.came_in >= fewest)
        process.join(dice.uniform(0.0, 0.25))
        process.kill()
        process.join()
        home.counts()  # reconciles
        home.catalog.write(lambda s: s.execute(delete(Lease)))  # as when it has run out
    counts = home.run()
    assert counts.exposures.done == len(names)
    members = [member for _, found in batches(home) for member in found]
    assert sorted(members) == sorted(names), "an exposure was lost, or went on twice"
    assert sorted(results(home)[-1]["held"]) == sorted(names)
    assert counts.batches["classes"].done == len(batches(home))
