"""Parsl's high-throughput executor with a poller of its own: pilots come and go, and trouble is told in words.

Used without Parsl's DataFlowKernel, so there's no usage tracking, no monitoring database, and nothing that
stays behind in the working directory.
"""

import logging
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
from parsl.executors import HighThroughputExecutor
from parsl.executors.high_throughput.errors import CommandClientBadError, CommandClientTimeoutError
from parsl.jobs.job_status_poller import JobStatusPoller
from parsl.jobs.states import JobState

from vitriflow.config import PoolSection
from vitriflow.facility.compute.problems import Problem
from vitriflow.facility.compute.providers import interchange_command, launch_command, make_provider

_log = logging.getLogger(__name__)
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 5.0, 300.0
_END_S = 30.0
_ANSWER_S = 10.0
_LOOPBACK = "127.0.0.1"


class Pilots(HighThroughputExecutor):  # type: ignore[misc]
    """The pilot jobs of one pool.

    A pilot that can't be sent, or ends before it was ever heard of, never makes the pool unusable: the
    next is tried after a pause that grows, and :meth:`problems` says why.
    """

    def __init__(self, name: str, pool: PoolSection, folder: Path, on_lost: Callable[[], None]) -> None:
        self.pool = pool
        self._on_lost = on_lost
        self._name = name
        self._not_before = 0.0
        self._fruitless = 0
        self._why = ""
        self._counted: set[str] = set()
        self._pending_since: float | None = None
        self._heard = False
        beat = max(1, min(5, int(pool.lost_after_s / 4)))
        drain = int(max(60.0, 60.0 * pool.walltime_min - pool.drain_s)) if pool.limited else None
        super().__init__(
            label=name,
            provider=make_provider(name, pool),
            launch_cmd=launch_command(pool),
            interchange_launch_cmd=interchange_command(),
            address=pool.address or _LOOPBACK,  # Parsl's own look at all addresses leaves sockets open
            max_workers_per_node=pool.workers,
            cores_per_worker=float(pool.threads_per_worker),
            available_accelerators=pool.gpus_per_node,
            heartbeat_period=beat,
            heartbeat_threshold=int(pool.lost_after_s),
            drain_period=drain,
            poll_period=50,
            block_error_handler=False,
        )
        if pool.address is None and pool.kind != "local":
            self.address, self.all_addresses = None, _addresses()
        self.run_dir = str(folder)
        self.run_id = folder.name
        scripts = folder / "submit_scripts"
        scripts.mkdir(parents=True, exist_ok=True)
        self.provider.script_dir = str(scripts)
        self._poller: JobStatusPoller | None = None

    @property
    def status_polling_interval(self) -> float:
        """Time between two questions to the queue (s)."""
        return self.pool.poll_s

    @property
    def workers_per_node(self) -> int:
        """Calls side by side on a node."""
        return self.pool.workers

    def start(self) -> None:
        """Start the interchange, and begin to look after the pilots."""
        super().start()
        self._poller = _Poller(self.pool)
        self._poller.add_executors([self])

    @property
    def alive(self) -> bool:
        """Whether the interchange is there, without which nothing can be asked."""
        return self.interchange_proc is not None and self.interchange_proc.poll() is None

    def connected_managers(self) -> list[dict[str, Any]]:
        """Pilots that the interchange has heard of; none when it's gone (Parsl would wait for ever)."""
        return self._ask("MANAGERS")

    def connected_blocks(self) -> list[str]:
        """Numbers of all pilots that were ever heard of."""
        return self._ask("CONNECTED_BLOCKS")

    def _hold_manager(self, manager_id: str) -> None:
        self._ask(["HOLD_MANAGER", manager_id])

    def _ask(self, command: Any) -> list[Any]:
        if not self.alive:
            return []
        try:
            return self.command_client.run(command, timeout_s=_ANSWER_S) or []
        except (CommandClientTimeoutError, CommandClientBadError):
            return []

    def scale_out_facade(self, n: int) -> list[str]:
        """Send pilot jobs, unless it's still the pause after some that came to nothing."""
        if n <= 0 or time.monotonic() < self._not_before:
            return []
        made: list[str] = super().scale_out_facade(n)
        return made

    def scale_in_facade(self, n: int, max_idletime: float | None = None) -> list[str]:
        """End pilots. Asked to end none, Parsl would end all that are idle or just starting."""
        if n <= 0:
            return []
        ended: list[str] = super().scale_in_facade(n, max_idletime)
        return ended

    def handle_errors(self, status: dict[str, Any]) -> None:
        """Count pilots that came to nothing, and those that wait. Called at every poll."""
        if not self.alive or self.bad_state_is_set:
            self._on_lost()
            return
        connected = set(self.connected_blocks())
        self._heard = self._heard or bool(connected)
        for block, job in status.items():
            if block in self._counted or not job.terminal:
                continue
            self._counted.add(block)
            if job.state == JobState.SCALED_IN:
                continue
            if block in connected:
                self._fruitless = 0
            else:
                self._fruitless += 1
                self._why = _said(job)
                pause = min(_FIRST_PAUSE_S * 2 ** (self._fruitless - 1), _LONGEST_PAUSE_S)
                self._not_before = time.monotonic() + pause
                _log.warning("pilot %s of pool '%s' came to nothing: %s", block, self._name, self._why)
        living = [job for job in status.values() if not job.terminal]
        started = any(job.state == JobState.RUNNING for job in living)
        if living and not started:
            self._pending_since = self._pending_since or time.monotonic()
        else:
            self._pending_since = None
        if started and any(m["active"] for m in self.connected_managers()):
            self._fruitless = 0

    def problems(self) -> list[Problem]:
        """What keeps pilots from working just now."""
        found = []
        pool = f"pool '{self._name}' ({self.pool.kind})"
        if self._fruitless and self.outstanding():
            found.append(
                Problem(
                    f"{self._name}/fruitless",
                    f"{self._fruitless} pilot jobs of {pool} in a row came to nothing: {self._why}. "
                    f"Their scripts and logs are in {self.provider.script_dir}; tried again from time to time.",
                )
            )
        since = self._pending_since
        if since is not None and self.outstanding():
            minutes = (time.monotonic() - since) / 60
            if minutes >= self.pool.wait_alarm_min:
                reasons = sorted(set(filter(None, self._reasons().values())))
                why = "; ".join(reasons) or "the queue gives no reason"
                found.append(
                    Problem(
                        f"{self._name}/waiting",
                        f"No pilot job of {pool} has started for {minutes:.0f} min, "
                        f"and {self.outstanding()} calls wait: {why}.",
                    )
                )
        return found

    def _reasons(self) -> dict[str, str]:
        reasons: dict[str, str] = getattr(self.provider, "reasons", dict)()
        return reasons

    def details(self) -> dict[str, Any]:
        """Pilots by state, and calls that are with them."""
        states: dict[str, int] = {}
        for job in list(self.status_facade.values()):
            if not job.terminal:
                name = job.state.name.lower()
                states[name] = states.get(name, 0) + 1
        return {"pilots": states, "calls": self.outstanding()}

    def nodes_heard(self) -> int:
        """Pilots that take calls now."""
        return sum(bool(manager["active"]) for manager in self.connected_managers())

    def close(self) -> None:
        """End all pilots and the interchange, and wait until their jobs have left the queue."""
        poller, self._poller = self._poller, None
        if poller is not None:
            poller.close()
        self._wait_for_jobs()
        self.shutdown(timeout=10.0)
        process = self.interchange_proc
        if process is not None:
            with suppress(Exception):
                process.wait(5)

    def _wait_for_jobs(self) -> None:
        """Until the queue knows our jobs no more; those that didn't hear are told again."""
        deadline = time.monotonic() + _END_S
        jobs = list(self.blocks_to_job_id.values())
        check = getattr(self.provider, "living", None)
        if check is None or not jobs:
            return
        while time.monotonic() < deadline:
            left = check(jobs)
            if not left:
                return
            time.sleep(0.2)
        _log.warning("jobs of pool '%s' are still in the queue: %s", self._name, ", ".join(map(str, left)))


class _Poller(JobStatusPoller):  # type: ignore[misc]
    """Parsl's poller, as often as the pool asks for."""

    def __init__(self, pool: PoolSection) -> None:
        super().__init__(
            strategy="htex_auto_scale", max_idletime=pool.idle_s, strategy_period=min(2.0, pool.poll_s)
        )

    def add_executors(self, executors: Any) -> None:
        """Take charge of pilots. Parsl's thread runs already, so its list is made ready last."""
        self._strategy.add_executors(executors)
        for executor in executors:
            self._executors.append(executor)


def _addresses() -> set[str]:
    """All addresses of this machine: pilots try them, and take the first that answers."""
    known = psutil.net_if_addrs().values()
    return {one.address for addresses in known for one in addresses if one.family == socket.AF_INET}


def _said(job: Any) -> str:
    """What is known of a pilot that came to nothing: the queue's message, and the end of what it printed."""
    parts = []
    message = job.message or ""
    if message and not message.startswith("Job is marked as MISSING"):
        parts.append(" ".join(message.split()))
    for path in (job.stderr_path, job.stdout_path):
        with suppress(OSError, TypeError):
            text = Path(path).read_text(encoding="utf-8", errors="replace").strip()
            lines = [line for line in text.splitlines() if line.strip()]
            if lines:
                parts.append(" / ".join(lines[-3:])[-400:])
                break
    if job.exit_code is not None:
        parts.append(f"exit code {job.exit_code}")
    return "; ".join(parts) or f"it ended ({job.state.name.lower()}) without a word"
