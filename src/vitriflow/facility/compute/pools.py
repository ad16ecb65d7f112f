"""Makes the pool that facility.toml describes: this machine, clusters, a burst pool, batch jobs, shared fairly."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import ExitStack
from functools import lru_cache
from typing import Any, ParamSpec, TypeVar

import orjson

from vitriflow.config import Config
from vitriflow.config.compute import HERE
from vitriflow.facility.compute.batch import BatchJobs
from vitriflow.facility.compute.bursting import BurstGate
from vitriflow.facility.compute.fair import SharedPool
from vitriflow.facility.compute.parsl_pool import ParslPool
from vitriflow.facility.compute.problems import Problem
from vitriflow.facility.compute.staging import StagedPool
from vitriflow.pipeline import LocalPool, count_gpus
from vitriflow.steps import find_step

P = ParamSpec("P")
T = TypeVar("T")


def make_pool(config: Config) -> SharedPool:
    """The pool of this process, as configured: all sessions that it processes share it.

    Raises
    ------
    BadConfig
        When a pool can't be used as it's configured.
    """
    compute = config.compute
    with ExitStack() as opened:  # what was opened is closed when the next can't be

        def open_pool(pool: Any) -> Any:
            opened.callback(lambda: pool.shutdown(wait=True, cancel_futures=True))
            return pool

        local: LocalPool | None = None
        if HERE in (compute.cpu, compute.gpu):
            local = open_pool(local_pool(config, cpus=compute.cpu == HERE, gpus=compute.gpu == HERE))
        made: dict[str, Executor] = {}
        for name in dict.fromkeys((compute.cpu, compute.gpu)):
            if name == HERE:
                assert local is not None
                made[name] = local
            else:
                made[name] = open_pool(ParslPool(name, compute.pools[name]))
        cpu, gpu = made[compute.cpu], made[compute.gpu]
        batch = None
        if compute.batch is not None:
            batch = open_pool(BatchJobs(compute.batch, compute.pools[compute.batch]))
        inner: Executor = cpu
        if cpu is not gpu or batch is not None:
            inner = FacilityPool(cpu, gpu, batch)
        gate = None
        if compute.burst is not None:
            section, pool = compute.burst, compute.pools[compute.burst.pool]
            away: Executor = open_pool(ParslPool(section.pool, pool))
            if section.stage:
                away = StagedPool(away, pool.scratch / "vitriflow-staged" / f"{os.getpid()}")
            gate = BurstGate(section, away, pool.cost_per_node_h, pool.workers)
            if isinstance(away, StagedPool):
                away.moved = gate.moved
        shared = SharedPool(inner, compute, gate)
        opened.pop_all()
        return shared


def local_pool(config: Config, *, cpus: bool = True, gpus: bool = True) -> LocalPool:
    """Worker processes of this machine, as configured."""
    workers, threads = config.compute.resolved(len(os.sched_getaffinity(0)))
    wanted = config.compute.gpus if gpus else []
    if wanted:
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, wanted))  # workers see only these, from 0 on
    found = count_gpus() if wanted is None else len(wanted)
    if not cpus and not found:
        cpus = True  # GPU work without a GPU is done by the CPUs
    return LocalPool(workers if cpus else 0, gpus=found, threads=threads, preload=("vitriflow.kernels",))


class FacilityPool(Executor):
    """CPU work to one pool, GPU work to another, and steps of several nodes to a batch queue.

    Parameters
    ----------
    cpu, gpu
        May be the same.
    batch
        Takes calls whose steps ask for more than one node or MPI process.
    """

    def __init__(self, cpu: Executor, gpu: Executor, batch: BatchJobs | None = None) -> None:
        self._cpu, self._gpu, self._batch = cpu, gpu, batch
        ours: dict[str, int] = getattr(cpu, "slots", {})
        theirs: dict[str, int] = getattr(gpu, "slots", {})
        self.slots = {"cpu": ours.get("cpu", 0), "gpu": theirs.get("gpu", 0)}
        if not self.slots["gpu"] and gpu is not cpu:
            self._gpu = cpu  # no GPUs there: the CPUs do it
        self.threads = int(getattr(cpu, "threads", 1))
        self.ahead = max(int(getattr(pool, "ahead", 0)) for pool in (cpu, gpu))

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Send a call where it belongs."""
        first: Any = args[0] if args else None
        if self._batch is not None and is_of_many(first):
            return self._batch.submit(fn, *args, **kwargs)
        gpu = bool(getattr(first, "gpu", False)) or not self.slots["cpu"]
        return (self._gpu if gpu else self._cpu).submit(fn, *args, **kwargs)

    def _all(self) -> Iterator[Any]:
        yield self._cpu
        if self._gpu is not self._cpu:
            yield self._gpu
        if self._batch is not None:
            yield self._batch

    def problems(self) -> list[Problem]:
        """What's wrong with any of them."""
        return [problem for pool in self._all() for problem in getattr(pool, "problems", list)()]

    def details(self) -> dict[str, Any]:
        """What to show of each, by name."""
        return {
            getattr(pool, "name", HERE) + ("-batch" if pool is self._batch else ""): pool.details()
            for pool in self._all()
            if hasattr(pool, "details")
        }

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Shut all of them down."""
        for pool in self._all():
            pool.shutdown(wait=wait, cancel_futures=cancel_futures)


def is_of_many(call: Any) -> bool:
    """Whether a step of a call asks for more than one node or MPI process."""
    for node in getattr(call, "nodes", ()):
        values = orjson.dumps(dict(node.parameters), default=str, option=orjson.OPT_SORT_KEYS)
        if _asks_for_many(node.step, values):
            return True
    return False


@lru_cache(maxsize=256)
def _asks_for_many(step_name: str, values: bytes) -> bool:
    step = find_step(step_name)
    needs = step.resources(step.Parameters.model_validate(orjson.loads(values)))
    return bool(needs.nodes > 1 or needs.mpi > 1)
