"""Services when something hangs, is away, or is shared; and the disk that a service frees by itself."""

import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select

from tests.databases import postgres
from tests.facility.acquiring import frames, write_movie
from tests.facility.command import House, until
from tests.facility.custody import NAMES, Custody
from tests.facility.test_service import running_on, say, share
from tests.servers import PostgresServer
from vitriflow.catalog import FileState, Lease, SourceFile
from vitriflow.facility.service.children import Children, Job
from vitriflow.facility.service.releasing import ReleaseKeeper

__all__ = ["postgres"]
SILENT = "import time; print('.', flush=True); time.sleep(600)"
LIVELY = (
    "import sys, time\n"
    "while True: print('.', flush=True); open(sys.argv[1], 'a').write('.'); time.sleep(0.02)"
)


def test_a_child_that_hangs_is_told_of_then_killed_and_started_again_and_others_go_on(tmp_path: Path) -> None:
    told: list[str] = []
    clock, beats = [0.0], tmp_path / "beats"
    beats.touch()
    children = Children(
        lambda _severity, text: told.append(text), lambda: clock[0], hangs_s=3.0, given_up_s=6.0
    )
    jobs = {
        "hangs": Job((sys.executable, "-c", SILENT), "The silent one"),
        "lives": Job((sys.executable, "-c", LIVELY, str(beats)), "The lively one"),
    }

    def pids() -> dict[str, int]:
        """A second passes, in which the lively one says something, however slow this machine is."""
        children.want(jobs)
        said = beats.stat().st_size
        until(lambda: beats.stat().st_size > said + 1)
        children.want(jobs)
        clock[0] += 1.0
        return children.pids()

    try:
        first = pids()
        until(lambda: pids() and told)
        assert "The silent one hasn't answered for" in told[0]
        assert pids()["hangs"] == first["hangs"]  # told before anything is done about it
        until(lambda: pids().get("hangs", first["hangs"]) != first["hangs"])
        assert any(
            text.startswith("The silent one was killed by signal 9; it's started again") for text in told
        )
        assert children.pids()["lives"] == first["lives"]
        assert not [text for text in told if "lively" in text]
    finally:
        children.stop(grace_s=1.0)


# -- the catalog ------------------------------------------------------------------------------


@pytest.mark.service
@pytest.mark.slow
def test_acquisition_on_postgresql_outlives_a_server_that_goes_and_comes_back(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    (tmp_path / "site" / "share").mkdir(parents=True)
    url = postgres.new_database()
    scope = f'[microscopes.tem1]\nsources = ["{tmp_path / "site" / "share"}"]\n'
    house = House(tmp_path / "site", more=f'{scope}[catalog]\nurl = "{url}"\n')

    def proved() -> list[str]:
        query = select(SourceFile.key).where(SourceFile.state == FileState.PROVED)
        return sorted(house.read(lambda orm: list(orm.scalars(query)), url))

    write_movie(share(house) / "s" / "a.mrc", frames(1))
    say(house, "start", "--no-process", "--source", "s")
    with house.running("acquire") as service:
        until(lambda: proved() == ["a.mrc"])
        postgres.stop()
        try:
            write_movie(share(house) / "s" / "b.mrc", frames(2))
            time.sleep(2.0)  # some looks fail meanwhile
            assert service.poll() is None
        finally:
            postgres.start()
        until(lambda: proved() == ["a.mrc", "b.mrc"])
        service.send_signal(signal.SIGTERM)
        assert service.wait(120) == 0
    assert "Traceback" not in house.said


# -- sharing ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_two_nodes_that_live_share_the_microscopes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("tem1", "tem2")
    for name in names:
        (tmp_path / name).mkdir()
    scopes = "".join(f'[microscopes.{name}]\nsources = ["{tmp_path / name}"]\n' for name in names)
    house = House(tmp_path / "site", more=scopes)
    say(house, "start", "-m", "tem1", "--no-process")  # creates the catalog; tem1 is busy, tem2 idle

    def holders() -> dict[str, str]:
        rows = house.read(lambda orm: list(orm.scalars(select(Lease))))
        return {row.name: row.owner.split(":")[0] for row in rows if row.name.startswith("microscope/")}

    with running_on("node1", house, tmp_path, monkeypatch):
        until(lambda: set(holders().values()) == {"node1"} and len(holders()) == 2)
        with running_on("node2", house, tmp_path, monkeypatch) as second:
            until(lambda: holders() == {"microscope/tem1": "node1", "microscope/tem2": "node2"})
            second.send_signal(signal.SIGTERM)
            assert second.wait(120) == 0
        until(lambda: set(holders().values()) == {"node1"})


# -- release by itself ------------------------------------------------------------------------


@pytest.fixture
def crowded(tmp_path: Path) -> Iterator[Custody]:
    """A disk above its high-water mark, with young files; held is a file that isn't proved."""
    marks = {"automatic": True, "interval_s": 0.05, "min_age_h": 1000.0, "high_water": 1e-9, "low_water": 0.0}
    made = Custody(tmp_path, release=marks)
    made.fill(hours=1.0)
    made.add("not proved.mrc", state=FileState.COPIED)
    yield made
    made.catalog.close()


def test_a_full_disk_is_freed_by_itself_of_what_is_proved_however_young(crowded: Custody) -> None:
    keeper = ReleaseKeeper(crowded.config, crowded.catalog, lambda: ["tem1"])
    keeper.start()
    try:
        until(lambda: crowded.on_disk() == {"not proved.mrc"})
    finally:
        keeper.stop()
    log = (crowded.root / "freed.jsonl").read_text()
    assert log.count("vitriflow acquire") >= len(NAMES)


@pytest.mark.parametrize(("automatic", "held"), [(False, ["tem1"]), (True, []), (True, ["tem2"])])
def test_nothing_is_freed_where_nobody_wants_it_or_another_node_holds_the_microscope(
    crowded: Custody, automatic: bool, held: list[str]
) -> None:
    release = crowded.config.release.model_copy(update={"automatic": automatic})
    asked: list[int] = []
    keeper = ReleaseKeeper(
        crowded.config.model_copy(update={"release": release}),
        crowded.catalog,
        lambda: asked.append(1) or held,  # type: ignore[func-returns-value]
    )
    keeper.start()
    if automatic:
        until(lambda: len(asked) > 2)
    keeper.stop()
    assert crowded.on_disk() == {*NAMES, "not proved.mrc"}


def test_a_disk_below_its_high_water_mark_keeps_what_is_young(crowded: Custody) -> None:
    release = crowded.config.release.model_copy(update={"high_water": 1.0})
    asked: list[int] = []
    keeper = ReleaseKeeper(
        crowded.config.model_copy(update={"release": release}),
        crowded.catalog,
        lambda: asked.append(1) or ["tem1"],  # type: ignore[func-returns-value]
    )
    keeper.start()
    until(lambda: len(asked) > 2)
    keeper.stop()
    assert crowded.on_disk() == {*NAMES, "not proved.mrc"}
