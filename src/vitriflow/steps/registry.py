"""Steps by name, found through the entry points ``vitriflow.steps``."""

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
    """Names of all installed steps, sorted."""
    return sorted(_points())


@cache
def find_step(name: str) -> Step[Any, Any]:
    """The step of that name.

    Raises
    ------
    BadParameter
        When no installed package offers it.
    """
    point = _points().get(name)
    if point is None:
        raise BadParameter(
            f"step '{name}'",
            expected="one of " + ", ".join(step_names()),
            found=repr(name),
            remedy="Run 'vitriflow step list' to see what is installed.",
        )
    step: Step[Any, Any] = point.load()()
    return step
