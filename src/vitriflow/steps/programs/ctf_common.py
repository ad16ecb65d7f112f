"""What outside CTF fits share: parameters, and the verdict of ``ctf.import`` on what they found."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, TypeVar

from pydantic import Field, model_validator

from vitriflow.errors import Reason
from vitriflow.steps.base import Port
from vitriflow.steps.ctf_import import record_of
from vitriflow.steps.ctf_native import read_input, tile_spectrum, write_ctf_star, write_picture
from vitriflow.steps.programs.base import Job, ProgramParameters, ProgramStep
from vitriflow.steps.records import CtfResult, Kind, Status

if TYPE_CHECKING:
    from vitriflow.kernels.ctf_outside import OutsideCtf


_LEAST_SHARE = 0.5  # of what our own good fit explains of the spectrum


class OutsideCtfParameters(ProgramParameters):
    """The parameters of ``ctf.native``, for another program."""

    time_limit_s: float = Field(
        default=300.0, gt=0, le=30 * 86400, description="after which the program is killed (s)"
    )
    pixel_size_A: float | None = Field(
        default=None,
        gt=0.05,
        lt=50,
        description="of the micrograph (A); None takes it from the file's header",
    )
    voltage_kV: float = Field(default=300.0, ge=10, le=1500, description="acceleration voltage (kV)")
    spherical_aberration_mm: float = Field(default=2.7, ge=0, le=20, description="Cs (mm)")
    amplitude_contrast: float = Field(
        default=0.1, ge=0, le=1, description="fraction, 0 to 1; 0.07 to 0.1 in ice"
    )
    min_defocus_A: float = Field(default=5000.0, gt=0, le=500000, description="least defocus tried (A)")
    max_defocus_A: float = Field(default=50000.0, gt=0, le=500000, description="largest defocus tried (A)")
    defocus_step_A: float = Field(default=500.0, gt=0, le=10000, description="step of the search (A)")
    max_astigmatism_A: float = Field(default=1000.0, ge=0, le=50000, description="astigmatism expected (A)")
    min_resolution_A: float = Field(default=30.0, gt=2, le=200, description="coarsest rings used (A)")
    max_resolution_A: float = Field(default=5.0, gt=0.5, le=50, description="finest rings used (A)")
    box_size: int = Field(
        default=512, ge=128, le=2048, multiple_of=2, description="side of the power spectrum (px)"
    )
    fit_phase_shift: bool = Field(default=False, description="fit the phase shift of a phase plate too")
    min_phase_deg: float = Field(default=0.0, ge=0, le=180, description="least phase shift tried (degrees)")
    max_phase_deg: float = Field(default=180.0, ge=0, le=180, description="largest one tried (degrees)")
    phase_step_deg: float = Field(default=10.0, gt=0, le=90, description="step of that search (degrees)")

    @model_validator(mode="after")
    def _ordered(self) -> "OutsideCtfParameters":
        for low, high in (
            ("min_defocus_A", "max_defocus_A"),
            ("max_resolution_A", "min_resolution_A"),
            ("min_phase_deg", "max_phase_deg"),
        ):
            if getattr(self, low) >= getattr(self, high):
                raise ValueError(
                    f"{low} ({getattr(self, low):g}) has to be below {high} ({getattr(self, high):g})"
                )
        return self


P = TypeVar("P", bound=OutsideCtfParameters)


class OutsideCtfStep(ProgramStep[P, CtfResult]):
    """A CTF fit by another program, with the ports and the record of ``ctf.native``."""

    folder: ClassVar[str] = "CtfFind"
    links: ClassVar[Mapping[str, str]] = {"micrograph": "micrograph"}
    inputs: ClassVar[Mapping[str, Port]] = {
        "micrograph": Port(Kind.MICROGRAPH, "an aligned micrograph, not dose-weighted where possible"),
    }
    outputs: ClassVar[Mapping[str, Port]] = {
        "ctf": Port(Kind.CTF, "STAR with the fit; not written when there are no rings", optional=True),
        "diagnostic": Port(Kind.PICTURE, "MRC: left half the spectrum, right half their squared CTF"),
    }
    Record = CtfResult


def judge(job: Job[P], results: Path, pixel_size_A: float) -> CtfResult:
    """Read what the program found, hold it against the spectrum, and write it as ``ctf.native`` does.

    Raises
    ------
    ProgramError
        When its numbers can't be.
    """
    from vitriflow.formats.ctffind import read_ctf_results
    from vitriflow.kernels.ctf_compare import compare_ctf
    from vitriflow.kernels.ctf_outside import doubts_of_numbers
    from vitriflow.kernels.ctf_rings import Optics

    parameters, context = job.parameters, job.context
    given = read_ctf_results(results)[0]
    _refuse_nonsense(job, given)
    optics = Optics(parameters.voltage_kV, parameters.spherical_aberration_mm, parameters.amplitude_contrast)
    image, pixel_A, warnings = read_input(job.given["micrograph"], pixel_size_A, context)
    amplitude, box_pixel_A = tile_spectrum(image, pixel_A, parameters.box_size, context)
    found = compare_ctf(amplitude, box_pixel_A, given, optics)
    name = f"CTF of {job.found.tool.title}"
    result = record_of(given, found, pixel_A, doubts_of_numbers(given), name)
    result.warnings += warnings
    if result.status is Status.DONE and found.own.quality == "good" and found.share < _LEAST_SHARE:
        result.status = Status.QUARANTINED
        result.reason_code = str(Reason.CTF_DOUBTFUL)
        result.reason = f"the {name} explains nothing of clear rings: {'; '.join(found.doubts)}"
    numbers = (given.defocus_u_A, given.defocus_v_A, given.angle_deg, given.phase_deg)
    shown_A = found.fit_resolution_A or 4.0
    result.outputs = {"diagnostic": write_picture(amplitude, box_pixel_A, numbers, optics, shown_A, context)}
    if result.status is Status.DONE:
        result.outputs["ctf"] = write_ctf_star(result, optics, context)
    return result


def _refuse_nonsense(job: Job[P], given: "OutsideCtf") -> None:
    low, high = 0.2 * job.parameters.min_defocus_A, 2.0 * job.parameters.max_defocus_A
    if not low <= given.mean_A <= high:
        asked = f"{job.parameters.min_defocus_A:g} to {job.parameters.max_defocus_A:g} A"
        raise job.nonsense("defocus", f"one of those asked for, {asked}", f"{given.mean_A:g} A")
    if given.defocus_v_A <= 0:
        raise job.nonsense("defocus", "underfocus in every direction", f"{given.defocus_v_A:g} A")
    if given.cross_correlation is not None and abs(given.cross_correlation) > 1.0 + 1e-6:
        raise job.nonsense("cross correlation", "-1 to 1", f"{given.cross_correlation:g}")


def pixel_size_of(job: Job[P]) -> float:
    """Pixel size that the program is to be told: the artifact's own, else as set, else the header's (A)."""
    given = job.given["micrograph"]
    chosen = given.pixel_size_A or job.parameters.pixel_size_A
    if chosen is None:
        _, chosen, _ = read_input(given, None, job.context)
    return chosen
