"""What a session's exposures say of it together, written while they come in."""

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import select

from tests.acquisition.conftest import Clock
from vitriflow.acquisition import Intake
from vitriflow.acquisition.places import with_prior_doses
from vitriflow.catalog import Catalog, Exposure, ExposureState, OpticsGroup, Place, TiltSeries
from vitriflow.formats import MrcWriter

QUIET = 2.0
SQUARE = "Images-Disc1/GridSquare_5324661"


@pytest.fixture
def make_intake(catalog: Catalog, session_id: int, source: Path, clock: Clock) -> Callable[[], Intake]:
    return lambda: Intake(catalog, session_id, source, quiet_s=QUIET, patience_s=60.0, clock=clock)


def write_movie(path: Path, frames: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with MrcWriter(path, frames.shape[1:], frames.dtype, pixel_size_A=1.0, n_frames=len(frames)) as writer:
        for frame in frames:
            writer.write(frame)


def exposures(catalog: Catalog) -> dict[str, Exposure]:
    return {row.key: row for row in catalog.read(lambda orm: list(orm.scalars(select(Exposure))))}


def rows(catalog: Catalog, table: type) -> list:
    return catalog.read(lambda orm: list(orm.scalars(select(table).order_by(table.id))))


def look(intake: Intake, clock: Clock, times: int = 3) -> None:
    for _ in range(times):
        intake.look()
        clock.wait(QUIET + 0.1)


@pytest.fixture
def square(real_data: Path) -> list[Path]:
    """XML of the first 48 real exposures, in order of time: many places of the pattern twice."""
    folder = real_data / "epu-afis-session" / SQUARE / "Data"
    paths = [path for path in folder.glob("*.xml") if not path.stem.endswith("_Fractions")]
    return sorted(paths, key=lambda path: path.stem[-15:])[:48]


def add(source: Path, xml: Path, frames: np.ndarray) -> None:
    target = source / SQUARE / "Data" / xml.name
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(xml, target)
    many = np.resize(frames[:, :8, :8], (22, 8, 8))  # as many as the XML says
    write_movie(target.with_name(f"{xml.stem}_Fractions.mrc"), many)


def groups_by_place(catalog: Catalog) -> dict[str, int]:
    return {row.item: row.optics_group for row in exposures(catalog).values() if row.complete_at is not None}


def test_groups_stand_with_the_exposures_and_a_new_watcher_goes_on_with_them(
    make_intake: Callable[[], Intake],
    catalog: Catalog,
    source: Path,
    clock: Clock,
    frames: np.ndarray,
    square: list[Path],
) -> None:
    for xml in square[:30]:
        add(source, xml, frames)
    look(make_intake(), clock)
    first = groups_by_place(catalog)
    assert len(first) == 30
    for xml in square[30:]:
        add(source, xml, frames)
    look(make_intake(), clock)
    found = groups_by_place(catalog)
    assert {item: found[item] for item in first} == first
    groups = rows(catalog, OpticsGroup)
    numbers = [group.number for group in groups]
    assert sorted(numbers) == list(range(1, len(groups) + 1))
    assert {group.basis for group in groups} == {"beam_shift"}
    assert set(found.values()) == set(numbers)
    for number, members in Counter(found.values()).items():
        points = [
            row.details["beam_shift"] for row in exposures(catalog).values() if row.optics_group == number
        ]
        spread = np.ptp(np.array(points), axis=0).max()
        assert spread < 0.01, (number, members)
    centres = np.array([(group.centre_x, group.centre_y) for group in groups])
    apart = np.linalg.norm(centres[:, None] - centres[None], axis=2)[np.triu_indices(len(groups), 1)]
    assert apart.min() > 0.015


def test_an_exposure_that_is_written_anew_keeps_its_group(
    make_intake: Callable[[], Intake],
    catalog: Catalog,
    source: Path,
    clock: Clock,
    frames: np.ndarray,
    square: list[Path],
) -> None:
    intake = make_intake()
    for xml in square[:3]:
        add(source, xml, frames)
    look(intake, clock)
    before = groups_by_place(catalog)
    last = square[2]
    movie = source / SQUARE / "Data" / f"{last.stem}_Fractions.mrc"
    shutil.copyfile(square[0], source / SQUARE / "Data" / last.name)  # says another place now
    write_movie(movie, np.resize(frames[:, :8, :8], (44, 8, 8)))
    for _ in range(12):
        look(intake, clock, 1)
    key = f"{SQUARE}/Data/{movie.name}"
    row = exposures(catalog)[key]
    assert (row.state, row.details["n_frames"]) == (ExposureState.COMPLETE, 44)
    assert groups_by_place(catalog) == before


def test_grid_squares_and_foil_holes_have_their_stage_and_their_best_picture(
    make_intake: Callable[[], Intake],
    catalog: Catalog,
    source: Path,
    clock: Clock,
    frames: np.ndarray,
    square: list[Path],
) -> None:
    xml = square[0]
    add(source, xml, frames)
    hole = xml.name.split("_")[1]
    pictures = [
        "GridSquare_20200206_150000.jpg",
        "GridSquare_20200206_160000.jpg",
        "GridSquare_20200206_160000.mrc",
        f"FoilHoles/FoilHole_{hole}_20200206_170000.jpg",
    ]
    for name in pictures:
        path = source / SQUARE / name
        path.parent.mkdir(exist_ok=True)
        write_movie(path, frames[:1, :8, :8].astype(np.float32)) if name.endswith(
            "mrc"
        ) else path.write_bytes(b"j")
    shutil.copyfile(xml, source / SQUARE / "GridSquare_20200206_160000.xml")
    (source / "Atlas").mkdir()
    (source / "Atlas" / "Atlas_1.jpg").write_bytes(b"j")
    look(make_intake(), clock, 4)
    (row,) = exposures(catalog).values()
    assert (row.grid_square, row.foil_hole, row.tilt_series) == ("5324661", hole, None)
    places = {(row.kind, row.name): row for row in rows(catalog, Place)}
    assert set(places) == {("grid_square", "5324661"), ("foil_hole", hole), ("atlas", "atlas")}
    place = places["grid_square", "5324661"]
    assert place.image == f"{SQUARE}/GridSquare_20200206_160000.jpg"
    assert place.stage_x_um == pytest.approx(row.details["stage_x_um"])
    assert places["foil_hole", hole].parent == "5324661"
    assert places["foil_hole", hole].image == f"{SQUARE}/FoilHoles/FoilHole_{hole}_20200206_170000.jpg"
    assert places["atlas", "atlas"].image == "Atlas/Atlas_1.jpg"


def test_a_tilt_series_knows_its_axis_order_and_doses_and_its_stack_is_no_movie(
    make_intake: Callable[[], Intake],
    catalog: Catalog,
    source: Path,
    clock: Clock,
    frames: np.ndarray,
    real_data: Path,
) -> None:
    shutil.copyfile(real_data / "mdoc/mdocfile-tilt_series.mdoc", source / "TS_01.mrc.mdoc")
    names = ["TS_01_000_0.0", "TS_01_001_3.0", "TS_01_002_-3.0"]
    for name in names:
        write_movie(source / "frames" / f"{name}.mrc", frames[:, :8, :8])
    write_movie(source / "TS_01.mrc", np.concatenate([frames] * 10)[:, :8, :8])
    look(make_intake(), clock, 30)
    found = exposures(catalog)
    series = {row.item: (row.tilt_series, row.tilt_angle_deg) for row in found.values() if row.tilt_series}
    assert series == {
        f"frames/{name}": ("TS_01", pytest.approx(angle, abs=0.02))
        for name, angle in zip(names, (0.0, 3.0, -3.0), strict=True)
    }
    assert {row.optics_group for row in found.values()} == {1}
    assert found["TS_01.mrc"].problem_code == "file.not_a_movie"
    assert "stack of sums" in str(found["TS_01.mrc"].problem)
    (row,) = rows(catalog, TiltSeries)
    assert (row.name, row.details["tilt_axis_deg"], row.details["mdoc"]) == ("TS_01", 85.3, "TS_01.mrc.mdoc")
    tilts = row.details["tilts"]
    assert sorted(tilts, key=lambda item: tilts[item]["order"]) == [f"frames/{name}" for name in names]


def test_an_mdoc_that_comes_last_is_still_heard(
    make_intake: Callable[[], Intake],
    catalog: Catalog,
    source: Path,
    clock: Clock,
    frames: np.ndarray,
    real_data: Path,
) -> None:
    names = ["TS_01_000_0.0", "TS_01_001_3.0"]
    for name in names:
        write_movie(source / "frames" / f"{name}.mrc", frames[:, :8, :8])
    intake = make_intake()
    look(intake, clock)
    (row,) = rows(catalog, TiltSeries)
    assert "tilt_axis_deg" not in row.details
    shutil.copyfile(real_data / "mdoc/mdocfile-tilt_series.mdoc", source / "TS_01.mrc.mdoc")
    look(intake, clock, 30)
    (row,) = rows(catalog, TiltSeries)
    assert (row.details["tilt_axis_deg"], row.details["mdoc"]) == (85.3, "TS_01.mrc.mdoc")
    assert set(row.details["tilts"]) == {f"frames/{name}" for name in names}


def test_an_override_says_the_same_tilts_once(
    make_intake: Callable[[], Intake],
    catalog: Catalog,
    source: Path,
    clock: Clock,
    frames: np.ndarray,
    real_data: Path,
) -> None:
    for name in ("Position_12.mdoc", "Position_12_override.mdoc"):
        shutil.copyfile(real_data / "mdoc/tomo5-Position_12.mdoc", source / name)
    names = [
        "Position_12_001_-10.00_20231020_234209_EER.mrc",
        "Position_12_002_-12.00_20231020_234233_EER.mrc",
    ]
    for name in names:
        write_movie(source / name, frames[:, :8, :8])
    look(make_intake(), clock, 20)
    found = exposures(catalog)
    assert {row.tilt_series for row in found.values()} == {"Position_12"}
    assert {row.state for row in found.values()} == {ExposureState.COMPLETE}
    (row,) = rows(catalog, TiltSeries)
    assert len(row.details["tilts"]) == 2
    assert row.software == "tomo5"


def test_doses_before_a_tilt_are_what_the_file_says_or_else_added_up() -> None:
    tilts = {
        "c": {"order": 3, "dose_e_per_A2": 3.0},
        "a": {"order": 1, "dose_e_per_A2": 3.0, "prior_dose_said_e_per_A2": 0.0},
        "b": {"order": 2, "dose_e_per_A2": 3.0},
    }
    found = with_prior_doses(tilts)
    assert {name: tilt["prior_dose_e_per_A2"] for name, tilt in found.items()} == {
        "a": 0.0,
        "b": 3.0,
        "c": 6.0,
    }
    assert list(found) == ["a", "b", "c"]
    unknown = with_prior_doses({"a": {"order": 1}, "b": {"order": 2}})
    assert unknown["b"]["prior_dose_e_per_A2"] is None
