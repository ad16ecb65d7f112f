"""``vitriflow report SESSION``: writes a session's report."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from vitriflow.cli.options import ConfigOption, OutOption, configured, open_catalog


def report(
    session: Annotated[str, typer.Argument(help="a session's name")],
    to: Annotated[
        Path | None,
        typer.Option("--to", help="file or folder; else [reports] publish_to, or the session's own folder"),
    ] = None,
    processing: Annotated[
        str | None, typer.Option("--processing", help="one of its processings; the newest without")
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="print its numbers as JSON instead of writing it")
    ] = False,
    config: ConfigOption = None,
    out: OutOption = None,
) -> None:
    """Write a session's report: one HTML file with everything in it, to be read anywhere."""
    from vitriflow.facility.report import make_report, write_report

    settled = configured(config, out)
    catalog = open_catalog(settled)
    try:
        made = make_report(settled, catalog, session, processing)
        if json:
            sys.stdout.buffer.write(made.as_json() + b"\n")
        else:
            typer.echo(f"{write_report(made, to, settled)}")
    finally:
        catalog.close()
