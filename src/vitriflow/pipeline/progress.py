"""What becomes of an item's nodes as results come in. Plain data in, plain data out."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from vitriflow.catalog import TaskState
from vitriflow.pipeline.calls import FATAL
from vitriflow.pipeline.plan import EXPOSURE, Group, Plan

OPEN = frozenset({TaskState.WAITING, TaskState.READY, TaskState.RUNNING})
# An exposure is as bad as the worst of its nodes.
_WORST_FIRST = (TaskState.FAILED, TaskState.QUARANTINED, TaskState.REJECTED)


@dataclass
class NodeState:
    """One task: the columns of its row, and the files it made (None while that isn't known)."""

    task_id: int
    state: str
    attempts: int = 0
    not_before: datetime | None = None
    reason_code: str | None = None
    reason: str | None = None
    queued_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    worker: str | None = None
    outputs: Mapping[str, Any] | None = field(default=None, repr=False)

    @property
    def is_open(self) -> bool:
        """Whether it may still change."""
        return self.state in OPEN

    @property
    def alone(self) -> bool:
        """Whether it was in a call that took its worker down, so that it runs by itself now."""
        return self.attempts > 0 and self.reason_code in FATAL


def settle(plan: Plan, states: Mapping[str, NodeState], now: datetime) -> set[str]:
    """Bring the nodes that don't run up to date with what the others have made.

    A node waits until all nodes that it takes anything from have ended. It's then ready if
    everything that it can't do without was made, and at least one of its inputs; else it's stopped.

    Parameters
    ----------
    plan
        The plan.
    states
        All nodes of one item; changed in place.
    now
        Time at which a node becomes ready.

    Returns
    -------
    Names of the nodes that were changed.
    """
    changed: set[str] = set()
    for node in plan.items:
        mine = states[node.name]
        if mine.state not in (TaskState.WAITING, TaskState.READY):
            continue
        if any(states[name].is_open for name in node.producers()):
            wanted, why, code = TaskState.WAITING, mine.reason, mine.reason_code
        else:
            there = {
                port for port, source in node.inputs.items() if _is_there(states, source.node, source.port)
            }
            lacking = [port for port in node.inputs if port not in there and node.needs(port)]
            if lacking or (node.inputs and not there):
                port = lacking[0] if lacking else next(iter(node.inputs))
                wanted = TaskState.STOPPED
                why, code = _why_stopped(states, node.inputs[port].node, node.inputs[port].port)
            else:
                wanted, why, code = TaskState.READY, mine.reason, mine.reason_code
        if wanted != mine.state:
            changed.add(node.name)
            mine.state, mine.reason, mine.reason_code = wanted, why, code
            if wanted is TaskState.READY:
                mine.queued_at = now
            if wanted is TaskState.STOPPED:
                mine.not_before = None
    return changed


def _is_there(states: Mapping[str, NodeState], node: str, port: str) -> bool:
    if node == EXPOSURE:
        return True
    maker = states[node]
    return maker.state == TaskState.DONE and port in (maker.outputs or {})


def _why_stopped(states: Mapping[str, NodeState], node: str, port: str) -> tuple[str, str | None]:
    maker = states[node]
    if maker.state == TaskState.DONE:
        return f"{node} made no {port} here", None
    verb = "was stopped" if maker.state == TaskState.STOPPED else f"ended {maker.state}"
    return f"{node} {verb}: {maker.reason}" if maker.reason else f"{node} {verb}", maker.reason_code


def needs_outputs(plan: Plan, states: Mapping[str, NodeState]) -> list[str]:
    """Nodes that are done, and whose files have to be known before open nodes can be settled."""
    wanted: list[str] = []
    for node in plan.items:
        if states[node.name].is_open:
            for name in sorted(node.producers()):
                maker = states[name]
                if maker.state == TaskState.DONE and maker.outputs is None and name not in wanted:
                    wanted.append(name)
    return wanted


def runnable(plan: Plan, group: Group, states: Mapping[str, NodeState], now: datetime) -> list[str]:
    """Nodes of the group that can run in one call now, in order.

    A ready one, and those that wait only for others of the same call. A node that was in a call
    that took its worker down runs alone.
    """
    chosen: list[str] = []
    for name in group.nodes:
        mine = states[name]
        if mine.not_before is not None and mine.not_before > now:
            continue
        if mine.state == TaskState.WAITING:
            producers = plan[name].producers()
            if any(states[p].is_open and p not in chosen for p in producers):
                continue
        elif mine.state != TaskState.READY:
            continue
        if mine.alone:
            if not chosen:
                return [name]
            continue
        chosen.append(name)
    return chosen


def exposure_status(plan: Plan, states: Mapping[str, NodeState]) -> tuple[str, str | None, str | None]:
    """Status of the item itself with its reason code and reason: open, done, or as bad as its worst node."""
    if any(state.is_open for state in states.values()):
        return "open", None, None
    for worst in _WORST_FIRST:
        for node in plan.items:
            state = states[node.name]
            if state.state == worst:
                return worst.value, state.reason_code, state.reason
    return "done", None, None


def first_states(plan: Plan) -> dict[str, str]:
    """States of the nodes of an item that has just come in."""
    return {
        node.name: TaskState.WAITING.value if node.producers() else TaskState.READY.value
        for node in plan.items
    }


def ready_groups(
    groups: Iterable[Group], states: Mapping[str, NodeState]
) -> list[tuple[int, datetime | None]]:
    """Groups that have something ready, each with the time before which it must not start."""
    found: list[tuple[int, datetime | None]] = []
    for group in groups:
        ready = [states[name] for name in group.nodes if states[name].state == TaskState.READY]
        if not ready:
            continue
        times = [state.not_before for state in ready]
        found.append((group.number, None if None in times else min(t for t in times if t is not None)))
    return found
