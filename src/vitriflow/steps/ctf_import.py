"""Takes over CTF results of another program, after a look at whether they can be right."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from vitriflow.errors import BadFile, Reason
from vitriflow.steps.base import Context, Port, Resources, Step, StepParameters
from vitriflow.steps.ctf_native import choose_port, read_input, tile_spectrum, write_ctf_star, write_picture
from vitriflow.steps.records import Artifact, CtfResult, Kind, Status

if TYPE_CHECKING:
    from vitriflow.kernels.ctf_compare import Comparison
    from vitriflow.kernels.ctf_outside import OutsideCtf
    from vitriflow.kernels.ctf_rings import Optics

_ENDINGS = ("_PS", "_DW", "_noDW", "_avrot", "_ctffind4", "_ctffind5", ".ctf")
_TOLERANCE = {"voltage_kV": 0.01, "spherical_aberration_mm": 0.02, "amplitude_contrast": 0.02}
_ASSUMED = {"voltage_kV": 300.0, "spherical_aberration_mm": 2.7, "amplitude_contrast": 0.1}
_THEIR_NAMES = {"spherical_aberration_mm": "cs_mm"}


class CtfImportParameters(StepParameters):
    """Where the results are, and what the microscope was."""

    results: Path = Field(
        description="ctffind's .txt, a STAR with rlnDefocusU, or the folder of a CTF job; "
        "results are found by the micrograph's name"
    )
    input: Literal["auto", "micrograph", "power_spectrum"] = Field(
        default="auto",
        description="which input the results are held against; auto takes the power spectrum when there is one",
    )
    pixel_size_A: float | None = Field(
        default=None, gt=0.05, lt=50, description="of the input (A); None takes it from the file's header"
    )
    voltage_kV: float | None = Field(
        default=None, ge=10, le=1500, description="acceleration voltage (kV); None takes the results' own"
    )
    spherical_aberration_mm: float | None = Field(
        default=None, ge=0, le=20, description="Cs (mm); None takes the results' own"
    )
    amplitude_contrast: float | None = Field(
        default=None, ge=0, le=1, description="fraction, 0 to 1; None takes the results' own"
    )
    box_size: int = Field(
        default=512, ge=128, le=2048, multiple_of=2, description="side of the spectrum of a micrograph (px)"
    )


class CtfImport(Step[CtfImportParameters, CtfResult]):
    """Writes the other program's numbers as ``ctf.native`` writes its own, with a verdict.

    The verdict rests on the spectrum. What the numbers alone give away (a low cross correlation, a
    coarse fit, a jump from the neighbours) is told too, and decides nothing once the spectrum agrees.
    """

    name = "ctf.import"
    version = "1"
    summary = "CTF results of ctffind, RELION or cryoSPARC, held against the spectrum before they're believed"
    folder = "CtfFind"
    inputs = {  # noqa: RUF012  (declared as ClassVar by Step)
        "micrograph": Port(Kind.MICROGRAPH, "the aligned micrograph", optional=True),
        "power_spectrum": Port(
            Kind.POWER_SPECTRUM, "square amplitude spectrum, zero frequency in the middle", optional=True
        ),
    }
    outputs = {  # noqa: RUF012
        "ctf": Port(Kind.CTF, "STAR with the numbers; not written when there are no rings", optional=True),
        "diagnostic": Port(Kind.PICTURE, "MRC: left half the spectrum, right half their squared CTF"),
    }
    Parameters = CtfImportParameters
    Record = CtfResult

    def resources(self, parameters: CtfImportParameters) -> Resources:
        """As for a fit of our own, which is part of it."""
        return Resources(threads=2, memory_bytes=1536 * 1024**2, time_limit_s=180.0)

    def run(
        self, inputs: Mapping[str, Artifact], parameters: CtfImportParameters, context: Context
    ) -> CtfResult:
        """Judge the result of one exposure."""
        from vitriflow.formats.ctffind import read_ctf_results
        from vitriflow.kernels.ctf_compare import compare_ctf
        from vitriflow.kernels.ctf_outside import doubt_of_neighbours, doubts_of_numbers

        port = choose_port(self.name, inputs, parameters.input)
        everything = read_ctf_results(parameters.results)
        index = _find(context.item, everything, parameters.results)
        given = everything[index]
        optics, warnings = _optics(given, parameters)
        image, pixel_size_A, doubts = read_input(inputs[port], parameters.pixel_size_A, context)
        warnings += doubts
        amplitude, box_pixel_A = image, pixel_size_A
        if port == "micrograph":
            amplitude, box_pixel_A = tile_spectrum(image, pixel_size_A, parameters.box_size, context)
        found = compare_ctf(amplitude, box_pixel_A, given, optics)
        asides = [*doubts_of_numbers(given), doubt_of_neighbours(index, everything)]
        result = record_of(given, found, pixel_size_A, [text for text in asides if text])
        result.warnings += warnings
        resolution = found.fit_resolution_A
        picture = write_picture(
            amplitude,
            box_pixel_A,
            (given.defocus_u_A, given.defocus_v_A, given.angle_deg, given.phase_deg),
            optics,
            resolution or 4.0,
            context,
        )
        result.outputs = {"diagnostic": picture}
        if result.status is Status.DONE:
            result.outputs["ctf"] = write_ctf_star(result, optics, context)
        return result


def _stem(name: str) -> str:
    """A micrograph's name without what programs append to it."""
    stem = Path(name).name
    while True:
        ending = next((end for end in _ENDINGS if stem.endswith(end) and len(stem) > len(end)), None)
        if ending is None:
            return stem
        stem = stem[: -len(ending)]


def _find(item: str, everything: "list[OutsideCtf]", where: Path) -> int:
    """Index of the exposure's result."""
    wanted = _stem(item)
    matches = [index for index, ctf in enumerate(everything) if _stem(ctf.name) == wanted]
    if len(everything) == 1 and where.is_file():
        return 0  # one file for one exposure: whoever names both means them
    if len(matches) == 1:
        return matches[0]
    raise BadFile(
        Reason.METADATA_MISSING,
        str(where),
        expected=f"one result for {wanted}",
        found=f"{len(matches)} among {len(everything)}, such as {everything[0].name}",
        remedy="Name the folder or the STAR of the same micrographs; names have to agree.",
    )


def _optics(given: "OutsideCtf", parameters: CtfImportParameters) -> "tuple[Optics, list[str]]":
    """The microscope: as set or said by its files, else as the other program was told; and conflicts."""
    from vitriflow.kernels.ctf_rings import Optics

    values, warnings = {}, []
    for name, tolerance in _TOLERANCE.items():
        told = getattr(given, _THEIR_NAMES.get(name, name))
        value = getattr(parameters, name)
        if value is None and told is None:
            warnings.append(f"{name} was neither set nor said by any file; {_ASSUMED[name]:g} was assumed")
        elif value is not None and told is not None and abs(value - told) > tolerance * max(abs(value), 1e-6):
            warnings.append(
                f"the other program was told {name} {told:g}, here it's {value:g}: its defocus is another's"
            )
        values[name] = _ASSUMED[name] if value is None and told is None else told if value is None else value
    optics = Optics(values["voltage_kV"], values["spherical_aberration_mm"], values["amplitude_contrast"])
    return optics, warnings


def record_of(
    given: "OutsideCtf",
    found: "Comparison",
    pixel_size_A: float,
    asides: list[str],
    what: str = "imported CTF",
) -> CtfResult:
    """The other program's numbers with our verdict."""
    result = CtfResult(
        defocus_u_A=round(given.defocus_u_A, 2),
        defocus_v_A=round(given.defocus_v_A, 2),
        astigmatism_A=round(given.defocus_u_A - given.defocus_v_A, 2),
        defocus_angle_deg=round(given.angle_deg, 3),
        phase_shift_deg=round(given.phase_deg, 3),
        cross_correlation=round(found.cross_correlation, 5),
        fit_resolution_A=None if found.fit_resolution_A is None else round(found.fit_resolution_A, 3),
        ice_ring=None if found.ice_ring is None else round(found.ice_ring, 4),
        quality=found.quality,
        pixel_size_A=pixel_size_A,
        tilt_deg=given.tilt_deg,
        tilt_axis_deg=given.tilt_axis_deg,
        curves=found.own.curves,
    )
    doubts = [*found.doubts, *asides]
    own = found.own
    ours = f"our own fit: {own.defocus_u_A:.0f} and {own.defocus_v_A:.0f} A, {own.quality}"
    if found.quality == "no rings":
        result.status = Status.QUARANTINED
        result.reason_code = str(Reason.NO_RINGS)
        result.reason = f"the {what} can't be borne out: {'; '.join(doubts)}"
    elif found.quality == "doubtful":
        result.warnings.append(f"the {what} is doubtful: {'; '.join(doubts)} ({ours})")
    elif asides:
        result.warnings.append(f"the spectrum bears the {what} out, though {'; '.join(asides)}")
    return result
