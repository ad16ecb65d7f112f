"""What a coordinator writes: each turn is one transaction that only the holder of the lease can make.

A result, the states that it changes, what pages plot and the change number are written together,
so a kill at any instant leaves either all of it or nothing. A turn that was committed without
our learning of it can be made again: what has already been recorded is left alone.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session as OrmSession

from vitriflow.catalog import Catalog, Exposure, LeaseHandle, Processing, Session, Task, TaskState, now
from vitriflow.errors import CatalogError
from vitriflow.pipeline import rows
from vitriflow.pipeline.batch_calls import BatchCaller
from vitriflow.pipeline.batches import BatchBook
from vitriflow.pipeline.calls import BatchCall, GroupCall, NodeCall, Promise
from vitriflow.pipeline.judges import Bench, Sitting
from vitriflow.pipeline.lanes import Draft
from vitriflow.pipeline.plan import EXPOSURE, PREVIEWS, Group, Plan, PlanNode
from vitriflow.pipeline.progress import (
    NodeState,
    needs_outputs,
    ready_groups,
    runnable,
)
from vitriflow.pipeline.ready import Work
from vitriflow.pipeline.recording import Outcome, Recorder, Sent
from vitriflow.pipeline.settings import Settings
from vitriflow.steps import Artifact, Kind, facility_values

Ready = tuple[Work, datetime | None]
Note = tuple[str, str]  # severity, text


class Ledger:
    """Reads and writes one processing for its coordinator.

    Parameters
    ----------
    catalog
        The catalog.
    processing_id
        The processing.
    plan
        Its plan.
    gpus
        Whether there are workers with a GPU.
    settings
        Times and limits.
    threads
        CPU threads of a call.
    """

    def __init__(
        self, catalog: Catalog, processing_id: int, plan: Plan, gpus: bool, settings: Settings, threads: int
    ) -> None:
        self.catalog = catalog
        self.plan = plan
        self.groups = plan.groups(gpus)
        self.settings = settings
        self.threads = threads
        self.lease: LeaseHandle | None = None
        # Of a conducted processing: which of some nodes of an exposure may start (see conducted.py).
        self.only: Callable[[int, Sequence[str], Mapping[str, NodeState]], list[str]] | None = None
        self.interrupted: set[Path] = set()  # folders that lost calls were writing to, at the last recovery
        processing, session = catalog.read(lambda s: _rows_of(s, processing_id))
        self.id = processing_id
        self.name = processing.name
        self.session_id = session.id
        self.source = Path(session.source)
        self.root = Path(processing.root)
        # Only what was set: a default sent along would count as set, and overrule the exposure's own files.
        self._parameters = {
            node.name: node.parameters.model_dump(mode="json", exclude_unset=True) for node in plan.nodes
        }
        self._table = (session.settings or {}).get("facility") or {}  # frozen when the session began
        self._previews = Path(session.root) / PREVIEWS / processing.name
        self.bench = Bench(plan, processing_id)
        self.book = BatchBook(plan, processing_id, settings)
        self._caller = BatchCaller(
            plan, processing_id, self._parameters, self._table, self._out, threads, gpus
        )

    def fence(self, session: OrmSession) -> None:
        """Let this transaction commit only if we still hold the processing."""
        if self.lease is not None:
            self.lease.fence(session)

    def turn(
        self,
        outcomes: Sequence[Outcome],
        wanted: Sequence[Work],
        notes: Sequence[Note] = (),
        batch_room: int = 0,
        ending: bool = False,
    ) -> tuple[list[Sent], list[Ready]]:
        """Record how calls ended, and announce the next ones, in one transaction.

        Parameters
        ----------
        outcomes
            Calls that ended.
        wanted
            Exposures and groups to start now.
        notes
            Events to tell people.
        batch_room
            Tasks of batches that may start.
        ending
            Whether nothing more will come for now: triggers let go what they hold.

        Returns
        -------
        The calls to submit, and what has become ready.
        """

        def work(session: OrmSession) -> tuple[list[Sent], list[Ready], Sitting, Draft]:
            moment = now()
            self.fence(session)
            for severity, text in notes:
                rows.tell(session, self.session_id, self.id, severity, text, moment)
            change = rows.bump_change(session, self.id)
            sitting, draft = self.bench.sitting(moment), self.book.draft()
            singles = [o for o in outcomes if not isinstance(o.sent.call, BatchCall)]
            ready = self._record(session, singles, sitting, draft, change) if singles else []
            batches = [o for o in outcomes if isinstance(o.sent.call, BatchCall)]
            self.book.record(session, draft, batches, moment)
            self.book.release(session, draft, moment, ending)
            sent = self._caller.start(session, self.book, draft, batch_room, moment)
            sent += self._start(session, wanted, moment) if wanted else []
            return sent, ready, sitting, draft

        sent, ready, sitting, draft = self.catalog.write(work)
        self.bench.adopt(sitting)
        self.book.adopt(draft)
        return sent, ready

    def _record(
        self,
        session: OrmSession,
        outcomes: Sequence[Outcome],
        sitting: Sitting,
        draft: Draft,
        change: int,
    ) -> list[Ready]:
        states = rows.load_states(session, self.id, {outcome.sent.call.item_id for outcome in outcomes})
        recorder = Recorder(self.plan, self.settings, self.id, sitting.moment)
        for outcome in outcomes:
            recorder.take(outcome, states[outcome.sent.call.item_id])
        complete = {o.sent.call.item_id: o.sent.complete_at for o in outcomes}
        return self.go_on(session, states, recorder, sitting, draft, complete, change)

    def go_on(
        self,
        session: OrmSession,
        states: rows.States,
        recorder: Recorder,
        sitting: Sitting,
        draft: Draft,
        complete: Mapping[int, datetime | None],
        change: int,
    ) -> list[Ready]:
        """Settle and judge exposures of which something was recorded, write it all, and say what can start."""
        self._fill_outputs(session, states)
        sitting.settle(session, states, recorder)
        recorder.write(session, states, complete, change)
        self.book.heard(draft, recorder.records, sitting.moment)
        for severity, text in sitting.told:
            rows.tell(session, self.session_id, self.id, severity, text, sitting.moment)
        return [
            ((exposure, group), when)
            for exposure in sorted(states)
            for group, when in ready_groups(self.groups, states[exposure])
        ]

    def resettle(self, exposures: Sequence[int]) -> list[Ready]:
        """Bring exposures up to date after a change; what can start."""

        def work(session: OrmSession) -> tuple[list[Ready], Sitting, Draft]:
            moment = now()
            self.fence(session)
            sitting, draft = self.bench.sitting(moment), self.book.draft()
            states = rows.load_states(session, self.id, exposures)
            recorder = Recorder(self.plan, self.settings, self.id, moment)
            change = rows.bump_change(session, self.id)
            ready = self.go_on(session, states, recorder, sitting, draft, {}, change)
            self.book.release(session, draft, moment, ending=False)
            return ready, sitting, draft

        ready, sitting, draft = self.catalog.write(work)
        self.bench.adopt(sitting)
        self.book.adopt(draft)
        return ready

    def _fill_outputs(self, session: OrmSession, states: rows.States) -> None:
        wanted = [(e, name) for e, mine in states.items() for name in needs_outputs(self.plan, mine)]
        if wanted:
            for (exposure, name), outputs in rows.load_outputs(session, self.id, wanted).items():
                states[exposure][name].outputs = outputs

    def _start(self, session: OrmSession, wanted: Sequence[Work], moment: datetime) -> list[Sent]:
        ids = sorted({exposure for exposure, _ in wanted})
        exposures = {e.id: e for part in rows.chunks(ids) for e in session.execute(_exposure_columns(part))}
        states = rows.load_states(session, self.id, exposures)
        self._fill_outputs(session, states)
        started: list[NodeState] = []
        calls: list[Sent] = []
        for exposure, number in wanted:
            mine = states.get(exposure)
            names = runnable(self.plan, self.groups[number], mine, moment) if mine else []
            if mine and self.only is not None:
                names = self.only(exposure, names, mine)
            if not mine or not names:
                continue
            tasks = [mine[name] for name in names]
            calls.append(
                Sent(
                    self._call(exposures[exposure], self.groups[number], names, mine),
                    number,
                    frozenset(task.task_id for task in tasks),
                    exposures[exposure].complete_at,
                    moment,
                )
            )
            for task in tasks:
                task.state = TaskState.RUNNING
                task.started_at, task.finished_at, task.worker = moment, None, None
                task.queued_at = task.queued_at or moment
                started.append(task)
        rows.update_tasks(session, started)
        return calls

    def _call(
        self, exposure: Any, group: Group, names: Sequence[str], states: Mapping[str, NodeState]
    ) -> GroupCall:
        nodes = [self.plan[name] for name in names]
        return GroupCall(
            exposure_id=exposure.id,
            item=exposure.item,
            nodes=tuple(self._node_call(node, exposure, set(names), states) for node in nodes),
            metadata=exposure.metadata | {"facility": facility_values(self._table, exposure.metadata)},
            gpu=group.gpu,
            threads=self.threads,
            memory_bytes=max(node.resources.memory_bytes for node in nodes),
            time_limit_s=sum(node.resources.time_limit_s for node in nodes),
        )

    def _node_call(
        self, node: PlanNode, exposure: Any, here: set[str], states: Mapping[str, NodeState]
    ) -> NodeCall:
        inputs: dict[str, Artifact | Promise] = {}
        for port, source in node.inputs.items():
            if source.node == EXPOSURE:
                kind = Kind.MOVIE if self.plan.item == "movie" else Kind.MICROGRAPH
                inputs[port] = Artifact(kind=kind, path=Path(exposure.path), blake3=exposure.blake3)
            elif source.node in here:
                inputs[port] = Promise(source.node, source.port)
            elif states[source.node].state == TaskState.DONE:
                made = (states[source.node].outputs or {}).get(source.port)
                if made is not None:
                    inputs[port] = Artifact.model_validate(made)
        return NodeCall(
            node=node.name,
            step=node.step.name,
            parameters=self._parameters[node.name],
            inputs=inputs,
            needed=frozenset(port for port in node.inputs if node.needs(port)),
            out=str(self._out(node)),
        )

    def _out(self, node: PlanNode) -> Path:
        return self._previews if node.job is None else self.root / node.folder

    def recover(self, in_flight: Collection[int] = ()) -> list[Ready]:
        """Make ready again what the catalog calls running but nobody runs; give all that is ready.

        What judged nodes remember and what waits at triggers is read anew, too.

        Parameters
        ----------
        in_flight
            Tasks that this coordinator does have running.
        """

        def work(session: OrmSession) -> list[Ready]:
            moment = now()
            self.fence(session)
            query = (
                select(Task.id, Task.item_id, Task.node, Exposure.item)
                .join(Exposure, Exposure.id == Task.item_id)
                .where(
                    Task.processing_id == self.id,
                    Task.state == TaskState.RUNNING,
                    Task.item_type == rows.ITEM,
                    Task.revision == rows.REVISION,
                )
            )
            running = [row for row in session.execute(query) if row.id not in in_flight]
            lost = {row.item_id for row in running}
            self.interrupted = {(self._out(self.plan[row.node]) / row.item).parent for row in running}
            states = rows.load_states(session, self.id, lost)
            for mine in states.values():
                for state in mine.values():
                    if state.state == TaskState.RUNNING and state.task_id not in in_flight:
                        state.state = TaskState.WAITING
                        state.started_at = state.worker = None
            states |= rows.load_states(session, self.id, self._unjudged(session) - lost)
            rows.update_tasks(session, [s for mine in states.values() for s in mine.values() if s.is_open])
            self.bench.load(session)
            self.book.recover(session, in_flight)
            self.book.settle_all(session, moment)
            if states:
                sitting, draft = self.bench.sitting(moment), self.book.draft()
                recorder = Recorder(self.plan, self.settings, self.id, moment)
                self.go_on(session, states, recorder, sitting, draft, {}, rows.bump_change(session, self.id))
                self.bench.load(session)
                self.book.load(session)
            return self._all_ready(session)

        return self.catalog.write(work)

    def _unjudged(self, session: OrmSession) -> set[int]:
        """Exposures with something to judge, which a coordinator without these nodes may have left."""
        names = [node.name for node in self.plan.judged]
        query = select(Task.item_id).where(
            Task.processing_id == self.id,
            Task.state == TaskState.READY,
            Task.node.in_(names),
            Task.revision == rows.REVISION,
        )
        return set(session.scalars(query)) if names else set()

    def _all_ready(self, session: OrmSession) -> list[Ready]:
        numbers = {name: group.number for group in self.groups for name in group.nodes}
        query = select(Task.item_id, Task.node, Task.not_before).where(
            Task.processing_id == self.id,
            Task.state == TaskState.READY,
            Task.node.in_(numbers),
            Task.revision == rows.REVISION,
        )
        ready: dict[Work, datetime | None] = {}
        for item, node, when in session.execute(query):
            work = (item, numbers[node])
            known = ready.get(work, when)
            ready[work] = None if known is None or when is None else min(known, when)
        return list(ready.items())


def _rows_of(session: OrmSession, processing_id: int) -> tuple[Processing, Session]:
    processing = session.get(Processing, processing_id)
    home = session.get(Session, processing.session_id) if processing else None
    if processing is None or home is None:
        raise CatalogError(
            f"processing {processing_id}",
            expected="a processing in the catalog",
            found="none of that number",
            remedy="Run 'vitriflow status' to see what there is.",
        )
    return processing, home


def _exposure_columns(ids: Sequence[int]) -> Any:
    return select(
        Exposure.id,
        Exposure.item,
        Exposure.path,
        Exposure.blake3,
        Exposure.details.label("metadata"),
        Exposure.complete_at,
    ).where(Exposure.id.in_(ids))
