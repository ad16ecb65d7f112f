"""Motion correction by UCSF MotionCor2 and MotionCor3: ``motion.motioncor2`` and ``motion.motioncor3``."""

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from vitriflow.steps.programs.base import Job, number
from vitriflow.steps.programs.motion_common import (
    OutsideMotion,
    OutsideMotionParameters,
    Prepared,
    finish,
    prepare,
)
from vitriflow.steps.programs.tools import Tool
from vitriflow.steps.records import MotionResult

_INPUT = {"mrc": "-InMrc", "tiff": "-InTiff", "eer": "-InEer"}


class MotioncorParameters(OutsideMotionParameters):
    """Parameters of ``motion.native``, and what only MotionCor has."""

    eer_upsampling: Literal[1, 2, 3] = Field(
        default=1, description="EER: 1 for the sensor's grid, 2 or 3 for one two or four times as fine"
    )
    iterations: int = Field(default=7, ge=1, le=100, description="most rounds of alignment")
    tolerance_px: float = Field(default=0.5, gt=0, le=10, description="change of shifts that ends it (px)")
    group_frames: int = Field(default=1, ge=1, le=64, description="frames summed to find local motion")


class Motioncor(OutsideMotion[MotioncorParameters]):
    """What MotionCor2 and MotionCor3 have in common."""

    Parameters = MotioncorParameters
    uses_gpu = True
    version: ClassVar[str] = "1"
    without_ctf: ClassVar[tuple[str, ...]] = ()

    def work(self, job: Job[MotioncorParameters]) -> MotionResult:
        """Correct one movie."""
        from vitriflow.formats.motioncor import read_motioncor_shifts

        movie = prepare(job)
        job.run(*self.command(job, movie))
        plain = job.output("out.mrc")
        weighted = job.parameters.dose_weighting and movie.dose is not None
        images = {"micrograph": plain}
        if weighted:
            images = {"micrograph": job.output("out_DW.mrc")}
            if job.parameters.write_unweighted:
                images["micrograph_unweighted"] = plain
        if job.parameters.write_half_sums:
            images["micrograph_odd"] = job.output("out_ODD.mrc")
            images["micrograph_even"] = job.output("out_EVN.mrc")
        return finish(job, movie, read_motioncor_shifts(_said(job), self.tool.title), images, {})

    def command(self, job: Job[MotioncorParameters], movie: Prepared) -> list[str]:
        """The arguments for one movie."""
        parameters = job.parameters
        words = [_INPUT[movie.format], job.inputs["movie"].name, "-OutMrc", "out.mrc"]
        if movie.gain is not None:
            words += ["-Gain", movie.gain.name]
        if movie.defects is not None:
            words += ["-DefectMap", movie.defects.name]
        if min(parameters.patches_x, parameters.patches_y) > 1:
            words += ["-Patch", str(parameters.patches_x), str(parameters.patches_y)]
        words += ["-PixSize", number(movie.pixel_size_A), "-kV", number(parameters.voltage_kV)]
        if movie.dose is not None and parameters.dose_weighting:
            words += ["-FmDose", number(movie.dose), "-InitDose", number(parameters.pre_exposure_e_per_A2)]
        words += ["-FtBin", number(parameters.bin_factor), "-Bft", number(parameters.b_factor_px2)]
        words += ["-Iter", str(parameters.iterations), "-Tol", number(parameters.tolerance_px)]
        words += ["-Throw", str(movie.first - 1), "-Trunc", str(movie.n_frames - movie.last)]
        if parameters.group_frames > 1:
            words += ["-Group", str(parameters.group_frames)]
        if parameters.write_half_sums:
            words += ["-SplitSum", "1"]
        if movie.format == "eer":
            words += [
                "-FmIntFile",
                _intervals(job, movie).name,
                "-EerSampling",
                str(parameters.eer_upsampling),
            ]
        return [*words, *self.without_ctf, "-LogDir", ".", "-Gpu", job.need_gpu()]


def _intervals(job: Job[MotioncorParameters], movie: Prepared) -> Path:
    """EER: how many raw frames there are, how many make one, and the dose of a raw one (e/A^2)."""
    path = job.folder / "intervals.txt"
    dose = (movie.dose or 0.0) / max(1, movie.raw_per_frame)
    path.write_text(f"{movie.raw_frames} {movie.raw_per_frame} {number(dose)}\n", encoding="utf-8")
    return path


def _said(job: Job[MotioncorParameters]) -> str:
    """Its output; where that has no shifts, its log of them."""
    text = job.log.read_text(encoding="utf-8", errors="replace")
    if "shift" in text.lower() and "frame" in text.lower():
        return text
    log = job.maybe("*-Full.log")
    return log.read_text(encoding="utf-8", errors="replace") if log is not None else text


class Motioncor2(Motioncor):
    """MotionCor2 of UCSF."""

    name = "motion.motioncor2"
    summary = "MotionCor2: global and local motion, dose weighting (needs a GPU)"
    tool = Tool(
        "motioncor2",
        "MotionCor2",
        ("MotionCor2", "motioncor2"),
        version_pattern=r"MotionCor2\s+version\s*:?\s*v?(\d+(?:\.\d+)+)",
        versions=((1, 3), (3,)),
        source="emcore.ucsf.edu",
    )


class Motioncor3(Motioncor):
    """MotionCor3 of CZI. Its own CTF estimate is switched off: that's another step's."""

    name = "motion.motioncor3"
    summary = "MotionCor3: global and local motion, dose weighting (needs a GPU)"
    without_ctf = ("-Cs", "0")
    tool = Tool(
        "motioncor3",
        "MotionCor3",
        ("MotionCor3", "motioncor3"),
        version_pattern=r"MotionCor3\s+version\s*:?\s*v?(\d+(?:\.\d+)+)",
        versions=((1, 0), (2,)),
        source="github.com/czimaginginstitute/MotionCor3",
    )
