"""Particle extraction by RELION: ``extract.relion``."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, model_validator

from vitriflow.errors import ProgramError, Reason
from vitriflow.steps.base import Port
from vitriflow.steps.ctf_native import read_input
from vitriflow.steps.programs.base import Job, ProgramParameters, ProgramStep, number
from vitriflow.steps.programs.relion import relion_tool, write_images_star
from vitriflow.steps.records import Artifact, ExtractResult, Kind

_OPTICS = ("rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast")
_PER_MICROGRAPH = ("rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle", "rlnPhaseShift", "rlnCtfMaxResolution")


class RelionExtractParameters(ProgramParameters):
    """The parameters of ``extract``, as far as RELION has them."""

    time_limit_s: float = Field(
        default=600.0, gt=0, le=30 * 86400, description="after which the program is killed (s)"
    )
    pixel_size_A: float | None = Field(
        default=None,
        gt=0.05,
        lt=50,
        description="of the micrograph (A); None takes it from the file's header",
    )
    particle_diameter_A: float = Field(gt=20, le=5000, description="longest extent of the particle (A)")
    box_size_px: int | None = Field(
        default=None,
        ge=16,
        le=4096,
        multiple_of=2,
        description="side of the box on the micrograph (px); None: 1.6 times the diameter",
    )
    scaled_box_px: int | None = Field(
        default=None, ge=16, le=4096, multiple_of=2, description="side of the images (px); None: as the box"
    )
    background_diameter_A: float | None = Field(
        default=None,
        gt=10,
        le=10000,
        description="outside of which is background (A); None: 1.1 times the diameter",
    )
    normalise: bool = Field(default=True, description="background to mean 0 and standard deviation 1")
    invert: bool = Field(default=True, description="make protein bright, as classification wants it")
    white_dust_sigma: float | None = Field(default=None, gt=2, description="pixels so far above are replaced")
    black_dust_sigma: float | None = Field(default=None, gt=2, description="pixels so far below are replaced")

    @model_validator(mode="after")
    def _sizes(self) -> "RelionExtractParameters":
        if self.box_size_px and self.scaled_box_px and self.scaled_box_px > self.box_size_px:
            raise ValueError(
                f"scaled_box_px ({self.scaled_box_px}) is above box_size_px ({self.box_size_px}): boxes only shrink"
            )
        return self


class RelionExtract(ProgramStep[RelionExtractParameters, ExtractResult]):
    """Cuts boxes with ``relion_preprocess``; the files are those that ``extract`` writes."""

    name = "extract.relion"
    version: ClassVar[str] = "1"
    summary = "RELION's extraction: boxes cut, scaled and normalised"
    folder: ClassVar[str] = "Extract"
    tool = relion_tool("relion_preprocess", "extraction")
    links: ClassVar[Mapping[str, str]] = {"micrograph": "micrograph"}
    inputs: ClassVar[Mapping[str, Port]] = {
        "micrograph": Port(Kind.MICROGRAPH, "an aligned micrograph"),
        "coordinates": Port(Kind.COORDINATES, "picks, RELION STAR"),
        "ctf": Port(Kind.CTF, "its CTF; without it particles have none", optional=True),
    }
    outputs: ClassVar[Mapping[str, Port]] = {
        "particles": Port(Kind.PARTICLES, "RELION STAR; not written where there are none", optional=True),
    }
    Parameters = RelionExtractParameters
    Record = ExtractResult

    def work(self, job: Job[RelionExtractParameters]) -> ExtractResult:
        """Extract one micrograph's particles."""
        from vitriflow.formats import read_coordinates, read_particles, write_coordinates

        parameters = job.parameters
        image, pixel_A, warnings = read_input(job.given["micrograph"], parameters.pixel_size_A, job.context)
        yx, score = read_coordinates(job.given["coordinates"].path)
        record = ExtractResult(
            n_picks=len(yx), particle_diameter_A=parameters.particle_diameter_A, warnings=warnings
        )
        if not len(yx):
            record.warnings.append("no picks: no particles")
            return record
        box, scaled = _sizes(parameters, pixel_A, (int(image.shape[0]), int(image.shape[1])))
        name = job.mrc("micrograph").name
        ctf = _ctf(job)
        optics = {
            "voltage_kV": ctf.pop(_OPTICS[0], 300.0),
            "spherical_aberration_mm": ctf.pop(_OPTICS[1], 2.7),
            "amplitude_contrast": ctf.pop(_OPTICS[2], 0.1),
        }
        if not ctf:
            record.warnings.append("no CTF came with this micrograph: its particles have none")
        write_images_star(job.folder / "micrographs.star", "micrographs", name, pixel_A, optics, ctf)
        write_coordinates(job.folder / f"{Path(name).stem}_picks.star", yx, score)
        job.run(*self.command(parameters, pixel_A, box, scaled))
        found = read_particles(job.output("particles.star"))
        record.box_size_px, record.pixel_size_A = scaled, pixel_A * box / scaled
        record.micrograph_pixel_size_A = pixel_A
        record.n_particles = len(found)
        record.n_over_edge = len(yx) - len(found)
        if not len(found):
            record.warnings.append("none of the picks gave a usable box")
            return record
        record.outputs["particles"] = _keep(job, found, record, bool(ctf))
        return record

    @staticmethod
    def command(parameters: RelionExtractParameters, pixel_A: float, box: int, scaled: int) -> list[str]:
        """The arguments for one micrograph."""
        circle_A = parameters.background_diameter_A or 1.1 * parameters.particle_diameter_A
        radius = min(round(0.5 * circle_A * scaled / (box * pixel_A)), scaled // 2 - 1)
        words = ["--i", "micrographs.star", "--coord_dir", "./", "--coord_suffix", "_picks.star"]
        words += ["--part_star", "particles.star", "--part_dir", "out/", "--extract"]
        words += ["--extract_size", str(box)]
        words += ["--scale", str(scaled)] if scaled != box else []
        if parameters.normalise:
            words += ["--norm", "--bg_radius", str(radius)]
            words += ["--white_dust", number(parameters.white_dust_sigma or -1)]
            words += ["--black_dust", number(parameters.black_dust_sigma or -1)]
        return [*words, "--invert_contrast"] if parameters.invert else words


def _sizes(parameters: RelionExtractParameters, pixel_A: float, shape: tuple[int, int]) -> tuple[int, int]:
    import math

    box = parameters.box_size_px or 2 * math.ceil(0.8 * parameters.particle_diameter_A / pixel_A)
    box = max(box, 16)
    if box > min(shape):
        raise ProgramError(
            Reason.PARAMETER,
            "box_size_px",
            f"a box within {shape[0]} x {shape[1]} px",
            f"{box} px",
            "Check particle_diameter_A, box_size_px and the micrograph's pixel size.",
        )
    return box, min(parameters.scaled_box_px or box, box)


def _ctf(job: Job[Any]) -> dict[str, float]:
    from vitriflow.formats import read_star

    if "ctf" not in job.given:
        return {}
    block: Any = read_star(job.given["ctf"].path).get("ctf", {})
    found = {name: float(block[name]) for name in (*_PER_MICROGRAPH, *_OPTICS) if name in block}
    return {"rlnPhaseShift": 0.0} | found


def _keep(job: Job[Any], found: Any, record: ExtractResult, has_ctf: bool) -> Artifact:
    """The stack and its STAR under our names; the group keeps the number that the exposure has."""
    import numpy as np

    from vitriflow.formats import read_stack, write_particles

    (stack,) = {path for _, path in found.places()}
    images = read_stack(stack)
    if len(images) < len(found) or not np.isfinite(images).all() or not (images.std(axis=(1, 2)) > 0).all():
        raise job.nonsense("particles", f"{len(found)} finite, varying images", f"{len(images)}, some not so")
    if images.shape[1] != record.box_size_px:
        raise job.nonsense("boxes", f"{record.box_size_px} px", f"{images.shape[1]} px")
    kept = job.keep(stack, "_particles.mrcs")
    table, optics = found.table.copy(), found.optics.copy()
    table["rlnImageName"] = [f"{place + 1:06d}@{kept.name}" for place, _ in found.places()]
    table["rlnMicrographName"] = str(job.given["micrograph"].path)
    group = job.context.metadata.get("optics_group")
    number_of_group = group if isinstance(group, int) and group > 0 else 1
    table["rlnOpticsGroup"] = number_of_group
    optics["rlnOpticsGroup"], optics["rlnOpticsGroupName"] = number_of_group, f"opticsGroup{number_of_group}"
    if not has_ctf:
        optics = optics.drop(columns=[name for name in _OPTICS if name in optics])
    with job.context.writing("_particles.star") as temporary:
        write_particles(temporary, table, optics)
    path = job.context.path("_particles.star")
    return Artifact(kind=Kind.PARTICLES, path=path, pixel_size_A=record.pixel_size_A)
