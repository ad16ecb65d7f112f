"""``vitriflow process``: keeps the processings of all active sessions going on this machine."""

import logging
import threading
import time
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from sqlalchemy import exists, func, or_, select
from sqlalchemy.orm import Session as OrmSession

from vitriflow.catalog import (
    Catalog,
    Event,
    Experiment,
    Exposure,
    ExposureState,
    Measure,
    Processing,
    Sample,
    Session,
    SessionState,
    is_away,
    now,
)
from vitriflow.catalog.views import selection_of
from vitriflow.config import Config
from vitriflow.errors import Busy, VitriflowError
from vitriflow.facility.activation import (
    AWAITS,
    PENDING,
    UNPROCESSED,
    begin_processing,
    default_processing,
)
from vitriflow.facility.compute import SharedPool, make_pool
from vitriflow.facility.pool_watch import PoolWatch
from vitriflow.facility.processing_run import ProcessingRun, present
from vitriflow.facility.report_keeper import ReportKeeper
from vitriflow.facility.service.alarms import AlarmWatch
from vitriflow.facility.service.heartbeat import Heartbeat
from vitriflow.pipeline import Settings

_log = logging.getLogger(__name__)
_LOOK_S = 1.0
_BUSY_S = 5.0  # until a processing that another machine has is asked for again
_LONGEST_PAUSE_S = 60.0
_RECENT = timedelta(hours=1)  # closed sessions are asked for open work for so long


@dataclass
class _Run:
    """One processing that's kept going here."""

    name: str
    session_id: int
    stop: threading.Event = field(default_factory=threading.Event)
    thread: threading.Thread | None = None
    error: BaseException | None = None
    failures: int = 0
    not_before: float = 0.0


class ProcessService:
    """One machine's processing: a coordinator for each processing, one pool for all of them.

    Each coordinator keeps as many calls with the pool as it has workers, and the pool shares its workers
    between experiments while they have work: see :class:`vitriflow.facility.compute.FairQueue`.

    Parameters
    ----------
    config, catalog
        Of this facility.
    once
        End when nothing is open any more.
    label
        Tells several services of one machine apart in the list of nodes.
    """

    def __init__(self, config: Config, catalog: Catalog, *, once: bool = False, label: str = "") -> None:
        self.config = config
        self.catalog = catalog
        self.once = once
        self._pool: SharedPool | None = None
        self._runs: dict[int, _Run] = {}
        self._refused: dict[int, str] = {}  # session -> why its processing can't begin, as told
        self._drained: set[int] = set()
        self._heartbeat = Heartbeat(catalog, "process", self._details, label)
        self._alarms = AlarmWatch(config, catalog)
        self._reports = ReportKeeper(config, catalog)

    def run(self, stop: threading.Event) -> None:
        """Work until told to stop, or with ``once`` until nothing is open."""
        self._pool = make_pool(self.config)
        self._heartbeat.start()
        self._alarms.start()
        self._reports.start()
        watch = PoolWatch(self.catalog, self._pool, self._sessions)
        watch.start()
        try:
            while not stop.is_set():
                if present(self._turn) and self.once and not self._runs:
                    break
                stop.wait(_LOOK_S)
        finally:
            for run in self._runs.values():
                run.stop.set()
            for run in self._runs.values():
                if run.thread is not None:
                    run.thread.join()
            watch.stop()
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._reports.stop()
            self._alarms.stop()
            self._heartbeat.stop()

    def _turn(self) -> None:
        for session_id in self.catalog.read(_without_processing):
            self._begin(session_id)
        wanted = self.catalog.read(self._wanted)
        for number, name, session_id in wanted:
            self._keep(number, name, session_id)
        numbers = {number for number, _, _ in wanted}
        for number, run in list(self._runs.items()):
            if number not in numbers:
                run.stop.set()
            if number not in numbers and (run.thread is None or not run.thread.is_alive()):
                del self._runs[number]

    def _begin(self, session_id: int) -> None:
        """Begin a session's processing; one that can't is told of once, and tried again."""
        try:
            if not self.catalog.read(lambda orm: _has_pending(orm, session_id)):
                default_processing(self.config, self.catalog, session_id)
            begin_processing(self.config, self.catalog, session_id)
            self._refused.pop(session_id, None)
        except VitriflowError as error:
            if self._refused.get(session_id) != str(error):
                self._refused[session_id] = str(error)
                self._say("alarm", f"The processing of this session can't begin: {error}", session_id)

    def _keep(self, number: int, name: str, session_id: int) -> None:
        run = self._runs.setdefault(number, _Run(name, session_id))
        if run.thread is not None and run.thread.is_alive():
            return
        if run.thread is not None:
            run.thread.join()
            run.thread = None
            self._ended(run)
        if time.monotonic() >= run.not_before:
            run.error = None
            run.stop = threading.Event()
            run.thread = threading.Thread(target=self._work, args=(number, run), name=f"processing {number}")
            run.thread.start()

    def _work(self, number: int, run: _Run) -> None:
        try:
            assert self._pool is not None
            settings = Settings(min_free_bytes=self.config.storage.reserve_bytes)
            name = self.catalog.read(lambda orm: _experiment_of(orm, run.session_id))
            executor = self._pool.for_experiment(name)
            ProcessingRun(self.catalog, number, executor, settings).run(run.stop)
            run.failures = 0
        except BaseException as error:
            run.error = error

    def _ended(self, run: _Run) -> None:
        """Set when to try again after a coordinator ended, and tell people unless it's as it should be."""
        error = run.error
        if error is None or isinstance(error, Busy):
            run.not_before = time.monotonic() + _BUSY_S
            return
        pause = min(2.0**run.failures, _LONGEST_PAUSE_S)
        run.failures += 1
        run.not_before = time.monotonic() + pause
        if not (isinstance(error, Exception) and is_away(error)):
            _log.error("processing '%s' stopped", run.name, exc_info=error)
            text = f"Processing '{run.name}' stopped: {error or type(error).__name__}; tried again in {pause:.0f} s"
            present(lambda: self._say("alarm", text, run.session_id))

    def _wanted(self, orm: OrmSession) -> list[tuple[int, str, int]]:
        """Processings to keep going: of active sessions, and of others while they have open work."""
        query = (
            select(Processing.id, Processing.name, Session.id, Session.state, Session.closed_at)
            .join(Session, Session.id == Processing.session_id)
            .where(Processing.state != "finished", Session.state != SessionState.NEW)
            .order_by(Processing.id)
        )
        found = []
        for number, name, session_id, state, closed_at in orm.execute(query):
            if state == SessionState.ACTIVE and not self.once:
                self._drained.discard(number)
                found.append((number, name, session_id))
                continue
            if number in self._drained:
                continue
            if _has_open(orm, number, session_id):
                found.append((number, name, session_id))
            elif state == SessionState.CLOSED and (closed_at is None or now() - closed_at > _RECENT):
                self._drained.add(number)
        return found

    def _sessions(self) -> list[int]:
        """Sessions that are processed here now."""
        return sorted({run.session_id for run in list(self._runs.values()) if run.thread is not None})

    def _details(self) -> dict[str, Any]:
        if self._pool is None:
            return {"sessions": self._sessions(), "slots": {}}
        return {
            "sessions": self._sessions(),
            "slots": dict(self._pool.slots),
            "compute": self._pool.details(),
        }

    def _say(self, severity: str, text: str, session_id: int) -> None:
        event = {"at": now(), "session_id": session_id, "severity": severity, "text": text}
        self.catalog.write(lambda orm: orm.add(Event(**event)))


def _experiment_of(orm: OrmSession, session_id: int) -> str:
    """Name of the experiment that a session belongs to: shares and limits go by it."""
    query = (
        select(Experiment.name)
        .join(Sample, Sample.experiment_id == Experiment.id)
        .join(Session, Session.sample_id == Sample.id)
        .where(Session.id == session_id)
    )
    return orm.scalar(query) or ""


def _has_pending(orm: OrmSession, session_id: int) -> bool:
    return PENDING in (orm.get_one(Session, session_id).settings or {})


def _without_processing(orm: OrmSession) -> list[int]:
    """Sessions that wait for their processing to begin: active ones, and closed ones that never had it."""
    query = select(Session).where(
        Session.state.in_((SessionState.ACTIVE, SessionState.CLOSED, SessionState.PAUSED)),
        ~exists().where(Processing.session_id == Session.id),
    )
    found = []
    for session in orm.scalars(query):
        settings = session.settings or {}
        active = session.state == SessionState.ACTIVE and not settings.get(UNPROCESSED)
        if AWAITS not in settings and (PENDING in settings or active):
            found.append(session.id)
    return found


def _has_open(orm: OrmSession, number: int, session_id: int) -> bool:
    """Whether anything of a processing isn't dealt with: in it, or whole and not come in yet."""
    in_it = select(Measure.exposure_id).where(Measure.processing_id == number, Measure.status == "open")
    if orm.scalar(in_it.limit(1)) is not None:
        return True
    ended = (ExposureState.COMPLETE, ExposureState.PROBLEM)
    taken = exists().where(Measure.processing_id == number, Measure.exposure_id == Exposure.id)
    outside = select(Exposure.id).where(
        Exposure.session_id == session_id, or_(*(Exposure.state == state for state in ended)), ~taken
    )
    wanted = orm.scalar(select(Processing.selection["n"].as_integer()).where(Processing.id == number))
    if wanted is None:
        return orm.scalar(outside.limit(1)) is not None
    came_in = select(func.count()).select_from(Measure).where(Measure.processing_id == number)
    if (orm.scalar(came_in) or 0) >= wanted:
        return False
    chosen = selection_of(orm, number) or frozenset()
    return any(exposure in chosen for exposure in orm.scalars(outside))
