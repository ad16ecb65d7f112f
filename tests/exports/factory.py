"""Fills a catalog with a processing whose results are real small files, as the steps leave them."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
from numpy.typing import NDArray

from vitriflow.catalog import (
    Base,
    Catalog,
    Experiment,
    Exposure,
    Measure,
    Microscope,
    Processing,
    ResultRow,
    Sample,
    Session,
    Task,
    TaskState,
    now,
)
from vitriflow.steps.records import (
    Artifact,
    CtfResult,
    Kind,
    MotionResult,
    PickResult,
    PreviewResult,
    Provenance,
    Result,
)

PIXEL_A = 1.5
SHAPE = (200, 256)
JOBS = {"motion": "MotionCorr/job002", "ctf": "CtfFind/job003", "pick": "AutoPick/job004"}


def write_mrc(path: Path, array: NDArray[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with mrcfile.new(path, overwrite=True) as file:
        file.set_data(array.astype(np.float32))
        file.voxel_size = PIXEL_A


def dotted_micrograph(points: list[tuple[int, int]], seed: int = 0) -> NDArray[Any]:
    """Noise with one bright pixel, of a brightness of its own, at each (y, x)."""
    image = np.random.default_rng(seed).normal(size=SHAPE).astype(np.float32)
    for number, (y, x) in enumerate(points):
        image[y, x] = 1000 + number
    return image


def write_coordinates(path: Path, points: list[tuple[float, float]]) -> None:
    """A coordinate STAR as the picking step writes it; points are (y, x)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = "".join(f"{x:.3f} {y:.3f} 1.0\n" for y, x in points)
    labels = "_rlnCoordinateX #1\n_rlnCoordinateY #2\n_rlnAutopickFigureOfMerit #3\n"
    path.write_text(f"\n# version 30001\n\ndata_\n\nloop_\n{labels}{lines}")


@dataclass
class World:
    """A catalog with one session and one processing, to which exposures are added."""

    folder: Path
    kind: str = "movie"
    parameters: dict[str, Any] = field(default_factory=dict)
    optics: dict[str, Any] = field(
        default_factory=lambda: {
            "voltage_kV": 200.0,
            "spherical_aberration_mm": 1.4,
            "amplitude_contrast": 0.07,
        }
    )

    def __post_init__(self) -> None:
        self.source = self.folder / "microscope"
        self.session_root = self.folder / "session"
        self.root = self.session_root / "processed" / "live"
        self.source.mkdir(parents=True)
        self.root.mkdir(parents=True)
        (self.session_root / "raw").symlink_to(self.source)
        self.catalog = Catalog(f"sqlite:///{self.folder / 'catalog.db'}")
        Base.metadata.create_all(self.catalog.engine)
        self.processing = self.catalog.write(self._begin)

    def _begin(self, db: Any) -> int:
        microscope, experiment = Microscope(name="tem1"), Experiment(name="x1", created_at=now())
        db.add_all([microscope, experiment])
        db.flush()
        sample = Sample(experiment_id=experiment.id, name="s")
        db.add(sample)
        db.flush()
        session = Session(
            key="one",
            microscope_id=microscope.id,
            sample_id=sample.id,
            source=str(self.source),
            root=str(self.session_root),
            created_at=now(),
        )
        db.add(session)
        db.flush()
        processing = Processing(
            session_id=session.id,
            name="live",
            template="",
            parameters=self.parameters,
            root=str(self.root),
            created_at=now(),
        )
        db.add(processing)
        db.flush()
        self.session_id = session.id
        return int(processing.id)

    def add(
        self,
        key: str,
        points: list[tuple[int, int]] | None = None,
        *,
        group: int = 1,
        nodes: tuple[str, ...] = ("motion", "ctf", "pick"),
        states: dict[str, str] | None = None,
        pixel_A: float = PIXEL_A,
        details: dict[str, Any] | None = None,
    ) -> int:
        """One exposure with the results of the nodes named; a state other than done leaves no result."""
        points = points if points is not None else [(60, 100), (120, 180)]
        path, item = self.source / key, str(Path(key).with_suffix(""))
        write_mrc(path, dotted_micrograph(points))
        ended = {node: (states or {}).get(node, "done") for node in nodes}
        left = ("done", "rejected", "quarantined")  # states that leave files and a record
        records = {
            node: self._record(node, item, path, points, pixel_A) if state in left else None
            for node, state in ended.items()
        }

        def work(db: Any) -> int:
            exposure = Exposure(
                session_id=self.session_id,
                key=key,
                item=item,
                path=str(path),
                kind=self.kind,
                state="complete",
                optics_group=group,
                details=details or {},
                first_seen_at=now(),
            )
            db.add(exposure)
            db.flush()
            change = self._bump(db)
            db.add(Measure(processing_id=self.processing, exposure_id=exposure.id, change=change))
            for node, record in records.items():
                self._finish(db, exposure.id, node, 1, ended[node], record)
            return int(exposure.id)

        return self.catalog.write(work)

    def finish(
        self, exposure: int, node: str, *, state: str = "done", revision: int = 1, **changes: Any
    ) -> None:
        """End one more node (or revision of it) of an exposure; ``changes`` go into its record."""

        def work(db: Any) -> None:
            row = db.get(Exposure, exposure)
            record = self._record(node, row.item, Path(row.path), [(60, 100)], PIXEL_A)
            record = record.model_copy(update=changes)
            change = self._bump(db)
            db.get(Measure, (self.processing, exposure)).change = change
            self._finish(db, exposure, node, revision, state, record)

        self.catalog.write(work)

    def mark(self, exposure: int, node: str, state: str) -> None:
        """Change the state of a task, as moved thresholds do."""

        def work(db: Any) -> None:
            task = db.query(Task).filter_by(item_id=exposure, node=node).one()
            task.state = state
            db.get(Measure, (self.processing, exposure)).change = self._bump(db)

        self.catalog.write(work)

    def _bump(self, db: Any) -> int:
        processing = db.get(Processing, self.processing)
        processing.change += 1
        return int(processing.change)

    def _finish(
        self, db: Any, exposure: int, node: str, revision: int, state: str, record: Result | None
    ) -> None:
        db.add(
            Task(processing_id=self.processing, node=node, revision=revision, item_id=exposure, state=state)
        )
        if record is not None:
            db.add(
                ResultRow(
                    processing_id=self.processing,
                    node=node,
                    revision=revision,
                    item_id=exposure,
                    status="done" if state == TaskState.REJECTED else state,
                    record=record.model_dump(mode="json"),
                    created_at=now(),
                )
            )

    def _record(
        self, node: str, item: str, movie: Path, points: list[tuple[int, int]], pixel_A: float
    ) -> Result:
        if node == "preview":
            return PreviewResult(step="preview", width=10, height=10)
        base = self.root / JOBS[node] / item
        micrograph = self.root / JOBS["motion"] / f"{item}.mrc" if self.kind == "movie" else movie
        read = {"movie": movie} if node == "motion" else {"micrograph": micrograph}
        kinds = {
            "motion": {
                "micrograph": (Kind.MICROGRAPH, ".mrc"),
                "power_spectrum": (Kind.POWER_SPECTRUM, "_PS.mrc"),
                "motion": (Kind.MOTION, ".star"),
            },
            "ctf": {"diagnostic": (Kind.PICTURE, ".ctf")},
            "pick": {"coordinates": (Kind.COORDINATES, "_autopick.star")},
        }[node]
        outputs = {
            port: Artifact(kind=kind, path=Path(f"{base}{suffix}")) for port, (kind, suffix) in kinds.items()
        }
        if node == "motion":
            write_mrc(outputs["micrograph"].path, dotted_micrograph(points))
        if node == "pick":
            write_coordinates(outputs["coordinates"].path, [(float(y), float(x)) for y, x in points])
        parameters = {"voltage_kV": self.optics["voltage_kV"]} if node == "motion" else {}
        if node == "motion":
            parameters |= {"bin_factor": 1.0, "pixel_size_A": None}
        if node == "ctf":
            parameters = {**self.optics, "pixel_size_A": None}
        common: dict[str, Any] = {
            "step": f"{node}.test",
            "outputs": outputs,
            "provenance": Provenance(
                step=f"{node}.test",
                step_version="1",
                vitriflow_version="0",
                parameters=parameters,
                inputs={port: Artifact(kind=Kind.MICROGRAPH, path=path) for port, path in read.items()},
                host="h",
                device="cpu",
                process_id=1,
                started_at="",
                finished_at="",
                peak_memory_bytes=1,
            ),
        }
        if node == "motion":
            return MotionResult(pixel_size_A=pixel_A, early_A=1.25, late_A=2.5, total_A=3.75, **common)
        if node == "ctf":
            return CtfResult(
                defocus_u_A=12000.0,
                defocus_v_A=11500.0,
                astigmatism_A=500.0,
                defocus_angle_deg=33.0,
                phase_shift_deg=45.0,
                cross_correlation=0.21,
                fit_resolution_A=4.2,
                pixel_size_A=pixel_A,
                **common,
            )
        return PickResult(n_picks=len(points), **common)
