"""vitriflow people join, leave, members, helper: who belongs to an experiment, and who helps in a session."""

from pathlib import Path
from typing import Annotated

import typer

from vitriflow.cli.options import ConfigOption, OutOption, configured, open_catalog
from vitriflow.cli.people import (
    ExperimentArgument,
    JsonOption,
    LoginArgument,
    opened,
    people_app,
    show,
    tell,
    this_user,
    write,
)

__all__ = ["people_app"]


@people_app.command()
def join(
    experiment: ExperimentArgument,
    login: LoginArgument,
    role: Annotated[str, typer.Option(help="operator, collaborator or researcher")] = "researcher",
    config: ConfigOption = None,
    out: OutOption = None,
) -> None:
    """Let somebody into an experiment, or change their role in it."""
    _set_member(config, out, experiment, login, role)


@people_app.command()
def leave(
    experiment: ExperimentArgument, login: LoginArgument, config: ConfigOption = None, out: OutOption = None
) -> None:
    """End somebody's membership of an experiment."""
    _set_member(config, out, experiment, login, None)


@people_app.command("members")
def list_members(
    experiment: ExperimentArgument,
    json: JsonOption = False,
    config: ConfigOption = None,
    out: OutOption = None,
) -> None:
    """Show who belongs to an experiment, and as what."""
    from vitriflow.elogbook.experiments import find_experiment
    from vitriflow.elogbook.people import members

    catalog = opened(config, out)
    try:
        found = catalog.read(lambda orm: members(orm, find_experiment(orm, experiment).id))
    finally:
        catalog.close()
    show([{"login": one.login, "name": one.name, "role": role} for one, role in found], json)


@people_app.command()
def helper(
    session: Annotated[str, typer.Argument(help="a session's name")],
    login: LoginArgument,
    remove: Annotated[bool, typer.Option("--remove", help="take it back")] = False,
    config: ConfigOption = None,
    out: OutOption = None,
) -> None:
    """Let somebody log in to a session's microscope until the session stops."""
    from vitriflow.elogbook.access import set_helper

    write(config, out, lambda orm: set_helper(orm, this_user(), session, login, helps=not remove).key)
    typer.echo(f"{login} {'no longer helps' if remove else 'helps'} in session {session}.", err=True)


def _set_member(config: Path | None, out: Path | None, experiment: str, login: str, role: str | None) -> None:
    from vitriflow.elogbook.access import set_member

    write(config, out, lambda orm: set_member(orm, this_user(), experiment, login, role))
    settled = configured(config, out)
    if settled.access.acls:
        from vitriflow.facility.access import publish_access

        catalog = open_catalog(settled)
        try:
            tell(publish_access(settled, catalog).problems)
        finally:
            catalog.close()
