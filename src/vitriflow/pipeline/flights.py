"""Calls that are with the executor: how many, for how long, and how they ended."""

import math
import queue
import time
from concurrent.futures import CancelledError, Executor, Future
from typing import Any

from vitriflow.errors import Reason
from vitriflow.pipeline.calls import BatchCall, GroupReturn
from vitriflow.pipeline.pool import CallStopped
from vitriflow.pipeline.recording import Outcome, Sent
from vitriflow.pipeline.settings import Settings
from vitriflow.pipeline.worker import run_batch, run_group

_SMOOTHING = 0.1  # share of the newest call in the running mean of how long calls take


class _Flight:
    def __init__(self, sent: Sent, probe: bool) -> None:
        self.sent = sent
        self.probe = probe  # started while work was held
        self.running_since: float | None = None
        self.disowned = False  # its outcome is settled; it only still fills a slot


class Flights:
    """Keeps the executor busy, and no busier than is good for what comes next.

    Parameters
    ----------
    executor
        Where calls run. ``slots`` ({"cpu": n, "gpu": m}) says how many at once, when it has that.
    settings
        Times and limits.
    """

    def __init__(self, executor: Executor, settings: Settings) -> None:
        self._executor = executor
        self._settings = settings
        slots: dict[str, int] = getattr(executor, "slots", {"cpu": settings.slots, "gpu": 0})
        self.slots = {False: slots.get("cpu", 0), True: slots.get("gpu", 0)}
        if not self.slots[False]:
            self.slots[False] = self.slots[True]  # GPU workers run everything
        self.gpus = slots.get("gpu", 0) > 0
        self._flights: dict[Future[GroupReturn], _Flight] = {}
        self._inbox: queue.SimpleQueue[Future[GroupReturn] | None] = queue.SimpleQueue()
        self._mean_s: dict[bool, float | None] = {False: None, True: None}

    def __len__(self) -> int:
        return sum(not flight.disowned for flight in self._flights.values())

    @property
    def batches(self) -> int:
        """Calls in flight that are about batches."""
        return sum(
            isinstance(flight.sent.call, BatchCall) and not flight.disowned
            for flight in self._flights.values()
        )

    @property
    def batch_room(self) -> int:
        """How many more batches may run now: on half of the slots at most, so that the stream goes on."""
        return max(0, max(1, sum(self.slots.values()) // 2) - self.batches)

    def tasks(self) -> set[int]:
        """Tasks that are in flight."""
        flying = [flight for flight in self._flights.values() if not flight.disowned]
        return {task for flight in flying for task in flight.sent.tasks}

    def room(self, gpu: bool) -> int:
        """How many more calls the executor should get now.

        As many as it has slots, and some that wait in it when calls are short, so that workers
        have work while results are written. Not more: what waits there can't be overtaken.
        """
        slots = self.slots[gpu]
        mean = self._mean_s[gpu]
        ahead = 0 if mean is None else math.ceil(slots * self._settings.ahead_s / max(mean, 1e-4))
        flying = sum(flight.sent.call.gpu == gpu for flight in self._flights.values())
        return max(0, slots + min(ahead, slots * self._settings.most_ahead) - flying)

    def send(self, sent: Sent, probe: bool) -> None:
        """Submit a call that was announced."""
        try:
            call = sent.call
            if isinstance(call, BatchCall):
                future = self._executor.submit(run_batch, call)
            else:
                future = self._executor.submit(run_group, call)
        except Exception as error:
            future = Future()
            future.set_exception(error)
        self._flights[future] = _Flight(sent, probe)
        future.add_done_callback(self._inbox.put)

    def wake(self) -> None:
        """End the wait of :meth:`landed` early."""
        self._inbox.put(None)

    def landed(self, timeout_s: float) -> tuple[list[tuple[Outcome, bool]], bool]:
        """Wait for calls to end, or for a wake-up.

        Returns
        -------
        Outcomes, each with whether it was a probe; and whether there was a wake-up.
        """
        outcomes: list[tuple[Outcome, bool]] = []
        woken = False
        try:
            item = self._inbox.get(timeout=max(timeout_s, 0.0)) if timeout_s > 0 else self._inbox.get_nowait()
            while True:
                if item is None:
                    woken = True
                else:
                    flight = self._flights.pop(item, None)
                    if flight is not None and not flight.disowned:
                        outcomes.append((self._outcome(item, flight), flight.probe))
                item = self._inbox.get_nowait()
        except queue.Empty:
            return outcomes, woken

    def overdue(self) -> list[Outcome]:
        """Stop calls that have run past their time limit, and say so. To be asked every second or so."""
        moment = time.monotonic()
        late: list[Outcome] = []
        for future, flight in self._flights.items():
            if flight.disowned or not future.running():
                continue
            if flight.running_since is None:
                flight.running_since = moment
            limit = flight.sent.call.time_limit_s
            if moment - flight.running_since > limit:
                flight.disowned = True
                late.append(
                    Outcome(flight.sent, failure=(str(Reason.TIME_LIMIT), f"ran for more than {limit:g} s"))
                )
        for future in [f for f, flight in self._flights.items() if flight.disowned]:
            future.cancel()
        return late

    def cancel_all(self) -> None:
        """Stop everything that is in flight; none of it will be heard of again."""
        for future in list(self._flights):
            future.cancel()
        self._flights.clear()

    def _outcome(self, future: Future[GroupReturn], flight: _Flight) -> Outcome:
        nodes = ", ".join(node.node for node in flight.sent.call.nodes)
        try:
            back = future.result()
        except TimeoutError as error:  # a pool whose workers keep the time limit themselves
            return Outcome(flight.sent, failure=(str(Reason.TIME_LIMIT), f"{error}, running {nodes}"))
        except MemoryError as error:
            return Outcome(flight.sent, failure=(str(Reason.OUT_OF_MEMORY), f"{error}, running {nodes}"))
        except (CancelledError, CallStopped) as error:
            text = f"the call was stopped, running {nodes}: {error}"
            return Outcome(flight.sent, failure=(str(Reason.WORKER_DIED), text))
        except Exception as error:
            return Outcome(
                flight.sent, failure=(str(Reason.WORKER_DIED), f"{error or type(error)}, running {nodes}")
            )
        if not isinstance(flight.sent.call, BatchCall):
            self._learn(flight.sent.call.gpu, back)
        return Outcome(flight.sent, back)

    def _learn(self, gpu: bool, back: GroupReturn) -> None:
        seconds: Any = sum(float(record.get("seconds", 0.0)) for record in back.records.values())
        known = self._mean_s[gpu]
        self._mean_s[gpu] = seconds if known is None else known + _SMOOTHING * (seconds - known)
