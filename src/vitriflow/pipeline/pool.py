"""A process pool for one machine, as a ``concurrent.futures.Executor``, that survives its workers.

Each worker has a pipe of its own, so one that is killed at any instant takes with it the one
call that it was running, and nothing else; another takes its place. (``ProcessPoolExecutor``
breaks for good when a worker dies; Pebble's pool does when an idle one does.)
"""

import atexit
import multiprocessing
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from contextlib import suppress
from multiprocessing import connection
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from vitriflow.pipeline.pool_worker import Start, serve

P = ParamSpec("P")
T = TypeVar("T")

_LOOK_S = 0.25  # how often memory is looked at while calls run
_HAND_TRIES = 3  # workers that may die before they've taken a call, until it's failed
_START_TRIES = 3  # workers that die in a row before they're ready, until calls are failed


class WorkerDied(RuntimeError):
    """The worker that ran a call is gone: it was killed, crashed, or never came up."""


class CallStopped(RuntimeError):
    """The call was stopped by :meth:`CallFuture.cancel` while it ran."""


class CallFuture(Future[T]):
    """A future whose ``cancel`` also stops a call that already runs, by killing its worker."""

    stop_running: Callable[[], None] | None = None

    def cancel(self) -> bool:
        """Cancel the call. One that runs ends soon with :class:`CallStopped`."""
        if super().cancel():
            return True
        if self.done() or self.stop_running is None:
            return False
        self.stop_running()
        return True


class _Call:
    """One submitted call, pickled."""

    def __init__(self, payload: bytes, future: CallFuture[Any], gpu: bool, memory_bytes: int) -> None:
        self.payload = payload
        self.future = future
        self.gpu = gpu
        self.memory_bytes = memory_bytes
        self.stopped = False
        self.running = False
        self.handed = 0


class _Worker:
    """One worker process and this side of its pipe."""

    def __init__(self, context: Any, start: Start, gpu: bool) -> None:
        self.gpu = gpu
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(
            target=serve, args=(theirs, start), daemon=True, name=f"vitriflow-worker-{start.device}"
        )
        self.process.start()
        theirs.close()
        self.ready = False
        self.call: _Call | None = None
        self.took = False  # it has said that it has the call

    @property
    def private_bytes(self) -> int:
        """Resident memory that isn't shared file pages (proc(5), statm); 0 when it's gone."""
        try:
            fields = Path(f"/proc/{self.process.pid}/statm").read_text().split()
        except OSError:
            return 0
        return (int(fields[1]) - int(fields[2])) * os.sysconf("SC_PAGE_SIZE")


class LocalPool(Executor):
    """Worker processes on this machine; one is pinned to each GPU, the others have none.

    A call whose first argument has a true attribute ``gpu`` goes to a worker with a GPU, when there
    is one. One whose first argument has ``memory_bytes`` is stopped when its worker's own
    memory passes that times ``memory_slack``; its future then holds a ``MemoryError``.

    Parameters
    ----------
    workers
        Workers without a GPU.
    gpus
        Workers with a GPU: ``cuda:0`` and on.
    threads
        CPU threads of each worker.
    preload
        Modules that a worker imports before it takes its first call (kernels load torch, which takes
        seconds).
    memory_slack
        How far above what it declared a call's memory may go; 0 never stops a call.
    """

    def __init__(
        self,
        workers: int,
        gpus: int = 0,
        threads: int = 1,
        preload: Sequence[str] = (),
        memory_slack: float = 2.0,
    ) -> None:
        if workers < 0 or gpus < 0 or workers + gpus < 1:
            raise ValueError(f"a pool of {workers} workers and {gpus} GPUs can't run anything")
        self.threads = threads
        self.slots = {"cpu": workers, "gpu": gpus}
        self._preload = tuple(preload)
        self._slack = memory_slack
        self._context = multiprocessing.get_context("spawn")
        self._lock = threading.Lock()
        self._waiting: deque[_Call] = deque()
        self._open = True
        self._abandon = False  # shutdown without waiting for what runs
        self._start_failures = 0
        self._not_before = 0.0
        self._wanted = [f"cuda:{i}" for i in range(gpus)] + ["cpu"] * workers
        self._workers: list[_Worker | None] = [None] * len(self._wanted)
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_write, False)
        os.set_blocking(self._wake_read, False)
        # Workers die with the thread that started them (PR_SET_PDEATHSIG): it must outlive them all.
        self._keeper = threading.Thread(target=self._keep, name="vitriflow-pool", daemon=True)
        self._keeper.start()
        atexit.register(self._at_exit)  # before multiprocessing's own, which joins children itself

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run ``fn(*args, **kwargs)`` in a worker. What doesn't pickle raises here."""
        payload = bytes(ForkingPickler.dumps((fn, args, kwargs)))
        first: Any = args[0] if args else None
        gpu = bool(getattr(first, "gpu", False)) and self.slots["gpu"] > 0
        gpu = gpu or self.slots["cpu"] == 0
        future: CallFuture[T] = CallFuture()
        call = _Call(payload, future, gpu, int(getattr(first, "memory_bytes", 0)))
        future.stop_running = lambda: self._stop_call(call)
        with self._lock:
            if not self._open:
                raise RuntimeError("the pool was shut down")
            self._waiting.append(call)
        self._wake()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls; with ``cancel_futures`` also drop those that wait and kill those that run."""
        with self._lock:
            self._open = False
            self._abandon = self._abandon or cancel_futures
            dropped = list(self._waiting) if cancel_futures else []
            if cancel_futures:
                self._waiting.clear()
        for call in dropped:
            call.future.cancel()
        self._wake()
        atexit.unregister(self._at_exit)
        if wait and threading.current_thread() is not self._keeper:
            self._keeper.join()

    def _at_exit(self) -> None:
        self.shutdown(cancel_futures=True)

    def pids(self) -> list[int]:
        """Process ids of the workers that live now."""
        return [w.process.pid for w in list(self._workers) if w is not None and w.process.pid]

    def _stop_call(self, call: _Call) -> None:
        call.stopped = True
        self._wake()

    def _wake(self) -> None:
        try:
            os.write(self._wake_write, b"x")
        except (BlockingIOError, OSError):
            return  # full: the keeper will wake anyway; closed: it's gone

    def _keep(self) -> None:
        """The keeper thread: starts workers, hands out calls, takes back what they make."""
        try:
            while True:
                self._start_missing()
                self._hand_out()
                if self._finished():
                    break
                self._listen()
                self._stop_those_asked()
                self._stop_the_greedy()
        finally:
            for index in range(len(self._workers)):
                self._end(index, WorkerDied("the pool was shut down"), kill=self._abandon)
            self._fail_waiting("the pool was shut down")
            with self._lock:
                self._open = False
                write, self._wake_write = self._wake_write, -1
                os.close(write)
                os.close(self._wake_read)

    def _finished(self) -> bool:
        with self._lock:
            if self._open:
                return False
            busy = any(w is not None and w.call is not None for w in self._workers)
            return self._abandon or not (busy or self._waiting)

    def _start_missing(self) -> None:
        if time.monotonic() < self._not_before or not (self._open or self._waiting):
            return
        for index, device in enumerate(self._wanted):
            if self._workers[index] is None:
                start = Start(os.getpid(), device, self.threads, self._preload)
                try:
                    self._workers[index] = _Worker(self._context, start, device != "cpu")
                except OSError as error:
                    self._came_to_nothing(str(error))
                    return

    def _hand_out(self) -> None:
        for worker in self._workers:
            if worker is None or not worker.ready or worker.call is not None:
                continue
            call = self._next_call(worker.gpu)
            if call is None:
                continue
            worker.call, worker.took = call, False
            call.handed += 1
            try:
                worker.pipe.send_bytes(call.payload)
            except OSError:
                continue  # it has just died: listening finds out and fails the call

    def _next_call(self, gpu: bool) -> _Call | None:
        with self._lock:
            for position, call in enumerate(self._waiting):
                if call.gpu == gpu:
                    del self._waiting[position]
                    break
            else:
                return None
        if call.running or call.future.set_running_or_notify_cancel():
            call.running = True
            return call
        return self._next_call(gpu)

    def _listen(self) -> None:
        """Wait for anything to happen, and take it in."""
        living = {index: worker for index, worker in enumerate(self._workers) if worker is not None}
        pipes: dict[Any, int] = {worker.pipe: index for index, worker in living.items()}
        busy = any(worker.call is not None for worker in living.values())
        starting = len(living) < len(self._wanted)
        heard = connection.wait([*pipes, self._wake_read], _LOOK_S if busy or starting else None)
        for source in heard:
            if source == self._wake_read:
                os.read(self._wake_read, 65536)
            else:
                self._hear(pipes[source])

    def _hear(self, index: int) -> None:
        worker = self._workers[index]
        if worker is None:
            return
        try:
            kind, value = worker.pipe.recv()
        except (EOFError, OSError):
            self._end(index, None)
            return
        if kind == "ready":
            worker.ready = True
            self._start_failures = 0
            return
        if kind == "took":
            worker.took = True
            return
        call, worker.call = worker.call, None
        if call is None:
            return
        if kind == "result":
            call.future.set_result(value)
        else:
            call.future.set_exception(value)

    def _stop_those_asked(self) -> None:
        for index, worker in enumerate(self._workers):
            if worker is not None and worker.call is not None and worker.call.stopped:
                self._end(index, CallStopped("the call was stopped while it ran"), kill=True)

    def _stop_the_greedy(self) -> None:
        for index, worker in enumerate(self._workers):
            call = worker.call if worker is not None else None
            if worker is None or call is None or not call.memory_bytes or not self._slack:
                continue
            limit = int(call.memory_bytes * self._slack)
            used = worker.private_bytes
            if used > limit:
                text = f"the worker used {used >> 20} MiB; {limit >> 20} MiB are allowed for this call"
                self._end(index, MemoryError(text), kill=True)

    def _end(self, index: int, error: BaseException | None, kill: bool = False) -> None:
        """Take a worker off the list; its call, if any, ends with the error or with how it died."""
        worker = self._workers[index]
        if worker is None:
            return
        self._workers[index] = None
        worker.pipe.close()
        if kill or not worker.ready:
            worker.process.kill()
        worker.process.join(5.0)
        if worker.process.exitcode is None:
            worker.process.kill()
            worker.process.join()
        code = worker.process.exitcode
        with suppress(ValueError):  # another thread's wait took its exit status a moment ago
            worker.process.close()
        if not worker.ready and self._open:
            self._came_to_nothing(_how_it_died(code))
        call = worker.call
        if call is None:
            return
        if error is None and not worker.took and call.handed < _HAND_TRIES:
            with self._lock:
                self._waiting.appendleft(call)  # it was dead before it got the call: another takes it
        else:
            call.future.set_exception(error or WorkerDied(_how_it_died(code)))

    def _came_to_nothing(self, why: str) -> None:
        """Workers that don't come up: wait between tries, and after some of them fail what waits."""
        self._start_failures += 1
        self._not_before = time.monotonic() + min(0.5 * self._start_failures, 10.0)
        if self._start_failures >= _START_TRIES:
            self._fail_waiting(f"workers don't start: {why}")

    def _fail_waiting(self, why: str) -> None:
        with self._lock:
            waiting = list(self._waiting)
            self._waiting.clear()
        for call in waiting:
            if call.running or call.future.set_running_or_notify_cancel():
                call.future.set_exception(WorkerDied(why))


def _how_it_died(code: int | None) -> str:
    if code == -9:
        return "the worker was killed (signal 9), as the kernel does when memory runs out"
    if code is not None and code < 0:
        return f"the worker died of signal {-code}"
    return f"the worker ended by itself with exit code {code}"


def count_gpus() -> int:
    """GPUs that workers may use here: those of ``CUDA_VISIBLE_DEVICES``, else all of the driver's."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    present = len(list(Path("/proc/driver/nvidia/gpus").glob("*")))
    present = present or len([d for d in Path("/dev").glob("nvidia*") if d.name[6:].isdigit()])
    if visible is None:
        return present
    named = [name for name in visible.split(",") if name.strip()]
    return 0 if "-1" in named else min(present, len(named))
