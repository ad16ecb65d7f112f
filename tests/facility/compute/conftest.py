"""Pools with short times, on this machine and on real clusters."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.clusters import Cluster, GridEngine, Slurm
from tests.conftest import REPOSITORY, STRICT
from tests.facility.command import until
from vitriflow.config import PoolSection
from vitriflow.facility.compute import ParslPool

KINDS = {"slurm": Slurm, "gridengine": GridEngine}
QUICK: dict[str, Any] = {"poll_s": 0.25, "lost_after_s": 6, "idle_s": 600}


def missing(why: str) -> None:
    """Leave a test out, unless this is where everything has to be."""
    if STRICT:
        pytest.fail(why)
    pytest.skip(why)


@contextmanager
def cluster_of(kind: str) -> Iterator[Cluster]:
    """A cluster, found by the commands of this process while it's there."""
    why = KINDS[kind].missing()
    if why:
        missing(why)
    made = KINDS[kind]()
    before = {name: os.environ.get(name) for name in made.environment}
    os.environ.update(made.environment)
    try:
        yield made
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        made.stop()


def section_of(scratch: Path, kind: str = "local", **values: Any) -> PoolSection:
    """A pool with short times, whose workers find these tests."""
    lines = [f"export PYTHONPATH={REPOSITORY}", *values.pop("worker_init", ())]
    return PoolSection.model_validate(
        {"kind": kind, "scratch": scratch, "worker_init": lines, **QUICK, **values}
    )


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A short path: Parsl's scripts stand below it."""
    folder = Path(tempfile.mkdtemp(prefix="vf-pool-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def open_pool(scratch: Path) -> Iterator[Callable[..., ParslPool]]:
    """Makes pools that are shut down at the end, and leave nobody behind."""
    made: list[ParslPool] = []

    def make(kind: str = "local", **values: Any) -> ParslPool:
        made.append(ParslPool("farm", section_of(scratch, kind, **values)))
        return made[-1]

    yield make
    for pool in made:
        pool.shutdown(cancel_futures=True)
    until(lambda: not working_below(scratch), 60)


def working_below(folder: Path) -> list[str]:
    """Processes that have a folder in their command: pilots, their workers' managers, jobs."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        words = process.info["cmdline"] or ()
        if process.info["status"] != psutil.STATUS_ZOMBIE and any(str(folder) in word for word in words):
            found.append(" ".join(words))
    return found


def pilots_below(folder: Path) -> list[psutil.Process]:
    """The processes of pilots whose logs are below a folder."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or ()
        if any("process_worker_pool" in word for word in words) and any(
            str(folder) in word for word in words
        ):
            found.append(process)
    return found
