"""What is settled before a command runs: which facility.toml workers use too, and where logs go."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from vitriflow.config import ENVIRONMENT, LogsSection, find_config, load_config, start_logging
from vitriflow.errors import VitriflowError

_SERVICES = frozenset({"up", "acquire", "process", "serve", "run"})


@contextmanager
def started(arguments: Sequence[str]) -> Iterator[None]:
    """Tell worker processes the configuration that the command names, and log as it says.

    Workers find their programs (``[programs]``) through ``$VITRIFLOW_CONFIG``, which they inherit.
    """
    named = _named(arguments)
    if named is not None:
        os.environ[ENVIRONMENT] = str(Path(named).absolute())
    service = next((word for word in arguments if not word.startswith("-")), "")
    section = _logs() if service in _SERVICES else None
    if section is None or section == LogsSection():
        yield
        return
    try:
        logs = start_logging(section, service)
    except OSError as error:
        sys.stderr.write(f"vitriflow: [logs] {error}: correct it in facility.toml; going on without\n")
        yield
        return
    try:
        yield
    finally:
        logs.stop()


def _named(arguments: Sequence[str]) -> str | None:
    """The file after ``--config`` or ``-c``."""
    for place, word in enumerate(arguments):
        if word == "--":
            return None
        if word in ("--config", "-c") and place + 1 < len(arguments):
            return arguments[place + 1]
        if word.startswith("--config="):
            return word.partition("=")[2]
    return None


def _logs() -> LogsSection | None:
    path = find_config()
    try:
        return load_config(path).logs if path is not None else None
    except VitriflowError:
        return None  # the command itself says what's wrong with it
