"""Copies and proves the files of one session that are whole: several at a time, in a fair order.

What is to be done stands in the catalog, so a process that's killed loses nothing but time. Other
files (metadata) go first, then movies, the newest first; one copier prefers movies, so that a
flood of small files holds nothing up. The same copier that wrote a file proves it next.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session as OrmSession

from vitriflow.acquisition.copying import temporary_for
from vitriflow.acquisition.copying_shared import Buffer, Limiter
from vitriflow.acquisition.custody import CHUNK, Recorder, chunks
from vitriflow.acquisition.recognise import FileKind
from vitriflow.acquisition.transfer_move import Job, Mover, Outcome, Step
from vitriflow.acquisition.transfer_write import proved_files, waiting_jobs, write_outcomes
from vitriflow.catalog import Catalog, Event, FileState, SourceFile, is_away, now

_OTHERS = 1024  # small files handed out ahead of their turn
_TURN_S = 0.5
_LONGEST_HOLD_S = 30.0


@dataclass
class _Hold:
    """Why nothing is copied just now; one file at a time finds out when that's over."""

    text: str
    tries: int = 0
    until: float = 0.0
    probing: bool = False


@dataclass
class _Board:
    """What the conductor and the copiers share, under one lock."""

    others: deque[Job] = field(default_factory=deque)
    movies: deque[Job] = field(default_factory=deque)
    outcomes: deque[Outcome] = field(default_factory=deque)
    moving: dict[str, int] = field(default_factory=dict)  # key -> row, from hand-out until written


class Transfer:
    """Copies the files of one session.

    Parameters
    ----------
    catalog, session_id
        Where they stand.
    source, root
        The microscope's folder, and the session's.
    parallel
        Copiers.
    bandwidth_bytes_per_s
        Cap on what all read together (bytes/s); None for none.
    record
        Told of proved files before the catalog is: writes the manifest.
    fence
        Part of every transaction: fails when another process has taken the session over.
    on_news
        Called after exposures became ready, or a problem.
    on_doubt
        Called with the key of a file that isn't as the watcher saw it.
    """

    def __init__(
        self,
        catalog: Catalog,
        session_id: int,
        source: Path,
        root: Path,
        *,
        parallel: int = 4,
        bandwidth_bytes_per_s: float | None = None,
        record: Recorder = lambda _files: None,
        fence: Callable[[OrmSession], None] = lambda _orm: None,
        on_news: Callable[[], None] = lambda: None,
        on_doubt: Callable[[str], None] = lambda _key: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.catalog = catalog
        self.session_id = session_id
        self.source = source
        self.root = root
        self._record = record
        self._fence = fence
        self._on_news = on_news
        self._on_doubt = on_doubt
        self._clock = clock
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)
        self._wake = threading.Event()
        self._board = _Board()
        self._unwritten: list[Outcome] = []
        self._holds: dict[str, _Hold] = {}
        self._events: list[tuple[str, str]] = []
        self._failure: BaseException | None = None
        self._mover = Mover(source, root, Limiter(bandwidth_bytes_per_s), self._stop, self._tell)
        self._parallel = parallel
        self._threads: list[threading.Thread] = []

    # -- for others -------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to copy, in threads of its own."""
        self._remove_leftovers()
        makers = [(self._conduct, ())] + [(self._copy, (number,)) for number in range(self._parallel)]
        for work, arguments in makers:
            thread = threading.Thread(target=self._guard, args=(work, *arguments), daemon=True)
            thread.start()  # a daemon: one that hangs in a dead mount mustn't hold the process
            self._threads.append(thread)

    def stop(self, patience_s: float = 10.0) -> None:
        """Give up what is being copied; what was copied is written down."""
        self._stop.set()
        self._wake.set()
        with self._work:
            self._work.notify_all()
        for thread in self._threads:
            thread.join(patience_s)
        self._threads.clear()

    def wake(self) -> None:
        """Something became whole: look for it at once."""
        self._wake.set()

    def is_moving(self, key: str) -> bool:
        """Whether a file is being copied, or what became of it isn't written yet."""
        with self._lock:
            return key in self._board.moving

    @property
    def held(self) -> str | None:
        """Why nothing is copied just now; None when all is well."""
        return "; ".join(hold.text for hold in list(self._holds.values())) or None

    @property
    def is_idle(self) -> bool:
        """Whether nothing is being copied or written at this moment."""
        with self._lock:
            return not self._board.moving

    def check(self) -> None:
        """Raise what a thread of this transfer died of, if any did."""
        if self._failure is not None:
            raise self._failure

    # -- copiers ----------------------------------------------------------------------------

    def _guard(self, work: Callable[..., None], *arguments: object) -> None:
        """A thread that fails ends the transfer with its error, never silently."""
        try:
            work(*arguments)
        except BaseException as error:
            self._failure = self._failure or error
            self._stop.set()
            with self._work:
                self._work.notify_all()

    def _copy(self, number: int) -> None:
        buffer = Buffer()
        try:
            while (job := self._next(prefers_movies=number == 0 and self._parallel > 1)) is not None:
                self._mover.move(job, buffer)
        finally:
            buffer.close()

    def _next(self, *, prefers_movies: bool) -> Job | None:
        board = self._board
        first, second = (board.movies, board.others) if prefers_movies else (board.others, board.movies)
        with self._work:
            if not (first or second):
                self._wake.set()  # hungry: the conductor needn't wait for its turn
            while not self._stop.is_set():
                if first:
                    return first.popleft()
                if second:
                    return second.popleft()
                self._work.wait(_TURN_S)
        return None

    def _tell(self, outcome: Outcome) -> None:
        with self._lock:
            self._board.outcomes.append(outcome)
        urgent = outcome.step == Step.COPIED and outcome.job.kind == FileKind.MOVIE  # it can be processed
        if urgent or len(self._board.outcomes) >= 2 * _OTHERS:
            self._wake.set()

    # -- the conductor ------------------------------------------------------------------------

    def _conduct(self) -> None:
        while not self._stop.is_set():
            self._wake.wait(_TURN_S)
            self._wake.clear()
            self._turn()
        for thread in self._threads[1:]:
            thread.join(5.0)
        self._turn()  # what was copied meanwhile

    def _turn(self) -> None:
        try:
            self._write_down()
            if not self._stop.is_set():
                self._hand_out()
        except Exception as error:
            if not is_away(error):
                raise
            self._stop.wait(1.0)  # nothing is lost: outcomes are kept until they're written

    def _write_down(self) -> None:
        """Manifest first, then the catalog; a file counts as moving until both know."""
        with self._lock:
            self._unwritten += self._board.outcomes
            self._board.outcomes.clear()
        while self._unwritten or self._events:
            part = self._unwritten[:CHUNK]
            try:
                self._record(proved_files(part))
            except OSError as error:
                self._hold("destination", f"The manifest can't be written ({error.strerror or error})")
                return
            self._note(part)
            events = list(self._events)

            def work(
                orm: OrmSession, part: list[Outcome] = part, events: list[tuple[str, str]] = events
            ) -> None:
                self._fence(orm)
                write_outcomes(orm, self.session_id, part, lambda job: str(self.root / job.destination))
                for severity, text in events:
                    orm.add(Event(at=now(), session_id=self.session_id, severity=severity, text=text))

            self.catalog.write(work)
            del self._events[: len(events)]
            del self._unwritten[: len(part)]
            self._release(part)

    def _release(self, written: list[Outcome]) -> None:
        with self._lock:
            for outcome in written:
                if outcome.is_last:
                    self._board.moving.pop(outcome.job.key, None)
        for outcome in written:
            if outcome.step in (Step.CHANGED, Step.VANISHED):
                self._on_doubt(outcome.job.key)
        if any(o.job.kind == FileKind.MOVIE and o.step != Step.PROVED for o in written):
            self._on_news()

    def _note(self, outcomes: list[Outcome]) -> None:
        """Holds that begin and end with these outcomes."""
        for outcome in outcomes:
            match outcome.step:
                case Step.SOURCE_LOST:
                    self._hold("source", f"The source folder {self.source} can't be read ({outcome.text})")
                case Step.DESTINATION:
                    self._hold("destination", f"{self.root} can't be written ({outcome.text})")
                case Step.COPIED | Step.PROVED:
                    self._lift()
                case Step.STOPPED:
                    pass
                case _:
                    for hold in self._holds.values():
                        hold.probing = False

    def _hold(self, what: str, text: str) -> None:
        hold = self._holds.get(what)
        if hold is None:
            hold = self._holds[what] = _Hold(text)
            cure = "copying waits, and goes on by itself when that is over. Nothing is lost"
            self._events.append(("alarm", f"{text}; {cure}"))
            with self._lock:  # what was handed out would only run into the same
                for job in (*self._board.others, *self._board.movies):
                    self._board.moving.pop(job.key, None)
                self._board.others.clear()
                self._board.movies.clear()
        elif self._clock() < hold.until and not hold.probing:
            return  # others that were under way and failed for the same reason
        hold.tries += 1
        hold.until = self._clock() + min(2.0 ** (hold.tries - 2), _LONGEST_HOLD_S)
        hold.probing = False

    def _lift(self) -> None:
        if self._holds and any(hold.probing for hold in self._holds.values()):
            self._holds.clear()
            self._events.append(("info", "Copying goes on"))

    def _hand_out(self) -> None:
        with self._lock:
            board = self._board
            wants_others = len(board.others) <= _OTHERS // 4
            wants_movies = len(board.movies) < self._parallel
            moving = set(board.moving.values())
        if self._holds:
            self._probe(moving)
            return
        others: list[Job] = []
        movies: list[Job] = []
        if wants_others:
            others = self._waiting(FileState.COPIED, None, _OTHERS, moving)
            others += self._waiting(FileState.COMPLETE, False, _OTHERS, moving)
        if wants_movies:
            movies = self._waiting(FileState.COMPLETE, True, self._parallel, moving)
        with self._work:
            for jobs, queue in ((others, board.others), (movies, board.movies)):
                for job in jobs:
                    board.moving[job.key] = job.id
                    queue.append(job)
            self._work.notify_all()

    def _probe(self, moving: set[int]) -> None:
        """While held, one file at a time, and sparsely."""
        if any(self._clock() < hold.until or hold.probing for hold in self._holds.values()) or moving:
            return
        jobs = self._waiting(FileState.COPIED, None, 1, moving) or self._waiting(
            FileState.COMPLETE, None, 1, moving
        )
        if not jobs:
            self._holds.clear()
            return
        for hold in self._holds.values():
            hold.probing = True
        with self._work:
            self._board.moving[jobs[0].key] = jobs[0].id
            self._board.others.append(jobs[0])
            self._work.notify_all()

    def _waiting(self, state: FileState, movies: bool | None, limit: int, moving: set[int]) -> list[Job]:
        """Waiting files that aren't moving already."""

        def work(orm: OrmSession) -> list[Job]:
            return waiting_jobs(orm, self.session_id, state=state, movies=movies, limit=limit + len(moving))

        return [job for job in self.catalog.read(work) if job.id not in moving][:limit]

    def _remove_leftovers(self) -> None:
        """Half-written files of rows that nobody will copy now; all others are written anew anyway."""
        states = (FileState.SEEN, FileState.PROBLEM, FileState.REPLACED)
        query = select(SourceFile.id, SourceFile.key).where(
            SourceFile.session_id == self.session_id, SourceFile.state.in_(states)
        )
        rows = self.catalog.read(lambda orm: list(orm.execute(query)))
        for part in chunks(rows):
            for number, key in part:
                with suppress(OSError):
                    temporary_for(self.root / "raw" / key, number).unlink()
