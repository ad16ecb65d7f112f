"""A plan: a template whose graph, ports and parameters were checked, ready to run."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from vitriflow.errors import BadParameter, BadTemplate
from vitriflow.pipeline.template import Template
from vitriflow.steps import Kind, Port, Resources, Scope, Step, StepParameters, find_step, step_names

EXPOSURE = "exposure"
PREVIEWS = "previews"
_FIRST_JOB = 2  # job001 is RELION's import
_SOURCES = {"movie": Kind.MOVIE, "micrograph": Kind.MICROGRAPH}


@dataclass(frozen=True)
class Source:
    """Where an input comes from: an output port of a node, or of the exposure itself."""

    node: str
    port: str


@dataclass(frozen=True)
class PlanNode:
    """One node, checked. ``job`` is None for nodes that write previews."""

    name: str
    step: Step[Any, Any]
    parameters: StepParameters
    inputs: Mapping[str, Source]
    resources: Resources
    job: int | None

    @property
    def folder(self) -> str:
        """Folder of its files below the processing's root (or ``previews``)."""
        return PREVIEWS if self.job is None else f"{self.step.folder}/job{self.job:03d}"

    def needs(self, port: str) -> bool:
        """Whether it can't run without this input."""
        return not self.step.inputs[port].optional

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

    def groups(self, gpus: bool) -> tuple[Group, ...]:
        """Cut the plan into calls.

        Parameters
        ----------
        gpus
            Whether there are workers with a GPU; without, all nodes run on the same resource.
        """
        ordered = _order(self.nodes, lambda node: gpus and node.resources.gpus > 0)
        groups: list[Group] = []
        for node in ordered:
            gpu = gpus and node.resources.gpus > 0
            if groups and groups[-1].gpu == gpu:
                last = groups.pop()
                groups.append(Group(last.number, (*last.nodes, node.name), gpu))
            else:
                groups.append(Group(len(groups), (node.name,), gpu))
        return tuple(groups)


def make_plan(template: Template, parameters: Mapping[str, Any] | None = None) -> Plan:
    """Check a template as a typed graph and give every node its parameters.

    A value under ``parameters`` of the template goes to every node whose step has a parameter of
    that name; one given here (by a person, for this processing) goes before it. A node's own
    ``set`` goes before both. ``node.parameter`` names one node's parameter and goes before all.

    Parameters
    ----------
    template
        From :func:`load_template`.
    parameters
        Values given for this processing, by name or by ``node.name``.

    Raises
    ------
    BadTemplate
        For an unknown step or port, kinds that don't fit, a loop, a missing input, a parameter that
        is unknown or that no node uses, a bad value; names file and line, and what would be right.
    BadParameter
        The same for a value given here.
    """
    return _Checker(template, dict(parameters or {})).plan()


class _Checker:
    """One check of one template. Errors carry the line of what is wrong."""

    def __init__(self, template: Template, given: dict[str, Any]) -> None:
        self.written = template.written
        self.marks = template.marks
        self.given = given
        self.used: set[tuple[str, str]] = set()  # (where, name) of values that act somewhere

    def plan(self) -> Plan:
        steps = {name: self._step(name) for name in self.written.nodes}
        sources = {name: self._inputs(name, steps) for name in steps}
        self._refuse_loops(sources)
        values = {name: self._values(name, step) for name, step in steps.items()}
        self._refuse_unused(steps)  # first: a misspelt name explains a missing value
        parameters = {name: self._validated(name, step, *values[name]) for name, step in steps.items()}
        nodes = [
            PlanNode(name, step, parameters[name], sources[name], step.resources(parameters[name]), None)
            for name, step in steps.items()
        ]
        return Plan(self.written.name, self.written.item, tuple(_numbered(_order(nodes))))

    def _error(self, place: Sequence[str], what: str, expected: str, found: str, remedy: str) -> BadTemplate:
        return BadTemplate(f"{self.marks.at(place)}: {what}", expected, found, remedy)

    def _step(self, name: str) -> Step[Any, Any]:
        wanted = self.written.nodes[name].step
        place = ("nodes", name, "step")
        try:
            step = find_step(wanted)
        except BadParameter as error:
            raise self._error(
                place, f"step of node '{name}'", error.expected, repr(wanted), _nearest(wanted, step_names())
            ) from error
        if step.scope is not Scope.EXPOSURE:
            raise self._error(
                place,
                f"step of node '{name}'",
                "a step that works on one exposure",
                f"{wanted}, which works on a {step.scope.value}",
                "Use a step of scope exposure.",
            )
        return step

    def _inputs(self, name: str, steps: Mapping[str, Step[Any, Any]]) -> dict[str, Source]:
        ports = steps[name].inputs
        written = self.written.nodes[name].inputs
        sources = {port: self._source(name, port, text, steps) for port, text in written.items()}
        missing = [port for port, face in ports.items() if not face.optional and port not in written]
        if missing or (ports and not written):
            port = missing[0] if missing else next(iter(ports))
            candidates = [
                f"{other}.{out}"
                for other, step in steps.items()
                for out, face in step.outputs.items()
                if face.kind == ports[port].kind and other != name
            ]
            if _SOURCES[self.written.item] == ports[port].kind:
                candidates.insert(0, f"{EXPOSURE}.{self.written.item}")
            raise self._error(
                ("nodes", name),
                f"node '{name}'",
                f"input '{port}' ({ports[port].kind.value}: {ports[port].doc})",
                "nothing wired to it",
                f"Write inputs: {{{port}: {' or '.join(candidates) or 'NODE.PORT'}}}.",
            )
        return sources

    def _source(self, name: str, port: str, text: str, steps: Mapping[str, Step[Any, Any]]) -> Source:
        place = ("nodes", name, "inputs", port)
        ports = steps[name].inputs
        what = f"input '{port}' of node '{name}'"
        if port not in ports:
            raise self._error(place, what, f"one of {_listed(ports)}", repr(port), _nearest(port, ports))
        node, _, out = text.partition(".")
        offered: Mapping[str, Port]
        if node == EXPOSURE:
            kind = _SOURCES[self.written.item]
            offered = {self.written.item: Port(kind, "what the microscope wrote")}
        elif node in steps and node != name:
            offered = steps[node].outputs
        else:
            others = [EXPOSURE, *(other for other in steps if other != name)]
            raise self._error(
                place, what, f"one of {_listed(others)} and a port", repr(text), _nearest(node, others)
            )
        if out not in offered:
            raise self._error(
                place,
                what,
                f"{node}.PORT with PORT one of {_listed(offered)}",
                repr(text),
                _nearest(out, offered),
            )
        if offered[out].kind != ports[port].kind:
            fits = [f"{node}.{other}" for other, face in offered.items() if face.kind == ports[port].kind]
            raise self._error(
                place,
                what,
                f"a {ports[port].kind.value}",
                f"{text}, a {offered[out].kind.value}",
                f"Use {' or '.join(fits)}."
                if fits
                else f"Take it from a node that makes a {ports[port].kind.value}.",
            )
        return Source(node, out)

    def _refuse_loops(self, sources: Mapping[str, Mapping[str, Source]]) -> None:
        left = dict(sources)
        while True:
            free = [
                name
                for name, inputs in left.items()
                if all(source.node not in left for source in inputs.values())
            ]
            if not free:
                break
            for name in free:
                del left[name]
        if left:
            loop = _loop(left)
            raise self._error(
                ("nodes", loop[0]),
                "nodes",
                "a graph without loops",
                " <- ".join([*loop, loop[0]]),
                "Cut one of these inputs.",
            )

    def _values(self, name: str, step: Step[Any, Any]) -> tuple[dict[str, Any], dict[str, str]]:
        """What is set for a node, and where each value stands."""
        fields = step.Parameters.model_fields
        own = self.written.nodes[name].set
        values: dict[str, Any] = {}
        origin: dict[str, str] = {}
        for field in fields:
            for where, key, offered in (
                ("given", f"{name}.{field}", self.given),
                ("set", field, own),
                ("given", field, self.given),
                ("parameters", field, self.written.parameters),
            ):
                if key in offered:
                    values[field] = offered[key]
                    origin[field] = where
                    self.used.add((where, key))
                    break
        for key in own:
            if key not in fields:
                raise self._error(
                    ("nodes", name, "set", key),
                    f"parameter '{key}' of node '{name}'",
                    f"a parameter of {step.name}: {_listed(fields)}",
                    repr(key),
                    _nearest(key, fields),
                )
        return values, origin

    def _validated(
        self, name: str, step: Step[Any, Any], values: dict[str, Any], origin: Mapping[str, str]
    ) -> StepParameters:
        try:
            checked: StepParameters = step.Parameters.model_validate(values)
        except ValidationError as error:
            raise self._bad_value(name, step, error, origin) from error
        return checked

    def _bad_value(
        self, name: str, step: Step[Any, Any], error: ValidationError, origin: Mapping[str, str]
    ) -> BadTemplate | BadParameter:
        first = error.errors()[0]
        field = str(first["loc"][0]) if first["loc"] else ""
        doc = (step.Parameters.model_fields[field].description or "") if field else ""
        what = f"parameter '{field}' of node '{name}' ({step.name})"
        missing = first["type"] == "missing"
        said = "a value" if missing else first["msg"].removeprefix("Input should be ")
        expected = said + (f" ({doc})" if doc else "")
        found = "nothing" if missing else repr(first["input"])
        where = origin.get(field)
        if where == "given":
            return BadParameter(what, expected, found, "Give another value.")
        place = ("nodes", name, "set", field) if where == "set" else ("parameters", field)
        if where is None:
            place = ("nodes", name)
        given = f"Give it with --set {field}=VALUE, in facility.toml, or here in the template."
        remedy = given if where is None else "Correct the value."
        return self._error(place, what, expected, found, remedy)

    def _refuse_unused(self, steps: Mapping[str, Step[Any, Any]]) -> None:
        known = sorted({field for step in steps.values() for field in step.Parameters.model_fields})
        for key in self.written.parameters:
            overridden = ("given", key) in self.used
            if ("parameters", key) not in self.used and not overridden:
                raise self._error(
                    ("parameters", key),
                    f"parameter '{key}'",
                    f"one that a node uses: {_listed(known)}",
                    f"a value that acts nowhere{self._fixed(key)}",
                    _nearest(key, known),
                )
        for key in self.given:
            if ("given", key) not in self.used:
                raise BadParameter(
                    f"parameter '{key}' for template '{self.written.name}'",
                    expected=f"one that a node uses: {_listed(known)}",
                    found=f"a value that acts nowhere{self._fixed(key)}",
                    remedy=_nearest(key, known),
                )

    def _fixed(self, key: str) -> str:
        nodes = [name for name, node in self.written.nodes.items() if key in node.set]
        return f" (fixed by 'set' in {_listed(nodes)})" if nodes else ""


def _order(nodes: Iterable[PlanNode], kind: Any = None) -> list[PlanNode]:
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


def _numbered(nodes: Iterable[PlanNode]) -> Iterable[PlanNode]:
    """Give RELION job numbers in the order of the plan; previews take none."""
    number = _FIRST_JOB
    for node in nodes:
        if node.step.folder == PREVIEWS:
            yield node
        else:
            yield PlanNode(node.name, node.step, node.parameters, node.inputs, node.resources, number)
            number += 1


def _loop(left: Mapping[str, Mapping[str, Source]]) -> list[str]:
    """One loop among nodes that all wait for each other."""
    path = [next(iter(left))]
    while True:
        following = next(source.node for source in left[path[-1]].values() if source.node in left)
        if following in path:
            return path[path.index(following) :]
        path.append(following)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"


def _nearest(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"Did you mean '{near[0]}'?" if near else "Correct or remove it."
