"""What pools run in tests."""

import os
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Held:
    """A call's first argument, as the coordinator's calls are: with what the pool may hold it to."""

    threads: int = 1
    memory_bytes: int = 0
    time_limit_s: float = 600.0
    gpu: bool = False


def seen(call: Held) -> dict[str, str]:
    """The environment of the worker."""
    return dict(os.environ) | {"threads": str(call.threads), "pid": str(os.getpid())}


def sleep(call: Held, seconds: float, mark: str = "") -> str:
    """Sleep; leave a mark that it has begun."""
    if mark:
        Path(mark).write_text(str(os.getpid()))
    time.sleep(seconds)
    return "slept"


def grow(call: Held, megabytes: int) -> int:
    """Take memory, and keep it for a while."""
    block = bytearray(os.urandom(1 << 20) * megabytes)
    time.sleep(30)
    return len(block)


def leave(call: Held) -> None:
    """Die."""
    os._exit(7)


def refuse(call: Held) -> None:
    """An error of the call's own."""
    raise ValueError("no such thing")
