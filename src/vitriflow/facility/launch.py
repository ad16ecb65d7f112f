"""Templates of a facility: its own beside the shipped ones, with what it knows filled in."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import select

from vitriflow.catalog import Catalog, Experiment, Sample
from vitriflow.config import Config, MicroscopeSection
from vitriflow.errors import BadParameter, BadTemplate
from vitriflow.pipeline import (
    Template,
    load_template,
    make_plan,
    parse_template,
    read_answers,
    template_names,
)

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}")
_NAME_LINE = re.compile(r"^name:.*$", re.MULTILINE)
_MISSING = re.compile(r"parameter '(\w+)' of node")


def library(config: Config) -> Path:
    """Folder of the facility's own templates, which all its people share."""
    return config.storage.root / "templates"


def known_templates(config: Config) -> dict[str, str]:
    """Names of all templates, each with where it's from: shipped, or the path of its file."""
    own = {path.stem: str(path) for path in sorted(library(config).glob("*.yaml"))}
    return dict.fromkeys(template_names(), "shipped") | own


def find_template(config: Config, name: str | Path) -> Template:
    """A template by the name of a shipped one or of the facility's own, or by the path of a file.

    Raises
    ------
    BadTemplate
        When there's none, or it can't be read.
    """
    own = library(config) / f"{name}.yaml"
    if _NAME.fullmatch(str(name)) and str(name) not in template_names() and own.is_file():
        return load_template(own)
    return load_template(name)


def import_template(config: Config, path: Path, name: str | None = None) -> Path:
    """Put a template into the facility's library, checked; the file it's in then.

    Raises
    ------
    BadTemplate
        When it isn't sound.
    BadParameter
        When its name is taken.
    """
    template = load_template(path)
    if name is not None:
        template = renamed(template, name)
    missing_answers(template, {})
    if template.name in known_templates(config):
        taken = known_templates(config)[template.name]
        raise BadParameter(
            f"template '{template.name}'",
            "a name that isn't taken",
            taken,
            "Give it another one with --name.",
        )
    folder = library(config)
    folder.mkdir(parents=True, exist_ok=True)
    to = folder / f"{template.name}.yaml"
    temporary = to.with_name(f".{to.name}.new")
    temporary.write_text(template.text, "utf-8")
    temporary.replace(to)
    return to


def renamed(template: Template, name: str) -> Template:
    """The same template under another name."""
    if not _NAME.fullmatch(name):
        raise BadParameter("name of the template", "lower-case letters, digits, - and _", repr(name)[:80])
    text = _NAME_LINE.sub(f"name: {name}", template.text, count=1)
    return parse_template(text, template.marks.source)


def missing_answers(template: Template, answers: Mapping[str, Any]) -> list[str]:
    """Check a template; names of parameters that have to be given at launch and weren't.

    Raises
    ------
    BadTemplate, BadParameter
        When something else is wrong with it.
    """
    values = dict(answers)
    asked = {name: prompt for name, prompt in template.written.prompts.items() if name not in values}
    open_ones = [name for name, prompt in asked.items() if prompt.default is None and not prompt.optional]
    try:
        make_plan(template, values)
    except BadTemplate as error:
        # Steps, wires, loops and names were checked before the first value that nobody gave.
        missing = _MISSING.search(error.thing)
        if missing is None or error.found != "nothing":
            raise
        return open_ones or [missing[1]]
    return open_ones


def scopes_of(
    config: Config, catalog: Catalog, microscope: str, scope: MicroscopeSection, experiment: str, sample: str
) -> dict[str, dict[str, Any]]:
    """What a template's variables stand for, at this facility, microscope and sample."""
    query = (
        select(Sample.settings)
        .join(Experiment, Experiment.id == Sample.experiment_id)
        .where(Experiment.name == experiment, Sample.name == sample)
    )
    known = catalog.read(lambda orm: orm.scalars(query).first()) or {}
    camera = next(iter(scope.cameras.values()), None)
    return {
        "facility": {"name": config.facility.name},
        "microscope": {"name": microscope, **_plain(scope.model_dump(mode="json"))},
        "camera": _plain(camera.model_dump(mode="json")) if camera is not None else {},
        "sample": {"name": sample, **_plain(known)},
    }


def launch_values(template: Template, answers: Mapping[str, Any]) -> dict[str, Any]:
    """What was answered to a template's questions, as values for its steps.

    Raises
    ------
    BadParameter
        For a wrong answer, or a missing one.
    """
    return read_answers(template.written.prompts, answers)


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value
        for name, value in values.items()
        if isinstance(value, str | int | float) and not isinstance(value, bool)
    }
