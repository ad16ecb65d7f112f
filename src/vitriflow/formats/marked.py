"""YAML that remembers its lines, so that an error can say where it stands."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from vitriflow.errors import BadTemplate

Place = tuple[str | int, ...]


@dataclass
class MarkedText:
    """A YAML document as plain data, with the line (from 1) of every key and item in it."""

    source: str
    data: dict[str, Any]
    lines: dict[Place, int] = field(default_factory=dict)

    def at(self, place: Sequence[str | int]) -> str:
        """``file, line N`` of a place; of the nearest thing around it when it isn't there."""
        path = tuple(place)
        while path and path not in self.lines:
            path = path[:-1]
        return f"{self.source}, line {self.lines.get(path, 1)}"


_TEMPLATE = (
    "a mapping with name, item and nodes",
    "Start from a shipped template: 'vitriflow template show single-particle'.",
)


def read_marked(text: str, source: str, wanted: tuple[str, str] = _TEMPLATE) -> MarkedText:
    """Parse YAML text whose top is a mapping.

    Parameters
    ----------
    text
        The YAML.
    source
        Name of the file, for messages.
    wanted
        What the top has to be, and what to do when it's something else.

    Raises
    ------
    BadTemplate
        When it isn't YAML, the top isn't a mapping, or a key stands twice.
    """
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise BadTemplate(
            f"{source}, line {line}",
            expected="YAML",
            found=str(error.problem or error.context),
            remedy="Correct the line, or the one before it.",
        ) from error
    except yaml.YAMLError as error:
        raise BadTemplate(source, expected="YAML text", found=str(error)) from error
    if not isinstance(node, yaml.MappingNode):
        raise BadTemplate(
            f"{source}, line 1",
            expected=wanted[0],
            found="an empty file"
            if node is None
            else f"a {'list' if isinstance(node, yaml.SequenceNode) else 'single value'}",
            remedy=wanted[1],
        )
    marked = MarkedText(source, {})
    marked.data = _convert(node, (), marked, loader)
    return marked


def _convert(node: yaml.Node, place: Place, marked: MarkedText, loader: yaml.SafeLoader) -> Any:
    marked.lines.setdefault(place, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, place, marked, loader)
    if isinstance(node, yaml.SequenceNode):
        return [_convert(item, (*place, i), marked, loader) for i, item in enumerate(node.value)]
    try:
        return loader.construct_object(node)
    except (yaml.YAMLError, ValueError) as error:
        raise BadTemplate(
            marked.at(place),
            expected="a plain value",
            found=str(getattr(node, "value", node)),
            remedy=str(error),
        ) from error


def _mapping(
    node: yaml.MappingNode, place: Place, marked: MarkedText, loader: yaml.SafeLoader
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode):
            raise BadTemplate(f"{marked.source}, line {line}", expected="a name", found="a nested key")
        key = str(key_node.value)
        if key in found:
            first = marked.lines[(*place, key)]
            raise BadTemplate(
                f"{marked.source}, line {line}: '{key}'",
                expected="each name once",
                found=f"the same name as in line {first}",
                remedy="Remove or rename one of them.",
            )
        marked.lines[(*place, key)] = line
        found[key] = _convert(value_node, (*place, key), marked, loader)
    return found
