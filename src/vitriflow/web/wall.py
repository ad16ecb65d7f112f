"""The facility wall: every microscope at a glance, readable from across a room."""

import shutil
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response
from sqlalchemy import select
from sqlalchemy.orm import Session as OrmSession

from vitriflow.catalog import Microscope, Node, Session, SessionState, now
from vitriflow.elogbook.access import current_session
from vitriflow.elogbook.alarms import acknowledge_alarm
from vitriflow.elogbook.permissions import Caller
from vitriflow.errors import BadParameter
from vitriflow.monitors import open_alarms
from vitriflow.web.api import json_answer
from vitriflow.web.auth import needs
from vitriflow.web.logbook_api import RowId
from vitriflow.web.lookup import find_scene
from vitriflow.web.problems import NotFound
from vitriflow.web.site import Site, site_of
from vitriflow.web.summary import summarise

router = APIRouter()
Acknowledger = Annotated[Caller, needs("alarm.acknowledge")]
_ALIVE_S = 20.0
_LOOK_S = 10.0
_LEVELS = {"alarm": "poor", "warning": "fair"}


@dataclass
class DiskLook:
    """Free space of disks, looked at in the background: a share that hangs must not hold up a page."""

    known: dict[Path, tuple[int, int]] = field(default_factory=dict)  # total, free (bytes)
    _asked: dict[Path, float] = field(default_factory=dict)
    _asking: dict[Path, threading.Thread] = field(default_factory=dict)

    def free(self, path: Path) -> tuple[int, int] | None:
        """Total and free space as last seen; None where it was never seen."""
        thread = self._asking.get(path)
        due = time.monotonic() - self._asked.get(path, -_LOOK_S) >= _LOOK_S
        if due and (thread is None or not thread.is_alive()):
            self._asked[path] = time.monotonic()
            thread = threading.Thread(target=self._ask, args=(path,), name="free space", daemon=True)
            self._asking[path] = thread
            thread.start()
            thread.join(0.2)  # a healthy disk answers at once
        return self.known.get(path)

    def _ask(self, path: Path) -> None:
        try:
            usage = shutil.disk_usage(path)
        except OSError:
            self.known.pop(path, None)
            return
        self.known[path] = (usage.total, usage.free)


_DISKS = DiskLook()


def wall_values(site: Site, orm: OrmSession) -> dict[str, Any]:
    """What the wall shows: microscopes, services, disks and alarms."""
    alarms = open_alarms(orm)
    configured = site.config.microscopes if site.config is not None else {}
    known = {one.name: one for one in orm.scalars(select(Microscope))}
    microscopes = [
        _microscope(site, orm, name, known.get(name), [one for one in alarms if one["microscope"] == name])
        for name in sorted({*configured, *known})
    ]
    moment = now()
    nodes = [
        {
            "name": one.name,
            "service": one.service,
            "host": str((one.details or {}).get("host", one.name)),
            "alive": (moment - one.seen_at).total_seconds() < _ALIVE_S,
            "seen_at": one.seen_at,
        }
        for one in orm.scalars(select(Node).order_by(Node.name))
    ]
    common = [one for one in alarms if one["microscope"] is None]
    return {
        "microscopes": microscopes,
        "nodes": nodes,
        "alarms": common,
        "disks": disk_values(site),
        "at": moment,
    }


def _microscope(
    site: Site, orm: OrmSession, name: str, row: Microscope | None, alarms: list[dict[str, Any]]
) -> dict[str, Any]:
    session = current_session(orm, row.id) if row is not None else None
    last = None
    if session is None and row is not None:
        query = (
            select(Session.key).where(Session.microscope_id == row.id).order_by(Session.id.desc()).limit(1)
        )
        last = orm.scalar(query)
    shown: dict[str, Any] = {"name": name, "alarms": alarms, "session": None, "last_session": last}
    shown["level"] = _level(alarms)
    if session is None:
        return shown
    scene = find_scene(site, orm, session.key)
    summary = summarise(scene.session, scene.snapshot, scene.overlay)
    shown["level"] = _level(alarms) or (
        summary.verdict.level if session.state == SessionState.ACTIVE else "paused"
    )
    shown["session"] = {
        "key": session.key,
        "state": session.state,
        "sample": scene.session.sample,
        "experiment": scene.session.experiment,
        "sentence": summary.verdict.sentence,
        "total": summary.counts.total,
        "done": summary.counts.done,
        "backlog": summary.counts.open,
        "set_aside": summary.counts.rejected + summary.counts.quarantined + summary.counts.failed,
        "rate_per_h": summary.rate_per_h,
        "latency_p50_s": summary.latency_p50_s,
        "latency_p95_s": summary.latency_p95_s,
        "last": summary.last,
        "counts": summary.counts,
    }
    return shown


def _level(alarms: list[dict[str, Any]]) -> str:
    return next((_LEVELS[level] for level in _LEVELS if any(one["severity"] == level for one in alarms)), "")


def disk_values(site: Site) -> list[dict[str, Any]]:
    """Total and free space of storage and of the microscopes' sources, as last seen."""
    if site.config is None:
        return []
    places = [("storage", site.config.storage.root)]
    for name, scope in site.config.microscopes.items():
        places += [(name, source) for source in scope.sources]
    found = []
    for name, path in places:
        usage = _DISKS.free(path)
        total, free = usage or (0, 0)
        used = None if usage is None or not total else 1.0 - free / total
        found.append({"name": name, "total": total, "free": free, "used": used, "known": usage is not None})
    return found


@router.get("/wall", include_in_schema=False, dependencies=[needs("facility.read")])
def wall_page(request: Request) -> HTMLResponse:
    """All microscopes at a glance."""
    site = site_of(request)
    return site.render(request, "wall.html", site.read(lambda orm: wall_values(site, orm)))


@router.get("/part/wall", include_in_schema=False, dependencies=[needs("facility.read")])
def wall_part(request: Request) -> HTMLResponse:
    """The wall itself, fetched again every few seconds."""
    site = site_of(request)
    return site.render(request, "part_wall.html", site.read(lambda orm: wall_values(site, orm)))


@router.get("/api/wall", tags=["facility"], dependencies=[needs("facility.read")])
def wall_api(request: Request) -> Response:
    """All microscopes, services, disks and open alarms."""
    site = site_of(request)
    return json_answer(site.read(lambda orm: wall_values(site, orm)))


def _acknowledge(request: Request, caller: Caller, alarm: int) -> None:
    def work(orm: OrmSession) -> None:
        try:
            acknowledge_alarm(orm, caller, alarm)
        except BadParameter as error:
            raise NotFound(error.thing, error.expected, error.found) from error

    site_of(request).catalog.write(work)


@router.post("/alarms/{alarm}/acknowledge", include_in_schema=False)
def acknowledge_form(request: Request, caller: Acknowledger, alarm: RowId) -> HTMLResponse:
    """Say that an alarm was seen; the wall comes back."""
    _acknowledge(request, caller, alarm)
    site = site_of(request)
    return site.render(request, "wall.html", site.read(lambda orm: wall_values(site, orm)))


@router.post("/api/alarms/{alarm}/acknowledge", tags=["facility"])
def acknowledge(request: Request, caller: Acknowledger, alarm: RowId) -> Response:
    """Say that an alarm was seen. It stays until what it tells of is over."""
    _acknowledge(request, caller, alarm)
    return json_answer({"id": alarm})
