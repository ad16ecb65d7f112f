"""Cuts particles out of a micrograph as soon as it's picked."""

import zlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from vitriflow.errors import BadFile, BrokenInvariant, Reason
from vitriflow.steps.base import Context, Port, Resources, Step, StepParameters
from vitriflow.steps.ctf_native import read_input
from vitriflow.steps.records import Artifact, ExtractResult, Kind
from vitriflow.steps.threads import torch_threads

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import torch
    from numpy.typing import NDArray

_OPTICS = ("rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast")
_PARTICLE_CTF = ("rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle", "rlnPhaseShift", "rlnCtfMaxResolution")


class ExtractParameters(StepParameters):
    """How boxes are made."""

    pixel_size_A: float | None = Field(
        default=None,
        gt=0.05,
        lt=50,
        description="of the micrograph (A), where neither the step before nor the file's header says it",
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
        default=None,
        ge=16,
        le=4096,
        multiple_of=2,
        description="side of the particle images (px), made by cutting their spectrum; None: as the box",
    )
    background_diameter_A: float | None = Field(
        default=None,
        gt=10,
        le=10000,
        description="of the circle outside of which is background (A); None: 1.1 times the diameter",
    )
    normalise: bool = Field(default=True, description="background to mean 0 and standard deviation 1")
    invert: bool = Field(default=True, description="make protein bright, as classification wants it")
    white_dust_sigma: float | None = Field(
        default=None, gt=2, description="pixels so many deviations above the background are replaced"
    )
    black_dust_sigma: float | None = Field(
        default=None, gt=2, description="pixels so many deviations below the background are replaced"
    )
    ctf_correction: Literal["none", "flip", "multiply"] = Field(
        default="none",
        description="flip phases or multiply by the CTF; RELION and vitriflow do it themselves",
    )
    edge: Literal["skip", "pad"] = Field(
        default="skip", description="boxes over the micrograph's edge: left out, or filled by mirroring"
    )
    min_score: float | None = Field(default=None, description="picks with a lower score are left out")
    min_contrast: float | None = Field(
        default=None,
        ge=0,
        description="boxes with less inside the circle (over the background's deviation at the particle's size; "
        "1 for noise) are left out as empty; None keeps all but constant and broken ones",
    )
    float16: bool = Field(
        default=False, description="write 16-bit floats: half the size; RELION reads them from version 4 on"
    )

    @model_validator(mode="after")
    def _sizes(self) -> "ExtractParameters":
        if self.box_size_px and self.scaled_box_px and self.scaled_box_px > self.box_size_px:
            raise ValueError(
                f"scaled_box_px ({self.scaled_box_px}) is above box_size_px ({self.box_size_px}): boxes only shrink"
            )
        return self


class Extract(Step[ExtractParameters, ExtractResult]):
    """Writes a stack of the particles of one micrograph, and a STAR file with optics groups beside it."""

    name = "extract"
    version = "1"
    summary = "Particle boxes: cut, scaled, normalised, with CTF and optics groups for RELION"
    folder = "Extract"
    inputs = {  # noqa: RUF012  (declared as ClassVar by Step)
        "micrograph": Port(Kind.MICROGRAPH, "an aligned micrograph"),
        "coordinates": Port(Kind.COORDINATES, "picks, RELION STAR"),
        "ctf": Port(Kind.CTF, "its CTF; without it particles have none", optional=True),
    }
    outputs = {  # noqa: RUF012
        "particles": Port(Kind.PARTICLES, "RELION STAR; not written where there are none", optional=True),
    }
    Parameters = ExtractParameters
    Record = ExtractResult

    def resources(self, parameters: ExtractParameters) -> Resources:
        """The micrograph and some hundred boxes."""
        return Resources(threads=1, memory_bytes=1536 * 1024**2, time_limit_s=300.0)

    def run(
        self, inputs: Mapping[str, Artifact], parameters: ExtractParameters, context: Context
    ) -> ExtractResult:
        """Extract one micrograph's particles."""
        from vitriflow.formats import read_coordinates

        yx, score = read_coordinates(inputs["coordinates"].path)
        ctf = _read_ctf(inputs.get("ctf"), parameters)
        record = ExtractResult(n_picks=len(yx), particle_diameter_A=parameters.particle_diameter_A)
        if ctf is None:
            record.warnings.append("no CTF came with this micrograph: its particles have none")
        if not len(yx):
            record.warnings.append("no picks: no particles")
            return record
        with torch_threads(self.resources(parameters).threads):
            return self._extract(inputs["micrograph"], yx, score, ctf, parameters, record, context)

    def _extract(
        self,
        micrograph: Artifact,
        yx: "NDArray[np.float64]",
        score: "NDArray[np.float64]",
        ctf: dict[str, float] | None,
        parameters: ExtractParameters,
        record: ExtractResult,
        context: Context,
    ) -> ExtractResult:
        import torch

        from vitriflow.kernels.extract import cut_boxes

        image, pixel_A, warnings = read_input(micrograph, parameters.pixel_size_A, context)
        record.warnings += warnings
        _refuse_outside(yx, (image.shape[0], image.shape[1]), str(micrograph.path))
        box, scaled = _sizes(parameters, pixel_A, (image.shape[0], image.shape[1]), str(micrograph.path))
        enough = torch.ones(len(yx), dtype=torch.bool)
        if parameters.min_score is not None:
            enough = torch.from_numpy(score >= parameters.min_score)
        record.n_below_score = int((~enough).sum())
        chosen = torch.nonzero(enough)[:, 0]
        boxes = cut_boxes(image, torch.from_numpy(yx)[chosen], box, parameters.edge)
        record.n_over_edge = boxes.over_edge
        kept = chosen[boxes.kept]
        record.box_size_px, record.pixel_size_A = scaled, pixel_A * box / scaled
        record.micrograph_pixel_size_A = pixel_A
        images, good, contrast = _develop(boxes.images, pixel_A, scaled, ctf, parameters, record, context)
        kept, images = kept[good], images[good]
        record.n_empty = int((~good).sum())
        record.n_particles = len(kept)
        record.mean_contrast = float(contrast[good].mean()) if len(kept) else 0.0
        if not len(kept):
            record.warnings.append("none of the picks gave a usable box")
            return record
        _check(images, str(micrograph.path))
        record.outputs = _write(
            images, yx[kept.numpy()], score[kept.numpy()], ctf, micrograph, parameters, record, context
        )
        return record


def _refuse_outside(yx: "NDArray[np.float64]", shape: tuple[int, int], thing: str) -> None:
    """Picks outside belong to another micrograph, or to another binning."""
    import numpy as np

    outside = int(((yx < -0.5) | (yx > np.array(shape) - 0.5)).any(axis=1).sum())
    if outside:
        raise BrokenInvariant(
            Reason.PICKS_OUTSIDE,
            f"picks for {thing}",
            f"all within {shape[0]} x {shape[1]} px",
            f"{outside} of {len(yx)} outside",
            "Coordinates count in pixels of this micrograph; extract from the one that was picked.",
        )


def _sizes(
    parameters: ExtractParameters, pixel_A: float, shape: tuple[int, int], thing: str
) -> tuple[int, int]:
    """Side of the box on the micrograph and of the images (px)."""
    import math

    from vitriflow.kernels.fourier import good_size

    box = parameters.box_size_px or good_size(math.ceil(1.6 * parameters.particle_diameter_A / pixel_A))
    box = max(box, 16)
    if box > min(shape):
        raise BadFile(
            Reason.PARAMETER,
            thing,
            f"at least {box} px a side, the size of a box",
            f"{shape[0]} x {shape[1]} px",
            "Check particle_diameter_A, box_size_px and the micrograph's pixel size.",
        )
    return box, min(parameters.scaled_box_px or box, box)


def _read_ctf(given: Artifact | None, parameters: ExtractParameters) -> dict[str, float] | None:
    """The CTF's numbers by RELION's names."""
    from vitriflow.formats import read_star

    if given is None:
        if parameters.ctf_correction != "none":
            raise BadFile(
                Reason.METADATA_MISSING,
                f"extract with ctf_correction = {parameters.ctf_correction}",
                "a CTF of the micrograph",
                "none",
                "Wire the ctf input, or set ctf_correction to none.",
            )
        return None
    block: Any = read_star(given.path).get("ctf")
    wanted = (*_PARTICLE_CTF[:3], *_OPTICS)
    if not isinstance(block, dict) or any(name not in block for name in wanted):
        raise BadFile(
            Reason.METADATA_BROKEN,
            str(given.path),
            "data_ctf with " + ", ".join(wanted),
            "a table of another kind" if block is not None else "no data_ctf",
            "Wire the ctf output of a CTF step.",
        )
    named = (*_PARTICLE_CTF, *_OPTICS, "rlnCtfFigureOfMerit")
    return {"rlnPhaseShift": 0.0} | {name: float(block[name]) for name in named if name in block}


def _develop(
    images: "torch.Tensor",
    pixel_A: float,
    scaled: int,
    ctf: dict[str, float] | None,
    parameters: ExtractParameters,
    record: ExtractResult,
    context: Context,
) -> "tuple[torch.Tensor, torch.Tensor, torch.Tensor]":
    """From boxes to particle images; which are usable; and their contrast."""
    import torch

    from vitriflow.kernels.ctf import ctf_2d
    from vitriflow.kernels.extract import apply_ctf, inside_contrast, normalise, remove_dust, shrink

    box = int(images.shape[-1])
    if ctf is not None and parameters.ctf_correction != "none":
        u, v, angle = (ctf[name] for name in _PARTICLE_CTF[:3])
        voltage, cs, amplitude = (ctf[name] for name in _OPTICS)
        phase = ctf["rlnPhaseShift"]
        transfer = -ctf_2d((box, box), pixel_A, u, v, angle, voltage, cs, amplitude, phase)
        images = apply_ctf(images, transfer[None], parameters.ctf_correction)
    images = shrink(images, scaled)
    circle_A = parameters.background_diameter_A or 1.1 * parameters.particle_diameter_A
    radius = min(0.5 * circle_A * scaled / (box * pixel_A), 0.5 * scaled - 1.0)
    levelled, good = normalise(images, radius, invert=parameters.invert)
    seed = zlib.crc32(context.item.encode())
    levelled, record.n_dust_pixels = remove_dust(
        levelled, radius, parameters.white_dust_sigma, parameters.black_dust_sigma, seed
    )
    if record.n_dust_pixels:
        levelled, still = normalise(levelled, radius)
        good &= still
    contrast = torch.where(good, inside_contrast(levelled, radius), torch.zeros(len(images)))
    if parameters.min_contrast is not None:
        good = good & (contrast >= parameters.min_contrast)
    if not parameters.normalise:
        levelled = -images if parameters.invert else images
    return levelled, good, contrast


def _check(images: "torch.Tensor", thing: str) -> None:
    """What isn't finite or all the same is never handed on."""
    import torch

    if not bool(torch.isfinite(images).all()) or not bool((images.std(dim=(1, 2)) > 0).all()):
        raise BrokenInvariant(
            Reason.NOT_FINITE, f"particles of {thing}", "finite, varying values", "others", "Report this."
        )


def _write(
    images: "torch.Tensor",
    yx: "NDArray[np.float64]",
    score: "NDArray[np.float64]",
    ctf: dict[str, float] | None,
    micrograph: Artifact,
    parameters: ExtractParameters,
    record: ExtractResult,
    context: Context,
) -> dict[str, Artifact]:
    from vitriflow.formats import write_particles, write_stack

    stack = context.path("_particles.mrcs")
    with context.writing("_particles.mrcs") as temporary:
        write_stack(temporary, images.cpu().numpy(), record.pixel_size_A, parameters.float16)
    tables = _tables(yx, score, ctf, micrograph, stack.name, parameters, record, context)
    with context.writing("_particles.star") as temporary:
        write_particles(temporary, *tables)
    path = context.path("_particles.star")
    return {"particles": Artifact(kind=Kind.PARTICLES, path=path, pixel_size_A=record.pixel_size_A)}


def _tables(
    yx: "NDArray[np.float64]",
    score: "NDArray[np.float64]",
    ctf: dict[str, float] | None,
    micrograph: Artifact,
    stack: str,
    parameters: ExtractParameters,
    record: ExtractResult,
    context: Context,
) -> "tuple[pd.DataFrame, pd.DataFrame]":
    """``data_particles`` and ``data_optics``; groups keep the number that the exposure has."""
    import numpy as np
    import pandas as pd

    group = context.metadata.get("optics_group")
    number = group if isinstance(group, int) and group > 0 else 1
    particles: dict[str, Any] = {
        "rlnCoordinateX": np.floor(yx[:, 1]),
        "rlnCoordinateY": np.floor(yx[:, 0]),
        "rlnAutopickFigureOfMerit": score.round(5),
        "rlnImageName": [f"{index:06d}@{stack}" for index in range(1, len(yx) + 1)],
        "rlnMicrographName": str(micrograph.path),
        "rlnOpticsGroup": number,
    }
    optics: dict[str, Any] = {
        "rlnOpticsGroupName": [f"opticsGroup{number}"],
        "rlnOpticsGroup": [number],
        "rlnMicrographOriginalPixelSize": [record.micrograph_pixel_size_A],
    }
    if ctf is not None:
        particles |= {name: value for name, value in ctf.items() if name not in _OPTICS}
        optics |= {name: [ctf[name]] for name in _OPTICS}
    optics |= {
        "rlnImagePixelSize": [record.pixel_size_A],
        "rlnImageSize": [record.box_size_px],
        "rlnImageDimensionality": [2],
        "rlnCtfDataAreCtfPremultiplied": [int(parameters.ctf_correction == "multiply")],
        "rlnCtfDataArePhaseFlipped": [int(parameters.ctf_correction == "flip")],
    }
    return pd.DataFrame(particles), pd.DataFrame(optics)
