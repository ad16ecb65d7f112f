"""Writes docs/reference/ from the code itself. ``make docs`` runs it; a test checks that it was run."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main
from pydantic import BaseModel

from vitriflow.acquisition.recognisers import EPU, PLAIN, SERIALEM, TEMPORARY, TOMO5
from vitriflow.cli.app import app
from vitriflow.config import (
    BurstSection,
    CameraSection,
    Config,
    LdapGroupSection,
    LdapSection,
    LimitsSection,
    MailSection,
    MicroscopeSection,
    PoolSection,
    ProjectSection,
    RouteSection,
    RuleSection,
    ShutdownSection,
    TierSection,
)
from vitriflow.elogbook.permissions import ACTIONS
from vitriflow.errors import Reason
from vitriflow.steps import find_step, step_names
from vitriflow.steps.records import Result

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "reference"
NOTE = "<!-- Written by scripts/reference.py from the code; edit the code, then run 'make docs'. -->\n"


def _cell(value: object) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")


def _type(annotation: Any) -> str:
    text = getattr(annotation, "__name__", None) if isinstance(annotation, type) else str(annotation)
    return _cell(
        (text or str(annotation)).replace("typing.", "").replace("pathlib.", "").replace("vitriflow.", "")
    )


def _fields(model: type[BaseModel], leave_out: frozenset[str] = frozenset()) -> Iterator[str]:
    yield "| name | type | default | meaning |"
    yield "| --- | --- | --- | --- |"
    for name, field in model.model_fields.items():
        if name in leave_out:
            continue
        default = "required" if field.is_required() else field.get_default(call_default_factory=True)
        meaning = _cell(field.description or "")
        yield f"| `{name}` | {_type(field.annotation)} | {_cell(default)} | {meaning} |"


def config_page() -> str:
    lines = [
        "# facility.toml",
        "",
        NOTE,
        "Every section and value may be left out. `vitriflow init` writes an example.",
    ]
    for name, field in Config.model_fields.items():
        if name == "microscopes":
            continue
        section = field.annotation
        assert isinstance(section, type)
        lines += ["", f"## [{name}]", "", (section.__doc__ or "").strip(), "", *_fields(section)]
    parts: tuple[tuple[str, type[BaseModel]], ...] = (
        ("storage.tiers.NAME", TierSection),
        ("compute.pools.NAME", PoolSection),
        ("compute.projects.NAME", ProjectSection),
        ("[compute.shutdowns]", ShutdownSection),
        ("compute.burst", BurstSection),
        ("people.ldap", LdapSection),
        ("access.ldap_group", LdapGroupSection),
        ("monitors.rules", RuleSection),
        ("notices.to.NAME", RouteSection),
        ("notices.to.NAME.mail", MailSection),
        ("microscopes.NAME", MicroscopeSection),
        ("microscopes.NAME.cameras.CAMERA", CameraSection),
        ("microscopes.NAME.limits", LimitsSection),
    )
    for title, model in parts:
        lines += ["", f"## [{title}]", "", (model.__doc__ or "").strip(), "", *_fields(model)]
    return "\n".join([*lines, ""])


def permissions_page() -> str:
    lines = [
        "# Permissions",
        "",
        NOTE,
        "What each role may do. A role may also do what the lesser ones may: administrator, operator, collaborator,",
        "researcher, person (who is signed in), anyone. A token needs the scope besides.",
        "",
        "| action | may | least role | scope | of |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, rule in ACTIONS.items():
        role = str(rule.role)
        if rule.while_current is not None:
            role += f"; {rule.while_current} while the session is its microscope's current one"
        lines.append(f"| `{name}` | {_cell(rule.what)} | {role} | {rule.scope} | {rule.about} |")
    return "\n".join([*lines, ""])


def steps_page() -> str:
    lines = ["# Steps", "", NOTE, "Run one by hand with `vitriflow step run NAME FILE... --out DIR`.", ""]
    lines += ["Every result also has the fields of the first table.", "", *_fields(Result)]
    common = frozenset(Result.model_fields)
    for name in step_names():
        step = find_step(name)
        lines += ["", f"## {name}", "", f"{step.summary}. Version {step.version}.".replace("..", "."), ""]
        lines += ["| port | | kind | meaning |", "| --- | --- | --- | --- |"]
        for way, ports in (("in", step.inputs), ("out", step.outputs)):
            for port_name, port in ports.items():
                optional = " (optional)" if port.optional else ""
                lines.append(f"| `{port_name}` | {way}{optional} | {port.kind} | {_cell(port.doc)} |")
        if step.Parameters.model_fields:
            lines += ["", "Parameters:", "", *_fields(step.Parameters)]
        if set(step.Record.model_fields) - common:
            lines += ["", "Result:", "", *_fields(step.Record, common)]
    return "\n".join([*lines, ""])


def reasons_page() -> str:
    lines = [
        "# Reason codes",
        "",
        NOTE,
        "The code stands in tables; a sentence for people stands beside it.",
        "",
    ]
    return "\n".join([*lines, "| code |", "| --- |", *(f"| `{reason}` |" for reason in Reason), ""])


def commands_page() -> str:
    root = typer.main.get_command(app)
    lines = ["# Commands", "", NOTE]
    return "\n".join(lines + list(_commands("vitriflow", root))) + "\n"


def _commands(path: str, command: Any) -> Iterator[str]:
    children = getattr(command, "commands", None)
    if children:
        for name in sorted(children):
            yield from _commands(f"{path} {name}", children[name])
        return
    yield f"\n## {path}\n"
    yield (command.help or "").strip() + "\n"
    yield "| argument | default | meaning |"
    yield "| --- | --- | --- |"
    for parameter in command.params:
        is_option = parameter.param_type_name == "option"
        names = (
            ", ".join(f"`{option}`" for option in parameter.opts)
            if is_option
            else f"`{parameter.name.upper()}`"
        )
        default = "" if parameter.default is None or callable(parameter.default) else parameter.default
        default = "required" if parameter.required else default
        if parameter.name == "threads":
            default = "all cores"  # this machine's number is not every machine's
        yield f"| {names} | {_cell(default)} | {_cell(getattr(parameter, 'help', '') or '')} |"


def recognisers_page() -> str:
    lines = ["# Recognisers", "", NOTE]
    lines += [
        "Paths below the source folder, without regard to case; recognisers and their rules are asked in this",
        "order, and the first rule that matches wins. What none claims is `unknown`. A facility's own are asked",
        "after the first table.",
    ]
    for recogniser in (TEMPORARY, TOMO5, EPU, SERIALEM, PLAIN):
        name = recogniser.name or ("any program" if recogniser is PLAIN else "any program, first of all")
        lines += ["", f"## {name}", "", "| kind | means | pattern |", "| --- | --- | --- |"]
        lines += [f"| `{r.kind}` | {_cell(r.means)} | `{_cell(r.pattern)}` |" for r in recogniser.rules]
    return "\n".join([*lines, ""])


PAGES = {
    "facility-toml.md": config_page,
    "permissions.md": permissions_page,
    "steps.md": steps_page,
    "reason-codes.md": reasons_page,
    "commands.md": commands_page,
    "recognisers.md": recognisers_page,
}


def main() -> int:
    """Write all pages; with ``--check`` only say which aren't as the code has them."""
    stale = []
    for name, make in PAGES.items():
        path, text = FOLDER / name, make()
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            continue
        stale.append(name)
        if "--check" not in sys.argv:
            path.write_text(text, encoding="utf-8")
    if "--check" in sys.argv and stale:
        sys.stderr.write(f"docs/reference is out of date: {', '.join(stale)}. Run 'make docs'.\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
