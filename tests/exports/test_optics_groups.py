"""Optics groups of the catalog in every table of the project, and what RELION makes of them."""

import pytest
import starfile

from tests.exports.conftest import Run
from tests.exports.factory import World
from vitriflow.catalog import OpticsGroup
from vitriflow.exports import write_relion_project

TABLES = {
    "Import/job001/movies.star": "movies",
    "MotionCorr/job002/corrected_micrographs.star": "micrographs",
    "CtfFind/job003/micrographs_ctf.star": "micrographs",
}


@pytest.fixture
def grouped(world: World) -> World:
    """Three exposures in groups 1 and 4: the ones between have no results yet."""

    def work(db: object) -> None:
        for number, name in ((1, "opticsGroup1"), (4, "hole_4")):
            row = OpticsGroup(
                session_id=world.session_id,
                number=number,
                name=name,
                basis="beam_shift",
                details={"points": []},
            )
            db.add(row)  # type: ignore[attr-defined]

    world.catalog.write(work)
    world.add("a.mrc", [(60, 100)], group=1)
    world.add("b.mrc", [(90, 90), (50, 60)], group=4)
    world.add("c.mrc", [(70, 80)], group=1)
    write_relion_project(world.catalog, world.processing)
    return world


def test_every_table_has_the_number_and_the_name_of_each_group(grouped: World) -> None:
    for path, block in TABLES.items():
        star = starfile.read(grouped.root / path, always_dict=True)
        assert list(star["optics"].rlnOpticsGroup) == [1, 4], path
        assert list(star["optics"].rlnOpticsGroupName) == ["opticsGroup1", "hole_4"], path
        assert list(star[block].rlnOpticsGroup) == [1, 4, 1], path


@pytest.mark.service
def test_relion_carries_the_groups_into_its_particles(grouped: World, run_relion: Run) -> None:
    done = run_relion(
        grouped.root,
        "relion_preprocess",
        *("--i", "CtfFind/job003/micrographs_ctf.star", "--coord_dir", "AutoPick/job004/"),
        *("--coord_suffix", "_autopick.star", "--part_star", "Extract/job005/particles.star"),
        *("--part_dir", "Extract/job005/", "--extract", "--extract_size", 32),
    )
    assert done.returncode == 0, done.stderr[-2000:]
    star = starfile.read(grouped.root / "Extract/job005/particles.star", always_dict=True)
    names = dict(zip(star["optics"].rlnOpticsGroup, star["optics"].rlnOpticsGroupName, strict=True))
    particles = star["particles"]
    found = {
        micrograph.rpartition("/")[2]: names[group]
        for micrograph, group in zip(particles.rlnMicrographName, particles.rlnOpticsGroup, strict=True)
    }
    assert found == {"a.mrc": "opticsGroup1", "b.mrc": "hole_4", "c.mrc": "opticsGroup1"}
