"""vitriflow backup, upgrade and rebuild: the catalog is copied, brought up to date, and made anew."""

import sys
from pathlib import Path
from typing import Annotated

import orjson
import typer

from vitriflow.cli.options import ConfigOption, OutOption, configured, open_catalog
from vitriflow.errors import BadParameter


def backup(
    to: Annotated[Path | None, typer.Option(help="folder; backups/ in the storage root without")] = None,
    keep: Annotated[
        int | None, typer.Option(min=1, help="remove all but so many of the newest backups there")
    ] = None,
    restore: Annotated[
        Path | None, typer.Option(metavar="FILE", help="put this backup back (SQLite), with all stopped")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
    config: ConfigOption = None,
    out: OutOption = None,
) -> None:
    """Copy the catalog while it's in use, and make sure that the copy can be read."""
    from vitriflow.facility.backup import make_backup, restore_backup

    settled = configured(config, out)
    if restore is not None:
        if to is not None or keep is not None:
            raise BadParameter("vitriflow backup --restore", "nothing but the file", "--to or --keep", "")
        kept = restore_backup(settled, restore)
        typer.echo(f"Restored {restore}." + (f" What was there is {kept} now." if kept else ""))
        return
    made = make_backup(settled, to, keep)
    if json:
        facts = {
            "backup": str(made.path),
            "bytes": made.size,
            "revision": made.revision,
            "removed": [str(path) for path in made.removed],
        }
        sys.stdout.buffer.write(orjson.dumps(facts, option=orjson.OPT_INDENT_2) + b"\n")
        return
    typer.echo(f"{made.path} ({made.size / 1e6:.1f} MB), and read back.")
    for path in made.removed:
        typer.echo(f"Removed {path}")


def upgrade(
    to: Annotated[
        Path | None, typer.Option(help="folder for the backup; backups/ in the storage root without")
    ] = None,
    config: ConfigOption = None,
    out: OutOption = None,
) -> None:
    """Bring the catalog to this version, after a backup. Sessions that run may go on running."""
    from vitriflow.facility.backup import upgrade_catalog

    found, newest, path = upgrade_catalog(configured(config, out), to)
    if path is not None:
        typer.echo(f"Backup: {path}")
    typer.echo(f"The catalog is at revision {newest}" + (f", it was {found}." if found != newest else "."))


def rebuild(
    root: Annotated[Path | None, typer.Option(help="where sessions are; the storage root without")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only say what would be found")] = False,
    json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
    config: ConfigOption = None,
    out: OutOption = None,
) -> None:
    """Make a lost catalog anew from what stands beside the data. Only into an empty one."""
    from vitriflow.facility.rebuild import rebuild as make_anew

    settled = configured(config, out)
    if dry_run:
        report = make_anew(settled, None, root, dry_run=True)
    else:
        catalog = open_catalog(settled, create=True)
        try:
            report = make_anew(settled, catalog, root)
        finally:
            catalog.close()
    if json:
        sys.stdout.buffer.write(orjson.dumps(report.as_json(), option=orjson.OPT_INDENT_2) + b"\n")
    else:
        for one in report.sessions:
            said = ", ".join(f"{number} {name}" for name, number in one.rows.items())
            typer.echo(f"{one.session}: {said or 'left out'}")
            for problem in one.problems:
                typer.echo(f"  {problem}")
        for text in report.unknown:
            typer.echo(f"Not known: {text}")
    if any(not one.rows for one in report.sessions):
        raise typer.Exit(1)
