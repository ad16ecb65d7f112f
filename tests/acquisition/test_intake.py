"""What the watcher takes in, when, and what it says about what it can't take in."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from blake3 import blake3
from sqlalchemy import select

from tests.acquisition.conftest import Clock
from vitriflow.acquisition import Intake, movies
from vitriflow.catalog import Catalog, Event, Exposure, ExposureState, Session
from vitriflow.formats import Completeness, MrcWriter, TiffWriter

QUIET, PATIENCE = 2.0, 60.0


@pytest.fixture
def make_intake(catalog: Catalog, session_id: int, source: Path, clock: Clock) -> Callable[..., Intake]:
    def make(kind: str = "movie") -> Intake:
        return Intake(catalog, session_id, source, kind=kind, quiet_s=QUIET, patience_s=PATIENCE, clock=clock)

    return make


@pytest.fixture
def intake(make_intake: Callable[..., Intake]) -> Intake:
    return make_intake()


def write_movie(path: Path, frames: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with MrcWriter(path, frames.shape[1:], frames.dtype, pixel_size_A=1.0, n_frames=len(frames)) as writer:
        for frame in frames:
            writer.write(frame)


def exposures(catalog: Catalog) -> dict[str, Exposure]:
    return {row.key: row for row in catalog.read(lambda orm: list(orm.scalars(select(Exposure))))}


def events(catalog: Catalog) -> list[str]:
    return catalog.read(lambda orm: list(orm.scalars(select(Event.text).order_by(Event.id))))


def look_until_quiet(intake: Intake, clock: Clock) -> None:
    intake.look()
    clock.wait(QUIET + 0.1)
    intake.look()


def test_a_whole_movie_is_taken_in_after_a_short_quiet_time(
    intake: Intake, catalog: Catalog, source: Path, clock: Clock, frames: np.ndarray
) -> None:
    path = source / "GridSquare_1" / "Data" / "FoilHole_7_Data_1_2_Fractions.mrc"
    write_movie(path, frames)
    intake.look()
    assert exposures(catalog).popitem()[1].state == ExposureState.SEEN
    clock.wait(QUIET + 0.1)
    intake.look()
    (row,) = exposures(catalog).values()
    assert row.state == ExposureState.COMPLETE
    assert row.item == "GridSquare_1/Data/FoilHole_7_Data_1_2_Fractions"
    assert row.blake3 == blake3(path.read_bytes()).hexdigest()
    assert row.details["n_frames"] == 4
    assert row.complete_at is not None
    assert row.complete_at >= row.first_seen_at


def test_a_look_that_takes_long_is_no_quiet_time(
    intake: Intake,
    catalog: Catalog,
    source: Path,
    clock: Clock,
    frames: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nobody looks at a file again within one look, however long a slow share makes it."""
    real = movies.check_complete

    def slow(path: Path) -> Completeness:
        clock.wait(10 * QUIET)
        return real(path)

    monkeypatch.setattr(movies, "check_complete", slow)
    for name in ("a.mrc", "b.mrc"):
        write_movie(source / name, frames)
    (source / "a.xml").write_text("<x/>")
    assert intake.look().completed == 0
    assert {row.state for row in exposures(catalog).values()} == {ExposureState.SEEN}
    assert intake.look().completed == 2
    assert all(row.first_seen_at < row.complete_at for row in exposures(catalog).values())


def test_a_growing_mrc_waits_for_as_long_as_it_grows(
    intake: Intake, catalog: Catalog, source: Path, clock: Clock, frames: np.ndarray
) -> None:
    with MrcWriter(
        source / "m.mrc", frames.shape[1:], frames.dtype, pixel_size_A=1.0, n_frames=len(frames)
    ) as writer:
        for frame in frames[:-1]:
            writer.write(frame)
            intake.look()
            clock.wait(PATIENCE - 1)
            intake.look()
            assert exposures(catalog)["m.mrc"].state == ExposureState.SEEN
        writer.write(frames[-1])
    look_until_quiet(intake, clock)
    assert exposures(catalog)["m.mrc"].state == ExposureState.COMPLETE


def test_a_truncated_movie_is_set_aside_with_a_reason_and_comes_back_when_it_is_completed(
    intake: Intake, catalog: Catalog, source: Path, clock: Clock, frames: np.ndarray
) -> None:
    write_movie(source / "m.mrc", frames)
    whole = (source / "m.mrc").read_bytes()
    (source / "m.mrc").write_bytes(whole[: len(whole) * 2 // 3])
    intake.look()
    clock.wait(PATIENCE + 1)
    intake.look()
    row = exposures(catalog)["m.mrc"]
    assert (row.state, row.problem_code) == (ExposureState.PROBLEM, "file.truncated")
    assert "of the 4 frames" in str(row.problem)
    (source / "m.mrc").write_bytes(whole)
    look_until_quiet(intake, clock)
    row = exposures(catalog)["m.mrc"]
    assert (row.state, row.problem_code, row.problem) == (ExposureState.COMPLETE, None, None)


def test_a_tiff_with_fewer_frames_than_its_siblings_waits_for_the_rest(
    intake: Intake, catalog: Catalog, source: Path, clock: Clock, frames: np.ndarray
) -> None:
    def write(name: str, count: int) -> None:
        with TiffWriter(source / name) as writer:
            for frame in frames[:count]:
                writer.write(frame)

    write("a.tif", 4)
    look_until_quiet(intake, clock)
    write("b.tif", 2)
    look_until_quiet(intake, clock)
    assert exposures(catalog)["a.tif"].state == ExposureState.COMPLETE
    assert exposures(catalog)["b.tif"].state == ExposureState.SEEN
    write("b.tif", 4)
    look_until_quiet(intake, clock)
    clock.wait(2 * QUIET)
    intake.look()
    assert exposures(catalog)["b.tif"].state == ExposureState.COMPLETE
    assert exposures(catalog)["b.tif"].details["n_frames"] == 4


@pytest.mark.parametrize(
    ("content", "code"),
    [(b"", "file.empty"), (b"not a movie at all, but long enough to look at" * 40, "file.")],
)
def test_a_file_that_is_no_movie_is_set_aside(
    intake: Intake, catalog: Catalog, source: Path, clock: Clock, content: bytes, code: str
) -> None:
    (source / "m.mrc").write_bytes(content)
    intake.look()
    clock.wait(PATIENCE + 1)
    intake.look()
    row = exposures(catalog)["m.mrc"]
    assert row.state == ExposureState.PROBLEM
    assert str(row.problem_code).startswith(code)
    assert "m.mrc" in str(row.problem)


def test_the_second_of_two_files_with_one_name_is_set_aside_not_mixed_up(
    intake: Intake, catalog: Catalog, source: Path, clock: Clock, frames: np.ndarray
) -> None:
    write_movie(source / "m.mrc", frames)
    look_until_quiet(intake, clock)
    with TiffWriter(source / "m.tif") as writer:
        for frame in frames:
            writer.write(frame)
    look_until_quiet(intake, clock)
    rows = exposures(catalog)
    assert rows["m.mrc"].state == ExposureState.COMPLETE
    assert rows["m.tif"].problem_code == "file.duplicate_name"
    assert "m.mrc" in str(rows["m.tif"].problem)


def test_names_with_spaces_and_other_alphabets_are_taken_in(
    intake: Intake, catalog: Catalog, source: Path, clock: Clock, frames: np.ndarray
) -> None:
    names = ["ein Bild (1).mrc", "ψ αβγ.mrc", "日本語/電顕 1.mrc"]
    for name in names:
        write_movie(source / name, frames)
    look_until_quiet(intake, clock)
    rows = exposures(catalog)
    assert sorted(rows) == sorted(names)
    assert {row.state for row in rows.values()} == {ExposureState.COMPLETE}


def test_a_movie_whose_name_is_not_utf8_is_told_by_a_name_that_can_be_written(
    intake: Intake, catalog: Catalog, session_id: int, source: Path, clock: Clock, frames: np.ndarray
) -> None:
    write_movie(source / "good.mrc", frames)
    write_movie(source / "50% dose.mrc", frames)
    bad = bytes(source) + b"/bad\xff.mrc"
    write_movie(Path(bad.decode("utf-8", "surrogateescape")), frames)
    look_until_quiet(intake, clock)
    rows = exposures(catalog)
    assert sorted(rows) == ["50% dose.mrc", "bad%FF.mrc", "good.mrc"]
    assert rows["bad%FF.mrc"].problem_code == "file.name"
    assert "--copy" in str(rows["bad%FF.mrc"].problem)
    survey = catalog.read(lambda orm: orm.get_one(Session, session_id)).survey
    assert survey == {"movie": 3}


def test_a_source_that_vanishes_and_returns_loses_nothing_and_is_told_once(
    intake: Intake, catalog: Catalog, source: Path, clock: Clock, frames: np.ndarray
) -> None:
    write_movie(source / "a.mrc", frames)
    look_until_quiet(intake, clock)
    away = source.with_name("away")
    source.rename(away)
    for _ in range(5):
        assert intake.look().lost is not None
        clock.wait(PATIENCE)
    away.rename(source)
    write_movie(source / "b.mrc", frames)
    look_until_quiet(intake, clock)
    rows = exposures(catalog)
    assert {key: row.state for key, row in rows.items()} == {
        "a.mrc": ExposureState.COMPLETE,
        "b.mrc": ExposureState.COMPLETE,
    }
    texts = events(catalog)
    assert sum("can't be read" in text for text in texts) == 1
    assert sum("is back" in text for text in texts) == 1


def test_a_new_watcher_goes_on_where_the_old_one_was_killed(
    make_intake: Callable[..., Intake], catalog: Catalog, source: Path, clock: Clock, frames: np.ndarray
) -> None:
    write_movie(source / "a.mrc", frames)
    first = make_intake()
    look_until_quiet(first, clock)
    write_movie(source / "b.mrc", frames)
    first.look()
    second = make_intake()
    report = second.look()
    assert (report.completed, report.new) == (0, 1)
    look_until_quiet(second, clock)
    rows = exposures(catalog)
    assert {row.state for row in rows.values()} == {ExposureState.COMPLETE}
    assert len(rows) == 2


def test_a_movie_that_changes_after_it_was_taken_in_is_watched_anew_and_told(
    intake: Intake, catalog: Catalog, source: Path, clock: Clock, frames: np.ndarray
) -> None:
    write_movie(source / "a.mrc", frames)
    look_until_quiet(intake, clock)
    first = exposures(catalog)["a.mrc"]
    write_movie(source / "a.mrc", np.concatenate([frames, frames]))
    intake.look()
    assert exposures(catalog)["a.mrc"].state == ExposureState.SEEN
    look_until_quiet(intake, clock)
    clock.wait(10 * QUIET)
    intake.look()
    second = exposures(catalog)["a.mrc"]
    assert second.state == ExposureState.COMPLETE
    assert second.blake3 != first.blake3
    assert any("changed after it was taken in" in text for text in events(catalog))


def test_what_no_rule_claims_is_counted(
    intake: Intake, catalog: Catalog, session_id: int, source: Path
) -> None:
    for name in ("notes.docx", "x.jpg", "gain.mrc", "a.mdoc"):
        (source / name).write_bytes(b"x")
    intake.look()
    survey = catalog.read(lambda orm: orm.get_one(Session, session_id)).survey
    assert survey == {"gain": 1, "metadata": 1, "preview": 1, "unknown": 1}
    assert exposures(catalog) == {}


def test_ready_micrographs_are_taken_in_when_the_session_asks_for_them(
    make_intake: Callable[..., Intake], catalog: Catalog, source: Path, clock: Clock, frames: np.ndarray
) -> None:
    intake = make_intake("micrograph")
    write_movie(source / "sum.mrc", frames[:1].astype(np.float32))
    write_movie(source / "movie.mrc", frames)
    look_until_quiet(intake, clock)
    rows = exposures(catalog)
    assert rows["sum.mrc"].state == ExposureState.COMPLETE
    assert rows["movie.mrc"].problem_code == "file.not_a_movie"
    assert "takes ready micrographs" in str(rows["movie.mrc"].problem)


def test_the_sum_that_epu_leaves_beside_a_movie_is_no_exposure(
    intake: Intake, catalog: Catalog, source: Path, clock: Clock, frames: np.ndarray
) -> None:
    write_movie(source / "FoilHole_1_Data_2_Fractions.mrc", frames)
    write_movie(source / "FoilHole_1_Data_2.mrc", frames[:1].astype(np.float32))
    look_until_quiet(intake, clock)
    assert list(exposures(catalog)) == ["FoilHole_1_Data_2_Fractions.mrc"]
