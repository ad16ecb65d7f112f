"""The project's tables say what the catalog says, grow with it, and keep what others wrote."""

from pathlib import Path

import pytest
import starfile

from tests.exports.factory import World
from vitriflow.errors import BadConfig, BadParameter
from vitriflow.exports import RelionProject, write_relion_project

CORRECTED = "MotionCorr/job002/corrected_micrographs.star"
CTF = "CtfFind/job003/micrographs_ctf.star"
PICKS = "AutoPick/job004/autopick.star"
SUFFIX = "AutoPick/job004/coords_suffix_autopick.star"
RELIONS_OWN = {".gui_projectdir", ".pipeline_has_changed"}


def names(
    world: World, file: str, block: str = "micrographs", column: str = "rlnMicrographName"
) -> list[str]:
    table = starfile.read(world.root / file, always_dict=True)[block]
    return list(table[column])


def pipeline(world: World) -> dict[str, list[list[str]]]:
    """Rows of each table of the pipeline file, as words."""
    tables: dict[str, list[list[str]]] = {}
    name = ""
    for line in (world.root / "default_pipeline.star").read_text().splitlines():
        words = line.split()
        if line.startswith("data_"):
            name = line.strip()
        elif words and not words[0].startswith(("#", "loop_")) and "#" not in line:
            tables.setdefault(name, []).append(words)
    return tables


def test_each_table_carries_each_quantity_under_its_own_name(world: World) -> None:
    world.add("a.mrc")
    write_relion_project(world.catalog, world.processing)
    ctf = starfile.read(world.root / CTF, always_dict=True)
    row = ctf["micrographs"].iloc[0]
    assert (row.rlnDefocusU, row.rlnDefocusV, row.rlnCtfAstigmatism) == (12000, 11500, 500)
    assert (row.rlnDefocusAngle, row.rlnPhaseShift) == (33, 45)
    assert (row.rlnCtfFigureOfMerit, row.rlnCtfMaxResolution) == (0.21, 4.2)
    assert row.rlnCtfImage == "CtfFind/job003/a.ctf:mrc"
    assert row.rlnMicrographName == "MotionCorr/job002/a.mrc"
    motion = starfile.read(world.root / CORRECTED, always_dict=True)["micrographs"].iloc[0]
    assert motion.rlnMicrographMetadata == "MotionCorr/job002/a.star"
    assert motion.rlnCtfPowerSpectrum == "MotionCorr/job002/a_PS.mrc"
    assert (motion.rlnAccumMotionTotal, motion.rlnAccumMotionEarly, motion.rlnAccumMotionLate) == (
        3.75,
        1.25,
        2.5,
    )
    optics = ctf["optics"].iloc[0]
    assert optics.rlnOpticsGroupName == "opticsGroup1"
    assert (optics.rlnVoltage, optics.rlnSphericalAberration, optics.rlnAmplitudeContrast) == (200, 1.4, 0.07)
    assert (optics.rlnMicrographOriginalPixelSize, optics.rlnMicrographPixelSize) == (1.5, 1.5)


def test_every_name_in_the_tables_is_a_file_of_the_project(world: World) -> None:
    world.add("Grid Square 1/Data/Foil_ü_1.mrc")
    world.add("plain/x.mrc")
    write_relion_project(world.catalog, world.processing)
    listed = [
        *names(world, "Import/job001/movies.star", "movies", "rlnMicrographMovieName"),
        *names(world, CORRECTED),
        *names(world, PICKS, "coordinate_files", "rlnMicrographCoordinates"),
    ]
    assert len(listed) == 6
    for name in listed:
        assert (world.root / name).is_file()
        assert name.isascii()
        assert " " not in name


def test_nothing_is_written_when_nothing_changed(world: World) -> None:
    world.add("a.mrc")
    project = RelionProject(world.catalog, world.processing)
    assert {path.name for path in project.update()} >= {"micrographs_ctf.star", "default_pipeline.star"}
    assert project.update() == []
    assert RelionProject(world.catalog, world.processing).update() == []


def test_a_new_result_rewrites_only_the_tables_it_belongs_to(world: World) -> None:
    project = RelionProject(world.catalog, world.processing)
    exposure = world.add("a.mrc", nodes=("motion",))
    world.add("b.mrc")
    project.update()
    world.finish(exposure, "pick")
    assert [str(path.relative_to(world.root)) for path in project.update()] == [PICKS]
    assert names(world, PICKS, "coordinate_files") == ["MotionCorr/job002/a.mrc", "MotionCorr/job002/b.mrc"]


def test_tables_are_replaced_whole_and_leave_no_temporary_files(world: World) -> None:
    project = RelionProject(world.catalog, world.processing)
    world.add("a.mrc")
    project.update()
    before = (world.root / CTF).stat().st_ino
    world.add("b.mrc")
    project.update()
    assert (world.root / CTF).stat().st_ino != before
    hidden = [path.name for path in world.root.rglob(".*") if path.name not in RELIONS_OWN]
    assert hidden == []


@pytest.mark.parametrize("state", ["quarantined", "rejected", "failed", "running", "stopped"])
def test_only_what_is_done_appears(world: World, state: str) -> None:
    world.add("good.mrc")
    world.add("bad.mrc", states={"ctf": state})
    write_relion_project(world.catalog, world.processing)
    assert names(world, CTF) == ["MotionCorr/job002/good.mrc"]
    assert len(names(world, CORRECTED)) == 2


def test_a_mark_that_is_moved_takes_an_exposure_out_and_back_in(world: World) -> None:
    project = RelionProject(world.catalog, world.processing)
    exposure = world.add("a.mrc")
    world.add("b.mrc")
    project.update()
    world.mark(exposure, "ctf", "rejected")
    project.update()
    assert names(world, CTF) == ["MotionCorr/job002/b.mrc"]
    world.mark(exposure, "ctf", "done")
    project.update()
    assert names(world, CTF) == ["MotionCorr/job002/a.mrc", "MotionCorr/job002/b.mrc"]


def test_the_newest_revision_that_ended_counts(world: World) -> None:
    exposure = world.add("a.mrc")
    world.finish(exposure, "ctf", revision=2, defocus_u_A=20000.0)
    write_relion_project(world.catalog, world.processing)
    table = starfile.read(world.root / CTF, always_dict=True)["micrographs"]
    assert list(table.rlnDefocusU) == [20000]


def test_an_older_revision_stands_while_a_newer_one_runs_and_goes_when_it_fails(world: World) -> None:
    project = RelionProject(world.catalog, world.processing)
    exposure = world.add("a.mrc")
    world.add("b.mrc")
    world.finish(exposure, "ctf", revision=2, state="running")
    project.update()
    assert len(names(world, CTF)) == 2
    world.finish(exposure, "ctf", revision=3, state="quarantined")
    project.update()
    assert names(world, CTF) == ["MotionCorr/job002/b.mrc"]


def test_optics_groups_keep_their_numbers_whatever_the_order_of_arrival(world: World) -> None:
    project = RelionProject(world.catalog, world.processing)
    world.add("a.mrc", group=7)
    project.update()
    world.add("b.mrc", group=2)
    world.add("c.mrc", group=7)
    project.update()
    tables = starfile.read(world.root / CTF, always_dict=True)
    assert list(tables["optics"].rlnOpticsGroup) == [2, 7]
    assert list(tables["optics"].rlnOpticsGroupName) == ["opticsGroup2", "opticsGroup7"]
    assert list(tables["micrographs"].rlnOpticsGroup) == [7, 2, 7]


def test_an_exposure_that_contradicts_its_optics_group_is_left_out_and_named(world: World) -> None:
    project = RelionProject(world.catalog, world.processing)
    world.add("a.mrc")
    world.add("odd.mrc", pixel_A=0.75)
    world.add("other.mrc", pixel_A=0.75, group=2)
    project.update()
    assert names(world, CTF) == ["MotionCorr/job002/a.mrc", "MotionCorr/job002/other.mrc"]
    assert len(project.problems) == 1
    assert project.problems[0].startswith("odd.mrc: it contradicts optics group 1: original_pixel_A 0.75")


def test_optics_learned_later_reach_tables_written_before(world: World) -> None:
    project = RelionProject(world.catalog, world.processing)
    exposure = world.add("a.mrc", nodes=("motion",))
    project.update()
    optics = starfile.read(world.root / CORRECTED, always_dict=True)["optics"].iloc[0]
    assert optics.rlnSphericalAberration == 2.7
    world.finish(exposure, "ctf")
    project.update()
    optics = starfile.read(world.root / CORRECTED, always_dict=True)["optics"].iloc[0]
    assert optics.rlnSphericalAberration == 1.4


def test_binning_shows_in_the_micrograph_pixel_size_alone(world: World) -> None:
    exposure = world.add("a.mrc", nodes=())
    result = world._record("motion", "a", world.source / "a.mrc", [(60, 100)], 3.0)
    assert result.provenance is not None
    provenance = result.provenance.model_copy(update={"parameters": {"bin_factor": 2.0}})
    world.finish(exposure, "motion", pixel_size_A=3.0, provenance=provenance)
    write_relion_project(world.catalog, world.processing)
    optics = starfile.read(world.root / CORRECTED, always_dict=True)["optics"].iloc[0]
    assert (optics.rlnMicrographOriginalPixelSize, optics.rlnMicrographPixelSize) == (1.5, 3.0)


def test_a_fit_without_resolution_is_worse_than_any_limit(world: World) -> None:
    exposure = world.add("a.mrc", nodes=("motion",))
    world.finish(exposure, "ctf", fit_resolution_A=None)
    write_relion_project(world.catalog, world.processing)
    assert starfile.read(world.root / CTF, always_dict=True)["micrographs"].rlnCtfMaxResolution[0] == 999


def test_same_names_in_different_folders_stay_apart(world: World) -> None:
    world.add("one/x.mrc")
    world.add("two/x.mrc")
    world.add("a b/x.mrc")
    world.add("a_b/x.mrc")
    write_relion_project(world.catalog, world.processing)
    assert len(set(names(world, CTF))) == 4
    assert len(set(names(world, PICKS, "coordinate_files", "rlnMicrographCoordinates"))) == 4


def test_ready_micrographs_need_no_motion_correction(tmp_path: Path) -> None:
    world = World(tmp_path, kind="micrograph")
    world.add("sub/a.mrc", nodes=("ctf", "pick"))
    write_relion_project(world.catalog, world.processing)
    assert names(world, CTF) == ["Import/job001/sub/a.mrc"]
    assert (world.root / "Import/job001/sub/a.mrc").samefile(world.source / "sub/a.mrc")
    optics = starfile.read(world.root / CTF, always_dict=True)["optics"].iloc[0]
    assert optics.rlnMicrographPixelSize == 1.5
    assert not (world.root / "MotionCorr/job002/corrected_micrographs.star").exists()
    assert pipeline(world)["data_pipeline_nodes"][0] == ["Import/job001/micrographs.star", "1"]


def test_micrographs_that_relion_cannot_read_are_named(tmp_path: Path) -> None:
    world = World(tmp_path, kind="micrograph")
    world.add("a.png", nodes=("ctf", "pick"))
    project = RelionProject(world.catalog, world.processing)
    project.update()
    assert project.problems == ["a.png: RELION reads MRC and TIFF, and this is .png"]


def test_the_pipeline_joins_the_jobs_and_leaves_their_numbers_free(world: World) -> None:
    world.add("a.mrc")
    write_relion_project(world.catalog, world.processing)
    found = pipeline(world)
    assert found["data_pipeline_general"] == [["_rlnPipeLineJobCounter", "5"]]
    assert [row[0] for row in found["data_pipeline_processes"]] == [
        "Import/job001/",
        "MotionCorr/job002/",
        "CtfFind/job003/",
        "AutoPick/job004/",
    ]
    assert [row[2:] for row in found["data_pipeline_processes"]] == [
        ["0", "2"],
        ["1", "2"],
        ["2", "2"],
        ["4", "2"],
    ]
    assert ["CtfFind/job003/micrographs_ctf.star", "AutoPick/job004/"] in found["data_pipeline_input_edges"]
    assert (world.root / SUFFIX).read_text() == f"{CTF}\n"
    for row in found["data_pipeline_processes"]:
        assert (world.root / row[0] / "RELION_JOB_EXIT_SUCCESS").exists()


def test_numbers_are_kept_free_for_nodes_without_results(world: World) -> None:
    world.add("a.mrc", states={"ctf": "waiting", "pick": "waiting"})
    write_relion_project(world.catalog, world.processing)
    assert pipeline(world)["data_pipeline_general"] == [["_rlnPipeLineJobCounter", "5"]]


def test_jobs_that_a_person_started_in_relion_stay(world: World) -> None:
    project = RelionProject(world.catalog, world.processing)
    world.add("a.mrc", nodes=("motion", "ctf"))
    project.update()
    path = world.root / "default_pipeline.star"
    text = path.read_text()
    text = text.replace("CtfFind/job003/ None", "CtfFind/job003/ CtfFind/mine/")
    text = text.replace(
        "CtfFind/job003/ CtfFind/mine/ 2 2\n",
        "CtfFind/job003/ CtfFind/mine/ 2 2\nSelect/job009/ None 7 2\n",
    )
    counter = pipeline(world)["data_pipeline_general"][0][1]
    text = text.replace(f" {counter}\n", " 10\n", 1)
    path.write_text(text)
    world.add("b.mrc")
    project.update()
    found = pipeline(world)
    assert ["Select/job009/", "None", "7", "2"] in found["data_pipeline_processes"]
    assert ["CtfFind/job003/", "CtfFind/mine/", "2", "2"] in found["data_pipeline_processes"]
    assert ["AutoPick/job004/", "None", "4", "2"] in found["data_pipeline_processes"]
    assert found["data_pipeline_general"] == [["_rlnPipeLineJobCounter", "10"]]


def test_the_pipeline_waits_while_relion_holds_its_lock(world: World) -> None:
    project = RelionProject(world.catalog, world.processing)
    world.add("a.mrc")
    lock = world.root / ".relion_lock"
    lock.mkdir()
    project.update()
    assert (world.root / CTF).exists()
    assert not (world.root / "default_pipeline.star").exists()
    lock.rmdir()
    assert [path.name for path in project.update()] == ["default_pipeline.star"]
    assert not lock.exists()
    assert project.update() == []


def test_notes_that_a_person_wrote_stay(world: World) -> None:
    project = RelionProject(world.catalog, world.processing)
    world.add("a.mrc")
    project.update()
    note = world.root / "CtfFind/job003/note.txt"
    note.write_text("looks fine")
    world.add("b.mrc")
    project.update()
    assert note.read_text() == "looks fine"


def test_movies_is_a_link_that_survives_a_move_of_the_session(world: World, tmp_path: Path) -> None:
    world.add("a.mrc")
    write_relion_project(world.catalog, world.processing)
    assert str((world.root / "Movies").readlink()) == "../../raw"
    moved = tmp_path / "moved"
    world.session_root.rename(moved)
    assert (moved / "processed" / "live" / "Movies" / "a.mrc").is_file()


def test_a_folder_in_the_place_of_a_link_is_never_replaced(world: World) -> None:
    world.add("a.mrc")
    (world.root / "Movies").mkdir()
    with pytest.raises(BadConfig, match="a link to"):
        write_relion_project(world.catalog, world.processing)
    assert (world.root / "Movies").is_dir()


def test_a_table_that_was_deleted_by_hand_comes_back(world: World) -> None:
    project = RelionProject(world.catalog, world.processing)
    world.add("a.mrc")
    project.update()
    (world.root / CORRECTED).unlink()
    world.add("b.mrc", nodes=())
    assert [path.name for path in project.update()] == ["corrected_micrographs.star"]


def test_an_unknown_processing_is_a_clear_error(world: World) -> None:
    with pytest.raises(BadParameter, match="processing 99"):
        RelionProject(world.catalog, 99)


def test_a_processing_without_results_has_an_empty_project(world: World) -> None:
    project = RelionProject(world.catalog, world.processing)
    assert all(path.parent == world.root for path in project.update())
    assert (world.root / "Movies").is_dir()


def test_tables_are_not_world_readable(world: World) -> None:
    world.add("a.mrc")
    for path in write_relion_project(world.catalog, world.processing):
        assert path.stat().st_mode & 0o007 == 0
