"""vitriflow launch: a template, its questions answered, on a folder."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vitriflow.cli.options import ConfigOption, OutOption, SetOption, configured, open_catalog, parse_settings

if TYPE_CHECKING:
    from vitriflow.pipeline import Template


def launch(
    template: Annotated[str, typer.Argument(help="a template's name, or a YAML file")],
    folder: Annotated[Path, typer.Argument(help="folder that the microscope writes")],
    settings: SetOption = None,
    microscope: Annotated[
        str | None, typer.Option("--microscope", "-m", help="which microscope wrote it")
    ] = None,
    experiment: Annotated[str, typer.Option(help="the experiment it belongs to")] = "local",
    sample: Annotated[str, typer.Option(help="what is on the grid")] = "sample",
    session: Annotated[
        str | None, typer.Option(help="name of the session; made from date and folder")
    ] = None,
    processing: Annotated[str, typer.Option(help="name of this processing of the session")] = "live",
    once: Annotated[bool, typer.Option("--once", help="end when everything that is there is done")] = False,
    ask: Annotated[
        bool, typer.Option("--ask/--no-ask", help="ask what --set doesn't answer, on a terminal")
    ] = True,
    config: ConfigOption = None,
    out: OutOption = None,
) -> None:
    """Ask what a template wants to know, and process a folder with it, as 'vitriflow run' does.

    What is known of the facility, the microscope and the sample is filled in; an answer that can't be is
    refused before anything starts.
    """
    from vitriflow.cli.session import start_run
    from vitriflow.facility.choose import choose_microscope
    from vitriflow.facility.launch import find_template, launch_values, scopes_of
    from vitriflow.facility.run import RunRequest

    settled = configured(config, out)
    catalog = open_catalog(settled, create=True)
    try:
        name, scope = choose_microscope(settled, microscope)
        scopes = scopes_of(settled, catalog, name, scope, experiment, sample)
        chosen = find_template(settled, template).filled(scopes)
        answers = parse_settings(settings)
        if ask and sys.stdin.isatty():
            answers |= _asked(chosen, answers)
        request = RunRequest(
            source=folder,
            microscope=microscope,
            experiment=experiment,
            sample=sample,
            session=session,
            pipeline=chosen,
            processing=processing,
            parameters=launch_values(chosen, answers),
            once=once,
        )
        start_run(settled, catalog, request)
    finally:
        catalog.close()


def _asked(template: "Template", known: dict[str, Any]) -> dict[str, Any]:
    """Answers from the terminal to questions that weren't answered yet."""
    found: dict[str, Any] = {}
    for name, prompt in template.written.prompts.items():
        if name in known:
            continue
        if prompt.help:
            typer.echo(prompt.help, err=True)
        text = f"{prompt.title} ({prompt.wanted()})"
        default = "" if prompt.default is None and prompt.optional else prompt.default
        answer = typer.prompt(text, default=default, err=True)
        if answer != "" and answer != prompt.default:
            found[name] = prompt.read(name, answer)
    return found
