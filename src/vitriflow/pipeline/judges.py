"""Judged nodes: the coordinator decides them from stored results, in the transaction that records those."""

import copy
import os
import socket
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session as OrmSession

import vitriflow
from vitriflow.catalog import Exposure, ResultRow, TaskState
from vitriflow.errors import Reason
from vitriflow.pipeline import rows
from vitriflow.pipeline.measures import measured
from vitriflow.pipeline.plan import EXPOSURE, Plan, PlanNode
from vitriflow.pipeline.progress import settle
from vitriflow.pipeline.recording import Recorder
from vitriflow.steps import Artifact, JudgedStep, JudgeResult, Kind

Memory = dict[str, Any]
Told = tuple[str, str]  # severity, text
# Not results: how the run itself went.
_BESIDES = frozenset(
    {"step", "status", "reason_code", "reason", "seconds", "peak_memory_bytes", "n_frames_read"}
)


def numbers(record: Mapping[str, Any]) -> dict[str, Any]:
    """The single numbers and words of a record, with those that pages plot."""
    plain = {
        name: value
        for name, value in record.items()
        if name not in _BESIDES and isinstance(value, int | float | str)
    }
    return plain | {name: value for name, value in measured(record).items() if value is not None}


def roots(plan: Plan, node: PlanNode) -> tuple[str, ...]:
    """The nodes whose results a judged node is about: those wired to it, through other judged ones."""
    found: set[str] = set()
    for name in node.producers():
        source = plan[name]
        found.update(roots(plan, source) if source.judged else (name,))
    return tuple(other.name for other in plan.items if other.name in found)


class Bench:
    """What the judged nodes of a processing remember, as of the last transaction that went through."""

    def __init__(self, plan: Plan, processing_id: int) -> None:
        self._plan = plan
        self._id = processing_id
        self._roots = {node.name: roots(plan, node) for node in plan.judged}
        self._how = {node.name: _provenance(node) for node in plan.judged}
        self._memory: Memory = {}

    def load(self, session: OrmSession) -> None:
        """Remember what the catalog knows."""
        memory: Memory = {}
        for node in self._plan.judged:
            step: JudgedStep[Any, Any] = node.step  # type: ignore[assignment]  # judged nodes have such a step
            mine = step.fresh()
            if step.remembers != 0:
                query = (
                    select(ResultRow.id, ResultRow.record)
                    .where(
                        ResultRow.processing_id == self._id,
                        ResultRow.node == node.name,
                        ResultRow.revision == rows.REVISION,
                    )
                    .order_by(ResultRow.id.desc())
                )
                found = list(session.execute(query.limit(step.remembers)))
                for _, record in reversed(found):
                    mine = step.learn(mine, record)
            memory[node.name] = mine
        self._memory = memory

    def sitting(self, moment: datetime) -> "Sitting":
        """A copy to judge with in one transaction."""
        return Sitting(self._plan, self._id, self._roots, self._how, copy.deepcopy(self._memory), moment)

    def adopt(self, sitting: "Sitting") -> None:
        """Remember what was judged: its transaction went through."""
        self._memory = sitting.memory


class Sitting:
    """Judges in one transaction. Dropped when that doesn't go through."""

    def __init__(
        self,
        plan: Plan,
        processing_id: int,
        all_roots: Mapping[str, tuple[str, ...]],
        how: Mapping[str, dict[str, Any]],
        memory: Memory,
        moment: datetime,
    ) -> None:
        self.plan = plan
        self.memory = memory
        self.moment = moment
        self.told: list[Told] = []
        self._numbers: dict[tuple[int, str], dict[str, Any]] = {}  # read once for all gates of an exposure
        self._items: dict[int, Any] = {}
        self._id = processing_id
        self._roots = all_roots
        self._how = how

    def settle(self, session: OrmSession, states: rows.States, recorder: Recorder) -> None:
        """Bring exposures up to date with what was recorded, and judge what can be judged, until nothing moves."""
        pending: Iterable[int] = states.keys()
        while True:
            ready: list[tuple[int, PlanNode]] = []
            for exposure in pending:
                changed = settle(self.plan, states[exposure], self.moment)
                recorder.touched.setdefault(exposure, set()).update(changed)
                ready += [
                    (exposure, node)
                    for node in self.plan.judged
                    if states[exposure][node.name].state == TaskState.READY
                ]
            if not ready:
                return
            self._judge_all(session, ready, states, recorder)
            pending = sorted({exposure for exposure, _ in ready})

    def _judge_all(
        self,
        session: OrmSession,
        ready: list[tuple[int, PlanNode]],
        states: rows.States,
        recorder: Recorder,
    ) -> None:
        wanted = {
            (exposure, name)
            for exposure, node in ready
            for name in self._roots[node.name]
            if states[exposure][name].state == TaskState.DONE
            and (exposure, name) not in recorder.records
            and (exposure, name) not in self._numbers
        }
        records = rows.load_records(session, self._id, wanted) | recorder.records
        items = self._items
        items.update(_items(session, {exposure for exposure, _ in ready} - items.keys()))
        for exposure, node in sorted(ready, key=lambda pair: pair[0]):
            values: dict[str, Any] = {}
            for name in self._roots[node.name]:
                place = exposure, name
                if place not in self._numbers and states[exposure][name].state == TaskState.DONE:
                    self._numbers[place] = numbers(records[place]) if place in records else {}
                values |= self._numbers.get(place, {})
            inputs = self._inputs(node, states[exposure], items[exposure])
            record = self._judged(node, values, inputs, items[exposure].item)
            recorder.finish(exposure, node.name, states[exposure][node.name], record)

    def _inputs(self, node: PlanNode, mine: Mapping[str, Any], row: Any) -> dict[str, Any]:
        """Files that came in, as JSON values."""
        found: dict[str, Any] = {}
        for port, source in node.inputs.items():
            if source.node == EXPOSURE:
                kind = Kind.MOVIE if self.plan.item == "movie" else Kind.MICROGRAPH
                given = Artifact(kind=kind, path=Path(row.path), blake3=row.blake3)
                found[port] = given.model_dump(mode="json")
            else:
                made = (mine[source.node].outputs or {}).get(source.port)
                if made is not None and mine[source.node].state == TaskState.DONE:
                    found[port] = made
        return found

    def _judged(
        self, node: PlanNode, values: Mapping[str, Any], inputs: dict[str, Any], item: str
    ) -> dict[str, Any]:
        step: JudgedStep[Any, Any] = node.step  # type: ignore[assignment]  # judged nodes have such a step
        memory = self.memory[node.name]
        try:
            result: JudgeResult = step.judge(values, memory, node.parameters, item)
            alarm = step.alarm(memory, result, node.parameters)
        except Exception as error:
            # A facility's own step with a bug: its item fails, the coordinator doesn't.
            text = f"{step.name} stopped with {type(error).__name__}: {error}"
            result = step.Record(status="failed", reason_code=str(Reason.STEP_ERROR), reason=text)
            alarm = None
        result.step = step.name
        record: dict[str, Any] = result.model_dump(mode="json")
        record["outputs"] = inputs if record["status"] == "done" and step.hands_on(result) else {}
        when = self.moment.isoformat()
        record["provenance"] = self._how[node.name] | {
            "inputs": inputs,
            "started_at": when,
            "finished_at": when,
        }
        self.memory[node.name] = step.learn(memory, record)
        if alarm:
            self.told.append(("alarm", f"{node.name}: {alarm}"))
        return record


def _provenance(node: PlanNode) -> dict[str, Any]:
    return {
        "step": node.step.name,
        "step_version": node.step.version,
        "vitriflow_version": vitriflow.__version__,
        "parameters": node.parameters.model_dump(mode="json"),
        "host": socket.gethostname(),
        "device": "coordinator",
        "process_id": os.getpid(),
        "peak_memory_bytes": 0,
        "log": [],
    }


def _items(session: OrmSession, exposures: Iterable[int]) -> dict[int, Any]:
    found: dict[int, Any] = {}
    for part in rows.chunks(sorted(exposures)):
        query = select(Exposure.id, Exposure.item, Exposure.path, Exposure.blake3).where(
            Exposure.id.in_(part)
        )
        found.update({row.id: row for row in session.execute(query)})
    return found
