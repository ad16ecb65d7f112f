"""What the doctor says of each pool: its commands, its queue, its folder, and whether its kind is tested."""

import importlib.util
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator

from vitriflow.config import Config, PoolSection
from vitriflow.config.compute import TESTED_KINDS
from vitriflow.errors import VitriflowError
from vitriflow.facility.compute.providers import make_provider, python_of
from vitriflow.facility.findings import Finding, Health

_PROGRAMS = {
    "slurm": ("sbatch", "squeue", "scancel"),
    "gridengine": ("qsub", "qstat", "qdel"),
    "lsf": ("bsub", "bjobs", "bkill"),
    "pbs": ("qsub", "qstat", "qdel"),
}
_ASK_S = 15.0


def check_pools(config: Config) -> Iterator[Finding]:
    """A finding for each pool of facility.toml; nothing is sent to any queue."""
    for name, pool in config.compute.pools.items():
        yield _finding(name, pool)


def _finding(name: str, pool: PoolSection) -> Finding:
    subject = f"pool {name}"
    text = f"{pool.kind}: {pool.nodes_min} to {pool.nodes_max} nodes of {pool.workers} workers"
    missing = [program for program in _PROGRAMS.get(pool.kind, ()) if shutil.which(program) is None]
    if missing:
        return Finding(
            subject, Health.BAD, f"{text}; not found: {', '.join(missing)}",
            "Install the scheduler's client programs on this machine, and put them in PATH.",
        )  # fmt: skip
    problem = _try_scratch(pool)
    if problem:
        return Finding(
            subject, Health.BAD, f"{text}; scratch {pool.scratch}: {problem}",
            "Make it, mount it, or give this user the right to write there; nodes need it under this path, too.",
        )  # fmt: skip
    if importlib.util.find_spec("parsl") is None:
        return Finding(subject, Health.BAD, f"{text}; Parsl isn't installed", "Reinstall vitriflow.")
    if pool.python is not None and not os.access(python_of(pool), os.X_OK):
        return Finding(
            subject, Health.BAD, f"{text}; python {pool.python} can't be run here",
            "Name a Python with vitriflow that this machine and the nodes have under the same path.",
        )  # fmt: skip
    answer = _ask(pool)
    if answer:
        return Finding(
            subject, Health.BAD, f"{text}; {answer}",
            "Check that the scheduler runs, and that the partition or queue is spelt as it's called there.",
        )  # fmt: skip
    try:
        make_provider(name, pool)
    except VitriflowError as error:
        return Finding(subject, Health.BAD, f"{text}; {error}")
    if pool.kind not in TESTED_KINDS:
        return Finding(
            subject, Health.NOTE, f"{text}; rendered to Parsl's configuration, not tested by vitriflow",
            "Process a small session there, and look at its results, before you rely on it.",
        )  # fmt: skip
    return Finding(subject, Health.GOOD, text)


def _try_scratch(pool: PoolSection) -> str:
    try:
        with tempfile.TemporaryFile(dir=pool.scratch):
            return ""
    except OSError as error:
        return error.strerror or str(error)


def _ask(pool: PoolSection) -> str:
    """What the scheduler says of the queue; empty when it knows it and takes jobs."""
    if pool.kind == "slurm":
        command = ["sinfo", "--noheader", "--format=%R|%a|%D"]
        if pool.partition:
            command.append(f"--partition={pool.partition}")
    elif pool.kind == "gridengine":
        command = ["qconf", "-sq", pool.queue] if pool.queue else ["qconf", "-sql"]
    else:
        return ""
    if shutil.which(command[0]) is None:
        return ""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_ASK_S, check=False)
    except subprocess.TimeoutExpired:
        return f"'{' '.join(command)}' didn't answer within {_ASK_S:.0f} s"
    except OSError as error:
        return f"'{command[0]}' can't be run: {error.strerror}"
    if done.returncode != 0:
        return f"'{' '.join(command)}' says: {(done.stderr or done.stdout).strip()}"
    lines = [line.split("|") for line in done.stdout.splitlines() if line.count("|") == 2]
    if pool.kind == "slurm" and not lines:
        return f"there's no partition '{pool.partition}'" if pool.partition else "it has no partitions"
    down = [fields[0] for fields in lines if fields[1] != "up"]
    return f"partition {', '.join(down)} is down" if down and len(down) == len(lines) else ""
