"""Fits the contrast transfer function of a micrograph, or of a ready power spectrum."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from vitriflow.errors import BadFile, BadParameter, BrokenInvariant, Reason
from vitriflow.steps.base import Context, Port, Resources, Step
from vitriflow.steps.ctf_tilting import Tilt, TiltParameters, port_for_tilt, tilt_of
from vitriflow.steps.records import Artifact, CtfResult, Kind, Status

if TYPE_CHECKING:
    import torch

    from vitriflow.kernels.ctf_fit import CtfFit
    from vitriflow.kernels.ctf_rings import Optics


class CtfParameters(TiltParameters):
    """The microscope, and where to look."""

    input: Literal["auto", "micrograph", "power_spectrum"] = Field(
        default="auto",
        description="which input is fitted; auto takes the power spectrum when there is one. "
        "By hand it also says what FILE is",
    )
    pixel_size_A: float | None = Field(
        default=None,
        gt=0.05,
        lt=50,
        description="of the input (A); None takes it from the file's header. What vitriflow made knows its own",
    )
    voltage_kV: float = Field(default=300.0, ge=10, le=1500, description="acceleration voltage (kV)")
    spherical_aberration_mm: float = Field(default=2.7, ge=0, le=20, description="Cs (mm)")
    amplitude_contrast: float = Field(
        default=0.1, ge=0, le=1, description="fraction, 0 to 1; 0.07 to 0.1 in ice"
    )
    min_defocus_A: float = Field(default=2000.0, gt=0, le=500000, description="least mean defocus tried (A)")
    max_defocus_A: float = Field(
        default=50000.0, gt=0, le=500000, description="largest mean defocus tried (A)"
    )
    max_astigmatism_A: float = Field(default=3000.0, ge=0, le=50000, description="largest U - V tried (A)")
    min_resolution_A: float = Field(default=20.0, gt=2, le=100, description="coarsest rings used (A)")
    max_resolution_A: float = Field(
        default=3.5,
        gt=0.5,
        le=50,
        description="finest rings used (A); those past 4.6 A count where they agree with the coarser ones",
    )
    box_size: int = Field(
        default=512,
        ge=128,
        le=2048,
        multiple_of=2,
        description="side of the power spectrum of a micrograph (px)",
    )
    fit_phase_shift: bool = Field(default=False, description="fit the phase shift of a phase plate too")

    @model_validator(mode="after")
    def _ordered(self) -> "CtfParameters":
        if self.min_defocus_A >= self.max_defocus_A:
            raise ValueError(
                f"min_defocus_A ({self.min_defocus_A:g} A) has to be below max_defocus_A ({self.max_defocus_A:g} A)"
            )
        if self.max_resolution_A >= self.min_resolution_A:
            raise ValueError(
                f"max_resolution_A ({self.max_resolution_A:g} A) is the finer one: it has to be below "
                f"min_resolution_A ({self.min_resolution_A:g} A)"
            )
        return self


class CtfNative(Step[CtfParameters, CtfResult]):
    """Writes a STAR with the fit in RELION's words, and a picture: half data, half fit.

    A spectrum without rings is quarantined with the numbers kept, so that people can look.
    """

    name = "ctf.native"
    version = "2"
    summary = "Defocus, astigmatism and phase shift, with an uncertainty and a verdict on the rings"
    folder = "CtfFind"
    inputs = {  # noqa: RUF012  (declared as ClassVar by Step)
        "micrograph": Port(
            Kind.MICROGRAPH, "an aligned micrograph, not dose-weighted where possible", optional=True
        ),
        "power_spectrum": Port(
            Kind.POWER_SPECTRUM, "square amplitude spectrum, zero frequency in the middle", optional=True
        ),
    }
    outputs = {  # noqa: RUF012
        "ctf": Port(Kind.CTF, "STAR with the fit; not written when there are no rings", optional=True),
        "diagnostic": Port(Kind.PICTURE, "MRC: left half the spectrum, right half the squared CTF"),
    }
    Parameters = CtfParameters
    Record = CtfResult

    def resources(self, parameters: CtfParameters) -> Resources:
        """One micrograph and its tiles; a GPU is used for the tiles when there is one."""
        return Resources(threads=2, gpus=1, memory_bytes=1536 * 1024**2, time_limit_s=180.0)

    def run(self, inputs: Mapping[str, Artifact], parameters: CtfParameters, context: Context) -> CtfResult:
        """Fit one exposure."""
        from vitriflow.kernels.ctf_rings import Optics

        asked = parameters.of_tilt
        wanted = parameters.input if asked is None else port_for_tilt(asked, parameters.input)
        port = choose_port(self.name, inputs, wanted)
        image, pixel_size_A, warnings = read_input(inputs[port], parameters.pixel_size_A, context)
        amplitude, box_pixel_A = image, pixel_size_A
        if port == "micrograph":
            amplitude, box_pixel_A = tile_spectrum(image, pixel_size_A, parameters.box_size, context)
        fit = _fit(amplitude, box_pixel_A, parameters)
        optics = Optics(
            parameters.voltage_kV, parameters.spherical_aberration_mm, parameters.amplitude_contrast
        )
        tilt = None
        if asked is not None:
            range_A = (parameters.min_defocus_A, parameters.max_defocus_A)
            box = parameters.box_size
            tilt, why_not = tilt_of(image, pixel_size_A, fit, optics, parameters, range_A, box, context)
            warnings += why_not if tilt is None else tilt.warnings
        if tilt is not None and tilt.spectrum is not None:
            amplitude, box_pixel_A = tilt.spectrum.amplitude, tilt.spectrum.pixel_size_A
            fit = _fit(amplitude, box_pixel_A, parameters)
        _check(fit, str(inputs[port].path))
        context.say(
            f"{fit.n_rings_seen} rings followed; angle known to {fit.angle_uncertainty_deg:.1f} degrees"
            + (f", phase to {fit.phase_uncertainty_deg:.1f} degrees" if parameters.fit_phase_shift else "")
        )
        ctf = (fit.defocus_u_A, fit.defocus_v_A, fit.defocus_angle_deg, fit.phase_shift_deg)
        shown_to_A = fit.fit_resolution_A or parameters.max_resolution_A
        outputs = {"diagnostic": write_picture(amplitude, box_pixel_A, ctf, optics, shown_to_A, context)}
        result = _record(fit, pixel_size_A, tilt)
        result.warnings += warnings
        if "voltage_kV" not in parameters.model_fields_set:
            _doubt_voltage(result, parameters.voltage_kV)
        if tilt is not None and tilt.warnings and result.quality == "good":
            result.quality = "doubtful"  # rings blurred by a wrong tilt look good and are off by 1 %
        if result.status is Status.DONE:
            outputs["ctf"] = write_ctf_star(result, optics, context)
        result.outputs = outputs
        return result


def _fit(amplitude: "torch.Tensor", box_pixel_A: float, parameters: CtfParameters) -> "CtfFit":
    from vitriflow.kernels.ctf_fit import fit_ctf

    return fit_ctf(
        amplitude,
        box_pixel_A,
        parameters.voltage_kV,
        parameters.spherical_aberration_mm,
        parameters.amplitude_contrast,
        min_defocus_A=parameters.min_defocus_A,
        max_defocus_A=parameters.max_defocus_A,
        max_astigmatism_A=parameters.max_astigmatism_A,
        min_resolution_A=parameters.min_resolution_A,
        max_resolution_A=parameters.max_resolution_A,
        fit_phase_shift=parameters.fit_phase_shift,
    )


def choose_port(step: str, inputs: Mapping[str, Artifact], wanted: str) -> str:
    """The port that is fitted: the one named, else the spectrum, else the micrograph."""
    port = wanted
    if wanted == "auto":
        port = "power_spectrum" if "power_spectrum" in inputs else "micrograph"
    if port not in inputs:
        raise BadParameter(
            f"{step}: parameter 'input'",
            expected="an input that is wired: " + (", ".join(inputs) or "there is none"),
            found=wanted,
            remedy="Wire micrograph or power_spectrum to this node, or set input to the one that is.",
        )
    return port


def read_input(
    given: Artifact, pixel_size_A: float | None, context: Context
) -> "tuple[torch.Tensor, float, list[str]]":
    """The image as float32, its pixel size (the artifact's own, else as set, else the header's), and doubts."""
    import torch

    warnings = []
    chosen = given.pixel_size_A or pixel_size_A
    array: Any = context.recall(given.path)
    if array is None or chosen is None:
        from vitriflow.formats import read_image

        image = read_image(given.path)
        array = image.array if array is None else array
        said = image.pixel_size_A
        if chosen is not None and said is not None and abs(chosen - said) > 0.02 * said:
            warnings.append(
                f"pixel_size_A is set to {chosen:g}, but the header of {given.path.name} says {said:g}; "
                f"{chosen:g} was used"
            )
        chosen = chosen or said
    if chosen is None:
        raise BadFile(
            Reason.METADATA_MISSING,
            str(given.path),
            "a pixel size in the header",
            "none",
            "Set pixel_size_A (A) in the session or with --set pixel_size_A=VALUE.",
        )
    if not isinstance(array, torch.Tensor):
        import numpy as np

        array = torch.from_numpy(np.array(array, dtype=np.float32))
    return array.to(torch.float32), chosen, warnings


def tile_spectrum(
    image: "torch.Tensor", pixel_size_A: float, box_size: int, context: Context
) -> "tuple[torch.Tensor, float]":
    """Amplitude spectrum of a micrograph, and the pixel size that its box stands for."""
    from vitriflow.kernels.spectrum import power_spectrum

    spectrum = power_spectrum(image.to(context.device), pixel_size_A, box=box_size, threads=context.threads)
    size = spectrum.amplitude.shape[0]
    context.say(f"spectrum of {spectrum.n_tiles} tiles, {size} px at {spectrum.pixel_size_A:.4f} A/px")
    return spectrum.amplitude, spectrum.pixel_size_A


def _doubt_voltage(result: CtfResult, assumed_kV: float) -> None:
    """A fit at a voltage that nobody said is in doubt, however good the rings: defocus scales with it."""
    result.warnings.append(
        f"voltage_kV was neither set nor said by the microscope's files; {assumed_kV:g} kV was assumed. At "
        "another voltage the defocus is another (27 % from 300 to 200 kV). Set it with --set voltage_kV=VALUE."
    )
    if result.quality == "good":
        result.quality = "doubtful"


def _check(fit: "CtfFit", thing: str) -> None:
    """Numbers that can't be aren't passed on."""
    import math

    numbers = (
        fit.defocus_u_A,
        fit.defocus_v_A,
        fit.defocus_angle_deg,
        fit.phase_shift_deg,
        fit.cross_correlation,
    )
    if not all(math.isfinite(number) for number in numbers):
        raise BrokenInvariant(
            Reason.NOT_FINITE, f"CTF fit of {thing}", "finite numbers", "NaN or infinity", "Report this."
        )
    if fit.defocus_u_A < fit.defocus_v_A or not -90.0 < fit.defocus_angle_deg <= 90.0:
        raise BrokenInvariant(
            Reason.CTF_BOUNDS,
            f"CTF fit of {thing}",
            expected="U not below V and an angle from -90 to 90 degrees",
            found=f"U {fit.defocus_u_A:g}, V {fit.defocus_v_A:g}, angle {fit.defocus_angle_deg:g}",
            remedy="Report this.",
        )


def _record(fit: "CtfFit", pixel_size_A: float, tilt: Tilt | None) -> CtfResult:
    """The fit as a record; without rings it's quarantined, in doubt it carries a warning."""
    result = CtfResult(
        defocus_u_A=round(fit.defocus_u_A, 2),
        defocus_v_A=round(fit.defocus_v_A, 2),
        astigmatism_A=round(fit.astigmatism_A, 2),
        defocus_angle_deg=round(fit.defocus_angle_deg, 3),
        phase_shift_deg=round(fit.phase_shift_deg, 3),
        cross_correlation=round(fit.cross_correlation, 5),
        fit_resolution_A=None if fit.fit_resolution_A is None else round(fit.fit_resolution_A, 3),
        ice_ring=None if fit.ice_ring is None else round(fit.ice_ring, 4),
        defocus_uncertainty_A=round(fit.defocus_uncertainty_A, 2),
        defocus_u_uncertainty_A=round(fit.defocus_u_uncertainty_A, 2),
        defocus_v_uncertainty_A=round(fit.defocus_v_uncertainty_A, 2),
        angle_uncertainty_deg=round(fit.angle_uncertainty_deg, 3),
        phase_uncertainty_deg=round(fit.phase_uncertainty_deg, 3) if fit.phase_uncertainty_deg else None,
        quality=fit.quality,
        pixel_size_A=pixel_size_A,
        tilt_deg=None if tilt is None else round(tilt.tilt_deg, 2),
        tilt_axis_deg=None if tilt is None else round(tilt.axis_deg, 2),
        tilt_uncertainty_deg=None
        if tilt is None or tilt.uncertainty_deg is None
        else round(tilt.uncertainty_deg, 2),
        curves=fit.curves,
    )
    doubts = "; ".join(fit.doubts)
    if fit.quality == "no rings":
        result.status = Status.QUARANTINED
        result.reason_code = str(Reason.NO_RINGS)
        result.reason = f"no Thon rings that a CTF explains: {doubts}. The numbers are kept but mean nothing."
    elif fit.quality == "doubtful":
        result.warnings.append(f"the CTF fit is doubtful: {doubts}")
    return result


def write_picture(
    amplitude: "torch.Tensor",
    box_pixel_A: float,
    ctf: tuple[float, float, float, float],
    optics: "Optics",
    to_resolution_A: float,
    context: Context,
) -> Artifact:
    """Write half data, half fit; ``ctf`` is U, V (A), angle and phase shift (degrees)."""
    from vitriflow.formats import write_mrc
    from vitriflow.kernels.ctf_curves import diagnostic_image

    u, v, angle, phase = ctf
    picture = diagnostic_image(amplitude, box_pixel_A, (u, v), angle, phase, optics, to_resolution_A).numpy()
    with context.writing(".ctf") as temporary:
        write_mrc(temporary, picture, box_pixel_A, label="vitriflow: spectrum | squared CTF")
    path: Path = context.path(".ctf")
    context.keep(path, picture)
    return Artifact(kind=Kind.PICTURE, path=path, pixel_size_A=box_pixel_A)


def write_ctf_star(result: CtfResult, optics: "Optics", context: Context) -> Artifact:
    """Write the result in RELION's words; ``rlnCtfAstigmatism`` is U - V there, too."""
    from vitriflow.formats import write_star

    values: dict[str, Any] = {
        "rlnDefocusU": result.defocus_u_A,
        "rlnDefocusV": result.defocus_v_A,
        "rlnCtfAstigmatism": result.astigmatism_A,
        "rlnDefocusAngle": result.defocus_angle_deg,
        "rlnPhaseShift": result.phase_shift_deg,
        "rlnCtfFigureOfMerit": result.cross_correlation,
        "rlnCtfMaxResolution": result.fit_resolution_A or 999.0,
        "rlnVoltage": optics.voltage_kV,
        "rlnSphericalAberration": optics.cs_mm,
        "rlnAmplitudeContrast": optics.amplitude_contrast,
    }
    with context.writing("_ctf.star") as temporary:
        write_star(temporary, {"ctf": values})
    return Artifact(kind=Kind.CTF, path=context.path("_ctf.star"))
