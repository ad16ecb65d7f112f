"""RELION on batches of particles: ``class2d.relion``, ``class3d.relion`` and ``refine3d.relion``."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, TypeVar

from pydantic import Field, model_validator

from vitriflow.steps.base import BatchItem, Port
from vitriflow.steps.programs.base import Job, ProgramBatchStep, number
from vitriflow.steps.programs.refine_common import (
    REFINE,
    Gathered,
    RefineParameters,
    check_file,
    common_words,
    data_table,
    gather,
    last_iteration,
    resolution_of,
    run_refine,
    table_of,
    write_data,
)
from vitriflow.steps.records import Artifact, Class2DResult, ClassInfo, Kind, Volume3DResult, VolumeInfo

if TYPE_CHECKING:
    import pandas as pd


class Class2DRelionParameters(RefineParameters):
    """Of two-dimensional classification."""

    n_classes: int = Field(default=50, ge=1, le=1000, description="number of classes")
    iterations: int = Field(default=25, ge=1, le=999, description="rounds")
    psi_step_deg: float = Field(default=6.0, gt=0, le=90, description="step of rotation (degrees)")


class VolumeParameters(RefineParameters):
    """Of what begins with a map."""

    reference: Path = Field(description="map to begin with (.mrc), of the particles' box and pixel size")
    initial_lowpass_A: float = Field(default=50.0, gt=1, le=500, description="filter of that map (A)")
    greyscale: bool = Field(default=False, description="the map is on the particles' own scale of grey")
    symmetry: str = Field(
        default="C1", pattern=r"^([CD][1-9]\d{0,2}|T|O|I[1-5]?)$", description="point group"
    )
    healpix_order: int = Field(
        default=2, ge=0, le=6, description="step of angles: 1 is 30, 2 is 15, 3 is 7.5 degrees"
    )


class Class3DRelionParameters(VolumeParameters):
    """Of three-dimensional classification."""

    tau2_fudge: float = Field(default=4.0, gt=0, le=100, description="regularisation")
    n_classes: int = Field(default=4, ge=1, le=200, description="number of classes")
    iterations: int = Field(default=25, ge=1, le=999, description="rounds")


class Refine3DRelionParameters(VolumeParameters):
    """Of refinement. Its two halves need two MPI processes and one that leads them."""

    tau2_fudge: float = Field(default=1.0, gt=0, le=100, description="regularisation")
    mpi: int = Field(
        default=3, ge=3, le=1024, description="MPI processes: one leads, the others go by halves"
    )
    local_healpix_order: int = Field(
        default=4, ge=0, le=8, description="from this step on angles are searched nearby"
    )
    join_halves_A: float = Field(
        default=40.0, gt=1, le=500, description="halves are joined below this resolution (A)"
    )
    solvent_mask: Path | None = Field(default=None, description="mask of the particle (.mrc)")
    max_iterations: int | None = Field(
        default=None, ge=1, le=999, description="stops after; none: when it converges"
    )

    @model_validator(mode="after")
    def _halves(self) -> "Refine3DRelionParameters":
        if self.mpi % 2 == 0:
            raise ValueError(f"mpi is odd: one process leads and two halves get as many each, not {self.mpi}")
        return self


_INPUTS: Mapping[str, Port] = {"particles": Port(Kind.PARTICLES, "particles of each exposure, RELION STAR")}
_DATA = Port(Kind.PARTICLES, "STAR: class, angles and shift of each particle")
V = TypeVar("V", bound=VolumeParameters)
Q = TypeVar("Q", bound=RefineParameters)


class Class2DRelion(ProgramBatchStep[Class2DRelionParameters, Class2DResult]):
    """Two-dimensional classification by expectation maximisation."""

    name = "class2d.relion"
    version: ClassVar[str] = "1"
    summary = "RELION's 2D classification of a batch"
    folder: ClassVar[str] = "Class2D"
    tool = REFINE
    inputs: ClassVar[Mapping[str, Port]] = _INPUTS
    outputs: ClassVar[Mapping[str, Port]] = {
        "classes": Port(Kind.CLASSES, "MRC stack of the averages, in RELION's order"),
        "model": Port(Kind.CLASSES, "STAR of the classes"),
        "particles": _DATA,
    }
    Parameters = Class2DRelionParameters
    Record = Class2DResult

    def work(self, job: Job[Class2DRelionParameters], items: Sequence[BatchItem]) -> Class2DResult:
        """Classify one batch."""
        gathered = gather(job, items)
        run_refine(job, self.command(job, gathered))
        _, model = last_iteration(job, "_model.star")
        _, stack = last_iteration(job, "_classes.mrcs")
        _, data = last_iteration(job, "_data.star")
        table = data_table(job, data, gathered)
        counts = table["rlnClassNumber"].astype(int).value_counts()
        classes = [
            ClassInfo(
                class_id=place,
                picture=place,
                n_particles=int(counts.get(place, 0)),
                resolution_A=resolution_of(row["rlnEstimatedResolution"]),
                selected=bool(counts.get(place, 0)),
            )
            for place, row in enumerate(table_of(model, "model_classes").to_dict("records"), start=1)
        ]
        _check_classes(job, len(classes), job.parameters.n_classes, table)
        resolutions = [one.resolution_A for one in classes if one.resolution_A and one.n_particles]
        return Class2DResult(
            n_items=gathered.n_items,
            n_new=gathered.n_new,
            n_particles=gathered.n_particles,
            skipped=gathered.skipped,
            n_seen=gathered.n_particles,
            n_classified=gathered.n_particles,
            n_selected=gathered.n_particles,
            classes=sorted(classes, key=lambda one: -one.n_particles),
            best_resolution_A=min(resolutions, default=None),
            outputs=_artifacts(job, stack, "_classes.mrcs", "classes", model, data, gathered),
        )

    @staticmethod
    def command(job: Job[Class2DRelionParameters], gathered: Gathered) -> list[str]:
        """The arguments for one batch."""
        parameters = job.parameters
        words = common_words(job, gathered)
        words += ["--K", str(parameters.n_classes), "--iter", str(parameters.iterations)]
        return [*words, "--psi_step", number(2.0 * parameters.psi_step_deg)]


class _Volumes(ProgramBatchStep[V, Volume3DResult]):
    """What 3D classification and refinement share."""

    version: ClassVar[str] = "1"
    tool = REFINE
    inputs: ClassVar[Mapping[str, Port]] = _INPUTS
    outputs: ClassVar[Mapping[str, Port]] = {
        "volume": Port(Kind.VOLUME, "the refined map, or that of the largest class"),
        "model": Port(Kind.CLASSES, "STAR of the classes"),
        "particles": _DATA,
    }
    Record = Volume3DResult

    def words(self, job: Job[V], gathered: Gathered) -> list[str]:
        """Arguments of what begins with a map."""
        parameters = job.parameters
        check_file(parameters.reference, "reference")
        (job.folder / "reference.mrc").symlink_to(parameters.reference.absolute())
        words = [*common_words(job, gathered), "--ref", "reference.mrc"]
        words += ["--ini_high", number(parameters.initial_lowpass_A), "--sym", parameters.symmetry]
        words += ["--healpix_order", str(parameters.healpix_order)]
        return words if parameters.greyscale else [*words, "--firstiter_cc"]

    def record(self, job: Job[V], gathered: Gathered, model: Path, data: Path) -> Volume3DResult:
        """What a model file and a table of particles say."""
        table = data_table(job, data, gathered)
        counts = table["rlnClassNumber"].astype(int).value_counts()
        classes = [
            VolumeInfo(
                class_id=place,
                n_particles=int(counts.get(place, 0)),
                share=float(row["rlnClassDistribution"]),
                resolution_A=resolution_of(row["rlnEstimatedResolution"]),
                rotation_accuracy_deg=resolution_of(row["rlnAccuracyRotations"]),
                shift_accuracy_A=resolution_of(row["rlnAccuracyTranslationsAngst"]),
            )
            for place, row in enumerate(table_of(model, "model_classes").to_dict("records"), start=1)
        ]
        best = [one.resolution_A for one in classes if one.resolution_A]
        return Volume3DResult(
            n_items=gathered.n_items,
            n_new=gathered.n_new,
            n_particles=gathered.n_particles,
            skipped=gathered.skipped,
            symmetry=job.parameters.symmetry,
            box_size_px=gathered.box_size_px,
            pixel_size_A=gathered.pixel_size_A,
            resolution_A=min(best, default=None),
            classes=sorted(classes, key=lambda one: -one.n_particles),
        )


class Class3DRelion(_Volumes[Class3DRelionParameters]):
    """Three-dimensional classification."""

    name = "class3d.relion"
    summary = "RELION's 3D classification of a batch"
    folder: ClassVar[str] = "Class3D"
    Parameters = Class3DRelionParameters

    def work(self, job: Job[Class3DRelionParameters], items: Sequence[BatchItem]) -> Volume3DResult:
        """Classify one batch."""
        gathered = gather(job, items)
        words = ["--K", str(job.parameters.n_classes), "--iter", str(job.parameters.iterations)]
        run_refine(job, [*self.words(job, gathered), *words])
        count, model = last_iteration(job, "_model.star")
        _, data = last_iteration(job, "_data.star")
        record = self.record(job, gathered, model, data)
        _check_classes(job, len(record.classes), job.parameters.n_classes, table_of(data, "particles"))
        record.iterations = count
        volume = job.output(f"out/run_it{count:03d}_class{record.classes[0].class_id:03d}.mrc")
        _check_volume(job, volume, gathered)
        record.outputs = _artifacts(job, volume, ".mrc", "volume", model, data, gathered)
        return record


class Refine3DRelion(_Volumes[Refine3DRelionParameters]):
    """Refinement of two halves, which tells a resolution."""

    name = "refine3d.relion"
    summary = "RELION's 3D refinement of a batch (MPI)"
    folder: ClassVar[str] = "Refine3D"
    Parameters = Refine3DRelionParameters

    def work(self, job: Job[Refine3DRelionParameters], items: Sequence[BatchItem]) -> Volume3DResult:
        """Refine one map."""
        gathered = gather(job, items)
        parameters = job.parameters
        words = [*self.words(job, gathered), "--auto_refine", "--split_random_halves"]
        words += ["--auto_local_healpix_order", str(parameters.local_healpix_order)]
        words += ["--low_resol_join_halves", number(parameters.join_halves_A)]
        if parameters.solvent_mask is not None:
            check_file(parameters.solvent_mask, "solvent_mask")
            (job.folder / "mask.mrc").symlink_to(parameters.solvent_mask.absolute())
            words += ["--solvent_mask", "mask.mrc"]
        if parameters.max_iterations is not None:
            words += ["--auto_iter_max", str(parameters.max_iterations)]
        run_refine(job, words)
        count, half = last_iteration(job, "_half1_model.star")
        final = job.maybe("out/run_model.star")
        model = final or half
        data = job.output("out/run_data.star") if final else last_iteration(job, "_data.star")[1]
        record = self.record(job, gathered, model, data)
        record.iterations, record.converged = count, final is not None and parameters.max_iterations != count
        name = "run_class001.mrc" if final else f"run_it{count:03d}_half1_class001.mrc"
        volume = job.output(f"out/{name}")
        _check_volume(job, volume, gathered)
        record.outputs = _artifacts(job, volume, ".mrc", "volume", model, data, gathered)
        if not record.converged:
            record.warnings.append(f"it was stopped after {count} iterations, before it converged")
        return record


def _check_classes(job: Job[Q], found: int, asked: int, table: "pd.DataFrame") -> None:
    numbers = table["rlnClassNumber"].astype(int)
    if found != asked or numbers.min() < 1 or numbers.max() > asked:
        raise job.nonsense(
            "classes", f"{asked} of them, particles in 1 to {asked}", f"{found}, up to {numbers.max()}"
        )


def _check_volume(job: Job[V], path: Path, gathered: Gathered) -> None:
    import numpy as np

    from vitriflow.formats import read_stack

    volume = read_stack(path)
    side = gathered.box_size_px
    if volume.shape != (side, side, side) or not np.isfinite(volume).all() or float(volume.std()) == 0.0:
        found = f"{' x '.join(map(str, volume.shape))}, from {volume.min():g} to {volume.max():g}"
        raise job.nonsense("map", f"a finite one of {side} px a side, with contrast", found)


def _artifacts(
    job: Job[Q], made: Path, suffix: str, port: str, model: Path, data: Path, gathered: Gathered
) -> dict[str, Artifact]:
    pixel_A = gathered.pixel_size_A
    kind = Kind.VOLUME if port == "volume" else Kind.CLASSES
    name = f"out/{made.name}"
    kept = job.keep(made, suffix)
    model.write_text(model.read_text(encoding="utf-8").replace(name, kept.name), encoding="utf-8")
    return {
        port: Artifact(kind=kind, path=kept, pixel_size_A=pixel_A),
        "model": Artifact(kind=Kind.CLASSES, path=job.keep(model, "_model.star"), pixel_size_A=pixel_A),
        "particles": Artifact(
            kind=Kind.PARTICLES, path=write_data(job, data, gathered), pixel_size_A=pixel_A
        ),
    }
