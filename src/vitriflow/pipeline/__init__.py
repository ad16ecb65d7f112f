"""What happens next: templates, and the engine that keeps the state of every node and item."""

from vitriflow.pipeline.calls import BatchCall, GroupCall, GroupReturn, NodeCall, Promise
from vitriflow.pipeline.changes import Touched, ask_change, ask_verdict, what_changes
from vitriflow.pipeline.checking import make_plan
from vitriflow.pipeline.coordinator import Coordinator
from vitriflow.pipeline.counts import Counts, Tally, counts
from vitriflow.pipeline.explain import CameraFile, Link, explain
from vitriflow.pipeline.plan import Group, Plan, PlanNode, Source
from vitriflow.pipeline.pool import CallStopped, LocalPool, WorkerDied, count_gpus
from vitriflow.pipeline.prompts import Prompt, read_answers, variables
from vitriflow.pipeline.settings import Settings
from vitriflow.pipeline.starting import plan_of, start_processing
from vitriflow.pipeline.template import Template, load_template, parse_template, template_names
from vitriflow.pipeline.worker import run_batch, run_group

__all__ = [
    "BatchCall",
    "CallStopped",
    "CameraFile",
    "Coordinator",
    "Counts",
    "Group",
    "GroupCall",
    "GroupReturn",
    "Link",
    "LocalPool",
    "NodeCall",
    "Plan",
    "PlanNode",
    "Promise",
    "Prompt",
    "Settings",
    "Source",
    "Tally",
    "Template",
    "Touched",
    "WorkerDied",
    "ask_change",
    "ask_verdict",
    "count_gpus",
    "counts",
    "explain",
    "load_template",
    "make_plan",
    "parse_template",
    "plan_of",
    "read_answers",
    "run_batch",
    "run_group",
    "start_processing",
    "template_names",
    "variables",
    "what_changes",
]
