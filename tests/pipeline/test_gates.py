"""Gates in a pipeline: marks, counts, moved limits and people's verdicts, without running image steps again."""

from collections import Counter
from pathlib import Path

import pytest
from sqlalchemy import select

from tests.pipeline.conftest import House
from tests.pipeline.test_batches import batches
from vitriflow.catalog import Change, Event
from vitriflow.errors import BadParameter
from vitriflow.pipeline import ask_change, ask_verdict, what_changes

GATED = """
name: gated
nodes:
  motion: {step: play.measured, inputs: {movie: exposure.movie}, set: {journal: '%(journal)s', minds: '%(minds)s'}}
  still:
    step: gate.max_shift
    inputs: {motion: motion.motion, micrograph: motion.micrograph}
    set: {max_path_A: 20, missing: accept}
  sharp:
    step: gate.custom
    inputs: {micrograph: still.micrograph}
    set: {accept: 'fit_resolution_A < 6', missing: accept}
  pick: {step: play.needy, inputs: {micrograph: sharp.micrograph}, set: {journal: '%(journal)s'}}
  flow: {step: trigger, inputs: {micrograph: pick.micrograph}, set: {micrographs: 100, release: growing}}
  classes: {step: play.heap, inputs: {micrograph: flow.micrograph}}
"""
GOOD, FAR, BLURRED, BOTH = "m1,total_A=5", "m2,total_A=30", "m3,fit_resolution_A=9", "m4,total_A=40"


@pytest.fixture
def gated(home: House, tmp_path: Path) -> House:
    """A pipeline with two gates, through which four exposures went."""
    home.start(GATED % {"journal": tmp_path / "journal", "minds": ""})
    home.add(GOOD, FAR, BLURRED, BOTH)
    home.run()
    return home


def runs(house: House) -> Counter[str]:
    lines = (house.folder.parent / "journal").read_text().splitlines()
    return Counter(line.split(" ")[0] for line in lines)


def marks(house: House) -> dict[str, str]:
    return {item: house.measure(item).status for item in (GOOD, FAR, BLURRED, BOTH)}


def test_gates_mark_with_a_reason_and_stop_what_lies_behind(gated: House) -> None:
    assert marks(gated) == {GOOD: "done", FAR: "rejected", BLURRED: "rejected", BOTH: "rejected"}
    row = gated.measure(FAR)
    assert (row.reason_code, row.reason) == (
        "gate.max_shift.path",
        "total 30 A is above the limit of 20 A",
    )
    assert gated.states(FAR) == {
        "motion": "done", "still": "rejected", "sharp": "stopped", "pick": "stopped", "flow": "stopped",
    }  # fmt: skip
    counts = gated.counts()
    assert (counts.nodes["still"].rejected, counts.nodes["sharp"].rejected) == (2, 1)
    assert batches(gated) == [("end", [GOOD])]


def test_a_moved_limit_takes_back_and_rejects_without_running_an_image_step_again(gated: House) -> None:
    touched = what_changes(gated.catalog, gated.processing_id, {"still.max_path_A": 35})
    assert (touched.kind, touched.redone) == ("threshold", ("still",))
    ask_change(gated.catalog, gated.processing_id, {"still.max_path_A": 35}, author="anna")
    gated.run()
    assert marks(gated) == {GOOD: "done", FAR: "done", BLURRED: "rejected", BOTH: "rejected"}
    # Motion ran once for each; picking once for what it hadn't seen.
    assert runs(gated) == {GOOD: 2, FAR: 2, BLURRED: 1, BOTH: 1}
    assert batches(gated)[-1] == ("end", [FAR])
    ask_change(gated.catalog, gated.processing_id, {"still.max_path_A": 3}, author="anna")
    counts = gated.run()
    assert marks(gated)[GOOD] == marks(gated)[FAR] == "rejected"
    assert runs(gated)[GOOD] == 2
    assert gated.states(GOOD)["pick"] == "done", "rejected isn't deleted"
    assert counts.exposures.rejected == 4
    said = gated.catalog.read(lambda s: list(s.scalars(select(Event.text))))
    assert any("anna changed still.max_path_A = 35: still takes 1 exposures back" in text for text in said)


def test_a_persons_word_stands_against_the_gate_until_it_is_taken_back(gated: House) -> None:
    far, good = gated.measure(FAR).exposure_id, gated.measure(GOOD).exposure_id
    ask_verdict(gated.catalog, gated.processing_id, "still", [far], True, "anna")
    ask_verdict(gated.catalog, gated.processing_id, "still", [good], False, "anna")
    gated.run()
    assert (marks(gated)[FAR], marks(gated)[GOOD]) == ("done", "rejected")
    assert gated.measure(GOOD).reason == "rejected by anna"
    ask_change(gated.catalog, gated.processing_id, {"still.max_path_A": 10})
    gated.run()
    assert (marks(gated)[FAR], marks(gated)[GOOD]) == ("done", "rejected"), "limits don't overrule people"
    ask_verdict(gated.catalog, gated.processing_id, "still", [far, good], None, "anna")
    gated.run()
    assert (marks(gated)[FAR], marks(gated)[GOOD]) == ("rejected", "done")
    assert gated.record(FAR, "still")["overruled_by"] is None


def test_a_growing_batch_leaves_out_what_was_rejected_since(gated: House) -> None:
    good = gated.measure(GOOD).exposure_id
    ask_verdict(gated.catalog, gated.processing_id, "sharp", [good], False, "anna")
    gated.add("m5", "m6")
    gated.run()
    query = select(Change.applied_at)
    assert None not in gated.catalog.read(lambda s: list(s.scalars(query)))
    from tests.pipeline.test_batches import results

    assert results(gated)[-1]["seen"] == ["m5", "m6"]


def test_a_gate_whose_input_failed_is_stopped_and_the_others_go_on(home: House, tmp_path: Path) -> None:
    home.start(GATED % {"journal": tmp_path / "journal", "minds": "fail"})
    home.add("m1_fail", "m2")
    counts = home.run(max_attempts=1)
    assert home.states("m1_fail")["still"] == "stopped"
    assert (counts.exposures.failed, counts.exposures.done) == (1, 1)


def test_a_change_that_was_begun_before_a_kill_is_carried_to_its_end(gated: House) -> None:
    from vitriflow.pipeline.revising import begin_next

    ask_change(gated.catalog, gated.processing_id, {"still.max_path_A": 100})
    begin_next(gated.catalog, gated.processing_id, lambda session: None)  # and then nothing more
    assert marks(gated)[FAR] == "open"
    gated.run()
    assert marks(gated) == {GOOD: "done", FAR: "done", BLURRED: "rejected", BOTH: "done"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"still.max_path_A": -1}, "greater than 0"),
        ({"still.max_pathA": 1}, "acts nowhere"),
        ({"still.max_path_A": 20}, "a change"),
        ({"sharp.accept": "open(x)"}, "isn't allowed"),
    ],
)
def test_a_limit_that_cannot_be_is_refused_before_anything_is_asked(
    gated: House, values: dict[str, object], message: str
) -> None:
    with pytest.raises(BadParameter, match=message):
        ask_change(gated.catalog, gated.processing_id, values)
    assert gated.catalog.read(lambda s: list(s.scalars(select(Change)))) == []
    with pytest.raises(BadParameter, match="still, sharp"):
        ask_verdict(gated.catalog, gated.processing_id, "motion", [1], True)


def test_limits_verdicts_and_restarts_are_the_same_on_every_database(house: House, tmp_path: Path) -> None:
    house.start(GATED % {"journal": tmp_path / "journal", "minds": ""})
    house.add(GOOD, FAR, BLURRED)
    house.run()
    ask_change(house.catalog, house.processing_id, {"still.max_path_A": 35})
    ask_verdict(
        house.catalog, house.processing_id, "sharp", [house.measure(BLURRED).exposure_id], True, "anna"
    )
    counts = house.run()
    assert counts.exposures.done == 3
    ask_change(house.catalog, house.processing_id, {}, restart=["pick"])
    counts = house.run()
    assert counts.exposures.done == 3
    assert counts.batches["classes"].done == 1
    assert house.record(BLURRED, "sharp")["overruled_by"] == "anna"
