"""``vitriflow alarms``: what is wrong now, and saying that it was seen."""

from typing import Annotated

import typer

from vitriflow.cli.options import ConfigOption, OutOption, configured, open_catalog

alarms_app = typer.Typer(help="What is wrong now, and saying that it was seen.", no_args_is_help=True)


@alarms_app.command("list")
def list_alarms(
    json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
    config: ConfigOption = None,
    out: OutOption = None,
) -> None:
    """List alarms that aren't over, newest first, with their numbers."""
    from vitriflow.facility.status import all_alarms

    catalog = open_catalog(configured(config, out))
    try:
        found = all_alarms(catalog)
    finally:
        catalog.close()
    if json:
        import orjson

        typer.echo(orjson.dumps(found, option=orjson.OPT_INDENT_2 | orjson.OPT_UTC_Z).decode())
        return
    for one in found:
        seen = f", seen by {one['acknowledged_by']}" if one.get("acknowledged_by") else ""
        typer.echo(
            f"{one['id']}  {one['severity']}, since {one['raised_at']:%Y-%m-%d %H:%M} UTC{seen}: {one['text']}"
        )
    if not found:
        typer.echo("No alarms.")


@alarms_app.command("acknowledge")
def acknowledge(
    number: Annotated[int, typer.Argument(help="the alarm's number")],
    config: ConfigOption = None,
    out: OutOption = None,
) -> None:
    """Say that an alarm was seen. It stays until what it tells of is over."""
    from vitriflow.cli.people import this_user
    from vitriflow.elogbook.alarms import acknowledge_alarm

    catalog = open_catalog(configured(config, out))
    try:
        catalog.write(lambda orm: acknowledge_alarm(orm, this_user(), number))
    finally:
        catalog.close()
    typer.echo(f"Alarm {number} is acknowledged.", err=True)
