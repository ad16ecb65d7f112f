"""What outside motion corrections share: the movie as they need it, and their results as our record."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator

from vitriflow.errors import BrokenInvariant, ProgramError, Reason
from vitriflow.steps.base import Port
from vitriflow.steps.motion_native import (
    MotionParameters,
    camera,
    dose_per_frame,
    eer_grouping,
    frame_range,
    pixel_size,
)
from vitriflow.steps.motion_output import fill_shifts
from vitriflow.steps.programs.base import Job, ProgramParameters, ProgramStep
from vitriflow.steps.records import Artifact, Kind, MotionResult

if TYPE_CHECKING:
    from vitriflow.formats import Movie


class OutsideMotionParameters(ProgramParameters, MotionParameters):
    """The parameters of ``motion.native``, for another program."""

    @model_validator(mode="after")
    def _no_aligned_movie(self) -> "OutsideMotionParameters":
        if self.write_aligned_movie != "no":
            raise ValueError("write_aligned_movie is for motion.native only: set it to no")
        return self


P = TypeVar("P", bound=OutsideMotionParameters)


@dataclass(frozen=True)
class Prepared:
    """A movie, as the program is to be told of it.

    Attributes
    ----------
    shape
        Of a frame (height, width), as read.
    first, last
        Frames used, from 1.
    dose
        Of one frame (e/A^2), None where nobody knows it.
    gain, defects
        Files in the working folder, turned onto the movie; None where there are none.
    seen
        Coarse picture that the frames show, gain applied.
    mean
        Counts per pixel and frame after gain.
    """

    format: str
    shape: tuple[int, int]
    n_frames: int
    raw_frames: int
    raw_per_frame: int
    pixel_size_A: float
    first: int
    last: int
    dose: float | None
    gain: Path | None
    defects: Path | None
    applied: str
    seen: NDArray[np.float64]
    mean: float
    warnings: list[str]

    @property
    def count(self) -> int:
        """How many frames are used."""
        return self.last - self.first + 1


def prepare(job: Job[P]) -> Prepared:
    """Read what the movie says, and lay gain and defects into the working folder."""
    import torch

    from vitriflow.formats import open_movie
    from vitriflow.kernels.likeness import blocks

    parameters, metadata = job.parameters, job.context.metadata
    path = job.given["movie"].path
    grouping = eer_grouping(path, parameters, metadata)
    warnings: list[str] = []
    with open_movie(
        path, eer_frames_per_fraction=grouping, eer_upsampling=parameters.eer_upsampling
    ) as movie:
        first, last = frame_range(movie, parameters)
        pixel = pixel_size(movie, parameters, metadata, warnings)
        dose = dose_per_frame(movie, parameters, metadata, warnings)
        if dose is None and parameters.dose_weighting:
            warnings.append(
                "the dose isn't known, so the sum isn't dose-weighted: set dose_per_frame_e_per_A2"
            )
        files = camera(movie, parameters)
        total = _total(movie, first, last, files.gain)
        return Prepared(
            movie.format,
            (movie.shape[0], movie.shape[1]),
            movie.n_frames,
            movie.n_raw_frames,
            movie.raw_frames_per_frame,
            pixel,
            first,
            last,
            dose,
            _lay(job, "gain.mrc", files.gain, pixel),
            _lay(job, "defects.mrc", files.defects, pixel),
            files.applied,
            blocks(torch.from_numpy(total)),
            float(total.mean(dtype=np.float64)) / (last - first + 1),
            warnings,
        )


def _total(movie: "Movie", first: int, last: int, gain: NDArray[np.float32] | None) -> NDArray[np.float32]:
    total = np.zeros(movie.shape, np.float32)
    for frame in movie.frames(first - 1, last):
        total += frame
    return total if gain is None else total * gain


def _lay(job: Job[Any], name: str, values: NDArray[Any] | None, pixel_A: float) -> Path | None:
    from vitriflow.formats import write_mrc

    if values is None:
        return None
    path = job.folder / name
    write_mrc(path, np.ascontiguousarray(values, dtype=np.float32), pixel_A)
    return path


class OutsideMotion(ProgramStep[P, MotionResult]):
    """A motion correction by another program, with the ports and the record of ``motion.native``."""

    folder: ClassVar[str] = "MotionCorr"
    links: ClassVar[Mapping[str, str]] = {"movie": "movie"}
    inputs: ClassVar[Mapping[str, Port]] = {"movie": Port(Kind.MOVIE, "frames in MRC, TIFF or EER")}
    outputs: ClassVar[Mapping[str, Port]] = {
        "micrograph": Port(Kind.MICROGRAPH, "aligned sum, dose-weighted when the dose is known"),
        "micrograph_unweighted": Port(Kind.MICROGRAPH, "aligned sum without dose weighting", optional=True),
        "motion": Port(Kind.MOTION, "shifts, as RELION's polishing reads them"),
        "micrograph_odd": Port(Kind.MICROGRAPH, "sum of frames 1, 3, 5 ...", optional=True),
        "micrograph_even": Port(Kind.MICROGRAPH, "sum of frames 2, 4, 6 ...", optional=True),
    }
    Record = MotionResult
    threads: ClassVar[int] = 2


_SUFFIXES = {
    "micrograph": ".mrc",
    "micrograph_unweighted": "_noDW.mrc",
    "micrograph_odd": "_ODD.mrc",
    "micrograph_even": "_EVN.mrc",
}


def finish(
    job: Job[P],
    movie: Prepared,
    shifts_px: NDArray[np.float64],
    images: Mapping[str, Path],
    blocks: dict[str, Any],
) -> MotionResult:
    """Check shifts and images against the movie, keep them, and write the motion's STAR.

    Parameters
    ----------
    shifts_px
        ``(n_frames, 2)`` y, x in pixels of the movie, first frame zero.
    images
        What the program wrote, by output port.
    blocks
        Of the STAR file besides ``global_shift``; what ``general`` holds replaces our own.

    Raises
    ------
    ProgramError
        When shifts can't be.
    BrokenInvariant
        When an image isn't one of this movie.
    """
    from vitriflow.formats import write_star

    parameters = job.parameters
    _check_shifts(job, movie, shifts_px)
    _check_images(job, movie, images)
    binned = movie.pixel_size_A * parameters.bin_factor
    record = MotionResult(
        warnings=list(movie.warnings),
        pixel_size_A=binned,
        movie_pixel_size_A=movie.pixel_size_A,
        dose_weighted=parameters.dose_weighting and movie.dose is not None,
        mean_intensity=movie.mean,
        gain_applied=movie.applied,
        patch_grid=(parameters.patches_y, parameters.patches_x)
        if min(parameters.patches_y, parameters.patches_x) > 1
        else (0, 0),
    )
    before = parameters.pre_exposure_e_per_A2 + (movie.first - 1) * (movie.dose or 0.0)
    fill_shifts(record, shifts_px * movie.pixel_size_A, movie.dose, before)
    for port, made in images.items():
        kept = job.keep(made, _SUFFIXES[port])
        record.outputs[port] = Artifact(kind=Kind.MICROGRAPH, path=kept, pixel_size_A=binned)
    general = _general(job, movie) | blocks.pop("general", {})
    star = {"general": general, "global_shift": _shift_table(movie, shifts_px), **blocks}
    with job.context.writing(".star") as temporary:
        write_star(temporary, star)
    record.outputs["motion"] = Artifact(kind=Kind.MOTION, path=job.context.path(".star"))
    return record


def _check_shifts(job: Job[P], movie: Prepared, shifts_px: NDArray[np.float64]) -> None:
    if len(shifts_px) != movie.count:
        raise job.nonsense("shifts", f"{movie.count} frames", f"{len(shifts_px)}")
    if not np.isfinite(shifts_px).all():
        raise job.nonsense("shifts", "finite numbers", "NaN or infinity")
    given = job.parameters.max_shift_A
    quarter = 0.25 * min(movie.shape)
    wanted = 50.0 * job.parameters.bin_factor if given is None else given / movie.pixel_size_A
    largest = float(np.abs(shifts_px).max(initial=0.0))
    if largest > min(wanted, quarter):
        raise ProgramError(
            Reason.SHIFT_BOUNDS,
            f"shifts of {job.found.tool.title}",
            f"at most {min(wanted, quarter) * movie.pixel_size_A:.4g} A",
            f"{largest * movie.pixel_size_A:.4g} A",
            "The stage drifted or the fit ran off: look at the movie, or set max_shift_A higher.",
        )


def _check_images(job: Job[P], movie: Prepared, images: Mapping[str, Path]) -> None:
    """The native step's own checks of what images are, with the program's name."""
    import torch

    from vitriflow.formats import read_image
    from vitriflow.kernels.likeness import blocks
    from vitriflow.steps.motion_invariants import check_pictures, check_shape, check_values

    made = {}
    for port, path in images.items():
        made[port] = torch.from_numpy(np.array(read_image(path).array, dtype=np.float32))
    try:
        for port, image in made.items():
            check_shape(port, image, movie.shape, job.parameters.bin_factor)
            check_values(port, image)
        if all(blocks(image).shape == movie.seen.shape for image in made.values()):
            check_pictures(movie.seen, made)
    except BrokenInvariant as error:
        raise BrokenInvariant(
            error.reason,
            f"{error.thing} of {job.found.tool.title}",
            error.expected,
            error.found,
            "Look at its log beside the results (.log), and at gain reference and binning.",
        ) from error


def _shift_table(movie: Prepared, shifts_px: NDArray[np.float64]) -> Any:
    import pandas as pd

    return pd.DataFrame(
        {
            "rlnMicrographFrameNumber": np.arange(movie.first, movie.last + 1),
            "rlnMicrographShiftX": shifts_px[:, 1],
            "rlnMicrographShiftY": shifts_px[:, 0],
        }
    )


def _general(job: Job[P], movie: Prepared) -> dict[str, Any]:
    parameters = job.parameters
    general: dict[str, Any] = {
        "rlnImageSizeX": movie.shape[1],
        "rlnImageSizeY": movie.shape[0],
        "rlnImageSizeZ": movie.n_frames,
        "rlnMicrographMovieName": str(job.given["movie"].path),
    }
    for name, path in (
        ("rlnMicrographGainName", parameters.gain_reference),
        ("rlnMicrographDefectFile", parameters.defects),
    ):
        if path is not None:
            general[name] = str(path)
    general["rlnMicrographBinning"] = float(parameters.bin_factor)
    general["rlnMicrographOriginalPixelSize"] = movie.pixel_size_A
    if movie.dose is not None:
        general["rlnMicrographDoseRate"] = movie.dose
    general["rlnMicrographPreExposure"] = parameters.pre_exposure_e_per_A2
    general["rlnVoltage"] = parameters.voltage_kV
    general["rlnMicrographStartFrame"] = movie.first
    if movie.format == "eer":
        general["rlnEERGrouping"] = movie.raw_per_frame
        general["rlnEERUpsampling"] = parameters.eer_upsampling
    general["rlnMotionModelVersion"] = 0
    return general
