"""Carries out changes that were asked for: moved limits, verdicts of people, restarts from a node.

Each has two parts. The first is one transaction: it takes effect wholly or not at all. The second
brings the exposures that it touched up to date, some at a time, and can be done again: a change
counts as carried out when that is through, so a kill between loses nothing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import case, func, insert, literal, select, update
from sqlalchemy.orm import Session as OrmSession

from vitriflow.catalog import Batch, Catalog, Change, Measure, Processing, ResultRow, Task, TaskState, now
from vitriflow.errors import VitriflowError
from vitriflow.pipeline import rows
from vitriflow.pipeline.changes import (
    THRESHOLD,
    VERDICT,
    columns_of,
    differences,
    merged,
    open_changes,
)
from vitriflow.pipeline.checking import make_plan
from vitriflow.pipeline.marking import flip
from vitriflow.pipeline.plan import SESSION_LANE, Plan
from vitriflow.pipeline.template import parse_template
from vitriflow.steps import Gate

_PART = 500
_OPEN = (TaskState.WAITING, TaskState.READY, TaskState.RUNNING)


@dataclass(frozen=True)
class Begun:
    """A change whose first part has taken effect: nodes whose tasks have to be brought up to date."""

    change: int
    nodes: tuple[str, ...]


def begin_next(catalog: Catalog, processing_id: int, fence: Callable[[OrmSession], None]) -> Begun | None:
    """Carry out the first part of the oldest open change; None when there's none.

    A change that can't be carried out any more is refused, with the reason in its row.

    Parameters
    ----------
    catalog, processing_id
        The processing.
    fence
        Lets the transaction commit only while the processing is ours.
    """
    while True:
        waiting = catalog.read(lambda s: [row.id for row in open_changes(s, processing_id)])
        if not waiting:
            return None
        number = waiting[0]
        try:
            return catalog.write(lambda s, number=number: _begin(s, processing_id, number, fence))  # type: ignore[misc]
        except VitriflowError as error:
            text = str(error)
            catalog.write(lambda s, number=number, text=text: _refuse(s, number, text, fence))  # type: ignore[misc]


def to_settle(catalog: Catalog, processing_id: int, begun: Begun) -> list[list[int]]:
    """Exposures to bring up to date, in parts."""
    query = (
        select(Task.item_id)
        .where(
            Task.processing_id == processing_id,
            Task.state.in_((TaskState.WAITING, TaskState.READY)),
            Task.node.in_(begun.nodes),
            Task.revision == rows.REVISION,
            Task.item_type == rows.ITEM,
        )
        .distinct()
        .order_by(Task.item_id)
    )
    found = catalog.read(lambda s: list(s.scalars(query)))
    return [found[start : start + _PART] for start in range(0, len(found), _PART)]


def finish(catalog: Catalog, begun: Begun, fence: Callable[[OrmSession], None]) -> None:
    """Call a change carried out."""

    def work(session: OrmSession) -> None:
        fence(session)
        session.execute(update(Change).where(Change.id == begun.change).values(applied_at=now()))

    catalog.write(work)


def _begin(
    session: OrmSession, processing_id: int, number: int, fence: Callable[[OrmSession], None]
) -> Begun:
    fence(session)
    change = session.get_one(Change, number)
    if change.outcome is not None:  # it was begun before, and not finished
        return Begun(number, tuple(change.outcome["nodes"]))
    processing = session.get_one(Processing, processing_id)
    template = parse_template(processing.template, f"template of processing '{processing.name}'")
    before = make_plan(template, processing.parameters, processing.jobs)
    details = change.details
    if change.kind == VERDICT:
        nodes, told = _verdict(session, processing_id, before, details, change.author)
    else:
        given = merged(processing.parameters, details["parameters"])
        after = make_plan(template, given, processing.jobs)
        changed = tuple(differences(before, after))
        processing.parameters = given
        if change.kind == THRESHOLD and all(isinstance(before[n].step, Gate) for n in changed):
            nodes, told = _threshold(session, processing_id, after, changed)
        else:
            nodes, told = _restart(session, processing, after, [*changed, *details["restart"]])
        values = ", ".join(f"{name} = {value}" for name, value in details["parameters"].items())
        told = f"{values}: {told}" if values else told
    change.outcome = {"nodes": list(nodes), "said": told}
    rows.bump_change(session, processing_id)
    who = change.author or "Somebody"
    rows.tell(session, processing.session_id, processing_id, "info", f"{who} changed {told}"[:2000], now())
    return Begun(number, nodes)


def _refuse(session: OrmSession, number: int, text: str, fence: Callable[[OrmSession], None]) -> None:
    fence(session)
    session.execute(update(Change).where(Change.id == number).values(applied_at=now(), refused=text))


def _threshold(
    session: OrmSession, processing_id: int, plan: Plan, gates: Sequence[str]
) -> tuple[tuple[str, ...], str]:
    texts: list[str] = []
    for name in gates:
        back, out = flip(session, processing_id, plan, name)
        texts.append(f"{name} takes {back} exposures back, and rejects {out} more")
    below = plan.downstream(gates) - set(gates)
    return _exposure_nodes(plan, below), "; ".join(texts)


def _verdict(
    session: OrmSession, processing_id: int, plan: Plan, details: dict[str, Any], author: str
) -> tuple[tuple[str, ...], str]:
    node, exposures, accept = details["node"], details["exposures"], details["accept"]
    back, out = flip(session, processing_id, plan, node, exposures, accept, author or "somebody")
    below = plan.downstream([node]) - {node}
    return _exposure_nodes(plan, below), f"{node} for {len(exposures)} exposures: {back} back, {out} rejected"


def _exposure_nodes(plan: Plan, names: set[str]) -> tuple[str, ...]:
    return tuple(node.name for node in plan.items if node.name in names)


def _restart(
    session: OrmSession, processing: Processing, plan: Plan, start: Sequence[str]
) -> tuple[tuple[str, ...], str]:
    """Put the results of nodes, and of all that hang on them, away; make their tasks anew."""
    redo = plan.downstream(start)
    mine = (Task.processing_id == processing.id, Task.node.in_(redo), Task.revision == rows.REVISION)
    revision = _next_revision(session, processing.id)
    session.execute(
        update(Task)
        .where(*mine)
        .values(
            revision=revision,
            state=case((Task.state.in_(_OPEN), TaskState.STOPPED.value), else_=Task.state),
        )
    )
    session.execute(
        update(ResultRow)
        .where(
            ResultRow.processing_id == processing.id,
            ResultRow.node.in_(redo),
            ResultRow.revision == rows.REVISION,
        )
        .values(revision=revision)
    )
    lanes = {lane for lane in plan.lanes if lane in redo}
    if SESSION_LANE in plan.lanes and any(node.name in redo for node in plan.lanes[SESSION_LANE]):
        lanes.add(SESSION_LANE)
    if lanes:
        session.execute(
            update(Batch)
            .where(
                Batch.processing_id == processing.id, Batch.node.in_(lanes), Batch.revision == rows.REVISION
            )
            .values(revision=revision)
        )
    # Batches that a trigger makes anew bring their own tasks.
    again = [name for name in redo if plan[name].lane is None or plan[name].lane not in lanes]
    _insert_again(session, processing.id, again, revision)
    processing.jobs = _new_jobs(plan, processing.jobs, redo)
    _open_measures(session, processing, plan, redo, revision)
    names = ", ".join(node.name for node in plan.nodes if node.name in redo)
    return _exposure_nodes(plan, redo), f"{names}: done anew, as a new revision"


def _next_revision(session: OrmSession, processing_id: int) -> int:
    lowest = [
        session.scalar(select(func.min(table.revision)).where(table.processing_id == processing_id)) or 0
        for table in (Task, ResultRow, Batch)
    ]
    return min(*lowest, 0) - 1


def _insert_again(session: OrmSession, processing_id: int, nodes: Sequence[str], revision: int) -> None:
    """Tasks like those that were put away, waiting."""
    old = select(
        Task.processing_id,
        Task.node,
        literal(rows.REVISION),
        Task.item_type,
        Task.item_id,
        literal(TaskState.WAITING.value),
        literal(0),
    ).where(Task.processing_id == processing_id, Task.revision == revision, Task.node.in_(nodes))
    columns = ["processing_id", "node", "revision", "item_type", "item_id", "state", "attempts"]
    session.execute(insert(Task).from_select(columns, old, include_defaults=False))


def _new_jobs(plan: Plan, jobs: dict[str, Any] | None, redo: set[str]) -> dict[str, Any]:
    """Folders of their own for what is done anew, so that the old files stay."""
    highest = max((node.job or 0 for node in plan.nodes), default=0)
    found = dict(jobs or {})
    for node in plan.nodes:
        if node.name in redo and node.job is not None:
            highest += 1
            found[node.name] = highest
    return found


def _open_measures(
    session: OrmSession, processing: Processing, plan: Plan, redo: set[str], revision: int
) -> None:
    """What pages plot: exposures are open again, and values that are made anew aren't there until then."""
    names = [node.name for node in plan.items if node.name in redo]
    if not names:
        return
    touched = (
        select(Task.item_id)
        .where(
            Task.processing_id == processing.id,
            Task.node.in_(names),
            Task.revision == revision,
            Task.item_type == rows.ITEM,
        )
        .distinct()
    )
    blank: dict[str, Any] = dict.fromkeys(columns_of(plan, names))
    blank |= {"status": "open", "reason_code": None, "reason": None, "finished_at": None, "latency_s": None}
    session.execute(
        update(Measure)
        .where(Measure.processing_id == processing.id, Measure.exposure_id.in_(touched))
        .values(change=processing.change + 1, **blank)
        .execution_options(synchronize_session=False)
    )
