"""Turns what came back from workers into rows: results, states, attempts, and what pages plot."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy.orm import Session as OrmSession

from vitriflow.catalog import TaskState
from vitriflow.pipeline import rows
from vitriflow.pipeline.calls import BatchCall, GroupCall, GroupReturn, failed_for_now
from vitriflow.pipeline.measures import measured
from vitriflow.pipeline.plan import Plan
from vitriflow.pipeline.progress import NodeState, exposure_status
from vitriflow.pipeline.settings import Settings


@dataclass(frozen=True)
class Sent:
    """A call that was announced in the catalog and goes to the executor."""

    call: GroupCall | BatchCall
    group: int
    tasks: frozenset[int]
    complete_at: datetime | None
    started_at: datetime


@dataclass(frozen=True)
class Outcome:
    """How a call ended: with what came back, or with the code and the words of what went wrong.

    ``held`` are nodes that failed for a reason that isn't the item's own (disk full, source
    away): they're tried again, and the attempt doesn't count.
    """

    sent: Sent
    back: GroupReturn = field(default_factory=GroupReturn)
    failure: tuple[str, str] | None = None
    held: frozenset[str] = frozenset()


class Recorder:
    """What one turn has learned about calls that ended, until it's written."""

    def __init__(self, plan: Plan, settings: Settings, processing_id: int, moment: datetime) -> None:
        self.plan = plan
        self.settings = settings
        self.processing_id = processing_id
        self.moment = moment
        self.touched: dict[int, set[str]] = {}
        self.results: list[tuple[int, str, Mapping[str, Any]]] = []
        self.records: dict[tuple[int, str], Mapping[str, Any]] = {}  # the same, by exposure and node
        self.attempts: list[dict[str, Any]] = []

    def take(self, outcome: Outcome, states: Mapping[str, NodeState]) -> None:
        """Put what came back into the states of one exposure."""
        exposure = outcome.sent.call.item_id
        for call in outcome.sent.call.nodes:
            state = states[call.node]
            if state.state != TaskState.RUNNING or state.task_id not in outcome.sent.tasks:
                continue  # recorded before: the commit went through without our learning of it
            self.touched.setdefault(exposure, set()).add(call.node)
            record = outcome.back.records.get(call.node)
            if outcome.failure is not None:
                record = failed_record(self.plan, call.node, *outcome.failure)
            if record is None:
                state.state = TaskState.WAITING
                state.started_at = None
            elif call.node in outcome.held:
                state.state, state.not_before = TaskState.WAITING, None
                state.reason_code, state.reason = record["reason_code"], record["reason"]
            elif failed_for_now(record) and (attempt := again(self.settings, self.moment, state, record)):
                self.attempts.append(attempt)
                state.state = TaskState.WAITING
            else:
                self.finish(exposure, call.node, state, record, outcome.back.worker)

    def finish(
        self, exposure: int, node: str, state: NodeState, record: Mapping[str, Any], worker: str = ""
    ) -> None:
        """Take a record that stands."""
        finish_state(state, record, worker, self.moment)
        self.touched.setdefault(exposure, set()).add(node)
        self.results.append((exposure, node, record))
        self.records[exposure, node] = record

    def write(
        self,
        session: OrmSession,
        states: rows.States,
        complete: Mapping[int, datetime | None],
        change: int,
    ) -> None:
        """Write everything."""
        rows.insert_results(session, self.processing_id, self.results, self.moment)
        rows.insert_attempts(session, self.attempts)
        rows.update_tasks(
            session, [states[exposure][name] for exposure, names in self.touched.items() for name in names]
        )
        columns: dict[int, dict[str, Any]] = {}
        for exposure, names in self.touched.items():
            if not names:
                continue
            status, code, reason = exposure_status(self.plan, states[exposure])
            mine = columns[exposure] = {
                "change": change,
                "status": status,
                "reason_code": code,
                "reason": reason,
            }
            if status != "open":
                mine["finished_at"] = self.moment
                if exposure in complete:
                    since = complete[exposure]
                    mine["latency_s"] = (self.moment - since).total_seconds() if since else None
        for exposure, _, record in self.results:
            columns[exposure].update(measured(record))
        rows.update_measures(
            session, self.processing_id, columns, self.moment, {e for e, _, _ in self.results}
        )


def failed_record(plan: Plan, node: str, code: str, reason: str) -> Mapping[str, Any]:
    """The record of a node that couldn't make one itself."""
    planned = plan[node]
    record = planned.step.Record(step=planned.step.name, status="failed", reason_code=code, reason=reason)
    values: Mapping[str, Any] = record.model_dump(mode="json")
    return values


def again(
    settings: Settings, moment: datetime, state: NodeState, record: Mapping[str, Any]
) -> dict[str, Any] | None:
    """The attempt with its reason, when a failed task is to be tried again; None when it's over."""
    code, reason = str(record["reason_code"]), str(record["reason"])
    state.reason_code, state.reason = code, reason
    if state.attempts + 1 >= settings.max_attempts:
        return None
    state.attempts += 1
    wait = settings.backoff_s * 4 ** (state.attempts - 1)
    state.not_before = moment + timedelta(seconds=min(wait, settings.longest_backoff_s))
    return {
        "task_id": state.task_id,
        "number": state.attempts,
        "reason_code": code,
        "reason": reason,
        "started_at": state.started_at,
        "ended_at": moment,
    }


def finish_state(state: NodeState, record: Mapping[str, Any], worker: str, moment: datetime) -> None:
    """Put a record that stands into the state of its task."""
    state.state = str(record["status"])
    state.attempts += 1
    state.not_before = None
    state.reason_code, state.reason = record.get("reason_code"), record.get("reason")
    state.worker = worker or None
    how = record.get("provenance") or {}
    state.started_at = _time(how.get("started_at")) or state.started_at
    state.finished_at = _time(how.get("finished_at")) or moment
    state.outputs = record.get("outputs") or {}


def _time(text: Any) -> datetime | None:
    return datetime.fromisoformat(text) if isinstance(text, str) else None
