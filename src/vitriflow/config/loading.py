"""Finds and reads facility.toml, with errors that name the line and the remedy."""

import os
import re
import tomllib
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

from vitriflow.config.facility import Config
from vitriflow.config.sections import Section, TierSection
from vitriflow.errors import BadConfig

ENVIRONMENT = "VITRIFLOW_CONFIG"
FILE_NAME = "facility.toml"


def find_config() -> Path | None:
    """The file that a command uses when none is named: $VITRIFLOW_CONFIG, else ./facility.toml, else none."""
    named = os.environ.get(ENVIRONMENT)
    if named:
        return Path(named)
    here = Path(FILE_NAME)
    return here if here.is_file() else None


def load_config(path: Path | None = None) -> Config:
    """Read facility.toml; without a path look for it, and without any file use the defaults.

    Relative paths in the file are below the file's own folder.

    Raises
    ------
    BadConfig
        Naming the file, the line, what was expected and what was found.
    """
    path = path or find_config()
    if path is None:
        return _anchored(Config(), Path.cwd())
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadConfig(
            str(path),
            "a readable TOML file in UTF-8",
            str(error),
            "Make one with 'vitriflow init', or name another with --config.",
        ) from error
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadConfig(
            str(path), "TOML", str(error), "Compare the line with the example that 'vitriflow init' writes."
        ) from error
    try:
        config = Config.model_validate(values)
    except ValidationError as error:
        raise _explained(path, text, error) from error
    return _anchored(config, path.parent.absolute())


_FILES = ("gain_reference", "defects")


def _anchored(config: Config, folder: Path) -> Config:
    """Relative paths are below the file's own folder."""
    storage = config.storage.model_copy(
        update={
            "root": folder / config.storage.root.expanduser(),
            "tiers": {name: _anchored_tier(tier, folder) for name, tier in config.storage.tiers.items()},
        }
    )
    parameters = {
        name: str(folder / Path(value).expanduser()) if name in _FILES and isinstance(value, str) else value
        for name, value in config.processing.parameters.items()
    }
    return config.model_copy(
        update={
            "storage": storage,
            "microscopes": {name: _below(scope, folder) for name, scope in config.microscopes.items()},
            "people": _below(config.people, folder),
            "access": _below(config.access, folder),
            "notices": _below(config.notices, folder),
            "reports": _below(config.reports, folder),
            "compute": _below(config.compute, folder),
            "programs": _below(config.programs, folder),
            "logs": _below(config.logs, folder),
            "processing": config.processing.model_copy(update={"parameters": parameters}),
        }
    )


def _below(value: Any, folder: Path) -> Any:
    """The same with every path in it below a folder."""
    if isinstance(value, Path):
        return folder / value.expanduser()
    if isinstance(value, Section):
        fields = {name: _below(getattr(value, name), folder) for name in type(value).model_fields}
        return value.model_copy(update=fields)
    if isinstance(value, dict):
        return {name: _below(inner, folder) for name, inner in value.items()}
    return tuple(_below(inner, folder) for inner in value) if isinstance(value, tuple) else value


def _anchored_tier(tier: TierSection, folder: Path) -> TierSection:
    path = (tier.model_extra or {}).get("path")
    if not isinstance(path, str):
        return tier
    return tier.model_copy(update={"path": str(folder / Path(path).expanduser())})


def _explained(path: Path, text: str, error: ValidationError) -> BadConfig:
    first = error.errors()[0]
    where = tuple(str(part) for part in first["loc"])
    line = _line_of(text, where)
    more = len(error.errors()) - 1
    thing = f"{path}, line {line}: {'.'.join(where)}" if line else f"{path}: {'.'.join(where)}"
    remedy = "Correct the value" if first["type"] != "extra_forbidden" else _suggestion(where)
    if more:
        remedy += f". {more} more problem{'s' if more > 1 else ''} in this file"
    expected = (
        "a known name"
        if first["type"] == "extra_forbidden"
        else first["msg"].removeprefix("Input should be ")
    )
    return BadConfig(thing, expected, repr(first["input"]), remedy + ".")


def _suggestion(where: tuple[str, ...]) -> str:
    model: Any = Config
    for part in where[:-1]:
        fields = getattr(model, "model_fields", None)
        # Without fields it's a table or a list of sections, and this part the name or the number of one.
        known = fields[part].annotation if fields is not None and part in fields else None
        model = _section_in(model) if fields is None else known
        if model is not None and type(None) in get_args(model):  # a section that may be left out
            model = _section_in(model)
    names = ", ".join(getattr(model, "model_fields", {}))
    return f"Known here: {names}" if names else "Remove it"


def _section_in(annotation: Any) -> Any:
    """The section that a table, a list or an optional one holds."""
    return next((one for one in get_args(annotation) if hasattr(one, "model_fields")), None)


def _line_of(text: str, where: tuple[str, ...]) -> int | None:
    """Line on which a value stands: the deepest part of ``where`` that the text shows."""
    table: tuple[str, ...] = ()
    best: tuple[int, int] | None = None
    for number, raw in enumerate(text.splitlines(), start=1):
        line = raw.strip()
        header = re.fullmatch(r"\[+\s*([^\]]+?)\s*\]+\s*(#.*)?", line)
        if header:
            table = tuple(part.strip().strip("\"'") for part in header.group(1).split("."))
            here = table
        else:
            key = re.match(r"([A-Za-z0-9_.\"'-]+)\s*=", line)
            if not key:
                continue
            here = table + tuple(part.strip("\"'") for part in key.group(1).split("."))
        if where[: len(here)] == here and (best is None or len(here) > best[0]):
            best = (len(here), number)
    return best[1] if best else None


def example_config() -> str:
    """A commented facility.toml: what ``vitriflow init`` writes. Loading it gives the defaults."""
    return Path(__file__).with_name("example.toml").read_text(encoding="utf-8")
