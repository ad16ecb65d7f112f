"""Templates: pipelines written down as YAML, by name (shipped) or by path."""

from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vitriflow.errors import BadTemplate
from vitriflow.formats.marked import MarkedText, read_marked
from vitriflow.pipeline.prompts import Prompt, Scopes, fill


class NodeText(BaseModel):
    """One node as written: the step it runs, where its inputs come from, its own parameters."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    step: str
    inputs: dict[str, str] = Field(default_factory=dict, description="input port: source.port")
    set: dict[str, Any] = Field(default_factory=dict, description="parameters of this node only")


class TemplateText(BaseModel):
    """A template as written."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z][a-z0-9_-]{0,63}$")
    title: str = ""
    item: Literal["movie", "micrograph"] = Field(default="movie", description="what an exposure brings")
    parameters: dict[str, Any] = Field(
        default_factory=dict, description="values by name, given to every node whose step has that parameter"
    )
    prompts: dict[str, Prompt] = Field(
        default_factory=dict, description="what is asked at launch: parameter, or node.parameter -> question"
    )
    nodes: dict[str, NodeText] = Field(min_length=1)


@dataclass(frozen=True)
class Template:
    """A template that was read, with its text (kept in the catalog) and the lines for messages."""

    text: str
    written: TemplateText
    marks: MarkedText

    @property
    def name(self) -> str:
        """The name that the template gives itself."""
        return self.written.name

    def filled(self, scopes: Scopes) -> "Template":
        """The template with its variables filled in (see :func:`vitriflow.pipeline.prompts.fill`).

        Raises
        ------
        BadTemplate
            When one has no value and no default.
        """
        text = fill(self.text, self.marks, scopes)
        return self if text is self.text else parse_template(text, self.marks.source)


def template_names() -> list[str]:
    """Names of the templates that come with vitriflow, sorted."""
    folder = resources.files("vitriflow.pipeline") / "templates"
    return sorted(f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml"))


def load_template(name_or_path: str | Path) -> Template:
    """Read a template by the name of a shipped one, or by the path of a file.

    Raises
    ------
    BadTemplate
        When there's no such template or it can't be read; names the file and the line.
    """
    name = str(name_or_path)
    if name in template_names():
        text = (resources.files("vitriflow.pipeline") / "templates" / f"{name}.yaml").read_text("utf-8")
        return parse_template(text, f"{name}.yaml")
    try:
        return parse_template(Path(name_or_path).read_text("utf-8"), name)
    except (OSError, UnicodeDecodeError) as error:
        raise BadTemplate(
            f"template '{name}'",
            expected="the path of a YAML file, or one of " + ", ".join(template_names()),
            found=str(error),
            remedy="Check the name.",
        ) from error


def parse_template(text: str, source: str) -> Template:
    """Read a template from its text.

    Parameters
    ----------
    text
        The YAML.
    source
        Name of the file, for messages.

    Raises
    ------
    BadTemplate
        When the text isn't a template; names the file and the line.
    """
    marks = read_marked(text, source)
    try:
        written = TemplateText.model_validate(marks.data)
    except ValidationError as error:
        raise _explained(error, marks) from error
    for name in written.nodes:
        _check_name(name, marks)
    return Template(text, written, marks)


def _check_name(name: str, marks: MarkedText) -> None:
    allowed = name.isascii() and name.isidentifier() and name[0] != "_" and len(name) <= 64
    if not allowed or name == "exposure":
        raise BadTemplate(
            f"{marks.at(('nodes', name))}: node '{name}'",
            expected="a name of letters, digits and _ that starts with a letter, at most 64 long",
            found="a name that is taken by the source of all items" if name == "exposure" else repr(name),
            remedy="Rename the node.",
        )


def _explained(error: ValidationError, marks: MarkedText) -> BadTemplate:
    first = error.errors()[0]
    place = first["loc"]
    name = ".".join(str(part) for part in place) or "template"
    expected = {
        "extra_forbidden": (
            "a key that is known (top: name, title, item, parameters, prompts, nodes; node: step, inputs, set)"
        ),
        "missing": "this key",
    }.get(first["type"], first["msg"])
    found = "nothing" if first["type"] == "missing" else repr(first["input"])
    return BadTemplate(f"{marks.at(place)}: {name}", expected, found, "Correct the template.")
