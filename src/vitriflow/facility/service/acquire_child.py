"""One session's acquisition as a process of its own, so that a share that hangs holds up no other.

Started by :class:`AcquireService`: its first line of standard input says what to do, the end of it that
the service is gone. Each look is answered with a byte on standard output.
"""

import json
import os
import signal
import sys
import threading
from dataclasses import dataclass
from types import FrameType
from typing import Any

from sqlalchemy import select

from vitriflow.catalog import Catalog, Event, Processing, Session, is_away, now
from vitriflow.config import Config
from vitriflow.errors import Busy, VitriflowError
from vitriflow.facility.acquire import AcquireReport, SessionAcquisition
from vitriflow.facility.activation import PENDING
from vitriflow.pipeline import make_plan, parse_template, plan_of

BUSY = 75  # somebody else takes this session in
_GRACE_S = 15.0


@dataclass(frozen=True)
class Assignment:
    """What a child is to do. With ``drain`` it ends when all that's there is in and proved."""

    config: Config
    session_id: int
    drain: bool = False

    def as_text(self) -> str:
        """One line of JSON."""
        config = self.config.model_dump(mode="json")
        return json.dumps({"config": config, "session_id": self.session_id, "drain": self.drain})

    @classmethod
    def from_text(cls, text: str) -> "Assignment":
        """The assignment that :meth:`as_text` wrote."""
        said = json.loads(text)
        return cls(Config.model_validate(said["config"]), int(said["session_id"]), bool(said["drain"]))


def take_in(assignment: Assignment, stop: threading.Event, on_look: Any = None) -> None:
    """Take a session in until told to stop, or with ``drain`` until all that's there is dealt with.

    Raises
    ------
    Busy
        When another process has this session, or has taken it over.
    """
    catalog = Catalog(assignment.config.catalog_url)
    acquisition = None
    quiet_looks = 0
    try:
        while acquisition is None and not stop.is_set():
            acquisition = _begin(assignment, catalog)
            if acquisition is None:
                stop.wait(1.0)

        def note(report: AcquireReport) -> None:
            nonlocal quiet_looks
            if on_look is not None:
                on_look()
            busy = report.away or report.look.lost or report.look.waiting or report.look.completed
            quiet_looks = 0 if busy or acquisition is None or not acquisition.settled() else quiet_looks + 1
            if assignment.drain and quiet_looks >= 2:
                stop.set()

        if acquisition is not None:
            acquisition.run(stop, note)
    finally:
        if acquisition is not None:
            _quietly(acquisition.close)
        catalog.close()


def _begin(assignment: Assignment, catalog: Catalog) -> SessionAcquisition | None:
    """The session's acquisition; None when the catalog is away just now."""
    try:
        item = _item(catalog, assignment.session_id)
        return SessionAcquisition(assignment.config, catalog, assignment.session_id, item=item)
    except Exception as error:
        if not is_away(error):
            raise
        return None


def _item(catalog: Catalog, session_id: int) -> str:
    """What this session's pipeline takes: movies, or ready micrographs."""
    query = select(Processing.id).where(Processing.session_id == session_id).order_by(Processing.id).limit(1)
    number = catalog.read(lambda orm: orm.scalar(query))
    if number is not None:
        return plan_of(catalog, number).item
    pending = catalog.read(lambda orm: (orm.get_one(Session, session_id).settings or {}).get(PENDING))
    if pending is None:
        return "movie"
    return make_plan(
        parse_template(pending["template"], "template of the session"), pending["parameters"]
    ).item


def _quietly(work: Any) -> None:
    try:
        work()
    except Exception as error:
        if not is_away(error):
            raise


def _tell(assignment: Assignment, error: VitriflowError) -> None:
    """Say once why this session can't be taken in."""
    catalog = Catalog(assignment.config.catalog_url)
    text = f"This session can't be taken in: {error}"

    def work(orm: Any) -> None:
        mine = Event.session_id == assignment.session_id
        last = orm.scalar(select(Event.text).where(mine).order_by(Event.id.desc()).limit(1))
        if last != text:
            orm.add(Event(at=now(), session_id=assignment.session_id, severity="alarm", text=text))

    try:
        _quietly(lambda: catalog.write(work))
    finally:
        catalog.close()


def main() -> int:
    """What the child process runs."""
    assignment = Assignment.from_text(sys.stdin.readline())
    stop = threading.Event()

    def ask(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, ask)
    finished = threading.Event()

    def watch_lifeline() -> None:
        while os.read(sys.stdin.fileno(), 4096):
            continue
        stop.set()
        if not finished.wait(_GRACE_S):
            os._exit(3)

    threading.Thread(target=watch_lifeline, name="lifeline", daemon=True).start()

    def beat() -> None:
        try:
            os.write(sys.stdout.fileno(), b".")
        except OSError:
            stop.set()  # nobody listens any more

    beat()
    try:
        take_in(assignment, stop, beat)
    except Busy:
        return BUSY
    except VitriflowError as error:
        sys.stderr.write(f"vitriflow acquire: {error}\n")
        _tell(assignment, error)
        return 2
    finally:
        finished.set()
    return 0


def child_command() -> tuple[str, ...]:
    """How a child is started."""
    return (sys.executable, "-m", "vitriflow.facility.service")
