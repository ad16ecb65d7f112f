"""Batch steps that follow particles back to where they came from: ``extract_coordinates``, ``used_items``."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from vitriflow.errors import BadFile, Reason
from vitriflow.steps.base import BatchItem, BatchStep, Context, Port, Resources, StepParameters
from vitriflow.steps.records import Artifact, BatchResult, Kind


class ExtractCoordinatesParameters(StepParameters):
    """Which micrographs count."""

    fewest: int = Field(default=1, ge=0, description="particles of a micrograph below which it's left out")


class ExtractCoordinatesResult(BatchResult):
    """Coordinates of the particles that were chosen, by micrograph."""

    n_micrographs: int = 0


class ExtractCoordinates(BatchStep[ExtractCoordinatesParameters, ExtractCoordinatesResult]):
    """Takes particles back to coordinates on their micrographs: wired to selected classes, to those alone."""

    name = "extract_coordinates"
    version = "1"
    summary = "Particles back to coordinates on their micrographs, following selected classes"
    folder = "External"
    inputs = {  # noqa: RUF012  (declared as ClassVar by Step)
        "particles": Port(Kind.PARTICLES, "STAR of a batch's particles, such as class2d.online's selected"),
    }
    outputs = {  # noqa: RUF012
        "coordinates": Port(Kind.COORDINATES, "RELION STAR that names a coordinate STAR for each micrograph"),
    }
    Parameters = ExtractCoordinatesParameters
    Record = ExtractCoordinatesResult

    def resources(self, parameters: ExtractCoordinatesParameters) -> Resources:
        """Tables only."""
        return Resources(memory_bytes=2 * 1024**3, time_limit_s=600.0)

    def run_batch(
        self,
        items: Sequence[BatchItem],
        inputs: Mapping[str, Artifact],
        state: Path | None,
        parameters: ExtractCoordinatesParameters,
        context: Context,
    ) -> ExtractCoordinatesResult:
        """Write a coordinate file for each micrograph, and one that lists them."""
        import pandas as pd

        from vitriflow.formats import write_star

        table = pd.concat([_table(given.path) for given in _files(items, inputs)], ignore_index=True)
        listed: list[tuple[str, str]] = []
        used = 0
        for place, (micrograph, rows) in enumerate(table.groupby("rlnMicrographName", sort=True), start=1):
            if len(rows) < parameters.fewest:
                continue
            kept = [
                name
                for name in (
                    "rlnCoordinateX",
                    "rlnCoordinateY",
                    "rlnAutopickFigureOfMerit",
                    "rlnClassNumber",
                )
                if name in rows
            ]
            # A number before the name: two squares may have micrographs of the same name.
            suffix = f"/{place:06d}_{Path(str(micrograph)).stem}.star"
            with context.writing(suffix) as temporary:
                write_star(temporary, {"": rows[kept].reset_index(drop=True)})
            listed.append((str(micrograph), str(context.path(suffix))))
            used += len(rows)
        with context.writing("_coordinates.star") as temporary:
            columns = {
                "rlnMicrographName": [name for name, _ in listed],
                "rlnMicrographCoordinates": [path for _, path in listed],
            }
            write_star(temporary, {"coordinate_files": pd.DataFrame(columns)})
        made = Artifact(kind=Kind.COORDINATES, path=context.path("_coordinates.star"))
        return ExtractCoordinatesResult(
            outputs={"coordinates": made}, n_items=len(items), n_particles=used, n_micrographs=len(listed)
        )


class UsedItemsParameters(StepParameters):
    """Nothing to set."""


class UsedItemsResult(BatchResult):
    """Which exposures of a batch count in the end."""

    used: dict[str, int] = Field(
        default_factory=dict, description="exposure -> particles of it that were kept"
    )
    unused: list[str] = Field(default_factory=list, description="exposures of which nothing was kept")


class UsedItems(BatchStep[UsedItemsParameters, UsedItemsResult]):
    """Says which exposures the kept particles come from, and of which nothing was kept."""

    name = "used_items"
    version = "1"
    summary = "Which exposures the particles that were kept come from, and which weren't used"
    folder = "External"
    inputs = {  # noqa: RUF012
        "particles": Port(Kind.PARTICLES, "what came to the trigger, of each exposure"),
        "kept": Port(Kind.PARTICLES, "STAR of those that were kept, such as class2d.online's selected"),
    }
    outputs: ClassVar[Mapping[str, Port]] = {}
    Parameters = UsedItemsParameters
    Record = UsedItemsResult

    def run_batch(
        self,
        items: Sequence[BatchItem],
        inputs: Mapping[str, Artifact],
        state: Path | None,
        parameters: UsedItemsParameters,
        context: Context,
    ) -> UsedItemsResult:
        """Count kept particles by the micrograph that they're on."""
        kept = _table(inputs["kept"].path)["rlnMicrographName"].value_counts() if "kept" in inputs else {}
        used: dict[str, int] = {}
        unused: list[str] = []
        skipped: list[str] = []
        for item in items:
            try:
                names = set(_table(item.inputs["particles"].path)["rlnMicrographName"])
            except (BadFile, OSError) as error:
                skipped.append(f"{item.item}: {error}")
                continue
            count = sum(int(kept.get(name, 0)) for name in names)
            if count:
                used[item.item] = count
            else:
                unused.append(item.item)
        context.say(f"{len(used)} of {len(items)} exposures were used, {len(unused)} weren't")
        return UsedItemsResult(
            n_items=len(items) - len(skipped),
            n_particles=sum(used.values()),
            used=used,
            unused=unused,
            skipped=skipped,
        )


def _files(items: Sequence[BatchItem], inputs: Mapping[str, Artifact]) -> list[Artifact]:
    """The one file of the batch, or those of its members."""
    if "particles" in inputs:
        return [inputs["particles"]]
    return [item.inputs["particles"] for item in items if "particles" in item.inputs]


def _table(path: Path) -> Any:
    """The particles of a STAR file.

    Raises
    ------
    BadFile
        When it can't be read, or doesn't say which micrographs they're on.
    """
    from vitriflow.formats import read_particles

    table = read_particles(path).table
    missing = [
        name for name in ("rlnMicrographName", "rlnCoordinateX", "rlnCoordinateY") if name not in table
    ]
    if missing:
        raise BadFile(
            Reason.METADATA_MISSING,
            str(path),
            "columns " + ", ".join(missing),
            "none of these",
            "Take particles that 'extract' wrote.",
        )
    return table
