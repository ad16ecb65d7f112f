"""vitriflow correct: put a parameter right, and do just what hangs on it anew."""

from typing import TYPE_CHECKING, Annotated

import orjson
import typer
from rich.console import Console
from rich.table import Table

from vitriflow.cli.options import ConfigOption, OutOption, SetOption, configured, open_catalog, parse_settings
from vitriflow.errors import BadParameter

if TYPE_CHECKING:
    from vitriflow.pipeline import Touched


def correct(
    session: Annotated[str, typer.Argument(help="a session's name")],
    settings: SetOption = None,
    restart: Annotated[
        list[str] | None, typer.Option("--from", help="do this node anew, and all that hangs on it")
    ] = None,
    processing: Annotated[
        str | None, typer.Option("--processing", help="which of its processings; the only one without")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only say what it would touch")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="don't ask")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
    config: ConfigOption = None,
    out: OutOption = None,
) -> None:
    """Put a parameter of a processing right, after hundreds of movies if need be.

    Says which nodes and results that touches. Those are done anew as a new revision; what lies before them is
    reused, and the old results stay readable. When only limits of gates move, no image step runs again.
    --set NAME=null goes back to what the template says; --set NODE.NAME=VALUE changes one node alone.
    """
    from vitriflow.cli.people import this_user
    from vitriflow.facility.correct import correct as begin
    from vitriflow.facility.correct import preview

    catalog = open_catalog(configured(config, out))
    try:
        values = parse_settings(settings)
        name, touched = preview(catalog, session, values, restart or (), processing)
        if not as_json:
            _show(name, touched)
        if dry_run:
            if as_json:
                typer.echo(orjson.dumps({"processing": name, "touched": touched}).decode())
            return
        if not yes and not as_json and not typer.confirm("Do it?", default=False, err=True):
            raise BadParameter("the correction", "a yes", "a no", "Nothing was changed.")
        done = begin(catalog, this_user(), session, values, restart or (), name)
    finally:
        catalog.close()
    if as_json:
        typer.echo(orjson.dumps(done.as_dict()).decode())
    elif not done.carried_out:
        typer.echo("Asked for: the running pipeline takes it up within seconds.", err=True)
    elif touched.kind == "threshold":
        typer.echo("Done. Exposures that came back go on when the pipeline runs.", err=True)
    else:
        typer.echo("Put away. 'vitriflow process' (or 'up', or 'run') does these nodes anew.", err=True)


def _show(name: str, touched: "Touched") -> None:
    console = Console(stderr=True, highlight=False)
    table = Table("node", "what changes", "results that stand", title=f"processing '{name}'")
    for node in touched.redone:
        changes = ", ".join(
            f"{key}: {'not set' if old is None else old} -> {'not set' if new is None else new}"
            for key, (old, new) in touched.changed.get(node, {}).items()
        )
        table.add_row(node, changes or "hangs on the above", str(touched.results.get(node, 0)))
    console.print(table)
    how = "marks are made anew, no image step runs" if touched.kind == "threshold" else "done anew"
    kept = f"; kept: {', '.join(touched.kept)}" if touched.kept else ""
    console.print(f"{how}{kept}", markup=False)
