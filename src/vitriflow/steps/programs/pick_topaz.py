"""Picking by Topaz: ``pick.topaz``."""

from pathlib import Path
from typing import ClassVar

from pydantic import Field

from vitriflow.steps.programs.base import Job, number
from vitriflow.steps.programs.pick_common import OutsidePick, OutsidePickParameters, hand_on, micrograph_of
from vitriflow.steps.programs.tools import Tool
from vitriflow.steps.records import PickResult


class TopazParameters(OutsidePickParameters):
    """What Topaz is told."""

    model: Path | None = Field(default=None, description="trained model; none takes Topaz' own resnet16")
    threshold: float = Field(default=0.0, ge=-20, le=20, description="least score (log likelihood)")
    scale: int | None = Field(
        default=None,
        ge=1,
        le=64,
        description="micrographs are binned by this first; none makes the particle about 30 px",
    )


class Topaz(OutsidePick[TopazParameters]):
    """A convolutional network (Bepler and others, 2019): first scaled and normalised, then picked."""

    name = "pick.topaz"
    version: ClassVar[str] = "1"
    summary = "Topaz: particles by a trained network"
    Parameters = TopazParameters
    uses_gpu = True
    tool = Tool(
        "topaz",
        "Topaz",
        ("topaz",),
        version_arguments=("--version",),
        version_pattern=r"(?:TOPAZ|topaz)\s+v?(\d+(?:\.\d+)+)",
        versions=((0, 2, 4), (1,)),
        source="github.com/tbepler/topaz",
    )

    def work(self, job: Job[TopazParameters]) -> PickResult:
        """Pick one micrograph."""
        from vitriflow.formats.picks import read_topaz

        parameters = job.parameters
        shape, pixel_A, warnings = micrograph_of(job)
        diameter_px = parameters.particle_diameter_A / pixel_A
        scale = parameters.scale or max(1, round(diameter_px / 30.0))
        device = str(-1 if job.gpu is None else job.gpu)
        name = job.mrc("micrograph").name
        (job.folder / "scaled").mkdir()
        job.run("preprocess", "--scale", scale, "--device", device, "--destdir", "scaled", name)
        job.output(f"scaled/{Path(name).stem}.mrc")
        model = ("--model", parameters.model.absolute()) if parameters.model is not None else ()
        words: tuple[object, ...] = (
            "--radius",
            max(1, round(0.5 * diameter_px / scale)),
            "--threshold",
            number(parameters.threshold),
        )
        words += ("--up-scale", scale, "--device", device, "--output", "picks.txt")
        job.run("extract", *model, *words, f"scaled/{Path(name).stem}.mrc")
        yx, score = read_topaz(job.output("picks.txt"))
        return hand_on(job, yx, score, shape, threshold=parameters.threshold, warnings=warnings)
