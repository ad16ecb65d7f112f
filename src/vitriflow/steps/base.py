"""What a step is: one unit of processing, native or an outside program.

A step declares its name, scope, ports, typed parameters and resources, and runs on one item.
It knows nothing of the catalog. It writes only into ``Context.out``, by atomic rename, and
raises ``ItemError`` when its item can't go on.
"""

import os
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from vitriflow.steps.records import Artifact, BatchResult, Kind, Result

P = TypeVar("P", bound="StepParameters")
R = TypeVar("R", bound=Result)
B = TypeVar("B", bound=BatchResult)


class Scope(StrEnum):
    """What one run of a step is about."""

    EXPOSURE = "exposure"
    TILT_SERIES = "tilt_series"
    BATCH = "batch"
    SESSION = "session"


@dataclass(frozen=True)
class Port:
    """One input or output of a step."""

    kind: Kind
    doc: str
    optional: bool = False


class Resources(BaseModel):
    """What a run of a step needs from a machine."""

    model_config = ConfigDict(frozen=True)

    threads: int = Field(default=1, ge=1)
    gpus: int = Field(default=0, ge=0, description="GPUs it uses when the worker has any")
    memory_bytes: int = Field(default=2 * 1024**3, ge=0)
    time_limit_s: float = Field(default=600.0, gt=0, description="wall time after which it's killed (s)")
    nodes: int = Field(default=1, ge=1)
    mpi: int = Field(default=1, ge=1)


class StepParameters(BaseModel):
    """Base of all step parameters: unknown names are errors, values don't change."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


@dataclass
class Context:
    """Where and with what a step runs.

    Attributes
    ----------
    out
        Folder for this node's files. The step may make subfolders of it.
    item
        Name of the item inside ``out``: a relative path without suffix, for example
        ``GridSquare_1/Data/FoilHole_7_Data``. Outputs are ``out / (item + suffix)``.
    device
        ``cpu``, ``cuda:0`` ...: the device the worker was told to use.
    threads
        How many CPU threads the step may use.
    memory
        Arrays that a step of the same call left for the next (path -> array), so that a
        micrograph isn't read back from disk. See :meth:`keep` and :meth:`recall`.
    metadata
        What is known of the exposure from its own files (names of ``metadata.md``).
    """

    out: Path
    item: str
    device: str = "cpu"
    threads: int = 1
    memory: dict[Path, Any] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)

    def say(self, text: str) -> None:
        """Add a line to the log that is stored with the result."""
        self.log.append(text)

    def path(self, suffix: str) -> Path:
        """Final path of an output, its folder made: ``out / (item + suffix)``."""
        path = self.out / (self.item + suffix)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    @contextmanager
    def writing(self, suffix: str) -> Iterator[Path]:
        """Yield a temporary path beside the final one; rename it there when the block ends well.

        The temporary name keeps the suffix (writers look at it) and starts with a dot, so that
        a file half-written by a killed worker is never taken for a result.
        """
        final = self.path(suffix)
        handle, name = tempfile.mkstemp(prefix=f".{final.stem}.", suffix=final.suffix, dir=final.parent)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            temporary.chmod(0o640)
            temporary.replace(final)
        finally:
            temporary.unlink(missing_ok=True)

    def keep(self, path: Path, array: Any) -> None:
        """Leave an array for a later step of the same call under the path it was written to."""
        self.memory[path] = array

    def recall(self, path: Path) -> Any | None:
        """The array left under this path, or None: then it has to be read from disk."""
        return self.memory.get(path)


class Step(ABC, Generic[P, R]):
    """One unit of processing. Subclasses are found through the entry points ``vitriflow.steps``."""

    name: ClassVar[str]
    version: ClassVar[str]
    summary: ClassVar[str]
    scope: ClassVar[Scope] = Scope.EXPOSURE
    folder: ClassVar[str] = "External"  # RELION's job folder (MotionCorr, CtfFind, ...) or "previews"
    inputs: ClassVar[Mapping[str, Port]]
    outputs: ClassVar[Mapping[str, Port]]
    Parameters: type[P]
    Record: type[R]

    def resources(self, parameters: P) -> Resources:
        """What a run with these parameters needs."""
        return Resources()

    @abstractmethod
    def run(self, inputs: Mapping[str, Artifact], parameters: P, context: Context) -> R:
        """Process one item.

        Heavy imports (torch, kernels) belong inside this method or a module it imports, so
        that listing steps and checking templates stays instant.

        Raises
        ------
        ItemError
            When this item can't go on; it's then quarantined with the error's reason.
        """


@dataclass(frozen=True)
class BatchItem:
    """One member of a batch: an exposure, with the files that the nodes before the trigger made of it.

    Attributes
    ----------
    item
        The exposure's item name (``Context.item`` of the steps that made the files).
    exposure_id
        Its number in the catalog: the same in every batch, so a state may remember it.
    inputs
        Its files by port of the step. A port that isn't there is one that nobody could make for it.
    metadata
        What is known of it from its own files, and ``facility``: see :class:`Context`.
    new
        Whether no batch that went into the state given holds it. All are new where there's no state.
    """

    item: str
    exposure_id: int
    inputs: Mapping[str, Artifact]
    metadata: Mapping[str, Any] = field(default_factory=dict)
    new: bool = True


class BatchStep(Step[P, B]):
    """A step that works on many exposures at once: those that a ``trigger`` released together.

    In a template it takes its inputs from a ``trigger`` node, whose ports have the names of kinds::

        extract: {step: extract, inputs: {micrograph: keep.micrograph, coordinates: pick.coordinates, ctf: ctf.ctf}}
        flow:    {step: trigger, inputs: {particles: extract.particles}, set: {particles: 500, release: batches}}
        classes: {step: class2d.online, inputs: {particles: flow.particles}}
        choose:  {step: class2d.select, inputs: {classes: classes.classes}}

    An input from a trigger stands in ``BatchItem.inputs``, once for each member. An input from another
    batch step (``choose`` above) is one file for the batch; it stands in ``inputs`` of :meth:`run_batch`.

    ``release`` of a trigger says what the members are. ``once``: one batch, when the condition is first met.
    ``batches``: each batch has the exposures that came since the one before. ``growing``: each batch has
    all exposures up to now; for a step with a state those that the state doesn't hold have ``new`` set.

    **State.** A step that goes on from where the batch before stopped declares an output port named
    ``state`` of kind ``STATE``, writes the file with ``context.writing(".state.npz")`` (a temporary name,
    then a rename: a kill leaves the old or the new one, never half of it) and names it in its record's
    ``outputs``. It's given the state of the newest batch of this node that ended well, or None for the
    first. Batches of such a node run one after the other; those of other nodes may run at the same time.
    Each batch has its own ``context.item`` (``batch_0007``), so no file of an earlier batch is overwritten:
    when the call is killed and made again it begins from the same state, and repeats nothing.
    A folder works too: write it under a temporary name beside ``context.path("")``, and rename it.

    One broken member must not fail the batch: leave it out and name it in ``record.skipped``.

    A **session** step (``scope = Scope.SESSION``) is the same, run once over all exposures when the stream
    has ended, and again when more have come. Its inputs need no trigger.

    Where particles are read from: ``item.inputs["particles"].path`` is the STAR file of one micrograph's
    particles that ``extract`` wrote (``rlnImageName`` is ``000001@NAME.mrcs``; a NAME without folder lies
    beside the STAR file), ``item.inputs["particles"].pixel_size_A`` that of the boxes.

    Examples
    --------
    A running mean of all particles::

        class Mean(BatchStep[MeanParameters, MeanResult]):
            name, version, summary = "mean", "1", "Running mean of all particles"
            folder = "Class2D"
            inputs = {"particles": Port(Kind.PARTICLES, "boxes of one micrograph")}
            outputs = {"classes": Port(Kind.CLASSES, "one image"), "state": Port(Kind.STATE, "sum and count")}
            Parameters, Record = MeanParameters, MeanResult

            def run_batch(self, items, inputs, state, parameters, context):
                total, count = load(state) if state else (0.0, 0)
                new = [item for item in items if item.new]
                for item in new:
                    boxes = read_particles(item.inputs["particles"].path)
                    total, count = total + boxes.sum(0), count + len(boxes)
                with context.writing(".state.npz") as path:
                    np.savez(path, total=total, count=count)
                ...
                return MeanResult(
                    n_items=len(items), n_new=len(new), n_particles=count,
                    outputs={"state": Artifact(kind=Kind.STATE, path=context.path(".state.npz")), ...},
                )
    """

    scope: ClassVar[Scope] = Scope.BATCH

    @abstractmethod
    def run_batch(
        self,
        items: Sequence[BatchItem],
        inputs: Mapping[str, Artifact],
        state: Path | None,
        parameters: P,
        context: Context,
    ) -> B:
        """Process one batch.

        Parameters
        ----------
        items
            Its members, by exposure number.
        inputs
            Files that other batch steps made of the same batch, by port.
        state
            What this node's newest batch that ended well left, or None.
        parameters, context
            As for other steps; ``context.item`` names the batch.

        Raises
        ------
        ItemError
            When the whole batch can't go on; it's then quarantined with the error's reason.
        """

    def run(self, inputs: Mapping[str, Artifact], parameters: P, context: Context) -> B:
        """Run it by hand on the files of one exposure: a batch with one member and no state."""
        member = BatchItem(context.item, 0, inputs, context.metadata)
        return self.run_batch([member], {}, None, parameters, context)
