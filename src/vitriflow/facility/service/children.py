"""Child processes under supervision: started again with growing pauses when they die, ended in order."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

Tell = Callable[[str, str], None]  # severity, text

HANGS_S = 120.0  # a child that says nothing for so long is told of
GIVEN_UP_S = 600.0  # and killed after this
SHORTEST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0
CALM_S = 60.0  # a child that lived for so long starts afresh
GRACE_S = 20.0


@dataclass(frozen=True)
class Job:
    """What a child is to do.

    A child with a ``lifeline`` gets ``text`` as the first line of its standard input; when that closes
    later, we're gone, and it ends. It writes something to standard output as long as it goes on.
    ``says`` is its name in sentences for people.
    """

    command: tuple[str, ...]
    says: str
    text: str = ""
    lifeline: bool = True
    quiet_codes: tuple[int, ...] = (0,)
    pause_s: float = 1.0  # until it's started again after one of these exit codes


@dataclass
class _Child:
    job: Job
    process: "subprocess.Popen[bytes] | None" = None
    started: float = 0.0
    failures: int = 0
    not_before: float = 0.0
    asked: float | None = None  # when it was told to end
    heard: float = 0.0  # when it last said that it goes on
    told: bool = False  # people know that it hangs


class Children:
    """Keeps one child for each job that is wanted.

    A child that hangs on a share (in the kernel, where not even SIGKILL reaches it) is left behind
    and never waited for; the others go on. It's replaced once it's really gone.

    Parameters
    ----------
    tell
        Told what dies and what hangs.
    clock
        Replaced in tests.
    hangs_s, given_up_s
        A child that says nothing for so long is told of, and killed.
    """

    def __init__(
        self,
        tell: Tell,
        clock: Callable[[], float] = time.monotonic,
        *,
        hangs_s: float = HANGS_S,
        given_up_s: float = GIVEN_UP_S,
    ) -> None:
        self._tell = tell
        self._clock = clock
        self._hangs_s = hangs_s
        self._given_up_s = given_up_s
        self._children: dict[str, _Child] = {}

    def want(self, jobs: Mapping[str, Job]) -> None:
        """Start what's wanted and not there, end what's no longer wanted, restart what died."""
        for name, child in list(self._children.items()):
            self._reap(name, child)
            if name not in jobs or child.job != jobs[name]:
                self._end(name, child)
        for name, job in jobs.items():
            child = self._children.setdefault(name, _Child(job))
            if child.process is None and child.asked is None and self._clock() >= child.not_before:
                child.job = job
                self._start(name, child)

    def pids(self) -> dict[str, int]:
        """Process ids of those that live."""
        return {name: c.process.pid for name, c in self._children.items() if c.process is not None}

    def stop(self, grace_s: float = GRACE_S) -> None:
        """End all in order; those that don't within the grace period are killed."""
        for name, child in list(self._children.items()):
            self._end(name, child)
        deadline = time.monotonic() + grace_s
        while self._children and time.monotonic() < deadline:
            for name, child in list(self._children.items()):
                self._reap(name, child)
            time.sleep(0.05)
        for child in self._children.values():
            if child.process is not None:
                child.process.kill()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.process.wait(2.0)
        self._children.clear()

    def _start(self, name: str, child: _Child) -> None:
        try:
            process = subprocess.Popen(
                child.job.command,
                stdin=subprocess.PIPE if child.job.lifeline else subprocess.DEVNULL,
                stdout=subprocess.PIPE if child.job.lifeline else None,
            )
        except OSError as error:
            self._failed(child, f"can't be started: {error}")
            return
        child.process, child.started = process, self._clock()
        child.heard, child.told = child.started, False
        if process.stdout is not None:
            os.set_blocking(process.stdout.fileno(), False)
        if process.stdin is not None:
            with contextlib.suppress(OSError):
                process.stdin.write(child.job.text.encode() + b"\n")
                process.stdin.flush()

    def _reap(self, name: str, child: _Child) -> None:
        process = child.process
        if process is None:
            if child.asked is not None:
                self._children.pop(name, None)
            return
        code = process.poll()
        if code is None:
            if child.asked is not None and self._clock() - child.asked > GRACE_S:
                process.kill()  # a child in the kernel's hands stays; it's polled again at the next look
            self._listen(child, process)
            return
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        child.process = None
        if child.asked is not None:
            self._children.pop(name, None)
            return
        if self._clock() - child.started > CALM_S:
            child.failures = 0
        if code in child.job.quiet_codes:
            child.not_before = self._clock() + child.job.pause_s
        else:
            self._failed(child, _how(code))

    def _listen(self, child: _Child, process: "subprocess.Popen[bytes]") -> None:
        """Take in what it says; tell people about one that says nothing any more, later kill it."""
        if process.stdout is None:
            return
        with contextlib.suppress(BlockingIOError):
            if os.read(process.stdout.fileno(), 65536):
                child.heard, child.told = self._clock(), False
        silent = self._clock() - child.heard
        if silent > self._hangs_s and not child.told:
            child.told = True
            text = f"hasn't answered for {silent:.0f} s; a share that hangs does this. Others go on"
            self._tell("alarm", f"{child.job.says} {text}")
        if silent > self._given_up_s:
            process.kill()

    def _failed(self, child: _Child, how: str) -> None:
        pause = min(SHORTEST_PAUSE_S * 2.0**child.failures, LONGEST_PAUSE_S)
        child.failures += 1
        child.not_before = self._clock() + pause
        severity = "warning" if child.failures < 4 else "alarm"
        self._tell(severity, f"{child.job.says} {how}; it's started again in {pause:.0f} s")

    def _end(self, name: str, child: _Child) -> None:
        if child.process is None:
            self._children.pop(name, None)
            return
        if child.asked is None:
            child.asked = self._clock()
            with contextlib.suppress(ProcessLookupError):
                child.process.send_signal(signal.SIGTERM)


def _how(code: int) -> str:
    if code < 0:
        return f"was killed by signal {-code}"
    return f"ended by itself with exit code {code}"
