"""What the doctor says of outside programs: where each is, its version, and YAML files that can't be read."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from vitriflow.config import Config
from vitriflow.errors import ProgramError, Reason
from vitriflow.facility.findings import Finding, Health
from vitriflow.steps import find_step, step_names
from vitriflow.steps.programs import Tool, broken_files, find_tool


def tools() -> dict[str, list[tuple[str, Tool]]]:
    """Steps with their programs, by the program's name in ``[programs]``."""
    found: dict[str, list[tuple[str, Tool]]] = {}
    for name in step_names():
        try:
            tool = getattr(find_step(name), "tool", None)
        except Exception:
            continue
        if isinstance(tool, Tool):
            found.setdefault(tool.name, []).append((name, tool))
    return found


def check_programs(config: Config) -> Iterator[Finding]:
    """Each program that's configured or found, its version; those that aren't there in one line."""
    said = config.programs.named
    known = tools()
    for name in said:
        if name not in known:
            yield Finding(
                f"program {name}",
                Health.NOTE,
                "no step uses a program of this name",
                f"Known in [programs]: {', '.join(sorted(known))}.",
            )
    missing = []
    with tempfile.TemporaryDirectory(prefix="vitriflow-doctor-") as scratch:
        for name, users in sorted(known.items()):
            first: dict[str, tuple[str, Tool]] = {}
            for step, tool in users:
                first.setdefault(tool.executables[0], (step, tool))
            for step, tool in first.values():
                configured = name in said
                finding = _look(config, name, step, tool, Path(scratch))
                if finding.health is Health.BAD and not configured and not _installed(tool):
                    missing.append(f"{tool.title} ({step})")
                else:
                    yield finding
    if missing:
        text = f"not installed: {', '.join(missing)}"
        yield Finding(
            "outside programs", Health.GOOD, f"{text}; none is needed unless a template names its step"
        )
    for file, error in broken_files().items():
        yield Finding(
            "YAML program",
            Health.BAD,
            f"{file}: {error}",
            "Correct it; 'vitriflow step list' shows the rest.",
        )


def _installed(tool: Tool) -> bool:
    return any(map(shutil.which, tool.executables))


def _look(config: Config, name: str, step: str, tool: Tool, scratch: Path) -> Finding:
    settings = config.programs.named.get(name)
    subject = f"program {tool.title}"
    try:
        from vitriflow.config import ProgramSection

        found = find_tool(tool, settings or ProgramSection(), scratch)
    except ProgramError as error:
        remedy = error.remedy
        if error.reason is Reason.PROGRAM_HUNG:
            remedy = "It doesn't even say its version: does it wait for a licence or a display?"
        return Finding(
            subject, Health.BAD, f"{error.thing}: expected {error.expected}, found {error.found}", remedy
        )
    version = found.version or "says its version only as it works"
    return Finding(subject, Health.GOOD, f"{found.path}, {version} (for {step})")
