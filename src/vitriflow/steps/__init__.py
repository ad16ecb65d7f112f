"""One unit of processing each: native, or an outside program."""

from vitriflow.steps.base import BatchItem, BatchStep, Context, Port, Resources, Scope, Step, StepParameters
from vitriflow.steps.facility_table import facility_values
from vitriflow.steps.precedence import make_parameters, with_metadata
from vitriflow.steps.records import (
    Artifact,
    BatchResult,
    CtfResult,
    Kind,
    MotionResult,
    PickResult,
    PreviewResult,
    Provenance,
    Result,
    Status,
)
from vitriflow.steps.registry import find_step, step_names
from vitriflow.steps.running import run_step

__all__ = [
    "Artifact",
    "BatchItem",
    "BatchResult",
    "BatchStep",
    "Context",
    "CtfResult",
    "Kind",
    "MotionResult",
    "PickResult",
    "Port",
    "PreviewResult",
    "Provenance",
    "Resources",
    "Result",
    "Scope",
    "Status",
    "Step",
    "StepParameters",
    "facility_values",
    "find_step",
    "make_parameters",
    "run_step",
    "step_names",
    "with_metadata",
]
