"""Chooses what a new session needs and nobody named: template, session name, parameters."""

import hashlib
from collections.abc import Mapping
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any, get_args

from vitriflow.acquisition import FileKind, SourceLostError, look, recognise
from vitriflow.config import Config, MicroscopeSection
from vitriflow.errors import BadFile, BadParameter
from vitriflow.formats import State, check_complete
from vitriflow.pipeline import Template
from vitriflow.steps import find_step
from vitriflow.storage import safe_name

MOVIES = "single-particle"
MICROGRAPHS = "micrographs"
_PEEK = 20


def choose_template(named: str, source: Path) -> str:
    """The template to use: the one named, or for ``auto`` the one that fits what is in the folder.

    A folder whose images all have a single frame holds ready micrographs; any other, and an
    empty one, is taken for movies.
    """
    if named != "auto":
        return named
    singles = 0
    try:
        candidates = (file for file in look(source) if recognise(file.key).kind == FileKind.MOVIE)
        for file in islice(candidates, _PEEK):
            try:
                structure = check_complete(file.path)
            except (BadFile, OSError):
                continue
            if structure.state == State.COMPLETE and structure.n_frames == 1:
                singles += 1
            elif structure.n_frames and structure.n_frames > 1:
                return MOVIES
    except SourceLostError:
        return MOVIES
    return MICROGRAPHS if singles else MOVIES


def choose_session_key(source: Path, when: datetime) -> str:
    """A session name that a person recognises and no other folder gets: date, folder, mark of its path."""
    mark = hashlib.sha256(str(source).encode("utf-8", "surrogateescape")).hexdigest()[:4]
    return f"{when:%Y%m%d}-{safe_name(source.name)[:60]}-{mark}"


def choose_microscope(config: Config, named: str | None) -> tuple[str, MicroscopeSection]:
    """The microscope that was named, else the only one configured, else a plain ``tem1``.

    Raises
    ------
    BadParameter
        When the name isn't configured, or several are and none was named.
    """
    known = config.microscopes
    if named is None:
        if len(known) > 1:
            raise BadParameter(
                "--microscope",
                "one of " + ", ".join(known),
                "nothing",
                "Say which microscope wrote this folder.",
            )
        named = next(iter(known), "tem1")
    if known and named not in known:
        raise BadParameter(
            f"microscope '{named}'",
            "one of " + ", ".join(known),
            repr(named),
            "Add it to facility.toml: [microscopes." + named + "]",
        )
    return named, known.get(named, MicroscopeSection())


def join_parameters(
    template: Template, scope: MicroscopeSection, configured: Mapping[str, Any], given: Mapping[str, Any]
) -> dict[str, Any]:
    """Parameters of a processing, later ones winning: microscope, configuration, command line.

    What is fixed about a microscope is only passed on where a step uses it; anything that a
    person asked for stays in, so that one that no step uses is an error. Files named on the
    command line are below the folder it was typed in, wherever a later run is started from.
    """
    used = {
        name: field.annotation
        for node in template.written.nodes.values()
        for name, field in find_step(node.step).Parameters.model_fields.items()
    }
    fixed = {
        name: str(value) if isinstance(value, Path) else value
        for name, value in scope.step_parameters().items()
        if name in used
    }
    asked = {
        name: str(Path(value).expanduser().absolute())
        if isinstance(value, str) and Path in (used.get(name), *get_args(used.get(name)))
        else value
        for name, value in given.items()
    }
    return fixed | dict(configured) | asked
