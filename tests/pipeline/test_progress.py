"""Whatever comes back, in whatever order: states settle, and everything that came in ends."""

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from vitriflow.catalog import TaskState
from vitriflow.pipeline.checking import make_plan
from vitriflow.pipeline.plan import Plan
from vitriflow.pipeline.progress import (
    OPEN,
    NodeState,
    exposure_status,
    first_states,
    ready_groups,
    runnable,
    settle,
)
from vitriflow.pipeline.ready import ReadyQueue
from vitriflow.pipeline.template import parse_template

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@st.composite
def plans(draw: Any) -> Plan:
    """Small random graphs: each node takes one or two things from nodes before it."""
    lines = ["name: any", "nodes:"]
    number = draw(st.integers(1, 6))
    for i in range(number):
        inputs = {}
        if i == 0 or draw(st.booleans()):
            inputs["movie"] = "exposure.movie"
        if i and (not inputs or draw(st.booleans())):
            inputs["micrograph"] = f"n{draw(st.integers(0, i - 1))}.micrograph"
        if i and draw(st.booleans()):
            inputs["ctf"] = f"n{draw(st.integers(0, i - 1))}.ctf"
        step = "play.needy" if "micrograph" in inputs and draw(st.booleans()) else "play.any"
        gpu = draw(st.integers(0, 1))
        wired = ", ".join(f"{port}: {source}" for port, source in inputs.items())
        lines.append(f"  n{i}: {{step: {step}, inputs: {{{wired}}}, set: {{gpus: {gpu}}}}}")
    return make_plan(parse_template("\n".join(lines), "any"))


@settings(max_examples=200, deadline=None)
@given(plans(), st.booleans(), st.data())
def test_any_order_of_any_ends_brings_every_node_to_an_end(plan: Plan, gpus: bool, data: Any) -> None:
    groups = plan.groups(gpus)
    assert sorted(name for g in groups for name in g.nodes) == sorted(node.name for node in plan.nodes)
    states = {name: NodeState(i, state) for i, (name, state) in enumerate(first_states(plan).items())}
    for _ in range(100):
        settle(plan, states, NOW)
        if not any(state.is_open for state in states.values()):
            break
        work = ready_groups(groups, states)
        assert work, "something is open, nothing runs, and nothing can start"
        group = groups[data.draw(st.sampled_from(work))[0]]
        names = runnable(plan, group, states, NOW)
        assert names, "a group was called ready and has nothing to run"
        for name in names:
            state = states[name]
            if any(states[p].is_open for p in plan[name].producers()):
                continue  # what it needs, in this call, is to be tried again
            available = {
                port
                for port, source in plan[name].inputs.items()
                if source.node == "exposure" or source.port in (states[source.node].outputs or {})
            }
            if not available or any(plan[name].needs(p) and p not in available for p in plan[name].inputs):
                continue
            end = data.draw(st.sampled_from(["done", "failed", "quarantined", "rejected", "again"]))
            if end == "again" and state.attempts < 2:
                state.attempts += 1
                state.state, state.reason_code = TaskState.WAITING, "worker.died"
            else:
                state.state = "failed" if end == "again" else end
                state.outputs = {"micrograph": {}, "ctf": {}} if end == "done" else {}
    assert all(state.state not in OPEN for state in states.values())
    for node in plan.nodes:
        refused = [
            port for port, source in node.inputs.items()
            if source.node != "exposure" and node.needs(port) and states[source.node].state != "done"
        ]  # fmt: skip
        if refused:
            assert states[node.name].state == "stopped"
    ends = {state.state for state in states.values()} - {"stopped"}
    worst = next((bad for bad in ("failed", "quarantined", "rejected") if bad in ends), "done")
    assert exposure_status(plan, states)[0] == worst


def test_a_node_that_may_have_taken_a_worker_down_runs_alone() -> None:
    text = """
name: chain
nodes:
  a: {step: play.any, inputs: {movie: exposure.movie}}
  b: {step: play.any, inputs: {micrograph: a.micrograph}}
"""
    plan = make_plan(parse_template(text, "t"))
    (group,) = plan.groups(gpus=False)
    fresh = {name: NodeState(i, state) for i, (name, state) in enumerate(first_states(plan).items())}
    assert runnable(plan, group, fresh, NOW) == ["a", "b"]
    for state in fresh.values():
        state.attempts, state.reason_code = 1, "worker.died"
    assert runnable(plan, group, fresh, NOW) == ["a"]
    fresh["a"].not_before = NOW + timedelta(seconds=1)
    assert runnable(plan, group, fresh, NOW) == []


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(0, 2)), max_size=60), st.integers(0, 5))
def test_everything_in_the_queue_comes_out_once(work: list[tuple[int, int]], share: int) -> None:
    queue = ReadyQueue(share)
    for piece in work:
        queue.add(piece)
    taken = []
    while (piece := queue.take()) is not None:
        taken.append(piece)
    assert sorted(taken) == sorted(set(work))


def test_under_a_steady_stream_of_new_work_the_oldest_still_comes_out() -> None:
    queue = ReadyQueue(share=4)
    for i in range(20):
        queue.add((i, 0))
    taken = set()
    for i in range(100, 180):
        queue.add((i, 0))
        taken.add(queue.take())
    assert {(i, 0) for i in range(20)} <= taken


def test_delayed_work_comes_out_when_its_time_has_come() -> None:
    queue = ReadyQueue()
    queue.add((1, 0), NOW + timedelta(seconds=5))
    queue.wake(NOW)
    assert queue.take() is None
    assert queue.next_time() == NOW + timedelta(seconds=5)
    queue.wake(NOW + timedelta(seconds=5))
    assert queue.take() == (1, 0)
    assert queue.delayed == 0
