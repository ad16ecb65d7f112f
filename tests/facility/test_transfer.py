"""What becomes of files on their way from the microscope's disk to proved copies, whatever goes wrong."""

import errno
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from blake3 import blake3

from tests.facility.acquiring import Acquiring, frames, write_movie
from vitriflow.acquisition import copying
from vitriflow.errors import Busy
from vitriflow.facility.acquire import SessionAcquisition

NAMES = (
    "ein Bild (1).txt",
    "ψ αβγ.xml",
    "日本語/電顕 1.mdoc",
    "two\nlines.txt",
    "back\\slash",
    "50% dose.txt",
    "%FF.txt",
)
MANY = 50_000


@pytest.fixture
def acquiring(tmp_path: Path) -> Iterator[Acquiring]:
    made = Acquiring(tmp_path)
    yield made
    made.catalog.close()


def mount_tmpfs(where: Path, size: str = "4m") -> None:
    where.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(where)]
    if os.geteuid() or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a file system takes root")


def unmount(where: Path) -> None:
    subprocess.run(["umount", "-l", str(where)], capture_output=True, check=False)


def test_everything_the_microscope_wrote_is_copied_proved_and_listed(acquiring: Acquiring) -> None:
    movie = "GridSquare_1/Data/FoilHole_1_Data_2_3_Fractions.mrc"
    write_movie(acquiring.source / movie, frames())
    for name in NAMES:
        path = acquiring.source / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(name.encode() * 3)
    (acquiring.source / "empty.dm").touch()
    odd = bytes(acquiring.source) + b"/bad\xff.bin"
    Path(os.fsdecode(odd)).write_bytes(b"not UTF-8")
    acquiring.run_until_settled()
    assert set(acquiring.states().values()) == {"proved"}
    assert acquiring.reports[-1].files == {"proved": len(NAMES) + 3}
    copies = acquiring.copies()
    assert copies.pop("bad%FF.bin") == b"not UTF-8"
    assert copies.pop("%25FF.txt") == (acquiring.source / "%FF.txt").read_bytes()
    for name, data in copies.items():
        assert data == (acquiring.source / name).read_bytes(), name
    assert len(copies) == len(NAMES) + 1
    acquiring.check_proved()
    row = acquiring.exposures()[movie]
    assert (row.state, row.path) == ("complete", str(acquiring.root / "raw" / movie))
    assert row.blake3 == blake3((acquiring.source / movie).read_bytes()).hexdigest()
    assert row.first_seen_at <= row.complete_at <= row.copied_at <= row.proved_at
    assert acquiring.root.joinpath("raw").stat().st_mode & 0o007 == 0
    line = acquiring.manifest()[f"raw/{movie}"]
    assert (line.mode, line.source, line.kind, line.generation) == ("copy", movie, "movie", 1)
    assert line.method in ("O_DIRECT", "fadvise")


def test_files_that_stay_in_place_are_hashed_and_listed_and_nothing_is_copied(tmp_path: Path) -> None:
    acquiring = Acquiring(tmp_path, mode="in_place")
    write_movie(acquiring.source / "m.mrc", frames())
    (acquiring.source / "m.xml").write_text("<x/>")
    acquiring.run_until_settled()
    assert acquiring.states() == {"m.mrc": "proved", "m.xml": "proved"}
    assert (acquiring.root / "raw").is_symlink()
    acquiring.check_proved()
    assert {line.mode for line in acquiring.manifest().values()} == {"in_place"}
    assert acquiring.exposures()["m.mrc"].path == str(acquiring.source / "m.mrc")


def test_metadata_goes_first_and_the_newest_movie_next(tmp_path: Path) -> None:
    acquiring = Acquiring(tmp_path, parallel_copies=1, bandwidth_bytes_per_s=1e5)
    for number in range(4):
        write_movie(acquiring.source / f"m{number}.mrc", frames(number))
        stamp = 1_000_000 + number
        os.utime(acquiring.source / f"m{number}.mrc", (stamp, stamp))
    (acquiring.source / "note.xml").write_text("<x/>")
    acquiring.run_until_settled()
    order = list(acquiring.manifest())
    assert order[0] == "raw/note.xml"
    by_row = sorted((row.id, f"raw/{row.key}") for row in acquiring.rows() if row.key != "note.xml")
    assert order[1:] == [path for _, path in reversed(by_row)]


def test_a_cap_on_bandwidth_is_shared_by_all_copies() -> None:
    now = [0.0]
    waited: list[float] = []

    class Stop(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            waited.append(timeout or 0.0)
            now[0] += timeout or 0.0
            return False

    limiter = copying.Limiter(1e6, clock=lambda: now[0])
    for _ in range(50):
        limiter.take(200_000, Stop())
    assert 50 * 0.2 - 1.0 <= now[0] <= 50 * 0.2 + 1e-6
    assert max(waited) <= 0.2 + 1e-6


# -- sources that don't stay as they were --------------------------------------------------------


def test_other_bytes_under_a_name_are_a_new_generation_and_the_first_copy_stays(acquiring: Acquiring) -> None:
    write_movie(acquiring.source / "m.mrc", frames(1))
    (acquiring.source / "log.txt").write_text("one")
    with acquiring.running() as acquisition:
        acquiring.until_settled(acquisition)
        first = acquiring.exposures()["m.mrc"]
        whole = acquiring.copies()["m.mrc"]
        write_movie(acquiring.source / "m.mrc", frames(2, count=6))
        (acquiring.source / "log.txt").write_text("one and two")
        acquiring.until(
            lambda: (
                acquiring.states() == {"m.mrc": "proved", "log.txt": "proved"} and len(acquiring.rows()) == 4
            )
        )
        acquiring.until_settled(acquisition)
    states = {(row.key, row.generation): row.state for row in acquiring.rows()}
    assert states == {
        ("m.mrc", 1): "replaced",
        ("m.mrc", 2): "proved",
        ("log.txt", 1): "replaced",
        ("log.txt", 2): "proved",
    }
    copies = acquiring.copies()
    assert copies["m.mrc"] == whole
    assert copies["m.g2.mrc"] == (acquiring.source / "m.mrc").read_bytes()
    assert (copies["log.txt"], copies["log.g2.txt"]) == (b"one", b"one and two")
    second = acquiring.exposures()["m.mrc"]
    assert second.path.endswith("raw/m.g2.mrc")
    assert second.complete_at > first.complete_at  # by which the pipeline processes it again
    acquiring.check_proved()


def test_other_bytes_of_the_same_size_are_found_too(acquiring: Acquiring) -> None:
    (acquiring.source / "a.txt").write_text("1234")
    with acquiring.running() as acquisition:
        acquiring.until_settled(acquisition)
        (acquiring.source / "new").write_text("9876")
        (acquiring.source / "new").replace(acquiring.source / "a.txt")
        acquiring.until(lambda: "a.g2.txt" in acquiring.copies())
        acquiring.until_settled(acquisition)
    assert acquiring.copies() == {"a.txt": b"1234", "a.g2.txt": b"9876"}


def test_a_clock_that_is_hours_off_and_jumps_changes_nothing(acquiring: Acquiring) -> None:
    for number, hours in enumerate((-30, 0, 7, 900_000)):
        path = acquiring.source / f"m{number}.mrc"
        write_movie(path, frames(number))
        stamp = time.time() + 3600 * hours
        os.utime(path, (stamp, stamp))
    with acquiring.running() as acquisition:
        acquiring.until_settled(acquisition)
        for path in acquiring.source.iterdir():  # the clock is set back: all files seem changed
            os.utime(path, (1.0, 1.0))
        seen = len(acquiring.reports)
        acquiring.until(lambda: all(row.stamp == 10**9 for row in acquiring.rows()))
        acquiring.until(lambda: len(acquiring.reports) > seen + 5)
    assert [row.generation for row in acquiring.rows()] == [1, 1, 1, 1]
    assert set(acquiring.states().values()) == {"proved"}
    assert len(acquiring.copies()) == 4


def test_a_file_cut_short_after_it_was_seen_is_never_proved_as_it_was(acquiring: Acquiring) -> None:
    write_movie(acquiring.source / "m.mrc", frames())
    whole = (acquiring.source / "m.mrc").read_bytes()
    with acquiring.running() as acquisition:
        acquiring.until(lambda: acquiring.states() == {"m.mrc": "seen"})
        (acquiring.source / "m.mrc").write_bytes(whole[:5000])
        acquiring.until(lambda: acquiring.states() == {"m.mrc": "problem"})
        assert acquiring.copies() == {}
        row = acquiring.rows()[0]
        assert row.problem_code == "file.truncated"
        (acquiring.source / "m.mrc").write_bytes(whole)
        acquiring.until_settled(acquisition)
        acquiring.until(lambda: acquiring.states() == {"m.mrc": "proved"})
    assert acquiring.copies() == {"m.mrc": whole}
    acquiring.check_proved()


def test_a_source_that_changes_while_it_is_read_is_not_copied_as_a_mixture(
    acquiring: Acquiring, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = acquiring.source / "a.dat"
    path.write_bytes(b"a" * 9_000_000)
    real, hits = copying._write, []

    def meddle(descriptor: int, part: memoryview) -> None:
        if not hits:
            hits.append(1)
            path.write_bytes(b"b" * 9_000_000)
        real(descriptor, part)

    monkeypatch.setattr(copying, "_write", meddle)
    acquiring.run_until_settled()
    assert acquiring.copies() == {"a.dat": b"b" * 9_000_000}
    acquiring.check_proved()


def test_a_file_that_vanishes_before_it_is_copied_is_told_by_name(
    acquiring: Acquiring, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_movie(acquiring.source / "m.mrc", frames())
    (acquiring.source / "stays.txt").write_text("x")
    monkeypatch.setattr(copying, "copy_file", held(copying.copy_file, errno.EBUSY, times=2, name="m.mrc"))
    with acquiring.running():
        acquiring.until(lambda: acquiring.states().get("m.mrc") == "complete")
        (acquiring.source / "m.mrc").unlink()
        acquiring.until(lambda: acquiring.states()["m.mrc"] == "problem")
        acquiring.until(lambda: acquiring.states()["stays.txt"] == "proved")
    assert acquiring.newest()["m.mrc"].problem_code == "file.vanished"
    assert acquiring.newest()["m.mrc"].gone_at is not None
    assert acquiring.exposures()["m.mrc"].state == "problem"
    assert any("m.mrc" in text and "before they were copied" in text for text in acquiring.events())


# -- sources that are held, or away --------------------------------------------------------------


def held(real: Callable[..., Any], code: int, *, times: int, name: str = "") -> Callable[..., Any]:
    """The first few copies of a source fail as if somebody held it."""
    left = [times]

    def copy(source: Path, *arguments: Any, **options: Any) -> Any:
        if left[0] > 0 and source.name.endswith(name):
            left[0] -= 1
            raise copying.SourceError(OSError(code, os.strerror(code)))
        return real(source, *arguments, **options)

    return copy


@pytest.mark.parametrize("code", [errno.EACCES, errno.EBUSY, errno.ETXTBSY, errno.EIO])
def test_a_file_that_a_scanner_or_the_camera_holds_is_tried_again_and_not_failed(
    acquiring: Acquiring, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    (acquiring.source / "a.txt").write_text("a")
    monkeypatch.setattr(copying, "copy_file", held(copying.copy_file, code, times=2))
    acquiring.run_until_settled()
    assert acquiring.states() == {"a.txt": "proved"}
    assert not any("alarm" in text or "can't" in text for text in acquiring.events())


def test_a_share_that_is_unmounted_and_comes_back_loses_nothing_and_is_told_once(tmp_path: Path) -> None:
    share = tmp_path / "share"
    mount_tmpfs(share, "32m")
    try:
        acquiring = Acquiring(tmp_path, source=share, bandwidth_bytes_per_s=2e6, parallel_copies=2)
        kept = tmp_path / "kept"
        for number in range(6):
            write_movie(share / f"m{number}.mrc", np.tile(frames(number), (32, 1, 1)))
        shutil.copytree(share, kept)  # with its change times
        with acquiring.running() as acquisition:
            acquiring.until(lambda: "proved" in acquiring.states().values())
            unmount(share)  # in mid-copy; the empty mount point is all that's left
            acquiring.until(lambda: acquiring.reports[-1].look.lost)
            time.sleep(1.0)
            assert "problem" not in acquiring.states().values()
            mount_tmpfs(share, "32m")
            shutil.copytree(kept, share, dirs_exist_ok=True)
            acquiring.until(lambda: set(acquiring.states().values()) == {"proved"})
            acquiring.until_settled(acquisition)
    finally:
        unmount(share)
    assert {name: len(data) for name, data in acquiring.copies().items()} == {
        path.name: path.stat().st_size for path in kept.iterdir()
    }
    assert [row.generation for row in acquiring.rows()] == [1] * 6
    acquiring.check_proved()
    texts = acquiring.events()
    assert sum("can't be read" in text for text in texts) <= 2  # the watcher, and copying if it was under way
    assert any("is back" in text for text in texts)


# -- destinations -----------------------------------------------------------------------------------


def test_a_full_destination_holds_copying_with_one_alarm_and_it_goes_on_by_itself(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    mount_tmpfs(disk, "3m")
    try:
        acquiring = Acquiring(tmp_path)
        acquiring.catalog.write(lambda orm: setattr(orm.merge(acquiring.session), "root", str(disk / "root")))
        acquiring.root = disk / "root"
        ballast = disk / "ballast"
        ballast.write_bytes(b"x" * 2_000_000)
        for number in range(4):
            (acquiring.source / f"f{number}.dat").write_bytes(bytes([number]) * 600_000)
        with acquiring.running() as acquisition:
            acquiring.until(lambda: any("No space left" in text for text in acquiring.events()))
            acquiring.until(lambda: acquiring.reports[-1].held)
            time.sleep(1.5)
            assert "problem" not in acquiring.states().values()
            acquiring.check_proved()
            ballast.unlink()
            acquiring.until_settled(acquisition)
            acquiring.until(lambda: acquisition.look().held is None)
        assert set(acquiring.states().values()) == {"proved"}
        assert not list(acquiring.root.rglob(".vitriflow-*"))
        acquiring.check_proved()
        texts = acquiring.events()
        assert sum("No space left" in text for text in texts) == 1
        assert sum("Copying goes on" in text for text in texts) == 1
        acquiring.catalog.close()
    finally:
        unmount(disk)


def test_other_bytes_at_the_destination_are_never_overwritten(acquiring: Acquiring) -> None:
    raw = acquiring.root / "raw"
    raw.mkdir(parents=True)
    (raw / "a.txt").write_bytes(b"somebody else's")
    (raw / "same.txt").write_bytes(b"mine already")
    (raw / "folder.txt").mkdir()
    for name, data in (
        ("a.txt", b"mine"),
        ("same.txt", b"mine already"),
        ("folder.txt", b"x"),
        ("b.txt", b"b"),
    ):
        (acquiring.source / name).write_bytes(data)
    acquiring.run_until_settled()
    assert acquiring.states() == {
        "a.txt": "problem",
        "same.txt": "proved",
        "folder.txt": "problem",
        "b.txt": "proved",
    }
    assert (raw / "a.txt").read_bytes() == b"somebody else's"
    row = acquiring.newest()["a.txt"]
    assert row.problem_code == "copy.conflict"
    assert str(raw / "a.txt") in str(row.problem)
    assert any("other bytes" in text for text in acquiring.events())
    acquiring.check_proved()


def test_a_destination_that_may_not_be_written_is_told_and_nothing_fails(acquiring: Acquiring) -> None:
    (acquiring.source / "a.txt").write_text("a")
    raw = acquiring.root / "raw"
    raw.mkdir(parents=True)
    if (
        os.geteuid() == 0
        and subprocess.run(["chattr", "+i", raw], capture_output=True, check=False).returncode
    ):
        pytest.skip("root may write everywhere, and this file system has no immutable folders")
    raw.chmod(0o500) if os.geteuid() else None
    try:
        with acquiring.running() as acquisition:
            acquiring.until(lambda: any("not permitted" in t or "denied" in t for t in acquiring.events()))
            assert acquiring.states() == {"a.txt": "complete"}
            subprocess.run(["chattr", "-i", raw], capture_output=True, check=False)
            raw.chmod(0o750)
            acquiring.until_settled(acquisition)
    finally:
        subprocess.run(["chattr", "-i", raw], capture_output=True, check=False)
    assert acquiring.states() == {"a.txt": "proved"}


def flip(path: Path) -> None:
    with path.open("r+b") as stream:
        stream.seek(path.stat().st_size // 2)
        byte = stream.read(1)
        stream.seek(-1, os.SEEK_CUR)
        stream.write(bytes([byte[0] ^ 1]))
        os.fsync(stream.fileno())


@pytest.mark.parametrize("times", [1, 99])
def test_a_byte_that_flips_on_the_disk_is_found_before_anything_is_proved(
    acquiring: Acquiring, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    write_movie(acquiring.source / "m.mrc", frames())
    real, left, first = copying.read_back, [times], []

    def corrupt(path: Path, *arguments: Any) -> Any:
        if left[0] > 0:
            acquiring.until(
                lambda: acquiring.exposures()["m.mrc"].state == "complete"
            )  # it's processed already
            first.append(acquiring.exposures()["m.mrc"].complete_at)
            left[0] -= 1
            flip(path)
        return real(path, *arguments)

    monkeypatch.setattr(copying, "read_back", corrupt)
    acquiring.run_until_settled()
    alarms = [text for text in acquiring.events() if "gave other bytes back" in text]
    row = acquiring.exposures()["m.mrc"]
    if times == 1:
        assert acquiring.states() == {"m.mrc": "proved"}
        assert len(alarms) == 1
        assert row.state == "complete"
        assert row.complete_at > first[0]  # by which its results are computed again
        assert row.proved_at is not None
    else:
        assert acquiring.states() == {"m.mrc": "problem"}
        assert (row.state, row.problem_code) == ("problem", "copy.corrupt")
        assert acquiring.copies() == {}
        assert acquiring.manifest() == {}
        assert len(alarms) == 3
    acquiring.check_proved()


def test_two_names_that_differ_in_capitals_only_are_both_kept_or_told(acquiring: Acquiring) -> None:
    (acquiring.source / "Movie.txt").write_text("one")
    (acquiring.source / "movie.TXT").write_text("another")
    acquiring.run_until_settled()
    assert acquiring.copies() == {"Movie.txt": b"one", "movie.TXT": b"another"}


def test_a_second_watcher_on_one_session_is_refused(acquiring: Acquiring) -> None:
    with acquiring.running(), pytest.raises(Busy, match="session:s1"):
        SessionAcquisition(acquiring.config, acquiring.catalog, acquiring.session.id)


@pytest.mark.slow
def test_many_small_files_are_all_proved(tmp_path_factory: pytest.TempPathFactory) -> None:
    memory = Path("/dev/shm")
    folder = memory / f"vitriflow-{os.getpid()}" if memory.is_dir() else tmp_path_factory.mktemp("many")
    try:
        folder.mkdir(exist_ok=True)
        acquiring = Acquiring(folder, scan_interval_s=0.5)
        for number in range(MANY):
            if number % 1_000 == 0:
                part = acquiring.source / f"GridSquare_{number // 1_000}"
                part.mkdir()
            (part / f"FoilHole_{number}_Data_1.xml").write_bytes(b"%d" % number)
        acquiring.run_until(lambda: acquiring.reports and acquiring.reports[-1].files == {"proved": MANY})
        assert len(acquiring.manifest()) == MANY
        acquiring.catalog.close()
    finally:
        if memory.is_dir():
            shutil.rmtree(folder, ignore_errors=True)
