"""What the pages ask of the catalog: read-only queries that stay quick at 50,000 exposures.

Each takes an open ORM session and gives plain values, so that a page never holds a row after its
transaction. Long lists are read by index or by id; none of them loads JSON records in bulk.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.engine import Row
from sqlalchemy.orm import Session as OrmSession

from vitriflow.catalog.tables import (
    Attempt,
    Event,
    Experiment,
    Exposure,
    ExposureState,
    Measure,
    Microscope,
    Processing,
    ResultRow,
    Sample,
    Session,
    Task,
)

EXPOSURE = "exposure"

#: Columns of ``Measure`` that are numbers to plot or to sort by.
QUANTITIES = (
    "early_A",
    "late_A",
    "total_A",
    "net_A",
    "mean_intensity",
    "defocus_A",
    "astigmatism_A",
    "defocus_angle_deg",
    "phase_shift_deg",
    "cross_correlation",
    "fit_resolution_A",
    "ice_ring",
    "n_picks",
    "latency_s",
)


@dataclass(frozen=True)
class SessionView:
    """A session with the names that a page shows beside it."""

    id: int
    key: str
    state: str
    source: str
    root: str
    microscope: str
    sample: str
    experiment: str
    experiment_title: str
    settings: dict[str, Any]
    survey: dict[str, Any]
    created_at: datetime
    closed_at: datetime | None


@dataclass(frozen=True)
class ProcessingView:
    """A processing without its template."""

    id: int
    name: str
    state: str
    change: int
    root: str
    parameters: dict[str, Any]
    created_at: datetime


@dataclass(frozen=True)
class NodeView:
    """How many tasks of a node stand where, for its newest revision."""

    node: str
    revision: int
    counts: dict[str, int]


@dataclass(frozen=True)
class ExposureView:
    """What is known of one exposure before any step ran."""

    id: int
    key: str
    item: str
    kind: str
    software: str
    state: str
    problem_code: str | None
    problem: str | None
    path: str
    size: int
    blake3: str | None
    optics_group: int
    details: dict[str, Any]
    first_seen_at: datetime
    complete_at: datetime | None
    copied_at: datetime | None
    proved_at: datetime | None


@dataclass(frozen=True)
class AttemptView:
    """An attempt that didn't end well."""

    number: int
    reason_code: str
    reason: str
    ended_at: datetime


@dataclass(frozen=True)
class TaskView:
    """One node for one item, with the record it left (None while it's open)."""

    node: str
    revision: int
    state: str
    attempts: int
    reason_code: str | None
    reason: str | None
    queued_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    worker: str | None
    result_id: int | None
    record: dict[str, Any] | None
    failed_attempts: tuple[AttemptView, ...] = ()


@dataclass(frozen=True)
class Pulse:
    """What changes when a session's page has something new to show."""

    processing_id: int | None
    change: int
    state: str
    last_event: int
    arrivals: tuple[int, ...]  # newest exposure in each state of intake


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
    )


def list_sessions(db: OrmSession, limit: int = 50, offset: int = 0) -> list[SessionView]:
    """Sessions, newest first."""
    query = _session_query().order_by(Session.id.desc()).limit(limit).offset(offset)
    return [_session_view(row) for row in db.execute(query)]


def count_sessions(db: OrmSession) -> int:
    """How many sessions there are."""
    return db.scalar(select(func.count()).select_from(Session)) or 0


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
    )
    query = select(*columns).where(Processing.session_id == session_id).order_by(Processing.id.desc())
    return [ProcessingView(*row) for row in db.execute(query).tuples()]


def pulse(db: OrmSession, session_id: int) -> Pulse:
    """What a live page is woken by: a few look-ups by index, however many exposures there are."""
    newest = db.execute(
        select(Processing.id, Processing.change)
        .where(Processing.session_id == session_id)
        .order_by(Processing.id.desc())
        .limit(1)
    ).first()
    state = db.scalar(select(Session.state).where(Session.id == session_id)) or ""
    last_event = db.scalar(select(func.max(Event.id)).where(Event.session_id == session_id)) or 0
    arrivals = tuple(
        db.scalar(
            select(func.max(Exposure.id)).where(Exposure.session_id == session_id, Exposure.state == intake)
        )
        or 0
        for intake in ExposureState
    )
    if newest is None:
        return Pulse(None, 0, state, last_event, arrivals)
    return Pulse(newest.id, newest.change, state, last_event, arrivals)


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


def count_nodes(db: OrmSession, processing_id: int) -> list[NodeView]:
    """Tasks by node and state, in the order of the pipeline, newest revision only."""
    query = (
        select(Task.node, Task.revision, Task.state, func.count())
        .where(Task.processing_id == processing_id)
        .group_by(Task.state, Task.node, Task.revision)
    )
    found: dict[str, NodeView] = {}
    for node, revision, state, number in db.execute(query).tuples():
        view = found.get(node)
        if view is None or revision > view.revision:
            view = found[node] = NodeView(node, revision, {})
        if revision == view.revision:
            view.counts[state] = number
    order = {node: place for place, node in enumerate(_node_order(db, processing_id))}
    return sorted(found.values(), key=lambda view: (order.get(view.node, len(order)), view.node))


def _node_order(db: OrmSession, processing_id: int) -> list[str]:
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


def measures_since(db: OrmSession, processing_id: int, change: int) -> Sequence[Row[Any]]:
    """Rows of ``Measure`` written after a change (below 0 for all), as plain columns, by exposure id.

    The order of columns is: exposure_id, change, status, reason_code, ctf_quality, complete_at,
    first_result_at, finished_at, then :data:`QUANTITIES`.
    """
    quantities = [getattr(Measure, name) for name in QUANTITIES]
    query = select(
        Measure.exposure_id,
        Measure.change,
        Measure.status,
        Measure.reason_code,
        Measure.ctf_quality,
        Measure.complete_at,
        Measure.first_result_at,
        Measure.finished_at,
        *quantities,
    ).where(Measure.processing_id == processing_id)
    if change >= 0:
        query = query.where(Measure.change > change)
    return db.execute(query.order_by(Measure.exposure_id)).all()


def intake_problems(db: OrmSession, session_id: int) -> list[tuple[int, str | None, datetime | None]]:
    """Exposures set aside before any step ran: id, code and when they were whole (if ever)."""
    query = select(Exposure.id, Exposure.problem_code, Exposure.complete_at).where(
        Exposure.session_id == session_id, Exposure.state == ExposureState.PROBLEM
    )
    return list(db.execute(query).tuples())


def exposure_names(db: OrmSession, session_id: int, ids: Collection[int]) -> dict[int, str]:
    """Item names of some exposures of a session, by id."""
    # Asked by id alone: with the session in it, SQLite's planner reads the whole session instead.
    query = select(Exposure.id, Exposure.item, Exposure.session_id).where(Exposure.id.in_(list(ids)))
    return {found: item for found, item, session in db.execute(query).tuples() if session == session_id}


def reasons(
    db: OrmSession, session_id: int, processing_id: int | None, ids: Collection[int]
) -> dict[int, str]:
    """Why some exposures were set aside, in a sentence, by id."""
    wanted = list(ids)
    problems = select(Exposure.id, Exposure.problem, Exposure.session_id).where(Exposure.id.in_(wanted))
    found = {
        exposure: problem
        for exposure, problem, session in db.execute(problems).tuples()
        if problem is not None and session == session_id
    }
    if processing_id is not None:
        measured = select(Measure.exposure_id, Measure.reason).where(
            Measure.processing_id == processing_id,
            Measure.exposure_id.in_(wanted),
            Measure.reason.is_not(None),
        )
        found.update({row[0]: row[1] or "" for row in db.execute(measured).tuples()})
    return found


def find_exposure(db: OrmSession, session_id: int, exposure_id: int) -> ExposureView | None:
    """One exposure of a session, or None."""
    row = db.get(Exposure, exposure_id)
    if row is None or row.session_id != session_id:
        return None
    names = ExposureView.__dataclass_fields__
    return ExposureView(**{name: getattr(row, name) for name in names})


def find_measure(db: OrmSession, processing_id: int, exposure_id: int) -> dict[str, Any] | None:
    """The measured values of one exposure, by column name, or None."""
    row = db.get(Measure, (processing_id, exposure_id))
    if row is None:
        return None
    return {column.key: getattr(row, column.key) for column in Measure.__mapper__.column_attrs}


def tasks_of(db: OrmSession, processing_id: int, exposure_id: int) -> list[TaskView]:
    """Every node of one exposure (newest revision), in order, with its record and failed attempts."""
    query = (
        select(Task, ResultRow.id, ResultRow.record)
        .outerjoin(ResultRow, _same_task())
        .where(
            Task.processing_id == processing_id,
            Task.item_type == EXPOSURE,
            Task.item_id == exposure_id,
        )
        .order_by(Task.id)
    )
    newest: dict[str, tuple[Task, int | None, dict[str, Any] | None]] = {}
    for task, result_id, record in db.execute(query).tuples():
        known = newest.get(task.node)
        if known is None or task.revision > known[0].revision:
            newest[task.node] = (task, result_id, record)
    tried = _attempts(db, [task.id for task, _, _ in newest.values()])
    return [
        _task_view(task, result_id, record, tried.get(task.id, ()))
        for task, result_id, record in newest.values()
    ]


def _same_task() -> Any:
    return (
        (ResultRow.processing_id == Task.processing_id)
        & (ResultRow.node == Task.node)
        & (ResultRow.revision == Task.revision)
        & (ResultRow.item_type == Task.item_type)
        & (ResultRow.item_id == Task.item_id)
    )


def _task_view(
    task: Task, result_id: int | None, record: dict[str, Any] | None, attempts: Iterable[AttemptView]
) -> TaskView:
    return TaskView(
        node=task.node,
        revision=task.revision,
        state=task.state,
        attempts=task.attempts,
        reason_code=task.reason_code,
        reason=task.reason,
        queued_at=task.queued_at,
        started_at=task.started_at,
        finished_at=task.finished_at,
        worker=task.worker,
        result_id=result_id,
        record=record,
        failed_attempts=tuple(attempts),
    )


def _attempts(db: OrmSession, task_ids: Collection[int]) -> dict[int, list[AttemptView]]:
    query = select(Attempt).where(Attempt.task_id.in_(list(task_ids))).order_by(Attempt.id)
    found: dict[int, list[AttemptView]] = {}
    for row in db.scalars(query):
        view = AttemptView(row.number, row.reason_code, row.reason, row.ended_at)
        found.setdefault(row.task_id, []).append(view)
    return found


def records_of(
    db: OrmSession, processing_id: int, node: str, ids: Collection[int]
) -> dict[int, tuple[int, dict[str, Any]]]:
    """Newest record that one node left for each of some exposures: id -> (result id, record)."""
    mine = (ResultRow.processing_id == processing_id, ResultRow.node == node)
    revision = db.scalar(select(func.max(ResultRow.revision)).where(*mine)) or 0
    found: dict[int, tuple[int, dict[str, Any]]] = {}
    missing = set(ids)
    while missing and revision > 0:  # with every column of the index given, it's a look-up each
        query = select(ResultRow.item_id, ResultRow.id, ResultRow.record).where(
            *mine,
            ResultRow.revision == revision,
            ResultRow.item_type == EXPOSURE,
            ResultRow.item_id.in_(missing),
        )
        found.update({item: (result, record) for item, result, record in db.execute(query).tuples()})
        missing -= found.keys()
        revision -= 1
    return found


def sample_records(db: OrmSession, processing_id: int) -> dict[str, dict[str, Any]]:
    """One record of each node that has left any, by node: tells what kind of result a node makes."""
    found: dict[str, dict[str, Any]] = {}
    for node in _node_order(db, processing_id):
        query = select(ResultRow.record).where(
            ResultRow.processing_id == processing_id, ResultRow.node == node
        )
        record = db.scalars(query.limit(1)).first()
        if record is not None:
            found[node] = record
    return found


def list_events(
    db: OrmSession, session_id: int, before: int | None = None, limit: int = 50
) -> list[dict[str, Any]]:
    """What happened in a session, newest first; ``before`` pages back by event id."""
    query = select(Event).where(Event.session_id == session_id)
    if before is not None:
        query = query.where(Event.id < before)
    rows = db.scalars(query.order_by(Event.id.desc()).limit(limit))
    return [{"id": row.id, "at": row.at, "severity": row.severity, "text": row.text} for row in rows]
