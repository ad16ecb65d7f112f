"""Motion correction by RELION's own program: ``motion.relion``."""

from typing import Any, ClassVar

import numpy as np
from pydantic import Field, model_validator

from vitriflow.steps.programs.base import Job, number
from vitriflow.steps.programs.motion_common import (
    OutsideMotion,
    OutsideMotionParameters,
    Prepared,
    finish,
    prepare,
)
from vitriflow.steps.programs.relion import relion_tool, write_images_star
from vitriflow.steps.records import MotionResult


class RelionMotionParameters(OutsideMotionParameters):
    """Parameters of ``motion.native``, as far as RELION has them."""

    threads: int = Field(default=2, ge=1, le=64, description="CPU threads for the movie")
    group_frames: int = Field(default=1, ge=1, le=64, description="frames summed to find local motion")

    @model_validator(mode="after")
    def _what_it_has(self) -> "RelionMotionParameters":
        if self.write_half_sums:
            raise ValueError("RELION 3.1 writes no half sums: use motion.native or motion.motioncor3")
        if self.eer_upsampling == 3:
            raise ValueError("RELION knows EER up-sampling 1 and 2")
        return self


class RelionMotion(OutsideMotion[RelionMotionParameters]):
    """RELION's own implementation of MotionCor2's algorithm, on the CPU."""

    name = "motion.relion"
    version: ClassVar[str] = "1"
    summary = "RELION's motion correction: global and local motion, dose weighting"
    tool = relion_tool("relion_run_motioncorr", "motion correction")
    Parameters = RelionMotionParameters

    def work(self, job: Job[RelionMotionParameters]) -> MotionResult:
        """Correct one movie."""
        from vitriflow.formats import read_star

        movie = prepare(job)
        optics = {
            "voltage_kV": job.parameters.voltage_kV,
            "spherical_aberration_mm": 2.7,  # not used here, but its table has to have them
            "amplitude_contrast": 0.1,
        }
        name = job.inputs["movie"].name
        write_images_star(job.folder / "movies.star", "movies", name, movie.pixel_size_A, optics)
        job.run(*self.command(job, movie))
        images = {"micrograph": job.output("out/movie.mrc")}
        if job.parameters.write_unweighted and "--dose_weighting" in self.command(job, movie):
            images["micrograph_unweighted"] = job.output("out/movie_noDW.mrc")
        tables = read_star(job.output("out/movie.star"))
        shifts: Any = tables["global_shift"]
        yx = shifts[["rlnMicrographShiftY", "rlnMicrographShiftX"]].to_numpy(float)
        used = yx[np.isin(shifts["rlnMicrographFrameNumber"], np.arange(movie.first, movie.last + 1))]
        used = used - used[:1]
        general: Any = tables.pop("general")
        # Its local motion counts only with its own version of the model beside it
        version = {"rlnMotionModelVersion": general.get("rlnMotionModelVersion", 0)}
        kept = {name: block for name, block in tables.items() if name != "global_shift" and len(block)}
        return finish(job, movie, used, images, {"general": version, **kept})

    def command(self, job: Job[RelionMotionParameters], movie: Prepared) -> list[str]:
        """The arguments for one movie."""
        parameters = job.parameters
        words = ["--i", "movies.star", "--o", "out/", "--use_own", "--j", str(parameters.threads)]
        words += ["--first_frame_sum", str(movie.first), "--last_frame_sum", str(movie.last)]
        words += ["--bin_factor", number(parameters.bin_factor), "--bfactor", number(parameters.b_factor_px2)]
        words += [
            "--patch_x",
            str(max(1, parameters.patches_x)),
            "--patch_y",
            str(max(1, parameters.patches_y)),
        ]
        words += ["--angpix", number(movie.pixel_size_A), "--voltage", number(parameters.voltage_kV)]
        words += ["--preexposure", number(parameters.pre_exposure_e_per_A2)]
        if parameters.group_frames > 1:
            words += ["--group_frames", str(parameters.group_frames)]
        if movie.dose is not None:
            words += ["--dose_per_frame", number(movie.dose)]
            if parameters.dose_weighting:
                words += ["--dose_weighting"]
                words += ["--save_noDW"] if parameters.write_unweighted else []
        if movie.gain is not None:
            words += ["--gainref", movie.gain.name, "--gain_rot", "0", "--gain_flip", "0"]
        if movie.defects is not None:
            words += ["--defect_file", movie.defects.name]
        if movie.format == "eer":
            words += [
                "--eer_grouping",
                str(movie.raw_per_frame),
                "--eer_upsampling",
                str(parameters.eer_upsampling),
            ]
        return words
