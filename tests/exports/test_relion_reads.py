"""Debian's real RELION reads the project, extracts from it, and goes on from it with jobs of its own."""

from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pytest
import starfile
from numpy.typing import NDArray

from tests.exports.conftest import Run
from tests.exports.factory import World, write_coordinates
from vitriflow.exports import RelionProject, write_relion_project

pytestmark = pytest.mark.service
BOX = 32
CTF = "CtfFind/job003/micrographs_ctf.star"
EXTRACT_JOB = """
data_job

_rlnJobType 5
_rlnJobIsContinue 0

data_joboptions_values

loop_
_rlnJobOptionVariable #1
_rlnJobOptionValue #2
star_mics CtfFind/job003/micrographs_ctf.star
coords_suffix AutoPick/job004/coords_suffix_autopick.star
extract_size 32
bg_diameter 24
do_norm No
do_invert No
"""


def extract(world: World, run_relion: Run, micrographs: str, coordinates: str) -> dict[str, NDArray[Any]]:
    """Cut particles with RELION; stacks by micrograph name."""
    done = run_relion(
        world.root,
        "relion_preprocess",
        *("--i", micrographs, "--coord_dir", coordinates, "--coord_suffix", "_autopick.star"),
        *("--part_star", "Extract/job005/particles.star", "--part_dir", "Extract/job005/"),
        *("--extract", "--extract_size", BOX),
    )
    assert done.returncode == 0, done.stderr[-2000:]
    particles = starfile.read(world.root / "Extract/job005/particles.star", always_dict=True)["particles"]
    stacks: dict[str, list[NDArray[Any]]] = {}
    for image, micrograph in zip(particles.rlnImageName, particles.rlnMicrographName, strict=True):
        number, path = image.split("@")
        with mrcfile.open(world.root / path) as file:
            data = file.data.reshape(-1, BOX, BOX)
            stacks.setdefault(micrograph, []).append(data[int(number) - 1].copy())
    return {name: np.stack(stack) for name, stack in stacks.items()}


def test_a_pick_at_y_x_is_the_pixel_at_the_middle_of_relions_box(world: World, run_relion: Run) -> None:
    points = [(60, 100), (120, 180), (33, 47)]
    world.add("a.mrc", points)
    world.add("b.mrc", [(90, 90)])
    write_relion_project(world.catalog, world.processing)
    stacks = extract(world, run_relion, CTF, "AutoPick/job004/")
    assert {name: len(stack) for name, stack in stacks.items()} == {
        "MotionCorr/job002/a.mrc": 3,
        "MotionCorr/job002/b.mrc": 1,
    }
    with mrcfile.open(world.root / "MotionCorr/job002/a.mrc") as file:
        micrograph = file.data.copy()
    half = BOX // 2
    for particle, (y, x) in zip(stacks["MotionCorr/job002/a.mrc"], points, strict=True):
        np.testing.assert_array_equal(particle, micrograph[y - half : y + half, x - half : x + half])
        assert particle[half, half] == particle.max()


def test_relion_cuts_at_the_whole_part_of_a_coordinate(world: World, run_relion: Run) -> None:
    exposure = world.add("a.mrc", [(60, 100)])
    write_coordinates(
        world.root / "AutoPick/job004/a_autopick.star", [(60.0, 100.0), (60.4, 100.9), (59.9, 99.9)]
    )
    assert exposure
    write_relion_project(world.catalog, world.processing)
    stack = extract(world, run_relion, CTF, "AutoPick/job004/")["MotionCorr/job002/a.mrc"]
    bright = [tuple(int(v) for v in np.unravel_index(np.argmax(one), one.shape)) for one in stack]
    assert bright == [(16, 16), (16, 16), (17, 17)]


@pytest.mark.parametrize(
    "key",
    [
        "Grid Square 1/Data/Foil Hole_1.mrc",
        "größe/粒子.mrc",
        "a#b%c:d.mrc",
        'quote\'d "x".mrc',
        "$(touch x);.mrc",
    ],
)
def test_any_name_can_be_extracted(world: World, run_relion: Run, key: str) -> None:
    world.add(key, [(60, 100), (120, 180)])
    write_relion_project(world.catalog, world.processing)
    stacks = extract(world, run_relion, CTF, "AutoPick/job004/")
    (stack,) = stacks.values()
    assert [int(one[16, 16]) for one in stack] == [1000, 1001]
    assert not (world.root / "x").exists()


def test_ready_micrographs_can_be_extracted(tmp_path: Path, run_relion: Run) -> None:
    world = World(tmp_path, kind="micrograph")
    world.add("sub folder/a.mrc", [(60, 100), (120, 180)], nodes=("ctf", "pick"))
    write_relion_project(world.catalog, world.processing)
    (stack,) = extract(world, run_relion, CTF, "AutoPick/job004/").values()
    assert [int(one[16, 16]) for one in stack] == [1000, 1001]


def test_a_micrograph_without_picks_stops_nothing(world: World, run_relion: Run) -> None:
    world.add("empty.mrc", [])
    world.add("a.mrc")
    world.add("unpicked.mrc", states={"pick": "failed"})
    write_relion_project(world.catalog, world.processing)
    stacks = extract(world, run_relion, CTF, "AutoPick/job004/")
    assert list(stacks) == ["MotionCorr/job002/a.mrc"]


def test_particles_carry_the_ctf_and_the_optics_group_of_their_micrograph(
    world: World, run_relion: Run
) -> None:
    world.add("a.mrc", group=3)
    world.add("b.mrc", group=1)
    write_relion_project(world.catalog, world.processing)
    extract(world, run_relion, CTF, "AutoPick/job004/")
    tables = starfile.read(world.root / "Extract/job005/particles.star", always_dict=True)
    particles, optics = tables["particles"], tables["optics"]
    name_of = dict(zip(optics.rlnOpticsGroup, optics.rlnOpticsGroupName, strict=True))
    groups = {
        micrograph: name_of[group]
        for micrograph, group in zip(particles.rlnMicrographName, particles.rlnOpticsGroup, strict=True)
    }
    assert groups == {"MotionCorr/job002/a.mrc": "opticsGroup3", "MotionCorr/job002/b.mrc": "opticsGroup1"}
    first = particles.iloc[0]
    assert (first.rlnDefocusU, first.rlnDefocusV, first.rlnDefocusAngle) == (12000, 11500, 33)
    assert first.rlnPhaseShift == 45
    assert list(optics.rlnImagePixelSize) == [1.5, 1.5]


def test_relion_reads_every_table(world: World, run_relion: Run) -> None:
    world.add("Grid 1/a.mrc")
    world.add("b.mrc")
    write_relion_project(world.catalog, world.processing)
    tables = {
        "Import/job001/movies.star": ("data_movies", "rlnMicrographMovieName"),
        "MotionCorr/job002/corrected_micrographs.star": ("data_micrographs", "rlnMicrographMetadata"),
        CTF: ("data_micrographs", "rlnCtfMaxResolution"),
        "AutoPick/job004/autopick.star": ("data_coordinate_files", "rlnMicrographName"),
        "default_pipeline.star": ("data_pipeline_processes", "rlnPipeLineProcessName"),
    }
    for file, (block, label) in tables.items():
        done = run_relion(world.root, "relion_star_printtable", file, block, label)
        assert done.returncode == 0, done.stderr
        assert len(done.stdout.split()) == (4 if "pipeline" in file else 2), file


def test_relion_selects_by_fit_resolution(world: World, run_relion: Run) -> None:
    world.add("a.mrc")
    poor = world.add("poor.mrc", nodes=("motion",))
    world.finish(poor, "ctf", fit_resolution_A=None)
    write_relion_project(world.catalog, world.processing)
    done = run_relion(
        world.root,
        "relion_star_handler",
        *("--i", CTF, "--o", "good.star", "--select", "rlnCtfMaxResolution", "--maxval", 6),
    )
    assert done.returncode == 0, done.stderr
    table = starfile.read(world.root / "good.star", always_dict=True)["micrographs"]
    assert list(table.rlnMicrographName) == ["MotionCorr/job002/a.mrc"]


def test_relion_opens_the_project_and_runs_a_job_of_its_own_in_it(world: World, run_relion: Run) -> None:
    project = RelionProject(world.catalog, world.processing)
    world.add("a.mrc")
    project.update()
    (world.root / "extract.star").write_text(EXTRACT_JOB)
    added = run_relion(world.root, "relion_pipeliner", "--addJobFromStar", "extract.star")
    assert added.returncode == 0, added.stderr
    ran = run_relion(world.root, "relion_pipeliner", "--RunJobs", "Extract/job005/", "--sec_wait_after", 1)
    assert ran.returncode == 0, ran.stderr
    particles = starfile.read(world.root / "Extract/job005/particles.star", always_dict=True)["particles"]
    assert len(particles) == 2

    world.add("b.mrc")  # the session goes on, and RELION's job stays in the pipeline
    written = project.update()
    assert world.root / CTF in written
    assert world.root / "default_pipeline.star" not in written
    listed = run_relion(
        world.root,
        "relion_star_printtable",
        "default_pipeline.star",
        "data_pipeline_processes",
        "rlnPipeLineProcessName",
    )
    assert listed.stdout.split()[-1] == "Extract/job005/"


def test_relion_reads_the_job_files(world: World, run_relion: Run) -> None:
    world.add("a.mrc")
    write_relion_project(world.catalog, world.processing)
    done = run_relion(world.root, "relion_pipeliner", "--addJobFromStar", "MotionCorr/job002/job.star")
    assert done.returncode == 0, done.stderr
    assert (
        "input_star_mics Import/job001/movies.star" in (world.root / "MotionCorr/job005/job.star").read_text()
    )
