"""kill -9 at any time: nothing is lost, nothing is done twice, and the end is as if nothing had happened."""

import os
import random
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest
from sqlalchemy import func, select

from tests.facility.command import House, group_of, until
from tests.facility.conftest import STRONG, Played, play
from vitriflow.catalog import Task
from vitriflow.simulate import Fault

pytestmark = pytest.mark.slow
EXPOSURES, KILLS = 10, 4
MEASURED = {
    "motion": ("status", "frame_shifts_A", "total_A", "mean_intensity", "hot_pixels"),
    "ctf": ("status", "defocus_u_A", "defocus_v_A", "defocus_angle_deg", "fit_resolution_A"),
    "pick": ("status", "n_picks", "threshold", "n_candidates"),
    "preview": ("status", "width", "height"),
}


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Played:
    small = STRONG.model_copy(update={"shape": (256, 256), "n_frames": 4, "dose_per_frame_e_per_A2": 6.0})
    faults = {Fault.TRUNCATED: 1 / EXPOSURES, Fault.ZEROS: 1 / EXPOSURES}
    return play(tmp_path_factory.mktemp("played"), exposures=EXPOSURES, unique=2, movie=small, faults=faults)


@pytest.fixture(scope="module")
def undisturbed(played: Played, tmp_path_factory: pytest.TempPathFactory) -> House:
    house = House(tmp_path_factory.mktemp("undisturbed"))
    house.vitriflow("run", played.source, "--once", *played.settings)
    return house


@pytest.fixture(scope="module")
def killed(played: Played, tmp_path_factory: pytest.TempPathFactory) -> tuple[House, int]:
    """The same session, killed again and again; how many kills hit tasks that were running."""
    house = House(tmp_path_factory.mktemp("killed"))
    rng = random.Random(7)
    hits = 0
    for number in range(KILLS):
        with house.running("run", played.source, *played.settings) as process:
            until(lambda wanted=number + 1: house.said.count("results in") == wanted)
            if number % 3:
                until(lambda: _running(house))
            ready = group_of(process)
            time.sleep(rng.uniform(0.0, 1.5 if number % 3 else 2.0))
            if number % 2:
                os.kill(process.pid, signal.SIGKILL)  # the coordinator alone: its workers have to notice
                process.wait(120)
                until(lambda ready=ready: not any(map(psutil.pid_exists, ready)))
            else:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(120)
        hits += _running(house) > 0
        assert house.counts().reconciles
    house.vitriflow("run", played.source, "--once", *played.settings)
    return house, hits


def _running(house: House) -> int:
    query = select(func.count()).select_from(Task).where(Task.state == "running")
    return int(house.read(lambda orm: orm.scalar(query)))


def test_the_kills_hit_work_under_way(killed: tuple[House, int]) -> None:
    assert killed[1] >= KILLS // 3


def test_each_exposure_has_each_result_exactly_once(killed: tuple[House, int], undisturbed: House) -> None:
    house, _ = killed
    assert set(Counter(house.results()).values()) == {1}
    assert house.results() == undisturbed.results()
    assert len(house.exposures()) == EXPOSURES


def test_counts_reconcile_and_nothing_is_open(killed: tuple[House, int], undisturbed: House) -> None:
    counts = killed[0].counts()
    assert counts.reconciles
    assert counts.arriving == counts.exposures.open == counts.exposures.failed == 0
    assert counts == undisturbed.counts()


def test_bad_files_keep_their_reasons(killed: tuple[House, int], undisturbed: House) -> None:
    outcomes = killed[0].outcomes()
    assert outcomes == undisturbed.outcomes()
    assert {code for _, code, _ in outcomes.values()} >= {"file.truncated", "image.all_zero"}


@pytest.mark.parametrize("node", MEASURED)
def test_results_are_those_of_a_run_that_nobody_disturbed(
    killed: tuple[House, int], undisturbed: House, node: str
) -> None:
    found, expected = (_measured(house, node) for house in (killed[0], undisturbed))
    assert found.keys() == expected.keys()
    for key, values in expected.items():
        assert found[key] == values, key


def _measured(house: House, node: str) -> dict[str, dict[str, Any]]:
    return {key: {n: record[n] for n in MEASURED[node]} for key, record in house.records(node).items()}


def test_what_results_name_is_there_and_whole(killed: tuple[House, int], undisturbed: House) -> None:
    house, _ = killed
    sizes = []
    for one in (house, undisturbed):
        found: dict[str, int] = {}
        for node in MEASURED:
            for record in one.records(node).values():
                for made in record["outputs"].values():
                    path = Path(made["path"])
                    assert not path.name.startswith(".")
                    found[str(path.relative_to(Path(one.session().root)))] = path.stat().st_size
        sizes.append({name.split("/", 2)[-1]: size for name, size in found.items()})
    assert sizes[0].keys() == sizes[1].keys()
    for name, size in sizes[0].items():
        if name.endswith(".mrc"):
            assert size == sizes[1][name], name


def test_nothing_half_written_is_left(killed: tuple[House, int]) -> None:
    root = Path(killed[0].session().root)
    marks = {".gui_projectdir", ".pipeline_has_changed"}  # RELION's own
    assert [path for path in root.rglob(".*") if path.name not in marks] == []


def test_no_worker_outlives_its_run(killed: tuple[House, int]) -> None:
    folder = str(killed[0].folder)
    left = [p.pid for p in psutil.process_iter() if _is_ours(p, folder)]
    assert left == []


def _is_ours(process: psutil.Process, folder: str) -> bool:
    try:
        return process.cwd() == folder
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False
