"""Makes the calls for batches: gathers the files of the members, and the state to go on from."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session as OrmSession

from vitriflow.catalog import Batch, BatchMember, Exposure, Measure, ResultRow, TaskState
from vitriflow.pipeline import rows
from vitriflow.pipeline.batches import BatchBook
from vitriflow.pipeline.calls import BatchCall, NodeCall
from vitriflow.pipeline.lanes import Draft, OpenTask
from vitriflow.pipeline.plan import EXPOSURE, Plan, PlanNode
from vitriflow.pipeline.recording import Sent
from vitriflow.steps import Artifact, BatchItem, Kind, facility_values


class BatchCaller:
    """Starts tasks of batches.

    Parameters
    ----------
    plan, processing_id
        Of the processing.
    parameters
        Of each node, as JSON values.
    table
        The facility's table, as frozen when the session began.
    out
        Folder of a node's files.
    threads, gpus
        CPU threads of a call, and whether there are workers with a GPU.
    """

    def __init__(
        self,
        plan: Plan,
        processing_id: int,
        parameters: Mapping[str, Mapping[str, Any]],
        table: Mapping[str, Any],
        out: Callable[[PlanNode], Path],
        threads: int,
        gpus: bool,
    ) -> None:
        self._plan = plan
        self._id = processing_id
        self._parameters = parameters
        self._table = table
        self._out = out
        self._threads = threads
        self._gpus = gpus

    def start(
        self, session: OrmSession, book: BatchBook, draft: Draft, room: int, moment: datetime
    ) -> list[Sent]:
        """Announce as many tasks as there's room for; the calls to submit."""
        if room <= 0:
            return []
        tasks = book.open if draft.open is None else draft.open
        sent: list[Sent] = []
        touched = []
        for task in tasks:
            state = task.state
            waits = state.not_before is not None and state.not_before > moment
            if state.state != TaskState.READY or waits:
                continue
            if len(sent) >= room:
                break
            call = self._call(session, task)
            touched.append(task)
            if isinstance(call, str):
                state.state, state.reason, state.finished_at = TaskState.STOPPED, call, moment
                continue
            state.state = TaskState.RUNNING
            state.started_at, state.finished_at, state.worker = moment, None, None
            sent.append(Sent(call, -1, frozenset({state.task_id}), None, moment))
        if touched:
            rows.update_tasks(session, [task.state for task in touched])
            draft.open = [task for task in tasks if task.state.is_open]
        return sent

    def _call(self, session: OrmSession, task: OpenTask) -> BatchCall | str:
        """The call; or why it can't be made."""
        node = task.node
        state, held = self._state(session, task) if node.carries_state else (None, set())
        inputs = self._inputs(session, task)
        lacking = [port for port in node.inputs if node.needs(port) and port not in inputs]
        items = self._items(session, task, held)
        wanted = set(node.inputs) - inputs.keys()
        per_item = {port for port in wanted if not self._is_whole(node.inputs[port].node)}
        for port in lacking:
            if port not in per_item:
                return f"{node.inputs[port].node} made no {node.inputs[port].port}"
        if per_item and not items:
            return "none of its members is left"
        call = NodeCall(
            node=node.name,
            step=node.step.name,
            parameters=self._parameters[node.name],
            inputs=inputs,
            needed=frozenset(),
            out=str(self._out(node)),
        )
        return BatchCall(
            batch_id=task.batch,
            item=f"batch_{task.number:04d}",
            node=call,
            items=tuple(items),
            state=state,
            gpu=self._gpus and node.resources.gpus > 0,
            threads=max(self._threads, node.resources.threads),
            memory_bytes=node.resources.memory_bytes,
            time_limit_s=node.resources.time_limit_s,
        )

    def _is_whole(self, name: str) -> bool:
        """Whether a source gives one file for the whole batch."""
        return name != EXPOSURE and self._plan[name].batched

    def _state(self, session: OrmSession, task: OpenTask) -> tuple[str | None, set[int]]:
        """What the newest batch of this node that ended well left, and the numbers of those that went into it."""
        query = (
            select(Batch.number, ResultRow.record["outputs"])
            .join(Batch, Batch.id == ResultRow.item_id)
            .where(
                ResultRow.processing_id == self._id,
                ResultRow.node == task.node.name,
                ResultRow.revision == rows.REVISION,
                ResultRow.item_type == task.node.item_type,
                ResultRow.status == "done",
                Batch.number < task.number,
            )
            .order_by(Batch.number.desc())
        )
        state: str | None = None
        held: set[int] = set()
        for number, outputs in session.execute(query):
            made = (outputs or {}).get("state")
            if state is None and made is not None:
                state = str(made["path"])
            if state is not None:
                held.add(number)
        return state, held

    def _inputs(self, session: OrmSession, task: OpenTask) -> dict[str, Artifact | Any]:
        """Files that other nodes made of a batch as a whole: of this one, or else of their newest."""
        found: dict[str, Artifact] = {}
        for port, source in task.node.inputs.items():
            if not self._is_whole(source.node):
                continue
            maker = self._plan[source.node]
            query = (
                select(ResultRow.record["outputs"])
                .join(Batch, Batch.id == ResultRow.item_id)
                .where(
                    ResultRow.processing_id == self._id,
                    ResultRow.node == maker.name,
                    ResultRow.revision == rows.REVISION,
                    ResultRow.item_type == maker.item_type,
                    ResultRow.status == "done",
                )
                .order_by(Batch.number.desc())
                .limit(1)
            )
            if maker.lane == task.lane:
                query = query.where(ResultRow.item_id == task.batch)
            outputs = session.scalars(query).first() or {}
            if source.port in outputs:
                found[port] = Artifact.model_validate(outputs[source.port])
        return found

    def _items(self, session: OrmSession, task: OpenTask, held: set[int]) -> list[BatchItem]:
        """The members with their files, by exposure number."""
        members = self._members(session, task)
        sources = {
            port: source for port, source in task.node.inputs.items() if not self._is_whole(source.node)
        }
        items: list[BatchItem] = []
        for part in rows.chunks(sorted(members)):
            made = {
                name: _outputs(session, self._id, name, part)
                for name in {source.node for source in sources.values()} - {EXPOSURE}
            }
            query = select(
                Exposure.id, Exposure.item, Exposure.path, Exposure.blake3, Exposure.details.label("details")
            ).where(Exposure.id.in_(set(part) - _rejected(session, self._id, part)))
            for row in sorted(session.execute(query), key=lambda row: row.id):
                inputs: dict[str, Artifact] = {}
                for port, source in sources.items():
                    if source.node == EXPOSURE:
                        kind = Kind.MOVIE if self._plan.item == "movie" else Kind.MICROGRAPH
                        inputs[port] = Artifact(kind=kind, path=Path(row.path), blake3=row.blake3)
                    elif source.port in made[source.node].get(row.id, {}):
                        inputs[port] = Artifact.model_validate(made[source.node][row.id][source.port])
                if not inputs or any(task.node.needs(port) and port not in inputs for port in sources):
                    continue  # it was rejected or done anew since, or nothing of it was made
                metadata = row.details | {"facility": facility_values(self._table, row.details)}
                new = members[row.id] not in held
                items.append(BatchItem(row.item, row.id, inputs, metadata, new))
        return items

    def _members(self, session: OrmSession, task: OpenTask) -> dict[int, int]:
        """Exposure -> number of the batch that it came with."""
        batch = session.get(Batch, task.batch)
        assert batch is not None  # its task is there, and rows are never deleted
        query = select(BatchMember.exposure_id, Batch.number).join(Batch, Batch.id == BatchMember.batch_id)
        if batch.mode in ("growing", "session"):
            query = query.where(
                Batch.processing_id == self._id,
                Batch.node == batch.node,
                Batch.revision == batch.revision,
                Batch.number <= batch.number,
            )
        else:
            query = query.where(Batch.id == batch.id)
        return dict(session.execute(query).all())


def _rejected(session: OrmSession, processing_id: int, exposures: Sequence[int]) -> set[int]:
    """Exposures that a gate or a person has marked since they were released."""
    query = select(Measure.exposure_id).where(
        Measure.processing_id == processing_id,
        Measure.exposure_id.in_(exposures),
        Measure.status == "rejected",
    )
    return set(session.scalars(query))


def _outputs(
    session: OrmSession, processing_id: int, node: str, exposures: Sequence[int]
) -> dict[int, Mapping[str, Any]]:
    """Files of exposures for which a node is done."""
    query = select(ResultRow.item_id, ResultRow.record["outputs"]).where(
        ResultRow.processing_id == processing_id,
        ResultRow.node == node,
        ResultRow.revision == rows.REVISION,
        ResultRow.item_type == rows.ITEM,
        ResultRow.status == "done",
        ResultRow.item_id.in_(exposures),
    )
    return {item: outputs or {} for item, outputs in session.execute(query)}
