"""Picking by RELION: ``pick.relion_log`` and ``pick.relion_template``."""

from abc import abstractmethod
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from pydantic import Field

from vitriflow.errors import ProgramError, Reason
from vitriflow.steps.programs.base import Job, number
from vitriflow.steps.programs.pick_common import OutsidePick, OutsidePickParameters, hand_on, micrograph_of
from vitriflow.steps.programs.relion import relion_tool, write_images_star
from vitriflow.steps.records import PickResult

_OPTICS = {"voltage_kV": 300.0, "spherical_aberration_mm": 2.7, "amplitude_contrast": 0.1}
_CTF = ("rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle", "rlnPhaseShift")


class RelionPickParameters(OutsidePickParameters):
    """What both of RELION's pickers are told."""

    lowpass_A: float = Field(default=20.0, gt=1, le=500, description="finest detail used (A)")
    shrink: float = Field(
        default=0.0, ge=0, le=1, description="micrographs are shrunk by this; 0: as lowpass_A allows"
    )


class LogPickParameters(RelionPickParameters):
    """Of RELION's Laplacian of Gaussian."""

    min_diameter_A: float | None = Field(
        default=None, gt=5, description="smallest (A); None: 0.8 of the diameter"
    )
    max_diameter_A: float | None = Field(default=None, gt=5, description="largest (A); None: the diameter")
    threshold: float = Field(
        default=0.0,
        ge=-10,
        le=10,
        description="moves its threshold (standard deviations): more picks below 0",
    )
    bright: bool = Field(default=False, description="particles are bright")


class TemplatePickParameters(RelionPickParameters):
    """Of RELION's template matching."""

    references: Path = Field(description="stack of 2D references (.mrcs), as bright on dark")
    references_pixel_size_A: float | None = Field(
        default=None, gt=0.05, lt=100, description="of the references (A); none takes the stack's header"
    )
    threshold: float = Field(default=0.05, ge=0, le=1, description="least figure of merit")
    min_distance_A: float | None = Field(
        default=None, gt=0, description="between picks (A); None: half the diameter"
    )
    max_noise_sigma: float = Field(
        default=1.1, gt=0, description="largest noise around a pick (standard deviations)"
    )
    angle_step_deg: float = Field(default=5.0, gt=0, le=90, description="step of rotation (degrees)")
    invert: bool = Field(default=True, description="particles are darker than the references")
    use_ctf: bool = Field(
        default=True, description="correct references by the micrograph's CTF, where it came"
    )


Q = TypeVar("Q", bound=RelionPickParameters)


class RelionPick(OutsidePick[Q]):
    """RELION's picker."""

    version: ClassVar[str] = "1"
    tool = relion_tool("relion_autopick", "picking")

    def work(self, job: Job[Q]) -> PickResult:
        """Pick one micrograph."""
        from vitriflow.formats import read_coordinates

        shape, pixel_A, warnings = micrograph_of(job)
        name = job.mrc("micrograph").name
        ctf = _ctf(job)
        optics = {
            "voltage_kV": ctf.pop("rlnVoltage", _OPTICS["voltage_kV"]),
            "spherical_aberration_mm": ctf.pop("rlnSphericalAberration", _OPTICS["spherical_aberration_mm"]),
            "amplitude_contrast": ctf.pop("rlnAmplitudeContrast", _OPTICS["amplitude_contrast"]),
        }
        write_images_star(job.folder / "micrographs.star", "micrographs", name, pixel_A, optics, ctf)
        parameters = job.parameters
        words = ["--i", "micrographs.star", "--odir", "out/", "--pickname", "picks"]
        words += ["--shrink", number(parameters.shrink), "--lowpass", number(parameters.lowpass_A)]
        job.run(*words, *self.command(job, bool(ctf)))
        yx, score = read_coordinates(job.output("out/**/*_picks.star"))
        return hand_on(
            job, yx, score, shape, threshold=getattr(parameters, "threshold", 0.0), warnings=warnings
        )

    @abstractmethod
    def command(self, job: Job[Q], has_ctf: bool) -> list[str]:
        """The arguments of one way to pick."""


def _ctf(job: Job[Any]) -> dict[str, float]:
    from vitriflow.formats import read_star

    if "ctf" not in job.given:
        return {}
    block: Any = read_star(job.given["ctf"].path).get("ctf", {})
    wanted = (*_CTF, "rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast")
    return {name: float(block[name]) for name in wanted if name in block}


class RelionLog(RelionPick[LogPickParameters]):
    """Laplacian of Gaussian: particles by their diameter."""

    name = "pick.relion_log"
    summary = "RELION's Laplacian of Gaussian: particles by their diameter"
    Parameters = LogPickParameters

    def command(self, job: Job[LogPickParameters], has_ctf: bool) -> list[str]:
        """LoG."""
        parameters = job.parameters
        smallest = parameters.min_diameter_A or 0.8 * parameters.particle_diameter_A
        largest = parameters.max_diameter_A or parameters.particle_diameter_A
        words = ["--LoG", "--LoG_diam_min", number(smallest), "--LoG_diam_max", number(largest)]
        words += ["--LoG_adjust_threshold", number(parameters.threshold)]
        return [*words, "--Log_invert"] if parameters.bright else words


class RelionTemplate(RelionPick[TemplatePickParameters]):
    """Template matching."""

    name = "pick.relion_template"
    summary = "RELION's template matching: particles by 2D references"
    Parameters = TemplatePickParameters

    def command(self, job: Job[TemplatePickParameters], has_ctf: bool) -> list[str]:
        """Template matching."""
        parameters = job.parameters
        if not parameters.references.is_file():
            raise ProgramError(
                Reason.PARAMETER,
                "references",
                "a stack of 2D references",
                f"no file {parameters.references}",
                "Name classes that were selected, as .mrcs.",
            )
        (job.folder / "references.mrcs").symlink_to(parameters.references.absolute())
        least = parameters.min_distance_A or 0.5 * parameters.particle_diameter_A
        words = ["--ref", "references.mrcs", "--particle_diameter", number(parameters.particle_diameter_A)]
        if parameters.references_pixel_size_A is not None:
            words += ["--angpix_ref", number(parameters.references_pixel_size_A)]
        words += ["--ang", number(parameters.angle_step_deg), "--threshold", number(parameters.threshold)]
        words += ["--min_distance", number(least), "--max_stddev_noise", number(parameters.max_noise_sigma)]
        words += ["--invert"] if parameters.invert else []
        words += ["--ctf"] if has_ctf and parameters.use_ctf else []
        return [*words, "--gpu", str(job.gpu)] if job.gpu is not None else words
