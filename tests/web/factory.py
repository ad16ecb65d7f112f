"""Fills a catalog as the pipeline would: sessions, exposures, tasks, records and small pictures."""

from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy.orm import Session as OrmSession

from tests.web.pictures import PIXEL_A
from tests.web.records import STEPS, item_of, make_records
from vitriflow.catalog import (
    Attempt,
    Base,
    Catalog,
    Event,
    Experiment,
    Exposure,
    ExposureState,
    Measure,
    Microscope,
    Processing,
    ResultRow,
    Sample,
    Session,
    SessionState,
    Task,
    TaskState,
    now,
)
from vitriflow.errors import Reason
from vitriflow.steps.records import (
    CtfResult,
    Result,
    Status,
)


@dataclass
class World:
    """A catalog with one session whose exposures can be added one by one."""

    folder: Path
    catalog: Catalog
    key: str
    session_id: int
    processing_id: int
    seed: int = 1
    made: int = 0
    ids: list[int] = field(default_factory=list)

    @property
    def root(self) -> Path:
        return self.folder / "data" / self.key

    def add(self, outcome: str = "done", **options: Any) -> int:
        """One exposure in one transaction, as the engine's commit would leave it."""
        rng = np.random.default_rng(self.seed * 100_003 + self.made)
        number = self.made
        self.made += 1
        if outcome == "problem":
            exposure_id = self.catalog.write(lambda db: _problem(db, self, number, options))
        else:
            records = make_records(self.root, number, outcome, rng, options)
            exposure_id = self.catalog.write(
                lambda db: _exposure(db, self, number, outcome, records, options)
            )
        self.ids.append(exposure_id)
        return exposure_id

    def say(self, text: str, severity: str = "info") -> None:
        self.catalog.write(
            lambda db: db.add(Event(at=now(), session_id=self.session_id, severity=severity, text=text))
        )

    def url(self) -> str:
        return self.catalog.url


def make_world(
    folder: Path,
    key: str = "20261120_tem1_apoferritin",
    *,
    catalog: Catalog | None = None,
    sample: str = "apoferritin",
    processing: bool = True,
    state: SessionState = SessionState.ACTIVE,
) -> World:
    """A catalog in ``folder`` with one session and (if asked) its processing."""
    if catalog is None:
        catalog = Catalog(f"sqlite:///{folder / 'catalog.db'}")
        Base.metadata.create_all(catalog.engine)
    root = folder / "data" / key
    source = folder / "microscope" / key
    for path in (root / "previews", root / "processed" / "live", source):
        path.mkdir(parents=True, exist_ok=True)

    def work(db: OrmSession) -> tuple[int, int]:
        microscope = _named(db, Microscope, "tem1", settings={"voltage_kV": 300.0})
        experiment = _named(db, Experiment, "C123", title="Test grids", created_at=now())
        grid = Sample(experiment_id=experiment.id, name=f"{sample} ({key})"[:128])
        grid.name = sample if db.query(Sample).filter_by(name=sample).first() is None else grid.name
        db.add(grid)
        db.flush()
        session = Session(
            key=key,
            microscope_id=microscope.id,
            sample_id=grid.id,
            state=state,
            source=str(source),
            root=str(root),
            settings={"pixel_size_A": PIXEL_A},
            survey={"movie": 12, "metadata": 12, "grid_square_image": 3, "unknown": 2},
            created_at=now(),
        )
        db.add(session)
        db.flush()
        if not processing:
            return session.id, 0
        run = Processing(
            session_id=session.id,
            name="live",
            template="name: single-particle\n",
            parameters={},
            root=str(root / "processed" / "live"),
            created_at=now(),
        )
        db.add(run)
        db.flush()
        return session.id, run.id

    session_id, processing_id = catalog.write(work)
    return World(folder, catalog, key, session_id, processing_id)


def _named(db: OrmSession, table: type, name: str, **values: Any) -> Any:
    row = db.query(table).filter_by(name=name).first()
    if row is None:
        row = table(name=name, **values)
        db.add(row)
        db.flush()
    return row


def _problem(db: OrmSession, world: World, number: int, options: dict[str, Any]) -> int:
    item = item_of(number, options)
    row = Exposure(
        session_id=world.session_id,
        key=item + ".tiff",
        item=item,
        path=str(world.root / "raw" / (item + ".tiff")),
        state=ExposureState.PROBLEM,
        problem_code=str(options.get("code", Reason.TRUNCATED)),
        problem=options.get("reason", "the file ends after 7 of 40 frames; ask for it again"),
        first_seen_at=now(),
    )
    db.add(row)
    db.flush()
    return row.id


def _stage(number: int) -> dict[str, float]:
    """Squares 90 um apart in rows of five, holes 4 um apart in each."""
    square, hole = number // 8, number % 8 // 2
    return {
        "stage_x_um": 90.0 * (square % 5) - 180.0 + 4.0 * (hole % 2),
        "stage_y_um": 90.0 * (square // 5) - 100.0 + 4.0 * (hole // 2),
    }


def _exposure(
    db: OrmSession,
    world: World,
    number: int,
    outcome: str,
    records: dict[str, Result],
    options: dict[str, Any],
) -> int:
    item = item_of(number, options)
    complete = options.get("complete_at", now() - timedelta(seconds=30 + 0.0 * number))
    growing = outcome == "growing"
    row = Exposure(
        session_id=world.session_id,
        key=item + ".tiff",
        item=item,
        path=str(world.root / "raw" / (item + ".tiff")),
        state=ExposureState.SEEN if growing else ExposureState.COMPLETE,
        size=402_653_184,
        blake3="ab" * 32,
        software="EPU",
        grid_square=options.get("square", f"GridSquare_{number // 8 + 101}"),
        foil_hole=f"FoilHole_{7000 + number // 2}",
        details={
            "voltage_kV": 300.0,
            "pixel_size_A": PIXEL_A,
            "dose_e_per_A2": 40.2,
            "camera": "Falcon 4i",
            **({} if options.get("square", "") is None else _stage(number)),
        },
        first_seen_at=complete - timedelta(seconds=4),
        complete_at=None if growing else complete,
    )
    db.add(row)
    db.flush()
    if growing or not world.processing_id:
        return row.id
    run = db.get(Processing, world.processing_id)
    assert run is not None
    run.change += 1
    finished = complete + timedelta(seconds=options.get("latency_s", 14.0 + 3.0 * np.sin(number)))
    measure = Measure(
        processing_id=run.id, exposure_id=row.id, change=run.change, status=outcome, complete_at=complete
    )
    if outcome != "open":
        measure.finished_at = finished
        measure.latency_s = (finished - complete).total_seconds()
    _tasks(db, world, row.id, outcome, records, finished, measure)
    db.add(measure)
    return row.id


def _tasks(
    db: OrmSession,
    world: World,
    exposure_id: int,
    outcome: str,
    records: dict[str, Result],
    finished: Any,
    measure: Measure,
) -> None:
    for node in STEPS:
        record = records.get(node)
        task_state = TaskState.WAITING if outcome == "open" else TaskState.STOPPED
        if record is not None:
            task_state = TaskState(record.status.value)
        task = Task(
            processing_id=world.processing_id,
            node=node,
            item_id=exposure_id,
            state=task_state,
            attempts=1 if record else 0,
            reason_code=record.reason_code if record else None,
            reason=record.reason if record else None,
            finished_at=finished if record else None,
        )
        db.add(task)
        db.flush()
        if record is None:
            continue
        if record.status == Status.FAILED:
            reason = record.reason or ""
            db.add(
                Attempt(
                    task_id=task.id,
                    number=1,
                    reason_code=str(Reason.WORKER_DIED),
                    reason=reason,
                    ended_at=now(),
                )
            )
        dumped = record.model_dump(mode="json")
        db.add(
            ResultRow(
                processing_id=world.processing_id,
                node=node,
                item_id=exposure_id,
                status=record.status,
                record=dumped,
                created_at=finished,
            )
        )
        if record.status in (Status.FAILED, Status.QUARANTINED):
            measure.reason_code, measure.reason = record.reason_code, record.reason
            continue
        for name in Measure.__mapper__.columns.keys():  # noqa: SIM118  (columns isn't a dict)
            if name in dumped and name not in ("status", "reason", "reason_code"):
                setattr(measure, name, dumped[name])
        if isinstance(record, CtfResult):
            measure.defocus_A = (record.defocus_u_A + record.defocus_v_A) / 2
            measure.ctf_quality = record.quality
        if record.reason_code:
            measure.reason_code, measure.reason = record.reason_code, record.reason
