"""Sessions started on a microscope, and the services that take them in and process them, as real processes."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from blake3 import blake3
from sqlalchemy import select, update
from typer.testing import CliRunner

from tests.facility.acquiring import Acquiring, frames, write_movie
from tests.facility.command import House, until
from tests.facility.conftest import QUICK, Played
from vitriflow.catalog import Exposure, FileState, Lease, Node, Processing, SourceFile
from vitriflow.catalog.views import count_sessions
from vitriflow.cli import app
from vitriflow.errors import Busy, VitriflowError

MICROSCOPE = """
[microscopes.tem1]
sources = ["{source}"]
{more}
"""


def make_house(folder: Path, more: str = "", mode: str = "copy") -> House:
    """A facility with one microscope, whose share is ``share`` beside its configuration."""
    (folder / "share").mkdir(parents=True)
    text = MICROSCOPE.format(source=folder / "share", more=f'mode = "{mode}"\n{more}')
    return House(folder, more=text)


@pytest.fixture
def site(tmp_path: Path) -> House:
    return make_house(tmp_path / "site")


def share(house: House) -> Path:
    return house.folder / "share"


def template(house: House) -> Path:
    path = house.folder / "quick.yaml"
    path.write_text(QUICK, encoding="utf-8")
    return path


def say(house: House, *arguments: object) -> str:
    """A command as the operator types it, in this process: what it printed, or the error that it ended with."""
    result = CliRunner().invoke(app, [*map(str, arguments), "--config", str(house.config)])
    if isinstance(result.exception, VitriflowError):
        return str(result.exception)
    assert result.exit_code == 0, result.output
    return result.stdout


def start(house: House, *arguments: object) -> str:
    """Start a session; its key."""
    return say(house, "start", "--no-process", *arguments).split()[1]


def proved(house: House) -> int:
    """Files that are proved."""
    query = select(SourceFile.id).where(SourceFile.state == FileState.PROVED)
    return len(house.read(lambda orm: list(orm.scalars(query))))


def end(process: "subprocess.Popen[bytes]") -> int:
    """End a service as systemd does; its exit code."""
    process.send_signal(signal.SIGTERM)
    return process.wait(120)


# -- what an operator says --------------------------------------------------------------------


def test_a_microscope_works_on_one_session_at_a_time(site: House) -> None:
    (share(site) / "a").mkdir()
    key = start(site, "--source", "a")
    refused = say(site, "start", "--no-process", "--source", "a", "--session", "b")
    assert "active since" in refused
    assert f"vitriflow stop {key}" in refused
    assert "closed" in say(site, "stop", "--microscope", "tem1")
    second = start(site, "--source", "a", "--session", "b")
    assert "vitriflow stop b" in say(site, "resume", key)
    assert "paused" in say(site, "pause", second)
    assert "active" in say(site, "resume", second)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--source", "nowhere"], "such as old"),
        (["--microscope", "tem9"], "one of tem1"),
        (["--process"], "particle_diameter_A"),
        (["--process", "--set", "typo=1"], "typo"),
        (["--mode", "move"], "copy or in_place"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_was_begun(
    site: House, arguments: list[str], words: str
) -> None:
    (share(site) / "old").mkdir()
    assert words in say(site, "start", *arguments)
    assert not (site.root / "catalog.db").is_file() or site.read(count_sessions) == 0
    assert not list(site.root.glob("2*"))


def test_stopping_where_nothing_runs_says_so(site: House) -> None:
    (share(site) / "a").mkdir()
    key = start(site, "--source", "a")
    say(site, "stop", key)
    assert "an active session" in say(site, "stop", "-m", "tem1")
    assert "neither" in say(site, "stop")


# -- acquire ----------------------------------------------------------------------------------


def test_the_next_folder_that_appears_is_taken_in_and_what_stands_there_is_left(site: House) -> None:
    write_movie(share(site) / "old" / "before.mrc", frames(1))
    key = start(site)
    with site.running("acquire") as service:
        until(lambda: site.read(lambda orm: orm.scalar(select(Node.name))))
        write_movie(share(site) / "new session" / "after.mrc", frames(2))
        until(lambda: proved(site) == 1)
        assert end(service) == 0
    (exposure,) = site.exposures().values()
    assert exposure.key == "after.mrc"
    assert site.session().source == str(share(site) / "new session")
    assert site.session().key == key
    assert any("The folder of this session is" in text for text in site.events())
    assert site.read(lambda orm: list(orm.scalars(select(Node)))) == []
    assert {lease.owner for lease in site.read(lambda orm: list(orm.scalars(select(Lease))))} == {""}


def test_once_takes_in_what_is_there_and_ends(site: House) -> None:
    for number in range(3):
        write_movie(share(site) / "a" / f"{number}.mrc", frames(number))
    start(site, "--source", "a")
    site.vitriflow("acquire", "--once")
    assert proved(site) == 3


def test_a_session_that_is_stopped_still_gets_what_is_on_its_way(site: House) -> None:
    for number in range(3):
        write_movie(share(site) / "a" / f"{number}.mrc", frames(number))
    key = start(site, "--source", "a")
    with site.running("acquire"):
        until(lambda: site.exposures())
        say(site, "stop", key)
        until(lambda: proved(site) == 3)


def test_a_killed_child_is_started_again_and_people_are_told(site: House) -> None:
    (share(site) / "a").mkdir()
    start(site, "--source", "a")
    with site.running("acquire") as service:
        child = until(lambda: children(service))[0]
        until(lambda: site.read(lambda orm: orm.get(Lease, f"session:{site.session().key}")))
        child.kill()
        other = until(lambda: [one for one in children(service) if one.pid != child.pid])[0]
        assert other.is_running()
        write_movie(share(site) / "a" / "1.mrc", frames(1))
        until(lambda: proved(site) == 1)
        assert any("was killed by signal 9; it's started again" in text for text in site.events())


@pytest.mark.slow
def test_another_node_takes_over_within_a_minute_of_a_nodes_death(
    site: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each node believes that it's another machine, so that only the lease's end can tell of a death."""
    folder = share(site) / "a"
    for number in range(20):
        write_movie(folder / f"first_{number}.mrc", frames(number, 8))
    start(site, "--source", "a")
    with running_on("node1", site, tmp_path, monkeypatch) as first:
        until(lambda: proved(site) >= 3)
        with running_on("node2", site, tmp_path, monkeypatch) as second:
            until(lambda: len(site.read(lambda orm: list(orm.scalars(select(Node))))) == 2)
            assert holder(site) == "node1"
            os.kill(first.pid, signal.SIGKILL)  # the node alone: its child finds out by itself
            died = time.monotonic()
            for number in range(20):
                write_movie(folder / f"second_{number}.mrc", frames(100 + number, 8))
            until(lambda: holder(site) == "node2")
            assert time.monotonic() - died < 60
            until(lambda: proved(site) == 40)
            assert end(second) == 0
    rows = site.read(lambda orm: list(orm.scalars(select(SourceFile))))
    assert sorted(row.key for row in rows) == sorted(path.name for path in folder.iterdir())
    root = Path(site.session().root)
    for row in rows:
        assert blake3((root / row.destination).read_bytes()).hexdigest() == row.blake3
    lines = (root / "manifest.jsonl").read_text().splitlines()
    assert len([line for line in lines if line.startswith("{")]) >= 40
    assert len(list((root / "raw").iterdir())) == 40  # nothing half-written, nothing twice


def test_one_that_was_replaced_while_it_was_away_writes_nothing_more(tmp_path: Path) -> None:
    """As a node that was suspended, or cut off from its lease, and then goes on."""
    acquiring = Acquiring(tmp_path)
    write_movie(acquiring.source / "a.mrc", frames(1))
    with pytest.raises(Busy, match="taken over by other"), acquiring.running():
        acquiring.until(lambda: acquiring.states() == {"a.mrc": "proved"})
        taken = update(Lease).where(Lease.name == "session:s1").values(owner="other", epoch=Lease.epoch + 1)
        acquiring.catalog.write(lambda orm: orm.execute(taken))
        write_movie(acquiring.source / "b.mrc", frames(2))
        time.sleep(1.0)
    assert set(acquiring.states()) == {"a.mrc"}
    assert set(acquiring.exposures()) == {"a.mrc"}
    assert set(acquiring.copies()) == {"a.mrc"}


def holder(house: House) -> str:
    """The host that holds the microscope."""
    lease = house.read(lambda orm: orm.get(Lease, "microscope/tem1"))
    return lease.owner.split(":")[0] if lease is not None else ""


def running_on(host: str, house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """``vitriflow acquire`` as on a machine of that name."""
    folder = tmp_path / host
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(f"import socket\nsocket.gethostname = lambda: {host!r}\n")
    path = os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH", "").split("#")[-1])))
    monkeypatch.setenv("PYTHONPATH", path)
    return house.running("acquire")


def children(service: "subprocess.Popen[bytes]") -> list[psutil.Process]:
    """Processes that take a session in."""
    found = []
    for one in psutil.Process(service.pid).children():
        with suppress(psutil.NoSuchProcess):  # a zombie too
            if "vitriflow.facility.service" in " ".join(one.cmdline()):
                found.append(one)
    return found


# -- process ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_all_of_it_runs_with_one_command_and_ends_with_it(
    copied: Callable[[int], Played], tmp_path: Path
) -> None:
    two = copied(2)
    house = make_house(tmp_path / "site", f'gain_folder = "{tmp_path / "gains"}"\nvoltage_kV = 200.0', "copy")
    house.reconfigure("\n[web]\nport = 0\n")
    (tmp_path / "gains").mkdir()
    shutil.copy(two.gain, tmp_path / "gains" / "right.mrc")
    write_movie(tmp_path / "gains" / "other camera.mrc", frames(1, 1))
    asked = ("--template", template(house), "--experiment", "E1", "--sample", "apo")
    say(house, "start", *asked)
    with house.running("up") as service:
        until(lambda: len(house.read(lambda orm: list(orm.scalars(select(Node))))) == 2)
        shutil.copytree(two.source, share(house) / "s1")
        until(lambda: len(house.outcomes()) == 2 and house.counts().exposures.open == 0)
        status = say(house, "status")
        say(house, "stop", "-m", "tem1")
        assert end(service) == 0
        assert not psutil.pid_exists(service.pid) or not psutil.Process(service.pid).children()
    counts = house.counts()
    assert (counts.exposures.done, counts.exposures.came_in, counts.reconciles) == (2, 2, True)
    record = house.records("motion")[min(house.exposures())]
    assert record["provenance"]["parameters"]["gain_reference"].endswith("/gain/right.mrc")
    assert record["provenance"]["parameter_sources"]["voltage_kV"] == "facility"
    assert "first seen to" in status
    assert (house.project / "default_pipeline.star").is_file()


@pytest.mark.slow
def test_two_sessions_share_a_machine_and_none_waits_for_the_other(six: Played, tmp_path: Path) -> None:
    text = MICROSCOPE.format(source=tmp_path / "one", more='mode = "in_place"')
    text += text.replace("tem1", "tem2").replace("one", "two")
    house = House(tmp_path / "site", more=text)
    idle = house.folder / "idle.yaml"
    idle.write_text("name: idle\nnodes:\n  look: {step: debug.noop, inputs: {movie: exposure.movie}}\n")
    for name, microscope in (("one", "tem1"), ("two", "tem2")):
        (tmp_path / name).mkdir()
        shutil.copytree(six.source, tmp_path / name / "s")
        say(house, "start", "-m", microscope, "--source", "s", "--session", name, "--template", idle)
    house.vitriflow("acquire", "--once")
    say(house, "stop", "two")
    with house.running("process"):
        until(lambda: len(house.results()) == 2 * 6)
    query = select(Processing.session_id, Exposure.id).join(
        Exposure, Exposure.session_id == Processing.session_id
    )
    assert len(house.read(lambda orm: list(orm.execute(query)))) == 12
    order = finished(house)
    assert set(order[:6]) == {1, 2}  # the second isn't left until the first is done


def finished(house: House) -> list[int]:
    """Sessions in the order in which their exposures were finished."""
    from vitriflow.catalog import Measure

    query = select(Measure.processing_id).order_by(Measure.finished_at)
    return list(house.read(lambda orm: list(orm.scalars(query))))


# -- systemd ----------------------------------------------------------------------------------


def test_units_are_printed_and_systemd_takes_them(site: House, tmp_path: Path) -> None:
    printed = say(site, "install-services")
    assert printed.count("Restart=always") == 3
    assert f"--config {site.config}" in printed
    folder = tmp_path / "units"
    say(site, "install-services", "--write", folder, "--user", "root")
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["vitriflow-acquire.service", "vitriflow-process.service", "vitriflow-serve.service"]
    verify = shutil.which("systemd-analyze")
    for path in folder.iterdir():
        text = path.read_text()
        assert f"ReadWritePaths=-{site.root} -{share(site)}" in text
        if verify is not None:
            done = subprocess.run(
                [verify, "verify", "--man=no", path], capture_output=True, text=True, check=False
            )
            about = [line for line in done.stderr.splitlines() if "vitriflow-" in line]
            assert (done.returncode, about) == (0, []), done.stderr


def test_a_facility_without_microscopes_is_told_how_to_add_one(house: House) -> None:
    assert "[microscopes.tem1]" in say(house, "acquire")
