"""Queries about exposures: their measures, tasks and records."""

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.engine import Row
from sqlalchemy.orm import Session as OrmSession

from vitriflow.catalog.tables import Attempt, Exposure, ExposureState, Measure, ResultRow, Task
from vitriflow.catalog.views.sessions import node_order
from vitriflow.catalog.views.shapes import EXPOSURE, QUANTITIES, AttemptView, ExposureView, TaskView


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
    return list(db.execute(query))


def exposure_names(db: OrmSession, session_id: int, ids: Collection[int]) -> dict[int, str]:
    """Item names of some exposures of a session, by id."""
    # Asked by id alone: with the session in it, SQLite's planner reads the whole session instead.
    query = select(Exposure.id, Exposure.item, Exposure.session_id).where(Exposure.id.in_(list(ids)))
    return {found: item for found, item, session in db.execute(query) if session == session_id}


def reasons(
    db: OrmSession, session_id: int, processing_id: int | None, ids: Collection[int]
) -> dict[int, str]:
    """Why some exposures were set aside, in a sentence, by id."""
    wanted = list(ids)
    problems = select(Exposure.id, Exposure.problem, Exposure.session_id).where(Exposure.id.in_(wanted))
    found = {
        exposure: problem
        for exposure, problem, session in db.execute(problems)
        if problem is not None and session == session_id
    }
    if processing_id is not None:
        measured = select(Measure.exposure_id, Measure.reason).where(
            Measure.processing_id == processing_id,
            Measure.exposure_id.in_(wanted),
            Measure.reason.is_not(None),
        )
        found.update({row[0]: row[1] or "" for row in db.execute(measured)})
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
    for task, result_id, record in db.execute(query):
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
        found.update({item: (result, record) for item, result, record in db.execute(query)})
        missing -= found.keys()
        revision -= 1
    return found


def sample_records(db: OrmSession, processing_id: int) -> dict[str, dict[str, Any]]:
    """One record of each node that has left any, by node: tells what kind of result a node makes."""
    found: dict[str, dict[str, Any]] = {}
    for node in node_order(db, processing_id):
        query = select(ResultRow.record).where(
            ResultRow.processing_id == processing_id, ResultRow.node == node
        )
        record = db.scalars(query.limit(1)).first()
        if record is not None:
            found[node] = record
    return found
