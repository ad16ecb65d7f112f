"""What outside pickers share: parameters, the check of their picks, and the record of ``pick.dog``."""

from collections.abc import Mapping
from typing import ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from vitriflow.errors import BrokenInvariant, Reason
from vitriflow.steps.base import Port
from vitriflow.steps.ctf_native import read_input
from vitriflow.steps.programs.base import Job, ProgramParameters, ProgramStep
from vitriflow.steps.records import Artifact, Kind, PickResult


class OutsidePickParameters(ProgramParameters):
    """What ``pick.dog`` has too."""

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
    max_picks: int | None = Field(default=None, ge=1, description="keep only the best so many; None: all")


P = TypeVar("P", bound=OutsidePickParameters)


class OutsidePick(ProgramStep[P, PickResult]):
    """A picker of others, with the ports and the record of ``pick.dog``."""

    folder: ClassVar[str] = "AutoPick"
    links: ClassVar[Mapping[str, str]] = {"micrograph": "micrograph", "ctf": "ctf"}
    inputs: ClassVar[Mapping[str, Port]] = {
        "micrograph": Port(Kind.MICROGRAPH, "an aligned micrograph"),
        "ctf": Port(Kind.CTF, "its CTF, for programs that use it", optional=True),
    }
    outputs: ClassVar[Mapping[str, Port]] = {
        "coordinates": Port(Kind.COORDINATES, "RELION STAR of the picks"),
    }
    Record = PickResult


def micrograph_of(job: Job[P]) -> tuple[tuple[int, int], float, list[str]]:
    """Shape (height, width), pixel size (A), and doubts about it."""
    image, pixel_A, warnings = read_input(job.given["micrograph"], job.parameters.pixel_size_A, job.context)
    return (int(image.shape[0]), int(image.shape[1])), pixel_A, warnings


def hand_on(
    job: Job[P],
    yx: NDArray[np.float64],
    score: NDArray[np.float64],
    shape: tuple[int, int],
    *,
    threshold: float = 0.0,
    warnings: list[str] | None = None,
) -> PickResult:
    """Check picks ``(n, 2)`` y, x in pixels, write them best first, and say it as a record.

    Raises
    ------
    ProgramError
        When a number isn't finite.
    BrokenInvariant
        ``pick.outside``.
    """
    from vitriflow.formats import write_coordinates

    title = job.found.tool.title
    if not (np.isfinite(yx).all() and np.isfinite(score).all()):
        raise job.nonsense("picks", "finite coordinates and scores", "NaN or infinity")
    outside = int(((yx < -0.5) | (yx > np.array(shape) - 0.5)).any(axis=1).sum())
    if outside:
        raise BrokenInvariant(
            Reason.PICKS_OUTSIDE,
            f"picks of {title}",
            f"all within {shape[0]} x {shape[1]} px",
            f"{outside} of {len(yx)} outside",
            "Does it count in binned pixels? Check pixel size and scale.",
        )
    order = np.argsort(-score, kind="stable")
    if job.parameters.max_picks is not None:
        order = order[: job.parameters.max_picks]
    yx = np.clip(yx[order], 0, np.array(shape) - 1)
    with job.context.writing("_autopick.star") as temporary:
        write_coordinates(temporary, yx, score[order])
    path = job.context.path("_autopick.star")
    said = list(warnings or [])
    if not len(order):
        said.append(f"no particles: {title} found none on this micrograph")
    return PickResult(
        warnings=said,
        outputs={"coordinates": Artifact(kind=Kind.COORDINATES, path=path)},
        n_picks=len(order),
        n_candidates=len(score),
        particle_diameter_A=job.parameters.particle_diameter_A,
        threshold=threshold,
    )
