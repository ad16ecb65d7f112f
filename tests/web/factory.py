"""Fills a catalog as the pipeline would: sessions, exposures, tasks, records and small pictures."""

from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy.orm import Session as OrmSession

from tests.web.pictures import DIAMETER_A, MICROGRAPH, PIXEL_A, PREVIEW, micrograph_pictures, spectrum_picture
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
from vitriflow.formats import write_star
from vitriflow.steps.records import (
    Artifact,
    CtfResult,
    Kind,
    MotionResult,
    PickResult,
    PreviewResult,
    Provenance,
    Result,
    Status,
)

STEPS = {"motion": "motion.native", "ctf": "ctf.native", "pick": "pick.dog", "preview": "preview"}


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
            records = _records(self, number, outcome, rng, options)
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


def _item(number: int, options: dict[str, Any]) -> str:
    return options.get(
        "item", f"GridSquare_{number // 40 + 101}/Data/FoilHole_{7000 + number}_Data_{number % 9}"
    )


def _problem(db: OrmSession, world: World, number: int, options: dict[str, Any]) -> int:
    item = _item(number, options)
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


def _exposure(
    db: OrmSession,
    world: World,
    number: int,
    outcome: str,
    records: dict[str, Result],
    options: dict[str, Any],
) -> int:
    item = _item(number, options)
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
        details={"voltage_kV": 300.0, "pixel_size_A": PIXEL_A, "dose_e_per_A2": 40.2, "camera": "Falcon 4i"},
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


def _provenance(step: str) -> Provenance:
    return Provenance(
        step=step,
        step_version="1",
        vitriflow_version="0.1",
        parameters={"pixel_size_A": PIXEL_A, "voltage_kV": 300.0},
        inputs={
            "movie": Artifact(kind=Kind.MOVIE, path=Path("raw/movie.tiff"), blake3="ab" * 32),
            "diagnostic": Artifact(kind=Kind.PICTURE, path=Path("CtfFind/job003/movie.mrc")),
        },
        host="worker1",
        device="cpu",
        process_id=4711,
        started_at=now().isoformat(),
        finished_at=now().isoformat(),
        peak_memory_bytes=1_230_000_000,
        log=["read 40 frames", "done"],
    )


def _records(
    world: World, number: int, outcome: str, rng: np.random.Generator, options: dict[str, Any]
) -> dict[str, Result]:
    if outcome in ("open", "growing"):
        return {}
    item = _item(number, options).replace("/", "_")
    frames = _track(rng, 40)
    motion = MotionResult(
        n_frames=40,
        pixel_size_A=PIXEL_A,
        frame_shifts_A=frames,
        early_A=_path_length(frames[:5]),
        late_A=_path_length(frames[4:]),
        total_A=_path_length(frames),
        net_A=float(np.hypot(*frames[-1])),
        dose_weighted=True,
        dose_per_frame_e_per_A2=1.0,
        mean_intensity=1.2,
        gain_applied="multiplied",
        patch_grid=(3, 3),
        patch_shifts_A=[_near(rng, frames) for _ in range(9)],
    )
    if outcome == "failed":
        failed = MotionResult(
            status=Status.FAILED,
            reason_code=str(Reason.WORKER_DIED),
            reason="the worker died twice (signal 9)",
        )
        return _finish({"motion": failed})
    defocus = float(rng.uniform(7000, 19000))
    ctf = _ctf(rng, defocus, outcome, options)
    if outcome == "quarantined":
        return _finish({"motion": motion, "ctf": ctf})
    quality = options.get("quality", "good")
    ctf.quality = quality
    pick, positions = _picks(world, item, rng, options)
    preview = _preview(world, item, positions, defocus, number)
    records: dict[str, Result] = {"motion": motion, "ctf": ctf, "pick": pick, "preview": preview}
    if outcome == "rejected":
        ctf.status = Status.REJECTED
        ctf.reason_code = str(Reason.CTF_BOUNDS)
        ctf.reason = "astigmatism 1,140 A is above the limit of 800 A"
    return _finish(records)


def _finish(records: dict[str, Result]) -> dict[str, Result]:
    for node, record in records.items():
        record.step = STEPS[node]
        record.seconds = 3.4
        record.peak_memory_bytes = 1_230_000_000
        record.provenance = _provenance(record.step)
    return records


def _track(rng: np.random.Generator, frames: int) -> list[tuple[float, float]]:
    t = np.arange(frames)
    settle = np.exp(-t / 4.0)
    angle, length = rng.uniform(0, 2 * np.pi), rng.uniform(4, 14)
    y = length * np.sin(angle) * (1 - settle) + 0.04 * t + rng.normal(0, 0.12, frames).cumsum() * 0.4
    x = length * np.cos(angle) * (1 - settle) - 0.06 * t + rng.normal(0, 0.12, frames).cumsum() * 0.4
    return [(float(b - y[0]), float(a - x[0])) for a, b in zip(x, y, strict=True)]


def _near(rng: np.random.Generator, frames: list[tuple[float, float]]) -> list[tuple[float, float]]:
    tilt = rng.normal(0, 0.12, 2)
    return [(y * (1 + tilt[0]), x * (1 + tilt[1])) for y, x in frames]


def _path_length(frames: list[tuple[float, float]]) -> float:
    return float(np.hypot(*np.diff(np.array(frames), axis=0).T).sum()) if len(frames) > 1 else 0.0


def _ctf(rng: np.random.Generator, defocus: float, outcome: str, options: dict[str, Any]) -> CtfResult:
    if outcome == "quarantined":
        return CtfResult(
            status=Status.QUARANTINED,
            reason_code=str(options.get("code", Reason.NO_RINGS)),
            reason=options.get(
                "reason", "the best fit explains nothing (correlation 0.03); empty hole, thick ice or a blank"
            ),
            quality="no rings",
        )
    k = np.linspace(0.005, 0.3, 300)
    wave = 0.5 + 0.5 * np.cos(2 * np.pi * 0.0197 * defocus / 2 * k**2)
    decay = np.exp(-60 * k**2)
    spectrum = wave * decay + rng.normal(0, 0.03, len(k))
    astigmatism = float(rng.gamma(3, 60))
    return CtfResult(
        defocus_u_A=defocus + astigmatism / 2,
        defocus_v_A=defocus - astigmatism / 2,
        astigmatism_A=astigmatism,
        defocus_angle_deg=float(rng.uniform(-90, 90)),
        cross_correlation=float(rng.uniform(0.1, 0.3)),
        fit_resolution_A=float(3.2 + rng.gamma(2, 0.4)),
        defocus_uncertainty_A=22.0,
        pixel_size_A=PIXEL_A,
        curves={
            "spatial_frequency_per_A": k.tolist(),
            "spectrum": spectrum.tolist(),
            "fit": (wave * decay).tolist(),
            "correlation": (np.exp(-((k / 0.22) ** 4)) * 0.97).tolist(),
        },
    )


def _picks(
    world: World, item: str, rng: np.random.Generator, options: dict[str, Any]
) -> tuple[PickResult, np.ndarray]:
    import pandas as pd

    grid = np.stack(np.meshgrid(np.arange(12), np.arange(12)), axis=-1).reshape(-1, 2) * 330.0 + 230.0
    kept = grid[rng.random(len(grid)) < 0.7]
    positions = np.clip(kept + rng.normal(0, 60, kept.shape), 90, MICROGRAPH - 90)
    scores = np.sort(rng.gamma(6, 0.1, len(positions)))[::-1]
    path = world.root / "processed" / "live" / "AutoPick" / f"{item}_autopick.star"
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pd.DataFrame(
        {
            "rlnCoordinateX": positions[:, 0],
            "rlnCoordinateY": positions[:, 1],
            "rlnAutopickFigureOfMerit": scores,
        }
    )
    write_star(path, {"": table})
    artifact = Artifact(kind=Kind.COORDINATES, path=options.get("coordinates", path))
    threshold = 0.35
    record = PickResult(
        n_picks=int((scores >= threshold).sum()),
        n_candidates=len(scores),
        threshold=threshold,
        particle_diameter_A=DIAMETER_A,
        outputs={"coordinates": artifact, "candidates": artifact},
    )
    return record, positions


def _preview(world: World, item: str, positions: np.ndarray, defocus: float, number: int) -> PreviewResult:
    folder = world.root / "previews"
    micrograph, thumbnail = micrograph_pictures(positions, number)
    outputs = {}
    for port, data in (
        ("micrograph", micrograph),
        ("thumbnail", thumbnail),
        ("spectrum", spectrum_picture(round(defocus, -3))),
    ):
        path = folder / f"{item}_{port}.png"
        path.write_bytes(data)
        outputs[port] = Artifact(kind=Kind.PICTURE, path=path)
    return PreviewResult(width=PREVIEW, height=PREVIEW, scale=PREVIEW / MICROGRAPH, outputs=outputs)
