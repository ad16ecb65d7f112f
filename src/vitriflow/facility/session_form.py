"""The form of a session: made from the same typed models that the pipeline uses, so no field is ever ignored.

First stand the imaging parameters (:class:`vitriflow.elogbook.ImagingParameters`); after them, as
"advanced", each parameter of the template's steps that those don't cover.
"""

import types
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from vitriflow.elogbook import ImagingParameters
from vitriflow.elogbook.imaging import DERIVED
from vitriflow.errors import BadParameter
from vitriflow.pipeline import Template, make_plan
from vitriflow.steps import find_step

Kind = Literal["number", "integer", "boolean", "choice", "text", "file"]


@dataclass(frozen=True)
class FormField:
    """One question, with all that a page or a command line needs to ask it.

    ``default`` is the value as it would be if nobody answered; ``acts`` says what the answer does
    (see :mod:`vitriflow.elogbook.imaging`); ``nodes`` names the nodes that read it.
    """

    name: str
    title: str
    help: str
    group: str
    kind: Kind
    unit: str
    default: Any
    choices: tuple[str, ...] | None
    least: float | None
    least_is_allowed: bool
    most: float | None
    most_is_allowed: bool
    required: bool
    acts: str
    advanced: bool
    nodes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class SessionSettings:
    """A form that was filled in: what was said, and what it means for the pipeline."""

    imaging: ImagingParameters
    advanced: Mapping[str, Any]

    def step_parameters(self) -> dict[str, Any]:
        """Values for the template's steps; what was asked for by a step's own name wins."""
        return self.imaging.step_parameters() | dict(self.advanced)

    def record(self) -> dict[str, Any]:
        """What is stored with the sample or the session: only what was said."""
        return self.imaging.said() | dict(self.advanced)


def form_fields(template: Template) -> list[FormField]:
    """All questions for sessions that a template will process, in the order to ask them."""
    users = readers(template)
    asked = [
        _field(name, info, _readers(users, name), advanced=False, needed=_is_needed(template, name))
        for name, info in ImagingParameters.model_fields.items()
        if not _is_idle(users, name)
    ]
    known = set(ImagingParameters.model_fields)
    more = []
    for node, text in template.written.nodes.items():
        for name, info in find_step(text.step).Parameters.model_fields.items():
            if name not in known and name not in _COVERED:
                known.add(name)
                more.append(_field(name, info, users[name], advanced=True, group=f"Advanced: {node}"))
    return asked + more


def read_form(template: Template, answers: Mapping[str, Any]) -> SessionSettings:
    """Check answers (texts of a form, or typed values) and turn them into settings.

    Raises
    ------
    BadForm
        Naming every field that's wrong, what was expected, and what was found.
    """
    answers = {name: value for name, value in answers.items() if not _is_empty(value)}
    asked = {name: value for name, value in answers.items() if name in ImagingParameters.model_fields}
    rest = {name: value for name, value in answers.items() if name not in asked}
    steps = readers(template)
    wrong: dict[str, str] = {
        name: f"a field that {template.name} has; no step of it reads this one"
        for name in answers
        if (name in rest and (name not in steps or name in _COVERED)) or _is_idle(steps, name)
    }
    imaging = ImagingParameters()
    try:
        imaging = ImagingParameters.model_validate(asked)
    except ValidationError as error:
        wrong |= _problems(error)
    advanced = _read_advanced(template, {n: v for n, v in rest.items() if n not in wrong}, wrong)
    if wrong:
        raise BadForm(wrong)
    return SessionSettings(imaging, advanced)


def read_changes(template: Template, answers: Mapping[str, Any]) -> dict[str, Any]:
    """Values of steps that answers ask for: of a processing that's to differ from another one in them.

    Other than a form of a session, which sends its defaults too, every value here was meant: one that's a
    default, or switches something off, counts. Names are those of the form, of a step's parameter, or
    ``node.parameter`` for one node alone.

    Raises
    ------
    BadForm
        Naming every field that's wrong, or that no step would read.
    """
    answers = {name: value for name, value in answers.items() if not _is_empty(value)}
    steps = readers(template)
    wrong: dict[str, str] = {}
    asked: dict[str, Any] = {}
    rest: dict[str, Any] = {}
    for name, value in answers.items():
        node, dot, field = name.partition(".")
        if name in ImagingParameters.model_fields:
            asked[name] = value
            if not _readers(steps, name):
                wrong[name] = (
                    f"something that a step of {template.name} reads; a processing can't change this"
                )
        elif name in steps or (dot and node in steps.get(field, ())):
            rest[name] = value
        else:
            near = get_close_matches(name, [*steps, *ImagingParameters.model_fields], n=1)
            meant = f" (did you mean {near[0]}?)" if near else ""
            wrong[name] = f"a field that {template.name} has; no step of it reads this one{meant}"
    imaging = ImagingParameters()
    try:
        imaging = ImagingParameters.model_validate(asked)
    except ValidationError as error:
        wrong |= _problems(error)
    values = _read_advanced(template, {n: v for n, v in rest.items() if n not in wrong}, wrong, keep=True)
    if wrong:
        raise BadForm(wrong)
    said = imaging.step_parameters()
    off = {_OFF[name][0]: _OFF[name][1] for name in asked if name in _OFF and not getattr(imaging, name)}
    idle = [name for name in asked if DERIVED.get(name, name) not in said | off]
    if idle:  # a total dose without a number of frames
        raise BadForm(
            {name: f"{DERIVED.get(name, name)} instead: by itself this acts on nothing" for name in idle}
        )
    return said | off | values


# What the operator's own words mean for steps when they say no
_OFF: Mapping[str, tuple[str, Any]] = {
    "phase_plate": ("fit_phase_shift", False),
    "super_resolution": ("bin_factor", 1.0),
    "frames_thrown_away": ("first_frame", 1),
}


class BadForm(BadParameter):
    """A form with wrong answers. ``problems``: field -> what is wrong with it; "" for the form as a whole."""

    def __init__(self, problems: Mapping[str, str]) -> None:
        self.problems = dict(problems)
        name, text = next(iter(self.problems.items()))
        more = len(self.problems) - 1
        remedy = f"{more} more field{'s' if more > 1 else ''} to correct." if more else "Correct it."
        super().__init__(f"field '{name}'" if name else "the form", text, "", remedy)


def prune(template: Template, imaging: ImagingParameters) -> Template:
    """The template as this session needs it: without picking, when picking is off.

    Nodes that would have read what a pruned node makes are left out with it.
    """
    if imaging.picking:
        return template
    return _without(template, lambda step: step.startswith("pick."))


def _without(template: Template, unwanted: Any) -> Template:
    import yaml

    from vitriflow.pipeline import parse_template

    nodes = template.written.nodes
    gone = {name for name, node in nodes.items() if unwanted(node.step)}
    while more := {
        name
        for name, node in nodes.items()
        if name not in gone and any(source.split(".")[0] in gone for source in node.inputs.values())
    }:
        gone |= more
    if not gone:
        return template
    data = yaml.safe_load(template.text)
    data["nodes"] = {name: node for name, node in data["nodes"].items() if name not in gone}
    pruned = parse_template(yaml.safe_dump(data, sort_keys=False, allow_unicode=True), template.name)
    used = readers(pruned)
    data["parameters"] = {k: v for k, v in data.get("parameters", {}).items() if k in used}
    return parse_template(yaml.safe_dump(data, sort_keys=False, allow_unicode=True), template.name)


def parameters_for(template: Template, settings: SessionSettings) -> dict[str, Any]:
    """The part of the settings that this template's steps read, checked by the plan.

    Only what a pruned node would have read is left out; :func:`read_form` refuses what no step of
    the whole template reads.

    Raises
    ------
    BadTemplate, BadParameter
        When the plan refuses a value.
    """
    users = readers(template)
    values = {name: value for name, value in settings.step_parameters().items() if name in users}
    make_plan(template, values)
    return values


_COVERED = set(DERIVED.values()) - set(ImagingParameters.model_fields)  # asked in the operator's own words


def _readers(users: Mapping[str, tuple[str, ...]], name: str) -> tuple[str, ...]:
    return users.get(DERIVED.get(name, name), ())


def _is_idle(users: Mapping[str, tuple[str, ...]], name: str) -> bool:
    """Whether an imaging parameter is for steps, and no step of the template reads it."""
    info = ImagingParameters.model_fields.get(name)
    extra = info.json_schema_extra if info is not None else None
    acts = extra.get("acts") if isinstance(extra, dict) else None
    return acts == "pipeline" and not _readers(users, name)


def readers(template: Template) -> dict[str, tuple[str, ...]]:
    """Names of all parameters of a template's steps, each with the nodes that read it."""
    users: dict[str, tuple[str, ...]] = {}
    for node, text in template.written.nodes.items():
        for name in find_step(text.step).Parameters.model_fields:
            users[name] = (*users.get(name, ()), node)
    return users


def _read_advanced(
    template: Template, given: Mapping[str, Any], wrong: dict[str, str], *, keep: bool = False
) -> dict[str, Any]:
    """Values by the steps' own names; with ``keep`` those too that are the default."""
    good: dict[str, Any] = {}
    for name, value in given.items():
        only, dot, field = name.rpartition(".")
        for node, text in template.written.nodes.items():
            model = find_step(text.step).Parameters
            if field not in model.model_fields or (dot and node != only):
                continue
            info = model.model_fields[field]
            try:
                typed = _typed(info, value)
            except ValidationError as error:
                wrong.setdefault(name, next(iter(_problems(error, name).values())))
                continue
            if keep or info.is_required() or typed != info.default:  # a form sends its defaults too
                good[name] = typed
    return good


def _typed(info: FieldInfo, value: Any) -> Any:
    """One value checked as a field of a model, whatever the other fields need."""
    for choice in get_args(info.annotation) if get_origin(info.annotation) is Literal else ():
        if isinstance(value, str) and str(choice) == value.strip():
            value = choice  # forms send numbers as text
    kind: Any = Annotated[info.annotation, info]  # with the field's limits
    checked: Any = TypeAdapter(kind).validate_python(value)
    return str(checked) if isinstance(checked, Path) else checked


def _problems(error: ValidationError, field: str = "") -> dict[str, str]:
    found: dict[str, str] = {}
    for one in error.errors():
        name = field or (str(one["loc"][0]) if one["loc"] else "")
        text = one["msg"].removeprefix("Value error, ").replace("Input should be", "should be")
        shown = f", not {one['input']!r}" if name and not isinstance(one["input"], dict) else ""
        found.setdefault(name, f"{text}{shown}")
    return found


def _is_empty(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def _is_needed(template: Template, name: str) -> bool:
    """Whether a step of the template can't run without this value."""
    models = [find_step(node.step).Parameters.model_fields for node in template.written.nodes.values()]
    return any(name in fields and fields[name].is_required() for fields in models)


def _field(
    name: str,
    info: FieldInfo,
    nodes: tuple[str, ...],
    *,
    advanced: bool,
    needed: bool = False,
    group: str | None = None,
) -> FormField:
    extra = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
    kind, choices = _kind(info.annotation)
    bounds = {type(limit): limit for limit in info.metadata}
    least, most = bounds.get(Ge) or bounds.get(Gt), bounds.get(Le) or bounds.get(Lt)
    default = None if info.is_required() else info.default
    return FormField(
        name=name,
        title=info.title or name.replace("_", " "),
        help=info.description or "",
        group=group or str(extra.get("group", "Advanced")),
        kind=kind,
        unit=str(extra.get("unit", "")),
        default=str(default) if isinstance(default, Path) else default,
        choices=choices,
        least=getattr(least, "ge", getattr(least, "gt", None)),
        least_is_allowed=not isinstance(least, Gt),
        most=getattr(most, "le", getattr(most, "lt", None)),
        most_is_allowed=not isinstance(most, Lt),
        required=needed or info.is_required(),
        acts=str(extra.get("acts", "pipeline")),
        advanced=advanced,
        nodes=nodes,
    )


def _kind(annotation: Any) -> tuple[Kind, tuple[str, ...] | None]:
    if get_origin(annotation) in (Union, types.UnionType):
        annotation = next(part for part in get_args(annotation) if part is not type(None))
    if get_origin(annotation) is Literal:
        return "choice", tuple(str(value) for value in get_args(annotation))
    kinds: dict[Any, Kind] = {bool: "boolean", int: "integer", float: "number", Path: "file"}
    return kinds.get(annotation, "text"), None
