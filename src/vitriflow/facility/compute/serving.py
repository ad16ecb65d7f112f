"""What runs on a node: one call in a worker of a pilot job, held to its memory and its time.

Parsl has no way to stop a task that runs. So a worker watches over itself: past its time limit, past its
memory, when the pool left a note that the call is stopped, or when its pilot is gone, it ends at
once and says why in a small file. The pilot starts another worker in its place.
"""

import os
import pickle
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitriflow.pipeline.worker import DEVICE_VARIABLE, limit_threads

GPUS_VARIABLE = "VITRIFLOW_JOB_GPUS"  # what the scheduler gave the whole job
_LOOK_S = 0.5
_LOOK_LONG_S = 2.0
_TIME_GRACE_S = 5.0
TIME, MEMORY, STOPPED = "time", "memory", "stopped"


@dataclass(frozen=True)
class Terms:
    """What a call is held to. ``notes`` is the folder for notes between pool and worker."""

    number: str
    notes: str
    time_limit_s: float
    memory_bytes: int  # 0: no limit
    gpu: bool


def stop_note(notes: Path, number: str) -> Path:
    """The file by which the pool stops a call."""
    return notes / f"{number}.stop"


def end_note(notes: Path, number: str) -> Path:
    """The file in which a worker says why it ended itself."""
    return notes / f"{number}.ended"


def execute(buffer: bytes) -> bytes:
    """Run one pickled call; give back ``("result", value)`` or ``("error", exception)``, pickled.

    Named in Parsl's task context, so Parsl's workers import this module and call it.
    """
    terms, payload = pickle.loads(buffer)
    watch = _Watch(terms)
    if watch.asked_to_stop():
        return pickle.dumps(("stopped", "the call was stopped before it ran"))
    _prepare(terms)
    watch.start()
    try:
        function, args, kwargs = pickle.loads(payload)
        answer: tuple[str, Any] = ("result", function(*args, **kwargs))
    except MemoryError as error:
        answer = ("error", MemoryError(str(error) or "not enough memory"))
    except Exception as error:
        answer = ("error", error)
    finally:
        watch.stop()
    try:
        data = pickle.dumps(answer)
        if answer[0] == "error":
            pickle.loads(data)
    except Exception as error:
        kind = type(answer[1]).__name__
        return pickle.dumps(("error", RuntimeError(f"{kind}: {answer[1]} (can't be sent back: {error})")))
    return data


_prepared = False


def _prepare(terms: Terms) -> None:
    """Once in a worker's life: its device and its threads."""
    global _prepared
    if _prepared:
        return
    _prepared = True
    os.environ[DEVICE_VARIABLE] = pin_gpu() if terms.gpu else "cpu"
    os.environ.setdefault("NUMBA_NUM_THREADS", str(os.cpu_count() or 1))
    if not terms.gpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    limit_threads(int(os.environ.get("VITRIFLOW_THREADS", "1")))


def pin_gpu() -> str:
    """See one GPU only: of those that the scheduler gave to the job, the one of this worker's rank."""
    rank = int(os.environ.get("PARSL_WORKER_RANK", "0"))
    given = [name for name in os.environ.get(GPUS_VARIABLE, "").replace(" ", ",").split(",") if name]
    if rank < len(given):
        os.environ["CUDA_VISIBLE_DEVICES"] = given[rank]
    return "cuda:0"


class _Watch:
    """A thread that ends this process when its call has to end."""

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self._notes = Path(terms.notes)
        self._over = threading.Event()
        self._parent = os.getppid()
        self._thread = threading.Thread(target=self._look, name="watch", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._over.set()  # the thread ends by itself: a short call doesn't wait for it

    def asked_to_stop(self) -> bool:
        try:
            os.close(os.open(stop_note(self._notes, self._terms.number), os.O_RDONLY))
        except OSError:
            return False
        return True  # opened, not only looked up: NFS asks its server then

    def _look(self) -> None:
        began = time.monotonic()
        wait = _LOOK_S
        while not self._over.wait(wait):
            seconds = time.monotonic() - began
            wait = _LOOK_S if seconds < 10 else _LOOK_LONG_S
            if os.getppid() != self._parent:
                os._exit(1)  # the pilot is gone, and nobody hears of this call any more
            if seconds > self._terms.time_limit_s + _TIME_GRACE_S:
                self._end(TIME, f"ran for more than {self._terms.time_limit_s:g} s")
            used = _private_bytes()
            if self._terms.memory_bytes and used > self._terms.memory_bytes:
                allowed = self._terms.memory_bytes >> 20
                self._end(
                    MEMORY, f"the worker used {used >> 20} MiB; {allowed} MiB are allowed for this call"
                )
            if self.asked_to_stop():
                self._end(STOPPED, "the call was stopped while it ran")

    def _end(self, kind: str, why: str) -> None:
        if self._over.is_set():
            return
        note = end_note(self._notes, self._terms.number)
        temporary = note.with_suffix(".tmp")
        try:
            temporary.write_text(f"{kind}\n{why}\n", encoding="utf-8")
            temporary.replace(note)
        finally:
            os._exit(1)


def _private_bytes() -> int:
    """Resident memory of this process that isn't shared file pages (proc(5), statm)."""
    try:
        fields = Path("/proc/self/statm").read_text().split()
    except OSError:
        return 0
    return (int(fields[1]) - int(fields[2])) * os.sysconf("SC_PAGE_SIZE")
