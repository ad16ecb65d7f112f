"""One pool for all experiments: a fair queue in front of it, and an executor for each experiment's coordinators."""

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextlib import suppress
from datetime import datetime
from typing import Any, ParamSpec, TypeVar

from vitriflow.catalog import now
from vitriflow.config import ComputeSection
from vitriflow.facility.compute.bursting import BurstGate
from vitriflow.facility.compute.problems import Problem
from vitriflow.facility.compute.shares import FairQueue, Party
from vitriflow.steps import Artifact

P = ParamSpec("P")
T = TypeVar("T")

_log = logging.getLogger(__name__)
_TICK_S = 1.0


class SharedFuture(Future[T]):
    """A call that waits in the fair queue, and then stands for the same call in a pool."""

    inner: "Future[Any] | None" = None

    def cancel(self) -> bool:
        """Cancel the call; one that runs is stopped where its pool can do that."""
        if self.inner is not None:
            return self.inner.cancel()
        return super().cancel()

    def running(self) -> bool:
        """Whether a worker has it, as far as its pool knows."""
        return self.inner is not None and self.inner.running()

    def follow(self, inner: "Future[Any]") -> None:
        """End as another future ended."""
        if inner.cancelled():
            super().cancel()
            return
        if not self.set_running_or_notify_cancel():
            return
        error = inner.exception()
        if error is not None:
            self.set_exception(error)
        else:
            self.set_result(inner.result())


class _Call:
    def __init__(self, function: Any, args: Any, kwargs: Any) -> None:
        self.function, self.args, self.kwargs = function, args, kwargs
        self.future: SharedFuture[Any] = SharedFuture()
        self.since = time.monotonic()


class SharedPool(Executor):
    """Shares the slots of a pool between experiments. See :class:`FairQueue` for the order.

    Parameters
    ----------
    inner
        Where calls run; it's shut down with this one. ``ahead`` of it says how many calls may wait
        inside it for each slot (0 without): what waits there can't be overtaken any more.
    compute
        Limits, projects and shutdown periods.
    burst
        A second pool for what overflows.
    clock
        Tells the time, for shutdown periods.
    """

    def __init__(
        self,
        inner: Executor,
        compute: ComputeSection | None = None,
        burst: BurstGate | None = None,
        clock: Callable[[], datetime] = now,
    ) -> None:
        self._inner = inner
        self._compute = compute or ComputeSection()
        self._burst = burst
        self._clock = clock
        slots: dict[str, int] = dict(getattr(inner, "slots", {"cpu": 1, "gpu": 0}))
        self._own = dict(slots)
        ahead = int(getattr(inner, "ahead", 0))
        self._room = {gpu: slots.get(kind, 0) * (1 + ahead) for gpu, kind in ((False, "cpu"), (True, "gpu"))}
        if burst is not None:
            for kind, more in burst.slots.items():
                slots[kind] = slots.get(kind, 0) + (more if slots.get(kind, 0) else 0)
        self.slots = slots
        self.threads = int(getattr(inner, "threads", 1))
        self._lock = threading.RLock()
        self._queue: FairQueue[_Call] = FairQueue()
        self._inside = {False: 0, True: 0}
        self._open = True
        self._over = threading.Event()
        self._ticker: threading.Thread | None = None
        if self._compute.shutdowns or burst is not None:  # nothing else changes while nobody calls
            self._ticker = threading.Thread(target=self._tick, name="fair share", daemon=True)
            self._ticker.start()

    def for_experiment(self, name: str) -> "ExperimentPool":
        """The executor of one experiment's coordinators."""
        return ExperimentPool(self, Party.of(self._compute, name))

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run a call that belongs to no experiment."""
        return self.submit_for(Party(""), fn, args, kwargs)

    def submit_for(self, party: Party, function: Any, args: Any, kwargs: Any) -> Future[Any]:
        """Put a call into the queue of an experiment."""
        call = _Call(function, args, kwargs)
        gpu = bool(getattr(args[0] if args else None, "gpu", False)) and self._own.get("gpu", 0) > 0
        if self._burst is not None and args:
            self._burst.expect(input_bytes(args[0]))
        with self._lock:
            if not self._open:
                raise RuntimeError("the pool was shut down")
            self._queue.put(party, gpu or not self._own.get("cpu", 0), call)
        self.pump()
        return call.future

    def pump(self) -> None:
        """Hand on what may run now."""
        for gpu in (False, True):
            while (found := self._next(gpu)) is not None:
                party, call, pool = found
                self._send(party, call, gpu, pool)

    def _next(self, gpu: bool) -> tuple[Party, _Call, Executor] | None:
        with self._lock:
            if not self._open or not self._queue.waiting(gpu):
                return None
            pool: Executor | None = self._inner if self._inside[gpu] < self._room[gpu] else None
            if pool is None and self._burst is not None:
                pool = self._burst.offer(gpu, self._queue.waiting(gpu) + self._inside[gpu], self._own)
            if pool is None:
                return None
            found = self._queue.take(gpu, self._compute.limits_at(self._clock()))
            if found is None:
                return None
            if pool is self._inner:
                self._inside[gpu] += 1
            elif self._burst is not None:
                self._burst.taken(gpu)
            return (*found, pool)

    def _send(self, party: Party, call: _Call, gpu: bool, pool: Executor) -> None:
        if call.future.cancelled():
            self._ended(party, gpu, pool)
            return
        try:
            inner = pool.submit(call.function, *call.args, **call.kwargs)
        except Exception as error:
            self._ended(party, gpu, pool)
            if call.future.set_running_or_notify_cancel():
                call.future.set_exception(error)
            return
        call.future.inner = inner
        started = time.monotonic()

        def ended(inner: "Future[Any]") -> None:
            if self._burst is not None and not inner.cancelled() and inner.exception() is None:
                self._burst.learn(gpu, pool is self._inner, inner.result(), time.monotonic() - started)
            self._ended(party, gpu, pool)
            call.future.follow(inner)
            self.pump()

        inner.add_done_callback(ended)

    def _ended(self, party: Party, gpu: bool, pool: Executor) -> None:
        with self._lock:
            self._queue.done(party, gpu)
            if pool is self._inner:
                self._inside[gpu] -= 1
            elif self._burst is not None:
                self._burst.returned(gpu)

    def _tick(self) -> None:
        while not self._over.wait(_TICK_S):
            self.pump()

    def note_backlog(self, exposures: int) -> None:
        """How many exposures wait in the catalog, which coordinators haven't sent here yet."""
        if self._burst is not None:
            self._burst.backlog = exposures

    @property
    def wants_backlog(self) -> bool:
        """Whether anything here goes by the backlog."""
        return self._burst is not None

    def problems(self) -> list[Problem]:
        """What's wrong with the pools just now, in words."""
        found: list[Problem] = list(getattr(self._inner, "problems", list)())
        if self._burst is not None:
            found += self._burst.problems()
        return found

    def details(self) -> dict[str, Any]:
        """What to show of it: calls that wait and run, nodes, shutdown, burst."""
        with self._lock:
            told: dict[str, Any] = {
                "waiting": {"cpu": self._queue.waiting(False), "gpu": self._queue.waiting(True)},
                "running": {"cpu": self._queue.running(False), "gpu": self._queue.running(True)},
            }
        period = self._compute.shutdown_at(self._clock())
        pools: dict[str, Any] = getattr(self._inner, "details", dict)()
        if pools:
            told["pools"] = pools
        if period:
            told["shutdown"] = period
        if self._burst is not None:
            told["burst"] = self._burst.details()
        return told

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls; with ``cancel_futures`` also give up those that wait or run."""
        dropped: list[_Call] = []
        with self._lock:
            if cancel_futures or not self._queue_is_busy():
                self._open = False
                for gpu in (False, True):
                    while (found := self._queue.take(gpu, ComputeSection())) is not None:
                        dropped.append(found[1])
                        self._queue.done(found[0], gpu)
        for call in dropped:
            call.future.cancel()
        if wait and not cancel_futures:
            while self._queue_is_busy():
                time.sleep(0.05)
        self._open = False
        self._over.set()
        if self._ticker is not None:
            self._ticker.join()
        self._inner.shutdown(wait=wait, cancel_futures=cancel_futures)
        if self._burst is not None:
            self._burst.shutdown(wait=wait, cancel_futures=cancel_futures)

    def _queue_is_busy(self) -> bool:
        with self._lock:
            return any(self._queue.waiting(gpu) or self._queue.running(gpu) for gpu in (False, True))


class ExperimentPool(Executor):
    """The pool as one experiment sees it. Shutting it down does nothing to the pool."""

    def __init__(self, shared: SharedPool, party: Party) -> None:
        self._shared = shared
        self._party = party
        self.slots = shared.slots
        self.threads = shared.threads

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Put a call into this experiment's queue."""
        return self._shared.submit_for(self._party, fn, args, kwargs)


def input_bytes(call: Any) -> int:
    """Size of a call's input files, of those that are there."""
    size = 0
    for node in getattr(call, "nodes", ()):
        for source in node.inputs.values():
            if isinstance(source, Artifact):
                with suppress(OSError):
                    size += source.path.stat().st_size
    return size
