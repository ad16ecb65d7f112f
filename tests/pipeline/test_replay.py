"""Exposures of the past run again: what is the same is said, and so is what moved."""

from pathlib import Path

import pytest

import vitriflow
from tests.pipeline.conftest import QUICK, House
from vitriflow.catalog import Measure
from vitriflow.errors import BadParameter
from vitriflow.facility.replay import replay

LINE = "name: line\nnodes:\n  motion: {step: play.measured, inputs: {movie: exposure.movie}}\n"


@pytest.fixture
def line(home: House) -> House:
    home.start(LINE)
    home.add("m1,fit_resolution_A=4", "m2,fit_resolution_A=5", "m3")
    for name in ("m1,fit_resolution_A=4", "m2,fit_resolution_A=5"):
        (home.folder / "source" / f"{name}.mrc").touch()
    home.run()
    return home


def test_the_same_software_says_the_same_and_touches_nothing_old(line: House) -> None:
    coordinator = line.coordinator()  # gives an executor that is shut down at the end
    pool = coordinator._flights._executor
    before = line.measure("m1,fit_resolution_A=4")
    done = replay(line.catalog, "s1", "p1", pool, settings=QUICK)
    assert (done.exposures, done.moved) == (2, [])
    assert done.compared["fit_resolution_A"] == 2
    assert done.skipped == ["m3.mrc"], "its file isn't there"
    again = replay(line.catalog, "s1", vitriflow.__version__, pool, settings=QUICK)
    assert again.processing != done.processing
    row = line.catalog.read(lambda s: s.get_one(Measure, (1, before.exposure_id)))
    assert row.change == before.change


def test_a_value_that_moved_is_named_with_what_it_was(line: House) -> None:
    number = line.measure("m1,fit_resolution_A=4").exposure_id

    def spoil(session: object) -> None:
        session.get_one(Measure, (1, number)).fit_resolution_A = 6.0  # type: ignore[attr-defined]

    line.catalog.write(spoil)
    done = replay(line.catalog, "s1", "p1", line.coordinator()._flights._executor, settings=QUICK)
    (moved,) = done.moved
    assert (moved.exposure, moved.value, moved.before, moved.now) == (
        "m1,fit_resolution_A=4.mrc",
        "fit_resolution_A",
        6.0,
        4.0,
    )


def test_what_there_is_to_replay_is_named(line: House, tmp_path: Path) -> None:
    pool = line.coordinator()._flights._executor
    with pytest.raises(BadParameter, match="p1"):
        replay(line.catalog, "s1", "0.0.1", pool)
    with pytest.raises(BadParameter, match="session"):
        replay(line.catalog, "s9", "p1", pool)
    for path in (line.folder / "source").iterdir():
        path.unlink()
    with pytest.raises(BadParameter, match=r"whose files are away.*recall"):
        replay(line.catalog, "s1", "p1", pool)
