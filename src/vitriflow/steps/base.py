"""What a step is: one unit of processing, native or an outside program.

A step declares its name, scope, ports, typed parameters and resources, and runs on one item.
It knows nothing of the catalog. It writes only into ``Context.out``, by atomic rename, and
raises ``ItemError`` when its item can't go on.
"""

import os
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from vitriflow.steps.records import Artifact, Kind, Result

P = TypeVar("P", bound="StepParameters")
R = TypeVar("R", bound=Result)


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
