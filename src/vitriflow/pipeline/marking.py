"""Makes the marks of a gate anew from the values that it stored: for all exposures at once."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, or_, select, update
from sqlalchemy.orm import Session as OrmSession

from vitriflow.catalog import Measure, Processing, ResultRow, Task, TaskState, now
from vitriflow.pipeline import rows
from vitriflow.pipeline.plan import Plan
from vitriflow.steps import Gate, JudgeResult

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_RESULT, _TASK, _MEASURE = ResultRow.__table__, Task.__table__, Measure.__table__


def flip(
    session: OrmSession,
    processing_id: int,
    plan: Plan,
    node: str,
    exposures: Sequence[int] | None = None,
    accept: bool | None = None,
    author: str = "",
) -> tuple[int, int]:
    """Judge stored values again, and write down what differs. No image step runs.

    Parameters
    ----------
    session
        A writing transaction.
    processing_id, plan, node
        The gate, with the limits that are to hold.
    exposures
        Only these; None: all.
    accept
        A person's word for these instead of the gate's; None: the gate's.
    author
        Whose word it is.

    Returns
    -------
    How many came back, and how many were rejected.
    """
    gate: Gate[Any] = plan[node].step  # type: ignore[assignment]  # asked for gates alone
    parameters = plan[node].parameters
    found = _stored(session, processing_id, node, gate.asked(parameters), exposures)
    if not found:
        return 0, 0
    refused = _refused(gate, parameters, found)
    word = exposures is not None and accept is not None
    changed: dict[int, bool] = {}  # result -> whether it was rejected
    for row, bad in zip(found, refused, strict=True):
        was = row[1] == "rejected"
        if row[2] and exposures is None:
            continue  # a person's word stands until it's taken back
        wanted = bool(bad) if accept is None else not accept
        if wanted != was or word or row[2]:
            changed[row[0]] = was

    def verdict(values: Mapping[str, Any]) -> JudgeResult:
        record = gate.verdict(values, parameters)
        return _overruled(gate, record, bool(accept), author) if word else record

    stands = _write(session, processing_id, plan, node, sorted(changed), verdict)
    back = sum(was and not stands[number] for number, was in changed.items())
    out = sum(not was and stands[number] for number, was in changed.items())
    return back, out


def _stored(
    session: OrmSession,
    processing_id: int,
    node: str,
    names: Sequence[str],
    exposures: Sequence[int] | None,
) -> list[Any]:
    """Rows of result number, status, who overruled it, and the values asked about."""
    # The database picks the numbers out: whole records take four times as long to read.
    values = [ResultRow.record[("values", name)].as_float() for name in names]
    query = select(
        ResultRow.id, ResultRow.status, ResultRow.record["overruled_by"].as_string(), *values
    ).where(
        ResultRow.processing_id == processing_id,
        ResultRow.node == node,
        ResultRow.revision == rows.REVISION,
        ResultRow.item_type == rows.ITEM,
        ResultRow.status.in_(("done", "rejected")),
    )
    if exposures is not None:
        query = query.where(ResultRow.item_id.in_(exposures))
    return list(session.execute(query))


def _refused(gate: Gate[Any], parameters: Any, found: Sequence[Any]) -> "NDArray[np.bool_]":
    import numpy as np

    columns = {
        name: np.array([row[place] for row in found], dtype=np.float64)  # None becomes NaN
        for place, name in enumerate(gate.asked(parameters), start=3)
    }
    if not columns:
        columns = {"": np.full(len(found), np.nan)}
    refused: NDArray[np.bool_] = gate.refused(columns, parameters)
    return refused


def _overruled(gate: Gate[Any], record: JudgeResult, accept: bool, author: str) -> JudgeResult:
    """The gate's record with a person's word in it."""
    if accept:
        record = record.model_copy(update={"status": "done", "reason_code": None, "reason": None})
    else:
        text = f"rejected by {author}"
        record = record.model_copy(
            update={"status": "rejected", "reason_code": f"{gate.name}.person", "reason": text}
        )
    return record.model_copy(update={"overruled_by": author})


def _write(
    session: OrmSession,
    processing_id: int,
    plan: Plan,
    node: str,
    numbers: Sequence[int],
    verdict: Callable[[Mapping[str, Any]], JudgeResult],
) -> dict[int, bool]:
    """New marks into results, tasks and what pages plot; what was stopped behind the gate waits again.

    Returns
    -------
    Result number -> whether it's rejected now.
    """
    records: list[dict[str, Any]] = []
    tasks: list[dict[str, Any]] = []
    back: list[int] = []
    for part in rows.chunks(numbers):
        query = select(ResultRow.id, ResultRow.item_id, ResultRow.record).where(ResultRow.id.in_(part))
        for number, exposure, old in session.execute(query):
            new = verdict(old.get("values") or {})
            passed = new.status == "done"
            inputs = (old.get("provenance") or {}).get("inputs") or {}
            plain = {
                **old,
                "status": str(new.status),
                "reason_code": new.reason_code,
                "reason": new.reason,
                "failed": new.failed,
                "overruled_by": new.overruled_by,
                "outputs": inputs if passed else {},
            }
            records.append({"the_result": number, "new_status": plain["status"], "new_record": plain})
            tasks.append(
                {
                    "the_item": exposure,
                    "new_state": plain["status"],
                    "new_code": new.reason_code,
                    "new_reason": new.reason,
                }
            )
            if passed:
                back.append(exposure)
    stands = {row["the_result"]: row["new_status"] == "rejected" for row in records}
    if not records:
        return stands
    connection = session.connection()
    connection.execute(
        update(ResultRow)
        .where(_RESULT.c.id == bindparam("the_result"))
        .values(status=bindparam("new_status"), record=bindparam("new_record")),
        records,
    )
    connection.execute(
        update(Task)
        .where(
            _TASK.c.processing_id == processing_id,
            _TASK.c.node == node,
            _TASK.c.revision == rows.REVISION,
            _TASK.c.item_type == rows.ITEM,
            _TASK.c.item_id == bindparam("the_item"),
        )
        .values(
            state=bindparam("new_state"), reason_code=bindparam("new_code"), reason=bindparam("new_reason")
        ),
        tasks,
    )
    _consequences(session, processing_id, plan, node, back)
    _mark_measures(session, processing_id, back, tasks)
    return stands


def _consequences(
    session: OrmSession, processing_id: int, plan: Plan, node: str, back: Sequence[int]
) -> None:
    """What was stopped behind the gate waits again, for those that came back."""
    below = [one.name for one in plan.items if one.name in plan.downstream([node]) - {node}]
    if not below:
        return
    for part in rows.chunks(sorted(back)):
        session.execute(
            update(Task)
            .where(
                Task.processing_id == processing_id,
                Task.node.in_(below),
                Task.revision == rows.REVISION,
                Task.item_type == rows.ITEM,
                Task.item_id.in_(part),
                Task.state == TaskState.STOPPED,
            )
            .values(state=TaskState.WAITING.value, reason=None, reason_code=None)
            .execution_options(synchronize_session=False)
        )


def _mark_measures(
    session: OrmSession,
    processing_id: int,
    back: Sequence[int],
    tasks: Sequence[Mapping[str, Any]],
) -> None:
    """Status of the exposures: rejected, or open until what lies behind the gate has been looked at."""
    change = 1 + session.scalars(select(Processing.change).where(Processing.id == processing_id)).one()
    standing = {row["the_item"]: row for row in tasks}
    gone = set(back)
    statement = (
        update(Measure)
        .where(
            _MEASURE.c.processing_id == processing_id,
            _MEASURE.c.exposure_id == bindparam("the_exposure"),
            # One that's open is marked when its last node ends; worse than rejected stays worse.
            or_(_MEASURE.c.status == "done", _MEASURE.c.status == "rejected"),
        )
        .values(
            status=bindparam("new_status"),
            reason_code=bindparam("new_code"),
            reason=bindparam("new_reason"),
            change=change,
        )
    )
    many = [
        {
            "the_exposure": exposure,
            "new_status": "rejected",
            "new_code": row["new_code"],
            "new_reason": row["new_reason"],
        }
        for exposure, row in standing.items()
        if exposure not in gone
    ]
    if many:
        session.connection().execute(statement, many)
    _restore(session, processing_id, sorted(gone), change)


def _restore(session: OrmSession, processing_id: int, back: Sequence[int], change: int) -> None:
    """Status of exposures that came back, from how their other nodes stand."""
    worst = {"failed": 0, "quarantined": 1, "rejected": 2}
    columns: dict[int, dict[str, Any]] = {}
    for part in rows.chunks(back):
        query = select(Task.item_id, Task.state, Task.reason_code, Task.reason).where(
            Task.processing_id == processing_id,
            Task.item_type == rows.ITEM,
            Task.revision == rows.REVISION,
            Task.item_id.in_(part),
            Task.state != TaskState.DONE,
            Task.state != TaskState.STOPPED,
        )
        columns |= {
            exposure: {"status": "done", "reason_code": None, "reason": None, "change": change}
            for exposure in part
        }
        for exposure, state, code, reason in session.execute(query):
            known = columns[exposure]
            if state not in worst:
                known.update(status="open", reason_code=None, reason=None)
            elif known["status"] != "open" and worst[state] < worst.get(known["status"], 3):
                known.update(status=state, reason_code=code, reason=reason)
    if columns:
        rows.update_measures(session, processing_id, columns, now())
