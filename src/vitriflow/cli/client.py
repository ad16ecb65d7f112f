"""vitriflow login, ls, get: a researcher's commands on any machine; all they need is a token."""

import os
import sys
from pathlib import Path
from typing import Annotated

import orjson
import typer
from rich.console import Console
from rich.table import Table

from vitriflow.errors import BadParameter

ServerOption = Annotated[
    str | None, typer.Option("--server", help="address of the pages; without it the one signed in to last")
]


def login(
    url: Annotated[str, typer.Argument(help="address of the facility's pages, https://...")],
    user: Annotated[str | None, typer.Option("--user", "-u", help="login; asked for without")] = None,
    token: Annotated[
        str | None,
        typer.Option("--token", help="a token made on the page 'My account'; - reads it from the input"),
    ] = None,
    days: Annotated[float, typer.Option(min=0.01, max=366, help="life of the token (days)")] = 30.0,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="allow http to another machine: anybody on the way can read it")
    ] = False,
) -> None:
    """Sign in to a facility's server from this machine; the token is kept in a file only you can read.

    The password is asked for, or read from the input where there's no terminal; it's not kept.
    """
    from vitriflow.cli.remote import Server, keep, token_file

    server = Server(url, insecure=insecure)
    if token is not None:
        server.token = sys.stdin.readline().strip() if token == "-" else token.strip()
    else:
        name = user or str(typer.prompt("Login"))
        secret = (
            str(typer.prompt("Password", hide_input=True))
            if sys.stdin.isatty()
            else sys.stdin.readline().rstrip("\r\n")
        )
        machine = os.uname().nodename
        asked = {
            "login": name,
            "password": secret,
            "days": days,
            "name": f"vitriflow login on {machine}"[:64],
        }
        server.token = str(server.post("/api/login", asked)["token"])
    me = server.get("/api/me")
    keep(server)
    typer.echo(f"Signed in to {server.url} as {me['login']}; the token is in {token_file()}.", err=True)


def ls(
    what: Annotated[
        str, typer.Argument(metavar="[EXPERIMENT[/SESSION[/PATH]]]", help="without it, your experiments")
    ] = "",
    json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
    server: ServerOption = None,
) -> None:
    """List your experiments, an experiment's sessions, or the files of a session."""
    from vitriflow.cli.remote import kept, sessions_of

    remote = kept(server)
    experiment, _, rest = what.strip("/").partition("/")
    if rest:
        key, _, path = rest.partition("/")
        _check(sessions_of(remote, experiment), experiment, key)
        rows = [
            {
                "name": one["name"] + ("/" if one["kind"] == "folder" else ""),
                "size": one["size"],
                "blake3": one["blake3"],
            }
            for one in remote.files(key, path)
        ]
    elif experiment:
        rows = [
            {name: one[name] for name in ("key", "sample", "microscope", "state", "created_at")}
            for one in sessions_of(remote, experiment)
        ]
    else:
        counts: dict[str, int] = {}
        for one in sessions_of(remote):
            counts[one["experiment"]] = counts.get(one["experiment"], 0) + 1
        rows = [{"experiment": name, "sessions": number} for name, number in counts.items()]
    if json:
        sys.stdout.buffer.write(orjson.dumps(rows, option=orjson.OPT_INDENT_2) + b"\n")
        return
    console = Console()
    if not rows:
        console.print("Nothing.")
        return
    table = Table(*rows[0], box=None)
    for row in rows:
        table.add_row(*("-" if value is None else str(value) for value in row.values()))
    console.print(table, markup=False)


def _check(found: list[dict[str, object]], experiment: str, key: str) -> None:
    if not any(one["key"] == key for one in found):
        known = ", ".join(str(one["key"]) for one in found[:5]) or "none"
        raise BadParameter(
            f"session '{key}'", f"a session of {experiment}", "none of that name", f"Latest: {known}."
        )


def get(
    what: Annotated[
        str, typer.Argument(metavar="SESSION[/PATH]", help="a session, or a folder or file of it")
    ],
    to: Annotated[Path, typer.Option("--to", help="folder to put it below")] = Path(),
    parallel: Annotated[int, typer.Option("--parallel", "-p", min=1, max=32, help="files side by side")] = 4,
    server: ServerOption = None,
) -> None:
    """Download a session's files. Run again it goes on where it was; every file is checked by its BLAKE3.

    Exits with 1 when a file couldn't be had, or isn't the one that was proved.
    """
    from vitriflow.cli.download import fetch_all
    from vitriflow.cli.remote import kept

    key, _, path = what.strip("/").partition("/")
    report = fetch_all(kept(server), key, path, to, parallel)
    typer.echo(
        f"{report.fetched} files fetched ({report.bytes} bytes), {report.already} were here already, "
        f"{report.proved} checked by BLAKE3, {report.unproved} without one on the server.",
        err=True,
    )
    for problem in report.problems:
        typer.echo(problem, err=True)
    if report.problems:
        raise typer.Exit(1)
