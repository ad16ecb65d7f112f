"""vitriflow init and doctor: set an installation up, and check it."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from vitriflow.cli.options import ConfigOption, OutOption, configured
from vitriflow.config import FILE_NAME, example_config
from vitriflow.errors import BadParameter


def init(
    path: Annotated[Path, typer.Argument(help="file to write")] = Path(FILE_NAME),
    force: Annotated[bool, typer.Option("--force", help="replace a file that is there")] = False,
) -> None:
    """Write a commented facility.toml."""
    if path.exists() and not force:
        raise BadParameter(
            str(path),
            "a file that isn't there yet",
            "one that is",
            "Name another, or replace it with --force.",
        )
    try:
        path.write_text(example_config(), encoding="utf-8")
    except OSError as error:
        raise BadParameter(
            str(path), "a place that can be written", error.strerror or str(error), ""
        ) from error
    Console().print(
        f"Wrote {path}. Edit it, then check with: vitriflow doctor --config {path}", highlight=False
    )


def doctor(
    config: ConfigOption = None,
    out: OutOption = None,
    facility: Annotated[
        bool,
        typer.Option("--facility", help="also what machines share: database, shares, queues, programs, logs"),
    ] = False,
) -> None:
    """Check this installation, and say what to do. Exits with 1 when something won't work."""
    from vitriflow.facility.doctor import Health, examine
    from vitriflow.facility.doctor_facility import examine_facility

    console = Console()
    marks = {
        Health.GOOD: "[green]good[/green]",
        Health.NOTE: "[yellow]note[/yellow]",
        Health.BAD: "[red]bad [/red]",
    }
    bad = 0
    checks = examine_facility if facility else examine
    for finding in checks(configured(config, out)):
        bad += finding.health == Health.BAD
        console.print(f"{marks[finding.health]}  {finding.subject}: ", end="", highlight=False)
        console.print(finding.text, highlight=False, markup=False, soft_wrap=True)
        if finding.remedy:
            console.print(f"      {finding.remedy}", highlight=False, markup=False, soft_wrap=True)
    if bad:
        console.print(f"[red]{bad} thing{'s' if bad > 1 else ''} to put right.[/red]")
        raise typer.Exit(1)
    console.print("[green]All good.[/green]")
