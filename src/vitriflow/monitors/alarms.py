"""Alarms: raised once, cleared once, with room between the two limits so that none flickers."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session as OrmSession

from vitriflow.catalog import Alarm, Event

RULE = "rule:"  # before the name of a rule of the configuration


class Level(StrEnum):
    """What a reading says: wrong raises an alarm, over clears it, between leaves it as it is."""

    WRONG = "wrong"
    BETWEEN = "between"
    OVER = "over"


@dataclass(frozen=True)
class Reading:
    """What a rule found of one subject.

    ``text`` is the sentence that people are told when it's wrong: what it is, how bad, and
    what to do. ``value`` is the number behind it, in the rule's own unit.
    """

    subject: str
    level: Level
    text: str = ""
    value: float | None = None
    session_id: int | None = None
    microscope: str | None = None
    severity: str = "alarm"


@dataclass(frozen=True)
class Change:
    """An alarm that was raised or cleared just now."""

    alarm: Alarm
    raised: bool


def level_of(value: float, wrong_at: float, over_at: float) -> Level:
    """The level of a value between two limits; which is higher says which way is wrong."""
    up = wrong_at >= over_at
    if (value >= wrong_at) if up else (value <= wrong_at):
        return Level.WRONG
    if (value <= over_at) if up else (value >= over_at):
        return Level.OVER
    return Level.BETWEEN


def settle_alarms(
    orm: OrmSession,
    rule: str,
    readings: Iterable[Reading],
    moment: datetime,
    *,
    unread: Collection[str] = (),
) -> list[Change]:
    """Raise and clear a rule's alarms by what it read; to be called by one process at a time.

    A subject that's wrong gets one alarm, however often that's said. One that's over, or of which
    nothing was read any more (its session ended), has its alarm cleared. Each change is an event too.

    Parameters
    ----------
    orm
        A transaction.
    rule
        The rule's name.
    readings
        All its subjects.
    moment
        Now.
    unread
        Subjects that couldn't be read: their alarms stay as they are.

    Returns
    -------
    What changed.
    """
    waiting = {
        row.subject: row
        for row in orm.scalars(select(Alarm).where(Alarm.rule == rule, Alarm.cleared_at.is_(None)))
    }
    changes: list[Change] = []
    kept = set(unread)
    for reading in readings:
        known = waiting.get(reading.subject)
        if reading.level == Level.WRONG and known is None:
            changes.append(Change(_raise(orm, rule, reading, moment), raised=True))
        elif reading.level == Level.WRONG and known is not None:
            known.value = reading.value
        if reading.level != Level.OVER:
            kept.add(reading.subject)
    for subject, row in waiting.items():
        if subject not in kept:
            row.cleared_at = moment
            orm.add(_event(row, moment, "info", f"Over: {row.text}"))
            changes.append(Change(row, raised=False))
    return changes


def settle_rules(orm: OrmSession, found: Mapping[str, Iterable[Reading]], moment: datetime) -> list[Change]:
    """Settle the rules of the configuration; alarms of rules that it has no more are cleared.

    Parameters
    ----------
    found
        Readings by the rule's name. Their alarms' rule is the name after ``rule:``.
    """
    query = select(Alarm.rule).where(Alarm.rule.startswith(RULE), Alarm.cleared_at.is_(None)).distinct()
    gone: dict[str, Iterable[Reading]] = {name.removeprefix(RULE): () for name in orm.scalars(query)}
    changes: list[Change] = []
    for name, readings in (gone | dict(found)).items():
        changes += settle_alarms(orm, f"{RULE}{name}", readings, moment)
    return changes


def open_alarms(orm: OrmSession, session_id: int | None = None) -> list[dict[str, Any]]:
    """Alarms that aren't over, newest first, ready for JSON.

    Parameters
    ----------
    session_id
        Only those of this session and those of no session (disks, services).
    """
    query = select(Alarm).where(Alarm.cleared_at.is_(None)).order_by(Alarm.id.desc())
    if session_id is not None:
        query = query.where((Alarm.session_id == session_id) | Alarm.session_id.is_(None))
    return [
        {
            "id": row.id,
            "rule": row.rule,
            "subject": row.subject,
            "microscope": row.microscope,
            "severity": row.severity,
            "text": row.text,
            "value": row.value,
            "raised_at": row.raised_at,
            "acknowledged_by": row.acknowledged_by,
            "acknowledged_at": row.acknowledged_at,
        }
        for row in orm.scalars(query)
    ]


def _raise(orm: OrmSession, rule: str, reading: Reading, moment: datetime) -> Alarm:
    row = Alarm(
        rule=rule,
        subject=reading.subject[:192],
        session_id=reading.session_id,
        microscope=reading.microscope,
        severity=reading.severity,
        text=reading.text,
        value=reading.value,
        raised_at=moment,
        told=[],
    )
    orm.add(row)
    orm.add(_event(row, moment, reading.severity, reading.text))
    return row


def _event(row: Alarm, moment: datetime, severity: str, text: str) -> Event:
    return Event(at=moment, session_id=row.session_id, severity=severity, text=text)
