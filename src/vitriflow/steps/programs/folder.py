"""Finds the programs that YAML files describe: those shipped, and those of the facility's folder."""

import os
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from vitriflow.errors import BadTemplate, VitriflowError
from vitriflow.steps.base import Step
from vitriflow.steps.programs.described import Described, in_folder, shipped
from vitriflow.steps.programs.tools import programs_section

State = tuple[tuple[str, int, int], ...]


@cache
def _shipped() -> dict[str, Described]:
    return shipped()


def _folder() -> tuple[dict[str, Described], dict[str, BadTemplate]]:
    """What the facility's folder holds now; read again only when a file in it has changed."""
    try:
        folder = programs_section().folder
    except VitriflowError:
        return {}, {}  # a broken facility.toml is told by whoever reads it for more than this
    if folder is None:
        return {}, {}
    try:
        state = tuple(
            sorted(
                (entry.name, entry.stat().st_mtime_ns, entry.stat().st_size) for entry in os.scandir(folder)
            )
        )
    except OSError as error:
        why = BadTemplate(
            str(folder), "a folder of YAML programs", error.strerror or str(error), "See [programs]."
        )
        return {}, {str(folder): why}
    return _read(str(folder), state)


@lru_cache(maxsize=8)
def _read(folder: str, _state: State) -> tuple[dict[str, Described], dict[str, BadTemplate]]:
    return in_folder(Path(folder))


def _all() -> dict[str, Described]:
    return {**_shipped(), **_folder()[0]}


def described_names() -> list[str]:
    """Names of all described steps, and of files that can't be read."""
    return sorted(_all())


def broken_files() -> dict[str, BadTemplate]:
    """What's wrong with files of the facility's folder, by file name."""
    return _folder()[1]


def described_step(name: str) -> Step[Any, Any] | None:
    """The step that a YAML file describes under this name; None where none does.

    Raises
    ------
    BadTemplate
        When no file describes it, and one that can't be read may.
    """
    found = _all().get(name)
    if found is not None:
        return _made(found.description.model_dump_json(), name)
    for path, error in broken_files().items():
        if name.rpartition(".")[2] in path or name.replace(".", "_") in path:
            raise error
    return None


@lru_cache(maxsize=64)
def _made(description: str, _name: str) -> Step[Any, Any]:
    from vitriflow.steps.programs.described import Description
    from vitriflow.steps.programs.described_step import make_step

    return make_step(Description.model_validate_json(description))
