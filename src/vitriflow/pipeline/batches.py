"""Batches: released by triggers, worked on by steps of scope batch and session, all of it in the catalog.

A batch, its members and the tasks for it are written in the transaction that makes it due. So a kill at
any instant leaves either all of it or nothing, and no exposure goes on twice or is forgotten.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import func, insert, select
from sqlalchemy.orm import Session as OrmSession

from vitriflow.catalog import Batch, BatchMember, Exposure, ResultRow, Task, TaskState
from vitriflow.pipeline import rows
from vitriflow.pipeline.calls import failed_for_now
from vitriflow.pipeline.lanes import Draft, Lane, OpenTask, Release, Waiting
from vitriflow.pipeline.plan import SESSION_LANE, Plan
from vitriflow.pipeline.progress import OPEN, NodeState
from vitriflow.pipeline.recording import Outcome, again, failed_record, finish_state
from vitriflow.pipeline.settings import Settings
from vitriflow.steps import Scope

BATCH = Scope.BATCH.value
SESSION = Scope.SESSION.value
_TYPES = (BATCH, SESSION)


class BatchBook:
    """Keeps the batches of one processing.

    Parameters
    ----------
    plan, processing_id, settings
        Of the processing.
    """

    def __init__(self, plan: Plan, processing_id: int, settings: Settings) -> None:
        self._plan = plan
        self._id = processing_id
        self._settings = settings
        self._order = {node.name: place for place, node in enumerate(plan.nodes)}
        self.lanes = {
            node.name: Lane(node.name, node.parameters)  # type: ignore[arg-type]  # a trigger's own
            for node in plan.nodes
            if node.triggers
        }
        self.open: list[OpenTask] = []
        # Whether steps of scope session may have something to do: so until a look at the end says no.
        self._session_due = SESSION_LANE in plan.lanes

    # What is known

    def load(self, session: OrmSession) -> None:
        """Learn from the catalog what waits, what was released, and what is open."""
        for name, lane in self.lanes.items():
            fresh = Lane(name, lane.parameters)
            query = select(func.max(Batch.number), func.sum(Batch.n_new)).where(*self._mine(name))
            fresh.batches, fresh.released = (int(found or 0) for found in session.execute(query).one())
            fresh.stopped = self._was_signalled(session, lane.parameters.stop_on)
            if not fresh.over:
                fresh.waiting = self._waiting(session, name)
                fresh.particles = sum(one.particles for one in fresh.waiting.values())
            self.lanes[name] = fresh
        self.open = self._open(session)
        self._mark_busy()

    def draft(self) -> Draft:
        """A clean sheet for one transaction."""
        return Draft()

    def adopt(self, draft: Draft) -> None:
        """Remember what a transaction that went through has done."""
        for name, lane in self.lanes.items():
            stop = lane.parameters.stop_on in draft.signals
            lane.take(draft.joined.get(name, {}), draft.released.get(name, ()), stop)
        if draft.open is not None:
            self.open = draft.open
        if SESSION_LANE in self._plan.lanes:
            self._session_due = not draft.session_looked
        self._mark_busy()

    def next_time(self) -> datetime | None:
        """When something becomes due by time alone."""
        times = [lane.next_time() for lane in self.lanes.values()]
        times += [task.state.not_before for task in self.open if task.state.state == TaskState.READY]
        return min((time for time in times if time is not None), default=None)

    @property
    def holds_rest(self) -> bool:
        """Whether something would be let go if the stream ended now."""
        waits = any(lane.waiting and not lane.over and not lane.busy_growing for lane in self.lanes.values())
        return waits or (self._session_due and not self.open)

    def due(self, moment: datetime) -> bool:
        """Whether a transaction has something to do here, though no call has ended."""
        return any(
            time is not None and time <= moment for time in (lane.next_time() for lane in self.lanes.values())
        )

    def startable(self, moment: datetime) -> int:
        """How many tasks of batches could start now."""
        return sum(
            task.state.state == TaskState.READY
            and (task.state.not_before is None or task.state.not_before <= moment)
            for task in self.open
        )

    # What happens to exposures

    def heard(
        self, draft: Draft, records: Mapping[tuple[int, str], Mapping[str, Any]], moment: datetime
    ) -> None:
        """Note exposures that came to a trigger, and signals to stop."""
        for (exposure, node), record in records.items():
            if node in self.lanes and record["status"] == "done" and not self.lanes[node].over:
                waiting = Waiting(int(record.get("particles") or 0), moment)
                draft.joined.setdefault(node, {})[exposure] = waiting
            if record.get("stop"):
                draft.signals.add(node)

    def release(self, session: OrmSession, draft: Draft, moment: datetime, ending: bool) -> None:
        """Let go what is due: make its batches, their members and their tasks."""
        for name, lane in self.lanes.items():
            joined = {e: w for e, w in draft.joined.get(name, {}).items() if e not in lane.waiting}
            if joined:
                joined = self._unreleased(session, name, joined)
            draft.joined[name] = joined
            signalled = lane.parameters.stop_on in draft.signals and not lane.stopped
            found = lane.releases(joined, moment, ending, signalled)
            if not found:
                continue
            draft.released[name] = found
            for place, release in enumerate(found, start=lane.batches + 1):
                before = sum(len(one.exposures) for one in found[: place - lane.batches - 1]) + lane.released
                growing = lane.parameters.release == "growing"
                self._make(
                    session,
                    name,
                    place,
                    lane.parameters.release,
                    release,
                    len(release.exposures) + (before if growing else 0),
                    moment,
                )
            draft.open = []  # it's read again below
        if ending and not draft.released and not self.open:
            draft.session_looked = True
            draft.session_batch = self._make_session_batch(session, moment)
        if draft.released or draft.session_batch or draft.open is not None:
            self._settle(session, draft, moment)

    def _make(
        self,
        session: OrmSession,
        lane: str,
        number: int,
        mode: str,
        release: Release,
        n_items: int,
        moment: datetime,
    ) -> None:
        batch = Batch(
            processing_id=self._id,
            node=lane,
            revision=rows.REVISION,
            number=number,
            mode=mode,
            cause=release.cause,
            n_items=n_items,
            n_new=len(release.exposures),
            particles=release.particles,
            created_at=moment,
        )
        session.add(batch)
        session.flush()
        members = [{"batch_id": batch.id, "exposure_id": exposure} for exposure in release.exposures]
        if members:
            session.connection().execute(insert(BatchMember), members)
        for node in self._plan.lanes.get(lane, ()):
            first = {node.name: TaskState.WAITING.value}
            rows.insert_tasks(session, self._id, [batch.id], first, moment, node.item_type)

    def _make_session_batch(self, session: OrmSession, moment: datetime) -> bool:
        """When all has ended: one more batch for the steps of scope session, if exposures came since the last."""
        if SESSION_LANE not in self._plan.lanes:
            return False
        done = select(Task.item_id).where(
            Task.processing_id == self._id,
            Task.item_type == rows.ITEM,
            Task.revision == rows.REVISION,
            Task.state == TaskState.DONE,
        )
        new = tuple(
            session.scalars(
                done.where(Task.item_id.not_in(self._members(SESSION_LANE))).distinct().order_by(Task.item_id)
            )
        )
        if not new:
            return False
        query = select(func.max(Batch.number), func.sum(Batch.n_new)).where(*self._mine(SESSION_LANE))
        number, before = (int(found or 0) for found in session.execute(query).one())
        self._make(
            session, SESSION_LANE, number + 1, SESSION, Release(new, 0, "end"), before + len(new), moment
        )
        return True

    def _unreleased(
        self, session: OrmSession, lane: str, joined: Mapping[int, Waiting]
    ) -> dict[int, Waiting]:
        """Those that no batch has had: an exposure that was done anew doesn't go on twice."""
        found = dict(joined)
        for part in rows.chunks(sorted(joined)):
            known = self._members(lane).where(BatchMember.exposure_id.in_(part))
            for exposure in session.scalars(known):
                found.pop(exposure, None)
        return found

    # What happens to batches

    def record(
        self, session: OrmSession, draft: Draft, outcomes: Sequence[Outcome], moment: datetime
    ) -> None:
        """Write down how calls ended."""
        for outcome in outcomes:
            (call,) = outcome.sent.call.nodes
            node = self._plan[call.node]
            batch = outcome.sent.call.item_id
            state = rows.load_states(session, self._id, {batch}, node.item_type).get(batch, {}).get(node.name)
            if state is None or state.state != TaskState.RUNNING or state.task_id not in outcome.sent.tasks:
                continue  # recorded before, or put away since
            record = outcome.back.records.get(node.name)
            if outcome.failure is not None:
                record = failed_record(self._plan, node.name, *outcome.failure)
            if record is None or node.name in outcome.held:
                state.state, state.not_before, state.started_at = TaskState.WAITING, None, None
            elif failed_for_now(record) and (attempt := again(self._settings, moment, state, record)):
                rows.insert_attempts(session, [attempt])
                state.state = TaskState.WAITING
            else:
                finish_state(state, record, outcome.back.worker, moment)
                rows.insert_results(session, self._id, [(batch, node.name, record)], moment, node.item_type)
                if record.get("stop"):
                    draft.signals.add(node.name)
            rows.update_tasks(session, [state])
            draft.open = []

    def _settle(self, session: OrmSession, draft: Draft, moment: datetime) -> None:
        """Bring the open tasks up to date with what was made, and remember them."""
        tasks = self._open(session)
        changed: list[NodeState] = []
        moved = True
        while moved:
            moved = False
            for task in tasks:
                if task.state.state != TaskState.WAITING:
                    continue
                verdict = self._verdict(session, task, tasks)
                if verdict is not None:
                    task.state.state, task.state.reason = verdict
                    task.state.queued_at = moment
                    changed.append(task.state)
                    moved = True
            tasks = [task for task in tasks if task.state.state in OPEN]
        rows.update_tasks(session, changed)
        draft.open = tasks

    def _verdict(
        self, session: OrmSession, task: OpenTask, tasks: Sequence[OpenTask]
    ) -> tuple[TaskState, str | None] | None:
        """What becomes of a task that waits; None: it waits on."""
        mates = {other.name for other in self._plan.lanes[task.lane]}
        makers = task.node.producers() & mates
        if any(other.batch == task.batch and other.node.name in makers for other in tasks):
            return None
        earlier = (o for o in tasks if o.node.name == task.node.name and o.number < task.number)
        if task.node.carries_state and any(earlier):
            return None
        if not makers:
            return TaskState.READY, None
        made = self._made(session, task, makers)
        for port, source in task.node.inputs.items():
            if (
                source.node in makers
                and source.port not in made.get(source.node, {})
                and task.node.needs(port)
            ):
                return TaskState.STOPPED, f"{source.node} made no {source.port} of this batch"
        return TaskState.READY, None

    def _made(
        self, session: OrmSession, task: OpenTask, makers: Iterable[str]
    ) -> dict[str, Mapping[str, Any]]:
        """Files that other nodes made of the same batch."""
        wanted = [(task.batch, name) for name in makers]
        found = rows.load_outputs(session, self._id, wanted, task.node.item_type)
        return {name: outputs for (_, name), outputs in found.items()}

    def recover(self, session: OrmSession, in_flight: Collection[int]) -> bool:
        """Make ready again what is called running, and runs nowhere; whether there was anything."""
        lost = [
            task
            for task in self._open(session)
            if task.state.state == TaskState.RUNNING and task.state.task_id not in in_flight
        ]
        for task in lost:
            task.state.state = TaskState.WAITING
            task.state.started_at = task.state.worker = None
        rows.update_tasks(session, [task.state for task in lost])
        return bool(lost)

    def settle_all(self, session: OrmSession, moment: datetime) -> None:
        """Read everything anew from the catalog, and bring it up to date."""
        draft = self.draft()
        self._settle(session, draft, moment)
        self.load(session)

    # Queries

    def _mine(self, lane: str) -> tuple[Any, ...]:
        return Batch.processing_id == self._id, Batch.node == lane, Batch.revision == rows.REVISION

    def _members(self, lane: str) -> Any:
        return (
            select(BatchMember.exposure_id)
            .join(Batch, Batch.id == BatchMember.batch_id)
            .where(*self._mine(lane))
        )

    def _waiting(self, session: OrmSession, lane: str) -> dict[int, Waiting]:
        query = (
            select(ResultRow.item_id, ResultRow.record["particles"], ResultRow.created_at)
            .join(Exposure, Exposure.id == ResultRow.item_id)
            .where(
                ResultRow.processing_id == self._id,
                ResultRow.node == lane,
                ResultRow.revision == rows.REVISION,
                ResultRow.item_type == rows.ITEM,
                ResultRow.status == "done",
                ResultRow.item_id.not_in(self._members(lane)),
            )
            .order_by(ResultRow.id)
        )
        return {item: Waiting(int(count or 0), since) for item, count, since in session.execute(query)}

    def _was_signalled(self, session: OrmSession, node: str | None) -> bool:
        if node is None:
            return False
        query = (
            select(ResultRow.record)
            .where(
                ResultRow.processing_id == self._id,
                ResultRow.node == node,
                ResultRow.revision == rows.REVISION,
            )
            .order_by(ResultRow.id.desc())
            .limit(50)
        )
        return any(record.get("stop") for record in session.scalars(query))

    def _open(self, session: OrmSession) -> list[OpenTask]:
        query = (
            select(Task.item_id, Task.node, Batch.number, Batch.node)
            .join(Batch, Batch.id == Task.item_id)
            .where(
                Task.processing_id == self._id,
                Task.item_type.in_(_TYPES),
                Task.revision == rows.REVISION,
                Task.state.in_(tuple(OPEN)),
            )
        )
        found = [row for row in session.execute(query) if row[1] in self._order]
        states: dict[int, dict[str, NodeState]] = {}
        for kind in _TYPES:
            states |= rows.load_states(session, self._id, {row[0] for row in found}, kind)
        tasks = [
            OpenTask(batch, number, lane, self._plan[node], states[batch][node])
            for batch, node, number, lane in found
        ]
        return sorted(tasks, key=lambda task: (task.batch, self._order[task.node.name]))

    def _mark_busy(self) -> None:
        busy = {task.lane for task in self.open}
        for name, lane in self.lanes.items():
            lane.busy = name in busy
