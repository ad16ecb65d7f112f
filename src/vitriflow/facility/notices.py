"""Tells people of alarms: each change once, by each way that wants it, again when it couldn't be delivered.

What was told stands in the alarm's own row (``told``), so it holds when services restart. A message
whose delivery couldn't be written down any more is sent twice rather than never.
"""

import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import Any
from zoneinfo import ZoneInfo

from jinja2 import Template
from jinja2.sandbox import SandboxedEnvironment
from sqlalchemy import or_, select
from sqlalchemy.orm import Session as OrmSession

from vitriflow.catalog import Alarm, Catalog, LeaseHandle, Session, now, take_lease, this_owner
from vitriflow.config import Config, RouteSection
from vitriflow.config.monitoring import quiet_times
from vitriflow.errors import Busy
from vitriflow.facility.keeping import keep_looking, let_go
from vitriflow.facility.notices_send import Message, NotDelivered, send
from vitriflow.monitors import Level, Reading, settle_alarms

_log = logging.getLogger(__name__)
_LEASE_NAME = "notices"
_LEASE_S = 120.0
_RULE = "rule:"
_FAILED = "notice_failed"
_LONGEST_PAUSE_S = 3600.0
_MOST_IN_ONE = 20


@dataclass(frozen=True)
class Due:
    """One change of an alarm that one way is to be told of."""

    alarm: int
    change: str  # raised or over
    tries: int


class Notifier:
    """A thread that sends what's due; one process of the facility at a time does, by lease.

    Parameters
    ----------
    config, catalog
        Of this facility.
    deliver
        Sends one message by one way.
    """

    def __init__(
        self,
        config: Config,
        catalog: Catalog,
        deliver: Callable[[str, RouteSection, Message], None] = send,
    ) -> None:
        self._config = config
        self._catalog = catalog
        self._deliver = deliver
        self._lease: LeaseHandle | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="notices", daemon=True)

    def start(self) -> None:
        """Begin, where anybody is to be told."""
        if self._config.notices.to:
            self._thread.start()

    def stop(self) -> None:
        """End; a message that hangs isn't waited for for long."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join(5.0)

    def look(self, moment: datetime | None = None) -> int:
        """Send what's due now, if it's this process's turn. Gives the number of messages that were delivered."""
        try:
            if self._lease is None:
                self._lease = take_lease(
                    self._catalog, _LEASE_NAME, this_owner(f"notices-{id(self):x}"), _LEASE_S
                )
            delivered = 0
            for name, route in self._config.notices.to.items():
                self._lease.renew(self._catalog)  # each way may hang for as long as its own limit
                delivered += self._tell(name, route, moment or now())
        except Busy:
            self._lease = None
            return 0
        return delivered

    def _run(self) -> None:
        keep_looking(
            self._over,
            min(self._config.monitors.look_every_s, 60.0),
            self.look,
            _log,
            "notices can't be sent",
        )
        let_go(self._catalog, self._lease)

    def _tell(self, name: str, route: RouteSection, moment: datetime) -> int:
        """Send all that's due one way in one message, and note how it went. 1 when it was delivered."""
        shown, due = self._catalog.read(lambda orm: self._due(orm, name, route, moment))
        if not due:
            return 0
        why = ""
        try:
            self._deliver(name, route, self._message(route, shown))
        except NotDelivered as error:
            why = str(error)
            _log.warning("%s", why)
        except Exception as error:
            why = f"notice by '{name}': {type(error).__name__}: {error}"
            _log.exception("a notice by '%s' can't be sent", name)
        self._catalog.write(lambda orm: self._note(orm, name, due, why, moment))
        return 0 if why else 1

    # -- what's due ---------------------------------------------------------------------------

    def _due(
        self, orm: OrmSession, name: str, route: RouteSection, moment: datetime
    ) -> tuple[list[dict[str, Any]], list[Due]]:
        since = moment - timedelta(hours=self._config.notices.give_up_h)
        query = (
            select(Alarm, Session.key)
            .outerjoin(Session, Session.id == Alarm.session_id)
            .where(or_(Alarm.raised_at > since, Alarm.cleared_at > since))
            .order_by(Alarm.id)
        )
        shown: list[dict[str, Any]] = []
        due: list[Due] = []
        for alarm, key in orm.execute(query):
            one = self._next(alarm, name, route, moment)
            if one is not None and len(due) < _MOST_IN_ONE:
                due.append(one)
                shown.append(self._shown(alarm, key, one))
        return shown, due

    def _next(self, alarm: Alarm, name: str, route: RouteSection, moment: datetime) -> Due | None:
        """The change that this way is to be told of now, if any."""
        if not _wants(name, route, alarm):
            return None
        told = {entry["change"]: entry for entry in alarm.told or [] if entry.get("to") == name}
        raised, over = told.get("raised"), told.get("over")
        sent = raised is not None and raised.get("sent")
        if alarm.cleared_at is None:
            change, entry = "raised", raised
            if alarm.acknowledged_at is not None:  # somebody knows already
                return None
        else:  # who wasn't told that it's wrong isn't told that it's over either
            change, entry = "over", over
            if not (sent and route.over):
                return None
        if entry is not None and (entry.get("sent") or moment < datetime.fromisoformat(entry["again_at"])):
            return None
        if self._is_quiet(route, alarm, moment):
            return None
        return Due(alarm.id, change, 0 if entry is None else int(entry["tries"]))

    def _is_quiet(self, route: RouteSection, alarm: Alarm, moment: datetime) -> bool:
        """Whether nobody is to be disturbed now: by the way's hours (but for loud alarms), or by the rule's own."""
        clock = moment.astimezone(ZoneInfo(self._config.notices.time_zone)).time()
        if alarm.severity not in route.loud and is_within(route.quiet_hours, clock):
            return True
        name = alarm.rule.removeprefix(_RULE)
        rule = next((one for one in self._config.monitors.rules if one.name == name), None)
        return alarm.rule.startswith(_RULE) and rule is not None and is_within(rule.quiet_hours, clock)

    # -- what's said --------------------------------------------------------------------------

    def _shown(self, alarm: Alarm, key: str | None, due: Due) -> dict[str, Any]:
        when = alarm.cleared_at if due.change == "over" and alarm.cleared_at else alarm.raised_at
        zone = ZoneInfo(self._config.notices.time_zone)
        return {
            "text": " ".join(alarm.text.split()),
            "severity": alarm.severity,
            "rule": alarm.rule.removeprefix(_RULE),
            "microscope": alarm.microscope or "",
            "session": key or "",
            "value": alarm.value,
            "since": when.astimezone(zone).strftime("%Y-%m-%d %H:%M %Z"),
            "over": due.change == "over",
        }

    def _message(self, route: RouteSection, shown: list[dict[str, Any]]) -> Message:
        over = all(one["over"] for one in shown)
        rank = {"info": 0, "warning": 1, "alarm": 2}
        values = {
            "facility": self._config.facility.name,
            "alarms": shown,
            "n": len(shown),
            "severity": max((one["severity"] for one in shown), key=lambda name: rank.get(name, 0)),
            "over": over,
            "page": self._config.notices.page,
        }
        subject = " ".join(_template(route.subject).render(values).split())[:250]
        return Message(subject, _template(route.message).render(values).strip() + "\n", bad=not over)

    # -- what's noted -------------------------------------------------------------------------

    def _note(self, orm: OrmSession, name: str, due: Iterable[Due], why: str, moment: datetime) -> None:
        settings = self._config.notices
        most = 0
        for one in due:
            alarm = orm.get(Alarm, one.alarm)
            if alarm is None:
                continue
            tries = one.tries + 1
            most = max(most, tries)
            entry: dict[str, Any] = {
                "to": name,
                "change": one.change,
                "at": moment.isoformat(),
                "tries": tries,
            }
            entry["sent"] = not why
            if why:
                pause = min(settings.retry_s * 2 ** (tries - 1), _LONGEST_PAUSE_S)
                entry |= {"why": why[:500], "again_at": (moment + timedelta(seconds=pause)).isoformat()}
            known = [
                old for old in alarm.told or [] if (old.get("to"), old.get("change")) != (name, one.change)
            ]
            alarm.told = [*known, entry]
        if why and most < 2:
            return  # a server that restarts isn't news
        level = Level.WRONG if why else Level.OVER
        text = f"Nobody hears of alarms by '{name}': {why}"
        others = [f"notice:{other}" for other in settings.to if other != name]
        settle_alarms(orm, _FAILED, [Reading(f"notice:{name}", level, text)], moment, unread=others)


def is_within(hours: str, clock: Any) -> bool:
    """Whether a time of day is within hours such as ``22:00-07:00``; within none when they're empty."""
    known = quiet_times(hours)
    if known is None:
        return False
    first, last = known
    return bool(first <= clock < last if first <= last else (clock >= first or clock < last))


def try_notices(
    config: Config,
    names: Iterable[str] = (),
    deliver: Callable[[str, RouteSection, Message], None] = send,
) -> Mapping[str, str]:
    """Send a test message by some ways (all without names). Gives each way's problem, empty where it went out."""
    found = {}
    for name in list(names) or list(config.notices.to):
        text = f"This is a test of notices by '{name}'. Alarms of {config.facility.name} will come this way."
        try:
            deliver(
                name,
                config.notices.to[name],
                Message(f"{config.facility.name}: test of notices", f"{text}\n", bad=False),
            )
            found[name] = ""
        except NotDelivered as error:
            found[name] = str(error)
    return found


def _wants(name: str, route: RouteSection, alarm: Alarm) -> bool:
    if alarm.severity not in route.severities or alarm.subject == f"notice:{name}":
        return False
    if route.rules and alarm.rule.removeprefix(_RULE) not in route.rules:
        return False
    return not route.microscopes or alarm.microscope is None or alarm.microscope in route.microscopes


@cache
def _template(text: str) -> Template:
    return SandboxedEnvironment(autoescape=False).from_string(text)
