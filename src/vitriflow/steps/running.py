"""Runs one step on one item and always comes back with a record: done, quarantined or failed."""

import os
import resource
import socket
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import vitriflow
from vitriflow.errors import ItemError, Reason
from vitriflow.steps.base import BatchItem, BatchStep, Context, Step, StepParameters
from vitriflow.steps.precedence import with_metadata
from vitriflow.steps.records import Artifact, Kind, Provenance, Result, Status

_PROC_STATUS = Path("/proc/self/status")
_PROC_CLEAR = Path("/proc/self/clear_refs")


def _reset_peak() -> None:
    """Start the kernel's count of peak resident memory anew (Linux: proc(5), clear_refs)."""
    try:
        _PROC_CLEAR.write_text("5")
    except OSError:
        return  # not allowed here: the peak is then the process's own, which is never too low


def _peak_memory_bytes() -> int:
    """Peak resident memory of this process since the last reset."""
    try:
        for line in _PROC_STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def run_step(
    step: Step[Any, Any],
    inputs: Mapping[str, Artifact],
    parameters: StepParameters,
    context: Context,
) -> Result:
    """Run a step on one item and return its record, with times, memory and provenance filled in.

    An ``ItemError`` becomes a quarantined record, a full disk or lost file too; any other
    exception becomes a failed one, its traceback in the log. Nothing is raised, so that one
    item never stops the others.
    """

    def work(filled: StepParameters) -> Result:
        record: Result = step.run(inputs, filled, context)
        return record

    return _run(step, work, inputs, parameters, context)


def run_batch_step(
    step: BatchStep[Any, Any],
    items: Sequence[BatchItem],
    inputs: Mapping[str, Artifact],
    state: Path | None,
    parameters: StepParameters,
    context: Context,
) -> Result:
    """Run a batch step on one batch and return its record, as :func:`run_step` does for one item.

    Its provenance holds the inputs of the batch as a whole and the state that it began from; the
    members stand in the catalog.
    """

    def work(filled: StepParameters) -> Result:
        record: Result = step.run_batch(items, inputs, state, filled, context)
        return record

    known = dict(inputs)
    if state is not None:
        known["state"] = Artifact(kind=Kind.STATE, path=state)
    return _run(step, work, known, parameters, context)


def _run(
    step: Step[Any, Any],
    work: Callable[[StepParameters], Result],
    inputs: Mapping[str, Artifact],
    parameters: StepParameters,
    context: Context,
) -> Result:
    _reset_peak()
    started = datetime.now(UTC)
    clock = time.monotonic()
    context.log = []
    sources: dict[str, str] = {}
    conflicts: list[str] = []
    try:
        parameters, sources, conflicts = with_metadata(parameters, context.metadata)
        record = work(parameters)
    except ItemError as error:
        record = step.Record(status=Status.QUARANTINED, reason_code=str(error.reason), reason=str(error))
    except MemoryError as error:
        record = step.Record(
            status=Status.FAILED, reason_code=str(Reason.OUT_OF_MEMORY), reason=f"out of memory: {error}"
        )
    except OSError as error:
        code = Reason.DISK_FULL if error.errno in (28, 122) else Reason.UNREADABLE
        context.say(traceback.format_exc())
        record = step.Record(status=Status.FAILED, reason_code=str(code), reason=str(error))
    except Exception as error:
        context.say(traceback.format_exc())
        record = step.Record(
            status=Status.FAILED,
            reason_code=str(Reason.STEP_ERROR),
            reason=f"{step.name} stopped with {type(error).__name__}: {error}",
        )
    record.step = step.name
    record.warnings = conflicts + record.warnings
    record.seconds = round(time.monotonic() - clock, 4)
    record.peak_memory_bytes = _peak_memory_bytes()
    record.provenance = Provenance(
        step=step.name,
        step_version=step.version,
        vitriflow_version=vitriflow.__version__,
        parameters=parameters.model_dump(mode="json"),
        parameter_sources=sources,
        inputs=dict(inputs),
        host=socket.gethostname(),
        device=context.device,
        process_id=os.getpid(),
        started_at=started.isoformat(),
        finished_at=datetime.now(UTC).isoformat(),
        peak_memory_bytes=record.peak_memory_bytes,
        log=list(context.log),
    )
    return record
