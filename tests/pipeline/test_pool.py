"""The pool of processes survives what happens to its workers."""

import os
import subprocess
import sys
import time
from concurrent.futures import wait
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.pipeline.conftest import PATIENT_S, wait_for
from vitriflow.pipeline import CallStopped, LocalPool, WorkerDied, count_gpus


@dataclass
class Wish:
    gpu: bool = False
    memory_bytes: int = 0


def _pid(*_: object) -> int:
    return os.getpid()


def _device(_: Wish) -> str:
    return os.environ["VITRIFLOW_DEVICE"]


def _sleep(seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()


def _kill_yourself() -> None:
    os.kill(os.getpid(), 9)


def _exit() -> None:
    os._exit(3)


def _fail() -> None:
    raise KeyError("that")


def _grow(_: Wish) -> int:
    hog = bytearray(300 * 2**20)
    hog[::4096] = b"x" * len(hog[::4096])
    time.sleep(30)
    return len(hog)


def _threads() -> tuple[str, int]:
    import torch

    return os.environ["OMP_NUM_THREADS"], torch.get_num_threads()


@pytest.fixture(scope="module")
def pool():
    made = LocalPool(2, threads=1)
    yield made
    made.shutdown()


def test_a_killed_worker_fails_only_its_own_call(pool: LocalPool) -> None:
    sleeping = pool.submit(_sleep, 1.0)
    dying = pool.submit(_kill_yourself)
    with pytest.raises(WorkerDied, match="signal 9"):
        dying.result(PATIENT_S)
    assert sleeping.result(PATIENT_S)
    assert pool.submit(_pid).result(PATIENT_S)


def test_an_idle_worker_that_is_killed_is_replaced(pool: LocalPool) -> None:
    pool.submit(_pid).result(PATIENT_S)
    before = pool.pids()
    for pid in before:
        os.kill(pid, 9)
    assert pool.submit(_pid).result(PATIENT_S) not in before
    wait_for(lambda: len(pool.pids()) == 2 and not set(before) & set(pool.pids()))


def test_a_worker_that_exits_is_told_with_its_code(pool: LocalPool) -> None:
    with pytest.raises(WorkerDied, match="exit code 3"):
        pool.submit(_exit).result(PATIENT_S)


def test_an_error_of_the_call_comes_back_as_itself(pool: LocalPool) -> None:
    with pytest.raises(KeyError, match="that"):
        pool.submit(_fail).result(PATIENT_S)


def test_a_running_call_can_be_stopped(pool: LocalPool) -> None:
    future = pool.submit(_sleep, 60.0)
    wait_for(future.running)
    assert future.cancel()
    with pytest.raises(CallStopped):
        future.result(PATIENT_S)
    assert pool.submit(_pid).result(PATIENT_S)


def test_a_call_that_takes_too_much_memory_is_stopped_before_the_machine_is(pool: LocalPool) -> None:
    with pytest.raises(MemoryError, match="128 MiB are allowed"):
        pool.submit(_grow, Wish(memory_bytes=64 * 2**20)).result(PATIENT_S)


def test_threads_of_the_numeric_libraries_are_limited(pool: LocalPool) -> None:
    assert pool.submit(_threads).result(PATIENT_S) == ("1", 1)


def test_what_can_not_be_pickled_is_refused_at_once(pool: LocalPool) -> None:
    with pytest.raises((AttributeError, TypeError), match="pickle"):
        pool.submit(lambda: 1)


def test_workers_killed_at_random_lose_no_other_call(pool: LocalPool) -> None:
    futures = [pool.submit(_sleep, 0.02) for _ in range(100)]
    for _ in range(4):
        time.sleep(0.2)
        for pid in pool.pids()[:1]:
            os.kill(pid, 9)
    done, waiting = wait(futures, PATIENT_S)
    assert not waiting
    lost = [f for f in done if f.exception() is not None]
    assert len(lost) <= 4
    assert all(isinstance(f.exception(), WorkerDied) for f in lost)


def test_a_call_for_a_gpu_goes_to_the_worker_that_has_it() -> None:
    with LocalPool(1, gpus=2) as pool:
        devices = [pool.submit(_device, Wish(gpu=i % 2 == 0)) for i in range(8)]
        found = [f.result(PATIENT_S) for f in devices]
    assert set(found[0::2]) <= {"cuda:0", "cuda:1"}
    assert set(found[1::2]) == {"cpu"}


def test_visible_gpus_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert count_gpus() == 0
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert count_gpus() == 0


def test_workers_that_can_not_start_fail_the_call_instead_of_hanging() -> None:
    with LocalPool(1, preload=["no.such.module"]) as pool, pytest.raises(WorkerDied, match="don't start"):
        pool.submit(_pid).result(PATIENT_S)


def test_a_pool_without_workers_is_refused() -> None:
    with pytest.raises(ValueError, match="can't run anything"):
        LocalPool(0)


def test_shutdown_finishes_what_waits_and_leaves_no_process() -> None:
    pool = LocalPool(1)
    futures = [pool.submit(_sleep, 0.05) for _ in range(5)]
    pool.shutdown()
    pids = {f.result(0) for f in futures}
    assert not any(psutil.pid_exists(pid) for pid in pids)
    with pytest.raises(RuntimeError, match="shut down"):
        pool.submit(_pid)


def test_workers_die_with_their_parent_however_it_goes(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        "import time\n"
        "from vitriflow.pipeline import LocalPool\n"
        "if __name__ == '__main__':\n"
        "    pool = LocalPool(2)\n"
        "    running = pool.submit(time.sleep, 600)\n"
        "    pool.submit(time.sleep, 0).result()\n"
        "    print(*pool.pids(), flush=True)\n"
        "    time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pids = [int(word) for word in parent.stdout.readline().split()]
        parent.kill()
    assert len(pids) == 2
    wait_for(lambda: not any(psutil.pid_exists(pid) for pid in pids))
