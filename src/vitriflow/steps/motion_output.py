"""What ``motion.native`` leaves: the record, the images, and RELION's STAR of the motion."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vitriflow.errors import BadParameter, BrokenInvariant, Reason
from vitriflow.steps.base import Context
from vitriflow.steps.records import Artifact, Kind, MotionResult

if TYPE_CHECKING:
    from vitriflow.formats import Movie
    from vitriflow.kernels import Corrected, MotionSettings
    from vitriflow.steps.motion_native import MotionParameters

ALIGNED = "_aligned.mrcs"
_EARLY_DOSE = 4.0  # e/A^2
_THIRD_ORDER, _NO_MODEL = 1, 0  # RELION's rlnMotionModelVersion
_MEAN_TOLERANCE = 0.05
_CONTRAST_TOLERANCE = 0.02


def fill_record(record: MotionResult, corrected: "Corrected", settings: "MotionSettings") -> None:
    """Put what was measured into the record, and check it against itself.

    Raises
    ------
    BrokenInvariant
        When the micrograph's mean isn't what the frames add up to.
    """
    shifts = corrected.motion.mean_shifts() * settings.pixel_size_A
    fill_shifts(record, shifts, settings.dose_per_frame, settings.pre_exposure)
    record.pixel_size_A = corrected.pixel_size_A
    record.movie_pixel_size_A = settings.pixel_size_A
    record.dose_weighted = corrected.dose_weighted
    live = [i for i in range(len(shifts)) if i not in corrected.skipped]
    record.mean_intensity = float(corrected.frame_means[live].mean())
    record.hot_pixels = corrected.hot_pixels
    refinement = corrected.refinement
    if refinement is not None and corrected.motion.is_local:
        record.patch_grid = refinement.patches.grid
        record.patch_fallbacks = int((~refinement.good).sum())
        centres = refinement.patches.centres_px(refinement.pool)
        tracks = np.moveaxis(corrected.motion.at(centres[:, 0], centres[:, 1]), 1, 0) * settings.pixel_size_A
        record.patch_shifts_A = [[(float(y), float(x)) for y, x in track] for track in tracks]
    _check_mean(corrected, live)


def fill_shifts(
    record: MotionResult, shifts: NDArray[np.float64], dose_per_frame: float | None, pre_exposure: float
) -> None:
    """Put the path of the frames, ``(n_frames, 2)`` y, x (A), into the record, early and late by dose."""
    steps = np.hypot(*np.diff(shifts, axis=0).T) if len(shifts) > 1 else np.zeros(0)
    dose = dose_per_frame or 0.0
    # Step i leads from frame i to i + 1; it's early when it ends within the first 4 e/A^2.
    ends = pre_exposure + dose * np.arange(2, len(shifts) + 1)
    early = float(steps[ends <= _EARLY_DOSE + 1e-6].sum()) if dose > 0 else 0.0
    record.n_frames = len(shifts)
    record.frame_shifts_A = [(float(y), float(x)) for y, x in shifts]
    record.total_A = float(steps.sum())
    record.early_A = early
    record.late_A = record.total_A - early
    record.net_A = float(np.hypot(*(shifts[-1] - shifts[0])))
    record.dose_per_frame_e_per_A2 = dose_per_frame


def _check_mean(corrected: "Corrected", live: list[int]) -> None:
    """The sum's mean has to be the frames' together; dose weighting divides by the root of their number."""
    means = corrected.frame_means[live]
    expected = float(means.sum())
    if corrected.dose_weighted:
        expected /= float(np.sqrt(len(live)))  # at frequency zero all weights are equal
    found = float(corrected.micrograph.mean(dtype=_double()))
    # Frames whose background was taken off have no mean to speak of: their contrast is the measure then.
    contrast = float(corrected.micrograph[::8, ::8].std()) if corrected.micrograph.numel() > 64 else 0.0
    if abs(found - expected) > _MEAN_TOLERANCE * abs(expected) + _CONTRAST_TOLERANCE * contrast:
        raise BrokenInvariant(
            Reason.INTENSITY,
            "mean of the corrected micrograph",
            expected=f"{expected:g}, as the frames' means say",
            found=f"{found:g}",
            remedy="This is an error in the motion step: report it with the movie.",
        )


def _double() -> Any:
    import torch

    return torch.float64


@contextmanager
def aligned_movie(
    numbers: str, settings: "MotionSettings", shape: tuple[int, int], n_frames: int, context: Context
) -> Iterator[Callable[[NDArray[np.float32]], None] | None]:
    """Write the aligned frames as they are given; there's a file only when the block ends well.

    Parameters
    ----------
    numbers
        ``float16``, ``float32``, or ``no``: then nothing is written, and None given.
    settings, shape, n_frames
        Of the movie.
    context
        Where to.

    Raises
    ------
    BadParameter
        When a value is larger than float16 can hold.
    """
    if numbers == "no":
        yield None
        return
    from vitriflow.formats import MrcWriter
    from vitriflow.kernels.motion_sums import binned_shape

    new_shape = binned_shape(shape, settings.bin_factor)
    pixel = settings.pixel_size_A * shape[1] / new_shape[1]
    with (
        context.writing(ALIGNED) as path,
        MrcWriter(path, new_shape, numbers, pixel, n_frames, "aligned frames, unweighted") as writer,
    ):

        def write(frame: NDArray[np.float32]) -> None:
            if numbers == "float16" and float(np.abs(frame).max()) > np.finfo(np.float16).max:
                raise BadParameter(
                    "motion.native: parameter 'write_aligned_movie'",
                    expected="values up to 65,504, which is the largest of float16",
                    found=f"{float(np.abs(frame).max()):.6g}",
                    remedy="Set write_aligned_movie=float32.",
                )
            writer.write(frame.astype(numbers))

        yield write


def write_outputs(
    corrected: "Corrected",
    settings: "MotionSettings",
    movie: "Movie",
    parameters: "MotionParameters",
    first_frame: int,
    context: Context,
) -> dict[str, Artifact]:
    """Write images and STAR, keep the arrays for later steps, and name them by output port."""
    from vitriflow.formats import write_mrc

    outputs: dict[str, Artifact] = {}

    def image(port: str, suffix: str, kind: Kind, tensor: Any, pixel_size_A: float, keep: bool) -> None:
        array = np.ascontiguousarray(tensor.cpu().numpy(), dtype=np.float32)
        with context.writing(suffix) as path:
            write_mrc(path, array, pixel_size_A)
        final = context.path(suffix)
        if keep:
            context.keep(final, array)
        outputs[port] = Artifact(kind=kind, path=final, pixel_size_A=pixel_size_A)

    size = corrected.pixel_size_A
    image("micrograph", ".mrc", Kind.MICROGRAPH, corrected.micrograph, size, True)
    for port, suffix, tensor in (
        ("micrograph_unweighted", "_noDW.mrc", corrected.unweighted),
        ("micrograph_odd", "_ODD.mrc", corrected.odd),
        ("micrograph_even", "_EVN.mrc", corrected.even),
    ):
        if tensor is not None:
            image(port, suffix, Kind.MICROGRAPH, tensor, size, False)
    if corrected.spectrum is not None:
        spectrum = corrected.spectrum
        image(
            "power_spectrum",
            "_PS.mrc",
            Kind.POWER_SPECTRUM,
            spectrum.amplitude,
            spectrum.pixel_size_A,
            True,
        )
    _write_star(corrected, settings, movie, parameters, first_frame, context)
    outputs["motion"] = Artifact(kind=Kind.MOTION, path=context.path(".star"))
    if parameters.write_aligned_movie != "no":
        outputs["aligned_movie"] = Artifact(kind=Kind.MOVIE, path=context.path(ALIGNED), pixel_size_A=size)
    return outputs


def _write_star(
    corrected: "Corrected",
    settings: "MotionSettings",
    movie: "Movie",
    parameters: "MotionParameters",
    first_frame: int,
    context: Context,
) -> None:
    """The motion as RELION keeps it, in pixels of the movie; frames and its model count from 1."""
    import pandas as pd

    from vitriflow.formats import write_star

    shifts, coefficients, lost = corrected.motion.relion_model()
    local = corrected.motion.is_local
    general = _general(settings, movie, parameters, first_frame)
    general["rlnMotionModelVersion"] = _THIRD_ORDER if local else _NO_MODEL
    numbers = np.arange(first_frame, first_frame + len(shifts))
    blocks: dict[str, pd.DataFrame | dict[str, Any]] = {
        "general": general,
        "global_shift": pd.DataFrame(
            {
                "rlnMicrographFrameNumber": numbers,
                "rlnMicrographShiftX": shifts[:, 1],
                "rlnMicrographShiftY": shifts[:, 0],
            }
        ),
    }
    if local:
        blocks["local_motion_model"] = _model(coefficients)
        context.say(f"RELION's cubic in time differs from the motion found by {lost:.3f} px RMS")
    with context.writing(".star") as path:
        write_star(path, blocks)


def _general(
    settings: "MotionSettings", movie: "Movie", parameters: "MotionParameters", first_frame: int
) -> dict[str, Any]:
    general: dict[str, Any] = {
        "rlnImageSizeX": movie.shape[1],
        "rlnImageSizeY": movie.shape[0],
        "rlnImageSizeZ": movie.n_frames,
        "rlnMicrographMovieName": str(movie.path),
    }
    if parameters.gain_reference is not None:
        general["rlnMicrographGainName"] = str(parameters.gain_reference)
    if parameters.defects is not None:
        general["rlnMicrographDefectFile"] = str(parameters.defects)
    general["rlnMicrographBinning"] = float(parameters.bin_factor)
    general["rlnMicrographOriginalPixelSize"] = settings.pixel_size_A
    if settings.dose_per_frame is not None:
        general["rlnMicrographDoseRate"] = settings.dose_per_frame
    general["rlnMicrographPreExposure"] = parameters.pre_exposure_e_per_A2
    general["rlnVoltage"] = settings.voltage_kV
    general["rlnMicrographStartFrame"] = first_frame
    if movie.format == "eer":
        general["rlnEERGrouping"] = movie.raw_frames_per_frame
        general["rlnEERUpsampling"] = parameters.eer_upsampling
    return general


def _model(coefficients: NDArray[np.float64]) -> Any:
    import pandas as pd

    return pd.DataFrame(
        {"rlnMotionModelCoeffsIdx": np.arange(len(coefficients)), "rlnMotionModelCoeff": coefficients}
    )
