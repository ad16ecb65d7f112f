"""Two-dimensional classes that grow with every batch of particles."""

import json
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from vitriflow.errors import BadFile, BadParameter, ItemError, Reason
from vitriflow.steps.base import BatchItem, BatchStep, Context, Port, Resources, StepParameters
from vitriflow.steps.class2d_files import Member, Memory, carried_rows, load_member, write_outputs
from vitriflow.steps.records import Artifact, Class2DResult, ClassInfo, Kind
from vitriflow.steps.threads import torch_threads

if TYPE_CHECKING:
    from vitriflow.kernels.class2d import Class2DSettings, OnlineClassifier, Update

_PIECE = 4000  # particles read at a time


class Class2DParameters(StepParameters):
    """How classes are made."""

    particle_diameter_A: float = Field(
        gt=20, le=5000, description="of the mask (A): the particle's longest extent"
    )
    n_classes: int = Field(default=50, ge=1, le=300, description="at most so many classes")
    max_resolution_A: float = Field(default=8.0, gt=2, le=50, description="finest detail compared (A)")
    max_shift_A: float | None = Field(
        default=None,
        gt=0,
        le=500,
        description="of a particle from its box's middle (A); None: 0.15 of the diameter",
    )
    first_particles: int = Field(
        default=300, ge=20, le=100000, description="particles to wait for before there are classes"
    )
    held_particles: int = Field(
        default=4000,
        ge=100,
        le=100000,
        description="particles kept at hand; the others live on in the averages",
    )
    most_per_batch: int = Field(
        default=20000,
        ge=100,
        le=10000000,
        description="particles used of one batch; of more a sample is drawn",
    )
    passes: int = Field(default=1, ge=1, le=20, description="rounds over the held particles with each batch")
    use_ctf: bool = Field(default=True, description="correct for the CTF; particles without one are left out")
    particle_contrast: Literal["bright", "dark"] = Field(
        default="bright", description="of protein in the particle images"
    )
    seed: int = Field(
        default=0, ge=0, le=2**31, description="of every draw: the same batches give the same classes"
    )
    select: dict[int, bool] = Field(
        default_factory=dict,
        description="classes that a person keeps (true) or not (false), by their number; remembered from then on",
    )


class Class2DOnline(BatchStep[Class2DParameters, Class2DResult]):
    """Takes in the new members of each batch and goes on from the state that the batch before left."""

    name = "class2d.online"
    version = "1"
    summary = "2D classes that grow while particles arrive, with scores, selection and resolution"
    folder = "Class2D"
    inputs = {  # noqa: RUF012  (declared as ClassVar by Step)
        "particles": Port(Kind.PARTICLES, "particles of one micrograph, as extract writes them"),
    }
    outputs = {  # noqa: RUF012
        "classes": Port(Kind.CLASSES, "MRC stack of the averages, the largest class first", optional=True),
        "model": Port(
            Kind.CLASSES, "STAR of the classes: number, particles, resolution, score", optional=True
        ),
        "particles": Port(
            Kind.PARTICLES, "STAR: class, turn and shift of new and held particles", optional=True
        ),
        "selected": Port(Kind.PARTICLES, "the same, of selected classes only", optional=True),
        "picture": Port(Kind.PICTURE, "PNG of the averages", optional=True),
        "state": Port(Kind.STATE, "what the next batch goes on from", optional=True),
    }
    Parameters = Class2DParameters
    Record = Class2DResult

    def resources(self, parameters: Class2DParameters) -> Resources:
        """Held particles take about 8 kB each. A second thread brings little, and on a busy machine it costs much."""
        memory = 1536 * 1024**2 + parameters.held_particles * 40_000
        return Resources(threads=1, gpus=1, memory_bytes=memory, time_limit_s=3600.0)

    def run_batch(
        self,
        items: Sequence[BatchItem],
        inputs: Mapping[str, Artifact],
        state: Path | None,
        parameters: Class2DParameters,
        context: Context,
    ) -> Class2DResult:
        """Take in one batch."""
        started = time.perf_counter()
        record = Class2DResult(n_items=len(items))
        work = _Work(parameters, record, context)
        with torch_threads(min(self.resources(parameters).threads, max(1, context.threads))):
            work.open(state)
            members = []
            for item in items:
                if state is not None and not item.new:
                    continue
                try:
                    members.append(load_member(item, parameters.use_ctf))
                except (ItemError, OSError) as error:
                    record.skipped.append(f"{item.item}: {error}")
            total = sum(map(len, members))
            share = min(1.0, parameters.most_per_batch / max(total, 1))
            for part in _parts(members):
                work.take(part, share)
            work.memory.selection |= parameters.select
            work.settle()
            _fill(work)
            record.n_items = len(items) - len(record.skipped)
            if work.classifier is not None:
                record.outputs = write_outputs(work.classifier, work.placed, work.memory, record, context)
                work.forget()
                record.outputs["state"] = work.save()
        _tell(work, time.perf_counter() - started)
        return record


def _parts(members: Sequence[Member]) -> Iterator[list[Member]]:
    """Members in pieces of some thousand particles, so that memory doesn't grow with the batch."""
    part: list[Member] = []
    for member in members:
        part.append(member)
        if sum(map(len, part)) >= _PIECE:
            yield part
            part = []
    if part:
        yield part


def _settings(
    parameters: Class2DParameters, pixel_A: float, ctf_state: str, device: str
) -> "Class2DSettings":
    from vitriflow.kernels.class2d import Class2DSettings

    return Class2DSettings(
        pixel_size_A=pixel_A,
        particle_diameter_A=parameters.particle_diameter_A,
        n_classes=parameters.n_classes,
        max_resolution_A=parameters.max_resolution_A,
        max_shift_A=parameters.max_shift_A,
        first=min(parameters.first_particles, parameters.held_particles),
        held=parameters.held_particles,
        most_per_update=parameters.most_per_batch,
        passes=parameters.passes,
        seed=parameters.seed,
        ctf=ctf_state if parameters.use_ctf else "none",
        device=device,
    )


@dataclass
class _Work:
    """The classifier with what goes along with it, from the state of the batch before or new."""

    parameters: Class2DParameters
    record: Class2DResult
    context: Context
    classifier: "OnlineClassifier | None" = None
    memory: Memory = field(default_factory=Memory)
    placed: dict[int, tuple[int, float, float, float, float]] = field(default_factory=dict)

    def open(self, state: Path | None) -> None:
        """Go on from a state.

        Raises
        ------
        BadFile
            When the state can't be read.
        """
        if state is None:
            return
        import numpy as np

        from vitriflow.kernels.class2d_state import from_arrays

        try:
            # numpy leaves a broken file open that it opened itself
            with state.open("rb") as file, np.load(file, allow_pickle=False) as loaded:
                arrays = {name: loaded[name] for name in loaded.files}
            about = json.loads(bytes(arrays.pop("step")))
            settings = _settings(self.parameters, about["pixel_size_A"], about["ctf"], self.context.device)
            self.classifier = from_arrays(settings, arrays)
        except BadParameter as error:
            raise BadFile(Reason.PARAMETER, error.thing, error.expected, error.found, error.remedy) from error
        except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
            raise BadFile(
                Reason.METADATA_BROKEN,
                str(state),
                "the state of class2d.online",
                f"{type(error).__name__}: {error}",
                "Restart the node: as a new revision it begins anew.",
            ) from error
        self.memory = Memory(
            {int(number): row for number, row in about["rows"].items()},
            {int(group): row for group, row in about["optics"].items()},
            {int(class_id): keep for class_id, keep in about["selection"].items()},
        )

    def save(self) -> Artifact:
        """Write the state: the file appears whole or not at all."""
        import numpy as np

        from vitriflow.kernels.class2d_state import to_arrays

        assert self.classifier is not None
        about = {
            "pixel_size_A": self.classifier.settings.pixel_size_A,
            "ctf": self.classifier.settings.ctf,
            "rows": self.memory.rows,
            "optics": self.memory.optics,
            "selection": self.memory.selection,
        }
        arrays: dict[str, Any] = dict(to_arrays(self.classifier))
        arrays["step"] = np.frombuffer(json.dumps(about).encode(), dtype=np.uint8)
        with self.context.writing(".state.npz") as temporary, temporary.open("wb") as file:
            np.savez(file, **arrays)
        return Artifact(kind=Kind.STATE, path=self.context.path(".state.npz"))

    def take(self, members: Sequence[Member], share: float) -> None:
        """Give the classifier the particles of some members, ``share`` of them drawn by chance."""
        import numpy as np
        import torch

        from vitriflow.kernels.class2d import OnlineClassifier, ParticleCtf

        draw = np.random.default_rng(
            [self.parameters.seed, 0 if self.classifier is None else self.classifier.n_seen]
        )
        images, defocus, optics, rows = [], [], [], []
        project = self.context.out.resolve().parent.parent
        for member in members:
            keep = np.flatnonzero(draw.random(len(member)) < share)
            self.record.n_left_out += len(member) - len(keep)
            if not len(keep):
                continue
            try:
                stack = member.images(keep.tolist())
                self._refuse_other(member, stack.shape[1])
            except (ItemError, OSError) as error:
                self._skip(member.item, str(error))
                continue
            if self.classifier is None:
                settings = _settings(
                    self.parameters, member.pixel_size_A, member.ctf_state, self.context.device
                )
                self.classifier = OnlineClassifier(settings, stack.shape[1])
            images.append(stack)
            if member.defocus is not None and member.optics_values is not None:
                defocus.append(member.defocus[keep])
                optics.append(member.optics_values[keep])
            rows += carried_rows(member, keep.tolist(), project)
            for row in member.optics.to_dict("records"):
                self.memory.optics[int(row["rlnOpticsGroup"])] = {
                    str(key): value for key, value in row.items()
                }
            self.record.n_new += 1
            self.record.n_particles += len(keep)
        if not images or self.classifier is None:
            return
        ctf = None
        if defocus:
            ctf = ParticleCtf(
                torch.from_numpy(np.concatenate(defocus)), torch.from_numpy(np.concatenate(optics))
            )
        pixels = torch.from_numpy(np.concatenate(images))
        if self.parameters.particle_contrast == "dark":
            pixels = -pixels
        self._keep(self.classifier.update(pixels, ctf), rows)

    def _refuse_other(self, member: Member, box: int) -> None:
        if self.classifier is None:
            return
        settings = self.classifier.settings
        mine = (self.classifier.prepare.box, round(settings.pixel_size_A, 3), settings.ctf)
        theirs = (box, round(member.pixel_size_A, 3), member.ctf_state if self.parameters.use_ctf else "none")
        if mine != theirs:
            raise BadFile(
                Reason.WRONG_SIZE,
                member.item,
                "boxes of {} px at {} A, CTF {}, as those before".format(*mine),
                "{} px at {} A, CTF {}".format(*theirs),
                "Extract all micrographs with the same parameters.",
            )

    def _skip(self, item: str, why: str) -> None:
        self.record.skipped.append(f"{item}: {why}")

    def _keep(self, update: "Update", rows: list[dict[str, Any]]) -> None:
        """Remember where the update's particles stand, and what goes along with those still held."""
        numbers = update.number.tolist()
        self.memory.rows |= dict(zip(numbers, rows, strict=True))
        turn, shift = update.turn_deg.tolist(), update.shift_A.tolist()
        for place, number in enumerate(numbers):
            class_id, score = int(update.class_id[place]), float(update.score[place])
            self.placed[number] = (class_id, turn[place], *shift[place], score)
        self.record.born += update.born
        self.record.died += update.died

    def settle(self) -> None:
        """Bring all places up to date: held particles as they stand, the others by what became of their class."""
        classifier = self.classifier
        if classifier is None:
            return
        for number, (class_id, *rest) in self.placed.items():
            self.placed[number] = (classifier.class_now(class_id), *rest)  # type: ignore[assignment]
        self.placed |= classifier.held_places()
        waiting = [number for number, place in self.placed.items() if not place[0]]
        for number in waiting:
            del self.placed[number]

    def forget(self) -> None:
        """Drop what goes along with particles that are no longer held."""
        assert self.classifier is not None
        held = set(self.classifier.held.number.tolist())
        self.memory.rows = {number: row for number, row in self.memory.rows.items() if number in held}


def _fill(work: _Work) -> None:
    """Put what the classifier knows into the record."""
    from vitriflow.kernels.class2d_report import class_reports

    classifier, record = work.classifier, work.record
    if classifier is None:
        return
    record.n_seen = classifier.n_seen
    record.n_broken = classifier.n_broken
    selection = _selection(classifier, work.memory.selection)
    work.memory.selection = selection
    for picture, one in enumerate(class_reports(classifier), start=1):
        chosen = selection.get(one.class_id)
        record.classes.append(
            ClassInfo(
                class_id=one.class_id,
                picture=picture,
                n_particles=one.count,
                resolution_A=one.resolution_A,
                noise_likeness=one.noise_likeness,
                score=one.score,
                selected=one.keep if chosen is None else chosen,
                selected_by="automatic" if chosen is None else "person",
            )
        )
    record.n_classified = sum(one.n_particles for one in record.classes)
    record.n_selected = sum(one.n_particles for one in record.classes if one.selected)
    record.n_waiting = 0 if classifier.started else len(classifier.held)
    reached = [one.resolution_A for one in record.classes if one.resolution_A and one.selected]
    record.best_resolution_A = min(reached) if reached else None


def _selection(classifier: "OnlineClassifier", before: Mapping[int, bool]) -> dict[int, bool]:
    """What people chose, carried to the classes that took others' particles; keeping wins."""
    now = dict(before)
    for class_id, keep in before.items():
        heir = classifier.class_now(class_id)
        if heir and heir != class_id:
            now[heir] = keep or before.get(heir, False) or now.get(heir, False)
    return now


def _tell(work: _Work, seconds: float) -> None:
    """Speed, and everything that a person has to know."""
    record, classifier = work.record, work.classifier
    record.particles_per_s = round(record.n_particles / max(seconds, 1e-6), 2)
    record.carried_per_day = int(86400 * record.particles_per_s)
    if record.n_left_out:
        record.warnings.append(
            f"{record.n_left_out} particles of this batch were drawn out: it carries {work.parameters.most_per_batch} "
            "a batch (most_per_batch)"
        )
    if record.skipped:
        record.warnings.append(f"{len(record.skipped)} micrographs couldn't be used: {record.skipped[0]}")
    if classifier is None or not classifier.started:
        record.warnings.append(f"no classes yet: waiting for {work.parameters.first_particles} particles")
    elif record.classes and not record.n_selected:
        record.warnings.append("no class is better than noise")
