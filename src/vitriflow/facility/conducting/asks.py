"""What a DAG's task asks for, and how it stands: counts, lines to show, and whether it went well."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session as OrmSession

from vitriflow.catalog import (
    Ask,
    Attempt,
    Catalog,
    Conducted,
    Exposure,
    Lot,
    LotMember,
    Processing,
    ResultRow,
    Session,
    Task,
    TaskState,
    now,
)
from vitriflow.config import Config
from vitriflow.errors import BadParameter
from vitriflow.facility.conducting.describe import plan_from, together
from vitriflow.facility.conducting.lots import make_lots, touch

_OPEN = (TaskState.WAITING, TaskState.READY, TaskState.RUNNING)
_MOST_LINES = 400  # of one answer


@dataclass(frozen=True)
class Asking:
    """One try of one task of a DAG's run.

    ``lot`` is known when the run was started for a lot; a run that a person started gets one of what waits.
    ``session`` is the session it's for, where the DAG doesn't say: a template's DAG.
    """

    dag: str
    run: str
    node: str
    try_number: int
    lot: int | None = None
    session: str | None = None
    begin: bool = True  # a run without a lot gets one; otherwise it has nothing to do
    revisions: Mapping[str, str] = field(default_factory=dict)
    author: str = ""


@dataclass(frozen=True)
class Standing:
    """How what was asked for stands. ``cursor`` is given back to get only what's new."""

    ask: int | None
    state: str  # open, done, failed, or empty: there is nothing to do
    counts: Mapping[str, int] = field(default_factory=dict)
    lines: Sequence[str] = ()
    cursor: str = ""

    def as_json(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "ask": self.ask,
            "state": self.state,
            "counts": dict(self.counts),
            "lines": list(self.lines),
            "cursor": self.cursor,
        }


def ask(config: Config, catalog: Catalog, wanted: Asking) -> Standing:
    """Ask for a node, and those that run in one call with it, for a lot. The same try asks once.

    Raises
    ------
    BadParameter
        When there's no such DAG, lot or node; the error names those that there are.
    """

    def work(orm: OrmSession) -> int | None:
        lot = _lot(config, orm, wanted)
        if lot is None:
            return None
        touch(orm, lot.id)
        same = (Ask.lot_id == lot.id, Ask.node == wanted.node)
        earlier = list(orm.scalars(select(Ask).where(*same).order_by(Ask.try_number)))
        for one in earlier:
            if one.try_number == wanted.try_number:
                return one.id
        processing = orm.get_one(Processing, lot.processing_id)
        plan = plan_from(processing.template, processing.parameters)
        known = [node.name for node in plan.items]
        if wanted.node not in known:
            raise BadParameter(f"node of {wanted.dag}", ", ".join(known), repr(wanted.node)[:80])
        last = earlier[-1] if earlier else None
        went_well = last is not None and (last.outcome or {}).get("state") == "done"
        conducted = orm.get_one(Conducted, lot.processing_id)
        row = Ask(
            processing_id=lot.processing_id,
            lot_id=lot.id,
            node=wanted.node,
            nodes=together(plan, wanted.node),
            try_number=wanted.try_number,
            revisions=_revisions(conducted, wanted),
            redo=last is not None,
            redo_before=last.finished_at if last is not None and went_well else None,
            author=wanted.author,
            at=now(),
        )
        orm.add(row)
        orm.flush()
        return row.id

    try:
        number = catalog.write(work)
    except IntegrityError:  # the same try was asked for by another request just now
        number = catalog.write(work)
    return Standing(None, "empty") if number is None else standing(catalog, number)


def standing(catalog: Catalog, ask_id: int, cursor: str = "") -> Standing:
    """How an ask stands, with what was said since the last time.

    Raises
    ------
    BadParameter
        When there's no such ask, or the cursor isn't one.
    """
    after = _read_cursor(cursor)
    found = catalog.read(lambda orm: _standing(orm, ask_id, after))
    if found.state in ("done", "failed"):
        outcome = {"state": found.state, "counts": dict(found.counts)}

        def finish(orm: OrmSession) -> None:
            row = orm.get_one(Ask, ask_id)
            if row.finished_at is None:
                row.finished_at, row.outcome = now(), outcome
                touch(orm, row.lot_id)

        if catalog.read(lambda orm: orm.get_one(Ask, ask_id).finished_at) is None:
            catalog.write(finish)
    return found


# ---- asking


def _lot(config: Config, orm: OrmSession, wanted: Asking) -> Lot | None:
    """The lot of a run; None when a person started it and nothing waits."""
    if wanted.lot is not None:
        lot = orm.get(Lot, wanted.lot)
        if lot is None:
            raise BadParameter(
                f"lot of {wanted.dag}", "the number of a lot that was offered", str(wanted.lot)
            )
        return lot
    lot = orm.scalar(select(Lot).where(Lot.dag == wanted.dag, Lot.run == wanted.run))
    if lot is not None or not wanted.begin:
        return lot
    row = _newest(orm, wanted)
    made = make_lots(orm, row, 1, config.airflow.largest_batch, run=wanted.run)
    if not made:
        return None
    made[0].dag = wanted.dag  # a template's own DAG runs lots of whatever session it was started for
    orm.flush()
    return made[0]


def _newest(orm: OrmSession, wanted: Asking) -> Conducted:
    """The conducted processing that a run without a lot is for."""
    query = (
        select(Conducted)
        .join(Processing, Processing.id == Conducted.processing_id)
        .join(Session, Session.id == Processing.session_id)
        .where(Conducted.released_at.is_(None))
    )
    mine = Session.key == wanted.session if wanted.session else Conducted.dag == wanted.dag
    row = orm.scalars(query.where(mine).order_by(Processing.id.desc()).limit(1)).first()
    if row is None:
        thing = f"session {wanted.session}" if wanted.session else f"DAG {wanted.dag}"
        raise BadParameter(
            thing,
            "one with a processing that Airflow conducts",
            "none",
            "Give the key of a session with conf {'session': KEY}; [airflow] conducts has to be on when it begins.",
        )
    return row


def _revisions(row: Conducted, wanted: Asking) -> dict[str, Any]:
    return {
        **row.revisions,
        **wanted.revisions,
        "dag": wanted.dag,
        "run": wanted.run,
        "task": wanted.node,
        "try": wanted.try_number,
    }


# ---- how it stands


def _read_cursor(text: str) -> tuple[int, int]:
    first, _, second = (text or "0.0").partition(".")
    if not (first.isascii() and first.isdigit() and second.isascii() and second.isdigit()) or len(text) > 40:
        raise BadParameter("cursor", "one that an earlier answer gave", repr(text)[:60])
    return min(int(first), 2**62), min(int(second), 2**62)


def _standing(orm: OrmSession, ask_id: int, after: tuple[int, int]) -> Standing:
    row = orm.get(Ask, ask_id)
    if row is None:
        raise BadParameter("ask", "the number of one that was made", str(ask_id))
    members = list(orm.scalars(select(LotMember.exposure_id).where(LotMember.lot_id == row.lot_id)))
    tasks = _tasks(orm, row.processing_id, members)
    mine = [states[row.node] for states in tasks.values() if row.node in states]
    counts = Counter(state for _, state in mine)
    if row.finished_at is not None and row.outcome is not None:
        state = str(row.outcome["state"])
    elif (
        (row.redo and row.applied_at is None)
        or len(mine) < len(members)
        or any(one in _OPEN for one in counts)
    ):
        state = "open"
    else:
        state = "failed" if any(_failed(states, row.node) for states in tasks.values()) else "done"
    lines, cursor = _lines(orm, row, members, [number for number, _ in mine], after)
    return Standing(ask_id, state, dict(counts), lines, cursor)


def _tasks(
    orm: OrmSession, processing_id: int, exposures: Sequence[int]
) -> dict[int, dict[str, tuple[int, str]]]:
    query = select(Task.item_id, Task.node, Task.id, Task.state).where(
        Task.processing_id == processing_id,
        Task.item_type == "exposure",
        Task.item_id.in_(exposures),
        Task.revision == 1,
    )
    found: dict[int, dict[str, tuple[int, str]]] = {}
    for item, node, number, state in orm.execute(query):
        found.setdefault(item, {})[node] = (number, state)
    return found


def _failed(states: Mapping[str, tuple[int, str]], node: str) -> bool:
    """Whether a node failed for an exposure, or was stopped by one that did.

    What was rejected or quarantined is dealt with: it's the exposure's own trouble, told on its page.
    """
    state = states.get(node, (0, TaskState.FAILED))[1]
    if state == TaskState.STOPPED:
        return any(other == TaskState.FAILED for _, other in states.values())
    return state == TaskState.FAILED


def _lines(
    orm: OrmSession, row: Ask, members: Sequence[int], tasks: Sequence[int], after: tuple[int, int]
) -> tuple[list[str], str]:
    """What was said of this node since the cursor: attempts that failed, and results with their logs."""
    names: dict[int, str] = dict(
        orm.execute(select(Exposure.id, Exposure.item).where(Exposure.id.in_(members))).all()
    )
    results = (
        select(ResultRow.id, ResultRow.item_id, ResultRow.record)
        .where(
            ResultRow.processing_id == row.processing_id,
            ResultRow.node == row.node,
            ResultRow.revision == 1,
            ResultRow.item_type == "exposure",
            ResultRow.item_id.in_(members),
            ResultRow.id > after[0],
        )
        .order_by(ResultRow.id)
        .limit(_MOST_LINES)
    )
    attempts = (
        select(Attempt.id, Task.item_id, Attempt.number, Attempt.reason)
        .join(Task, Task.id == Attempt.task_id)
        .where(Attempt.task_id.in_(tasks), Attempt.id > after[1])
        .order_by(Attempt.id)
        .limit(_MOST_LINES)
    )
    lines: list[str] = []
    first, second = after
    for number, item, attempt, reason in orm.execute(attempts):
        second = number
        lines.append(f"{names.get(item, item)}: attempt {attempt} failed: {reason}")
    for number, item, record in orm.execute(results):
        first = number
        lines += _said(names.get(item, str(item)), record)
    return lines, f"{first}.{second}"


def _said(name: str, record: Mapping[str, Any]) -> list[str]:
    ended = f"{name}: {record['status']}"
    ended += f" after {record.get('seconds') or 0:.1f} s"
    if record.get("reason"):
        ended += f": {record['reason']}"
    how = record.get("provenance") or {}
    said = [*(how.get("log") or []), *(f"warning: {text}" for text in record.get("warnings") or [])]
    return [*(f"{name}: {text}" for text in said[:20]), ended]
