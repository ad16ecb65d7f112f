"""Rows of the catalog that the coordinator reads and writes, many at a time."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import bindparam, func, insert, literal, select, tuple_, update
from sqlalchemy.orm import Session as OrmSession

from vitriflow.catalog import Attempt, Event, Measure, Processing, ResultRow, Task
from vitriflow.pipeline.progress import NodeState

ITEM = "exposure"  # item_type of all tasks here
REVISION = 1
_CHUNK = 500
_STATE_COLUMNS = (
    "state",
    "attempts",
    "not_before",
    "reason_code",
    "reason",
    "queued_at",
    "started_at",
    "finished_at",
    "worker",
)
_TASK = Task.__table__
_MEASURE = Measure.__table__
_UPDATE_TASK = (
    update(Task)
    .where(_TASK.c.id == bindparam("task_id"))
    .values({name: bindparam(f"new_{name}") for name in _STATE_COLUMNS})
)

States = dict[int, dict[str, NodeState]]  # exposure id -> node -> state


def chunks(items: Sequence[int]) -> Iterable[Sequence[int]]:
    """Parts short enough for an IN list on every database."""
    return (items[i : i + _CHUNK] for i in range(0, len(items), _CHUNK))


def load_states(
    session: OrmSession, processing_id: int, exposures: Collection[int], item_type: str = ITEM
) -> States:
    """All tasks of some exposures, or of other items."""
    states: States = defaultdict(dict)
    for part in chunks(sorted(exposures)):
        columns = [_TASK.c.item_id, _TASK.c.node, _TASK.c.id, *(_TASK.c[name] for name in _STATE_COLUMNS)]
        query = select(*columns).where(
            _TASK.c.processing_id == processing_id,
            _TASK.c.item_type == item_type,
            _TASK.c.item_id.in_(part),
            _TASK.c.revision == REVISION,
        )
        for item, node, *rest in session.execute(query):
            states[item][node] = NodeState(*rest)
    return states


def load_outputs(
    session: OrmSession, processing_id: int, wanted: Collection[tuple[int, str]], item_type: str = ITEM
) -> dict[tuple[int, str], Mapping[str, Any]]:
    """Files that finished nodes made: (item id, node) -> port -> artifact as JSON values."""
    found: dict[tuple[int, str], Mapping[str, Any]] = {}
    pairs = sorted(wanted)
    for start in range(0, len(pairs), _CHUNK):
        query = select(ResultRow.item_id, ResultRow.node, ResultRow.record["outputs"]).where(
            ResultRow.processing_id == processing_id,
            ResultRow.revision == REVISION,
            ResultRow.item_type == item_type,
            tuple_(ResultRow.item_id, ResultRow.node).in_(pairs[start : start + _CHUNK]),
        )
        for item, node, outputs in session.execute(query):
            found[item, node] = outputs or {}
    return found


def load_records(
    session: OrmSession, processing_id: int, wanted: Collection[tuple[int, str]]
) -> dict[tuple[int, str], Mapping[str, Any]]:
    """Whole records of nodes that ended: (exposure id, node) -> record."""
    found: dict[tuple[int, str], Mapping[str, Any]] = {}
    pairs = sorted(wanted)
    for start in range(0, len(pairs), _CHUNK):
        query = select(ResultRow.item_id, ResultRow.node, ResultRow.record).where(
            ResultRow.processing_id == processing_id,
            ResultRow.revision == REVISION,
            ResultRow.item_type == ITEM,
            tuple_(ResultRow.item_id, ResultRow.node).in_(pairs[start : start + _CHUNK]),
        )
        for item, node, record in session.execute(query):
            found[item, node] = record
    return found


def insert_tasks(
    session: OrmSession,
    processing_id: int,
    exposures: Iterable[int],
    first: Mapping[str, str],
    now: datetime,
    item_type: str = ITEM,
) -> None:
    """Make the tasks of exposures that come in, or of other items."""
    rows = [
        {
            "processing_id": processing_id,
            "node": node,
            "revision": REVISION,
            "item_type": item_type,
            "item_id": exposure,
            "state": state,
            "queued_at": now if state == "ready" else None,
        }
        for exposure in exposures
        for node, state in first.items()
    ]
    if rows:
        session.connection().execute(insert(Task), rows)


def update_tasks(session: OrmSession, states: Iterable[NodeState]) -> None:
    """Write the states of tasks back."""
    rows = [
        {"task_id": s.task_id, **{f"new_{name}": getattr(s, name) for name in _STATE_COLUMNS}} for s in states
    ]
    if rows:
        session.connection().execute(_UPDATE_TASK, rows)


def insert_results(
    session: OrmSession,
    processing_id: int,
    results: Sequence[tuple[int, str, Mapping[str, Any]]],
    now: datetime,
    item_type: str = ITEM,
) -> None:
    """Store the records of nodes that ended: (item id, node, record)."""
    rows = [
        {
            "processing_id": processing_id,
            "node": node,
            "revision": REVISION,
            "item_type": item_type,
            "item_id": exposure,
            "status": record["status"],
            "record": record,
            "created_at": now,
        }
        for exposure, node, record in results
    ]
    if rows:
        session.connection().execute(insert(ResultRow), rows)


def insert_attempts(session: OrmSession, rows: Sequence[Mapping[str, Any]]) -> None:
    """Store attempts that didn't end well."""
    if rows:
        session.connection().execute(insert(Attempt), list(rows))


def insert_measures(session: OrmSession, rows: Sequence[Mapping[str, Any]]) -> None:
    """Make the rows that pages plot."""
    if rows:
        session.connection().execute(insert(Measure), list(rows))


def update_measures(
    session: OrmSession,
    processing_id: int,
    rows: Mapping[int, Mapping[str, Any]],
    now: datetime,
    with_results: Collection[int] = (),
) -> None:
    """Change rows that pages plot: exposure id -> columns.

    Those in ``with_results`` have their first result now, if they had none before.
    """
    alike: dict[tuple[bool, tuple[str, ...]], list[dict[str, Any]]] = defaultdict(list)
    for exposure, columns in rows.items():
        names = tuple(sorted(columns))
        values = {"the_exposure": exposure, **{f"new_{name}": columns[name] for name in names}}
        alike[exposure in with_results, names].append(values)
    for (first, names), many in alike.items():
        statement = (
            update(Measure)
            .where(
                _MEASURE.c.processing_id == processing_id,
                _MEASURE.c.exposure_id == bindparam("the_exposure"),
            )
            .values({name: bindparam(f"new_{name}") for name in names})
        )
        if first:
            column = _MEASURE.c.first_result_at
            statement = statement.values(first_result_at=func.coalesce(column, literal(now, column.type)))
        session.connection().execute(statement, many)


def supersede(session: OrmSession, processing_id: int, exposures: Collection[int]) -> None:
    """Put tasks and results of exposures away under numbers below zero, so that they can be made anew.

    The present revision is always 1; what it replaced is -1, then -2, and stays readable.
    """
    for exposure in exposures:
        mine = (
            Task.processing_id == processing_id,
            Task.item_type == ITEM,
            Task.item_id == exposure,
        )
        lowest = session.scalar(select(func.min(Task.revision)).where(*mine)) or 0
        number = min(lowest, 0) - 1
        session.execute(update(Task).where(*mine, Task.revision == REVISION).values(revision=number))
        session.execute(
            update(ResultRow)
            .where(
                ResultRow.processing_id == processing_id,
                ResultRow.item_type == ITEM,
                ResultRow.item_id == exposure,
                ResultRow.revision == REVISION,
            )
            .values(revision=number)
        )


def bump_change(session: OrmSession, processing_id: int) -> int:
    """Grow the processing's change number, and give the new one."""
    here = Processing.id == processing_id
    session.execute(update(Processing).where(here).values(change=Processing.change + 1))
    return int(session.scalars(select(Processing.change).where(here)).one())


def tell(
    session: OrmSession, session_id: int, processing_id: int, severity: str, text: str, now: datetime
) -> None:
    """Add an event that people are told."""
    session.execute(
        insert(Event).values(
            at=now, session_id=session_id, processing_id=processing_id, severity=severity, text=text
        )
    )
