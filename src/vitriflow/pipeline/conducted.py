"""A processing that an engine such as Airflow conducts: the coordinator starts only what was asked for.

An engine asks for a node (and those that run in one call with it) for a lot of exposures. Asks stand in
the catalog; the coordinator reads them, starts what they allow, and alone retries and records.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session as OrmSession

from vitriflow.catalog import Ask, Conducted, Lot, LotMember, Measure, ResultRow, TaskState, now
from vitriflow.pipeline import rows
from vitriflow.pipeline.ledger import Ledger, Ready
from vitriflow.pipeline.plan import Plan
from vitriflow.pipeline.progress import NodeState
from vitriflow.pipeline.recording import Outcome

_MOST_KEPT = 20000  # exposures whose asks are kept in memory before those that are done with are dropped


class Conducting:
    """What a processing's engine has asked for so far.

    Parameters
    ----------
    ledger
        The processing's ledger.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.active = False
        self._highest = 0
        self._asked: dict[int, frozenset[str]] = {}
        self._stamps: dict[int, dict[str, Mapping[str, Any]]] = {}
        ledger.only = self.only

    def allows(self, exposure: int) -> bool:
        """Whether anything of an exposure may start."""
        return not self.active or exposure in self._asked

    def only(self, exposure: int, names: Sequence[str], states: Mapping[str, NodeState]) -> list[str]:
        """Those of some nodes that were asked for and don't wait for one that wasn't."""
        if not self.active:
            return list(names)
        asked = self._asked.get(exposure, frozenset())
        chosen: list[str] = []
        for name in names:
            producers = self._ledger.plan[name].producers()
            if name in asked and not any(states[p].is_open and p not in chosen for p in producers):
                chosen.append(name)
        return chosen

    def stamp(self, outcome: Outcome) -> None:
        """Write into what came back from a worker who asked for it, and by which revisions."""
        for node, record in outcome.back.records.items():
            how = record.get("provenance")
            asked = self._stamps.get(outcome.sent.call.item_id, {}).get(node)
            if isinstance(how, dict) and asked is not None:
                how["conducted"] = dict(asked)

    def look(self) -> list[Ready] | None:
        """Read what is new, and open again what is to be made anew.

        Returns
        -------
        What may start now. None when the engine has given the processing back since the last look:
        everything may start.
        """
        if len(self._asked) > _MOST_KEPT:
            self.forget()
        was, first = self.active, self._highest == 0
        self.active, asks, members = self._ledger.catalog.read(lambda s: self._read(s, first))
        found: list[Ready] = []
        fresh = [ask for ask in asks if ask.applied_at is None]
        for ask in asks:
            for exposure in members[ask.lot_id]:
                self._allow(exposure, ask)
                found += [
                    ((exposure, one.number), None)
                    for one in self._ledger.groups
                    if {*ask.nodes} & {*one.nodes}
                ]
            self._highest = ask.id
        for ask in fresh:
            if ask.redo:
                self._ledger.catalog.write(lambda s, ask=ask: self._redo(s, ask, members[ask.lot_id]))  # type: ignore[misc]
                found += self._ledger.resettle(members[ask.lot_id])
        if fresh:
            self._ledger.catalog.write(lambda s: self._took_up(s, fresh))
        return None if was and not self.active else found

    def forget(self) -> None:
        """Read everything again at the next look; only what isn't dealt with is kept then."""
        self._highest = 0
        self._asked.clear()
        self._stamps.clear()

    def _allow(self, exposure: int, ask: Ask) -> None:
        self._asked[exposure] = self._asked.get(exposure, frozenset()) | frozenset(ask.nodes)
        stamps = self._stamps.setdefault(exposure, {})
        for node in ask.nodes:
            stamps[node] = ask.revisions

    def _read(self, session: OrmSession, first: bool) -> tuple[bool, list[Ask], dict[int, list[int]]]:
        row = session.get(Conducted, self._ledger.id)
        active = row is not None and row.released_at is None
        if row is None:
            return False, [], {}
        query = select(Ask).where(Ask.processing_id == self._ledger.id, Ask.id > self._highest)
        asks = list(session.scalars(query.order_by(Ask.id)))
        members: dict[int, list[int]] = defaultdict(list)
        lots = sorted({ask.lot_id for ask in asks})
        for part in rows.chunks(lots):
            found = select(LotMember.lot_id, LotMember.exposure_id).where(LotMember.lot_id.in_(part))
            if first:  # what's dealt with needs no leave any more
                new = select(Ask.lot_id).where(Ask.lot_id.in_(part), Ask.applied_at.is_(None))
                still = (
                    Measure.processing_id == self._ledger.id,
                    Measure.exposure_id == LotMember.exposure_id,
                )
                found = found.join(Measure, (still[0]) & (still[1])).where(
                    (Measure.status == "open") | LotMember.lot_id.in_(new)
                )
            for lot, exposure in session.execute(found):
                members[lot].append(exposure)
        return active, asks, members

    # -- doing again ------------------------------------------------------------------------

    def _took_up(self, session: OrmSession, asks: Sequence[Ask]) -> None:
        self._ledger.fence(session)
        moment = now()
        for part in rows.chunks([ask.id for ask in asks]):
            session.execute(update(Ask).where(Ask.id.in_(part)).values(applied_at=moment))
        for part in rows.chunks(sorted({ask.lot_id for ask in asks})):
            session.execute(update(Lot).where(Lot.id.in_(part)).values(active_at=moment))

    def _redo(self, session: OrmSession, ask: Ask, exposures: Collection[int]) -> None:
        """Open again what an ask wants anew, with all that hangs on it. What it left stays readable."""
        self._ledger.fence(session)
        moment = now()
        states = rows.load_states(session, self._ledger.id, exposures)
        opened: dict[int, list[str]] = {}
        attempts: list[dict[str, Any]] = []
        for exposure, mine in states.items():
            names = again(self._ledger.plan, mine, ask.nodes, ask.redo_before)
            if not names:
                continue
            opened[exposure] = names
            for name in names:
                attempts += _reopen(mine[name], moment)
        if not opened:
            return
        _put_away(session, self._ledger.id, opened)
        rows.insert_attempts(session, attempts)
        rows.update_tasks(session, [states[one][name] for one, names in opened.items() for name in names])
        columns = {
            "status": "open",
            "reason_code": None,
            "reason": None,
            "finished_at": None,
            "change": rows.bump_change(session, self._ledger.id),
        }
        rows.update_measures(session, self._ledger.id, dict.fromkeys(opened, columns), moment)
        what = f"{len(opened)} exposure{'s' if len(opened) > 1 else ''} of lot {ask.lot_id}"
        text = f"{ask.author or 'Somebody'} has {what} done again from '{ask.node}' on"
        rows.tell(session, self._ledger.session_id, self._ledger.id, "info", text, moment)


def again(
    plan: Plan, states: Mapping[str, NodeState], nodes: Iterable[str], before: datetime | None
) -> list[str]:
    """Nodes of one exposure that are made anew, in order.

    Those that failed; with ``before`` also those that ended otherwise by then. And what hangs on them:
    all that has ended, however it did.
    """
    asked = set(nodes)
    chosen: set[str] = set()
    for name in asked:
        mine = states.get(name)
        if mine is None or mine.is_open:
            continue
        old = before is not None and mine.finished_at is not None and mine.finished_at <= before
        if mine.state == TaskState.FAILED or (old and mine.state != TaskState.STOPPED):
            chosen.add(name)
    hanging = plan.downstream(chosen) if chosen else set()
    return [
        node.name
        for node in plan.items
        if node.name in hanging and node.name in states and not states[node.name].is_open
    ]


def _reopen(state: NodeState, moment: datetime) -> list[dict[str, Any]]:
    """Make a task wait again; an attempt that failed is kept with its reason."""
    failed = state.state == TaskState.FAILED
    kept = {
        "task_id": state.task_id,
        "number": state.attempts,
        "reason_code": state.reason_code or "",
        "reason": state.reason or "",
        "started_at": state.started_at,
        "ended_at": state.finished_at or moment,
    }
    state.state, state.attempts, state.not_before = TaskState.WAITING, 0, None
    state.reason_code = state.reason = state.started_at = state.finished_at = state.worker = None
    state.outputs = None
    return [kept] if failed else []


def _put_away(session: OrmSession, processing_id: int, opened: Mapping[int, Collection[str]]) -> None:
    """Give results that are made anew a number below zero: -1 is the first that was replaced, then -2."""
    for exposure, names in opened.items():
        for name in names:
            mine = (
                ResultRow.processing_id == processing_id,
                ResultRow.node == name,
                ResultRow.item_type == rows.ITEM,
                ResultRow.item_id == exposure,
            )
            lowest = session.scalar(select(func.min(ResultRow.revision)).where(*mine))
            if lowest is not None:
                present = (*mine, ResultRow.revision == rows.REVISION)
                session.execute(update(ResultRow).where(*present).values(revision=min(lowest, 0) - 1))
