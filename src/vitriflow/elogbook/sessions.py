"""Opens, finds, pauses and closes sessions: the operator's word for a stretch of collection."""

import json
import os
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session as OrmSession

from vitriflow.catalog import Catalog, Event, Experiment, Microscope, Sample, Session, SessionState, now
from vitriflow.elogbook.access import revoke_helpers
from vitriflow.errors import BadParameter


def find_session(catalog: Catalog, key: str) -> Session:
    """The session of that key.

    Raises
    ------
    BadParameter
        When there's none, naming the latest ones.
    """

    def work(orm: OrmSession) -> Session | list[str]:
        found = orm.scalar(select(Session).where(Session.key == key))
        if found is not None:
            return found
        return list(orm.scalars(select(Session.key).order_by(Session.id.desc()).limit(8)))

    found = catalog.read(work)
    if isinstance(found, Session):
        return found
    known = ", ".join(found) or "none yet"
    raise BadParameter(
        f"session '{key}'", "the name of a session in this catalog", repr(key), f"Latest sessions: {known}."
    )


def session_of_source(catalog: Catalog, source: Path) -> Session | None:
    """The latest session that watched this folder, whatever its state; None when there's none."""
    where = (
        select(Session).where(Session.source == str(source.absolute())).order_by(Session.id.desc()).limit(1)
    )
    return catalog.read(lambda orm: orm.scalar(where))


def open_session(
    catalog: Catalog,
    *,
    key: str,
    source: Path,
    microscope: str,
    experiment: str,
    sample: str,
    settings: Mapping[str, Any],
    root_of: Callable[[datetime], Path],
    mode: str = "in_place",
) -> Session:
    """Find the session of that key, or make it with what it belongs to; activate it.

    ``root_of`` gives the session's folder for its time of creation, so that a session that
    goes on in a later month keeps its folder. ``mode`` (``copy`` or ``in_place``) is that of a new
    session; one that's there keeps its own.

    Raises
    ------
    BadParameter
        When a session of that key exists for another source folder.
    """
    source = source.absolute()

    def work(orm: OrmSession) -> tuple[Session, bool]:
        session = orm.scalar(select(Session).where(Session.key == key))
        if session is not None:
            return session, False
        stamp = now()
        scope = _ensure(orm, Microscope, {"name": microscope}, {})
        award = _ensure(orm, Experiment, {"name": experiment}, {"created_at": stamp})
        grid = _ensure(orm, Sample, {"experiment_id": award.id, "name": sample}, {})
        session = Session(
            key=key,
            microscope_id=scope.id,
            sample_id=grid.id,
            state=SessionState.ACTIVE,
            source=str(source),
            root=str(root_of(stamp)),
            settings=dict(settings),
            survey={},
            mode=mode,
            created_at=stamp,
        )
        orm.add(session)
        orm.flush()
        orm.add(
            Event(at=stamp, session_id=session.id, text=f"Session {key} started on {microscope}: {source}")
        )
        return session, True

    session, fresh = catalog.write(work)
    if not fresh:
        if session.source != str(source):
            raise BadParameter(
                f"session '{key}'",
                f"the folder it was started on, {session.source}",
                str(source),
                "Give this folder a session of its own with --session NAME.",
            )
        if session.state != SessionState.ACTIVE:
            session = set_session_state(catalog, key, SessionState.ACTIVE)
    return session


def set_session_state(catalog: Catalog, key: str, state: SessionState) -> Session:
    """Pause, resume or close a session; what was taken in goes on being processed."""

    def work(orm: OrmSession) -> Session:
        session = orm.scalars(select(Session).where(Session.key == key)).one()
        if session.state != state:
            session.state = state
            session.closed_at = now() if state == SessionState.CLOSED else None
            if state == SessionState.CLOSED:
                revoke_helpers(orm, session.id)  # who was let in for the session goes with it
            orm.add(Event(at=now(), session_id=session.id, text=f"Session {key} is now {state}"))
        return session

    find_session(catalog, key)
    return catalog.write(work)


def write_session_record(catalog: Catalog, key: str, path: Path) -> None:
    """Write session.json: everything the elogbook knows of a session, by atomic rename."""

    def work(orm: OrmSession) -> dict[str, Any]:
        session = orm.scalars(select(Session).where(Session.key == key)).one()
        sample = orm.get_one(Sample, session.sample_id)
        experiment = orm.get_one(Experiment, sample.experiment_id)
        return {
            "session": session.key,
            "state": session.state,
            "microscope": orm.get_one(Microscope, session.microscope_id).name,
            "experiment": experiment.name,
            "sample": sample.name,
            "source": session.source,
            "mode": session.mode,
            "residence": session.residence,
            "settings": session.settings,
            "created_at": session.created_at.isoformat(),
            "closed_at": session.closed_at.isoformat() if session.closed_at else None,
        }

    record = catalog.read(work)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    temporary.replace(path)


def _ensure(orm: OrmSession, table: type[Any], by: Mapping[str, Any], rest: Mapping[str, Any]) -> Any:
    found = orm.scalar(select(table).filter_by(**by))
    if found is None:
        found = table(**by, **rest)
        orm.add(found)
        orm.flush()
    return found
