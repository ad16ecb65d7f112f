"""Joins what a person set with what the exposure's files say.

Precedence (metadata.md): the operator's override comes as a set parameter and wins; then the
facility's table (``metadata["facility"]``); then what files say; then the step's default. A conflict is told.
"""

import math
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from vitriflow.errors import BadParameter, ItemError, Reason
from vitriflow.steps.base import StepParameters

# How far a set value may be from the file's before it's told (relative).
_TOLERANCE = {
    "pixel_size_A": 0.02,
    "voltage_kV": 0.01,
    "dose_per_frame_e_per_A2": 0.1,
    "spherical_aberration_mm": 0.02,
    "amplitude_contrast": 0.02,
}
FILLED = frozenset(_TOLERANCE)  # parameters that an exposure's own files may fill where nobody set them
_SAYS = {"facility": "the facility's table says", "file": "the microscope's file says"}


def with_metadata(
    parameters: StepParameters, metadata: Mapping[str, Any]
) -> tuple[StepParameters, dict[str, str], list[str]]:
    """Fill parameters that nobody set from the exposure's metadata.

    Returns
    -------
    parameters, sources, conflicts
        The filled parameters; for each name where its value came from (set, facility, file or
        default); and a sentence for each value that was overruled by a different one.

    Raises
    ------
    ItemError
        When the file's value is one that the step can't use.
    """
    fields = type(parameters).model_fields
    given = parameters.model_fields_set
    sources = {name: "set" if name in given else "default" for name in fields}
    filled: dict[str, Any] = {}
    conflicts: list[str] = []
    table = metadata.get("facility") or {}
    for name, tolerance in _TOLERANCE.items():
        if name not in fields:
            continue
        said = [
            (source, float(value))
            for source, value in (("facility", table.get(name)), ("file", metadata.get(name)))
            if isinstance(value, int | float) and math.isfinite(value)
        ]
        value = getattr(parameters, name)
        if name in given and value is not None:
            used, how = value, f"{name} is set to {value:g}"
        elif said:
            sources[name], used = said.pop(0)
            filled[name] = used
            how = f"{name} is {used:g} in the facility's table"
        conflicts += [
            f"{how}, but {_SAYS[source]} {other:g}; {used:g} was used"
            for source, other in said
            if abs(used - other) > tolerance * abs(other)
        ]
    if not filled:
        return parameters, sources, conflicts
    values = parameters.model_dump(include=set(given)) | filled
    try:
        return type(parameters).model_validate(values), sources, conflicts
    except ValidationError as error:
        first = error.errors()[0]
        raise ItemError(
            Reason.METADATA_BROKEN,
            f"{'.'.join(map(str, first['loc']))} in the microscope's file",
            first["msg"],
            repr(first["input"]),
            "Set the right value with --set, or in the session's parameters.",
        ) from error


def make_parameters(step_name: str, model: type[StepParameters], values: Mapping[str, Any]) -> StepParameters:
    """Validate values for a step.

    Raises
    ------
    BadParameter
        Naming the parameter, what was expected, what was found and what is known.
    """
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"])) or "parameters"
        if first["type"] == "extra_forbidden":
            known = ", ".join(sorted(model.model_fields))
            raise BadParameter(
                f"{step_name}: parameter '{name}'", f"one of {known}", repr(name), "Check the spelling."
            ) from error
        field = model.model_fields.get(str(first["loc"][0])) if first["loc"] else None
        meaning = f"{name} is: {field.description}." if field is not None and field.description else ""
        raise BadParameter(
            f"{step_name}: parameter '{name}'",
            first["msg"].removeprefix("Input should be "),
            "nothing" if first["type"] == "missing" else repr(first["input"]),
            f"{meaning} Set it with --set {name}=VALUE.".strip(),
        ) from error
