"""Starts a program and waits for it: no shell, a time limit, all its children ended with it, its log kept."""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from vitriflow.errors import ProgramError, Reason

_GRACE_S = 3.0  # between asking a program to stop and killing it
_TAIL = 60  # lines of the log that go into the record
_LARGEST_TAIL = 64 * 1024
# Lmod and the like are shell functions. The text is fixed; names and arguments come as arguments.
_MODULES = (
    'n=$1; shift; while [ "$n" -gt 0 ]; do module load "$1" || exit 97; shift; n=$((n-1)); done; exec "$@"'
)
MODULE_FAILED = 97


@dataclass(frozen=True)
class Finished:
    """How a program ended.

    Attributes
    ----------
    code
        Its exit status; negative for a signal.
    text
        The end of what it said, standard output and errors together.
    seconds
        Wall time (s).
    """

    code: int
    text: str
    seconds: float

    @property
    def tail(self) -> list[str]:
        """Its last lines."""
        return self.text.splitlines()[-_TAIL:]


def wrapped(arguments: Sequence[str], wrapper: Sequence[str], modules: Sequence[str]) -> list[str]:
    """The arguments with what the facility puts before them: a container's, and modules to load."""
    whole = [*wrapper, *arguments]
    if modules:
        whole = ["bash", "-l", "-c", _MODULES, "vitriflow", str(len(modules)), *modules, *whole]
    return whole


def launch(
    arguments: Sequence[str],
    folder: Path,
    log: Path,
    *,
    environment: Mapping[str, str] | None = None,
    answers: str | None = None,
    time_limit_s: float = 600.0,
    name: str = "",
) -> Finished:
    """Run a program to its end.

    Parameters
    ----------
    arguments
        The program and its arguments; no shell ever sees them.
    folder
        Where it runs.
    log
        File for what it says.
    environment
        Variables set on top of this process's.
    answers
        Text on its standard input, for programs that ask.
    time_limit_s
        After which it's killed, and all that it started (s).
    name
        How people call it, for messages.

    Raises
    ------
    ProgramError
        ``program.missing`` when it can't be started, ``program.hung`` past the time limit.
    """
    name = name or Path(arguments[0]).name
    given = folder / ".answers"
    given.write_text(answers or "", encoding="utf-8")
    started = time.monotonic()
    with given.open("rb") as asked, log.open("wb") as said:
        try:
            process = subprocess.Popen(
                [*_dies_with_us(), *arguments],
                cwd=folder,
                stdin=asked,
                stdout=said,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(environment or {})},
                start_new_session=True,
            )
        except OSError as error:
            raise ProgramError(
                Reason.PROGRAM_MISSING,
                name,
                f"a program that can be started: {arguments[0]}",
                error.strerror or str(error),
                f"Install {name}, or give its path in facility.toml: [programs] {name} = '/path/to/it'.",
            ) from error
        try:
            code = process.wait(timeout=time_limit_s)
        except subprocess.TimeoutExpired as error:
            raise ProgramError(
                Reason.PROGRAM_HUNG,
                name,
                f"an end within {time_limit_s:g} s",
                f"it still ran and was killed; its last words: {_last(log)}",
                "Set time_limit_s higher if it's only slow; else look whether it waits for a GPU, a licence "
                "or an answer.",
            ) from error
        finally:
            _end(process)
            given.unlink(missing_ok=True)
    return Finished(code, read_tail(log), time.monotonic() - started)


def _dies_with_us() -> list[str]:
    """A worker that's killed takes the program with it (Linux: util-linux's setpriv)."""
    helper = shutil.which("setpriv")
    return [helper, "--pdeathsig", "KILL", "--"] if helper and _can_set_it(helper) else []


def _can_set_it(helper: str) -> bool:
    if helper not in _TRIED:
        done = subprocess.run([helper, "--pdeathsig", "KILL", "--", "true"], capture_output=True, check=False)
        _TRIED[helper] = done.returncode == 0
    return _TRIED[helper]


_TRIED: dict[str, bool] = {}


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End a program and all that it started, also what moved to a session of its own."""
    family: list[psutil.Process] = []
    with contextlib.suppress(psutil.Error):
        family = psutil.Process(process.pid).children(recursive=True)
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=_GRACE_S)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)  # the group outlives its leader
    for child in family:
        with contextlib.suppress(psutil.Error):
            child.kill()
    process.wait()


def read_tail(log: Path) -> str:
    """The end of a log, whatever bytes it holds."""
    try:
        with log.open("rb") as stream:
            stream.seek(max(0, log.stat().st_size - _LARGEST_TAIL))
            return stream.read().decode("utf-8", "replace").replace("\0", "")
    except OSError:
        return ""


def _last(log: Path) -> str:
    lines = [line.strip() for line in read_tail(log).replace("\r", "\n").splitlines() if line.strip()]
    return repr(lines[-1][:200]) if lines else "none"
