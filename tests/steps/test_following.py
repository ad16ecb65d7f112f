"""Particles back to where they came from."""

from pathlib import Path

import pandas as pd
import pytest

from vitriflow.errors import BadFile
from vitriflow.formats import read_star, write_particles
from vitriflow.steps import Artifact, BatchItem, Context, Kind, StepParameters
from vitriflow.steps.following import (
    ExtractCoordinates,
    ExtractCoordinatesParameters,
    UsedItems,
    UsedItemsParameters,
)


def particles(path: Path, micrographs: dict[str, int], **columns: object) -> Artifact:
    rows = [
        {"rlnImageName": f"{i + 1:06d}@{path.stem}.mrcs", "rlnMicrographName": name, "rlnOpticsGroup": 1,
         "rlnCoordinateX": 10.0 * i, "rlnCoordinateY": 5.0, "rlnClassNumber": 1}
        for name, count in micrographs.items()
        for i in range(count)
    ]  # fmt: skip
    table = pd.DataFrame(rows).drop(columns=[name for name, keep in columns.items() if not keep])
    optics = pd.DataFrame({"rlnOpticsGroup": [1], "rlnImagePixelSize": [1.5]})
    write_particles(path, table, optics)
    return Artifact(kind=Kind.PARTICLES, path=path)


def run(step: object, parameters: StepParameters, tmp_path: Path, items: list[BatchItem], **inputs: Artifact):
    context = Context(tmp_path / "out", "batch_0001")
    return step.run_batch(items, inputs, None, parameters, context)  # type: ignore[attr-defined]


def test_selected_particles_become_a_coordinate_file_for_each_micrograph(tmp_path: Path) -> None:
    chosen = particles(tmp_path / "selected.star", {"a/m1.mrc": 3, "b/m1.mrc": 2, "m2.mrc": 1})
    made = run(ExtractCoordinates(), ExtractCoordinatesParameters(fewest=2), tmp_path, [], particles=chosen)
    assert (made.n_micrographs, made.n_particles) == (2, 5)
    listed = read_star(made.outputs["coordinates"].path)["coordinate_files"]
    assert list(listed["rlnMicrographName"]) == ["a/m1.mrc", "b/m1.mrc"]
    paths = list(listed["rlnMicrographCoordinates"])
    assert len(set(paths)) == 2, "micrographs of one name in two squares share no file"
    (table,) = read_star(Path(paths[0])).values()
    assert list(table["rlnCoordinateX"]) == [0.0, 10.0, 20.0]


def test_exposures_of_which_nothing_was_kept_are_named(tmp_path: Path) -> None:
    kept = particles(tmp_path / "kept.star", {"m1.mrc": 2})
    items = [
        BatchItem(name, i, {"particles": particles(tmp_path / f"{name}.star", {f"{name}.mrc": 4})})
        for i, name in enumerate(("m1", "m2"))
    ]
    (tmp_path / "m3.star").write_text("nonsense")
    items.append(BatchItem("m3", 3, {"particles": Artifact(kind=Kind.PARTICLES, path=tmp_path / "m3.star")}))
    made = run(UsedItems(), UsedItemsParameters(), tmp_path, items, kept=kept)
    assert (made.used, made.unused) == ({"m1": 2}, ["m2"])
    assert len(made.skipped) == 1


def test_particles_that_do_not_say_where_they_are_from_are_refused(tmp_path: Path) -> None:
    nowhere = particles(tmp_path / "nowhere.star", {"m1.mrc": 2}, rlnMicrographName=False)
    with pytest.raises(BadFile, match="rlnMicrographName"):
        run(ExtractCoordinates(), ExtractCoordinatesParameters(), tmp_path, [], particles=nowhere)
