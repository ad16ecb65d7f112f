"""What happens inside a worker: the nodes of one call, one after the other."""

import os
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vitriflow.pipeline.calls import BatchCall, GroupCall, GroupReturn, NodeCall, Promise, failed_for_now
from vitriflow.steps import Artifact, Context, find_step, run_batch_step, run_step

DEVICE_VARIABLE = "VITRIFLOW_DEVICE"
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


def limit_threads(threads: int) -> None:
    """Hold the numeric libraries of this process to so many CPU threads.

    Those that aren't loaded yet read the environment when they are; those that are get told.
    """
    for name in _THREAD_VARIABLES:
        os.environ[name] = str(threads)
    if "torch" in sys.modules:
        torch: Any = sys.modules["torch"]
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
    if "numba" in sys.modules:
        numba: Any = sys.modules["numba"]
        numba.set_num_threads(max(1, min(threads, numba.config.NUMBA_NUM_THREADS)))


def run_group(call: GroupCall) -> GroupReturn:
    """Run the nodes of a call; what they make stays in memory for those that follow.

    A node whose needed input wasn't made is left out, and so is one that takes any input from a
    node that is to be tried again. Never raises for trouble with the item: that stands in the
    records.
    """
    limit_threads(call.threads)
    device = os.environ.get(DEVICE_VARIABLE, "cpu") if call.gpu else "cpu"
    memory: dict[Path, Any] = {}
    made: dict[str, Mapping[str, Artifact]] = {}
    records: dict[str, dict[str, Any]] = {}
    undecided: set[str] = set()
    for node in call.nodes:
        waits_for = {source.node for source in node.inputs.values() if isinstance(source, Promise)}
        if waits_for & undecided:
            undecided.add(node.node)
            continue
        inputs = _gather(node, made)
        if inputs is None:
            continue
        step = find_step(node.step)
        parameters = step.Parameters.model_validate(node.parameters)
        context = Context(
            out=Path(node.out),
            item=call.item,
            device=device,
            threads=call.threads,
            memory=memory,
            metadata=call.metadata,
        )
        result = run_step(step, inputs, parameters, context)
        record = result.model_dump(mode="json")
        records[node.node] = record
        if failed_for_now(record):
            undecided.add(node.node)
        if record["status"] == "done":
            made[node.node] = result.outputs
    return GroupReturn(records, f"{socket.gethostname()}:{os.getpid()}:{device}")


def run_batch(call: BatchCall) -> GroupReturn:
    """Run a node on a batch. Never raises for trouble with it: that stands in the record."""
    limit_threads(call.threads)
    device = os.environ.get(DEVICE_VARIABLE, "cpu") if call.gpu else "cpu"
    step: Any = find_step(call.node.step)
    context = Context(out=Path(call.node.out), item=call.item, device=device, threads=call.threads)
    inputs = {port: given for port, given in call.node.inputs.items() if isinstance(given, Artifact)}
    state = Path(call.state) if call.state else None
    parameters = step.Parameters.model_validate(call.node.parameters)
    result = run_batch_step(step, call.items, inputs, state, parameters, context)
    records = {call.node.node: result.model_dump(mode="json")}
    return GroupReturn(records, f"{socket.gethostname()}:{os.getpid()}:{device}")


def _gather(node: NodeCall, made: Mapping[str, Mapping[str, Artifact]]) -> dict[str, Artifact] | None:
    """The inputs that exist; None when it can't run without one that doesn't, or has none at all."""
    inputs: dict[str, Artifact] = {}
    for port, source in node.inputs.items():
        artifact = made.get(source.node, {}).get(source.port) if isinstance(source, Promise) else source
        if artifact is not None:
            inputs[port] = artifact
    if node.needed - inputs.keys() or (node.inputs and not inputs):
        return None
    return inputs
