"""What ``ctf.native`` does with a tilted specimen: its tilt is given, or found."""

from typing import TYPE_CHECKING

from pydantic import Field, model_validator

from vitriflow.errors import BadImage, BadParameter
from vitriflow.steps.base import Context, StepParameters

if TYPE_CHECKING:
    import torch

    from vitriflow.kernels.ctf_fit import CtfFit
    from vitriflow.kernels.ctf_rings import Optics
    from vitriflow.kernels.spectrum import Spectrum

_SURE_OF_TILT = 3.0  # standard deviations over a flat specimen, or over the tilt the other way round


class TiltParameters(StepParameters):
    """The specimen's plane."""

    estimate_tilt: bool = Field(
        default=False,
        description="find the specimen's tilt from the defocus over the micrograph, and fit without its blur",
    )
    tilt_angle_deg: float | None = Field(
        default=None,
        ge=-80,
        le=80,
        description="the specimen's tilt where it's known (degrees): the defocus is fitted as a plane of this "
        "tilt. Positive: underfocus grows in the direction 90 degrees further on than the axis",
    )
    tilt_axis_deg: float | None = Field(
        default=None,
        ge=-360,
        le=360,
        description="the tilt axis, from x towards y in the image as stored (degrees); goes with tilt_angle_deg",
    )

    @model_validator(mode="after")
    def _one_plane(self) -> "TiltParameters":
        if (self.tilt_angle_deg is None) != (self.tilt_axis_deg is None):
            raise ValueError("tilt_angle_deg and tilt_axis_deg are given together, or neither of them is")
        if self.estimate_tilt and self.tilt_angle_deg is not None:
            raise ValueError("estimate_tilt finds the tilt that tilt_angle_deg says: give one of them")
        return self

    @property
    def of_tilt(self) -> str | None:
        """The parameter that asks for a tilted fit."""
        if self.estimate_tilt:
            return "estimate_tilt"
        return None if self.tilt_angle_deg is None else "tilt_angle_deg"


def port_for_tilt(asked: str, wanted: str) -> str:
    """Which input: a tilt can only be seen in a micrograph."""
    if wanted == "power_spectrum":
        raise BadParameter(
            f"ctf.native: parameter '{asked}'",
            expected="input=micrograph: a spectrum of the whole field says nothing of its parts",
            found="input=power_spectrum",
            remedy=f"Wire the micrograph to this node, or leave {asked} out.",
        )
    return "micrograph"


class Tilt:
    """A plane, and what it says of itself.

    Attributes
    ----------
    tilt_deg, axis_deg, uncertainty_deg
        As they stand in the record; the uncertainty is None where the tilt was given.
    spectrum
        Without the blur of the tilt; None where a flat specimen explains as much.
    warnings
        For people.
    """

    def __init__(
        self,
        tilt_deg: float,
        axis_deg: float,
        uncertainty_deg: float | None,
        spectrum: "Spectrum | None",
        warnings: list[str],
    ) -> None:
        self.tilt_deg, self.axis_deg, self.uncertainty_deg = tilt_deg, axis_deg, uncertainty_deg
        self.spectrum, self.warnings = spectrum, warnings


def tilt_of(
    image: "torch.Tensor",
    pixel_size_A: float,
    fit: "CtfFit",
    optics: "Optics",
    parameters: TiltParameters,
    defocus_range_A: tuple[float, float],
    box: int,
    context: Context,
) -> "tuple[Tilt | None, list[str]]":
    """The specimen's plane, or a sentence that says why there's none."""
    try:
        if parameters.tilt_angle_deg is not None:
            return _given(image, pixel_size_A, fit, optics, parameters, defocus_range_A, box, context), []
        if fit.quality == "no rings":
            return None, ["no tilt was estimated: there are no rings to estimate it from"]
        return _found(image, pixel_size_A, fit, optics, box, context), []
    except BadImage as error:
        done = "no tilt was estimated" if parameters.estimate_tilt else "the tilt wasn't taken into account"
        return None, [f"{done}: {error}"]


def _found(
    image: "torch.Tensor", pixel_size_A: float, fit: "CtfFit", optics: "Optics", box: int, context: Context
) -> Tilt:
    from vitriflow.kernels.ctf_tilt import fit_tilt

    tilt = fit_tilt(image, pixel_size_A, fit, optics, box=box, threads=context.threads)
    context.say(
        f"tilt {tilt.tilt_deg:.1f} +- {tilt.tilt_uncertainty_deg:.1f} degrees about {tilt.axis_deg:.0f} degrees "
        f"+- {tilt.axis_uncertainty_deg:.0f}, from {tilt.n_patches} patches"
    )
    spectrum = tilt.spectrum if tilt.gain > _SURE_OF_TILT else None
    return Tilt(tilt.tilt_deg, tilt.axis_deg, tilt.tilt_uncertainty_deg, spectrum, [])


def _given(
    image: "torch.Tensor",
    pixel_size_A: float,
    fit: "CtfFit",
    optics: "Optics",
    parameters: TiltParameters,
    defocus_range_A: tuple[float, float],
    box: int,
    context: Context,
) -> Tilt:
    from vitriflow.kernels.ctf_tilt import known_tilt

    angle, axis = float(parameters.tilt_angle_deg or 0.0), float(parameters.tilt_axis_deg or 0.0)
    known = known_tilt(
        image, pixel_size_A, fit, optics, angle, axis, defocus_range_A, box=box, threads=context.threads
    )
    context.say(
        f"with the tilt that was given the centre has {known.defocus_A:.0f} A, {known.gain:+.1f} standard "
        f"deviations over a flat specimen, from {known.n_patches} patches"
    )
    warnings = []
    if known.other_way > _SURE_OF_TILT:
        warnings.append(
            f"tilt_angle_deg is {angle:g}, but {-angle:g} explains the rings better by {known.other_way:.0f} "
            "standard deviations: check its sign, or that of tilt_axis_deg"
        )
    elif known.gain < -_SURE_OF_TILT:
        warnings.append(
            f"a flat specimen explains the rings better than a tilt of {angle:g} degrees, by {-known.gain:.0f} "
            "standard deviations: check tilt_angle_deg and tilt_axis_deg"
        )
    # The record's tilt is never negative: the axis points the other way then.
    turned = (axis + (180.0 if angle < 0 else 0.0) + 180.0) % 360.0 - 180.0
    return Tilt(abs(angle), turned, None, known.spectrum, warnings)
