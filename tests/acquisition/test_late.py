"""Metadata that come after their movie, or lie elsewhere than it."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import select

from tests.acquisition.conftest import Clock
from tests.acquisition.test_places import SQUARE, exposures, look, square, write_movie  # noqa: F401
from vitriflow.acquisition import FileSeen, Intake
from vitriflow.acquisition.metadata import MetadataFinder
from vitriflow.catalog import Catalog, Event, Exposure, Measure, Processing, now

SERIES = "mdoc/mdocfile-tilt_series.mdoc"  # names D:\DATA\Flo\HGK149_20151130\frames\TS_01_001_3.0.mrc
FRAME_SET = (
    "mdoc/mdocfile-frame_set_single.mdoc"  # X:\Johannes_20211007\grid2_lamella3\frames\s_mmm_00993 ...
)
MOVIE = "s_mmm_00993_33.0_Oct08_07.39.05.tif"


@pytest.fixture
def make_intake(catalog: Catalog, session_id: int, source: Path, clock: Clock) -> Callable[..., Intake]:
    def make(**options: object) -> Intake:
        return Intake(catalog, session_id, source, quiet_s=2.0, patience_s=8.0, clock=clock, **options)  # type: ignore[arg-type]

    return make


def events(catalog: Catalog) -> list[str]:
    return catalog.read(lambda orm: list(orm.scalars(select(Event.text).order_by(Event.id))))


def take_in_late(
    intake: Intake, source: Path, clock: Clock, frames: np.ndarray, xml: Path, between: Callable[[], None]
) -> None:
    """A movie without its XML, then the XML."""
    folder = source / SQUARE / "Data"
    write_movie(folder / f"{xml.stem}_Fractions.mrc", np.resize(frames[:, :8, :8], (22, 8, 8)))
    look(intake, clock)
    between()
    shutil.copyfile(xml, folder / xml.name)
    look(intake, clock, 6)


def test_a_late_xml_fills_what_its_exposure_lacks(
    make_intake: Callable[..., Intake],
    catalog: Catalog,
    source: Path,
    clock: Clock,
    frames: np.ndarray,
    square: list[Path],  # noqa: F811
) -> None:
    def between() -> None:
        (row,) = exposures(catalog).values()
        assert "voltage_kV" not in row.details
        assert row.details["optics_basis"] != "beam_shift"

    take_in_late(make_intake(), source, clock, frames, square[0], between)
    (row,) = exposures(catalog).values()
    assert row.state == "complete"
    assert row.details["voltage_kV"] == 300
    assert row.details["metadata_file"] == f"{SQUARE}/Data/{square[0].name}"
    assert row.details["optics_basis"] == "beam_shift"
    assert (row.details["n_frames"], "metadata_late" in row.details) == (22, False)
    assert not [text for text in events(catalog) if "metadata" in text.lower()]


def test_one_that_comes_after_processing_began_is_told_and_keeps_the_group(
    make_intake: Callable[..., Intake],
    catalog: Catalog,
    session_id: int,
    source: Path,
    clock: Clock,
    frames: np.ndarray,
    square: list[Path],  # noqa: F811
) -> None:
    group = None

    def between() -> None:
        nonlocal group
        (row,) = exposures(catalog).values()
        group = row.optics_group
        begin(catalog, session_id, row)

    first = make_intake()
    take_in_late(first, source, clock, frames, square[0], between)
    (row,) = exposures(catalog).values()
    assert (row.optics_group, row.details["voltage_kV"], row.details["metadata_late"]) == (group, 300, True)
    assert sum("came after processing began" in text for text in events(catalog)) == 1
    (source / SQUARE / "Data" / square[0].name).touch()
    look(make_intake(), clock, 6)
    assert sum("came after processing began" in text for text in events(catalog)) == 1


def begin(catalog: Catalog, session_id: int, row: Exposure) -> None:
    """As a coordinator that takes an exposure in."""
    processing = Processing(
        session_id=session_id, name="live", template="", parameters={}, root="/r", created_at=now()
    )
    catalog.write(lambda orm: orm.add(processing))
    number = catalog.read(lambda orm: orm.scalars(select(Processing.id)).one())
    measure = Measure(processing_id=number, exposure_id=row.id, status="open")
    catalog.write(lambda orm: orm.add(measure))


def test_a_late_xml_that_contradicts_the_file_is_told_and_the_file_holds(
    make_intake: Callable[..., Intake],
    catalog: Catalog,
    source: Path,
    clock: Clock,
    frames: np.ndarray,
    square: list[Path],  # noqa: F811
) -> None:
    xml = square[0]
    folder = source / SQUARE / "Data"
    write_movie(folder / f"{xml.stem}_Fractions.mrc", frames[:3, :8, :8])
    intake = make_intake()
    look(intake, clock)
    shutil.copyfile(xml, folder / xml.name)
    look(intake, clock, 6)
    (row,) = exposures(catalog).values()
    assert row.details["n_frames"] == 3
    assert any("n_fractions 22" in text and "has 3" in text for text in events(catalog))


def test_a_watcher_that_was_away_when_it_came_fills_it_too(
    make_intake: Callable[..., Intake],
    catalog: Catalog,
    source: Path,
    clock: Clock,
    frames: np.ndarray,
    real_data: Path,
) -> None:
    write_movie(source / "frames" / "TS_01_001_3.0.mrc", frames[:, :8, :8])
    look(make_intake(), clock)
    shutil.copyfile(real_data / SERIES, source / "other name.mdoc")
    look(make_intake(), clock, 6)
    (row,) = exposures(catalog).values()
    assert row.details["metadata_file"] == "other name.mdoc"
    assert row.tilt_angle_deg == pytest.approx(3.00113)


# -- movies that an mdoc names by a drive of the microscope's PC ------------------------------


def found_in(
    source: Path, files: dict[str, Path | None], key: str, drives: dict[str, Path] | None = None
) -> str | None:
    """The metadata file of a movie among files below the source; those without content are movies."""
    seen = {}
    for name, original in files.items():
        path = source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" if original is None else original.read_bytes())
        seen[name] = FileSeen(name, str(path.parent), path.stat().st_size, path.stat().st_mtime_ns)
    return MetadataFinder(source=source, drives=drives).find(key, seen).path


def test_an_mdoc_finds_its_movie_in_another_folder_by_its_drive(source: Path, real_data: Path) -> None:
    """Two lamellae whose frames are called the same: names alone can't tell them apart."""
    ours, other = f"k3/Johannes_20211007/grid2_lamella3/frames/{MOVIE}", f"k3/other/frames/{MOVIE}"
    files = {"serialem/one.mdoc": real_data / FRAME_SET, ours: None, other: None}
    drives = {"X:": source / "k3"}
    assert found_in(source, files, ours, drives) == "serialem/one.mdoc"
    assert (
        found_in(source, files, other, drives) is None
    )  # the mdoc means a file that's there, and not this one


def test_of_two_mdocs_that_name_a_movie_so_that_with_the_longer_path_counts(
    source: Path, real_data: Path, tmp_path: Path
) -> None:
    changed = tmp_path / "changed.mdoc"
    changed.write_text((real_data / FRAME_SET).read_text().replace("grid2_lamella3", "grid9"))
    ours, other = f"grid2_lamella3/frames/{MOVIE}", f"grid9/frames/{MOVIE}"
    files = {"a.mdoc": real_data / FRAME_SET, "b.mdoc": changed, ours: None, other: None}
    assert found_in(source, files, ours) == "a.mdoc"
    assert found_in(source, files, other) == "b.mdoc"


def test_movies_that_an_mdoc_names_outside_the_session_are_told_once(
    make_intake: Callable[..., Intake], catalog: Catalog, source: Path, clock: Clock, real_data: Path
) -> None:
    shutil.copyfile(real_data / SERIES, source / "TS_01.mrc.mdoc")
    look(make_intake(drives={"D:": source}), clock, 6)
    assert not any("names movies in" in text for text in events(catalog))
    elsewhere = make_intake(drives={"D:": Path("/mnt/k2")})
    for name in ("TS_02.mrc.mdoc", "TS_03.mrc.mdoc"):
        shutil.copyfile(real_data / SERIES, source / name)
        look(elsewhere, clock, 6)
    told = [text for text in events(catalog) if "names movies in" in text]
    assert len(told) == 1
    assert "/mnt/k2/DATA/Flo/HGK149_20151130/frames" in told[0]
