"""Trouble while a session runs: growing files, lost folders, full disks, a second process, wrong gain references."""

import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from blake3 import blake3

from tests.facility.command import House, until
from tests.facility.conftest import Played
from vitriflow.formats import write_mrc

pytestmark = pytest.mark.slow
ROOT = os.geteuid() == 0


def movies(played: Played) -> list[Path]:
    """The movies of a copied session, in the order of their names."""
    return sorted(played.source.rglob("*_Fractions.mrc"))


def trickle(content: bytes, path: Path, seconds: float) -> threading.Thread:
    """Write a file bit by bit from a thread, as a camera does over a network."""

    def work() -> None:
        parts = 20
        size = len(content) // parts + 1
        with path.open("wb") as stream:
            for part in range(parts):
                stream.write(content[part * size : (part + 1) * size])
                stream.flush()
                time.sleep(seconds / parts)

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def end(process: "subprocess.Popen[bytes]") -> None:
    """Ask a run to end, as Ctrl-C does; it has to end well."""
    process.send_signal(signal.SIGTERM)
    assert process.wait(120) == 0


def test_a_growing_movie_is_waited_for_and_taken_whole(house: House, copied: Callable[[int], Played]) -> None:
    played = copied(2)
    _first, second = movies(played)
    content = second.read_bytes()
    writer = trickle(content, second, seconds=5.0)
    house.vitriflow("run", played.source, "--once", *played.light)
    assert not writer.is_alive()  # --once waits for what is being written
    row = house.exposures()[str(second.relative_to(played.source))]
    assert row.blake3 == blake3(content).hexdigest()
    assert {status for status, _, _ in house.outcomes().values()} == {"done"}
    assert house.counts().reconciles


def test_a_movie_that_stops_growing_is_set_aside_and_taken_in_when_it_is_completed(
    house: House, copied: Callable[[int], Played]
) -> None:
    played = copied(1)
    (movie,) = movies(played)
    content = movie.read_bytes()
    movie.write_bytes(content[: len(content) // 3])
    with house.running("run", played.source, *played.light) as process:
        until(lambda: "1 quarantined" in house.said)
        ((_, code, why),) = house.outcomes().values()
        assert code == "file.truncated"
        assert why is not None
        assert "of the 8 frames" in why
        movie.write_bytes(content)
        until(lambda: "1 done" in house.said)
        end(process)
    assert house.counts().reconciles
    assert house.session().state == "paused"


@pytest.mark.skipif(ROOT and shutil.which("setpriv") is None, reason="root reads everything without setpriv")
def test_a_movie_that_may_not_be_read_is_set_aside_until_it_may(
    house: House, copied: Callable[[int], Played]
) -> None:
    played = copied(2)
    first, second = movies(played)
    second.chmod(0o000)
    try:
        # root without its right to pass over permissions is a user like others
        house.prefix = ("setpriv", "--bounding-set", "-dac_override,-dac_read_search") if ROOT else ()
        house.vitriflow("run", played.source, "--once", *played.light)
        outcomes = house.outcomes()
        assert outcomes[str(first.relative_to(played.source))][0] == "done"
        status, code, why = outcomes[str(second.relative_to(played.source))]
        assert (status, code) == ("quarantined", "file.unreadable")
        assert "ermission denied" in (why or "")
    finally:
        second.chmod(0o640)
    house.vitriflow("run", played.source, "--once")
    assert house.outcomes()[str(second.relative_to(played.source))][0] == "done"
    assert house.counts().reconciles


def test_a_source_that_goes_away_and_comes_back_costs_nothing(
    house: House, copied: Callable[[int], Played]
) -> None:
    played = copied(2)
    away = played.source.with_name("unmounted")
    with house.running("run", played.source, *played.light) as process:
        until(lambda: "2 exposures in" in house.said)
        played.source.rename(away)
        until(lambda: "SOURCE FOLDER LOST" in house.said)
        assert process.poll() is None
        away.rename(played.source)
        until(lambda: "2 exposures in: 2 done" in house.said)
        end(process)
    counts = house.counts()
    assert counts.reconciles
    assert counts.exposures.done == 2
    events = house.events()
    assert any(f"The source folder {played.source} can't be read" in text for text in events)
    assert any(f"The source folder {played.source} is back" in text for text in events)


def test_a_run_on_a_folder_that_is_not_there_says_so(house: House) -> None:
    done = house.vitriflow("run", house.folder / "no such share", "--once", expect=2)
    assert "no such share" in done.stderr
    assert "mounted" in done.stderr


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 48 MiB of its own."""
    if not ROOT:
        pytest.skip("mounting a small disk needs root")
    folder = tmp_path / "small disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=48m", "none", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"this container may not mount: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.parametrize(("reserve_mib", "words"), [(16, "MiB left"), (0, "is full")])
def test_a_full_disk_pauses_the_processing_and_freeing_it_resumes(
    small_disk: Path, tmp_path: Path, copied: Callable[[int], Played], reserve_mib: int, words: str
) -> None:
    played = copied(2)
    house = House(tmp_path / "house", more=f'\n[catalog]\nurl = "sqlite:///{tmp_path / "catalog.db"}"\n')
    house.reconfigure(f"reserve_bytes = {reserve_mib * 1024**2}")
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes((47 if reserve_mib == 0 else 40) * 1024**2))
    url = f"sqlite:///{tmp_path / 'catalog.db'}"
    with house.running("run", played.source, "--once", "--out", small_disk, *played.quick) as process:
        until(lambda: "results in" in house.said)
        until(lambda: any(words in text for text in house.events(url)))
        held = house.counts(url)
        assert held.reconciles
        assert held.exposures.open == 2
        ballast.unlink()
        assert process.wait(120) == 0
    ended = house.counts(url)
    assert ended.reconciles
    assert ended.exposures.done == 2
    assert ended.exposures.quarantined == ended.exposures.failed == 0
    assert any("goes on" in text for text in house.events(url))


def test_a_second_run_on_a_session_is_refused_and_told_who_has_it(
    house: House, copied: Callable[[int], Played]
) -> None:
    played = copied(1)
    with house.running("run", played.source, *played.light) as process:
        until(lambda: "results in" in house.said)
        done = house.vitriflow("run", played.source, "--once", *played.light, expect=2)
        assert f"process {process.pid}" in done.stderr
        assert house.session().state == "active"
        until(lambda: "1 done" in house.said)
        end(process)
    assert house.counts().exposures.done == 1
    house.vitriflow("run", played.source, "--once", *played.light)  # and now it's free


@pytest.mark.parametrize(
    ("name", "code", "words"),
    [("nowhere.mrc", "gain.missing", "no such file"), ("small.mrc", "gain.wrong_size", "300 x 200")],
)
def test_a_gain_reference_that_cannot_be_used_sets_every_movie_aside_with_the_reason(
    house: House, copied: Callable[[int], Played], name: str, code: str, words: str
) -> None:
    played = copied(1)
    write_mrc(house.folder / "small.mrc", np.ones((200, 300), np.float32), 1.5)
    settings = ("--set", "particle_diameter_A=120", "--set", f"gain_reference={name}")
    house.vitriflow("run", played.source, "--once", *settings)
    ((status, found, why),) = house.outcomes().values()
    assert (status, found) == ("quarantined", code)
    assert words in (why or "")
    assert str(house.folder / name) in (why or "")  # a relative path is below where it was typed


def test_other_parameters_for_the_same_processing_are_refused_and_a_new_processing_is_offered(
    house: House, copied: Callable[[int], Played]
) -> None:
    played = copied(1)
    house.vitriflow("run", played.source, "--once", *played.quick, "--set", "max_shift_A=50")
    other = (*played.quick, "--set", "max_shift_A=40")
    refused = house.vitriflow("run", played.source, "--once", *other, expect=2)
    assert "max_shift_A: 50 -> 40" in refused.stderr
    assert "another name" in refused.stderr
    assert house.counts().exposures.done == 1
    house.vitriflow("run", played.source, "--once", *other, "--processing", "second")
    entries = house.json("status", house.session().key)
    assert {entry["processing"]: entry["counts"]["done"] for entry in entries} == {"live": 1, "second": 1}
