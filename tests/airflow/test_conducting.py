"""A conducted processing: only what was asked for starts; lots are fair and bounded; clearing does things again."""

import ast
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select

from tests.conftest import REPOSITORY
from tests.facility.command import until
from tests.pipeline.conftest import QUICK, House
from vitriflow.catalog import Attempt, Catalog, Lot, ResultRow, Session, upgrade
from vitriflow.config import Config
from vitriflow.errors import BadParameter
from vitriflow.facility.conduct import give_back, take_up
from vitriflow.facility.conducting import (
    Asking,
    Offer,
    Standing,
    acknowledge,
    ask,
    describe,
    offer,
    round_of,
    standing,
)
from vitriflow.facility.conducting.lots import size_of
from vitriflow.pipeline import Coordinator, parse_template, start_processing

TEMPLATE = """\
name: tiny
nodes:
  align: {step: debug.noop, inputs: {movie: exposure.movie}, set: {write: true}}
  ctf: {step: debug.noop, inputs: {micrograph: align.micrograph}, set: {write: true}}
  pick: {step: debug.noop, inputs: {micrograph: ctf.micrograph}, set: {write: true}}
"""


class Conducted(House):
    """A session whose processing is conducted, with its coordinator running."""

    config: Config
    coordinator: Coordinator

    def asks(self, given: Offer, node: str, number: int = 1) -> Standing:
        """Ask as a task of the offer's run does."""
        return ask(self.config, self.catalog, Asking(given.dag, given.run, node, number, lot=given.lot))

    def waits(self, asked: Standing) -> Standing:
        """How an ask ended."""
        assert asked.ask is not None
        found = until(lambda: (now := standing(self.catalog, asked.ask or 0)).state != "open" and now)
        assert isinstance(found, Standing)
        return found

    def offers(self, number: int = 1) -> list[Offer]:
        """Offers, once there are so many."""
        found: list[Offer] = until(
            lambda: (now := offer(self.config, self.catalog, "tem1")) and len(now) >= number and now
        )
        return found

    def nodes(self, revision: int = 1) -> list[str]:
        """Nodes of the results that there are."""
        query = select(ResultRow.node).where(ResultRow.revision == revision).order_by(ResultRow.id)
        return list(self.catalog.read(lambda orm: list(orm.scalars(query))))

    @contextmanager
    def coordinated(self) -> Iterator[None]:
        """Its coordinator, in a thread."""
        stop = threading.Event()
        with ThreadPoolExecutor(2) as pool:
            self.coordinator = Coordinator(self.catalog, self.processing_id, pool, QUICK)
            thread = threading.Thread(target=self.coordinator.run, args=(stop,))
            thread.start()
            try:
                yield
            finally:
                stop.set()
                self.coordinator.wake()
                thread.join(60)
        assert not thread.is_alive()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Conducted]:
    catalog = Catalog(f"sqlite:///{tmp_path / 'catalog.db'}")
    upgrade(catalog)
    made = Conducted(catalog, tmp_path)
    made.config = Config.model_validate(
        {
            "airflow": {"conducts": True, "runs": 2, "largest_batch": 3},
            "microscopes": {"tem1": {"sources": [str(tmp_path)]}},
        }
    )
    catalog.write(lambda orm: setattr(orm.get_one(Session, made.session_id), "state", "active"))
    template = parse_template(TEMPLATE, "tiny.yaml")
    made.processing_id = start_processing(
        catalog, made.session_id, "live", template, {}, tmp_path / "root" / "processed" / "live"
    )
    assert take_up(made.config, catalog, made.processing_id)
    yield made
    catalog.close()


def test_nothing_starts_before_it_is_asked_for_and_one_ask_runs_the_whole_call(site: Conducted) -> None:
    site.add("a")
    with site.coordinated():
        (one,) = site.offers()
        assert (one.dag, one.exposures, site.nodes()) == ("e_1", 1, [])
        ended = site.waits(site.asks(one, "align"))
        assert (ended.state, ended.counts) == ("done", {"done": 1})
        until(lambda: site.nodes() == ["align", "ctf", "pick"])
        assert site.waits(site.asks(one, "pick")).lines[-1].startswith("a: done after")
    query = select(ResultRow.record).where(ResultRow.node == "pick")
    how = site.catalog.read(lambda orm: orm.scalar(query))["provenance"]["conducted"]
    assert (how["dag"], how["run"], how["task"], how["try"]) == ("e_1", one.run, "align", 1)
    assert how["template"].startswith("tiny@")
    assert how["configuration"]


def test_a_node_that_was_not_asked_for_waits(site: Conducted) -> None:
    site.add("a")
    with site.coordinated():
        (one,) = site.offers()
        asked = site.asks(one, "pick")
        site.coordinator.wake()
        assert standing(site.catalog, asked.ask or 0).state == "open"
        site.asks(one, "ctf")
        assert site.nodes() == []
        site.asks(one, "align")
        assert site.waits(asked).state == "done"


def test_one_exposure_when_quiet_more_under_backlog_and_never_in_two_lots(site: Conducted) -> None:
    with site.coordinated():
        site.add("a")
        (one,) = site.offers()
        acknowledge(site.catalog, one.lot)
        site.add(*(f"b{n}" for n in range(9)))
        until(lambda: site.catalog.read(lambda orm: round_now(site)["waiting"]) == 9)
        (two,) = site.offers()
        assert (one.exposures, two.exposures) == (1, 3)  # two runs at most, three exposures at most
        assert offer(site.config, site.catalog, "tem1") == [two]  # until it's acknowledged
        acknowledge(site.catalog, two.lot)
        assert offer(site.config, site.catalog, "tem1") == []  # both places are taken
        for given in (one, two):
            site.waits(site.asks(given, "align"))
        until(lambda: site.nodes().count("pick") == 4)
        assert [given.exposures for given in site.offers(2)] == [3, 3]


def round_now(site: Conducted) -> dict[str, object]:
    return round_of(site.config, site.catalog, "tem1")


def test_clearing_a_failed_task_tries_what_failed_again_and_leaves_the_rest(site: Conducted) -> None:
    job = site.folder / "root" / "processed" / "live" / site_folder(site, "ctf")
    job.parent.mkdir(parents=True)
    job.write_text("a file where a folder should be")
    site.add("a", "b")
    with site.coordinated():
        given = site.offers(2)
        first = [site.waits(site.asks(one, "align")) for one in given]
        ends = [site.waits(site.asks(one, "ctf")) for one in given]
        assert {one.state for one in first} == {"done"}
        assert {one.state for one in ends} == {"failed"}
        assert site.waits(site.asks(given[0], "pick")).state == "failed"  # stopped by one that failed
        job.unlink()
        again = site.waits(site.asks(given[0], "ctf", 2))
        assert again.state == "done"
        assert site.waits(site.asks(given[0], "pick", 2)).state == "done"
        assert site.waits(site.asks(given[1], "ctf", 1)).state == "failed"  # the same try asks nothing new
    assert sorted(site.nodes()) == ["align", "align", "ctf", "ctf", "pick"]
    assert site.nodes(-1) == ["ctf"]  # what failed stays readable
    last = select(Attempt).where(Attempt.number == QUICK.max_attempts)  # kept when it was opened again
    assert site.catalog.read(lambda orm: len(list(orm.scalars(last)))) == 1


def site_folder(site: Conducted, node: str) -> str:
    from vitriflow.pipeline import plan_of

    return plan_of(site.catalog, site.processing_id)[node].folder


def test_clearing_a_task_that_went_well_makes_it_and_what_hangs_on_it_anew_once(site: Conducted) -> None:
    site.add("a")
    with site.coordinated():
        (one,) = site.offers()
        for node in ("align", "ctf", "pick"):
            site.waits(site.asks(one, node))
        assert site.waits(site.asks(one, "ctf", 2)).state == "done"
        assert site.waits(site.asks(one, "pick", 2)).state == "done"
    assert sorted(site.nodes()) == ["align", "ctf", "pick"]
    assert sorted(site.nodes(-1)) == ["ctf", "pick"]
    assert site.nodes(-2) == []


def test_an_ask_outlives_its_coordinator(site: Conducted) -> None:
    site.add("a")
    with site.coordinated():
        (one,) = site.offers()
    asked = site.asks(one, "align")
    assert standing(site.catalog, asked.ask or 0).state == "open"
    with site.coordinated():
        assert site.waits(asked).state == "done"


def test_processing_that_is_given_back_goes_on_by_itself(site: Conducted) -> None:
    site.add("a", "b")
    with site.coordinated():
        site.offers(2)
        assert give_back(site.catalog, site.session_id) == 1
        until(lambda: site.nodes().count("pick") == 2)
    assert offer(site.config, site.catalog, "tem1") == []


def test_a_run_that_a_person_starts_takes_what_waits_and_skips_when_nothing_does(site: Conducted) -> None:
    with site.coordinated():
        manual = Asking("e_1", "manual__1", "align", 1)
        assert ask(site.config, site.catalog, manual).state == "empty"
        site.add("a", "b")
        until(lambda: round_now(site)["waiting"] == 2)
        later = Asking("e_1", "manual__2", "ctf", 1, begin=False)
        assert ask(site.config, site.catalog, later).state == "empty"
        asked = ask(site.config, site.catalog, Asking("e_1", "manual__2", "align", 1))
        assert site.waits(asked).counts == {"done": 2}
        template = Asking("pipeline_tiny_pre-processing", "manual__3", "align", 1, session="nowhere")
        with pytest.raises(BadParameter, match="nowhere"):
            ask(site.config, site.catalog, template)
        site.add("c")
        until(lambda: round_now(site)["waiting"] == 1)
        template = Asking("pipeline_tiny_pre-processing", "manual__4", "align", 1, session="s1")
        assert site.waits(ask(site.config, site.catalog, template)).counts == {"done": 1}
    lots = site.catalog.read(lambda orm: list(orm.execute(select(Lot.dag, Lot.run).order_by(Lot.id))))
    assert [tuple(one) for one in lots] == [
        ("e_1", "manual__2"),
        ("pipeline_tiny_pre-processing", "manual__4"),
    ]


def test_what_cannot_be_asked_is_refused(site: Conducted) -> None:
    site.add("a")
    with site.coordinated():
        (one,) = site.offers()
        with pytest.raises(BadParameter, match="align, ctf, pick"):
            site.asks(one, "polish")
        with pytest.raises(BadParameter, match="lot"):
            ask(site.config, site.catalog, Asking(one.dag, one.run, "align", 1, lot=999))
        with pytest.raises(BadParameter, match="cursor"):
            standing(site.catalog, 1, "x")
        with pytest.raises(BadParameter, match="tem9"):
            round_of(site.config, site.catalog, "tem9")


def test_the_description_holds_a_dag_for_each_sample_with_the_templates_graph(site: Conducted) -> None:
    found = describe(site.config, site.catalog)
    assert found["microscopes"] == ["tem1"]
    assert found["template"]["dag"] == "pipeline_single-particle_pre-processing"
    assert [node["name"] for node in found["template"]["nodes"]][:3] == ["motion", "ctf", "pick"]
    (dag,) = found["dags"]
    assert dag["dag"] == "e_1"
    assert {node["name"]: node["upstream"] for node in dag["nodes"]} == {
        "align": [],
        "ctf": ["align"],
        "pick": ["ctf"],
    }
    assert describe(site.config, site.catalog) == found


@given(st.integers(0, 100_000), st.integers(-5, 64), st.integers(1, 1000))
def test_a_lot_holds_one_when_quiet_and_never_more_than_may_be(
    waiting: int, places: int, largest: int
) -> None:
    size = size_of(waiting, places, largest)
    assert 0 <= size <= min(waiting, largest)
    assert (size > 0) == (waiting > 0 and places > 0)
    if 0 < waiting <= places:
        assert size == 1
    if places > 0 and waiting <= places * largest:
        assert size * places >= waiting  # all that wait can go at once


def test_airflows_side_imports_nothing_of_vitriflow_but_itself() -> None:
    allowed = {*sys.stdlib_module_names, "airflow", "httpx"}
    for path in (REPOSITORY / "src/vitriflow/airflow").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = [one.name for one in node.names]
            else:
                names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                own = name.startswith("vitriflow.airflow")
                assert own or name.partition(".")[0] in allowed, f"{path.name} imports {name}"
