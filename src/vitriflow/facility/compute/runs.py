"""Folders of runs: scripts, logs and notes of one pool, for as long as its process lives and a little longer."""

import os
import shutil
import socket
import time
from pathlib import Path

from vitriflow.config import PoolSection
from vitriflow.errors import BadConfig

_KEEP_RUNS = 5


def run_folder(name: str, pool: PoolSection) -> Path:
    """A new folder for this run; those of runs that ended long ago are removed."""
    home = pool.scratch / "vitriflow-pools" / name
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    folder = home / f"{stamp}-{socket.gethostname()}-{os.getpid()}-{time.monotonic_ns() % 10**6:06d}"
    try:
        folder.mkdir(parents=True, mode=0o700)
    except OSError as error:
        raise BadConfig(
            f"[compute.pools.{name}] scratch {pool.scratch}",
            "a folder that this machine and the nodes can write",
            error.strerror or str(error),
            "Make it, mount it, or give this user the right to write there.",
        ) from error
    mine = f"-{socket.gethostname()}-"
    old = sorted(one for one in home.iterdir() if mine in one.name and one != folder and not _lives(one))
    for one in old[:-_KEEP_RUNS]:
        shutil.rmtree(one, ignore_errors=True)
    return folder


def _lives(folder: Path) -> bool:
    """Whether the process that made a run's folder on this machine is still there."""
    pid = folder.name.rsplit("-", 2)[-2]
    return pid.isdigit() and Path(f"/proc/{pid}").exists()
