"""``vitriflow outlook SESSION``: what more collection would bring."""

import sys
from typing import Annotated

import orjson
import typer

from vitriflow.cli.options import ConfigOption, OutOption, configured, open_catalog


def outlook(
    session: Annotated[str, typer.Argument(help="a session's name")],
    target: Annotated[
        float | None,
        typer.Option(
            "--target", help="wanted resolution of the classes (A); a tenth better than now without"
        ),
    ] = None,
    processing: Annotated[
        str | None, typer.Option("--processing", help="one of its processings, where there are several")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
    config: ConfigOption = None,
    out: OutOption = None,
) -> None:
    """Say what more collection would bring: particles kept an hour, resolution against particles, hours to a target."""
    from vitriflow.facility.correct import find_processing
    from vitriflow.facility.outlook import session_outlook

    catalog = open_catalog(configured(config, out))
    try:
        number, _ = find_processing(catalog, session, processing)
        found = session_outlook(catalog, number, target)
    finally:
        catalog.close()
    if json:
        sys.stdout.buffer.write(orjson.dumps(found.as_dict(), option=orjson.OPT_INDENT_2) + b"\n")
    else:
        typer.echo(found.words)
