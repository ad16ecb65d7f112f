"""Parsl's providers with what they lack: the queue's own reason why a job waits, and one question for all jobs.

Parsl asks squeue for each job by its number, and takes a job that squeue no longer knows for a failed
question: without accounting (sacct) a finished pilot then counts as running for ever. Here the
queue is asked once for all jobs of this user, and a job that isn't in it has ended.
"""

import logging
import os
import re
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from parsl.jobs.states import JobState, JobStatus
from parsl.providers import GridEngineProvider, LocalProvider, SlurmProvider

_log = logging.getLogger(__name__)
_SLURM = {
    "PENDING": JobState.PENDING,
    "CONFIGURING": JobState.PENDING,
    "REQUEUED": JobState.PENDING,
    "REQUEUE_HOLD": JobState.HELD,
    "RUNNING": JobState.RUNNING,
    "COMPLETING": JobState.RUNNING,
    "STAGE_OUT": JobState.RUNNING,
    "SUSPENDED": JobState.RUNNING,
    "STOPPED": JobState.RUNNING,
    "COMPLETED": JobState.COMPLETED,
    "CANCELLED": JobState.CANCELLED,
    "TIMEOUT": JobState.TIMEOUT,
    "DEADLINE": JobState.TIMEOUT,
    "PREEMPTED": JobState.TIMEOUT,
}
_POLITE_S = 3.0
_GRACE_S = 5.0  # a job may be missing from the queue's answer for so long after it was sent


class _Watched:
    """What is known of each job besides its state: the queue's reason, and since when it's been pending."""

    resources: dict[Any, Any]

    def reasons(self) -> dict[str, str]:
        """The queue's reason for each job that waits."""
        return {
            job: entry.get("reason", "")
            for job, entry in self.resources.items()
            if entry["status"].state in (JobState.PENDING, JobState.HELD)
        }


class SlurmJobs(_Watched, SlurmProvider):  # type: ignore[misc]
    """Slurm, asked with one squeue for all jobs."""

    def _status(self) -> None:
        cmd = "squeue --me --noheader --states=all --format='%i|%T|%r'"
        if self.clusters:
            cmd += f" --clusters={self.clusters}"
        code, out, err = self.execute_wait(cmd)
        if code != 0:
            _log.warning("squeue failed: %s", (err or out).strip())
            return
        seen = {}
        for line in out.splitlines():
            fields = line.strip().split("|")
            if len(fields) == 3:
                seen[fields[0]] = fields[1:]
        for job, entry in self.resources.items():
            if entry["status"].terminal:
                continue
            if job in seen:
                state, entry["reason"] = _SLURM.get(seen[job][0], JobState.FAILED), seen[job][1]
                message = f"Slurm says {seen[job][0]} ({seen[job][1]})"
            elif time.time() - entry.setdefault("sent", time.time()) < _GRACE_S:
                continue
            else:
                state, message = JobState.COMPLETED, "the job isn't in the queue any more"
            entry["status"] = JobStatus(
                state,
                message=message,
                stdout_path=entry.get("job_stdout_path"),
                stderr_path=entry.get("job_stderr_path"),
            )

    def living(self, jobs: Sequence[str]) -> list[str]:
        """Those of our jobs that the queue still has."""
        code, out, _ = self.execute_wait("squeue --me --noheader --format=%i")
        return [job for job in jobs if job in out.split()] if code == 0 else []

    def submit(self, *args: Any, **kwargs: Any) -> Any:
        """Send a job, and remember when."""
        job = super().submit(*args, **kwargs)
        self.resources[job]["sent"] = time.time()
        return job


_GRID_ENGINE_ENDS = "the job isn't in the queue any more"


class GridEngineJobs(_Watched, GridEngineProvider):  # type: ignore[misc]
    """Grid Engine, with its reasons (``qstat -j``)."""

    def _status(self) -> None:
        code, out, err = self.execute_wait("qstat -u '*'")
        if code != 0:
            _log.warning("qstat failed: %s", (err or out).strip())
            return
        seen = {fields[0]: fields[4] for fields in map(str.split, out.splitlines()) if len(fields) > 4}
        for job, entry in self.resources.items():
            if entry["status"].terminal:
                continue
            if job not in seen:
                if time.time() - entry.setdefault("sent", time.time()) >= _GRACE_S:
                    entry["status"] = JobStatus(JobState.COMPLETED, message=_GRID_ENGINE_ENDS)
                continue
            state = seen[job]
            if "E" in state or state.startswith("d"):
                kind = JobState.FAILED if "E" in state else JobState.COMPLETED
            elif "q" in state:
                kind = JobState.HELD if "h" in state else JobState.PENDING
            else:
                kind = JobState.RUNNING
            if kind in (JobState.PENDING, JobState.HELD, JobState.FAILED):
                entry["reason"] = self._reason(job)
            entry["status"] = JobStatus(kind, message=f"Grid Engine says {state} ({entry.get('reason', '')})")
            if kind == JobState.FAILED:
                self.execute_wait(f"qdel {job}")  # it would stay in the queue as an error for ever

    def _reason(self, job: str) -> str:
        code, out, _ = self.execute_wait(f"qstat -j {job}")
        return grid_engine_reason(out) if code == 0 else ""

    def living(self, jobs: Sequence[str]) -> list[str]:
        """Those of our jobs that the queue still has."""
        code, out, _ = self.execute_wait("qstat -u '*'")
        there = {line.split()[0] for line in out.splitlines() if line.split()}
        return [job for job in jobs if job in there] if code == 0 else []

    def submit(self, *args: Any, **kwargs: Any) -> Any:
        """Send a job; one that's refused says why."""
        job_name = kwargs.get("job_name") or (args[2] if len(args) > 2 else "parsl.sge")
        # Grid Engine wants names that begin with a letter and have no slashes.
        job = super().submit(args[0], args[1], re.sub(r"[^A-Za-z0-9_.-]", "_", job_name))
        if job is None:
            raise RuntimeError("qsub refused the job; its answer stands in the log")
        self.resources[job]["sent"] = time.time()
        return job

    def execute_wait(self, cmd: str, timeout: int | None = None) -> Any:
        """As Parsl's, but what qsub says when it refuses a job is kept."""
        code, out, err = super().execute_wait(cmd, timeout)
        if code != 0 and cmd.startswith("qsub"):
            raise RuntimeError(f"qsub says: {(err or out).strip()}")
        return code, out, err


def grid_engine_reason(text: str) -> str:
    """The reason that ``qstat -j`` gives: an error, else what the scheduler says."""
    found = []
    inside = False
    for line in text.splitlines():
        if line.startswith("error reason"):
            return line.partition(":")[2].strip()
        if line.startswith("scheduling info:"):
            inside = True
            line = line.removeprefix("scheduling info:")
        elif line[:1].strip():
            inside = False
        if inside and line.strip():
            found.append(line.strip())
    return "; ".join(found[:3])


class LocalJobs(_Watched, LocalProvider):  # type: ignore[misc]
    """Pilots on this machine. Their whole process group goes, and is waited for."""

    def cancel(self, job_ids: Any) -> list[bool]:
        """End pilots: politely, then not."""
        for job in job_ids:
            self.resources[job]["cancelled"] = True
            _end_group(self.resources[job]["remote_pid"])
        return [True for _ in job_ids]


def _end_group(pid: int) -> None:
    """End the process group that a process belongs to, and wait until nobody is left of it."""
    with suppress(ProcessLookupError):
        group = os.getpgid(pid)
        if group == os.getpgrp():
            return  # never our own
        for number, seconds in ((signal.SIGTERM, _POLITE_S), (signal.SIGKILL, _POLITE_S)):
            os.killpg(group, number)
            deadline = time.monotonic() + seconds
            while time.monotonic() < deadline:
                os.killpg(group, 0)  # until nobody answers
                time.sleep(0.05)
