"""vitriflow replay: whether this version still says the same of exposures of the past."""

from typing import Annotated

import orjson
import typer

from vitriflow.cli.options import ConfigOption, OutOption, configured, open_catalog


def replay(
    session: Annotated[str, typer.Argument(help="a session's name")],
    against: Annotated[
        str, typer.Option("--against", help="a processing of it, or the version that made one")
    ],
    most: Annotated[
        int, typer.Option("--most", min=1, max=100000, help="exposures, evenly spread over the session")
    ] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
    config: ConfigOption = None,
    out: OutOption = None,
) -> None:
    """Process exposures of the past again, as they were, and say what moved beyond tolerance.

    It's a new processing of the session, for these exposures alone; nothing of the old one changes.
    Exits with 1 when something moved.
    """
    from vitriflow.facility.compute import make_pool
    from vitriflow.facility.replay import replay as run

    settled = configured(config, out)
    catalog = open_catalog(settled)
    try:
        pool = make_pool(settled)
        try:
            done = run(catalog, session, against, pool, most)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    finally:
        catalog.close()
    if as_json:
        typer.echo(orjson.dumps(done.as_dict(), option=orjson.OPT_INDENT_2).decode())
    else:
        typer.echo(f"{done.exposures} exposures of '{done.against}' again as '{done.processing}'")
        for value, difference in done.medians.items():
            typer.echo(f"  {value}: {done.compared[value]} compared, median difference {difference:+.4g}")
        for one in done.moved:
            typer.echo(f"moved: {one.exposure}: {one.value} was {one.before}, is {one.now}")
        for key in done.skipped:
            typer.echo(f"not at hand: {key}")
        typer.echo("Nothing moved." if not done.moved else f"{len(done.moved)} values moved.")
    if done.moved:
        raise typer.Exit(1)
