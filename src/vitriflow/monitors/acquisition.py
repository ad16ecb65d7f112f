"""Rules over the way in: silence, disks that fill up, copying that falls behind, services that are gone."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session as OrmSession

from vitriflow.catalog import (
    Event,
    Exposure,
    FileState,
    Microscope,
    Node,
    Session,
    SessionState,
    SourceFile,
)
from vitriflow.monitors.alarms import Level, Reading, level_of

_WINDOW_S = 3600.0  # over which a disk's rate is taken
_LEAST_S = 600.0  # no forecast from less
_FORGOTTEN = timedelta(days=7)  # a service that is gone for so long isn't missed any more


def silence(orm: OrmSession, limit_min: float, moment: datetime) -> list[Reading]:
    """Active sessions without a new file for too long; counted from when they were started or resumed."""
    readings = []
    for session, microscope in _active(orm):
        seen = (
            orm.scalar(select(func.max(SourceFile.first_seen_at)).where(SourceFile.session_id == session.id)),
            orm.scalar(select(func.max(Exposure.first_seen_at)).where(Exposure.session_id == session.id)),
            orm.scalar(
                select(func.max(Event.at)).where(
                    Event.session_id == session.id, Event.text.endswith("is now active")
                )
            ),
            session.created_at,
        )
        quiet_min = (moment - max(_aware(when) for when in seen if when)).total_seconds() / 60.0
        readings.append(
            Reading(
                f"session:{session.key}",
                level_of(quiet_min, limit_min, limit_min / 2),
                f"No new file of session {session.key} on {microscope} for {quiet_min:.0f} min. Look at the "
                f"microscope; if it has ended: vitriflow stop {session.key}",
                quiet_min,
                session.id,
                microscope,
            )
        )
    return readings


def copy_behind(orm: OrmSession, limit_min: float, moment: datetime) -> list[Reading]:
    """Sessions whose whole files wait for being copied for too long."""
    readings = []
    for session, microscope in _active(orm):
        if session.mode != "copy":
            continue
        waiting = select(func.min(SourceFile.complete_at), func.count(), func.sum(SourceFile.size)).where(
            SourceFile.session_id == session.id, SourceFile.state == FileState.COMPLETE
        )
        oldest, number, size = orm.execute(waiting).one()
        minutes = 0.0 if oldest is None else (moment - _aware(oldest)).total_seconds() / 60.0
        readings.append(
            Reading(
                f"session:{session.key}",
                level_of(minutes, limit_min, limit_min / 2),
                f"Copying falls behind in session {session.key}: {number} files ({_gb(size)}) wait, the oldest "
                f"for {minutes:.0f} min. Check the network and the storage; nothing is lost meanwhile.",
                minutes,
                session.id,
                microscope,
            )
        )
    return readings


def session_size(orm: OrmSession, limits: Mapping[str, int]) -> list[Reading]:
    """Active sessions that hold more than their microscope's limit (bytes by microscope)."""
    readings = []
    for session, microscope in _active(orm):
        limit = limits.get(microscope)
        if limit is None:
            continue
        size = orm.scalar(select(func.sum(SourceFile.size)).where(SourceFile.session_id == session.id)) or 0
        level = Level.WRONG if size > limit else Level.OVER
        text = f"Session {session.key} holds {_gb(size)}; the limit of {microscope} is {_gb(limit)}"
        readings.append(
            Reading(f"session:{session.key}", level, text, float(size), session.id, microscope, "warning")
        )
    return readings


def nodes_lost(orm: OrmSession, limit_s: float, moment: datetime) -> list[Reading]:
    """Services that said nothing for too long, and didn't say good-bye."""
    readings = []
    for node in orm.scalars(select(Node)):
        silent = (moment - _aware(node.seen_at)).total_seconds()
        if silent > _FORGOTTEN.total_seconds():
            continue
        host = str((node.details or {}).get("host", node.name))
        text = (
            f"The service '{node.service}' on {host} wasn't heard of for {silent:.0f} s. Others take over its "
            f"work where there are any; look at that machine: systemctl status vitriflow-{node.service}"
        )
        readings.append(Reading(f"node:{node.name}", level_of(silent, limit_s, limit_s / 2), text, silent))
    return readings


@dataclass
class DiskForecast:
    """Free space over the last hour, and when it will be used up at this rate.

    Rates are measured here, on our clock; what a microscope says about its disk isn't used.
    """

    limit_h: float
    samples: dict[str, deque[tuple[float, int]]] = field(default_factory=dict)

    def read(self, name: str, what: str, free: int, clock_s: float) -> Reading:
        """Take in one measurement.

        Parameters
        ----------
        name
            The disk's own name; the alarm's subject.
        what
            What it's called in a sentence.
        free
            Free space now (bytes).
        clock_s
            A monotonic clock (s).
        """
        samples = self.samples.setdefault(name, deque())
        samples.append((clock_s, free))
        while samples[0][0] < clock_s - _WINDOW_S:
            samples.popleft()
        hours = self._hours(samples, free)
        if hours is None:
            return Reading(f"disk:{name}", Level.OVER)
        text = (
            f"{what} will be full in {hours:.1f} h at the present rate: {_gb(free)} are free. Free space, or "
            "stop what fills it."
        )
        return Reading(f"disk:{name}", level_of(hours, self.limit_h, self.limit_h * 1.5), text, hours)

    def _hours(self, samples: "deque[tuple[float, int]]", free: int) -> float | None:
        """Hours until it's full; None where it doesn't fill up, or too little is known."""
        since, then = samples[0]
        seconds = samples[-1][0] - since
        used = then - free
        if free <= 0:
            return 0.0
        if seconds < _LEAST_S or used <= 0:
            return None
        return free / (used / seconds) / 3600.0


def _active(orm: OrmSession) -> list[Any]:
    query = (
        select(Session, Microscope.name)
        .join(Microscope, Microscope.id == Session.microscope_id)
        .where(Session.state == SessionState.ACTIVE)
    )
    return list(orm.execute(query).all())


def _aware(when: datetime) -> datetime:
    """Some databases give the time of an aggregate without its zone, which is UTC."""
    return when if when.tzinfo else when.replace(tzinfo=UTC)


def _gb(size: float | None) -> str:
    size = size or 0
    return f"{size / 1e12:.1f} TB" if size >= 1e12 else f"{size / 1e9:.1f} GB"
