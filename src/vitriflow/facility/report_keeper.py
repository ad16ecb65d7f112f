"""Writes reports by itself: of each session at its close, and of active ones on a schedule."""

import logging
import threading
from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session as OrmSession

from vitriflow.catalog import (
    Catalog,
    Event,
    LeaseHandle,
    Session,
    SessionState,
    now,
    take_lease,
    this_owner,
)
from vitriflow.config import Config
from vitriflow.errors import Busy, VitriflowError
from vitriflow.facility.keeping import keep_looking, let_go
from vitriflow.facility.report import Report, make_report, write_report

_log = logging.getLogger(__name__)
_LEASE_NAME = "reports"
_LEASE_S = 300.0
_LOOK_S = 5.0
_AGAIN = timedelta(minutes=10)  # a closed session of which something is open yet
_LATELY = timedelta(days=2)  # closed before: its report was made, or nobody waits for it
_WRITTEN = "Report written: "


class ReportKeeper:
    """A thread that writes reports; one process of the facility at a time does, by lease.

    A session that was closed gets its report at once, and again while exposures of it are still
    being processed. Active ones get theirs every ``[reports] every_h`` where ``publish_to`` is set.
    Each report is told in the session's events, so that none is written again after a restart.
    """

    def __init__(self, config: Config, catalog: Catalog) -> None:
        self._config = config
        self._catalog = catalog
        self._lease: LeaseHandle | None = None
        self._next: dict[int, datetime] = {}
        self._final: set[int] = set()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reports", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End after the report in hand."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join(30.0)

    def look(self, moment: datetime | None = None) -> list[str]:
        """Write what's due now, if it's this process's turn. Gives the keys of sessions whose reports were written."""
        at = moment or now()
        try:
            if self._lease is None:
                self._lease = take_lease(
                    self._catalog, _LEASE_NAME, this_owner(f"reports-{id(self):x}"), _LEASE_S
                )
            written = []
            for number, key, closed_at in self._catalog.read(lambda orm: self._due(orm, at)):
                if self._over.is_set():
                    break
                self._lease.renew(self._catalog)
                if self._write(number, key, closed_at, at):
                    written.append(key)
        except Busy:
            self._lease = None
            return []
        return written

    def _run(self) -> None:
        keep_looking(self._over, _LOOK_S, self.look, _log, "reports can't be written")
        let_go(self._catalog, self._lease)

    def _due(self, orm: OrmSession, moment: datetime) -> list[tuple[int, str, datetime | None]]:
        settings = self._config.reports
        query = select(Session).where(Session.state.in_((SessionState.ACTIVE, SessionState.CLOSED)))
        found = []
        for row in orm.scalars(query):
            if row.id in self._final and row.state == SessionState.CLOSED:
                continue
            if row.state == SessionState.ACTIVE:
                self._final.discard(row.id)
                wanted = settings.publish_to is not None and settings.every_h is not None
                step = timedelta(hours=settings.every_h or 0)
                since = self._told_at(orm, row.id) or row.created_at
            else:
                wanted = row.closed_at is not None and moment - row.closed_at < _LATELY
                step, since = timedelta(0), row.closed_at or moment
                told = self._told_at(orm, row.id)
                if told is not None and told >= since:
                    step, since = _AGAIN, told
            if wanted and moment >= max(since + step, self._next.get(row.id, moment)):
                found.append((row.id, row.key, row.closed_at))
        return found

    def _told_at(self, orm: OrmSession, session_id: int) -> datetime | None:
        query = (
            select(Event.at)
            .where(Event.session_id == session_id, Event.text.startswith(_WRITTEN))
            .order_by(Event.id.desc())
            .limit(1)
        )
        return orm.scalar(query)

    def _write(self, number: int, key: str, closed_at: datetime | None, moment: datetime) -> bool:
        """Write one; whether it was. One that can't be is told once and tried again later."""
        self._next[number] = moment + _AGAIN
        try:
            report = make_report(self._config, self._catalog, key)
            if self._is_old(report, number, closed_at):
                return False
            path = write_report(report, None, self._config)
        except VitriflowError as error:
            self._say(number, "warning", f"The report of this session can't be written: {error}", moment)
            return False
        if report.is_final:
            self._final.add(number)
        self._say(number, "info", f"{_WRITTEN}{path}", moment)
        return True

    def _is_old(self, report: Report, number: int, closed_at: datetime | None) -> bool:
        """Whether nothing is new: the report was written after the close, and nothing was open then or now."""
        if closed_at is None or not report.is_final:
            return False
        told = self._catalog.read(lambda orm: self._told_at(orm, number))
        if told is None or told < closed_at:
            return False
        self._final.add(number)
        last = report.values["session"]["last_finished_at"]
        return last is None or last <= told

    def _say(self, number: int, severity: str, text: str, moment: datetime) -> None:
        event = {"at": moment, "session_id": number, "severity": severity, "text": text}

        def work(orm: OrmSession) -> None:
            query = select(Event.text).where(Event.session_id == number).order_by(Event.id.desc()).limit(1)
            if severity == "info" or orm.scalar(query) != text:
                orm.add(Event(**event))

        self._catalog.write(work)
