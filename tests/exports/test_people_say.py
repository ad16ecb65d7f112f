"""What people reject stands in no table of the project, until that is undone; limits choose what is exported."""

from typing import Any

import pytest
import starfile

from tests.exports.conftest import Run
from tests.exports.factory import World
from tests.exports.test_relion_project import CORRECTED, CTF, PICKS, names
from tests.exports.test_relion_reads import extract
from vitriflow.catalog import Limits, Mark, Measure, now
from vitriflow.errors import BadParameter
from vitriflow.exports import RelionProject, micrographs_star, write_star_text


def say(world: World, exposure: int, kind: str) -> None:
    mark = {"session_id": world.session_id, "exposure_id": exposure, "author": "rita", "at": now()}
    world.catalog.write(lambda db: db.add(Mark(kind=kind, text="", **mark)))


def undo(world: World) -> None:
    def work(db: Any) -> None:
        for mark in db.query(Mark):
            mark.undone_at, mark.undone_by = now(), "rita"

    world.catalog.write(work)


def measured(world: World, exposure: int, status: str = "done", **values: float) -> None:
    def work(db: Any) -> None:
        row = db.get(Measure, (world.processing, exposure))
        row.status = status
        for name, value in values.items():
            setattr(row, name, value)

    world.catalog.write(work)


def limit(world: World, **pairs: list[float | None]) -> None:
    row = {"processing_id": world.processing, "author": "olga", "at": now(), "values": pairs}
    world.catalog.write(lambda db: db.add(Limits(**row)))


def test_a_rejected_exposure_leaves_every_table_and_comes_back_when_that_is_undone(world: World) -> None:
    first, _ = world.add("a.mrc"), world.add("b.mrc")
    project = RelionProject(world.catalog, world.processing)
    project.update()
    everywhere = (CORRECTED, CTF)
    assert all(len(names(world, file)) == 2 for file in everywhere)
    say(world, first, "reject")  # no result changed: only a mark
    assert project.update()
    assert [names(world, file) for file in everywhere] == [["MotionCorr/job002/b.mrc"]] * 2
    assert names(world, PICKS, "coordinate_files") == ["MotionCorr/job002/b.mrc"]
    movies = names(world, "Import/job001/movies.star", "movies", "rlnMicrographMovieName")
    assert [one.rpartition("/")[2] for one in movies] == ["b.mrc"]
    assert project.update() == []
    say(world, first, "comment")  # says nothing about using it
    project.update()
    assert len(names(world, CTF)) == 1
    undo(world)
    assert project.update()
    assert len(names(world, CTF)) == 2


def test_a_project_made_anew_leaves_them_out_too(world: World) -> None:
    first, _ = world.add("a.mrc"), world.add("b.mrc")
    say(world, first, "reject")
    RelionProject(world.catalog, world.processing).update()
    assert names(world, CTF) == ["MotionCorr/job002/b.mrc"]


def test_what_passes_is_exported_with_what_is_kept_and_without_what_is_rejected(world: World) -> None:
    fine, coarse, kept, rejected, open_one, failed = (world.add(f"{name}.mrc") for name in "abcdef")
    for exposure, fit in ((fine, 3.0), (coarse, 9.0), (kept, 9.0), (rejected, 3.0)):
        measured(world, exposure, fit_resolution_A=fit)
    measured(world, open_one, "open", fit_resolution_A=3.0)
    measured(world, failed, "failed", fit_resolution_A=3.0)
    limit(world, fit_resolution_A=[None, 6.0])
    say(world, kept, "keep")
    say(world, rejected, "reject")
    passing = micrographs_star(world.catalog, world.processing, passing=True)
    assert (passing.count, passing.rejected, passing.outside, passing.source) == (2, 1, 1, CTF)
    path = write_star_text(passing.text, world.root / "micrographs_passing.star")
    table = starfile.read(path, always_dict=True)
    assert list(table["micrographs"].rlnMicrographName) == [f"MotionCorr/job002/{n}.mrc" for n in "ac"]
    assert table["optics"].rlnVoltage.tolist() == [200]
    everything = micrographs_star(world.catalog, world.processing, passing=False)
    assert (everything.count, everything.outside) == (3, 0)
    assert "/d.mrc" not in everything.text  # never what a person rejected


@pytest.mark.service
def test_relion_extracts_from_just_the_passing_ones(world: World, run_relion: Run) -> None:
    fine, coarse = world.add("a.mrc"), world.add("b.mrc")
    measured(world, fine, fit_resolution_A=3.0)
    measured(world, coarse, fit_resolution_A=9.0)
    limit(world, fit_resolution_A=[None, 6.0])
    RelionProject(world.catalog, world.processing).update()
    made = micrographs_star(world.catalog, world.processing, passing=True)
    path = write_star_text(made.text, world.root / "micrographs_passing.star")
    stacks = extract(world, run_relion, path.name, "AutoPick/job004/")
    assert {name: len(stack) for name, stack in stacks.items()} == {"MotionCorr/job002/a.mrc": 2}


def test_an_export_without_any_says_what_kept_them_out(world: World) -> None:
    exposure = world.add("a.mrc")
    measured(world, exposure, fit_resolution_A=9.0)
    limit(world, fit_resolution_A=[None, 6.0])
    with pytest.raises(BadParameter, match="1 outside the limits"):
        micrographs_star(world.catalog, world.processing, passing=True)
