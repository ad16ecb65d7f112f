"""``vitriflow verify SESSION``: proves every file of a session again."""

import sys
from typing import Annotated

import orjson
import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from vitriflow.cli.options import ConfigOption, OutOption, configured, open_catalog


def verify(
    session: Annotated[str, typer.Argument(help="a session's name")],
    quick: Annotated[
        bool, typer.Option("--quick", help="only names and sizes; doesn't find a flipped byte")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
    config: ConfigOption = None,
    out: OutOption = None,
) -> None:
    """Read every file of a session's manifest past the page cache and compare it.

    The exit code is 1 when a file is missing, changed, unreadable or unlisted. Extra files are told only.
    """
    from vitriflow.facility.verify import verify_session

    settled = configured(config, out)
    catalog = open_catalog(settled)
    console = Console(stderr=True)
    try:
        with Progress(
            TextColumn("reading"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        ) as bar:
            task = bar.add_task("")
            report = verify_session(
                catalog,
                session,
                quick=quick,
                threads=settled.acquisition.parallel_copies,
                on_progress=lambda done, total: bar.update(task, completed=done, total=total),
            )
    finally:
        catalog.close()
    if json:
        sys.stdout.buffer.write(orjson.dumps(report.as_json(), option=orjson.OPT_INDENT_2) + b"\n")
    else:
        for finding in report.findings:
            typer.echo(f"{finding.what:10} {finding.path!r}: {finding.text}")
        method = ", ".join(f"{number} by {name}" for name, number in report.methods.items())
        typer.echo(
            f"{report.proved} of {report.files} files are as the manifest says ({method or 'none read'})"
        )
        if report.waiting:
            typer.echo(f"{report.waiting} files of the session aren't proved yet")
    if not report.is_good:
        raise typer.Exit(1)
