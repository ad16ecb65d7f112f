"""Outside programs as steps: MotionCor, RELION, CTFFIND, Gctf, DoG Picker, Topaz, and those of YAML files."""

from vitriflow.steps.programs.base import Job, ProgramBatchStep, ProgramParameters, ProgramStep
from vitriflow.steps.programs.folder import broken_files, described_names
from vitriflow.steps.programs.tools import Tool, find_tool, settings_of

__all__ = [
    "Job",
    "ProgramBatchStep",
    "ProgramParameters",
    "ProgramStep",
    "Tool",
    "broken_files",
    "described_names",
    "find_tool",
    "settings_of",
]
