"""A real Slurm and a real Grid Engine: the same results as here, and what goes wrong on clusters."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pytest

from tests.clusters import Cluster
from tests.facility.command import House, until
from tests.facility.compute.calls import Held, sleep
from tests.facility.compute.conftest import cluster_of, pilots_below, section_of, working_below
from tests.facility.conftest import Played, play
from vitriflow.config import ComputeSection, Config
from vitriflow.facility.compute import ParslPool, check_pools
from vitriflow.facility.findings import Health
from vitriflow.pipeline import WorkerDied

pytestmark = [pytest.mark.service, pytest.mark.slow]
LONG_S = 120
POOL = """
[compute.pools.farm]
kind = "{kind}"
scratch = "{scratch}"
nodes_max = 2
poll_s = 0.25
lost_after_s = 6
threads_per_worker = 2
{queue}
"""
QUEUES = {"slurm": {"partition": "cpu"}, "gridengine": {"queue": "cpu.q"}}


@pytest.fixture(scope="module", params=["slurm", "gridengine"])
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    with cluster_of(request.param) as made:
        yield made


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Played:
    return play(tmp_path_factory.mktemp("played"), exposures=2)


@pytest.fixture(scope="module")
def here(played: Played, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Results of the session, made by this machine's own processes."""
    return results(House(tmp_path_factory.mktemp("here")), played)


def results(house: House, played: Played) -> dict[str, Any]:
    """Process a session; its records without what differs from run to run, and its micrographs."""
    house.vitriflow("run", played.source, "--once", *played.quick)
    assert house.counts().exposures.done == 2
    root = str(house.session().root)
    found: dict[str, Any] = {}
    for node in ("motion", "preview"):
        for key, record in house.records(node).items():
            found[f"{node} {key}"] = _lasting(record, root)
            if node == "motion":
                path = record["outputs"]["micrograph"]["path"]
                found[f"mean and deviation {key}"] = _measured(path)
    return found


def _measured(path: str) -> tuple[str, str]:
    with mrcfile.open(path) as micrograph:
        data = micrograph.data.astype(np.float64)
    return f"{data.mean():.5g}", f"{data.std():.5g}"


def _lasting(value: Any, root: str) -> Any:
    """The same without times, memory and provenance, and numbers as far as threads can't change them."""
    changing = {"seconds", "peak_memory_bytes", "provenance", "blake3"}
    if isinstance(value, dict):
        return {key: _lasting(inner, root) for key, inner in value.items() if key not in changing}
    if isinstance(value, list):
        return [_lasting(inner, root) for inner in value]
    if isinstance(value, float):
        return f"{value:.3g}"
    return value.replace(root, "ROOT") if isinstance(value, str) else value


def on(cluster: Cluster, **values: Any) -> Any:
    return section_of(cluster.shared, cluster.kind, **QUEUES[cluster.kind], **values)


@pytest.fixture
def open_farm(cluster: Cluster) -> Iterator[Callable[..., ParslPool]]:
    """Pools on the cluster; at the end its queue is empty and nobody of ours is left."""
    made: list[ParslPool] = []

    def make(**values: Any) -> ParslPool:
        made.append(ParslPool("farm", on(cluster, **values)))
        return made[-1]

    yield make
    for pool in made:
        pool.shutdown(cancel_futures=True)
    assert cluster.jobs() == []
    until(lambda: not working_below(cluster.shared), 60)


def test_a_session_gives_the_same_results_as_on_this_machine(
    cluster: Cluster, played: Played, here: dict[str, Any], tmp_path: Path
) -> None:
    several = {"parallel_environment": "smp"} if cluster.kind == "gridengine" else {}
    queue = "\n".join(f'{name} = "{value}"' for name, value in (QUEUES[cluster.kind] | several).items())
    house = House(
        tmp_path / "there", more=POOL.format(kind=cluster.kind, scratch=cluster.shared, queue=queue)
    )
    house.config.write_text(house.config.read_text().replace("[compute]\n", '[compute]\ncpu = "farm"\n'))
    assert results(house, played) == here
    assert cluster.jobs() == []
    assert not pilots_below(cluster.shared)


def test_calls_outlive_a_killed_pilot_and_a_job_that_is_cancelled_from_outside(
    cluster: Cluster, open_farm: Callable[..., ParslPool], tmp_path: Path
) -> None:
    pool = open_farm()
    for number, end in enumerate((kill_pilots, cancel_jobs)):
        mark = tmp_path / f"began-{number}"
        lost = pool.submit(sleep, Held(), LONG_S, str(mark))
        until(mark.exists)
        end(cluster)
        with pytest.raises(WorkerDied, match="pool 'farm'"):
            lost.result(LONG_S)
        # what the coordinator sends again then finds a new pilot
        assert pool.submit(sleep, Held(), 0.0).result(LONG_S) == "slept"


def kill_pilots(cluster: Cluster) -> None:
    """All of a node at once, as when its power goes."""
    pilots = pilots_below(cluster.shared)
    assert pilots
    for process in [child for pilot in pilots for child in pilot.children(recursive=True)] + pilots:
        process.kill()


def cancel_jobs(cluster: Cluster) -> None:
    """What an administrator does."""
    jobs = cluster.jobs()
    assert jobs
    for job in jobs:
        cluster.cancel(job)


def test_a_queue_that_starts_nothing_is_told_of_with_the_queues_reason(
    cluster: Cluster, open_farm: Callable[..., ParslPool]
) -> None:
    cluster.close_queue()
    try:
        pool = open_farm(wait_alarm_min=0.02)
        waiting = pool.submit(abs, -3)
        problem = until(lambda: next((one for one in pool.problems() if reason_in(one.text)), None), 60)
        assert "No pilot job of pool 'farm'" in problem.text
        assert "1 calls wait" in problem.text
        assert not waiting.done()
    finally:
        cluster.open_queue()
    assert waiting.result(LONG_S) == 3
    until(lambda: not pool.problems(), 60)


def reason_in(text: str) -> bool:
    """Whether it holds what squeue or qstat say of a queue that's closed."""
    return any(word in text for word in ("PartitionInactive", "PartitionDown", "disabled", "cpu.q"))


def test_the_doctor_knows_the_queue_and_one_that_is_not_there(cluster: Cluster) -> None:
    def finding(**values: Any) -> Any:
        section = on(cluster).model_copy(update=values)
        compute = ComputeSection(cpu="farm", pools={"farm": section})
        (found,) = check_pools(Config(compute=compute))
        return found

    assert finding().health == Health.GOOD
    name = next(iter(QUEUES[cluster.kind]))
    wrong = finding(**{name: "no-such-queue"})
    assert wrong.health == Health.BAD
    assert "no-such-queue" in wrong.text
