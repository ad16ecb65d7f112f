"""``vitriflow notices``: who is told of alarms, and whether it reaches them."""

from typing import Annotated

import typer

from vitriflow.cli.options import ConfigOption
from vitriflow.config import load_config
from vitriflow.errors import BadConfig, BadParameter

notices_app = typer.Typer(help="Who is told of alarms, and whether it reaches them.", no_args_is_help=True)


@notices_app.command("list")
def list_ways(config: ConfigOption = None) -> None:
    """List the ways by which people are told, and of what."""
    settled = load_config(config)
    for name, route in settled.notices.to.items():
        way = f"mail to {', '.join(route.mail.recipients)}" if route.mail else "an address of apprise"
        only = f", of {', '.join(route.microscopes)}" if route.microscopes else ""
        quiet = f", quiet {route.quiet_hours} but for {', '.join(route.loud)}" if route.quiet_hours else ""
        typer.echo(f"{name}: {way}; {', '.join(route.severities)}{only}{quiet}")
    if not settled.notices.to:
        typer.echo("Nobody is told: facility.toml has no [notices.to.NAME]")


@notices_app.command("test")
def send_test(
    name: Annotated[str | None, typer.Argument(help="one way; all without")] = None,
    config: ConfigOption = None,
) -> None:
    """Send a test message. The exit code is 1 when one can't be delivered."""
    from vitriflow.facility.notices import try_notices

    settled = load_config(config)
    if not settled.notices.to:
        raise BadConfig(
            "facility.toml", "[notices.to.NAME], a way to tell people", "none", "See the how-to on alerts."
        )
    if name is not None and name not in settled.notices.to:
        known = ", ".join(settled.notices.to)
        raise BadParameter(
            f"notices '{name}'", f"one of {known}", repr(name), "'vitriflow notices list' shows them."
        )
    found = try_notices(settled, () if name is None else (name,))
    for way, problem in found.items():
        typer.echo(f"{way}: {problem or 'delivered'}")
    if any(found.values()):
        raise typer.Exit(1)
