"""vitriflow acquire, process, up, start, stop, pause, resume, install-services: a facility's services."""

import getpass
import logging
import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer
from rich.console import Console

from vitriflow.cli.options import ConfigOption, OutOption, SetOption, configured, open_catalog, parse_settings
from vitriflow.errors import BadParameter

MicroscopeOption = Annotated[
    list[str] | None,
    typer.Option("--microscope", "-m", help="only this microscope; may be given several times"),
]
LabelOption = Annotated[
    str, typer.Option("--label", help="tells several services of one machine apart in the list of nodes")
]


def acquire(
    microscope: MicroscopeOption = None,
    once: Annotated[bool, typer.Option("--once", help="end when all that is there now is in")] = False,
    label: LabelOption = "",
    config: ConfigOption = None,
    out: OutOption = None,
) -> None:
    """Take in all active sessions of the configured microscopes, until stopped (SIGTERM, Ctrl-C).

    Several nodes may run it: each microscope is held by one of them, and taken over when it dies.
    """
    from vitriflow.facility.service import AcquireService

    _serve(
        lambda settled, catalog: AcquireService(settled, catalog, microscope or (), once=once, label=label),
        config,
        out,
    )


def process(
    once: Annotated[bool, typer.Option("--once", help="end when nothing is open any more")] = False,
    label: LabelOption = "",
    config: ConfigOption = None,
    out: OutOption = None,
) -> None:
    """Process all active sessions on this machine, until stopped (SIGTERM, Ctrl-C)."""
    from vitriflow.facility.service import ProcessService

    _serve(lambda settled, catalog: ProcessService(settled, catalog, once=once, label=label), config, out)


def up(config: ConfigOption = None, out: OutOption = None) -> None:
    """Run acquire, process and serve on this machine, until stopped (SIGTERM, Ctrl-C)."""
    from vitriflow.facility.service.children import Children, Job

    settled = configured(config, out)
    open_catalog(settled, create=True).close()
    console = Console(stderr=True)
    named = ["--config", str(config)] if config else []
    named += ["--out", str(out)] if out else []
    services = ("acquire", "process", "serve") if settled.microscopes else ("process", "serve")
    jobs = {
        name: Job(
            (sys.executable, "-m", "vitriflow.cli", name, *named), f"'vitriflow {name}'", lifeline=False
        )
        for name in services
    }
    children = Children(lambda severity, text: console.print(f"{severity}: {text}", highlight=False))
    stop = _stop_on_signals()
    if "acquire" not in jobs:
        console.print("No microscopes in facility.toml: only process and serve are started.", highlight=False)
    try:
        while not stop.is_set():
            children.want(jobs)
            stop.wait(0.5)
    finally:
        children.stop(45.0)


def start(
    microscope: Annotated[str | None, typer.Option("--microscope", "-m", help="which microscope")] = None,
    experiment: Annotated[
        str, typer.Option("--experiment", "-e", help="the experiment it belongs to")
    ] = "local",
    sample: Annotated[str, typer.Option("--sample", help="what is on the grid")] = "sample",
    source: Annotated[
        str,
        typer.Option(help="the session's folder below the microscope's source, or auto: the next to appear"),
    ] = "auto",
    session: Annotated[
        str | None, typer.Option(help="name of the session; made from date and folder")
    ] = None,
    mode: Annotated[
        str | None, typer.Option(help="copy or in_place; as the microscope is configured without it")
    ] = None,
    template: Annotated[
        str | None, typer.Option("--template", "-t", help="a shipped template's name, a YAML file, or auto")
    ] = None,
    settings: SetOption = None,
    process: Annotated[bool, typer.Option("--process/--no-process", help="process what comes in")] = True,
    config: ConfigOption = None,
    out: OutOption = None,
) -> None:
    """Start a session on a microscope: the services take it in and process it from now on."""
    from vitriflow.facility.activation import AWAITS, Activation, activate

    if mode not in (None, "copy", "in_place"):
        raise BadParameter("--mode", "copy or in_place", repr(mode), "Leave it out to do as configured.")
    settled = configured(config, out)
    catalog = open_catalog(settled, create=True)
    try:
        opened = activate(
            settled,
            catalog,
            Activation(
                microscope=microscope,
                experiment=experiment,
                sample=sample,
                source=source,
                session=session,
                mode=mode,
                template=template,
                parameters=parse_settings(settings),
                process=process,
            ),
        )
    finally:
        catalog.close()
    console = Console()
    waits = AWAITS in opened.settings
    where = (
        "the next folder to appear below " + ", ".join(opened.settings[AWAITS]) if waits else opened.source
    )
    for name, value in (
        ("session", opened.key),
        ("source", where),
        ("mode", opened.mode),
        ("files in", opened.root),
    ):
        console.print(f"{name:10} {value}", highlight=False, markup=False, soft_wrap=True)


SessionArgument = Annotated[str | None, typer.Argument(help="the session's name")]
OneMicroscope = Annotated[
    str | None, typer.Option("--microscope", "-m", help="instead: the active session of this microscope")
]


def stop(
    session: SessionArgument = None,
    microscope: OneMicroscope = None,
    config: ConfigOption = None,
    out: OutOption = None,
) -> None:
    """End a session: what is on its way still comes in and is processed; nothing new is looked for."""
    _change(session, microscope, config, out, "closed")


def pause(
    session: SessionArgument = None,
    microscope: OneMicroscope = None,
    config: ConfigOption = None,
    out: OutOption = None,
) -> None:
    """Stop taking a session in for a while; 'vitriflow resume' goes on."""
    _change(session, microscope, config, out, "paused")


def resume(session: SessionArgument = None, config: ConfigOption = None, out: OutOption = None) -> None:
    """Go on with a session that was paused or ended."""
    _change(session, None, config, out, "active")


def install_services(
    write: Annotated[Path | None, typer.Option(help="write the units into this folder")] = None,
    user: Annotated[str | None, typer.Option(help="who runs the services; you without it")] = None,
    config: ConfigOption = None,
    out: OutOption = None,
) -> None:
    """Print systemd units of the services, or write them into a folder. Installs nothing by itself."""
    from vitriflow.config import FILE_NAME, find_config
    from vitriflow.facility.service.units import systemd_units

    path = config or find_config()
    if path is None:
        raise BadParameter(
            FILE_NAME, "a configuration for the services", "none here", "Make one with 'vitriflow init'."
        )
    settled = configured(path, out)
    sources = [source for scope in settled.microscopes.values() for source in scope.sources]
    units = systemd_units(path, user or getpass.getuser(), (settled.storage.root, *sources))
    if write is None:
        for name, text in units.items():
            typer.echo(f"# {name}\n{text}")
        typer.echo("# Write them with --write /etc/systemd/system, then: systemctl daemon-reload", err=True)
        return
    try:
        write.mkdir(parents=True, exist_ok=True)
        for name, text in units.items():
            (write / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise BadParameter(
            f"--write {write}",
            "a folder that can be written",
            error.strerror or str(error),
            "Run it as root.",
        ) from error
    names = " ".join(units)
    typer.echo(
        f"Wrote {names} into {write}.\nThen: systemctl daemon-reload && systemctl enable --now {names}"
    )


def _change(
    session: str | None, microscope: str | None, config: Path | None, out: Path | None, to: str
) -> None:
    from vitriflow.catalog import SessionState
    from vitriflow.cli.people import this_user
    from vitriflow.facility.activation import active_session
    from vitriflow.facility.logbook import change_session

    if (session is None) == (microscope is None):
        raise BadParameter(
            "session",
            "the name of one session, or --microscope",
            "neither" if session is None else "both",
            "Names are shown by 'vitriflow status'.",
        )
    catalog = open_catalog(configured(config, out))
    try:
        if microscope is not None:
            active = active_session(catalog, microscope)
            if active is None:
                raise BadParameter(
                    f"microscope '{microscope}'",
                    "an active session",
                    "none",
                    "Name the session; 'vitriflow status' shows them.",
                )
            session = active.key
        changed = change_session(catalog, this_user(), str(session), SessionState(to))
    finally:
        catalog.close()
    typer.echo(f"Session {changed.key} is {changed.state}.")


def _serve(make: Any, config: Path | None, out: Path | None) -> None:
    """Run a service until it's told to stop."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("alembic").setLevel(logging.WARNING)  # says the same at each start
    settled = configured(config, out)
    catalog = open_catalog(settled, create=True)
    stop = _stop_on_signals()
    try:
        make(settled, catalog).run(stop)
    finally:
        catalog.close()


def _stop_on_signals() -> threading.Event:
    """An event that the first Ctrl-C or SIGTERM sets; a second one ends at once."""
    asked = threading.Event()

    def ask(number: int, _frame: FrameType | None) -> None:
        asked.set()
        signal.signal(number, signal.SIG_DFL)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, ask)
    return asked
