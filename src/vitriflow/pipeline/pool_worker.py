"""The other side of the pool: a worker process that serves calls from its pipe until it closes."""

import ctypes
import importlib
import os
import pickle
import signal
import sys
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from vitriflow.pipeline.worker import DEVICE_VARIABLE, limit_threads

_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Start:
    """How a worker begins: whose it is, its device, its threads, what it imports first."""

    parent: int
    device: str
    threads: int
    preload: tuple[str, ...]


def serve(pipe: "Connection[Any, Any]", start: Start) -> None:
    """Take calls from the pipe and send back what they make, until the pipe closes."""
    _die_with(start.parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the coordinator, which ends us
    with suppress(OSError):
        # When memory runs out, it's a worker that the kernel takes, not the coordinator.
        Path("/proc/self/oom_score_adj").write_text("500")
    os.environ[DEVICE_VARIABLE] = start.device
    os.environ.setdefault("NUMBA_NUM_THREADS", str(os.cpu_count() or 1))
    limit_threads(start.threads)
    for module in start.preload:
        importlib.import_module(module)
    limit_threads(start.threads)
    with suppress(BrokenPipeError, ConnectionResetError):
        pipe.send(("ready", None))
    while True:
        try:
            payload = pipe.recv_bytes()
            pipe.send(("took", None))
        except (EOFError, BrokenPipeError, ConnectionResetError):
            return
        try:
            function, args, kwargs = pickle.loads(payload)
        except Exception as error:
            answer: tuple[str, Any] = ("error", _plain(error))
        else:
            answer = _answer(function, args, kwargs)
        try:
            pipe.send(answer)
        except (BrokenPipeError, ConnectionResetError):
            return
        except Exception as error:
            pipe.send(("error", RuntimeError(f"what the call made can't be sent back: {error}")))


def _answer(function: Any, args: Any, kwargs: Any) -> tuple[str, Any]:
    try:
        return "result", function(*args, **kwargs)
    except Exception as error:
        return "error", _plain(error)


def _plain(error: Exception) -> Exception:
    """An error that survives the pipe: itself, or one of a known kind with its text."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def _die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent goes, however it goes (prctl(2))."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)  # it went before we could ask
