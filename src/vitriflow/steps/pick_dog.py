"""Picks particles by their size: difference or Laplacian of Gaussians, and a template learnt on the spot."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from vitriflow.errors import BadFile, BrokenInvariant, Reason
from vitriflow.steps.base import Context, Port, Resources, Step, StepParameters
from vitriflow.steps.records import Artifact, Kind, PickResult
from vitriflow.steps.threads import torch_threads

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from vitriflow.kernels.pick import Picks


_PIXEL_AGREES = 0.02  # how far a set pixel size may be from the file's before it's told (relative)


class PickParameters(StepParameters):
    """What to look for."""

    pixel_size_A: float | None = Field(
        default=None,
        gt=0.05,
        lt=50,
        description="of the micrograph (A); None takes it from the file's header",
    )
    particle_diameter_A: float = Field(gt=20, le=5000, description="longest extent of the particle (A)")
    min_diameter_A: float | None = Field(
        default=None, gt=5, le=5000, description="smallest blob looked for (A); None: 0.6 of the diameter"
    )
    max_diameter_A: float | None = Field(
        default=None, gt=5, le=5000, description="largest blob looked for (A); None: 0.85 of the diameter"
    )
    method: Literal["dog", "log"] = Field(
        default="dog", description="difference of Gaussians or Laplacian of Gaussian"
    )
    learn: bool = Field(
        default=True, description="also try a radial template learnt from the micrograph's best peaks"
    )
    contrast: Literal["dark", "bright"] = Field(
        default="dark", description="of protein: dark in cryo-EM, bright in negative stain"
    )
    threshold: float | None = Field(
        default=None,
        description="least score (standard deviations of the score map); None chooses it by the scores",
    )
    max_picks: int | None = Field(default=None, ge=1, description="keep only the best so many; None: all")
    min_distance_A: float | None = Field(
        default=None, gt=0, le=5000, description="between two picks (A); None: 0.6 of the diameter"
    )

    @model_validator(mode="after")
    def _range(self) -> "PickParameters":
        low = self.min_diameter_A or 0.6 * self.particle_diameter_A
        if self.max_diameter_A is not None and self.max_diameter_A < low:
            raise ValueError(f"max_diameter_A ({self.max_diameter_A:g} A) is below the smallest ({low:g} A)")
        return self


class PickDog(Step[PickParameters, PickResult]):
    """Writes a RELION coordinate STAR of the picks, and one of all candidates with their scores.

    RELION counts pixels from the first one's centre, as we do, and y along rows as stored. It cuts
    off what stands behind the point when it extracts, so coordinates are written as whole pixels:
    else its boxes would lie half a pixel too low on average.
    """

    name = "pick.dog"
    version = "1"
    summary = "Particle positions from the particle's diameter alone (DoG or LoG, learnt template)"
    folder = "AutoPick"
    inputs = {  # noqa: RUF012  (declared as ClassVar by Step)
        "micrograph": Port(Kind.MICROGRAPH, "an aligned micrograph"),
        "ctf": Port(Kind.CTF, "not read: wire it to pick only where the CTF fit went well", optional=True),
    }
    outputs = {  # noqa: RUF012
        "coordinates": Port(Kind.COORDINATES, "RELION STAR of the picks that count"),
        "candidates": Port(Kind.COORDINATES, "RELION STAR of all candidates, to move the threshold later"),
    }
    Parameters = PickParameters
    Record = PickResult

    def resources(self, parameters: PickParameters) -> Resources:
        """One FFT of the micrograph, the rest on a small image; a GPU is used when there is one."""
        return Resources(threads=1, gpus=1, memory_bytes=2 * 1024**3, time_limit_s=300.0)

    def run(self, inputs: Mapping[str, Artifact], parameters: PickParameters, context: Context) -> PickResult:
        """Pick one micrograph."""
        from vitriflow.kernels.pick import pick

        given = inputs["micrograph"]
        micrograph, pixel_size_A, warnings = self._read(given, parameters, context)
        with torch_threads(self.resources(parameters).threads):
            picks = pick(
                micrograph,
                pixel_size_A,
                parameters.particle_diameter_A,
                min_diameter_A=parameters.min_diameter_A,
                max_diameter_A=parameters.max_diameter_A,
                method=parameters.method,
                contrast=parameters.contrast,
                learn=parameters.learn,
                threshold=parameters.threshold,
                min_distance_A=parameters.min_distance_A,
                max_picks=parameters.max_picks,
                device=context.device,
            )
        _check(picks, (micrograph.shape[0], micrograph.shape[1]), str(given.path))
        context.say(
            f"scores by {picks.method}, threshold {picks.threshold:.3f}, {picks.n_picks} of "
            f"{len(picks.score)} candidates, {100 * picks.masked_fraction:.1f} % masked"
        )
        counts = picks.score >= picks.threshold
        outputs = {
            "coordinates": _write(picks.coordinates[counts], picks.score[counts], "_autopick.star", context),
            "candidates": _write(picks.coordinates, picks.score, "_candidates.star", context),
        }
        if picks.n_picks == 0:
            warnings.append("no particles: nothing on this micrograph stands out from its noise")
        if picks.masked_fraction > 0.5:
            warnings.append(
                f"{100 * picks.masked_fraction:.0f} % of the micrograph is padding, carbon, ice or dirt"
            )
        return PickResult(
            outputs=outputs,
            warnings=warnings,
            n_picks=picks.n_picks,
            particle_diameter_A=parameters.particle_diameter_A,
            threshold=picks.threshold,
            n_candidates=len(picks.score),
            masked_fraction=picks.masked_fraction,
        )

    @staticmethod
    def _read(given: Artifact, parameters: PickParameters, context: Context) -> tuple[Any, float, list[str]]:
        """The image, its pixel size (the artifact's own, else the parameter, else the header's), and doubts."""
        warnings: list[str] = []
        pixel_size_A = given.pixel_size_A or parameters.pixel_size_A
        micrograph = context.recall(given.path)
        if micrograph is None or pixel_size_A is None:
            from vitriflow.formats import read_image

            image = read_image(given.path)
            micrograph = image.array
            header = image.pixel_size_A
            # A header of exactly 1 A is what programs write that don't know
            if pixel_size_A and header and header != 1.0 and abs(header / pixel_size_A - 1.0) > _PIXEL_AGREES:
                warnings.append(
                    f"pixel_size_A is {pixel_size_A:g}, but {given.path.name} says {header:g}; "
                    f"{pixel_size_A:g} was used"
                )
            pixel_size_A = pixel_size_A or header
        if pixel_size_A is None:
            raise BadFile(
                Reason.METADATA_MISSING,
                str(given.path),
                "a pixel size in the header",
                "none",
                "Set pixel_size_A (A) in the session or with --set pixel_size_A=VALUE.",
            )
        return micrograph, pixel_size_A, warnings


def _check(picks: "Picks", shape: tuple[int, int], thing: str) -> None:
    """Picks are finite and inside the image, or they aren't passed on."""
    import numpy as np

    at = picks.coordinates
    if not (np.isfinite(at).all() and np.isfinite(picks.score).all() and np.isfinite(picks.threshold)):
        raise BrokenInvariant(
            Reason.NOT_FINITE, f"picks of {thing}", "finite numbers", "NaN or infinite ones", "Report this."
        )
    outside = int(((at < 0) | (at > np.array(shape) - 1)).any(axis=1).sum())
    if outside:
        raise BrokenInvariant(
            Reason.PICKS_OUTSIDE,
            f"picks of {thing}",
            f"all within {shape[0]} x {shape[1]} px",
            f"{outside} outside",
            "Report this.",
        )


def _write(
    coordinates: "NDArray[np.float64]", score: "NDArray[np.float64]", suffix: str, context: Context
) -> Artifact:
    import numpy as np
    import pandas as pd

    from vitriflow.formats import write_star

    table = pd.DataFrame(
        {
            "rlnCoordinateX": np.rint(coordinates[:, 1]),
            "rlnCoordinateY": np.rint(coordinates[:, 0]),
            "rlnAutopickFigureOfMerit": score.round(5),
        }
    )
    with context.writing(suffix) as temporary:
        write_star(temporary, {"": table})
    return Artifact(kind=Kind.COORDINATES, path=context.path(suffix))
