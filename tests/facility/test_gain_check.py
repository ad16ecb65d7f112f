"""The gain reference is checked on a session's first movies, and people are told once."""

import json
import os
import shutil
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import typer
from sqlalchemy import select
from typer.testing import CliRunner

from tests.databases import new_sqlite
from tests.kernels.gain_movies import camera_gain, spec
from tests.web.conftest import running
from vitriflow.catalog import Catalog, Event, Exposure, ExposureState, Session, now
from vitriflow.cli.gain import gain as gain_command
from vitriflow.elogbook import open_session
from vitriflow.errors import BadFile, BadImage, BadParameter, Reason
from vitriflow.facility.gain_check import FIRST_MOVIES, GainWatch, check_gain
from vitriflow.formats import EerWriter, MrcWriter, Orientation, write_mrc, write_tiff_movie
from vitriflow.kernels.gain_diagnosis import Verdict
from vitriflow.pipeline import load_template, start_processing
from vitriflow.simulate import simulate_movie
from vitriflow.simulate.writing import scatter_in_time
from vitriflow.web import create_app


def write_raw(path: Path, number: int, **changes: Any) -> Path:
    """A raw movie in the format that its name says, through formats' own writers."""
    movie = simulate_movie(spec(number, **changes))
    if path.suffix == ".mrc":
        with MrcWriter(path, movie.spec.shape, movie.spec.dtype, 1.0, len(movie)) as writer:
            for frame in movie:
                writer.write(frame)
    else:
        write_tiff_movie(path, movie, "lzw", 1.0)
    return path


@dataclass(frozen=True)
class Camera:
    """Raw movies of one camera on disk, and its gain."""

    folder: Path
    gain: np.ndarray

    def movies(self, suffix: str = "mrc", n: int = 2) -> list[Path]:
        return [self.folder / f"m{i}.{suffix}" for i in range(1, n + 1)]


@pytest.fixture(scope="module")
def camera(tmp_path_factory: pytest.TempPathFactory) -> Camera:
    folder = tmp_path_factory.mktemp("camera")
    for number in (1, 2, 3):
        write_raw(folder / f"m{number}.mrc", number)
    for number in (1, 2):
        write_raw(folder / f"m{number}.tif", number)
    return Camera(folder, camera_gain())


def write_gain(path: Path, array: np.ndarray) -> Path:
    write_mrc(path, np.ascontiguousarray(array), 1.0)
    return path


# -- files -----------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["mrc", "tif"])
def test_a_reference_in_mrc_fits_movies_in_mrc_and_in_tiff(camera, tmp_path, suffix):
    found = check_gain(camera.movies(suffix), write_gain(tmp_path / "gain.mrc", camera.gain))
    assert (found.verdict, found.n_movies, found.n_frames) == (Verdict.RIGHT, 2, 32)


@pytest.mark.parametrize("suffix", ["mrc", "tif"])
def test_a_reference_written_row_by_row_into_tiff_is_upside_down(camera, tmp_path, suffix):
    """RELION and vitriflow take row 0 of a TIFF for the top, so the array has to be written flipped."""
    wrong, right = tmp_path / "wrong.tif", tmp_path / "right.tif"
    tifffile.imwrite(wrong, camera.gain)
    tifffile.imwrite(right, camera.gain[::-1])
    found = check_gain(camera.movies(suffix), wrong)
    assert found.set_orientation == "flipped_y"
    assert "upside down" in found.text
    assert check_gain(camera.movies(suffix), right).verdict is Verdict.RIGHT


@pytest.mark.parametrize("orientation", list(Orientation))
def test_what_is_advised_makes_it_right(camera, tmp_path, orientation):
    gain = write_gain(tmp_path / "gain.mrc", orientation.apply(camera.gain))
    advised = check_gain(camera.movies()[:1], gain).set_orientation
    assert advised is not None
    assert check_gain(camera.movies()[:1], gain, advised).verdict is Verdict.RIGHT
    assert np.array_equal(Orientation.from_label(advised).apply(orientation.apply(camera.gain)), camera.gain)


def test_the_convention_is_advised_and_what_is_advised_makes_it_right(camera, tmp_path):
    inverse = np.divide(1.0, camera.gain, out=np.zeros_like(camera.gain), where=camera.gain > 0)
    gain = write_gain(tmp_path / "gain.mrc", inverse)
    assert check_gain(camera.movies(), gain).set_convention == "divide"
    assert check_gain(camera.movies(), gain, convention="divide").verdict is Verdict.RIGHT


def test_references_for_eer_divide_unless_they_are_gain_files(tmp_path):
    shape, paths = (256, 256), []
    rng = np.random.default_rng(8)
    for number in (1, 2):
        movie = simulate_movie(spec(number, shape=shape, gain_spread=0.06))
        paths.append(tmp_path / f"m{number}.eer")
        with EerWriter(paths[-1], shape, {}) as writer:
            for frame in movie:
                for events in scatter_in_time(frame, 20, rng):
                    y, x = np.divmod(events, shape[1])
                    writer.write_events(
                        4 * y + rng.integers(0, 4, len(y)), 4 * x + rng.integers(0, 4, len(x))
                    )
    gain = camera_gain(shape=shape, gain_spread=0.06)
    efficiency = np.divide(1.0, gain, out=np.zeros_like(gain), where=gain > 0)
    divided = write_gain(tmp_path / "reference.mrc", efficiency)
    tifffile.imwrite(tmp_path / "reference.gain", gain)
    assert check_gain(paths, divided).verdict is Verdict.RIGHT
    assert check_gain(paths, tmp_path / "reference.gain").verdict is Verdict.RIGHT
    assert check_gain(paths, write_gain(tmp_path / "m.mrc", gain)).set_convention == "multiply"
    larger = write_gain(tmp_path / "larger.mrc", np.repeat(np.repeat(efficiency, 2, 0), 2, 1))
    assert check_gain(paths, larger).verdict is Verdict.RIGHT


def test_a_movie_given_twice_counts_once(camera, tmp_path):
    gain = write_gain(tmp_path / "gain.mrc", camera.gain)
    found = check_gain([camera.movies()[0]] * 4, gain)
    assert found.n_movies == 1


def test_trouble_with_files_is_told_as_such(camera, tmp_path):
    with pytest.raises(BadFile) as missing:
        check_gain(camera.movies(), tmp_path / "none.mrc")
    assert missing.value.reason is Reason.GAIN_MISSING
    with pytest.raises(BadFile, match="expected a single image"):
        check_gain(camera.movies(), camera.movies()[0])
    other = write_raw(tmp_path / "other.mrc", 1, shape=(64, 96), n_frames=2)
    with pytest.raises(BadImage, match="512 x 512 px, as the movies before"):
        check_gain([*camera.movies(), other], None)
    with pytest.raises(BadParameter, match="as_is, rotated_90"):
        check_gain(camera.movies(), None, "sideways")
    with pytest.raises(BadParameter, match="auto, multiply or divide"):
        check_gain(camera.movies(), None, "as_is", "subtract")  # type: ignore[arg-type]
    with pytest.raises(BadParameter, match="at least one"):
        check_gain([], None)


# -- the command -----------------------------------------------------------------------------


def command(*arguments: object) -> Any:
    app = typer.Typer()
    app.command()(gain_command)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_the_command_says_what_to_set_and_exits_with_1_when_it_is_wrong(camera, tmp_path):
    gain = write_gain(tmp_path / "gain.mrc", camera.gain[:, ::-1])
    wrong = command(*camera.movies(), "--gain", gain)
    assert wrong.exit_code == 1
    assert "mirrored left to right: set gain_orientation = flipped_x" in wrong.output
    assert all(orientation.label in wrong.output for orientation in Orientation)
    right = command(*camera.movies(), "--gain", gain, "--orientation", "flipped_x")
    assert right.exit_code == 0
    assert "fits these movies as it is used" in right.output


def test_the_command_gives_all_of_it_as_json(camera, tmp_path):
    gain = write_gain(tmp_path / "gain.mrc", camera.gain)
    done = command(*camera.movies(), "--gain", gain, "--json")
    record = json.loads(done.stdout)
    assert done.exit_code == 0
    assert (record["verdict"], record["set_orientation"], record["n_movies"]) == ("right", "as_is", 2)
    assert record["scores"][0]["orientation"] == "as_is"
    assert len(record["scores"]) == 8
    assert record["left"]["rows"]["high"] < 0.01


def test_the_command_judges_movies_alone(camera):
    done = command(*camera.movies(n=3))
    assert done.exit_code == 1
    assert "no gain reference is set" in done.output


# -- the watch -------------------------------------------------------------------------------


@dataclass
class Live:
    """A session being processed, whose movies come in one by one."""

    catalog: Catalog
    folder: Path
    session_id: int
    processing_id: int = 0
    keys: list[str] = field(default_factory=list)

    def process(self, name: str = "live", template: str = "single-particle", **parameters: Any) -> int:
        values = {name: str(value) for name, value in parameters.items()} | {"particle_diameter_A": 120.0}
        self.processing_id = start_processing(
            self.catalog, self.session_id, name, load_template(template), values, self.folder / name
        )
        return self.processing_id

    def watch(self) -> GainWatch:
        return GainWatch(self.catalog, self.processing_id)

    def arrive(self, *movies: Path, state: ExposureState = ExposureState.COMPLETE) -> None:
        for path in movies:
            key = f"{len(self.keys)}-{path.name}"
            self.keys.append(key)
            row = {"key": key, "item": key, "path": str(path), "state": state, "first_seen_at": now()}
            self.catalog.write(lambda orm, row=row: orm.add(Exposure(session_id=self.session_id, **row)))

    def events(self) -> list[tuple[str, str]]:
        query = select(Event).where(Event.processing_id == self.processing_id).order_by(Event.id)
        return [
            (event.severity, event.text) for event in self.catalog.read(lambda orm: list(orm.scalars(query)))
        ]


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Live]:
    catalog = new_sqlite(tmp_path / "catalog.db")
    made = open_session(
        catalog,
        key="s1",
        source=tmp_path,
        microscope="tem1",
        experiment="e",
        sample="s",
        settings={},
        root_of=lambda when: tmp_path / "root",
    )
    yield Live(catalog, tmp_path, made.id)
    catalog.close()


def test_a_right_reference_is_told_once_after_the_second_movie(live, camera, tmp_path):
    live.process(gain_reference=write_gain(tmp_path / "gain.mrc", camera.gain))
    watch = live.watch()
    assert watch.look() is None
    live.arrive(*camera.movies(n=3))
    assert watch.look() is None
    found = watch.look()
    assert found is not None
    assert found.verdict is Verdict.RIGHT
    assert watch.done
    assert watch.look() is None
    assert live.events() == [
        ("info", "Gain check on 2 movies: The gain reference fits these movies as it is used.")
    ]


def test_a_wrong_orientation_raises_an_alarm_with_the_first_movie(live, camera, tmp_path):
    live.process(gain_reference=write_gain(tmp_path / "gain.mrc", camera.gain[::-1]))
    live.arrive(*camera.movies())
    watch = live.watch()
    found = watch.look()
    assert found is not None
    assert found.wrong
    assert watch.look() is None
    assert live.events() == [
        (
            "alarm",
            "Gain check on 1 movie: The gain reference is upside down: set gain_orientation = flipped_y.",
        )
    ]


def test_the_alarm_stands_on_the_session_page(live, camera, tmp_path):
    live.process(gain_reference=write_gain(tmp_path / "gain.mrc", camera.gain[::-1]))
    live.arrive(*camera.movies())
    assert live.watch().look() is not None
    key = live.catalog.read(lambda orm: orm.get(Session, live.session_id).key)
    with (
        running(create_app(f"sqlite:///{tmp_path / 'catalog.db'}")) as address,
        urllib.request.urlopen(f"{address}/sessions/{key}", timeout=60) as answer,
    ):
        page = answer.read().decode()
    assert "The gain reference is upside down: set gain_orientation = flipped_y." in page


def test_a_new_processing_with_what_was_advised_is_looked_at_and_found_right(live, camera, tmp_path):
    gain = write_gain(tmp_path / "gain.mrc", camera.gain[::-1])
    live.process(gain_reference=gain)
    live.arrive(*camera.movies())
    assert live.watch().look() is not None
    live.process("again", gain_reference=gain, gain_orientation="flipped_y")
    watch = live.watch()
    assert [watch.look() is None, watch.look() is None] == [True, False]
    assert [severity for severity, _ in live.events()] == ["info"]


def test_the_next_run_of_a_processing_does_not_say_it_again(live, camera, tmp_path):
    live.process(gain_reference=write_gain(tmp_path / "gain.mrc", camera.gain[::-1]))
    live.arrive(*camera.movies())
    assert live.watch().look() is not None
    second = live.watch()
    assert second.look() is None
    assert second.done
    assert len(live.events()) == 1


@pytest.mark.parametrize("restarted", [False, True])
def test_a_reference_that_is_replaced_is_looked_at_again(live, camera, tmp_path, restarted):
    gain = write_gain(tmp_path / "gain.mrc", camera.gain[::-1])
    live.process(gain_reference=gain)
    live.arrive(*camera.movies())
    watch = live.watch()
    assert watch.look() is not None
    write_gain(gain, camera.gain)
    later = now().timestamp() + 2.0
    os.utime(gain, (later, later))
    if restarted:
        watch = live.watch()
    assert watch.look() is None
    assert watch.look() is not None
    assert [severity for severity, _ in live.events()] == ["alarm", "info"]


def test_only_whole_movies_are_looked_at_and_unreadable_ones_are_passed_over(live, camera, tmp_path):
    live.process(gain_reference=write_gain(tmp_path / "gain.mrc", camera.gain))
    broken = tmp_path / "broken.mrc"
    shutil.copy(camera.movies()[0], broken)
    os.truncate(broken, broken.stat().st_size // 2)
    live.arrive(camera.movies()[0], state=ExposureState.SEEN)
    live.arrive(broken, tmp_path / "gone.mrc", *camera.movies())
    watch = live.watch()
    assert [watch.look() is None for _ in range(4)] == [True, True, True, False]
    assert live.events()[0][0] == "info"


def test_a_reference_that_cannot_be_read_raises_one_alarm(live, camera, tmp_path):
    live.process(gain_reference=tmp_path / "none.mrc")
    live.arrive(*camera.movies())
    watch = live.watch()
    for _ in range(3):
        watch.look()
    assert [severity for severity, _ in live.events()] == ["alarm"]
    assert "none.mrc" in live.events()[0][1]


def test_what_cannot_be_told_is_said_after_the_first_movies(live, tmp_path):
    """So few electrons that no number of movies will do."""
    faint = {"n_frames": 2, "dose_per_frame_e_per_A2": 0.003, "shape": (128, 128), "n_particles": 0}
    movies = [write_raw(tmp_path / f"f{n}.mrc", n, **faint) for n in range(1, FIRST_MOVIES + 2)]
    live.process(gain_reference=write_gain(tmp_path / "gain.mrc", camera_gain(shape=(128, 128))))
    live.arrive(*movies)
    watch = live.watch()
    looks = [watch.look() for _ in movies]
    assert [look is not None for look in looks] == [False] * (FIRST_MOVIES - 1) + [True, False]
    severity, text = live.events()[0]
    assert severity == "info"
    assert "Can't tell from 5 movies" in text


def test_a_catalog_that_is_away_is_asked_again(live, camera, tmp_path):
    live.process(gain_reference=write_gain(tmp_path / "gain.mrc", camera.gain[::-1]))
    live.arrive(*camera.movies())
    file, away = tmp_path / "catalog.db", tmp_path / "away"
    live.catalog.close()
    file.rename(away)
    file.mkdir()  # SQLite can't open a folder
    watch = live.watch()
    assert watch.look() is None
    assert not watch.done
    file.rmdir()
    away.rename(file)
    found = watch.look()
    assert found is not None
    assert found.wrong


def test_copies_of_one_movie_do_not_count_as_several(live, camera, tmp_path):
    live.process(gain_reference=write_gain(tmp_path / "gain.mrc", camera.gain))
    first, second = camera.movies()
    live.arrive(first, first, first, second)
    watch = live.watch()
    assert [watch.look() is None for _ in range(4)] == [True, True, True, False]


def test_a_session_of_one_movie_is_told_at_its_end(live, camera, tmp_path):
    live.process(gain_reference=write_gain(tmp_path / "gain.mrc", camera.gain))
    watch = live.watch()
    assert watch.finish() is None
    live.arrive(camera.movies()[0])
    assert watch.look() is None
    found = watch.finish()
    assert found is not None
    assert found.verdict is Verdict.RIGHT
    assert watch.finish() is None
    assert [text.partition(":")[0] for _, text in live.events()] == ["Gain check on 1 movie"]


def test_what_one_movie_cannot_tell_is_left_to_the_next_run(live, camera, tmp_path):
    live.process(gain_reference=write_gain(tmp_path / "gain.mrc", camera_gain(gain_seed=7)))
    live.arrive(camera.movies()[0])
    watch = live.watch()
    assert watch.look() is None
    assert watch.finish() is None
    assert live.events() == []
    second = live.watch()
    assert second.look() is None
    assert not second.done


def test_ready_micrographs_have_no_gain_to_look_at(live):
    live.process("micrographs", "micrographs")
    watch = live.watch()
    assert watch.look() is None
    assert watch.done
    assert live.events() == []


def test_corrected_movies_without_a_reference_are_looked_at_too(live, tmp_path):
    flat = {"gain_spread": 0.0, "n_dead_columns": 0, "n_frames": 60, "dose_per_frame_e_per_A2": 4.0}
    live.process()
    live.arrive(*(write_raw(tmp_path / f"c{n}.mrc", n, **flat) for n in (1, 2)))
    watch = live.watch()
    looks = [watch.look() for _ in range(2)]
    assert [found.verdict for found in looks if found] == [Verdict.NOT_NEEDED]
    assert live.events()[0][0] == "info"
