"""GPUs that are given by a scheduler, and steps of several processes as jobs of their own, on a real Slurm."""

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clusters import Cluster
from tests.conftest import REPOSITORY
from tests.facility.command import until
from tests.facility.compute.calls import Held, seen, sleep
from tests.facility.compute.conftest import cluster_of, section_of
from vitriflow.facility.compute import BatchJobs, FacilityPool, ParslPool, is_of_many
from vitriflow.pipeline import CallStopped, GroupCall, NodeCall, WorkerDied
from vitriflow.pipeline.worker import run_group
from vitriflow.steps import Artifact, Kind, registry

pytestmark = [pytest.mark.service, pytest.mark.slow]
LONG_S = 200
MPIRUN = "mpirun --allow-run-as-root --oversubscribe -n {mpi}"


@pytest.fixture(scope="module")
def slurm() -> Iterator[Cluster]:
    with cluster_of("slurm") as made:
        yield made


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The step of two processes, for this process and for jobs."""
    shutil.copy(Path(__file__).with_name("ranks_step.py"), tmp_path / "vf_ranks_step.py")
    info = tmp_path / "vf_ranks_step-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: vf-ranks-step\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[vitriflow.steps]\nranks.any = vf_ranks_step:Ranks\n")
    monkeypatch.syspath_prepend(tmp_path)
    registry._points.cache_clear()
    yield tmp_path
    registry._points.cache_clear()
    registry._installed.cache_clear()
    sys.modules.pop("vf_ranks_step", None)


def test_each_worker_sees_the_one_gpu_that_slurm_gave_it(slurm: Cluster, tmp_path: Path) -> None:
    if os.environ.get("CUDA_VISIBLE_DEVICES") is not None:
        pytest.skip("CUDA_VISIBLE_DEVICES is set here, and would be seen by jobs")
    script = slurm.shared / "other.sh"
    script.write_text("#!/bin/sh\nsleep 600\n")
    other = slurm.say("sbatch", "--parsable", "--gres=gpu:1", str(script)).strip()
    until(lambda: "RUNNING" in slurm.say("squeue", "--noheader", "--format=%T", "--job", other))
    pool = ParslPool("gpus", section_of(slurm.shared, "slurm", gpus_per_node=1, partition="cpu"))
    try:
        assert pool.slots == {"cpu": 0, "gpu": 1}
        around = pool.submit(seen, Held(gpu=True)).result(LONG_S)
        assert around["CUDA_VISIBLE_DEVICES"] == "1", "somebody else has the first"
        assert around["VITRIFLOW_DEVICE"] == "cuda:0", "of those that it sees, the first"
    finally:
        slurm.cancel(other)
        pool.shutdown(cancel_futures=True)
    pool = ParslPool("gpus", section_of(slurm.shared, "slurm", gpus_per_node=2, partition="cpu"))
    try:
        marks = [tmp_path / "a", tmp_path / "b"]
        both = [pool.submit(sleep, Held(gpu=True), 3.0, str(mark)) for mark in marks]
        until(lambda: all(mark.exists() for mark in marks))
        workers = [Path(f"/proc/{mark.read_text()}/environ") for mark in marks]
        assert len({str(worker) for worker in workers}) == 2
        again = [pool.submit(seen, Held(gpu=True)) for _ in range(12)]
        assert [one.result(LONG_S) for one in both] == ["slept"] * 2
        given = {one["pid"]: one["CUDA_VISIBLE_DEVICES"] for one in (call.result(LONG_S) for call in again)}
        assert set(given.values()) <= {"0", "1"}
        assert len(set(given.values())) == len(given), "one worker to a GPU"
    finally:
        pool.shutdown(cancel_futures=True)


def test_a_step_of_several_processes_is_a_job_of_its_own(slurm: Cluster, plugin: Path) -> None:
    movie = Artifact(kind=Kind.MOVIE, path=plugin / "m.mrc")
    node = NodeCall("ranks", "ranks.any", {}, {"movie": movie}, frozenset(), str(plugin))
    call = GroupCall(exposure_id=1, item="m", nodes=(node,), metadata={})
    assert is_of_many(call)
    lines = [f"export PYTHONPATH={REPOSITORY}:{plugin}"]
    section = section_of(slurm.shared, "slurm", partition="cpu", mpirun=MPIRUN, worker_init=lines)
    jobs = BatchJobs("farm", section)
    pool = FacilityPool(ParslPoolThatIsNotAsked(), ParslPoolThatIsNotAsked(), jobs)
    try:
        back = pool.submit(run_group, call).result(LONG_S)
        assert back.records["ranks"]["ranks"] == "rank 0 rank 1", back.records
        assert back.records["ranks"]["job"]
        # one that is cancelled by an administrator says so, and one that we stop is stopped
        lost = jobs.submit(sleep, Held(), 600.0)
        until(lambda: lost.running())
        (job,) = until(lambda: slurm.jobs() if len(slurm.jobs()) == 1 else None)
        slurm.cancel(job)
        with pytest.raises(WorkerDied, match=f"job {job} of pool 'farm' ended without a result"):
            lost.result(LONG_S)
        stopped = jobs.submit(sleep, Held(), 600.0)
        until(lambda: stopped.running())
        assert stopped.cancel()
        with pytest.raises(CallStopped):
            stopped.result(LONG_S)
        until(lambda: not slurm.jobs())
    finally:
        pool.shutdown(cancel_futures=True)


class ParslPoolThatIsNotAsked:
    """A pool to which nothing may come."""

    slots = {"cpu": 1, "gpu": 0}

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        return
