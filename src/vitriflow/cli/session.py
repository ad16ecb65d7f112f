"""vitriflow run, status, explain, serve: a session from the command line."""

import signal
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.table import Table

from vitriflow.cli.options import ConfigOption, OutOption, SetOption, configured, open_catalog, parse_settings
from vitriflow.cli.progress import RunDisplay
from vitriflow.errors import BadParameter

if TYPE_CHECKING:
    from vitriflow.catalog import Catalog
    from vitriflow.config import Config
    from vitriflow.facility.run import RunRequest, SessionRun

_COUNTS = ("came_in", "done", "rejected", "quarantined", "failed", "open")


def run(
    folder: Annotated[Path, typer.Argument(help="folder that the microscope writes")],
    settings: SetOption = None,
    template: Annotated[
        str | None, typer.Option("--template", "-t", help="a shipped template's name, a YAML file, or auto")
    ] = None,
    microscope: Annotated[
        str | None, typer.Option("--microscope", "-m", help="which microscope wrote it")
    ] = None,
    experiment: Annotated[str, typer.Option(help="the experiment it belongs to")] = "local",
    sample: Annotated[str, typer.Option(help="what is on the grid")] = "sample",
    session: Annotated[
        str | None, typer.Option(help="name of the session; made from date and folder")
    ] = None,
    processing: Annotated[str, typer.Option(help="name of this processing of the session")] = "live",
    once: Annotated[bool, typer.Option("--once", help="end when everything that is there is done")] = False,
    copy: Annotated[
        bool, typer.Option("--copy", help="copy every file to the session's folder and prove it")
    ] = False,
    serve: Annotated[bool, typer.Option("--serve", help="serve the pages too")] = False,
    config: ConfigOption = None,
    out: OutOption = None,
) -> None:
    """Watch a folder and process each exposure until stopped (Ctrl-C), or with --once until done.

    Exits with 1 when --once left exposures that failed; quarantined ones are told, and are no failure.
    """
    from vitriflow.facility.run import RunRequest

    settled = configured(config, out)
    catalog = open_catalog(settled, create=True)
    request = RunRequest(
        source=folder,
        microscope=microscope,
        experiment=experiment,
        sample=sample,
        session=session,
        template=template,
        processing=processing,
        parameters=parse_settings(settings),
        once=once,
        copy=copy,
    )
    try:
        start_run(settled, catalog, request, serve, config, out)
    finally:
        catalog.close()


def start_run(
    settled: "Config",
    catalog: "Catalog",
    request: "RunRequest",
    serve: bool = False,
    config: Path | None = None,
    out: Path | None = None,
) -> None:
    """Run a session until it's stopped, and show how it goes.

    Raises
    ------
    typer.Exit
        With 1 when it was to end by itself, and exposures failed.
    """
    from vitriflow.facility.run import SessionRun

    pages: subprocess.Popen[bytes] | None = None
    try:
        session_run = SessionRun(settled, catalog, request)
        _stop_on_signals(session_run)
        console = Console(stderr=True)
        console.print(f"session    {session_run.session.key}", highlight=False, markup=False)
        console.print(f"results in {session_run.folder.root}", highlight=False, markup=False, soft_wrap=True)
        if serve:
            port = free_port(settled.web.host, settled.web.port)
            pages = start_pages(config, out, "--port", str(port))
            console.print(f"pages on   http://{settled.web.host}:{port}/", highlight=False)
        with RunDisplay(console) as display:
            counts = session_run.run(display.update)
    finally:
        if pages is not None:
            pages.terminate()
            pages.wait(10)
    if request.once and counts.exposures.failed:
        raise typer.Exit(1)


def _stop_on_signals(session_run: "SessionRun") -> None:
    """The first Ctrl-C or SIGTERM ends the run in order, a second one at once."""

    def ask(number: int, _frame: FrameType | None) -> None:
        session_run.stop()
        signal.signal(number, signal.SIG_DFL)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, ask)


def free_port(host: str, port: int) -> int:
    """The port, when nobody listens on it yet; for 0 any that is free.

    Raises
    ------
    BadParameter
        When it's taken, or the address isn't one of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise BadParameter(
                f"{host}:{port}",
                "an address and a port to serve the pages on",
                error.strerror or str(error),
                "Set web.host and web.port in facility.toml, or give 'vitriflow serve' a --port; 0 takes a free one.",
            ) from error
        return int(probe.getsockname()[1])


def start_pages(config: Path | None, out: Path | None, *extra: str) -> "subprocess.Popen[bytes]":
    """Serve the pages from a process of their own, so that they stay quick while this one works."""
    command = [sys.executable, "-m", "vitriflow.cli", "serve", *extra]
    command += ["--config", str(config)] if config else []
    command += ["--out", str(out)] if out else []
    return subprocess.Popen(command, stdout=subprocess.DEVNULL)


def serve(
    host: Annotated[str | None, typer.Option(help="address to listen on")] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="port to listen on; 0 takes a free one")
    ] = None,
    config: ConfigOption = None,
    out: OutOption = None,
) -> None:
    """Serve the pages."""
    import uvicorn

    from vitriflow.web import create_app
    from vitriflow.web.security import is_loopback

    settled = configured(config, out)
    open_catalog(settled, create=True).close()
    address = host or settled.web.host
    application = create_app(
        settled.catalog_url,
        open_here=is_loopback(address) and not settled.web.names,  # names mean a proxy, so others
        title=settled.facility.name,
        allowed_hosts=("localhost", "127.0.0.1", "::1", *settled.web.names),
        scan_interval_s=settled.acquisition.scan_interval_s,
        config=settled,
    )
    number = free_port(address, settled.web.port if port is None else port)
    if not is_loopback(address):
        typer.echo(
            "Everybody has to sign in; add the first person with 'vitriflow people add LOGIN --administrator'.",
            err=True,
        )
    server = uvicorn.Server(
        uvicorn.Config(
            application, host=address, port=number, log_level="warning", timeout_graceful_shutdown=2
        )
    )
    typer.echo(f"Pages on http://{address}:{number}/ (end with Ctrl-C)", err=True)
    try:
        server.run()
    except SystemExit as error:  # uvicorn says why on its own and leaves with 1 or 3
        raise typer.Exit(1) from error


def status(
    session: Annotated[str | None, typer.Argument(help="a session's name; without it, all of them")] = None,
    json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
    config: ConfigOption = None,
    out: OutOption = None,
) -> None:
    """Show sessions with counts that add up, and what is wrong with which exposure."""
    from vitriflow.facility.status import all_alarms, session_status

    settled = configured(config, out)
    catalog = open_catalog(settled)
    try:
        found = session_status(catalog, session)
        alarms = all_alarms(catalog)
    finally:
        catalog.close()
    if json:
        sys.stdout.buffer.write(orjson.dumps(found, option=orjson.OPT_INDENT_2) + b"\n")
        return
    console = Console()
    for alarm in alarms:
        when = f"{alarm['raised_at']:%Y-%m-%d %H:%M} UTC"
        _say(console, f"{alarm['severity'].upper()} since {when}: {alarm['text']}")
    if not found:
        _say(console, "No sessions yet. Start one with: vitriflow run FOLDER, or vitriflow start")
        return
    table = Table("session", "state", "in", "done", "rejected", "quarantined", "failed", "open", box=None)
    times = Counter(entry["session"] for entry in found)
    for entry in found:
        numbers = (str(entry["counts"][name]) for name in _COUNTS)
        which = f", {entry['processing']}" if times[entry["session"]] > 1 else ""
        table.add_row(f"{entry['session']}{which}", entry["state"], *numbers)
    console.print(table)
    for entry in found:
        if entry["arriving"]:
            what = (
                "nothing processes them" if entry["processing"] is None else "their processing hasn't begun"
            )
            _say(console, f"{entry['session']}: {entry['arriving']} more exposures were seen; {what}")
        if entry.get("spans"):
            _say(
                console, f"{entry['session']}: {_spans(entry['spans'], settled.acquisition.scan_interval_s)}"
            )
        for problem in entry.get("problems", []):
            for line in (f"  {problem['status']:12} {problem['exposure']}", f"{'':15}{problem['reason']}"):
                _say(console, line)


def _say(console: Console, line: str) -> None:
    console.print(line, highlight=False, markup=False, soft_wrap=True)


def _spans(spans: dict[str, Any], scan_interval_s: float) -> str:
    """Latency in words: medians, with 95th percentiles in brackets."""
    parts = [f"{name} {span['p50_s']:.1f} s ({span['p95_s']:.1f})" for name, span in spans.items()]
    return f"first seen to {', '.join(parts)}; p50 (p95), looked every {scan_interval_s:g} s"


def explain(
    session: Annotated[str, typer.Argument(help="a session's name")],
    exposure: Annotated[
        str, typer.Argument(help="an exposure: its path below the source folder, or part of it")
    ],
    node: Annotated[str | None, typer.Option(help="only this node of the pipeline")] = None,
    processing: Annotated[str, typer.Option(help="which processing")] = "live",
    json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
    config: ConfigOption = None,
    out: OutOption = None,
) -> None:
    """Show how a result came to be, back to the camera's file."""
    from vitriflow.facility.status import explain_exposure

    catalog = open_catalog(configured(config, out))
    try:
        chain = explain_exposure(catalog, session, processing, exposure, node)
    finally:
        catalog.close()
    if json:
        sys.stdout.buffer.write(orjson.dumps(chain, option=orjson.OPT_INDENT_2, default=str) + b"\n")
        return
    _print_chain(Console(), chain)


def _print_chain(console: Console, value: Any, indent: int = 0) -> None:
    pad = "  " * indent
    if isinstance(value, dict):
        for name, inner in value.items():
            if inner in (None, [], {}, ""):
                continue
            if isinstance(inner, dict | list):
                console.print(f"{pad}{name}:", highlight=False, markup=False)
                _print_chain(console, inner, indent + 1)
            else:
                console.print(f"{pad}{name}: {inner}", highlight=False, markup=False, soft_wrap=True)
    elif isinstance(value, list):
        for inner in value:
            if isinstance(inner, dict):
                console.print(f"{pad}-", highlight=False, markup=False)
                _print_chain(console, inner, indent + 1)
            else:
                console.print(f"{pad}- {inner}", highlight=False, markup=False, soft_wrap=True)
