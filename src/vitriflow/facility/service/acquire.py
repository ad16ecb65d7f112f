"""``vitriflow acquire``: takes in all active sessions of the microscopes that this node holds."""

import logging
import math
import threading
import time
from collections.abc import Sequence
from typing import Any

from sqlalchemy import exists, func, or_, select

from vitriflow.catalog import (
    Catalog,
    Event,
    Exposure,
    ExposureState,
    FileState,
    LeaseHandle,
    Microscope,
    Node,
    Session,
    SessionState,
    SourceFile,
    now,
    take_lease,
    this_owner,
)
from vitriflow.config import Config
from vitriflow.errors import BadConfig, BadParameter, Busy
from vitriflow.facility.access_keeper import AccessKeeper
from vitriflow.facility.activation import AWAITS, change_settings
from vitriflow.facility.new_folder import appeared
from vitriflow.facility.processing_run import present
from vitriflow.facility.service.acquire_child import BUSY, Assignment, child_command
from vitriflow.facility.service.alarms import AlarmWatch
from vitriflow.facility.service.children import Children, Job
from vitriflow.facility.service.heartbeat import Heartbeat
from vitriflow.facility.service.releasing import ReleaseKeeper

_log = logging.getLogger(__name__)
LEASE_S = 20.0
_LOOK_S = 1.0
_FOREIGN_S = 10.0  # a node with its share of microscopes leaves a free one to others for so long


class AcquireService:
    """One node's acquisition: a lease for each microscope, a process for each of their active sessions.

    Parameters
    ----------
    config, catalog
        Of this facility.
    microscopes
        Only these; all of the configuration without.
    once
        End when all that is there now is taken in.
    label
        Tells several services of one machine apart in the list of nodes.

    Raises
    ------
    BadConfig, BadParameter
        When no microscope is configured, or not the one named.
    """

    def __init__(
        self,
        config: Config,
        catalog: Catalog,
        microscopes: Sequence[str] = (),
        *,
        once: bool = False,
        label: str = "",
    ) -> None:
        self.config = config
        self.catalog = catalog
        self.once = once
        self.names = _chosen(config, microscopes)
        self._owner = this_owner("acquire")
        self._held: dict[str, LeaseHandle] = {}
        self._renewed: dict[str, float] = {}
        self._free_since: dict[str, float] = {}
        self._children = Children(self._tell)
        self._jobs: dict[str, Job] = {}
        self._started: set[str] = set()
        self._heartbeat = Heartbeat(catalog, "acquire", self._details, label)
        self._alarms = AlarmWatch(config, catalog)
        self._access = AccessKeeper(config, catalog)
        self._release = ReleaseKeeper(config, catalog, lambda: sorted(self._held))

    def run(self, stop: threading.Event) -> None:
        """Work until told to stop, or with ``once`` until all that's there is in."""
        self._heartbeat.start()
        self._alarms.start()
        self._access.start()
        self._release.start()
        try:
            while not stop.is_set():
                if present(self._turn) and self.once and not self._jobs:
                    break
                self._children.want(self._jobs)
                self._started |= set(self._children.pids())
                stop.wait(_LOOK_S)
        finally:
            self._release.stop()
            self._children.stop()
            for lease in self._held.values():
                present(lambda lease=lease: lease.release(self.catalog))  # type: ignore[misc]
            self._access.stop()
            self._alarms.stop()
            self._heartbeat.stop()

    # -- what this node does ----------------------------------------------------------------

    def _turn(self) -> None:
        self._renew()
        self._share()
        sessions = self.catalog.read(lambda orm: _sessions(orm, list(self._held)))
        self._jobs = {
            session.key: self._job(session)
            for session, _ in sessions
            if self._has_source(session) and not (self.once and self._ended(session.key))
        }

    def _ended(self, key: str) -> bool:
        """With ``once``: whether a session's child has been there and ended."""
        return key in self._started and key not in self._children.pids()

    def _job(self, session: Session) -> Job:
        drain = self.once or session.state != SessionState.ACTIVE
        text = Assignment(self.config, session.id, drain).as_text()
        says = f"The acquisition of session {session.key}"
        return Job(child_command(), says, text, quiet_codes=(0, BUSY), pause_s=60.0 if drain else 5.0)

    def _has_source(self, session: Session) -> bool:
        """Whether a session knows its folder; one that waits for the next to appear gets it here."""
        known = (session.settings or {}).get(AWAITS)
        if known is None:
            return True
        found = appeared(known)
        if found is None:
            return False
        change_settings(self.catalog, session.id, {AWAITS: None}, source=str(found))
        self._say("info", f"The folder of this session is {found}", session.id)
        return True

    # -- leases -----------------------------------------------------------------------------

    def _renew(self) -> None:
        """Keep what is held. What was lost meanwhile belongs to another node: its children end."""
        for name, lease in list(self._held.items()):
            if time.monotonic() - self._renewed[name] < LEASE_S / 4:
                continue
            try:
                lease.renew(self.catalog)
                self._renewed[name] = time.monotonic()
            except Busy as error:
                del self._held[name]
                self._tell("warning", f"Microscope {name} is taken in by another node now: {error}")

    def _share(self) -> None:
        """Take microscopes that are free, leaving others their share; give up idle ones above ours."""
        nodes = max(1, self.catalog.read(_living_nodes))
        share = math.ceil(len(self.names) / nodes)
        for name in self.names:
            if name in self._held:
                continue
            waited = time.monotonic() - self._free_since.setdefault(name, time.monotonic())
            if len(self._held) >= share and waited < _FOREIGN_S:
                continue
            try:
                lease = take_lease(self.catalog, f"microscope/{name}", self._owner, LEASE_S)
            except Busy:
                self._free_since[name] = time.monotonic()
                continue
            self._held[name], self._renewed[name] = lease, time.monotonic()
            self._free_since.pop(name, None)
        if len(self._held) > share:
            self._give_up_idle()

    def _give_up_idle(self) -> None:
        busy = {name for _, name in self.catalog.read(lambda orm: _sessions(orm, list(self._held)))}
        for name in list(self._held):
            if name not in busy:
                self._held.pop(name).release(self.catalog)
                self._free_since[name] = time.monotonic()
                return

    # -- telling ----------------------------------------------------------------------------

    def _details(self) -> dict[str, Any]:
        return {"microscopes": sorted(self._held), "sessions": sorted(self._jobs)}

    def _tell(self, severity: str, text: str) -> None:
        _log.warning("%s", text)
        session = next((key for key in self._jobs if f"session {key} " in text), None)

        def work() -> None:
            query = select(Session.id).where(Session.key == session)
            number = None if session is None else self.catalog.read(lambda orm: orm.scalar(query))
            self._say(severity, text, number)

        present(work)

    def _say(self, severity: str, text: str, session_id: int | None) -> None:
        event = {"at": now(), "session_id": session_id, "severity": severity, "text": text}
        self.catalog.write(lambda orm: orm.add(Event(**event)))


def _chosen(config: Config, wanted: Sequence[str]) -> tuple[str, ...]:
    if not config.microscopes:
        raise BadConfig(
            "facility.toml",
            "at least one microscope",
            "none",
            "Add [microscopes.tem1] with its sources; 'vitriflow init' shows how.",
        )
    for name in wanted:
        if name not in config.microscopes:
            known = ", ".join(config.microscopes)
            raise BadParameter(f"microscope '{name}'", f"one of {known}", repr(name), "Check its name.")
    return tuple(wanted) or tuple(config.microscopes)


def _sessions(orm: Any, microscopes: Sequence[str]) -> list[tuple[Session, str]]:
    """Sessions to take in: active ones, and closed ones of which files are on their way."""
    on_way = (FileState.SEEN, FileState.COMPLETE, FileState.COPIED)
    files = exists().where(SourceFile.session_id == Session.id, SourceFile.state.in_(on_way))
    growing = exists().where(Exposure.session_id == Session.id, Exposure.state == ExposureState.SEEN)
    query = (
        select(Session, Microscope.name)
        .join(Microscope, Microscope.id == Session.microscope_id)
        .where(
            Microscope.name.in_(microscopes),
            or_(
                Session.state == SessionState.ACTIVE,
                (Session.state == SessionState.CLOSED) & or_(files, growing),
            ),
        )
        .order_by(Session.id)
    )
    return [(session, name) for session, name in orm.execute(query)]


def _living_nodes(orm: Any) -> int:
    query = select(func.count()).where(Node.service == "acquire", Node.seen_at > Heartbeat.living_since())
    return int(orm.scalar(query) or 0)
