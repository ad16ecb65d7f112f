"""vitriflow archive and recall: sessions go to archives, off the disk, and back, proved on every way."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn
from rich.table import Table

from vitriflow.cli.options import ConfigOption, OutOption, configured, open_catalog
from vitriflow.errors import BadParameter

if TYPE_CHECKING:
    from vitriflow.facility.archive_rows import ArchiveProgress

TierOption = Annotated[
    str | None, typer.Option(help="which tier of facility.toml; the one of the policy without")
]
JsonOption = Annotated[bool, typer.Option("--json", help="print JSON")]


class _Bars:
    """A bar for each thing that is being done, on a terminal; nothing elsewhere."""

    def __init__(self) -> None:
        console = Console(stderr=True)
        columns = (TextColumn("{task.description:20}"), BarColumn(), DownloadColumn())
        self._progress = Progress(*columns, console=console, disable=not console.is_terminal)
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> "_Bars":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def update(self, progress: "ArchiveProgress") -> None:
        task = self._tasks.get(progress.what)
        if task is None:
            task = self._tasks[progress.what] = self._progress.add_task(progress.what)
        self._progress.update(task, completed=progress.done, total=progress.total)


def archive(
    session: Annotated[str | None, typer.Argument(help="a session's name")] = None,
    tier: TierOption = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="read the archive's copies again, and compare every file")
    ] = False,
    remove: Annotated[
        bool, typer.Option("--remove-from-disk", help="take the raw files off the disk, if they're archived")
    ] = False,
    status: Annotated[bool, typer.Option("--status", help="show where sessions are")] = False,
    print_policy: Annotated[
        bool, typer.Option("--print-policy", help="rules of what may leave the disk, for GPFS administrators")
    ] = False,
    hot_days: Annotated[
        float, typer.Option(min=0, help="for rules: sessions closed less than this ago stay (days)")
    ] = 30.0,
    json: JsonOption = False,
    config: ConfigOption = None,
    out: OutOption = None,
) -> None:
    """Archive a session's raw files, and prove the copy. Goes on after an interruption."""
    from vitriflow.facility import archive as use
    from vitriflow.facility.archive_status import archive_status, storage_policy

    if sum((verify, remove, status, print_policy)) > 1:
        raise BadParameter(
            "vitriflow archive",
            "one of --verify, --remove-from-disk, --status and --print-policy",
            "several",
            "Give the command once for each.",
        )
    settled = configured(config, out)
    catalog = open_catalog(settled)
    try:
        if print_policy:
            typer.echo(storage_policy(settled, catalog, tier, hot_days))
        elif status:
            _show_status(archive_status(catalog, session), json)
        elif session is None:
            raise BadParameter(
                "vitriflow archive", "a session", "none", "Or ask where all are: vitriflow archive --status"
            )
        else:
            with _Bars() as bars:
                if verify:
                    done = use.verify_archive(catalog, settled, session, tier, bars.update)
                elif remove:
                    done = use.remove_from_disk(settled, catalog, session, tier, bars.update)
                else:
                    done = use.archive_session(settled, catalog, session, tier, bars.update)
            _tell(done, json)
    finally:
        catalog.close()


def recall(
    session: Annotated[str, typer.Argument(help="a session's name")],
    tier: TierOption = None,
    json: JsonOption = False,
    config: ConfigOption = None,
    out: OutOption = None,
) -> None:
    """Bring a session's raw files back from an archive, each proved before it gets its name."""
    from vitriflow.facility.archive import recall_session

    settled = configured(config, out)
    catalog = open_catalog(settled)
    try:
        with _Bars() as bars:
            done = recall_session(settled, catalog, session, tier, bars.update)
    finally:
        catalog.close()
    _tell(done, json)


def _tell(done: dict[str, Any], json: bool) -> None:
    if json:
        sys.stdout.buffer.write(orjson.dumps(done, option=orjson.OPT_INDENT_2) + b"\n")
        return
    for name, value in done.items():
        typer.echo(f"{name.replace('_', ' '):16} {value}")


def _show_status(found: list[dict[str, Any]], json: bool) -> None:
    if json:
        sys.stdout.buffer.write(orjson.dumps(found, option=orjson.OPT_INDENT_2) + b"\n")
        return
    console = Console()
    table = Table("session", "residence", "files", "GB", "copies", box=None)
    for entry in found:
        copies = ", ".join(_copy_words(copy) for copy in entry["copies"]) or "none"
        size = f"{entry['bytes'] / 1e9:.2f}"
        table.add_row(escape(entry["session"]), entry["residence"], str(entry["files"]), size, escape(copies))
    console.print(table, highlight=False)


def _copy_words(copy: dict[str, Any]) -> str:
    words = f"{copy['tier']}: {copy['state']}"
    going = copy.get("progress")
    if going and going["total_bytes"]:
        words += f", {going['doing']} {going['done_bytes'] / going['total_bytes']:.0%}"
    if copy["problem"]:
        words += f" ({copy['problem']})"
    elif copy["location"]:
        words += f" {Path(copy['location']).name}"
    return words
