"""Queries about sessions and processings as a whole."""

from collections.abc import Collection
from dataclasses import fields
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.engine import Row
from sqlalchemy.orm import Session as OrmSession

from vitriflow.catalog.logbook import Limits
from vitriflow.catalog.tables import (
    Event,
    Experiment,
    Exposure,
    ExposureState,
    Microscope,
    Processing,
    Sample,
    Session,
    Task,
    TaskState,
)
from vitriflow.catalog.views.people import marks_stamp
from vitriflow.catalog.views.shapes import EXPOSURE, ProcessingView, Pulse, SessionView


def _session_query() -> Any:
    return (
        select(Session, Microscope.name, Sample.name, Experiment.name, Experiment.title)
        .join(Microscope, Microscope.id == Session.microscope_id)
        .join(Sample, Sample.id == Session.sample_id)
        .join(Experiment, Experiment.id == Sample.experiment_id)
    )


def _session_view(row: Row[Any]) -> SessionView:
    session, microscope, sample, experiment, title = tuple(row)
    return SessionView(
        id=session.id,
        key=session.key,
        state=session.state,
        source=session.source,
        root=session.root,
        microscope=microscope,
        sample=sample,
        experiment=experiment,
        experiment_title=title,
        settings=session.settings,
        survey=session.survey,
        created_at=session.created_at,
        closed_at=session.closed_at,
        residence=session.residence,
    )


def list_sessions(
    db: OrmSession, limit: int = 50, offset: int = 0, experiments: Collection[int] | None = None
) -> list[SessionView]:
    """Sessions of some experiments (by id; None for all), newest first."""
    query = _session_query().order_by(Session.id.desc()).limit(limit).offset(offset)
    if experiments is not None:
        query = query.where(Experiment.id.in_(experiments))
    return [_session_view(row) for row in db.execute(query)]


def count_sessions(db: OrmSession, experiments: Collection[int] | None = None) -> int:
    """How many sessions there are in some experiments (by id; None for all)."""
    query = select(func.count()).select_from(Session)
    if experiments is not None:
        query = query.join(Sample, Sample.id == Session.sample_id).where(
            Sample.experiment_id.in_(experiments)
        )
    return db.scalar(query) or 0


def find_session(db: OrmSession, key: str) -> SessionView | None:
    """The session of that key, or None."""
    row = db.execute(_session_query().where(Session.key == key)).first()
    return None if row is None else _session_view(row)


def list_processings(db: OrmSession, session_id: int) -> list[ProcessingView]:
    """Processings of a session, newest first."""
    columns = (
        Processing.id,
        Processing.name,
        Processing.state,
        Processing.change,
        Processing.root,
        Processing.parameters,
        Processing.created_at,
        Processing.selection["n"].as_integer(),
        Processing.selection["words"].as_string(),
    )
    query = select(*columns).where(Processing.session_id == session_id).order_by(Processing.id.desc())
    names = [one.name for one in fields(ProcessingView)]
    found: list[dict[str, Any]] = [dict(zip(names, row, strict=True)) for row in db.execute(query)]
    return [ProcessingView(**{**values, "selection": values["selection"] or ""}) for values in found]


def pulse(db: OrmSession, session_id: int) -> Pulse:
    """What a live page is woken by: a few look-ups by index, however many exposures there are."""
    # Any of them may be shown: what each has grown by, together, tells that one of them has.
    newest: Any = db.execute(
        select(func.max(Processing.id), func.sum(Processing.change)).where(
            Processing.session_id == session_id
        )
    ).one()
    state = db.scalar(select(Session.state).where(Session.id == session_id)) or ""
    last_event = db.scalar(select(func.max(Event.id)).where(Event.session_id == session_id)) or 0
    arrivals = tuple(
        db.scalar(
            select(func.max(Exposure.id)).where(Exposure.session_id == session_id, Exposure.state == intake)
        )
        or 0
        for intake in ExposureState
    )
    marks = marks_stamp(db, session_id)
    if newest[0] is None:
        return Pulse(None, 0, state, last_event, arrivals, marks)
    ours = select(Processing.id).where(Processing.session_id == session_id)
    limits = db.scalar(select(func.max(Limits.id)).where(Limits.processing_id.in_(ours))) or 0
    return Pulse(newest[0], int(newest[1]), state, last_event, arrivals, (*marks, limits))


def count_exposures(db: OrmSession, session_id: int, after: int = 0) -> tuple[int, int]:
    """How many exposures of a session have an id above ``after``, and the newest id (0 for none).

    Exposures are never deleted, so a reader that remembers both asks only for what is new.
    """
    total = newest = 0
    for state in ExposureState:  # by state, because that's how the index begins
        query = select(func.count(), func.max(Exposure.id)).where(
            Exposure.session_id == session_id, Exposure.state == state, Exposure.id > after
        )
        number, last = db.execute(query).one()
        total += number
        newest = max(newest, last or 0)
    return total, newest


def count_growing(db: OrmSession, session_id: int) -> int:
    """Exposures that were seen and aren't whole yet."""
    query = select(func.count()).where(
        Exposure.session_id == session_id, Exposure.state == ExposureState.SEEN
    )
    return db.scalar(query) or 0


def count_tasks(db: OrmSession, processing_id: int, after: int = 0) -> tuple[dict[tuple[str, int], int], int]:
    """Tasks of a processing with an id above ``after``, by node and revision, and the newest id.

    Tasks are never deleted, so a reader that remembers both asks only for what is new.
    """
    # Once only the new ones are wanted, the id must lead; the sum keeps planners from the other index.
    mine = Task.processing_id == processing_id if after == 0 else Task.processing_id + 0 == processing_id
    query = select(Task.node, Task.revision, func.count(), func.max(Task.id)).where(mine, Task.id > after)
    found: dict[tuple[str, int], int] = {}
    newest = after
    for node, revision, number, last in db.execute(query.group_by(Task.node, Task.revision)):
        found[node, revision] = number
        newest = max(newest, last)
    return found, newest


def count_not_done(db: OrmSession, processing_id: int) -> dict[tuple[str, int], dict[str, int]]:
    """Tasks that aren't done, by node and revision, then by state: few, except under a backlog."""
    query = (
        select(Task.state, Task.node, Task.revision, func.count())
        .where(
            Task.processing_id == processing_id,
            Task.state.in_([state for state in TaskState if state != TaskState.DONE]),
        )
        .group_by(Task.state, Task.node, Task.revision)
    )
    found: dict[tuple[str, int], dict[str, int]] = {}
    for state, node, revision, number in db.execute(query):
        found.setdefault((node, revision), {})[state] = number
    return found


def node_order(db: OrmSession, processing_id: int) -> list[str]:
    """Nodes as the engine made them for one exposure: upstream first."""
    first = db.scalar(
        select(func.min(Task.item_id)).where(Task.processing_id == processing_id, Task.item_type == EXPOSURE)
    )
    query = (
        select(Task.node)
        .where(
            Task.processing_id == processing_id,
            Task.item_type == EXPOSURE,
            Task.item_id == first,
        )
        .order_by(Task.id)
    )
    return list(dict.fromkeys(db.scalars(query)))


def first_event(db: OrmSession, processing_id: int) -> str:
    """The oldest event of a processing, such as who began it and how; empty while there's none."""
    query = select(Event.text).where(Event.processing_id == processing_id).order_by(Event.id).limit(1)
    return db.scalar(query) or ""


def list_events(
    db: OrmSession, session_id: int, before: int | None = None, limit: int = 50
) -> list[dict[str, Any]]:
    """What happened in a session, newest first; ``before`` pages back by event id."""
    query = select(Event).where(Event.session_id == session_id)
    if before is not None:
        query = query.where(Event.id < before)
    rows = db.scalars(query.order_by(Event.id.desc()).limit(limit))
    return [{"id": row.id, "at": row.at, "severity": row.severity, "text": row.text} for row in rows]
