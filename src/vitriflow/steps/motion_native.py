"""Motion correction with vitriflow's own kernels: the step ``motion.native``."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from vitriflow.errors import BadFile, BadImage, BadParameter, Reason
from vitriflow.steps.base import Context, Port, Resources, Step, StepParameters
from vitriflow.steps.motion_invariants import check_images
from vitriflow.steps.motion_output import aligned_movie, fill_record, write_outputs
from vitriflow.steps.records import Artifact, Kind, MotionResult

if TYPE_CHECKING:
    from vitriflow.formats import Movie
    from vitriflow.kernels import MotionSettings

_TURNS = ("as_is", "rotated_90", "rotated_180", "rotated_270")
_ORIENTATIONS = (*_TURNS, "flipped_y", "flipped_x", "rotated_90_flipped_y", "rotated_90_flipped_x")
_DOSE_AGREES = 0.1  # relative
_PIXEL_AGREES = 0.02  # relative difference from the file's own pixel size that isn't worth a word

Frames = Callable[[], Iterator[NDArray[Any]]]


class MotionParameters(StepParameters):
    """What can be chosen for ``motion.native``."""

    pixel_size_A: float | None = Field(
        default=None,
        gt=0.1,
        lt=20,
        description="pixel size of the movie as read (A); for EER that of the sensor's pixels, whatever the "
        "up-sampling; none takes what the microscope's or the movie's own file says",
    )
    voltage_kV: float = Field(default=300.0, ge=80, le=400, description="acceleration voltage (kV)")
    dose_per_frame_e_per_A2: float | None = Field(
        default=None,
        gt=0,
        le=1000,
        description="dose of one frame, for EER of one fraction (e/A^2); none takes the microscope's file, "
        "and without that nothing is dose-weighted",
    )
    pre_exposure_e_per_A2: float = Field(default=0.0, ge=0, description="dose before the first frame (e/A^2)")
    gain_reference: Path | None = Field(default=None, description="gain reference; none leaves counts as is")
    gain_orientation: str = Field(
        default="as_is",
        description="how to turn the reference onto the movie: as_is, rotated_90, rotated_180, rotated_270, "
        "flipped_y, flipped_x, rotated_90_flipped_y, rotated_90_flipped_x",
    )
    gain_convention: Literal["auto", "multiply", "divide"] = Field(
        default="auto", description="whether counts are multiplied or divided; auto goes by the formats"
    )
    defects: Path | None = Field(default=None, description="list or map of bad pixels of the camera")
    patches_y: int = Field(default=5, ge=0, le=15, description="patches in y; 0 corrects global motion only")
    patches_x: int = Field(default=5, ge=0, le=15, description="patches in x; 0 corrects global motion only")
    b_factor_px2: float = Field(
        default=150.0,
        gt=0,
        le=5000,
        description="blur of the correlation that's searched (px^2 of the micrograph)",
    )
    max_shift_A: float | None = Field(
        default=None,
        gt=0,
        description="largest believable shift against the first frame (A); none is 50 px of the "
        "micrograph, never above a quarter of the image",
    )
    bin_factor: float = Field(
        default=1.0,
        ge=1,
        le=16,
        description="output is Fourier-cropped by this; 2 turns a "
        "super-resolution movie into one of the camera's own pixels",
    )
    dose_weighting: bool = Field(default=True, description="weight frames by dose (Grant & Grigorieff 2015)")
    write_unweighted: bool = Field(default=False, description="also write the sum without dose weighting")
    write_aligned_movie: Literal["no", "float16", "float32"] = Field(
        default="no",
        description="also write the aligned frames, unweighted, as an MRC of these numbers; about doubles the time",
    )
    write_half_sums: bool = Field(default=False, description="also write sums of odd and of even frames")
    first_frame: int = Field(default=1, ge=1, description="first frame to use, counted from 1")
    last_frame: int | None = Field(default=None, ge=1, description="last frame to use; none uses all")
    eer_frames_per_fraction: int | None = Field(
        default=None, ge=1, description="EER: raw frames summed into one; none gives about 40 fractions"
    )
    eer_dose_per_fraction_e_per_A2: float | None = Field(
        default=None,
        gt=0,
        description="EER: aim at this dose for a fraction (e/A^2); needs the total dose, which the "
        "microscope's or the EER file says",
    )
    eer_upsampling: Literal[1, 2, 3] = Field(
        default=1, description="EER: 1 for the sensor's grid, 2 or 3 for one two or four times as fine"
    )

    @field_validator("gain_orientation")
    @classmethod
    def _known_orientation(cls, value: str) -> str:
        label = value.replace("-", "_").lower()
        if label not in _ORIENTATIONS:
            raise ValueError("one of " + ", ".join(_ORIENTATIONS))
        return label


@dataclass(frozen=True)
class Camera:
    """What the camera's files say about its pixels."""

    gain: NDArray[np.float32] | None
    defects: NDArray[np.bool_] | None
    applied: str


_LARGEST_INTENSITY_RATIO = 3.0  # of counts to electrons before people are told


class MotionNative(Step[MotionParameters, MotionResult]):
    """Global and local motion, dose weighting, and a spectrum for the CTF."""

    name: ClassVar[str] = "motion.native"
    version: ClassVar[str] = "1"
    summary: ClassVar[str] = "Align the frames of a movie, globally and locally, and sum them by dose"
    folder: ClassVar[str] = "MotionCorr"
    inputs: ClassVar[Mapping[str, Port]] = {"movie": Port(Kind.MOVIE, "frames in MRC, TIFF or EER")}
    outputs: ClassVar[Mapping[str, Port]] = {
        "micrograph": Port(Kind.MICROGRAPH, "aligned sum, dose-weighted when the dose is known"),
        "micrograph_unweighted": Port(Kind.MICROGRAPH, "aligned sum without dose weighting", optional=True),
        "aligned_movie": Port(Kind.MOVIE, "aligned frames without dose weighting", optional=True),
        "power_spectrum": Port(Kind.POWER_SPECTRUM, "amplitude spectrum of grouped frames, for the CTF"),
        "motion": Port(Kind.MOTION, "shifts, as RELION's polishing reads them"),
        "micrograph_odd": Port(Kind.MICROGRAPH, "sum of frames 1, 3, 5 ...", optional=True),
        "micrograph_even": Port(Kind.MICROGRAPH, "sum of frames 2, 4, 6 ...", optional=True),
    }
    Parameters = MotionParameters
    Record = MotionResult

    def resources(self, parameters: MotionParameters) -> Resources:
        """Two threads, one GPU where there is one, 2 GiB; half sums and super-resolution need more."""
        return Resources(
            threads=2,
            gpus=1,
            memory_bytes=(2 + parameters.write_half_sums + (parameters.bin_factor > 1)) * 1024**3,
            time_limit_s=1800.0,
        )

    def run(
        self, inputs: Mapping[str, Artifact], parameters: MotionParameters, context: Context
    ) -> MotionResult:
        """Correct one movie; see :class:`vitriflow.steps.base.Step`."""
        import torch

        from vitriflow.formats import open_movie
        from vitriflow.kernels import correct_movie

        if context.device == "cpu":
            torch.set_num_threads(max(1, context.threads))
        path = inputs["movie"].path
        warnings: list[str] = []
        grouping = eer_grouping(path, parameters, context.metadata)
        with open_movie(
            path, eer_frames_per_fraction=grouping, eer_upsampling=parameters.eer_upsampling
        ) as movie:
            first, last = frame_range(movie, parameters)
            settings = _settings(movie, parameters, context.metadata, first, warnings)
            optics = camera(movie, parameters)
            frames: Frames = partial(movie.frames, first - 1, last, workers=context.threads)
            n_frames = last - first + 1
            numbers = parameters.write_aligned_movie
            with aligned_movie(numbers, settings, movie.shape, n_frames, context) as each_frame:
                corrected = correct_movie(
                    frames,
                    n_frames,
                    movie.shape,
                    settings,
                    gain=optics.gain,
                    defects=optics.defects,
                    device=context.device,
                    threads=context.threads,
                    each_frame=each_frame,
                )
                for note in corrected.notes:
                    context.say(note)
                record = MotionResult(gain_applied=optics.applied, warnings=warnings + corrected.warnings)
                fill_record(record, corrected, settings)
                check_images(corrected, parameters.bin_factor)
            record.warnings += _doubt_intensity(record.mean_intensity, settings)
            record.outputs = write_outputs(corrected, settings, movie, parameters, first, context)
        return record


def _doubt_intensity(mean: float, settings: "MotionSettings") -> list[str]:
    """Say so when the counts are far from what the dose says; a camera that doesn't count may be.

    ``mean`` is in counts per pixel and frame; a counting camera gives dose (e/A^2) times pixel area (A^2).
    """
    if settings.dose_per_frame is None or mean <= 0:
        return []
    expected = settings.dose_per_frame * settings.pixel_size_A**2
    ratio = mean / expected
    if 1 / _LARGEST_INTENSITY_RATIO <= ratio <= _LARGEST_INTENSITY_RATIO:
        return []
    return [
        f"a pixel has {mean:.3g} counts a frame where the dose says {expected:.3g} electrons ({ratio:.3g} times): "
        "check dose_per_frame_e_per_A2, pixel_size_A and the gain reference, unless this camera doesn't count"
    ]


def eer_grouping(path: Path, parameters: MotionParameters, metadata: Mapping[str, Any]) -> int | None:
    """Raw EER frames to a fraction: as set, or by the dose that a fraction should have."""
    wanted = parameters.eer_dose_per_fraction_e_per_A2
    if parameters.eer_frames_per_fraction is not None or wanted is None:
        return parameters.eer_frames_per_fraction
    from vitriflow.formats import open_movie

    with open_movie(path) as movie:
        if movie.format != "eer":
            return None
        total = _eer_total_dose(movie, parameters, metadata)
        if total is None:
            raise BadParameter(
                "eer_dose_per_fraction_e_per_A2",
                expected="a total dose in the exposure's files, to share out",
                found="none",
                remedy="Set eer_frames_per_fraction instead.",
            )
        return max(1, min(movie.n_raw_frames, round(wanted * movie.n_raw_frames / total)))


def _eer_total_dose(
    movie: "Movie", parameters: MotionParameters, metadata: Mapping[str, Any]
) -> float | None:
    """Dose of all raw frames (e/A^2): the microscope's file says it, or the EER's own, in e/px of the sensor."""
    said = metadata.get("dose_e_per_A2")
    if isinstance(said, int | float) and said > 0:
        return float(said)
    pixel = parameters.pixel_size_A or metadata.get("pixel_size_A")
    try:
        per_pixel = float(movie.metadata.get("totalDose", ""))
    except ValueError:
        return None
    if not isinstance(pixel, int | float) or not (pixel > 0 and per_pixel > 0):
        return None
    return per_pixel / float(pixel) ** 2


def frame_range(movie: "Movie", parameters: MotionParameters) -> tuple[int, int]:
    """First and last frame to use, counted from 1."""
    first = parameters.first_frame
    last = movie.n_frames if parameters.last_frame is None else min(parameters.last_frame, movie.n_frames)
    if last < first:
        raise BadImage(
            Reason.TOO_FEW_FRAMES,
            str(movie.path),
            expected=f"frames from {first} to {parameters.last_frame or 'the last'}",
            found=f"{movie.n_frames} frames",
            remedy="Lower first_frame; or the movie ended early.",
        )
    return first, last


def _settings(
    movie: "Movie",
    parameters: MotionParameters,
    metadata: Mapping[str, Any],
    first: int,
    warnings: list[str],
) -> "MotionSettings":
    """Join what was set with what files say."""
    from vitriflow.kernels import MotionSettings

    pixel = pixel_size(movie, parameters, metadata, warnings)
    dose = dose_per_frame(movie, parameters, metadata, warnings)
    if dose is None and parameters.dose_weighting:
        warnings.append("the dose isn't known, so the sum isn't dose-weighted: set dose_per_frame_e_per_A2")
    limit = 0.25 * min(movie.shape)
    # Of the micrograph: pixels of a super-resolution movie are half as large.
    wanted = (
        50.0 * parameters.bin_factor if parameters.max_shift_A is None else parameters.max_shift_A / pixel
    )
    return MotionSettings(
        pixel_size_A=pixel,
        voltage_kV=parameters.voltage_kV,
        dose_per_frame=dose,
        pre_exposure=parameters.pre_exposure_e_per_A2 + (first - 1) * (dose or 0.0),
        patches=(parameters.patches_y, parameters.patches_x)
        if min(parameters.patches_y, parameters.patches_x) > 0
        else (0, 0),
        b_factor_px2=parameters.b_factor_px2 * parameters.bin_factor**2,
        max_shift_px=min(wanted, limit),
        bin_factor=parameters.bin_factor,
        dose_weighting=parameters.dose_weighting,
        unweighted=parameters.write_unweighted,
        halves=parameters.write_half_sums,
    )


def pixel_size(
    movie: "Movie", parameters: MotionParameters, metadata: Mapping[str, Any], warnings: list[str]
) -> float:
    """Pixel size of the movie as read (A): as set, else the microscope's file's, else the movie's own."""
    said = metadata.get("pixel_size_A")
    header = movie.pixel_size_A
    pixel = parameters.pixel_size_A
    if pixel is None and isinstance(said, int | float) and said > 0:
        pixel = float(said)
    if pixel is None:
        if header is None:
            raise BadParameter(
                "motion.native: parameter 'pixel_size_A'",
                expected="a pixel size in A",
                found=f"none, neither set nor in {movie.path.name}",
                remedy="Set it with --set pixel_size_A=VALUE.",
            )
        return header
    if movie.format == "eer":
        pixel /= {1: 1.0, 2: 2.0, 3: 4.0}[parameters.eer_upsampling]
    # A header of exactly 1 A is what programs write that don't know.
    if header is not None and header != 1.0 and abs(header / pixel - 1.0) > _PIXEL_AGREES:
        warnings.append(
            f"pixel_size_A is {pixel:g}, but {movie.path.name} says {header:g}; {pixel:g} was used"
        )
    return pixel


def dose_per_frame(
    movie: "Movie", parameters: MotionParameters, metadata: Mapping[str, Any], warnings: list[str]
) -> float | None:
    """Dose of one frame (e/A^2): as set, else as the exposure's files say; None where nobody knows."""
    found = _dose_by_files(movie, parameters, metadata)
    chosen = parameters.dose_per_frame_e_per_A2
    if chosen is None:
        return found
    # What the microscope's file says of one frame is compared elsewhere, and means nothing for EER.
    told = metadata.get("dose_per_frame_e_per_A2") is not None and movie.format != "eer"
    if found is not None and not told and abs(found / chosen - 1.0) > _DOSE_AGREES:
        warnings.append(
            f"dose_per_frame_e_per_A2 is {chosen:g}, but the files' total dose makes it {found:.4g}; "
            f"{chosen:g} was used"
        )
    return chosen


def _dose_by_files(movie: "Movie", parameters: MotionParameters, metadata: Mapping[str, Any]) -> float | None:
    """Dose of one frame (e/A^2) as the exposure's files say it."""
    if movie.format == "eer":
        # What files call a frame isn't our fraction: the total is shared out by raw frames.
        eer = _eer_total_dose(movie, parameters, metadata)
        if eer is not None and movie.n_raw_frames:
            return eer * movie.raw_frames_per_frame / movie.n_raw_frames
    total, one = metadata.get("dose_e_per_A2"), metadata.get("dose_per_frame_e_per_A2")
    if isinstance(one, int | float) and one > 0:
        return float(one)
    if isinstance(total, int | float) and total > 0:
        return float(total) / movie.n_frames
    return None


def camera(movie: "Movie", parameters: MotionParameters) -> Camera:
    """Gain and defects, turned onto the movie and checked against its size."""
    import dataclasses

    from vitriflow.formats import Orientation, read_defects, read_gain
    from vitriflow.kernels import gain_factor

    bad = None if parameters.defects is None else read_defects(parameters.defects, movie.shape)
    if parameters.gain_reference is None:
        return Camera(None, bad, "none")
    gain = read_gain(
        parameters.gain_reference,
        movie.shape,
        Orientation.from_label(parameters.gain_orientation),
        movie.format,
    )
    if parameters.gain_convention != "auto":
        gain = dataclasses.replace(gain, convention=parameters.gain_convention)
    try:
        factor, dead = gain_factor(gain.multiplier())
    except ValueError as error:
        raise BadFile(
            Reason.GAIN_BAD,
            str(gain.path),
            expected="a gain reference of positive numbers, zero at defects",
            found=str(error),
            remedy="Is this a dark reference or another file? Take the gain reference again.",
        ) from error
    applied = "multiplied" if gain.convention == "multiply" else "divided"
    return Camera(factor, dead if bad is None else dead | bad, applied)
