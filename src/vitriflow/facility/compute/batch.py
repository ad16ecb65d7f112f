"""Steps of several nodes or MPI processes: each call is a batch job of its own, followed in its queue."""

import itertools
import logging
import math
import pickle
import shlex
import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from vitriflow.config import PoolSection
from vitriflow.facility.compute.batch_job import CALL, MPIRUN_VARIABLE, RESULT
from vitriflow.facility.compute.problems import Problem
from vitriflow.facility.compute.providers import grid_engine_options, make_provider, python_of
from vitriflow.facility.compute.runs import run_folder
from vitriflow.pipeline import CallStopped, WorkerDied
from vitriflow.pipeline.pool import CallFuture
from vitriflow.pipeline.worker import DEVICE_VARIABLE
from vitriflow.steps import Resources, find_step

P = ParamSpec("P")
T = TypeVar("T")

_log = logging.getLogger(__name__)
_RESULT_WAIT_S = 10.0  # a shared file system may show a file a little later than its job's end
_MARGIN_MIN = 2.0  # of a job's time limit over its call's


def call_resources(call: Any) -> Resources:
    """What the nodes of a call need: the most that any of them does."""
    found = [Resources()]
    for node in getattr(call, "nodes", ()):
        step = find_step(node.step)
        found.append(step.resources(step.Parameters.model_validate(dict(node.parameters))))
    return Resources(
        threads=max(one.threads for one in found),
        gpus=max(one.gpus for one in found),
        memory_bytes=max(one.memory_bytes for one in found[1:] or found),
        time_limit_s=sum(one.time_limit_s for one in found[1:]) or found[0].time_limit_s,
        nodes=max(one.nodes for one in found),
        mpi=max(one.mpi for one in found),
    )


@dataclass
class _Job:
    """One job in the queue."""

    provider: Any
    number: str
    folder: Path
    future: "CallFuture[Any]"
    what: str
    sent: float
    stopped: bool = False
    ended: float | None = None


class BatchJobs(Executor):
    """Sends each call as a job of its own. A job that ends without a result gives ``WorkerDied`` with the reason.

    Parameters
    ----------
    name, pool
        Of the pool whose scheduler takes the jobs (Slurm or Grid Engine).
    """

    def __init__(self, name: str, pool: PoolSection) -> None:
        self.name = name
        self.pool = pool
        self.slots = {"cpu": pool.nodes_max, "gpu": 0}
        self.threads = pool.threads_per_worker
        self.folder = run_folder(f"{name}-batch", pool)
        self._numbers = itertools.count(1)
        self._providers: dict[Any, Any] = {}
        self._jobs: list[_Job] = []
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._follow, name=f"batch jobs {name}", daemon=True)
        self._thread.start()

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Send a call as a job, with the nodes, processes, GPUs and time that its steps ask for."""
        if self._over.is_set():
            raise RuntimeError("the pool was shut down")
        first: Any = args[0] if args else None
        needs = call_resources(first)
        number = next(self._numbers)
        folder = self.folder / f"job-{number}"
        folder.mkdir()
        payload = bytes(ForkingPickler.dumps((fn, args, kwargs)))
        (folder / CALL).write_bytes(payload)
        future: CallFuture[T] = CallFuture()
        provider = self._provider(needs)
        words = ", ".join(node.node for node in getattr(first, "nodes", ())) or "call"
        device = "cuda" if needs.gpus else "cpu"
        command = "\n".join(
            [
                f"export {MPIRUN_VARIABLE}={shlex.quote(self.pool.mpirun.format(mpi=needs.mpi))}",
                f"export {DEVICE_VARIABLE}={device}",
                f"exec {shlex.quote(python_of(self.pool))} -m vitriflow.facility.compute.batch_job "
                f"{shlex.quote(str(folder))}",
            ]
        )
        tasks = math.ceil(needs.mpi / needs.nodes)
        try:
            job_number = provider.submit(command, tasks, f"vitriflow.{self.name}.{number}")
        except Exception as error:
            future.set_running_or_notify_cancel()
            why = " ".join(str(error).split())
            future.set_exception(
                WorkerDied(f"the queue of pool '{self.name}' refused the job of {words}: {why}")
            )
            return future
        job = _Job(provider, str(job_number), folder, future, words, time.monotonic())
        future.stop_running = lambda: self._stop(job)
        with self._lock:
            self._jobs.append(job)
        return future

    def _provider(self, needs: Resources) -> Any:
        key = (needs.nodes, needs.mpi, needs.gpus, needs.threads, needs.memory_bytes, needs.time_limit_s)
        if key not in self._providers:
            tasks = math.ceil(needs.mpi / needs.nodes)
            memory = math.ceil(needs.memory_bytes / 1e9)
            section = self.pool.model_copy(
                update={
                    "gpus_per_node": needs.gpus,
                    "workers_per_node": tasks,
                    "threads_per_worker": needs.threads,
                    "cores_per_node": tasks * needs.threads,
                    "memory_GB": memory if self.pool.memory_GB else None,
                    "walltime_min": max(1.0, needs.time_limit_s / 60 + _MARGIN_MIN),
                }
            )
            provider = make_provider(self.name, section)
            provider.nodes_per_block = needs.nodes
            if self.pool.kind == "gridengine":
                options = grid_engine_options(section, needs.nodes, needs.mpi)
                provider.scheduler_options = "\n".join(options)
            scripts = self.folder / "submit_scripts"
            scripts.mkdir(exist_ok=True)
            provider.script_dir = str(scripts)
            self._providers[key] = provider
        return self._providers[key]

    def _stop(self, job: _Job) -> None:
        job.stopped = True
        job.provider.cancel([job.number])

    def _follow(self) -> None:
        while not self._over.wait(min(2.0, self.pool.poll_s)):
            with self._lock:
                jobs = list(self._jobs)
            for job in jobs:
                try:
                    done = self._look(job)
                except Exception as error:  # whatever a queue's command did: it's asked again
                    _log.warning("job %s of pool '%s' can't be followed: %s", job.number, self.name, error)
                    continue
                if done:
                    with self._lock:
                        self._jobs.remove(job)

    def _look(self, job: _Job) -> bool:
        """See how a job is; True when it's over and its future knows."""
        result = job.folder / RESULT
        (status,) = job.provider.status([job.number])
        future = job.future
        if result.exists():
            kind, value = pickle.loads(result.read_bytes())
            shutil.rmtree(job.folder, ignore_errors=True)
            if future.running() or future.set_running_or_notify_cancel():
                if kind == "result":
                    future.set_result(value)
                else:
                    future.set_exception(value)
            return True
        if future.cancelled():
            job.provider.cancel([job.number])
            return True
        if not status.terminal:
            job.ended = None
            if status.status_name == "RUNNING" and not future.running():
                future.set_running_or_notify_cancel()
            return False
        job.ended = job.ended or time.monotonic()
        if (
            not job.stopped
            and time.monotonic() - job.ended < _RESULT_WAIT_S
            and status.status_name == "COMPLETED"
        ):
            return False
        if future.running() or future.set_running_or_notify_cancel():
            if job.stopped:
                future.set_exception(CallStopped("the job was stopped while it ran"))
            else:
                future.set_exception(WorkerDied(self._why(job, status)))
        return True

    def _why(self, job: _Job, status: Any) -> str:
        scripts = Path(job.provider.script_dir)
        tail = ""
        for path in sorted(
            scripts.glob(f"vitriflow.{self.name}.{job.folder.name.removeprefix('job-')}.*stderr")
        ):
            lines = [line for line in path.read_text(errors="replace").splitlines() if line.strip()]
            tail = " / ".join(lines[-3:])[-400:]
        parts = [f"job {job.number} of pool '{self.name}' ended without a result", status.message or "", tail]
        return ": ".join(part for part in parts if part)

    def problems(self) -> list[Problem]:
        """Jobs that wait for too long, with the queue's reasons."""
        found = []
        with self._lock:
            jobs = list(self._jobs)
        for job in jobs:
            minutes = (time.monotonic() - job.sent) / 60
            if job.future.running() or job.future.done() or minutes < self.pool.wait_alarm_min:
                continue
            why = job.provider.reasons().get(job.number) or "the queue gives no reason"
            text = f"Job {job.number} of pool '{self.name}' ({job.what}) has waited for {minutes:.0f} min: {why}."
            found.append(Problem(f"{self.name}/job-{job.number}", text))
        return found

    def details(self) -> dict[str, Any]:
        """Jobs that run and wait."""
        with self._lock:
            running = sum(job.future.running() for job in self._jobs)
            return {"jobs": {"running": running, "pending": len(self._jobs) - running}}

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls; with ``cancel_futures`` take the jobs out of the queue."""
        while wait and not cancel_futures and self._jobs:
            time.sleep(0.1)
        self._over.set()
        if threading.current_thread() is not self._thread:
            self._thread.join()
        with self._lock:
            left, self._jobs = self._jobs, []
        for job in left:
            job.provider.cancel([job.number])
            if job.future.running() or job.future.set_running_or_notify_cancel():
                job.future.set_exception(WorkerDied("the pool was shut down"))
