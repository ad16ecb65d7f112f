"""What steps that run an outside program share: a folder to work in, the run, its errors, the log."""

import contextlib
import re
import shutil
import tempfile
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Generic, TypeVar

from pydantic import Field

from vitriflow.errors import ItemError, ProgramError, Reason
from vitriflow.steps.base import BatchItem, BatchStep, Context, Resources, Step, StepParameters
from vitriflow.steps.programs.launching import launch, read_tail
from vitriflow.steps.programs.tools import (
    Found,
    Tool,
    check_version,
    explain_exit,
    find_tool,
    refuse_licence,
    settings_of,
    version_in,
)
from vitriflow.steps.records import Artifact, BatchResult, Result

P = TypeVar("P", bound="ProgramParameters")
R = TypeVar("R", bound=Result)
B = TypeVar("B", bound=BatchResult)

_MARGIN_S = 60.0  # the step's own limit is further off than the program's, so that the program's is told


class ProgramParameters(StepParameters):
    """What every outside program can be told."""

    gpu: int | None = Field(
        default=None, ge=0, le=63, description="number of the GPU; none takes the one that the worker has"
    )
    time_limit_s: float = Field(
        default=1800.0, gt=0, le=30 * 86400, description="after which the program is killed (s)"
    )
    extra_arguments: tuple[str, ...] = Field(
        default=(), description="further arguments for the program, each a text of its own"
    )


@dataclass
class Job(Generic[P]):
    """One run of a program.

    Attributes
    ----------
    found
        The program.
    folder
        Where it works: a folder of its own beside the results, removed afterwards.
    inputs
        Links in ``folder`` to the inputs, by port: short names without spaces.
    given
        The inputs as they were handed over.
    """

    found: Found
    folder: Path
    inputs: dict[str, Path]
    given: Mapping[str, Artifact]
    parameters: P
    context: Context
    log: Path
    text: str = ""

    @property
    def gpu(self) -> int | None:
        """Number of the GPU to use: as set, else the worker's; None on a worker without."""
        if self.parameters.gpu is not None:
            return self.parameters.gpu
        device = self.context.device
        return int(device.partition(":")[2] or 0) if device.startswith("cuda") else None

    def need_gpu(self) -> str:
        """Number of the GPU, as text.

        Raises
        ------
        ProgramError
            When the worker has none.
        """
        if self.gpu is None:
            raise ProgramError(
                Reason.PROGRAM_FAILED,
                self.found.tool.title,
                "a GPU: it has no other way",
                f"a worker that runs on {self.context.device}",
                "Run this node in a pool with GPUs, or set gpu to a GPU's number.",
            )
        return str(self.gpu)

    def run(self, *arguments: object, program: str | None = None, answers: str | None = None) -> None:
        """Run the program with these arguments, and refuse what isn't a good end.

        Raises
        ------
        ProgramError
            ``program.missing``, ``.hung``, ``.licence``, ``.failed``, ``.version``, or out of memory.
        """
        words = [str(word) for word in (*arguments, *self.parameters.extra_arguments)]
        command = self.found.command(*words, program=program)
        self.context.say("ran " + " ".join(_quoted(word) for word in command))
        limit = self.parameters.time_limit_s
        settings = self.found.settings
        try:
            done = launch(
                command,
                self.folder,
                self.log,
                environment=settings.environment,
                answers=answers,
                time_limit_s=limit,
                name=self.found.tool.title,
            )
        finally:
            self.text += read_tail(self.log)
        if done.code != 0:
            refuse_licence(self.found.tool, done.text)
            raise explain_exit(self.found.tool, done.code, done.text)
        if self.found.version is None:
            self.found = replace(self.found, version=version_in(self.found.tool, self.text))
            check_version(self.found)

    def mrc(self, port: str) -> Path:
        """The input as an MRC file in the working folder, converted where it's another format."""
        linked = self.inputs[port]
        if linked.suffix in (".mrc", ".mrcs"):
            return linked
        from vitriflow.formats import read_image, write_mrc

        image = read_image(self.given[port].path)
        path = linked.with_suffix(".mrc")
        write_mrc(
            path, image.array.astype("float32"), self.given[port].pixel_size_A or image.pixel_size_A or 1.0
        )
        return path

    def output(self, name: str) -> Path:
        """A file that the program has to have written, by its name in ``folder`` or a pattern.

        Raises
        ------
        ProgramError
            ``program.no_output``, ``program.empty_output``, ``program.licence``.
        """
        matches = sorted(path for path in self.folder.glob(name) if path.is_file())
        if len(matches) == 1 and matches[0].stat().st_size > 0:
            return matches[0]
        refuse_licence(self.found.tool, self.text)
        empty = bool(matches) and matches[0].stat().st_size == 0
        last = self.text.replace("\r", "\n").strip().splitlines()[-1:] or ["nothing"]
        raise ProgramError(
            Reason.PROGRAM_EMPTY_OUTPUT if empty else Reason.PROGRAM_NO_OUTPUT,
            self.found.tool.title,
            expected=f"a file {name}",
            found="an empty one" if empty else f"{len(matches)} such; its last words: {last[0][:200]!r}",
            remedy="It ended as if all were well: look at its log beside the results (.log).",
        )

    def maybe(self, name: str) -> Path | None:
        """A file that the program may have written."""
        return next(iter(sorted(self.folder.glob(name))), None)

    def keep(self, made: Path, suffix: str) -> Path:
        """Rename a file that the program wrote to the final name of an output."""
        with self.context.writing(suffix) as temporary:
            made.replace(temporary)
        return self.context.path(suffix)

    def nonsense(self, what: str, expected: str, found: str) -> ProgramError:
        """The error for numbers that can't be."""
        return ProgramError(
            Reason.PROGRAM_NONSENSE,
            f"{what} of {self.found.tool.title}",
            expected,
            found,
            "Check the parameters against the microscope; look at its log beside the results (.log).",
        )


def _quoted(word: str) -> str:
    return word if re.fullmatch(r"[\w@%+=:,./-]+", word) else repr(word)


@contextlib.contextmanager
def _job(
    tool: Tool,
    inputs: Mapping[str, Artifact],
    links: Mapping[str, str],
    parameters: P,
    context: Context,
) -> Iterator[Job[P]]:
    """Make the working folder, find the program, and afterwards keep the log and remove the rest."""
    beside = context.path("")
    folder = Path(tempfile.mkdtemp(prefix=f".{beside.name or 'work'}.", suffix=".work", dir=beside.parent))
    log = folder / ".program.log"
    try:
        found = find_tool(tool, settings_of(tool.name), folder)
        linked = {}
        for port, name in links.items():
            if port in inputs:
                linked[port] = folder / (name + inputs[port].path.suffix.lower())
                linked[port].symlink_to(inputs[port].path.absolute())
        job: Job[P] = Job(found, folder, linked, inputs, parameters, context, log)
        try:
            yield job
        except ItemError:
            raise
        except (ValueError, KeyError, IndexError, TypeError) as error:
            # What the program wrote isn't what it writes: that's its error, not one of this step
            raise job.nonsense(
                "what was read", "its usual output", f"{type(error).__name__}: {error}"
            ) from error
        finally:
            for line in job.text.replace("\r", "\n").splitlines()[-60:]:
                context.say(f"{tool.name}: {line}")
            if log.is_file():
                with context.writing(f"_{tool.name}.log") as temporary:
                    log.replace(temporary)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class ProgramStep(Step[P, R]):
    """A step that runs an outside program on one exposure. Subclasses say how, and read what it wrote."""

    tool: ClassVar[Tool]
    links: ClassVar[Mapping[str, str]]  # inputs by port, with the name (no suffix) each has for the program
    uses_gpu: ClassVar[bool] = False
    threads: ClassVar[int] = 1

    def resources(self, parameters: P) -> Resources:
        """A GPU where it's such a program; its time limit and a minute."""
        return Resources(
            threads=self.threads,
            gpus=int(self.uses_gpu),
            memory_bytes=4 * 1024**3,
            time_limit_s=parameters.time_limit_s + _MARGIN_S,
        )

    def run(self, inputs: Mapping[str, Artifact], parameters: P, context: Context) -> R:
        """Run the program on one exposure and read what it left."""
        with _job(self.tool, inputs, self.links, parameters, context) as job:
            record = self.work(job)
            record.program = job.found.said
            return record

    @abstractmethod
    def work(self, job: Job[P]) -> R:
        """Start the program (``job.run``), check and keep what it wrote, and say it as a record."""


class ProgramBatchStep(BatchStep[P, B]):
    """A step that runs an outside program on a batch of exposures."""

    tool: ClassVar[Tool]
    links: ClassVar[Mapping[str, str]] = {}
    uses_gpu: ClassVar[bool] = True

    def resources(self, parameters: P) -> Resources:
        """A node's worth; its time limit and a minute."""
        return Resources(
            threads=getattr(parameters, "threads", 1),
            gpus=int(self.uses_gpu),
            memory_bytes=8 * 1024**3,
            time_limit_s=parameters.time_limit_s + _MARGIN_S,
            mpi=getattr(parameters, "mpi", 1),
            nodes=getattr(parameters, "nodes", 1),
        )

    def run_batch(
        self,
        items: Sequence[BatchItem],
        inputs: Mapping[str, Artifact],
        state: Path | None,
        parameters: P,
        context: Context,
    ) -> B:
        """Run the program on one batch and read what it left."""
        with _job(self.tool, inputs, self.links, parameters, context) as job:
            record = self.work(job, items)
            record.program = job.found.said
            return record

    @abstractmethod
    def work(self, job: Job[P], items: Sequence[BatchItem]) -> B:
        """Start the program, check and keep what it wrote, and say it as a record."""


def number(value: float) -> str:
    """A number as programs read it: no exponent, no needless digits."""
    return f"{value:.6f}".rstrip("0").rstrip(".")


__all__ = ["Job", "ProgramBatchStep", "ProgramParameters", "ProgramStep", "number"]
