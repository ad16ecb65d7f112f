"""One unit of processing each: native, or an outside program."""

from vitriflow.steps.base import BatchItem, BatchStep, Context, Port, Resources, Scope, Step, StepParameters
from vitriflow.steps.facility_table import facility_values
from vitriflow.steps.gate import Gate, GateParameters
from vitriflow.steps.judging import JudgedStep, JudgeResult, passed_on
from vitriflow.steps.precedence import make_parameters, with_metadata
from vitriflow.steps.records import (
    Artifact,
    BatchResult,
    Class2DResult,
    ClassInfo,
    CtfConsensusResult,
    CtfResult,
    ExtractResult,
    Kind,
    MotionResult,
    PickConsensusResult,
    PickResult,
    PreviewResult,
    Provenance,
    Result,
    Status,
    Volume3DResult,
    VolumeInfo,
)
from vitriflow.steps.registry import find_step, step_names
from vitriflow.steps.running import run_batch_step, run_step
from vitriflow.steps.trigger import Trigger, TriggerParameters

__all__ = [
    "Artifact",
    "BatchItem",
    "BatchResult",
    "BatchStep",
    "Class2DResult",
    "ClassInfo",
    "Context",
    "CtfConsensusResult",
    "CtfResult",
    "ExtractResult",
    "Gate",
    "GateParameters",
    "JudgeResult",
    "JudgedStep",
    "Kind",
    "MotionResult",
    "PickConsensusResult",
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
    "Trigger",
    "TriggerParameters",
    "Volume3DResult",
    "VolumeInfo",
    "facility_values",
    "find_step",
    "make_parameters",
    "passed_on",
    "run_batch_step",
    "run_step",
    "step_names",
    "with_metadata",
]
