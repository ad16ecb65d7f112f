"""What the engine makes of exposures, on each kind of database."""

import threading
from pathlib import Path

import pytest
from sqlalchemy import func, select, update

from tests.pipeline.conftest import PATIENT_S, House, chain, wait_for
from vitriflow.catalog import Attempt, Exposure, Processing, ResultRow, Task, now
from vitriflow.errors import BadParameter, Busy
from vitriflow.pipeline import LocalPool, explain, parse_template, start_processing

TWO_SORTS = """
name: two_sorts
nodes:
  motion: {step: play.any, inputs: {movie: exposure.movie}, set: {gpus: 1}}
  pick: {step: play.needy, inputs: {micrograph: motion.micrograph}}
"""


def test_every_exposure_is_taken_through_all_nodes(house: House) -> None:
    house.start(chain())
    house.add(*(f"m{i}" for i in range(10)))
    counts = house.run()
    assert counts.exposures.done == 10
    assert {name: tally.done for name, tally in counts.nodes.items()} == {"motion": 10, "ctf": 10, "pick": 10}
    files = sorted(p.relative_to(house.folder / "root").as_posix() for p in house.folder.rglob("*m3.txt"))
    assert files == [f"processed/p1/Play/job00{n}/m3.txt" for n in (2, 3, 4)]


def test_nodes_of_one_call_share_what_is_in_memory_and_are_recorded_each_by_itself(house: House) -> None:
    house.start(chain(), seconds=0.05)
    house.add("m1")
    house.run()
    assert house.record("m1", "ctf")["kept"], "the micrograph was read back from disk"
    motion, ctf = house.task("m1", "motion"), house.task("m1", "ctf")
    assert motion.started_at < motion.finished_at <= ctf.started_at < ctf.finished_at
    assert house.record("m1", "ctf")["provenance"]["parameters"]["seconds"] == 0.05


def test_plotted_values_and_latency_stand_in_columns(house: House) -> None:
    house.start(chain())
    house.add("m1")
    house.run()
    row = house.measure("m1")
    assert (row.status, row.n_picks, row.total_A) == ("done", 7, 1.5)
    assert row.latency_s == pytest.approx((row.finished_at - row.complete_at).total_seconds())
    assert row.first_result_at is not None
    assert row.change == house.catalog.read(lambda s: s.scalars(select(Processing.change)).one())


def test_a_quarantined_fit_does_not_stop_picking(house: House) -> None:
    house.start(chain(ctf="quarantine"))
    house.add("m1", "m2_quarantine")
    counts = house.run()
    assert house.states("m2_quarantine") == {"motion": "done", "ctf": "quarantined", "pick": "done"}
    row = house.measure("m2_quarantine")
    assert (row.status, row.reason_code) == ("quarantined", "ctf.no_rings")
    assert "Look at the ice" in row.reason
    assert (counts.exposures.done, counts.exposures.quarantined) == (1, 1)


@pytest.mark.parametrize(
    ("trouble", "state"), [("quarantine", "quarantined"), ("fail", "failed"), ("reject", "rejected")]
)
def test_what_hangs_on_a_refused_node_is_stopped_and_says_why(home: House, trouble: str, state: str) -> None:
    home.start(chain(motion=trouble))
    home.add(f"m1_{trouble}", "m2")
    home.run()
    assert home.states(f"m1_{trouble}") == {"motion": state, "ctf": "stopped", "pick": "stopped"}
    assert home.states("m2") == {"motion": "done", "ctf": "done", "pick": "done"}
    assert home.measure(f"m1_{trouble}").status == state
    assert home.task(f"m1_{trouble}", "pick").reason.startswith(f"motion ended {state}: ")


def test_an_exposure_set_aside_at_registration_is_counted_and_comes_in_anew_when_mended(house: House) -> None:
    house.start(chain())
    house.add("m1", state="problem", problem_code="file.truncated", problem="half of it is missing")
    house.add("m2")
    counts = house.run()
    assert (counts.exposures.quarantined, counts.exposures.done, counts.set_aside) == (1, 1, 1)
    assert house.measure("m1").reason == "half of it is missing"
    house.change("m1", state="complete", problem=None, problem_code=None)
    counts = house.run()
    assert (counts.exposures.done, counts.set_aside) == (2, 0)
    assert house.measure("m1").reason is None


def test_a_file_that_changed_after_it_was_processed_is_done_anew_and_the_old_results_stay(
    house: House,
) -> None:
    house.start(chain())
    house.add("m1", "m2", blake3="a" * 64)
    house.run()
    house.change("m1", blake3="b" * 64, complete_at=now())
    counts = house.run()
    assert (counts.exposures.came_in, counts.exposures.done) == (2, 2)
    query = (
        select(ResultRow.revision, ResultRow.record)
        .join(Exposure, Exposure.id == ResultRow.item_id)
        .where(Exposure.item == "m1", ResultRow.node == "motion")
        .order_by(ResultRow.revision)
    )
    hashes = {
        revision: record["provenance"]["inputs"]["movie"]["blake3"][0]
        for revision, record in house.catalog.read(lambda s: list(s.execute(query)))
    }
    assert hashes == {-1: "a", 1: "b"}


def test_a_file_that_was_spoilt_after_it_was_processed_no_longer_counts_as_done(house: House) -> None:
    house.start(chain())
    house.add("m1")
    house.run()
    house.change("m1", state="problem", problem_code="file.truncated", problem="half of it is gone")
    counts = house.run()
    assert (counts.exposures.quarantined, counts.exposures.done, counts.set_aside) == (1, 0, 1)
    assert house.measure("m1").reason == "half of it is gone"


def test_a_growing_file_is_left_alone_until_it_is_complete(house: House) -> None:
    house.start(chain())
    house.add("growing", state="seen")
    house.add("later")
    stop = threading.Event()
    coordinator = house.coordinator()
    thread = threading.Thread(target=coordinator.run, args=(stop,))
    thread.start()
    wait_for(lambda: house.counts().exposures.done == 1)
    assert house.counts().arriving == 1
    house.change("growing", state="complete")
    house.add("third", state="problem", problem="broken")
    wait_for(lambda: house.counts().exposures.done == 2 and house.counts().exposures.quarantined == 1)
    house.change("third", state="complete")
    house.add("fourth")
    coordinator.wake()
    wait_for(lambda: house.counts().exposures.done == 4)
    stop.set()
    coordinator.wake()
    thread.join(PATIENT_S)
    assert not thread.is_alive()


def test_an_exposure_of_another_kind_is_set_aside_in_words(home: House) -> None:
    home.start(chain())
    home.add("picture", kind="micrograph")
    counts = home.run()
    assert counts.exposures.quarantined == 1
    assert home.measure("picture").reason == "picture is a micrograph; this pipeline takes movies"


def test_a_second_coordinator_is_refused_with_the_name_of_the_first(house: House) -> None:
    house.start(chain(), seconds=0.3)
    house.add("m1")
    stop = threading.Event()
    first = house.coordinator()
    thread = threading.Thread(target=first.run, args=(stop,))
    thread.start()
    wait_for(lambda: house.counts().exposures.came_in == 1)
    with pytest.raises(Busy, match=r"processing/1; .*found process \d+ on"):
        house.run()
    stop.set()
    first.wake()
    thread.join(PATIENT_S)
    assert house.run().exposures.done == 1  # it was given back


def test_a_stop_leaves_nothing_running_and_the_next_run_finishes_the_work(house: House) -> None:
    house.start(chain(), seconds=0.1)
    house.add(*(f"m{i}" for i in range(8)))
    stop = threading.Event()
    coordinator = house.coordinator(LocalPool(1), stop_grace_s=0.0)
    thread = threading.Thread(target=coordinator.run, args=(stop,))
    thread.start()
    wait_for(lambda: house.counts().nodes.get("motion") and house.counts().nodes["motion"].done >= 1)
    stop.set()
    coordinator.wake()
    thread.join(PATIENT_S)
    assert sum(tally.running for tally in house.counts().nodes.values()) == 0
    coordinator._flights._executor.shutdown()
    assert house.run().exposures.done == 8


def test_a_paused_processing_takes_in_and_starts_nothing(home: House) -> None:
    home.start(chain())
    home.catalog.write(lambda s: s.execute(update(Processing).values(state="paused")))
    home.add("m1")
    counts = home.run()
    assert counts.nodes["motion"].open == 1
    home.catalog.write(lambda s: s.execute(update(Processing).values(state="running")))
    assert home.run().exposures.done == 1


def test_nodes_on_another_resource_are_calls_of_their_own(home: House) -> None:
    home.start(TWO_SORTS)
    home.add("m1")
    pool = LocalPool(1, gpus=1)
    home.run(pool)
    pool.shutdown()
    assert home.record("m1", "motion")["provenance"]["device"] == "cuda:0"
    assert home.record("m1", "pick")["provenance"]["device"] == "cpu"
    assert not home.record("m1", "pick")["kept"], "it can't have been in the memory of the other worker"
    assert home.record("m1", "pick")["provenance"]["inputs"]["micrograph"]["path"].endswith("job002/m1.txt")


def test_an_input_output_error_is_tried_again_and_the_attempt_is_kept(house: House, tmp_path: Path) -> None:
    marker = tmp_path / "trouble"
    marker.touch()
    house.start(chain(ctf="flaky"), marker=str(marker), journal=str(tmp_path / "journal"))
    house.add("m1_flaky")
    thread = threading.Thread(target=house.run)
    thread.start()
    wait_for(lambda: house.catalog.read(lambda s: s.scalar(select(func.count()).select_from(Attempt))))
    marker.unlink()
    thread.join(PATIENT_S)
    assert house.states("m1_flaky") == {"motion": "done", "ctf": "done", "pick": "done"}
    attempt = house.catalog.read(lambda s: s.scalars(select(Attempt)).first())
    assert (attempt.number, attempt.reason_code) == (1, "file.unreadable")
    assert "Input/output error" in attempt.reason
    runs = (tmp_path / "journal").read_text().splitlines()
    assert len(runs) == 4, "motion ran once; only what had failed ran again"
    assert runs[-1] == "m1_flaky ['ctf', 'micrograph']", "picking waited for the fit's second try"


def test_an_error_that_stays_is_given_up_after_some_tries(home: House) -> None:
    home.start(chain(ctf="flaky"))
    home.add("m1_flaky", "m2")
    counts = home.run()
    assert home.states("m1_flaky") == {"motion": "done", "ctf": "failed", "pick": "done"}
    assert home.task("m1_flaky", "ctf").attempts == 3
    assert counts.exposures.failed == 1
    assert counts.exposures.done == 1


def test_a_bug_in_a_step_is_not_tried_again(home: House, tmp_path: Path) -> None:
    home.start(chain(pick="fail"), journal=str(tmp_path / "journal"))
    home.add("m1_fail")
    home.run()
    assert home.measure("m1_fail").reason == "play.needy stopped with RuntimeError: a bug in the step"
    assert len((tmp_path / "journal").read_text().splitlines()) == 3


def test_a_result_explains_itself_back_to_the_camera_file(house: House) -> None:
    house.start(chain())
    house.add("m1", blake3="ab" * 32, size=99)
    house.run()
    (pick,) = explain(house.catalog, processing_id=house.processing_id, item="m1", node="pick")
    assert pick.record["provenance"]["step"] == "play.needy"
    motion = pick.inputs["ctf"].inputs["micrograph"]
    assert (motion.node, pick.inputs["micrograph"].node) == ("motion", "motion")
    camera = motion.inputs["movie"]
    assert (camera.key, camera.blake3, camera.size) == ("m1.mrc", "ab" * 32, 99)
    assert motion.record["provenance"]["inputs"]["movie"]["blake3"] == "ab" * 32
    (same,) = explain(house.catalog, pick.result_id)
    assert same == pick


def test_the_freshest_goes_first_and_every_fourth_is_the_oldest(home: House) -> None:
    home.start(chain())
    home.add(*(f"m{i:02}" for i in range(12)))
    pool = LocalPool(1)
    home.run(pool, most_ahead=0)
    pool.shutdown()
    query = select(Exposure.item).join(Task, Task.item_id == Exposure.id).where(Task.node == "motion")
    order = home.catalog.read(lambda s: list(s.scalars(query.order_by(Task.started_at))))
    assert order == [f"m{i:02}" for i in (11, 10, 9, 0, 8, 7, 6, 1, 5, 4, 3, 2)]


def test_starting_the_same_again_goes_on_and_starting_another_under_its_name_is_refused(house: House) -> None:
    first = house.start(chain(), seconds=0.0)
    assert house.start(chain(), seconds=0.0) == first
    with pytest.raises(BadParameter, match=r"frozen.*seconds: 0.0 -> 1.0"):
        house.start(chain(), seconds=1.0)
    with pytest.raises(BadParameter, match="the template's text"):
        start_processing(
            house.catalog,
            house.session_id,
            "p1",
            parse_template(chain("x"), "t"),
            {"seconds": 0.0},
            Path("/r"),
        )


def test_a_session_comes_to_its_end_without_results_written_twice(house: House) -> None:
    house.start(chain(ctf="quarantine", pick="reject"))
    house.add(*(f"m{i}{t}" for i, t in enumerate(["", "_quarantine", "_reject", ""] * 5)))
    counts = house.run()
    assert (counts.exposures.done, counts.exposures.quarantined, counts.exposures.rejected) == (10, 5, 5)
    number = house.catalog.read(lambda s: s.scalar(select(func.count()).select_from(ResultRow)))
    assert number == 60
