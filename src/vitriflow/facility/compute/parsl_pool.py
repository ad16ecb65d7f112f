"""A pool of pilot jobs as a ``concurrent.futures.Executor``: what the coordinator needs, on Parsl."""

import itertools
import logging
import pickle
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Executor, Future
from contextlib import suppress
from dataclasses import replace
from multiprocessing.reduction import ForkingPickler
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from vitriflow.config import PoolSection
from vitriflow.facility.compute.problems import Problem
from vitriflow.facility.compute.runs import run_folder
from vitriflow.facility.compute.serving import MEMORY, STOPPED, TIME, Terms, end_note, stop_note
from vitriflow.pipeline import CallStopped, WorkerDied

if TYPE_CHECKING:
    from vitriflow.facility.compute.pilots import Pilots

P = ParamSpec("P")
T = TypeVar("T")

_log = logging.getLogger(__name__)
_CONTEXT = {"task_executor": {"f": "vitriflow.facility.compute.serving.execute"}}
_NO_LIMIT_S = 10 * 365 * 86400.0
_LONGEST_PAUSE_S = 300.0
_NOTE_WAIT_S = 1.0  # a note may reach us a little later than the news that its worker died


class PilotFuture(Future[T]):
    """A call that's with the pilots. Parsl doesn't say when one begins, so it never says ``running``."""

    def __init__(self, pool: "ParslPool", number: str) -> None:
        super().__init__()
        self._pool = pool
        self._number = number

    def cancel(self) -> bool:
        """Cancel the call: it's not begun any more; one that runs is ended by its worker within seconds."""
        if not super().cancel():
            return False
        self._pool.leave_stop(self._number)
        return True


class ParslPool(Executor):
    """Pilot jobs on a cluster, a cloud, or this machine.

    A call ends with ``WorkerDied`` when its node or its worker is lost (the coordinator tries it
    again), with ``MemoryError`` or ``TimeoutError`` when its worker ended itself because the
    call took more than it may, and with ``CallStopped`` when it was stopped.

    Parameters
    ----------
    name, pool
        Of a section ``[compute.pools.NAME]``.
    memory_slack
        How far above what it declared a call's memory may go; 0 never stops a call.

    Raises
    ------
    BadConfig
        When the scratch folder can't be written, or Parsl refuses the settings.
    """

    ahead = 1  # calls that wait at the pilots for each slot, so that a worker needn't wait for us

    def __init__(self, name: str, pool: PoolSection, memory_slack: float = 2.0) -> None:
        self.name = name
        self.pool = pool
        self.threads = pool.threads_per_worker
        gpu = pool.gpus_per_node > 0
        self.slots = {"cpu": 0 if gpu else pool.slots, "gpu": pool.slots if gpu else 0}
        self._slack = memory_slack
        self.folder = run_folder(name, pool)
        self._notes = self.folder / "notes"
        self._notes.mkdir()
        self._numbers = itertools.count(1)
        self._lock = threading.RLock()
        self._over = threading.Event()
        self._calls: dict[str, tuple[PilotFuture[Any], bytes]] = {}
        self._open = True
        self._restarts = 0
        self._reviving: threading.Thread | None = None
        self._pilots: Pilots | None = None
        self._start()

    def _start(self) -> None:
        """Start an interchange and what looks after its pilots; send what's there."""
        from vitriflow.facility.compute.pilots import Pilots

        folder = self.folder / f"start-{self._restarts}"
        pilots = Pilots(self.name, self.pool, folder, self._lost_interchange)
        try:
            pilots.start()
        except BaseException:
            pilots.close()
            raise
        with self._lock:
            self._pilots = pilots
            for number, (_, message) in self._calls.items():
                self._send(pilots, number, message)

    def _send(self, pilots: Any, number: str, message: bytes) -> None:
        inner = pilots.submit_payload(_CONTEXT, message)
        inner.add_done_callback(lambda done: self._ended(number, done))

    def _lost_interchange(self) -> None:
        """The interchange is gone: another takes its place, with new pilots, and gets all calls again."""
        with self._lock:
            if not self._open or self._reviving is not None:
                return
            self._reviving = threading.Thread(target=self._revive, name=f"revive {self.name}", daemon=True)
            self._reviving.start()

    def _revive(self) -> None:
        with self._lock:
            pilots, self._pilots = self._pilots, None
        if pilots is not None:
            pilots.close()
        while self._open:
            pause = min(2.0**self._restarts, _LONGEST_PAUSE_S)
            self._restarts += 1
            _log.warning("the interchange of pool '%s' ended; another starts in %.0f s", self.name, pause)
            if self._over.wait(pause):
                break
            try:
                self._start()
                break
            except Exception as error:
                _log.warning("pool '%s' can't be started: %s", self.name, error)
        with self._lock:
            self._reviving = None

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run ``fn(*args, **kwargs)`` on a node. What doesn't pickle raises here."""
        first: Any = args[0] if args else None
        limit = float(getattr(first, "time_limit_s", 0.0)) or _NO_LIMIT_S
        memory = int(int(getattr(first, "memory_bytes", 0)) * self._slack)
        if getattr(first, "threads", self.threads) != self.threads:
            args = (replace(first, threads=self.threads), *args[1:])  # type: ignore[assignment]
        number = str(next(self._numbers))
        terms = Terms(number, str(self._notes), limit, memory, self.slots["gpu"] > 0)
        payload = bytes(ForkingPickler.dumps((fn, args, kwargs)))
        future: PilotFuture[T] = PilotFuture(self, number)
        with self._lock:
            if not self._open:
                raise RuntimeError("the pool was shut down")
            message = pickle.dumps((terms, payload))
            self._calls[number] = (future, message)
            if self._pilots is not None and not self._pilots.bad_state_is_set:
                self._send(self._pilots, number, message)  # else it's sent when there are pilots again
        return future

    def _ended(self, number: str, done: "Future[bytes]") -> None:
        error = done.exception()
        if type(error).__name__ == "BadStateException":
            return  # the interchange is gone: the call is sent again to the next
        with self._lock:
            future, _ = self._calls.pop(number, (None, b""))
        if future is None or not future.set_running_or_notify_cancel():
            self._remove_notes(number)
            return
        if error is not None:
            future.set_exception(self._lost(number, error))
            return
        try:
            kind, value = pickle.loads(done.result())
        except Exception as trouble:
            future.set_exception(RuntimeError(f"what the call made can't be read: {trouble}"))
            return
        if kind == "result":
            future.set_result(value)
        elif kind == "stopped":
            future.set_exception(CallStopped(value))
        else:
            future.set_exception(value)

    def _lost(self, number: str, error: BaseException) -> Exception:
        """Why a call was lost: its worker's own note, else what Parsl knows."""
        note = end_note(self._notes, number)
        deadline = time.monotonic() + _NOTE_WAIT_S
        kind = why = ""
        if type(error).__name__ == "WorkerLost":
            while not kind and time.monotonic() < deadline:
                with suppress(OSError):
                    kind, _, why = note.read_text(encoding="utf-8").partition("\n")
                if not kind:
                    time.sleep(0.05)
        self._remove_notes(number)
        why = why.strip()
        if kind == MEMORY:
            return MemoryError(why)
        if kind == TIME:
            return TimeoutError(why)
        if kind == STOPPED:
            return CallStopped(why)
        where = str(getattr(error, "hostname", "") or "")
        if type(error).__name__ == "ManagerLost":
            return WorkerDied(f"node {where or 'unknown'} of pool '{self.name}' was lost, or its job ended")
        if type(error).__name__ == "WorkerLost":
            return WorkerDied(f"a worker on node {where or 'unknown'} of pool '{self.name}' died")
        return WorkerDied(f"pool '{self.name}': {type(error).__name__}: {error}")

    def leave_stop(self, number: str) -> None:
        """Leave a note by which the worker that has (or gets) a call ends it."""
        with suppress(OSError):
            stop_note(self._notes, number).touch()

    def _remove_notes(self, number: str) -> None:
        for note in (stop_note(self._notes, number), end_note(self._notes, number)):
            note.unlink(missing_ok=True)

    def problems(self) -> list[Problem]:
        """What keeps the pilots from working just now."""
        pilots = self._pilots
        if pilots is None:
            text = f"The interchange of pool '{self.name}' ended {self._restarts} times; another is being started."
            return [Problem(f"{self.name}/interchange", text)]
        found: list[Problem] = pilots.problems()
        return found

    def details(self) -> dict[str, Any]:
        """Pilots and calls, for the list of nodes."""
        pilots = self._pilots
        told: dict[str, Any] = {} if pilots is None else pilots.details()
        return told

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls, end the pilots and give their nodes back.

        Calls that run are waited for, unless ``cancel_futures``: then they end with ``WorkerDied``.
        """
        with self._lock:
            was_open, self._open = self._open, False
            left = dict(self._calls)
        if not was_open:
            return
        if wait and not cancel_futures:
            for future, _ in left.values():
                with suppress(Exception, CancelledError):
                    future.exception()
        self._over.set()
        reviving = self._reviving
        if reviving is not None and reviving is not threading.current_thread():
            reviving.join()
        if self._pilots is not None:
            self._pilots.close()
        with self._lock:
            left, self._calls = self._calls, {}
        for future, _ in left.values():
            if future.set_running_or_notify_cancel():
                future.set_exception(WorkerDied("the pool was shut down"))
