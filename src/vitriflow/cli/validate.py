"""``vitriflow validate FILE...``: what a file is, and what is wrong with it, in words."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import orjson
import typer

from vitriflow.formats import Report, describe


def validate(
    files: Annotated[list[Path], typer.Argument(help="movies, images, gain references, STAR, mdoc, XML ...")],
    json: Annotated[bool, typer.Option("--json", help="one JSON array on standard output")] = False,
) -> None:
    """Say in words what each file is and what is wrong with it.

    The exit code is 1 when any file has a problem.
    """
    reports = [(path, describe(path)) for path in files]
    if json:
        records = [{"path": str(path), **asdict(report)} for path, report in reports]
        typer.echo(orjson.dumps(records, option=orjson.OPT_INDENT_2).decode())
    else:
        for path, report in reports:
            _tell(path, report)
    if any(report.problems for _, report in reports):
        raise typer.Exit(1)


def _tell(path: Path, report: Report) -> None:
    verdict = typer.style("not good", fg="red") if report.problems else typer.style("good", fg="green")
    typer.echo(f"{path}: {report.kind} ({report.format}), {verdict}")
    for line in report.lines:
        typer.echo(f"    {line}")
    for problem in report.problems:
        typer.secho(f"  ! {problem}", fg="red")
