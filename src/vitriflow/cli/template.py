"""vitriflow template ...: a facility's pipelines: look, check, draw, share."""

from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from vitriflow.cli.options import ConfigOption, OutOption, SetOption, configured, parse_settings
from vitriflow.errors import BadParameter

template_app = typer.Typer(help="Pipelines as templates: list, check, draw, share.", no_args_is_help=True)
NameArgument = Annotated[str, typer.Argument(help="a template's name, or a YAML file")]


@template_app.command("list")
def list_templates(
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
    config: ConfigOption = None,
    out: OutOption = None,
) -> None:
    """The shipped templates and the facility's own."""
    from vitriflow.facility.launch import find_template, known_templates

    settled = configured(config, out)
    found = known_templates(settled)
    rows = [
        {"name": name, "title": find_template(settled, name).written.title, "from": where}
        for name, where in found.items()
    ]
    if as_json:
        typer.echo(orjson.dumps(rows, option=orjson.OPT_INDENT_2).decode())
        return
    width = max(len(row["name"]) for row in rows)
    for row in rows:
        typer.echo(f"{row['name']:{width}}  {row['title']}  ({row['from']})")


@template_app.command()
def show(name: NameArgument, config: ConfigOption = None, out: OutOption = None) -> None:
    """Print a template's text."""
    from vitriflow.facility.launch import find_template

    typer.echo(find_template(configured(config, out), name).text, nl=False)


@template_app.command()
def check(
    name: NameArgument, settings: SetOption = None, config: ConfigOption = None, out: OutOption = None
) -> None:
    """Check a template: steps, wires, loops, parameters, questions. Errors name the line.

    Says what has to be given when it's launched.
    """
    from vitriflow.facility.launch import find_template, missing_answers

    template = find_template(configured(config, out), name).filled({})
    missing = missing_answers(template, parse_settings(settings))
    typer.echo(f"{template.name}: sound, {len(template.written.nodes)} nodes")
    for key, prompt in template.written.prompts.items():
        default = "has to be answered" if prompt.default is None else f"{prompt.default} without an answer"
        typer.echo(f"asks: {prompt.title} ({key}): {prompt.wanted()}; {default}")
    for key in missing:
        if key not in template.written.prompts:
            typer.echo(f"has to be given at launch: --set {key}=VALUE")


@template_app.command()
def graph(
    name: NameArgument,
    settings: SetOption = None,
    form: Annotated[str, typer.Option("--as", help="text, mermaid or json")] = "text",
    config: ConfigOption = None,
    out: OutOption = None,
) -> None:
    """Draw a template's graph."""
    from vitriflow.facility.launch import find_template

    if form not in ("text", "mermaid", "json"):
        raise BadParameter("--as", "text, mermaid or json", repr(form))
    template = find_template(configured(config, out), name).filled({})
    nodes = template.written.nodes
    edges = [
        {"from": source.partition(".")[0], "to": node, "port": port}
        for node, text in nodes.items()
        for port, source in text.inputs.items()
    ]
    _check_structure(template, parse_settings(settings))
    if form == "json":
        steps = {node: text.step for node, text in nodes.items()}
        typer.echo(orjson.dumps({"nodes": steps, "edges": edges}, option=orjson.OPT_INDENT_2).decode())
        return
    if form == "mermaid":
        typer.echo("flowchart LR")
        for node, text in nodes.items():
            typer.echo(f'  {node}["{node}<br>{text.step}"]')
        for edge in edges:
            typer.echo(f"  {edge['from']} -->|{edge['port']}| {edge['to']}")
        return
    for node, text in nodes.items():
        typer.echo(f"{node} ({text.step})")
        for port, source in text.inputs.items():
            typer.echo(f"  {port} <- {source}")


def _check_structure(template: Any, values: dict[str, Any]) -> None:
    from vitriflow.facility.launch import missing_answers

    missing_answers(template, values)


@template_app.command()
def export(
    name: NameArgument,
    to: Annotated[Path, typer.Option("--to", help="file to write; one that's there isn't overwritten")],
    config: ConfigOption = None,
    out: OutOption = None,
) -> None:
    """Write a template to a file, to change it or to share it."""
    from vitriflow.facility.launch import find_template

    text = find_template(configured(config, out), name).text
    try:
        with to.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise BadParameter("--to", "a new file in a folder that's there", str(error)) from error
    typer.echo(f"Written to {to}", err=True)


@template_app.command("import")
def import_command(
    file: Annotated[Path, typer.Argument(help="a YAML file")],
    name: Annotated[str | None, typer.Option("--name", help="its name here, other than it says")] = None,
    config: ConfigOption = None,
    out: OutOption = None,
) -> None:
    """Check a template and share it with all people of this facility, by its name."""
    from vitriflow.facility.launch import import_template

    to = import_template(configured(config, out), file, name)
    typer.echo(f"Shared as '{to.stem}'.", err=True)


@template_app.command()
def clone(
    name: NameArgument,
    new: Annotated[str, typer.Argument(help="name of the copy")],
    config: ConfigOption = None,
    out: OutOption = None,
) -> None:
    """Copy a template into the facility's library under a new name, to change it there."""
    import tempfile

    from vitriflow.facility.launch import find_template, import_template

    settled = configured(config, out)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "template.yaml"
        copy.write_text(find_template(settled, name).text, "utf-8")
        typer.echo(str(import_template(settled, copy, new)))
