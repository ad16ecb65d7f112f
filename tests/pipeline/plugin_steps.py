"""Steps that misbehave on demand, installed as a facility would install its own: by entry points.

What an exposure's file is called decides what happens to it: ``m7_hang`` hangs at the node that is
told to mind ``hang``.
"""

import errno
import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from vitriflow.errors import ItemError, Reason
from vitriflow.steps import (
    Artifact,
    BatchItem,
    BatchResult,
    BatchStep,
    Context,
    Kind,
    Port,
    Resources,
    Result,
    Scope,
    Status,
    Step,
    StepParameters,
)


class PlayParameters(StepParameters):
    minds: str = ""  # the trouble, in the item's name, that this node makes
    seconds: float = 0.0
    journal: str = ""  # a line for each run goes here
    time_limit_s: float = 60.0
    memory_bytes: int = 2**30
    gpus: int = 0
    marker: str = ""  # trouble is only made while this file is there


class PlayResult(Result):
    n_picks: int = 0
    total_A: float = 0.0
    kept: bool = False


class Play(Step[PlayParameters, PlayResult]):
    name = "play.any"
    version = "1"
    summary = "Makes the trouble that its item's name asks for"
    folder = "Play"
    inputs = {
        "movie": Port(Kind.MOVIE, "a movie", optional=True),
        "micrograph": Port(Kind.MICROGRAPH, "a micrograph", optional=True),
        "ctf": Port(Kind.CTF, "a fit", optional=True),
    }
    outputs = {
        "micrograph": Port(Kind.MICROGRAPH, "a micrograph"),
        "ctf": Port(Kind.CTF, "a fit", optional=True),
        "motion": Port(Kind.MOTION, "a track, never made", optional=True),
    }
    Parameters = PlayParameters
    Record = PlayResult

    def resources(self, parameters: PlayParameters) -> Resources:
        return Resources(
            gpus=parameters.gpus,
            time_limit_s=parameters.time_limit_s,
            memory_bytes=parameters.memory_bytes,
        )

    def run(self, inputs: Mapping[str, Artifact], parameters: PlayParameters, context: Context) -> PlayResult:
        if parameters.journal:
            with Path(parameters.journal).open("a") as journal:
                journal.write(f"{context.item} {sorted(inputs)}\n")
        time.sleep(parameters.seconds)
        status = Status.DONE
        armed = not parameters.marker or Path(parameters.marker).exists()
        if armed and parameters.minds and parameters.minds in context.item:
            status = self.misbehave(parameters.minds)
        given = next(iter(inputs.values())).path
        kept = context.recall(given) is not None
        with context.writing(".txt") as temporary:
            temporary.write_text(context.item)
        path = context.path(".txt")
        context.keep(path, b"an array")
        return PlayResult(
            status=status,
            reason_code="gate.test" if status is Status.REJECTED else None,
            reason="past the gate" if status is Status.REJECTED else None,
            n_picks=7,
            total_A=1.5,
            kept=kept,
            outputs={
                "micrograph": Artifact(kind=Kind.MICROGRAPH, path=path),
                "ctf": Artifact(kind=Kind.CTF, path=path),
            },
        )

    def misbehave(self, how: str) -> Status:
        if how == "quarantine":
            raise ItemError(Reason.NO_RINGS, "micrograph", "rings", "none", "Look at the ice.")
        if how == "fail":
            raise RuntimeError("a bug in the step")
        if how == "reject":
            return Status.REJECTED
        if how == "hang":
            time.sleep(600)
        if how == "die":
            os.kill(os.getpid(), 9)
        if how == "grow":
            hog = bytearray(400 * 2**20)
            hog[::4096] = b"x" * len(hog[::4096])
            time.sleep(600)
        if how == "full":
            raise OSError(errno.ENOSPC, "No space left on device")
        if how == "vanish":
            raise ItemError(Reason.VANISHED, "movie", "a file", "nothing")
        if how == "flaky":
            raise OSError(errno.EIO, "Input/output error")
        return Status.DONE


class Needy(Play):
    """Like play.any, but can't do without a micrograph."""

    name = "play.needy"
    inputs = {**Play.inputs, "micrograph": Port(Kind.MICROGRAPH, "a micrograph")}


class MeasuredResult(PlayResult):
    defocus_u_A: float | None = None
    defocus_v_A: float | None = None
    astigmatism_A: float | None = None
    fit_resolution_A: float | None = None
    mean_intensity: float | None = None
    early_A: float = 0.0
    frame_shifts_A: list[tuple[float, float]] = []


class Measured(Play):
    """Like play.any; an item called ``m1,total_A=90`` has that value."""

    name = "play.measured"
    Record = MeasuredResult
    outputs = {**Play.outputs, "motion": Port(Kind.MOTION, "a track", optional=True)}

    def run(self, inputs: Mapping[str, Artifact], parameters: PlayParameters, context: Context) -> PlayResult:
        record = super().run(inputs, parameters, context)
        values = dict(part.split("=") for part in context.item.split(",")[1:])
        outputs = record.outputs | {"motion": Artifact(kind=Kind.MOTION, path=record.outputs["ctf"].path)}
        return MeasuredResult.model_validate(
            record.model_dump(exclude={"outputs"}) | values | {"outputs": outputs}
        )


class GatherResult(BatchResult):
    held: list[str] = []
    seen: list[str] = []


class Gather(BatchStep[PlayParameters, GatherResult]):
    """Remembers the names of all that it has seen; makes trouble while its marker is there, once."""

    name = "play.gather"
    version = "1"
    summary = "Remembers all names"
    folder = "Class2D"
    inputs = {
        "micrograph": Port(Kind.MICROGRAPH, "a micrograph", optional=True),
        "classes": Port(Kind.CLASSES, "of the batch before it in the graph", optional=True),
    }
    outputs = {
        "classes": Port(Kind.CLASSES, "a list of names"),
        "state": Port(Kind.STATE, "all names so far"),
    }
    Parameters = PlayParameters
    Record = GatherResult

    def resources(self, parameters: PlayParameters) -> Resources:
        return Resources(time_limit_s=parameters.time_limit_s, memory_bytes=parameters.memory_bytes)

    def run_batch(
        self,
        items: Sequence[BatchItem],
        inputs: Mapping[str, Artifact],
        state: Path | None,
        parameters: PlayParameters,
        context: Context,
    ) -> GatherResult:
        if parameters.journal:
            with Path(parameters.journal).open("a") as journal:
                journal.write(f"{self.name} {context.item}\n")
        time.sleep(parameters.seconds)
        held = json.loads(state.read_text()) if state else []
        new = [item.item for item in items if item.new]
        if parameters.marker and Path(parameters.marker).exists() and parameters.minds:
            Path(parameters.marker).unlink()
            Play().misbehave(parameters.minds)
        for suffix in (".state.json", ".classes.json"):
            with context.writing(suffix) as temporary:
                temporary.write_text(json.dumps(held + new))
        return GatherResult(
            n_items=len(items),
            n_new=len(new),
            held=held + new,
            seen=[item.item for item in items],
            outputs={
                "state": Artifact(kind=Kind.STATE, path=context.path(".state.json")),
                "classes": Artifact(kind=Kind.CLASSES, path=context.path(".classes.json")),
            },
        )


class Choose(Gather):
    """A batch step without a state, which can't do without the classes."""

    name = "play.choose"
    inputs = {"classes": Port(Kind.CLASSES, "to choose from")}
    outputs = {"classes": Port(Kind.CLASSES, "a list of names")}


class Heap(Gather):
    """A batch step without a state: it takes all its members each time."""

    name = "play.heap"
    outputs = {"classes": Port(Kind.CLASSES, "a list of names")}


class Report(Gather):
    """At the end, over everything."""

    name = "play.report"
    scope = Scope.SESSION
    outputs = {"classes": Port(Kind.CLASSES, "a list of names")}
