"""Steps by name, found through the entry points ``vitriflow.steps``, and in YAML files of programs."""

from functools import cache
from importlib.metadata import entry_points
from typing import Any

from vitriflow.errors import BadParameter
from vitriflow.steps.base import Step

GROUP = "vitriflow.steps"


@cache
def _points() -> dict[str, Any]:
    return {point.name: point for point in entry_points(group=GROUP)}


def step_names() -> list[str]:
    """Names of all steps, installed or described in YAML, sorted."""
    from vitriflow.steps.programs.folder import described_names

    return sorted({*_points(), *described_names()})


@cache
def _installed(name: str) -> Step[Any, Any]:
    step: Step[Any, Any] = _points()[name].load()()
    return step


def find_step(name: str) -> Step[Any, Any]:
    """The step of that name: an installed one, or one that a YAML file describes.

    Raises
    ------
    BadParameter
        When nobody offers it.
    BadTemplate
        When the YAML file that describes it is wrong.
    """
    if name in _points():
        return _installed(name)
    from vitriflow.steps.programs.folder import described_step

    step = described_step(name)
    if step is None:
        raise BadParameter(
            f"step '{name}'",
            expected="one of " + ", ".join(step_names()),
            found=repr(name),
            remedy="Run 'vitriflow step list' to see what is installed.",
        )
    return step
