"""Keeps one processing going: takes exposures in, sends out work, records what comes back."""

import logging
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import replace
from uuid import uuid4

from vitriflow.catalog import Catalog, LeaseHandle, is_away, now, take_lease, this_owner
from vitriflow.pipeline.conducted import Conducting
from vitriflow.pipeline.flights import Flights
from vitriflow.pipeline.holds import Holds
from vitriflow.pipeline.intake import Intake
from vitriflow.pipeline.ledger import Ledger, Note, Ready
from vitriflow.pipeline.leftovers import remove_leftovers
from vitriflow.pipeline.ready import ReadyQueue, Work
from vitriflow.pipeline.recording import Outcome
from vitriflow.pipeline.revising import begin_next, finish, to_settle
from vitriflow.pipeline.settings import Settings
from vitriflow.pipeline.starting import plan_of

_log = logging.getLogger(__name__)
_AWAY_WAIT_S = 1.0


class Coordinator:
    """Runs one processing. There's one at a time: it holds a lease, and a second gets ``Busy``.

    Parameters
    ----------
    catalog
        The catalog.
    processing_id
        From :func:`start_processing`.
    executor
        Where calls run: a :class:`LocalPool`, or any ``concurrent.futures.Executor`` whose workers
        see the same files. It's not shut down here.
    settings
        Times and limits.
    """

    def __init__(
        self,
        catalog: Catalog,
        processing_id: int,
        executor: Executor,
        settings: Settings | None = None,
    ) -> None:
        self.settings = settings or Settings()
        self.processing_id = processing_id
        self._catalog = catalog
        self._flights = Flights(executor, self.settings)
        self._threads = int(getattr(executor, "threads", self.settings.threads))
        self._open_plan(None)
        self._holds = Holds(self._ledger.source, self._ledger.root, self.settings)
        self._queues = {gpu: ReadyQueue(self.settings.oldest_share) for gpu in (False, True)}
        self._unwritten: list[Outcome] = []  # ended, and not in the catalog yet
        self._notes: list[Note] = []
        self._paused = False
        self._finished = False
        self._closed = False  # the session is
        self._asked = False  # for a change
        self._ended = False  # nothing more will come for now, and all that came was dealt with
        self._next_look = 0.0
        self._next_renewal = 0.0
        self._away_since: float | None = None

    def _open_plan(self, lease: LeaseHandle | None) -> None:
        """Take up the plan with the parameters as they are now."""
        plan = plan_of(self._catalog, self.processing_id)
        self._ledger = Ledger(
            self._catalog, self.processing_id, plan, self._flights.gpus, self.settings, self._threads
        )
        self._ledger.lease = lease
        self._intake = Intake(self._ledger)
        self._conducting = Conducting(self._ledger)  # an engine such as Airflow says what may start

    def wake(self) -> None:
        """Have a look at the catalog now: something was registered. Safe from any thread."""
        self._flights.wake()

    def run(self, stop: threading.Event, until_idle: bool = False) -> None:
        """Work until told to stop, or until there's nothing left to do.

        Parameters
        ----------
        stop
            Ends it (call :meth:`wake` after setting it, to end it at once). Calls get
            ``stop_grace_s`` to end by themselves; what is left is ready again for the next run.
        until_idle
            Return when every exposure that has come in has been dealt with.

        Raises
        ------
        Busy
            When another coordinator has this processing, or has taken it over.
        """
        owner = this_owner(uuid4().hex[:8])
        name = f"processing/{self.processing_id}"
        lease = take_lease(self._catalog, name, owner, self.settings.lease_s)
        self._ledger.lease = lease
        try:
            self._read_again()
            remove_leftovers(self._ledger.interrupted)
            while not stop.is_set() and not self._finished:
                if self._try_cycle() and until_idle and self._is_idle():
                    break
            self._wind_down()
        finally:
            self._flights.cancel_all()
            with _unless_away("the processing stays held until its lease runs out"):
                lease.release(self._catalog)

    def _try_cycle(self) -> bool:
        """One cycle; waits, and reads the catalog again, when the database is away for a while."""
        try:
            if self._away_since is not None:
                self._read_again()
                seconds = time.monotonic() - self._away_since
                self._notes.append(
                    ("warning", f"The catalog could not be used for {seconds:.0f} s; nothing was lost.")
                )
                self._away_since = None
            self._cycle()
        except Exception as error:
            if not is_away(error):
                raise
            if self._away_since is None:
                self._away_since = time.monotonic()
                _log.warning("the catalog can't be used for now: %s", error)
            outcomes, _ = self._flights.landed(_AWAY_WAIT_S)
            self._unwritten += [self._judged(outcome, probe) for outcome, probe in outcomes]
            return False
        return True

    def _cycle(self) -> None:
        outcomes, woken = self._flights.landed(self._patience_s())
        self._unwritten += [self._judged(outcome, probe) for outcome, probe in outcomes]
        self._unwritten += self._flights.overdue()
        if woken or time.monotonic() >= self._next_look:
            self._look()
            if self._asked:
                self._revise()
            if self._closed and not self._ended and self._is_drained():
                self._ended = not self._look(sweep=True) and self._is_drained()
        self._turn()

    def _patience_s(self) -> float:
        """How long to wait for something to happen."""
        if self._unwritten or self._notes:
            return 0.0
        limits = [self._next_look - time.monotonic()]
        due = self._ledger.book.next_time()
        if due is not None and not self._paused:
            limits.append((due - now()).total_seconds() if due > now() or self._batch_room() else 1.0)
        for gpu, queue in self._queues.items():
            when = queue.next_time()
            if when is not None:
                limits.append((when - now()).total_seconds())
            if len(queue) and not self._paused and self._flights.room(gpu):
                limits.append(self._holds.until_probe_s() if self._holds.held else 0.0)
        return max(0.0, min(limits))

    def _judged(self, outcome: Outcome, probe: bool) -> Outcome:
        """See whether what failed failed for a reason that isn't the item's own."""
        self._conducting.stamp(outcome)
        records = outcome.back.records
        held = frozenset(node for node, record in records.items() if self._holds.blames(record))
        if probe and not held and any(record["status"] == "done" for record in records.values()):
            self._holds.went_well()
        return replace(outcome, held=held) if held else outcome

    def _look(self, sweep: bool = False) -> bool:
        """Take in what is new; whether there was anything."""
        news = self._intake.look(sweep)
        self._next_look = time.monotonic() + self.settings.poll_s
        self._paused = news.state == "paused"
        self._finished = news.state == "finished"
        self._closed = news.closed
        self._asked = news.changes
        if news.exposures or not news.closed:
            self._ended = False
        batch = self.settings.intake_batch
        for start in range(0, len(news.exposures), batch):
            for work in self._intake.take_in(news.exposures[start : start + batch]):
                self._add((work, None))
        asked = self._conducting.look()
        if asked is None:
            self._read_again()
        for piece in asked or ():
            self._add(piece)
        return bool(news.exposures)

    def _turn(self, ending: bool = False) -> None:
        wanted = self._choose()
        notes = [*self._notes, *self._holds.notes]
        room = self._batch_room()
        book = self._ledger.book
        batches = room and (book.due(now()) or book.startable(now()))
        rest = (ending or self._ended) and book.holds_rest
        if not (wanted or self._unwritten or notes or batches or rest):
            self._renew()
            return
        probe = self._holds.held
        sent, ready = self._ledger.turn(self._unwritten, wanted, notes, room, ending or self._ended)
        self._unwritten.clear()
        self._notes.clear()
        self._holds.notes.clear()
        self._renewed()
        for call in sent:
            self._flights.send(call, probe)
        for piece in ready:
            self._add(piece)

    def carry_out_changes(self) -> None:
        """Carry out the changes that were asked for, and nothing else. What they make ready waits.

        Raises
        ------
        Busy
            When a coordinator has this processing: it does so itself, at its next look.
        """
        name = f"processing/{self.processing_id}"
        lease = take_lease(self._catalog, name, this_owner(uuid4().hex[:8]), self.settings.lease_s)
        self._ledger.lease = lease
        try:
            self._ledger.recover()
            self._revise()
        finally:
            lease.release(self._catalog)

    def _revise(self) -> None:
        """Carry out the changes that people ask for, one after the other."""
        ledger = self._ledger
        while (begun := begin_next(self._catalog, self.processing_id, ledger.fence)) is not None:
            self._open_plan(ledger.lease)
            ledger = self._ledger
            flying = self._flights.tasks() | {t for one in self._unwritten for t in one.sent.tasks}
            ledger.recover(flying)
            for part in to_settle(self._catalog, self.processing_id, begun):
                ledger.resettle(part)
                self._renew()
            finish(self._catalog, begun, ledger.fence)
        self._asked = self._ended = False
        self._read_again()

    def _batch_room(self) -> int:
        """How many tasks of batches may start now."""
        if self._paused or self._finished or self._holds.held:
            return 0
        return self._flights.batch_room

    def _is_drained(self) -> bool:
        """Whether every exposure that came in has been dealt with."""
        busy = len(self._flights) - self._flights.batches or self._unwritten
        return not (busy or any(len(queue) or queue.delayed for queue in self._queues.values()))

    def _choose(self) -> list[Work]:
        """What to start now: the freshest, with a share for the oldest, as far as there's room."""
        wanted: list[Work] = []
        if self._paused or self._finished:
            return wanted
        for gpu, queue in self._queues.items():
            queue.wake(now())
            if not len(queue):
                continue
            room = self._holds.allowance(self._flights.room(gpu), len(self._flights) + len(wanted))
            while room > 0 and (work := queue.take()) is not None:
                wanted.append(work)
                room -= 1
        return wanted

    def _add(self, piece: Ready) -> None:
        work, not_before = piece
        if not self._conducting.allows(work[0]):
            return
        self._queues[self._ledger.groups[work[1]].gpu].add(work, not_before)

    def _read_again(self) -> None:
        """Build the order of work from the catalog alone."""
        flying = self._flights.tasks() | {task for outcome in self._unwritten for task in outcome.sent.tasks}
        pieces = self._ledger.recover(flying)
        for queue in self._queues.values():
            queue.clear()
        self._conducting.forget()
        for piece in [*pieces, *(self._conducting.look() or ())]:
            self._add(piece)
        self._intake.forget()
        self._next_look = 0.0
        self._renewed()

    def _renew(self) -> None:
        if time.monotonic() >= self._next_renewal and self._ledger.lease is not None:
            self._ledger.lease.renew(self._catalog)
            self._renewed()

    def _renewed(self) -> None:
        self._next_renewal = time.monotonic() + self.settings.lease_s / 3

    def _is_idle(self) -> bool:
        busy = len(self._flights) or self._unwritten or self._notes or self._holds.notes
        waiting = any(len(queue) or queue.delayed for queue in self._queues.values())
        if busy or (waiting and not self._paused):
            return False
        if self._look(sweep=True):
            return False
        if self._paused:
            return True
        if self._ledger.book.holds_rest:
            self._turn(ending=True)  # the stream ends here: triggers let go what they hold
        return not (len(self._flights) or self._ledger.book.open)

    def _wind_down(self) -> None:
        """Let calls end by themselves for a while, record them, and make the rest ready again."""
        deadline = time.monotonic() + self.settings.stop_grace_s
        while len(self._flights) and time.monotonic() < deadline:
            outcomes, _ = self._flights.landed(min(0.5, deadline - time.monotonic()))
            self._unwritten += [self._judged(outcome, probe) for outcome, probe in outcomes]
        self._flights.cancel_all()
        with _unless_away("what ran is run again by the next coordinator"):
            notes = [*self._notes, *self._holds.notes]
            if self._unwritten or notes:
                self._ledger.turn(self._unwritten, [], notes)
            self._ledger.recover()


@contextmanager
def _unless_away(consequence: str) -> Iterator[None]:
    """Leave it when the database can't be used just now: nothing is lost by that."""
    try:
        yield
    except Exception as error:
        if not is_away(error):
            raise
        _log.warning("the catalog can't be used for now, so %s: %s", consequence, error)
