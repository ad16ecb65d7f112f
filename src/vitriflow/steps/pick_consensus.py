"""Joins the picks of several pickers: each has one vote for a particle."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from vitriflow.errors import BadFile, Reason
from vitriflow.steps.base import Context, Port, Resources, Step, StepParameters
from vitriflow.steps.records import Artifact, Kind, PickConsensusResult

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from vitriflow.kernels.consensus import PickClusters


class PickConsensusParameters(StepParameters):
    """When picks count as one, and when one counts."""

    particle_diameter_A: float = Field(gt=20, le=5000, description="longest extent of the particle (A)")
    pixel_size_A: float | None = Field(
        default=None,
        gt=0.05,
        lt=50,
        description="of the micrograph that was picked (A), where the step before doesn't say it",
    )
    radius_A: float | None = Field(
        default=None,
        gt=1,
        le=5000,
        description="picks this close mean one particle (A); None: 0.3 of the diameter",
    )
    mode: Literal["votes", "score"] = Field(
        default="votes", description="votes: so many pickers have to agree; score: weighted ranks decide"
    )
    min_votes: int = Field(
        default=2, ge=1, le=4, description="pickers that have to agree; all that answered, where fewer did"
    )
    min_score: float = Field(
        default=0.4,
        ge=0,
        le=1,
        description="in mode score: least mean over the pickers of the rank they give, 0 (not picked) to 1 (its best)",
    )
    weights: tuple[float, ...] | None = Field(
        default=None, description="in mode score: weight of picks_1, picks_2, ...; None: all the same"
    )


class PickConsensus(Step[PickConsensusParameters, PickConsensusResult]):
    """A picker that failed has no vote; one that found nothing voted for nothing. Neither holds it up."""

    name = "pick.consensus"
    version = "1"
    summary = "Picks that several pickers share: k of n, or weighted by their scores"
    folder = "AutoPick"
    inputs = {  # noqa: RUF012  (declared as ClassVar by Step)
        "picks_1": Port(Kind.COORDINATES, "picks", optional=True),
        "picks_2": Port(Kind.COORDINATES, "picks of another picker", optional=True),
        "picks_3": Port(Kind.COORDINATES, "picks of a third", optional=True),
        "picks_4": Port(Kind.COORDINATES, "picks of a fourth", optional=True),
        "micrograph": Port(Kind.MICROGRAPH, "tells the pixel size; not read", optional=True),
    }
    outputs = {  # noqa: RUF012
        "coordinates": Port(Kind.COORDINATES, "RELION STAR of the picks that count"),
        "candidates": Port(Kind.COORDINATES, "RELION STAR of all picks of all pickers, joined"),
    }
    Parameters = PickConsensusParameters
    Record = PickConsensusResult

    def resources(self, parameters: PickConsensusParameters) -> Resources:
        """Some thousand points."""
        return Resources(threads=1, memory_bytes=256 * 1024**2, time_limit_s=60.0)

    def run(
        self, inputs: Mapping[str, Artifact], parameters: PickConsensusParameters, context: Context
    ) -> PickConsensusResult:
        """Join the picks of one micrograph."""
        import numpy as np

        from vitriflow.kernels.consensus import pick_clusters

        pixel_A = _pixel_size(inputs, parameters)
        picks, warnings = _read(inputs)
        weights = _weights(list(picks), parameters.weights)
        radius_px = (parameters.radius_A or 0.3 * parameters.particle_diameter_A) / pixel_A
        clusters = pick_clusters(list(picks.values()), radius_px, weights)
        needed = min(parameters.min_votes, len(picks))
        if parameters.mode == "votes":
            counts = clusters.votes >= needed
        else:
            counts = clusters.score >= parameters.min_score
            needed = 0
        if needed and needed < parameters.min_votes:
            warnings.append(f"{len(picks)} of the pickers answered: {needed} votes were enough here")
        n_picks = int(counts.sum())
        if not n_picks:
            warnings.append("no picks that enough pickers share")
        return PickConsensusResult(
            outputs=_write(clusters, counts, context),
            warnings=warnings,
            n_picks=n_picks,
            particle_diameter_A=parameters.particle_diameter_A,
            threshold=parameters.min_score if parameters.mode == "score" else 0.0,
            n_candidates=len(clusters.votes),
            n_pickers=len(picks),
            needed_votes=needed,
            picks_of={port: len(yx) for port, (yx, _) in picks.items()},
            votes=[int(count) for count in np.bincount(clusters.votes, minlength=len(picks) + 1)[1:]],
        )


def _pixel_size(inputs: Mapping[str, Artifact], parameters: PickConsensusParameters) -> float:
    known = [given.pixel_size_A for _, given in sorted(inputs.items()) if given.pixel_size_A]
    if parameters.pixel_size_A is None and not known and "micrograph" in inputs:
        from vitriflow.formats import open_image

        said = open_image(inputs["micrograph"].path).pixel_size_A
        known = [said] if said else []
    chosen = known[0] if known else parameters.pixel_size_A
    if chosen is None:
        raise BadFile(
            Reason.METADATA_MISSING,
            "pick.consensus",
            "the pixel size of the micrograph",
            "none",
            "Wire the micrograph to this node, or set pixel_size_A (A).",
        )
    return chosen


def _read(
    inputs: Mapping[str, Artifact],
) -> "tuple[dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]], list[str]]":
    """Picks of each picker that can be read, and what's wrong with the others."""
    from vitriflow.formats import read_coordinates

    picks, warnings = {}, []
    for port, given in sorted(inputs.items()):
        if given.kind is not Kind.COORDINATES:
            continue
        try:
            picks[port] = read_coordinates(given.path)
        except BadFile as error:
            warnings.append(f"{port} can't be used: {error}")
    if not picks:
        raise BadFile(
            Reason.NO_PICKS,
            "pick.consensus",
            "picks of at least one picker",
            "; ".join(warnings) or "none: all pickers failed",
            "See why the pickers failed.",
        )
    return picks, warnings


def _weights(ports: Sequence[str], given: tuple[float, ...] | None) -> list[float] | None:
    if given is None:
        return None
    wanted = [int(port.rpartition("_")[2]) - 1 for port in ports]
    if max(wanted) >= len(given) or min(given) < 0 or not sum(given[place] for place in wanted):
        raise BadFile(
            Reason.PARAMETER,
            "pick.consensus: parameter 'weights'",
            "a number from 0 for each picker, not all 0",
            ", ".join(f"{one:g}" for one in given),
            "Give one weight for picks_1, picks_2, ... each.",
        )
    return [given[place] for place in wanted]


def _write(clusters: "PickClusters", counts: "NDArray[np.bool_]", context: Context) -> dict[str, Artifact]:
    from vitriflow.formats import write_coordinates

    outputs = {}
    for port, suffix, chosen in (
        ("coordinates", "_autopick.star", counts),
        ("candidates", "_candidates.star", slice(None)),
    ):
        with context.writing(suffix) as temporary:
            write_coordinates(temporary, clusters.yx[chosen], clusters.score[chosen])
        outputs[port] = Artifact(kind=Kind.COORDINATES, path=context.path(suffix))
    return outputs
