"""A step that does nothing, for measuring the engine and for trying a template without data."""

import time
from collections.abc import Mapping

from pydantic import Field

from vitriflow.steps.base import Context, Port, Resources, Step, StepParameters
from vitriflow.steps.records import Artifact, Kind, Result


class NoopParameters(StepParameters):
    """What to pretend."""

    seconds: float = Field(default=0.0, ge=0, description="how long to sleep (s)")
    write: bool = Field(default=False, description="write a small file and hand it on instead of the input")


class Noop(Step[NoopParameters, Result]):
    """Hands its input on as a micrograph."""

    name = "debug.noop"
    version = "1"
    summary = "Does nothing: hands its input on, after a sleep if asked"
    inputs = {  # noqa: RUF012  (declared as ClassVar by Step)
        "movie": Port(Kind.MOVIE, "a movie, not opened", optional=True),
        "micrograph": Port(Kind.MICROGRAPH, "a micrograph, not opened", optional=True),
    }
    outputs = {"micrograph": Port(Kind.MICROGRAPH, "the input, or the file that was written")}  # noqa: RUF012
    Parameters = NoopParameters
    Record = Result

    def resources(self, parameters: NoopParameters) -> Resources:
        """One thread, almost no memory."""
        return Resources(memory_bytes=256 * 1024**2, time_limit_s=60.0 + 10.0 * parameters.seconds)

    def run(self, inputs: Mapping[str, Artifact], parameters: NoopParameters, context: Context) -> Result:
        """Sleep, write if asked, hand on."""
        if parameters.seconds:
            time.sleep(parameters.seconds)
        given = inputs.get("micrograph") or inputs["movie"]
        path = given.path
        if parameters.write:
            with context.writing(".txt") as temporary:
                temporary.write_text(f"{context.item}\n")
            path = context.path(".txt")
        artifact = Artifact(kind=Kind.MICROGRAPH, path=path, pixel_size_A=given.pixel_size_A)
        return Result(outputs={"micrograph": artifact})
