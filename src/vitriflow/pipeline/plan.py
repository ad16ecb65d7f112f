"""A plan: a template whose graph, ports and parameters were checked (checking.py), ready to run."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from vitriflow.steps import (
    JudgedStep,
    Resources,
    Scope,
    Step,
    StepParameters,
    Trigger,
)

EXPOSURE = "exposure"
PREVIEWS = "previews"
SESSION_LANE = "@session"  # all steps of scope session work on the same batches


@dataclass(frozen=True)
class Source:
    """Where an input comes from: an output port of a node, or of the exposure itself."""

    node: str
    port: str


@dataclass(frozen=True)
class PlanNode:
    """One node, checked. ``job`` is None for nodes that write previews, and for those that write nothing.

    ``lane`` is the trigger whose batches it works on; ``SESSION_LANE`` for a step of scope session.
    """

    name: str
    step: Step[Any, Any]
    parameters: StepParameters
    inputs: Mapping[str, Source]
    resources: Resources
    job: int | None
    lane: str | None = None

    @property
    def judged(self) -> bool:
        """Whether the coordinator judges it from stored results, without a worker."""
        return isinstance(self.step, JudgedStep)

    @property
    def triggers(self) -> bool:
        """Whether it releases batches."""
        return isinstance(self.step, Trigger)

    @property
    def batched(self) -> bool:
        """Whether its items are batches."""
        return self.step.scope in (Scope.BATCH, Scope.SESSION)

    @property
    def item_type(self) -> str:
        """Item type of its tasks and results."""
        return self.step.scope.value

    @property
    def carries_state(self) -> bool:
        """Whether each batch goes on from where the one before stopped."""
        return self.batched and "state" in self.step.outputs

    @property
    def folder(self) -> str:
        """Folder of its files below the processing's root (or ``previews``)."""
        return PREVIEWS if self.job is None else f"{self.step.folder}/job{self.job:03d}"

    def needs(self, port: str) -> bool:
        """Whether it can't run without this input. What is judged needs all that is wired to it."""
        return self.judged or not self.step.inputs[port].optional

    def producers(self) -> set[str]:
        """Names of the nodes that its inputs come from."""
        return {source.node for source in self.inputs.values() if source.node != EXPOSURE}


@dataclass(frozen=True)
class Group:
    """Consecutive nodes on the same resource: they run as one call in one worker."""

    number: int
    nodes: tuple[str, ...]
    gpu: bool


@dataclass(frozen=True)
class Plan:
    """A checked pipeline. ``nodes`` stand in an order in which each comes after what it needs."""

    template: str
    item: str
    nodes: tuple[PlanNode, ...]

    def __getitem__(self, name: str) -> PlanNode:
        """The node of that name."""
        return next(node for node in self.nodes if node.name == name)

    @cached_property
    def items(self) -> tuple[PlanNode, ...]:
        """The nodes that work on one exposure."""
        return tuple(node for node in self.nodes if not node.batched)

    @cached_property
    def judged(self) -> tuple[PlanNode, ...]:
        """The nodes that the coordinator judges itself."""
        return tuple(node for node in self.nodes if node.judged)

    @cached_property
    def lanes(self) -> Mapping[str, tuple[PlanNode, ...]]:
        """The nodes that work on batches, by what releases them."""
        found: dict[str, list[PlanNode]] = {node.name: [] for node in self.nodes if node.triggers}
        for node in self.nodes:
            if node.lane is not None:
                found.setdefault(node.lane, []).append(node)
        return {lane: tuple(nodes) for lane, nodes in found.items()}

    def downstream(self, names: Iterable[str]) -> set[str]:
        """These nodes, and all that take anything from them, directly or not."""
        found = set(names)
        for node in self.nodes:  # each stands after what it needs
            if node.producers() & found or (node.lane in found):
                found.add(node.name)
        return found

    def groups(self, gpus: bool) -> tuple[Group, ...]:
        """Cut the plan into calls.

        Parameters
        ----------
        gpus
            Whether there are workers with a GPU; without, all nodes run on the same resource.
        """
        line = ordered(self.items, lambda node: gpus and node.resources.gpus > 0)
        groups: list[Group] = []
        for node in line:
            if node.judged:
                continue
            gpu = gpus and node.resources.gpus > 0
            if groups and groups[-1].gpu == gpu:
                last = groups.pop()
                groups.append(Group(last.number, (*last.nodes, node.name), gpu))
            else:
                groups.append(Group(len(groups), (node.name,), gpu))
        return tuple(groups)


def ordered(nodes: Iterable[PlanNode], kind: Any = None) -> list[PlanNode]:
    """Nodes after what they need; as written otherwise, or with nodes of a kind together."""
    left = {node.name: node for node in nodes}
    done: list[PlanNode] = []
    while left:
        free = [node for node in left.values() if not node.producers() & left.keys()]
        alike = [node for node in free if kind and done and kind(node) == kind(done[-1])]
        chosen = (alike or free)[0]
        done.append(chosen)
        del left[chosen.name]
    return done
