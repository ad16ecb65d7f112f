"""A processing of some exposures of a session: just those, counted so, through restarts; and values that can't act."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from tests.pipeline.conftest import QUICK, House
from vitriflow.catalog import Base, Catalog, Event, Exposure, Measure, Processing, Session, Task, views
from vitriflow.config import Config
from vitriflow.elogbook.permissions import Caller
from vitriflow.errors import BadParameter
from vitriflow.facility.reprocess import Begun, reprocess
from vitriflow.facility.service.process import ProcessService
from vitriflow.facility.session_form import BadForm
from vitriflow.pipeline import Coordinator, Counts, counts

OLGA = Caller("cookie", login="olga")
TEMPLATE = """
name: noops
nodes:
  first: {step: debug.noop, inputs: {movie: exposure.movie}}
  second: {step: debug.noop, inputs: {micrograph: first.micrograph}, set: {write: true}}
"""


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """A session with six exposures, of which a processing is done."""
    catalog = Catalog(f"sqlite:///{tmp_path / 'catalog.db'}")
    Base.metadata.create_all(catalog.engine)
    made = House(catalog, tmp_path / "house")
    made.add(*"abcdef")
    made.start(TEMPLATE)
    made.run()
    yield made
    for executor in made.executors:
        executor.shutdown()
    catalog.close()


def ids(house: House, names: str) -> list[int]:
    query = select(Exposure.id).where(Exposure.item.in_(list(names)))
    return house.catalog.read(lambda orm: list(orm.scalars(query)))


def again(house: House, name: str = "again", names: str | None = None, **answers: Any) -> Begun:
    chosen = None if names is None else ids(house, names)
    return reprocess(
        house.catalog, OLGA, "s1", "p1", name, answers, exposures=chosen, chosen_by="picked by hand"
    )


def run(house: House, number: int, stop: threading.Event | None = None) -> Counts:
    with ThreadPoolExecutor(2) as executor:
        Coordinator(house.catalog, number, executor, QUICK).run(stop or threading.Event(), until_idle=True)
    found = counts(house.catalog, number)
    assert found.reconciles, found
    return found


def done(house: House, number: int) -> set[str]:
    query = (
        select(Exposure.item)
        .join(Measure, Measure.exposure_id == Exposure.id)
        .where(Measure.processing_id == number, Measure.status == "done")
    )
    return house.catalog.read(lambda orm: set(orm.scalars(query)))


def test_just_those_are_processed_and_what_comes_later_is_not(house: House) -> None:
    begun = again(house, names="bd", seconds=0.01)
    assert begun.exposures == 2
    assert begun.changes == {"seconds": 0.01}
    before = counts(house.catalog, begun.number)
    assert (before.exposures.came_in, before.arriving) == (0, 2)  # two are to come, not six
    house.add("late")
    found = run(house, begun.number)
    assert (found.exposures.came_in, found.exposures.done, found.arriving) == (2, 2, 0)
    assert done(house, begun.number) == {"b", "d"}
    tasks = select(func.count()).select_from(Task).where(Task.processing_id == begun.number)
    assert house.catalog.read(lambda orm: orm.scalar(tasks)) == 4


def test_one_of_all_exposures_goes_on_taking_new_ones(house: House) -> None:
    begun = again(house, seconds=0.01)
    run(house, begun.number)
    house.add("late")
    assert run(house, begun.number).exposures.done == 7


def test_a_new_coordinator_goes_on_with_the_same_ones(house: House) -> None:
    begun = again(house, names="ace", seconds=0.05)
    stop = threading.Event()
    stop.set()
    house.executors.append(ThreadPoolExecutor(1))
    cut_short = Coordinator(house.catalog, begun.number, house.executors[-1], QUICK)
    cut_short.run(stop)  # ends before anything is done
    house.add("late")
    assert run(house, begun.number).exposures.done == 3
    assert done(house, begun.number) == {"a", "c", "e"}


def test_the_processing_service_keeps_it_only_while_something_of_it_is_open(house: House) -> None:
    begun = again(house, names="b", seconds=0.01)
    service = ProcessService(Config(), house.catalog, once=True)

    def wanted() -> list[int]:
        return [number for number, _, _ in house.catalog.read(service._wanted)]

    house.catalog.write(lambda orm: setattr(orm.get_one(Session, house.session_id), "state", "active"))
    assert begun.number in wanted()
    run(house, begun.number)
    house.add("late")  # nothing of this one's
    assert begun.number not in wanted()
    assert house.processing_id in wanted()


def test_pages_and_reports_count_only_those(house: House) -> None:
    from vitriflow.facility.report_numbers import read_columns
    from vitriflow.web.lookup import find_scene
    from vitriflow.web.site import Site
    from vitriflow.web.summary import summarise

    house.add("broken", state="problem", problem_code="truncated", problem="cut")
    begun = again(house, names="ab", seconds=0.01)
    run(house, begun.number)
    site = Site("x", house.catalog, None)  # type: ignore[arg-type]
    scene = house.catalog.read(lambda orm: find_scene(site, orm, "s1", "again"))
    summary = summarise(scene.session, scene.snapshot, scene.overlay)
    assert (summary.counts.total, summary.counts.done, summary.counts.quarantined) == (2, 2, 0)
    assert scene.processing is not None
    assert (scene.processing.selected, scene.processing.selection) == (2, "picked by hand")
    columns = house.catalog.read(lambda orm: read_columns(orm, house.session_id, scene.processing))
    assert columns.counts["total"] == 2
    whole = house.catalog.read(lambda orm: find_scene(site, orm, "s1"))
    assert whole.processing is not None
    assert whole.processing.name == "p1"  # the one of all exposures speaks for the session


def test_exposures_of_another_session_and_none_at_all_are_refused(house: House) -> None:
    for chosen in ([], [999]):
        with pytest.raises(BadParameter, match="exposures to process"):
            reprocess(house.catalog, OLGA, "s1", "p1", "x", {"seconds": 1}, exposures=chosen)
    assert house.catalog.read(lambda orm: len(views.list_processings(orm, house.session_id))) == 1


def test_a_value_that_every_node_sets_itself_is_refused_by_the_nodes_names(house: House) -> None:
    with pytest.raises(BadForm) as caught:
        again(house, seconds=0.01, **{"second.write": "false", "first.write": "tall"})
    assert "bool" in caught.value.problems["first.write"]
    text = TEMPLATE.replace("debug.noop, inputs: {movie", "debug.noop, set: {write: true}, inputs: {movie")
    house.catalog.write(lambda orm: setattr(orm.get_one(Processing, house.processing_id), "template", text))
    with pytest.raises(BadForm) as caught:
        again(house, write=False, seconds=0.01)
    assert caught.value.problems == {
        "write": "has no effect: nodes first and second set it themselves; "
        "to change it there, say first.write or second.write"
    }


def test_a_value_that_acts_in_some_nodes_only_or_changes_nothing_is_told(house: House) -> None:
    begun = again(house, write=True, seconds=0.0, names="a")
    assert begun.changes == {"write": True}
    assert begun.notes == [
        "write has no effect there: node second sets it itself; to change it there, say second.write",
        "seconds is 0.0 already, so that changes nothing",
    ]
    told = house.catalog.read(lambda orm: views.first_event(orm, begun.number))
    assert told.startswith(
        "olga began processing 'again', like 'p1' but for write = True, of 1 exposure (picked"
    )
    assert all(note in told for note in begun.notes)
    assert house.catalog.read(lambda orm: orm.scalar(select(func.count()).select_from(Event))) > 0


def test_one_node_is_told_apart_by_its_name(house: House) -> None:
    begun = again(house, names="a", **{"second.write": "false"})
    assert begun.changes == {"second.write": False}
    assert run(house, begun.number).exposures.done == 1
    assert not list((house.folder / "root" / "processed" / "again").rglob("*.txt"))
