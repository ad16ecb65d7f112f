"""Columns in the server's memory agree with the catalog, and thinning loses no outlier."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import update
from sqlalchemy.orm import Session as OrmSession

from tests.web.factory import World
from vitriflow.catalog import Measure, Processing, Task, views
from vitriflow.web.columns import HIGHEST, MIDDLE, ColumnStore, Snapshot, thin
from vitriflow.web.plots import column_answer
from vitriflow.web.tally import TaskTally

column = st.lists(st.one_of(st.just(np.nan), st.floats(-1e6, 1e6)), max_size=400)


@given(column, st.integers(3, 200))
def test_thinning_keeps_to_the_budget_and_keeps_the_extremes(values: list[float], budget: int) -> None:
    array = np.array(values, dtype=np.float64)
    rows, kinds = thin(array, budget)
    finite = array[np.isfinite(array)]
    assert len(rows) <= budget
    assert len(rows) == len(kinds)
    assert np.all(np.diff(rows) > 0)
    assert np.all(np.isfinite(array[rows]))
    if len(finite):
        assert array[rows].min() == finite.min()
        assert array[rows].max() == finite.max()
    if len(finite) <= budget:
        assert len(rows) == len(finite)
        assert not kinds.any()


def test_one_spike_among_fifty_thousand_is_drawn() -> None:
    values = np.random.default_rng(0).normal(10, 1, 50_000)
    values[31_234] = 500.0
    rows, kinds = thin(values, 1500)
    assert kinds[rows == 31_234] == HIGHEST
    assert abs(np.median(values[rows][kinds == MIDDLE]) - 10) < 0.1
    assert len(rows) <= 1500


def read(store: ColumnStore, world: World) -> Snapshot:
    def work(db: OrmSession) -> Snapshot:
        processing = views.list_processings(db, world.session_id)[0]
        return store.snapshot(db, world.session_id, processing)

    return world.catalog.read(work)


def same(a: Snapshot, b: Snapshot) -> None:
    for name in ("ids", "changes", "status"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    for name in ("reason", "quality"):
        words = [[s.lexicon.word(code) for code in getattr(s, name)] for s in (a, b)]
        assert words[0] == words[1]
    for name in a.values:
        np.testing.assert_array_equal(a.values[name], b.values[name])
    assert (a.came_in, a.growing, a.counts()) == (b.came_in, b.growing, b.counts())


def test_a_store_kept_up_to_date_equals_one_read_afresh(world: World) -> None:
    store = ColumnStore()
    for outcome in ("done", "open", "problem", "growing", "quarantined", "done"):
        world.add(outcome)
        kept = read(store, world)
        same(kept, read(ColumnStore(), world))
    assert kept.size == 5  # the growing file has no row yet
    assert kept.came_in == 6


def test_a_changed_value_replaces_the_old_one(world: World) -> None:
    first = world.add()
    world.add()
    store = ColumnStore()
    before = read(store, world)

    def change(db: OrmSession) -> None:
        db.execute(update(Processing).values(change=7))
        db.execute(update(Measure).where(Measure.exposure_id == first).values(change=7, total_A=99.0))

    world.catalog.write(change)
    after = read(store, world)
    assert after.values["total_A"][0] == 99.0
    assert before.values["total_A"][0] != 99.0, "a snapshot that somebody reads must not alter"
    assert after.size == 2


def test_only_what_is_new_is_answered(world: World) -> None:
    for _ in range(3):
        world.add()
    store = ColumnStore()
    first = column_answer(read(store, world), -1, 0, 1500)
    world.add()
    second = column_answer(read(store, world), first["change"], first["total"], 1500)
    assert first["reset"]
    assert not second["reset"]
    assert list(second["quantities"]["defocus_A"]["n"]) == [4]
    assert second["quantities"]["defocus_A"]["count"] == 4


def test_an_exposure_that_comes_in_between_makes_the_asker_start_afresh(world: World) -> None:
    late = world.add("growing")
    world.add()
    store = ColumnStore()
    first = column_answer(read(store, world), -1, 0, 1500)

    def take_up(db: OrmSession) -> None:
        db.execute(update(Processing).values(change=9))
        db.add(Measure(processing_id=world.processing_id, exposure_id=late, change=9, status="open"))

    world.catalog.write(take_up)
    second = column_answer(read(store, world), first["change"], first["total"], 1500)
    assert second["reset"]
    assert list(second["quantities"]["defocus_A"]["n"]) == [2]


@pytest.mark.parametrize("since", [10_000, -1])
def test_a_change_number_from_another_time_makes_the_asker_start_afresh(world: World, since: int) -> None:
    world.add()
    assert column_answer(read(ColumnStore(), world), since, 0, 1500)["reset"]


def test_tasks_counted_by_what_is_new_equal_tasks_counted_afresh(world: World) -> None:
    kept = TaskTally()
    for outcome in ("open", "done", "quarantined", "failed", "rejected", "open", "done"):
        world.add(outcome)
        counted = world.catalog.read(lambda db: kept.nodes(db, world.processing_id))
        assert counted == world.catalog.read(lambda db: TaskTally().nodes(db, world.processing_id))
        for node in counted:
            assert sum(node.counts.values()) == len(world.ids)
    assert [node.node for node in counted] == ["motion", "ctf", "pick", "preview"]


def test_only_the_newest_revision_of_a_node_is_counted(world: World) -> None:
    first = world.add()
    tally = TaskTally()
    world.catalog.read(lambda db: tally.nodes(db, world.processing_id))
    world.catalog.write(
        lambda db: db.add(
            Task(processing_id=world.processing_id, node="ctf", revision=2, item_id=first, state="running")
        )
    )
    counted = world.catalog.read(lambda db: tally.nodes(db, world.processing_id))
    assert [(one.revision, one.counts) for one in counted if one.node == "ctf"] == [(2, {"running": 1})]


def test_a_change_of_tasks_alone_keeps_the_values_and_counts_the_tasks_anew(world: World) -> None:
    world.add("open")
    store = ColumnStore()
    before = read(store, world)
    before.cache["nodes"] = "counted before"
    before.cache["numbers"] = "still true"

    def start(db: OrmSession) -> None:
        db.execute(update(Processing).values(change=Processing.change + 1))
        db.execute(update(Task).where(Task.node == "motion").values(state="running"))

    world.catalog.write(start)
    after = read(store, world)
    assert after.change == before.change + 1
    assert after.cache == {"numbers": "still true"}
    same(after, read(ColumnStore(), world))
