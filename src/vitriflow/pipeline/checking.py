"""Checks a template as a typed graph, and makes the plan of it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from vitriflow.errors import BadParameter, BadTemplate
from vitriflow.pipeline.plan import EXPOSURE, PREVIEWS, SESSION_LANE, Plan, PlanNode, Source, ordered
from vitriflow.pipeline.template import Template
from vitriflow.pipeline.wording import listed, nearest
from vitriflow.steps import (
    JudgedStep,
    Kind,
    Port,
    Scope,
    Step,
    StepParameters,
    Trigger,
    find_step,
    step_names,
)

_FIRST_JOB = 2  # job001 is RELION's import
_SOURCES = {"movie": Kind.MOVIE, "micrograph": Kind.MICROGRAPH}


def make_plan(
    template: Template,
    parameters: Mapping[str, Any] | None = None,
    jobs: Mapping[str, int] | None = None,
) -> Plan:
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
    jobs
        Job numbers of nodes that were restarted: their files lie in another folder than the first time.

    Raises
    ------
    BadTemplate
        For an unknown step or port, kinds that don't fit, a loop, a missing input, a parameter that
        is unknown or that no node uses, a bad value; names file and line, and what would be right.
    BadParameter
        The same for a value given here.
    """
    plan = _Checker(template.filled({}), dict(parameters or {})).plan()
    if not jobs:
        return plan
    nodes = (replace(node, job=jobs.get(node.name, node.job)) for node in plan.nodes)
    return replace(plan, nodes=tuple(nodes))


class _Checker:
    """One check of one template. Errors carry the line of what is wrong."""

    def __init__(self, template: Template, given: dict[str, Any]) -> None:
        self.written = template.written
        self.marks = template.marks
        self.given = given
        self.defaults = {
            name: prompt.default
            for name, prompt in self.written.prompts.items()
            if prompt.default is not None
        }
        self.used: set[tuple[str, str]] = set()  # (where, name) of values that act somewhere

    def plan(self) -> Plan:
        steps = {name: self._step(name) for name in self.written.nodes}
        self._check_prompts(steps)
        sources = {name: self._inputs(name, steps) for name in steps}
        self._refuse_loops(sources)
        values = {name: self._values(name, step) for name, step in steps.items()}
        self._refuse_unused(steps)  # first: a misspelt name explains a missing value
        parameters = {name: self._validated(name, step, *values[name]) for name, step in steps.items()}
        nodes = [
            PlanNode(
                name,
                step,
                parameters[name],
                sources[name],
                step.resources(parameters[name]),
                None,
                self._lane(name, steps, sources),
            )
            for name, step in steps.items()
        ]
        self._check_signals(nodes)
        return Plan(self.written.name, self.written.item, tuple(_numbered(ordered(nodes))))

    def _error(self, place: Sequence[str], what: str, expected: str, found: str, remedy: str) -> BadTemplate:
        return BadTemplate(f"{self.marks.at(place)}: {what}", expected, found, remedy)

    def _step(self, name: str) -> Step[Any, Any]:
        wanted = self.written.nodes[name].step
        place = ("nodes", name, "step")
        try:
            step = find_step(wanted)
        except BadParameter as error:
            raise self._error(
                place, f"step of node '{name}'", error.expected, repr(wanted), nearest(wanted, step_names())
            ) from error
        if step.scope is Scope.TILT_SERIES:
            raise self._error(
                place,
                f"step of node '{name}'",
                "a step that works on exposures, batches or the session",
                f"{wanted}, which works on a {step.scope.value}",
                "Use another step.",
            )
        return step

    def _lane(
        self, name: str, steps: Mapping[str, Step[Any, Any]], sources: Mapping[str, Mapping[str, Source]]
    ) -> str | None:
        """What releases the batches of a node; None for one that works on exposures."""
        if steps[name].scope is Scope.SESSION:
            return SESSION_LANE
        if steps[name].scope is not Scope.BATCH:
            return None
        lanes: dict[str, str] = {}
        for source in sources[name].values():
            found = source.node if isinstance(steps[source.node], Trigger) else None
            found = found or self._lane(source.node, steps, sources)
            lanes.setdefault(str(found), f"{source.node}.{source.port}")
        if len(lanes) > 1:
            raise self._error(
                ("nodes", name),
                f"node '{name}'",
                "inputs that one trigger releases together",
                " and ".join(f"{text} (of {lane})" for lane, text in lanes.items()),
                "Lead all of them through the same trigger.",
            )
        return next(iter(lanes))

    def _check_signals(self, nodes: Sequence[PlanNode]) -> None:
        """A trigger that waits for a signal names a node that there is."""
        names = [node.name for node in nodes]
        for node in nodes:
            wanted = getattr(node.parameters, "stop_on", None)
            if node.triggers and wanted is not None and (wanted not in names or wanted == node.name):
                others = [name for name in names if name != node.name]
                raise self._error(
                    ("nodes", node.name, "set", "stop_on"),
                    f"parameter 'stop_on' of node '{node.name}'",
                    f"the name of another node: {listed(others)}",
                    repr(wanted),
                    nearest(wanted, others),
                )

    def _offered(self, name: str, steps: Mapping[str, Step[Any, Any]]) -> Mapping[str, Port]:
        """Ports that a node can hand something on from: of a judged one, those that something goes in by."""
        step = steps[name]
        if isinstance(step, JudgedStep):
            return {p: face for p, face in step.outputs.items() if p in self.written.nodes[name].inputs}
        return step.outputs

    def _reach(self, name: str, node: str, steps: Mapping[str, Step[Any, Any]]) -> tuple[str, str] | None:
        """Why a node can't take anything from another one, and the remedy; None when it can."""
        scope = steps[name].scope
        source = None if node == EXPOSURE else steps[node]
        released = source is not None and (isinstance(source, Trigger) or source.scope is Scope.BATCH)
        batched = released or (source is not None and source.scope is Scope.SESSION)
        if scope is Scope.EXPOSURE and batched:
            return "a node that works on exposures", "A step that works on one exposure can't use a batch."
        if scope is Scope.BATCH and not released:
            return "a trigger, or a step that works on its batches", "Put a trigger between them."
        if scope is Scope.SESSION and isinstance(source, Trigger):
            return "a node without a trigger between", "It's run when all is there: leave the trigger out."
        return None

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
                for out, face in self._offered(other, steps).items()
                if face.kind == ports[port].kind and other != name and self._reach(name, other, steps) is None
            ]
            if _SOURCES[self.written.item] == ports[port].kind and steps[name].scope is not Scope.BATCH:
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
            raise self._error(place, what, f"one of {listed(ports)}", repr(port), nearest(port, ports))
        node, _, out = text.partition(".")
        offered: Mapping[str, Port]
        if node == EXPOSURE:
            kind = _SOURCES[self.written.item]
            offered = {self.written.item: Port(kind, "what the microscope wrote")}
        elif node in steps and node != name:
            offered = self._offered(node, steps)
        else:
            others = [EXPOSURE, *(other for other in steps if other != name)]
            raise self._error(
                place, what, f"one of {listed(others)} and a port", repr(text), nearest(node, others)
            )
        unfit = self._reach(name, node, steps)
        if unfit is not None:
            raise self._error(place, what, unfit[0], f"'{text}'", unfit[1])
        if out not in offered:
            raise self._error(
                place,
                what,
                f"{node}.PORT with PORT one of {listed(offered)}",
                repr(text),
                nearest(out, offered),
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
                ("prompts", f"{name}.{field}", self.defaults),
                ("prompts", field, self.defaults),
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
                    f"a parameter of {step.name}: {listed(fields)}",
                    repr(key),
                    nearest(key, fields),
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
        place: tuple[str, ...] = ("nodes", name, "set", field) if where == "set" else ("parameters", field)
        if where == "prompts":
            key = f"{name}.{field}" if f"{name}.{field}" in self.defaults else field
            place = ("prompts", key, "default")
        if where is None:
            place = ("nodes", name)
        given = f"Give it with --set {field}=VALUE, in facility.toml, or here in the template."
        remedy = given if where is None else "Correct the value."
        return self._error(place, what, expected, found, remedy)

    def _check_prompts(self, steps: Mapping[str, Step[Any, Any]]) -> None:
        """Every question sets something, and its own default is an answer."""
        known = [field for step in steps.values() for field in step.Parameters.model_fields]
        known += [f"{name}.{field}" for name, step in steps.items() for field in step.Parameters.model_fields]
        for key, prompt in self.written.prompts.items():
            if key not in known:
                raise self._error(
                    ("prompts", key),
                    f"prompt '{key}'",
                    "a parameter of a step, or node.parameter",
                    "a question that sets nothing",
                    nearest(key, known),
                )
            if prompt.default is not None:
                try:
                    prompt.read(key, prompt.default)
                except BadParameter as error:
                    place = ("prompts", key, "default")
                    raise self._error(
                        place, f"default of prompt '{key}'", error.expected, error.found, "Correct it."
                    ) from error

    def _refuse_unused(self, steps: Mapping[str, Step[Any, Any]]) -> None:
        known = sorted({field for step in steps.values() for field in step.Parameters.model_fields})
        for key in self.written.parameters:
            overridden = ("given", key) in self.used
            if ("parameters", key) not in self.used and not overridden:
                raise self._error(
                    ("parameters", key),
                    f"parameter '{key}'",
                    f"one that a node uses: {listed(known)}",
                    f"a value that acts nowhere{self._fixed(key)}",
                    nearest(key, known),
                )
        for key in self.given:
            if ("given", key) not in self.used:
                raise BadParameter(
                    f"parameter '{key}' for template '{self.written.name}'",
                    expected=f"one that a node uses: {listed(known)}",
                    found=f"a value that acts nowhere{self._fixed(key)}",
                    remedy=nearest(key, known),
                )

    def _fixed(self, key: str) -> str:
        nodes = [name for name, node in self.written.nodes.items() if key in node.set]
        return f" (fixed by 'set' in {listed(nodes)})" if nodes else ""


def _numbered(nodes: Iterable[PlanNode]) -> Iterable[PlanNode]:
    """Give RELION job numbers in the order of the plan; previews take none."""
    number = _FIRST_JOB
    for node in nodes:
        if node.step.folder == PREVIEWS or node.judged:
            yield node
        else:
            yield replace(node, job=number)
            number += 1


def _loop(left: Mapping[str, Mapping[str, Source]]) -> list[str]:
    """One loop among nodes that all wait for each other."""
    path = [next(iter(left))]
    while True:
        following = next(source.node for source in left[path[-1]].values() if source.node in left)
        if following in path:
            return path[path.index(following) :]
        path.append(following)
