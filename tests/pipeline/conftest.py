"""Steps for tests, sessions with exposures, and coordinators to run them."""

import importlib
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, select, update

from tests.databases import catalog, empty_url, postgres, sqlite_catalog
from vitriflow.catalog import (
    Catalog,
    Experiment,
    Exposure,
    Measure,
    Microscope,
    ResultRow,
    Sample,
    Session,
    Task,
    now,
)
from vitriflow.pipeline import Coordinator, Counts, Settings, counts, parse_template, start_processing
from vitriflow.steps import registry

__all__ = ["catalog", "empty_url", "postgres", "sqlite_catalog"]

PATIENT_S = 120.0  # nothing here needs that long, even on a busy machine
QUICK = Settings(
    poll_s=0.05,
    sweep_s=0.5,
    backoff_s=0.05,
    longest_backoff_s=0.2,
    hold_probe_s=0.1,
    stop_grace_s=0.2,
    lease_s=5,
)
CHAIN = """
name: chain
nodes:
  motion: {step: play.any, inputs: {movie: exposure.movie}, set: {minds: %(motion)s}}
  ctf: {step: play.any, inputs: {micrograph: motion.micrograph}, set: {minds: %(ctf)s}}
  pick: {step: play.needy, inputs: {micrograph: motion.micrograph, ctf: ctf.ctf}, set: {minds: %(pick)s}}
"""


def chain(motion: str = "''", ctf: str = "''", pick: str = "''") -> str:
    """A pipeline like the real one, each node with the trouble that it minds."""
    return CHAIN % {"motion": motion, "ctf": ctf, "pick": pick}


@pytest.fixture(scope="package", autouse=True)
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Install the test's steps as a distribution of their own, for this process and its workers."""
    folder = tmp_path_factory.mktemp("plugin")
    shutil.copy(Path(__file__).with_name("plugin_steps.py"), folder / "vf_test_steps.py")
    info = folder / "vf_test_steps-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: vf-test-steps\nVersion: 1\n")
    (info / "entry_points.txt").write_text(
        "[vitriflow.steps]\n"
        + "".join(
            f"play.{name.lower()} = vf_test_steps:{name}\n"
            for name in ("Needy", "Measured", "Gather", "Choose", "Heap", "Report")
        )
        + "play.any = vf_test_steps:Play\n"
    )
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    registry._points.cache_clear()
    yield folder
    sys.path.remove(str(folder))
    registry._points.cache_clear()
    registry._installed.cache_clear()


@dataclass
class House:
    """A session in a catalog, with what tests ask of it."""

    catalog: Catalog
    folder: Path
    session_id: int = 0
    processing_id: int = 0
    executors: list[Executor] = field(default_factory=list)

    def __post_init__(self) -> None:
        (self.folder / "source").mkdir(parents=True, exist_ok=True)
        self.session_id = self.catalog.write(self._make)

    def _make(self, session: Any) -> int:
        microscope, experiment = Microscope(name="tem1"), Experiment(name="e", created_at=now())
        session.add_all([microscope, experiment])
        session.flush()
        sample = Sample(experiment_id=experiment.id, name="s")
        session.add(sample)
        session.flush()
        made = Session(
            key="s1",
            microscope_id=microscope.id,
            sample_id=sample.id,
            source=str(self.folder / "source"),
            root=str(self.folder / "root"),
            created_at=now(),
        )
        session.add(made)
        session.flush()
        return made.id

    def add(self, *names: str, state: str = "complete", kind: str = "movie", **columns: Any) -> None:
        """Register exposures."""
        rows = [
            {
                "session_id": self.session_id,
                "key": f"{name}.mrc",
                "item": name,
                "path": str(self.folder / "source" / f"{name}.mrc"),
                "state": state,
                "kind": kind,
                "first_seen_at": now(),
                "complete_at": now(),
                "metadata": {},
                **columns,
            }
            for name in names
        ]
        self.catalog.write(lambda s: s.connection().execute(insert(Exposure), rows) and None)

    def change(self, name: str, **columns: Any) -> None:
        """Change one exposure."""
        self.catalog.write(
            lambda s: s.execute(update(Exposure).where(Exposure.item == name).values(**columns))
        )

    def start(self, template: str, **parameters: Any) -> int:
        """Start a processing with a template."""
        self.processing_id = start_processing(
            self.catalog,
            self.session_id,
            "p1",
            parse_template(template, "test.yaml"),
            parameters,
            self.folder / "root" / "processed" / "p1",
        )
        return self.processing_id

    def coordinator(self, executor: Executor | None = None, **settings: Any) -> Coordinator:
        """A coordinator, on threads of this process unless told otherwise."""
        if executor is None:
            executor = ThreadPoolExecutor(2)
            self.executors.append(executor)
        return Coordinator(self.catalog, self.processing_id, executor, QUICK.model_copy(update=settings))

    def run(self, executor: Executor | None = None, **settings: Any) -> Counts:
        """Work until there's nothing left to do; what has come of it."""
        self.coordinator(executor, **settings).run(threading.Event(), until_idle=True)
        return self.counts()

    def counts(self) -> Counts:
        """The counts; they always reconcile."""
        found = counts(self.catalog, self.processing_id)
        assert found.reconciles, found
        return found

    def states(self, name: str) -> dict[str, str]:
        """State of each node for one item."""
        query = (
            select(Task.node, Task.state)
            .join(Exposure, Exposure.id == Task.item_id)
            .where(Exposure.item == name, Task.processing_id == self.processing_id)
        )
        return dict(self.catalog.read(lambda s: s.execute(query).all()))

    def task(self, name: str, node: str) -> Task:
        query = select(Task).join(Exposure, Exposure.id == Task.item_id)
        return self.catalog.read(
            lambda s: s.scalars(query.where(Exposure.item == name, Task.node == node)).one()
        )

    def measure(self, name: str) -> Measure:
        query = (
            select(Measure).join(Exposure, Exposure.id == Measure.exposure_id).where(Exposure.item == name)
        )
        return self.catalog.read(lambda s: s.scalars(query).one())

    def record(self, name: str, node: str) -> dict[str, Any]:
        query = select(ResultRow.record).join(Exposure, Exposure.id == ResultRow.item_id)
        query = query.where(Exposure.item == name, ResultRow.node == node)
        return self.catalog.read(lambda s: s.scalars(query).one())


@pytest.fixture
def house(catalog: Catalog, tmp_path: Path) -> Iterator[House]:
    """A session in a catalog, once on each kind of server."""
    made = House(catalog, tmp_path / "house")
    yield made
    for executor in made.executors:
        executor.shutdown()


@pytest.fixture
def home(sqlite_catalog: Catalog, tmp_path: Path) -> Iterator[House]:
    """A session in an SQLite catalog, for what doesn't depend on the server."""
    made = House(sqlite_catalog, tmp_path / "house")
    yield made
    for executor in made.executors:
        executor.shutdown()


def wait_for(condition: Callable[[], object], timeout_s: float = PATIENT_S) -> None:
    """Wait until something is true; fail when it doesn't become so."""
    done = threading.Event()
    for _ in range(int(timeout_s / 0.02)):
        if condition():
            return
        done.wait(0.02)
    raise AssertionError("it didn't happen in time")
