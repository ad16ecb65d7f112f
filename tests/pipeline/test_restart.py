"""Restarted from a node: what lies before it is reused, what it replaced stays readable."""

import threading
from pathlib import Path

import pytest
from sqlalchemy import select

from tests.pipeline.conftest import PATIENT_S, House, wait_for
from tests.pipeline.test_batches import batches, results
from vitriflow.catalog import Exposure, ResultRow, Task
from vitriflow.errors import BadParameter
from vitriflow.pipeline import ask_change, plan_of, what_changes

LINE = """
name: line
nodes:
  motion: {step: play.any, inputs: {movie: exposure.movie}, set: {journal: '%(journal)s'}}
  ctf: {step: play.any, inputs: {micrograph: motion.micrograph}, set: {minds: '%(minds)s'}}
  pick: {step: play.any, inputs: {micrograph: motion.micrograph}, set: {minds: ''}}
  flow: {step: trigger, inputs: {micrograph: motion.micrograph, ctf: ctf.ctf}, set: {micrographs: 2}}
  classes: {step: play.gather, inputs: {micrograph: flow.micrograph}}
"""


@pytest.fixture
def line(home: House, tmp_path: Path) -> House:
    """Two exposures went through; the fit of one failed."""
    home.start(LINE % {"journal": tmp_path / "journal", "minds": "fail"})
    home.add("m1", "m2_fail", "m3")
    home.run(max_attempts=1)
    return home


def journal(house: House) -> list[str]:
    return sorted(text.split()[0] for text in (house.folder.parent / "journal").read_text().splitlines())


def revisions(house: House, item: str, node: str) -> dict[int, str]:
    query = (
        select(ResultRow.revision, ResultRow.record)
        .join(Exposure, Exposure.id == ResultRow.item_id)
        .where(Exposure.item == item, ResultRow.node == node, ResultRow.item_type == "exposure")
    )
    found = house.catalog.read(lambda s: s.execute(query).all())
    return {revision: record["outputs"].get("ctf", {}).get("path", "") for revision, record in found}


def test_what_a_change_touches_is_known_before(line: House) -> None:
    touched = what_changes(line.catalog, line.processing_id, {"ctf.minds": "nothing"})
    assert touched.kind == "restart"
    assert touched.changed == {"ctf": {"minds": ("fail", "nothing")}}
    assert touched.redone == ("ctf", "flow", "classes")
    assert touched.results == {"ctf": 3, "flow": 2, "classes": 1}
    assert touched.kept == ("motion", "pick")
    with pytest.raises(BadParameter, match="motion, ctf, pick, flow, classes"):
        what_changes(line.catalog, line.processing_id, {}, restart=["ctff"])
    with pytest.raises(BadParameter, match="a change"):
        what_changes(line.catalog, line.processing_id, {})


def test_a_restart_redoes_what_hangs_on_it_reuses_the_rest_and_keeps_the_old(line: House) -> None:
    assert batches(line) == [("micrographs", ["m1", "m3"])]
    old = revisions(line, "m1", "ctf")
    ask_change(line.catalog, line.processing_id, {"ctf.minds": "nothing"}, author="anna")
    counts = line.run()
    assert counts.exposures.done == 3
    assert journal(line) == ["m1", "m2_fail", "m3"], "motion ran again"
    new = revisions(line, "m1", "ctf")
    assert new[-1] == old[1]
    assert Path(new[-1]).exists()
    assert new[1] != new[-1], "the old file was overwritten"
    assert len(revisions(line, "m1", "pick")) == 1
    assert sorted(m for _, members in batches(line) for m in members) == ["m1", "m2_fail", "m3"]
    assert [len(one["held"]) for one in results(line)] == [2, 3]
    assert results(line)[0]["n_new"] == 2, "the state of the old revision was taken"


def test_a_restart_while_it_runs_ends_well_and_nothing_old_is_taken_for_new(line: House) -> None:
    stop = threading.Event()
    coordinator = line.coordinator(max_attempts=1)
    thread = threading.Thread(target=coordinator.run, args=(stop,))
    thread.start()
    line.add(*(f"n{i}" for i in range(6)))
    ask_change(line.catalog, line.processing_id, {"seconds": 0.01})
    ask_change(line.catalog, line.processing_id, {"ctf.minds": "nothing"})
    wait_for(lambda: line.counts().exposures.done == 9)
    stop.set()
    coordinator.wake()
    thread.join(PATIENT_S)
    plan = plan_of(line.catalog, line.processing_id)
    assert plan["ctf"].parameters.seconds == 0.01
    query = select(ResultRow.record).where(ResultRow.node == "ctf", ResultRow.revision == 1)
    for record in line.catalog.read(lambda s: list(s.scalars(query))):
        assert record["provenance"]["parameters"]["minds"] == "nothing"
    open_old = select(Task).where(Task.revision < 0, Task.state.in_(("waiting", "ready", "running")))
    assert line.catalog.read(lambda s: list(s.scalars(open_old))) == []


def test_only_the_classes_are_done_anew_from_the_same_batches(line: House) -> None:
    ask_change(line.catalog, line.processing_id, {}, restart=["classes"])
    line.run()
    assert batches(line) == [("micrographs", ["m1", "m3"])]
    query = select(ResultRow.revision).where(ResultRow.node == "classes")
    assert sorted(line.catalog.read(lambda s: list(s.scalars(query)))) == [-1, 1]


def test_a_finished_session_that_gets_new_data_goes_on(line: House) -> None:
    line.add("m4", "m5")
    counts = line.run(max_attempts=1)
    assert counts.exposures.done == 4
    assert [members for _, members in batches(line)] == [["m1", "m3"], ["m4", "m5"]]


def test_changes_are_carried_out_without_a_running_pipeline_too(line: House) -> None:
    ask_change(line.catalog, line.processing_id, {"ctf.minds": "nothing"})
    line.coordinator().carry_out_changes()
    assert line.counts().nodes["ctf"].open == 3
    assert line.run().exposures.done == 3
