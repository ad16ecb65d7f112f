"""CTF by CTFFIND: ``ctf.ctffind4`` and ``ctf.ctffind5``. It asks on its standard input."""

import math
from typing import ClassVar

from pydantic import Field

from vitriflow.steps.programs.base import Job, number
from vitriflow.steps.programs.ctf_common import OutsideCtfParameters, OutsideCtfStep, judge, pixel_size_of
from vitriflow.steps.programs.tools import Tool
from vitriflow.steps.records import CtfResult


class CtffindParameters(OutsideCtfParameters):
    """Parameters of ``ctf.native``, and what only CTFFIND asks."""

    threads: int = Field(default=2, ge=1, le=64, description="CPU threads")
    exhaustive: bool = Field(default=False, description="slower, more exhaustive search")


class Ctffind(OutsideCtfStep[CtffindParameters]):
    """What CTFFIND 4.1 and 5 have in common."""

    Parameters = CtffindParameters
    version: ClassVar[str] = "1"
    threads: ClassVar[int] = 2
    last_answers: ClassVar[tuple[str, ...]] = ("no",)

    def work(self, job: Job[CtffindParameters]) -> CtfResult:
        """Fit one micrograph."""
        pixel_A = pixel_size_of(job)
        name = job.mrc("micrograph").name
        threads = str(job.parameters.threads)
        job.run("--omp-num-threads", threads, answers=self.answers(job.parameters, name, pixel_A))
        return judge(job, job.output("diagnostic.txt"), pixel_A)

    def answers(self, parameters: CtffindParameters, name: str, pixel_A: float) -> str:
        """What it's told, line by line, in the order in which it asks."""
        numbers = (
            pixel_A,
            parameters.voltage_kV,
            parameters.spherical_aberration_mm,
            parameters.amplitude_contrast,
            parameters.box_size,
            parameters.min_resolution_A,
            parameters.max_resolution_A,
            parameters.min_defocus_A,
            parameters.max_defocus_A,
            parameters.defocus_step_A,
        )
        lines = [name, "diagnostic.mrc", *map(number, numbers)]
        lines += ["no", "yes" if parameters.exhaustive else "no"]  # is the astigmatism known, how to search
        lines += ["yes", number(parameters.max_astigmatism_A)]  # restrain it
        if parameters.fit_phase_shift:
            phases = (parameters.min_phase_deg, parameters.max_phase_deg, parameters.phase_step_deg)
            lines += ["yes", *(number(math.radians(phase)) for phase in phases)]
        else:
            lines += ["no"]
        return "\n".join([*lines, *self.last_answers]) + "\n"


class Ctffind4(Ctffind):
    """CTFFIND 4.1."""

    name = "ctf.ctffind4"
    summary = "CTFFIND 4.1, held against the spectrum before it's believed"
    tool = Tool(
        "ctffind4",
        "CTFFIND 4",
        ("ctffind4", "ctffind"),
        versions=((4, 1), (5,)),
        source="grigoriefflab.umassmed.edu",
    )


class Ctffind5(Ctffind):
    """CTFFIND 5 of cisTEM, which also asks about tilt and thickness."""

    name = "ctf.ctffind5"
    summary = "CTFFIND 5, held against the spectrum before it's believed"
    last_answers = ("no", "no", "no")
    tool = Tool(
        "ctffind5",
        "CTFFIND 5",
        ("ctffind5", "ctffind"),
        versions=((5,), (6,)),
        source="grigoriefflab.umassmed.edu",
    )
