"""Pilot jobs on this machine: what a coordinator relies on, whatever cluster is behind."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.facility.command import until
from tests.facility.compute.calls import Held, grow, leave, refuse, seen, sleep
from tests.facility.compute.conftest import pilots_below, section_of, working_below
from vitriflow.errors import BadConfig
from vitriflow.facility.compute import ParslPool
from vitriflow.pipeline import CallStopped, WorkerDied

Open = Callable[..., ParslPool]
LONG_S = 120


@pytest.mark.slow
def test_calls_come_back_with_their_results_and_their_own_errors(open_pool: Open) -> None:
    pool = open_pool(worker_init=["export FROM_INIT='a b'"])
    assert pool.slots == {"cpu": 1, "gpu": 0}
    around = pool.submit(seen, Held(threads=7)).result(LONG_S)
    assert around["FROM_INIT"] == "a b"
    assert around["threads"] == "1", "a call has the threads of its pool's workers"
    assert around["OMP_NUM_THREADS"] == "1"
    assert around["VITRIFLOW_DEVICE"] == "cpu"
    with pytest.raises(ValueError, match="no such thing"):
        pool.submit(refuse, Held()).result(LONG_S)
    with pytest.raises(Exception, match=r"pickle|local object"):
        pool.submit(lambda: 1)
    # a worker that dies takes its own call with it, and another takes its place
    with pytest.raises(WorkerDied, match="pool 'farm' died"):
        pool.submit(leave, Held()).result(LONG_S)
    assert pool.submit(abs, -2).result(LONG_S) == 2
    assert pool.problems() == []


@pytest.mark.slow
def test_a_call_is_held_to_its_memory_and_time_and_can_be_stopped(open_pool: Open, tmp_path: Path) -> None:
    pool = open_pool(workers_per_node=2)
    mark = tmp_path / "began"
    running = pool.submit(sleep, Held(), LONG_S, str(mark))
    until(mark.exists)
    large = pool.submit(grow, Held(memory_bytes=100 << 20), 1500)
    with pytest.raises(MemoryError, match="200 MiB are allowed"):
        large.result(LONG_S)
    late = pool.submit(sleep, Held(time_limit_s=0.5), LONG_S)
    with pytest.raises(TimeoutError, match=r"more than 0\.5 s"):
        late.result(LONG_S)
    worker = int(mark.read_text())
    assert running.cancel()
    until(lambda: not Path(f"/proc/{worker}").exists())
    assert pool.submit(abs, -2).result(LONG_S) == 2
    assert CallStopped is not WorkerDied


@pytest.mark.slow
def test_idle_nodes_are_given_back_and_come_again_when_there_is_work(open_pool: Open, scratch: Path) -> None:
    pool = open_pool(idle_s=0.5)
    assert pool.submit(abs, -1).result(LONG_S) == 1
    until(lambda: not pilots_below(scratch))
    assert pool.submit(abs, -2).result(LONG_S) == 2


@pytest.mark.slow
def test_a_lost_interchange_is_replaced_and_no_call_is_lost(open_pool: Open) -> None:
    pool = open_pool()
    assert pool.submit(abs, -1).result(LONG_S) == 1
    waiting = [pool.submit(sleep, Held(), 0.5) for _ in range(3)]
    assert pool._pilots is not None
    assert pool._pilots.interchange_proc is not None
    pool._pilots.interchange_proc.kill()
    assert [call.result(LONG_S) for call in waiting] == ["slept"] * 3


@pytest.mark.slow
def test_pilots_that_come_to_nothing_are_told_of_with_what_they_said(open_pool: Open) -> None:
    pool = open_pool(worker_init=["echo 'module: no such module cuda' >&2; exit 3"])
    waiting = pool.submit(abs, -1)
    (problem,) = until(pool.problems)
    assert "no such module cuda" in problem.text
    assert "came to nothing" in problem.text
    assert not waiting.done()
    assert waiting.cancel()


@pytest.mark.slow
def test_nothing_is_left_when_the_process_is_killed(scratch: Path) -> None:
    code = (
        "import time, sys\n"
        "from pathlib import Path\n"
        "from vitriflow.config import PoolSection\n"
        "from vitriflow.facility.compute import ParslPool\n"
        "pool = ParslPool('farm', PoolSection(kind='local', scratch=Path(sys.argv[1]), poll_s=0.5, lost_after_s=4))\n"
        "print(pool.submit(abs, -1).result(100), flush=True)\n"
        "time.sleep(100)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(scratch)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == "1\n"
        assert pilots_below(scratch)
        os.kill(process.pid, signal.SIGKILL)
        process.wait(30)
    until(lambda: not [one for one in working_below(scratch) if str(process.pid) not in one.split()], 60)


def test_a_scratch_folder_that_can_not_be_written_is_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BadConfig, match="scratch"):
        ParslPool("farm", section_of(tmp_path / "file" / "below"))
