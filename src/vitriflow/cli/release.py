"""vitriflow release and hold: a microscope's disk is freed by permit; what is held stays."""

import sys
from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from vitriflow.cli.options import ConfigOption, OutOption, configured, open_catalog
from vitriflow.errors import BadParameter

if TYPE_CHECKING:
    from vitriflow.facility.release_permits import ReleaseReport


def release(
    which: Annotated[
        str | None, typer.Argument(help="a session or a microscope; without it, all of them")
    ] = None,
    free: Annotated[
        bool, typer.Option("--free/--dry-run", help="remove files; without it only say what would be removed")
    ] = False,
    rehash: Annotated[
        bool, typer.Option("--rehash", help="read each file again before, and compare its hash too")
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="name every file that stays, with the reason")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
    config: ConfigOption = None,
    out: OutOption = None,
) -> None:
    """Free microscopes' disks of files whose copies are proved. A dry run, unless told to with --free."""
    from vitriflow.facility.release import release_round

    settled = configured(config, out)
    catalog = open_catalog(settled)
    try:
        report = release_round(settled, catalog, which, free=free, rehash=rehash)
    finally:
        catalog.close()
    if json:
        sys.stdout.buffer.write(orjson.dumps(report.as_json(), option=orjson.OPT_INDENT_2) + b"\n")
        return
    _show(Console(), report, verbose)


def _show(console: Console, report: "ReleaseReport", verbose: bool) -> None:
    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    for disk in report.disks:
        word = ", above the high-water mark" if disk.full else ""
        then = "now" if report.freed else "would be"
        say(f"{disk.source}: {disk.used:.0%} full{word}; {then} {disk.used_after:.0%}")
    for one in report.files if verbose else []:
        say(f"  {one['session']}  {one['key']}: {one['why']}")
    word = "Removed" if report.freed else "Would remove"
    say(f"{word} {len(report.files)} files, {report.n_bytes / 1e9:.2f} GB.")
    if report.resolved:
        say(f"{report.resolved} removals that were interrupted are settled.")
    if report.folders:
        say(f"{len(report.folders)} empty folders were removed.")
    if report.refused:
        table = Table("stay", "because", "for example", box=None)
        examples = {one.reason: one for one in reversed(report.refused)}
        for reason, number in Counter(one.reason for one in report.refused).most_common():
            example = f"{examples[reason].key}: {examples[reason].why}"
            table.add_row(str(number), reason, escape(example))
        console.print(table, highlight=False)
    for refused in report.refused if verbose else []:
        say(f"  {refused.session}  {refused.key}: {refused.why}")
    if not report.freed and report.files:
        say("Nothing was touched. To remove them: the same command with --free")


def hold(
    session: Annotated[str | None, typer.Argument(help="a session; without it, list what is held")] = None,
    reason: Annotated[str, typer.Option(help="who needs it, and until when")] = "",
    lift: Annotated[bool, typer.Option("--lift", help="lift the session's holds")] = False,
    json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
    config: ConfigOption = None,
    out: OutOption = None,
) -> None:
    """Hold a session: nothing of it is removed from any disk until the hold is lifted."""
    from vitriflow.facility.release_holds import lift_holds, list_holds, place_hold

    if lift and (reason or session is None):
        raise BadParameter("vitriflow hold --lift", "a session, and no reason", "something else", "")
    if reason and session is None:
        raise BadParameter("vitriflow hold --reason", "a session", "none", "Name it first.")
    catalog = open_catalog(configured(config, out))
    try:
        if session is not None and lift:
            lift_holds(catalog, session)
        elif session is not None and (reason or not json):
            place_hold(catalog, session, reason)
        held: list[dict[str, Any]] = list_holds(catalog, session)
    finally:
        catalog.close()
    if json:
        sys.stdout.buffer.write(orjson.dumps(held, option=orjson.OPT_INDENT_2) + b"\n")
        return
    for one in held:
        typer.echo(f"{one['session']}  held by {one['placed_by']} since {one['placed_at']}: {one['reason']}")
    if not held:
        typer.echo("Nothing is held." if session is None else f"{session} isn't held.")
