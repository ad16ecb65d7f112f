"""vitriflow experiment, sample, log: the elogbook from the facility's own machine."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import orjson
import typer
from rich.console import Console
from rich.table import Table

from vitriflow.cli.options import ConfigOption, OutOption, SetOption, configured, open_catalog, parse_settings
from vitriflow.cli.people import this_user
from vitriflow.errors import BadParameter

if TYPE_CHECKING:
    from sqlalchemy.orm import Session as OrmSession

T = TypeVar("T")
_QUIET = {"no_args_is_help": True, "pretty_exceptions_enable": False}
experiment_app = typer.Typer(help="Experiments: awards of time to people.", **_QUIET)  # type: ignore[arg-type]
sample_app = typer.Typer(help="Samples: what is on the grid, and how it's imaged.", **_QUIET)  # type: ignore[arg-type]
log_app = typer.Typer(help="The log: read it, write into it.", **_QUIET)  # type: ignore[arg-type]
JsonOption = Annotated[bool, typer.Option("--json", help="print JSON")]
ExperimentArgument = Annotated[str, typer.Argument(help="an experiment's name")]
EntryArgument = Annotated[int, typer.Argument(help="an entry's number, as 'log list --json' shows it")]
SampleArgument = Annotated[str, typer.Argument(help="a sample's name")]


def with_catalog(config: Path | None, out: Path | None, work: "Callable[[OrmSession], T]") -> T:
    """Do something to the catalog in one transaction."""
    catalog = open_catalog(configured(config, out), create=True)
    try:
        return catalog.write(work)
    finally:
        catalog.close()


def print_json(value: Any) -> None:
    """Print a value as JSON."""
    typer.echo(orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_UTC_Z).decode())


def print_table(rows: list[dict[str, Any]], columns: tuple[str, ...], empty: str) -> None:
    """Print rows as a table, or a sentence when there are none."""
    if not rows:
        typer.echo(empty)
        return
    table = Table(*columns, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(_cell(row.get(name)) for name in columns))
    Console().print(table)


def _cell(value: Any) -> str:
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M}"
    return "" if value is None else str(value)


def _day(text: str | None, name: str) -> datetime | None:
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise BadParameter(name, "a day such as 2026-05-01", repr(text)) from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


# ---- experiments


@experiment_app.command("list")
def list_experiments(
    search: Annotated[str, typer.Option(help="words in name or title")] = "",
    as_json: JsonOption = False,
    config: ConfigOption = None,
    out: OutOption = None,
) -> None:
    """List experiments, newest first."""
    from vitriflow.elogbook import experiments

    found = with_catalog(config, out, lambda orm: experiments.list_experiments(orm, this_user(), search))
    if as_json:
        print_json(found)
    else:
        print_table(found, ("name", "title", "pi", "samples", "sessions", "state"), "No experiments yet.")


@experiment_app.command("add")
def add_experiment(
    name: ExperimentArgument,
    title: Annotated[str, typer.Option(help="what it's about")] = "",
    pi: Annotated[str | None, typer.Option(help="login of its principal investigator")] = None,
    starts: Annotated[str | None, typer.Option(help="first day, such as 2026-05-01")] = None,
    ends: Annotated[str | None, typer.Option(help="last day")] = None,
    config: ConfigOption = None,
    out: OutOption = None,
) -> None:
    """Make an experiment."""
    from vitriflow.elogbook import experiments

    dates = {"starts_at": _day(starts, "--starts"), "ends_at": _day(ends, "--ends")}

    def work(orm: "OrmSession") -> str:
        return experiments.create_experiment(orm, this_user(), name, title=title, pi=pi, **dates).name

    typer.echo(f"Made experiment {with_catalog(config, out, work)}.", err=True)


@experiment_app.command("edit")
def edit_experiment(
    name: ExperimentArgument,
    title: Annotated[str | None, typer.Option(help="what it's about")] = None,
    pi: Annotated[str | None, typer.Option(help="login of its principal investigator")] = None,
    state: Annotated[str | None, typer.Option(help="open or closed")] = None,
    config: ConfigOption = None,
    out: OutOption = None,
) -> None:
    """Change an experiment; what isn't given stays."""
    from vitriflow.elogbook import experiments

    given = {"title": title, "pi": pi, "state": state}
    changes = {key: value for key, value in given.items() if value is not None}

    def work(orm: "OrmSession") -> None:
        found = experiments.find_experiment(orm, name)
        experiments.edit_experiment(orm, this_user(), found, **changes)

    with_catalog(config, out, work)
    typer.echo(f"Changed experiment {name}.", err=True)


# ---- samples


@sample_app.command("list")
def list_samples(
    experiment: ExperimentArgument,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    out: OutOption = None,
) -> None:
    """List an experiment's samples, newest first."""
    from vitriflow.elogbook import experiments, samples

    found = with_catalog(
        config,
        out,
        lambda orm: samples.list_samples(orm, experiments.find_experiment(orm, experiment).id),
    )
    if as_json:
        print_json(found)
    else:
        print_table(found, ("name", "title", "sessions", "state", "active_session"), "No samples yet.")


@sample_app.command("form")
def show_form(
    template: Annotated[str, typer.Option(help="a template's name")] = "",
    as_json: JsonOption = False,
    config: ConfigOption = None,
    out: OutOption = None,
) -> None:
    """Show what can be said of a sample with --set: names, units, and what each does."""
    from vitriflow.facility.logbook import template_of
    from vitriflow.facility.session_form import form_fields

    named = {"template": template} if template else {}
    fields = [field.as_dict() for field in form_fields(template_of(named, configured(config, out)))]
    if as_json:
        print_json(fields)
    else:
        print_table(fields, ("name", "unit", "default", "acts", "help"), "Nothing can be said.")


@sample_app.command("add")
def add_sample(
    experiment: ExperimentArgument,
    name: SampleArgument,
    settings: SetOption = None,
    title: Annotated[str, typer.Option(help="what it is")] = "",
    description: Annotated[str, typer.Option(help="anything else")] = "",
    config: ConfigOption = None,
    out: OutOption = None,
) -> None:
    """Make a sample; its imaging parameters are given with --set ('vitriflow sample form' lists them)."""
    from vitriflow.elogbook import experiments, samples
    from vitriflow.facility.logbook import read_sample_form

    checked = read_sample_form(parse_settings(settings), configured(config, out))
    texts = {"title": title, "description": description}

    def work(orm: "OrmSession") -> None:
        award = experiments.find_experiment(orm, experiment)
        samples.create_sample(orm, this_user(), award, name, settings=checked, **texts)

    with_catalog(config, out, work)
    typer.echo(f"Made sample {name} of {experiment}.", err=True)


@sample_app.command("edit")
def edit_sample(
    experiment: ExperimentArgument,
    name: SampleArgument,
    settings: SetOption = None,
    title: Annotated[str | None, typer.Option(help="what it is")] = None,
    description: Annotated[str | None, typer.Option(help="anything else")] = None,
    config: ConfigOption = None,
    out: OutOption = None,
) -> None:
    """Change a sample; --set NAME=null takes a value out. Sessions that were started keep what they had."""
    from vitriflow.elogbook import samples
    from vitriflow.facility.logbook import read_sample_form

    given = {"title": title, "description": description}
    changes: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    said = parse_settings(settings)
    loaded = configured(config, out)

    def work(orm: "OrmSession") -> None:
        sample = samples.find_sample(orm, experiment, name)
        if said:
            changes["settings"] = read_sample_form({**(sample.settings or {}), **said}, loaded)
        samples.edit_sample(orm, this_user(), sample, **changes)

    with_catalog(config, out, work)
    typer.echo(f"Changed sample {name} of {experiment}.", err=True)


@sample_app.command("clone")
def clone_sample(
    experiment: ExperimentArgument,
    name: SampleArgument,
    clone: Annotated[str, typer.Argument(help="the new sample's name")],
    config: ConfigOption = None,
    out: OutOption = None,
) -> None:
    """Make a sample like another."""
    from vitriflow.elogbook import samples

    def work(orm: "OrmSession") -> None:
        samples.clone_sample(orm, this_user(), samples.find_sample(orm, experiment, name), clone)

    with_catalog(config, out, work)
    typer.echo(f"Made sample {clone} of {experiment}, like {name}.", err=True)


@sample_app.command("activate")
def activate(
    experiment: ExperimentArgument,
    name: SampleArgument,
    microscope: Annotated[str | None, typer.Option("--microscope", "-m", help="where it's imaged")] = None,
    source: Annotated[
        str, typer.Option(help="the session's folder, or auto for the next to appear")
    ] = "auto",
    mode: Annotated[str | None, typer.Option(help="copy or in_place; else as configured")] = None,
    config: ConfigOption = None,
    out: OutOption = None,
) -> None:
    """Start a session of a sample: 'vitriflow up' (or acquire and process) does the rest. Prints its name."""
    from vitriflow.facility.logbook import activate_sample

    loaded = configured(config, out)
    catalog = open_catalog(loaded, create=True)
    try:
        how = {"microscope": microscope, "source": source, "mode": mode}
        session = activate_sample(loaded, catalog, this_user(), experiment, name, **how)  # type: ignore[arg-type]
    finally:
        catalog.close()
    typer.echo(session.key)


# ---- the log


@log_app.command("list")
def list_log(
    experiment: ExperimentArgument,
    search: Annotated[str, typer.Option(help="words in the text or its author")] = "",
    tag: Annotated[str, typer.Option(help="only entries with this tag")] = "",
    limit: Annotated[int, typer.Option(help="at most so many", min=1, max=10000)] = 50,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    out: OutOption = None,
) -> None:
    """Show the log, newest first."""
    from vitriflow.elogbook import entries, experiments

    def work(orm: "OrmSession") -> list[dict[str, Any]]:
        award = experiments.find_experiment(orm, experiment)
        return entries.list_entries(orm, award.id, search=search, tag=tag, limit=limit)

    found = with_catalog(config, out, work)
    if as_json:
        print_json(found)
        return
    for one in found:
        tags = " ".join(f"#{word}" for word in one["tags"])
        struck = f" (struck out by {one['struck_by']})" if one["struck_at"] else ""
        typer.echo(f"{one['at']:%Y-%m-%d %H:%M} UTC  {one['author']}  {tags}{struck}\n  {one['text']}\n")


@log_app.command("write")
def write_log(
    experiment: ExperimentArgument,
    text: Annotated[str, typer.Argument(help="Markdown")],
    tag: Annotated[list[str] | None, typer.Option(help="a tag; may be given several times")] = None,
    file: Annotated[list[Path] | None, typer.Option(help="a file to attach; several times")] = None,
    config: ConfigOption = None,
    out: OutOption = None,
) -> None:
    """Write into the log."""
    from vitriflow.elogbook import entries, experiments
    from vitriflow.facility.attachments import store_file

    root = configured(config, out).storage.root
    stored = []
    for path in file or []:
        try:
            with path.open("rb") as stream:
                stored.append((path.name, store_file(root, iter(lambda: stream.read(1024 * 1024), b""))))
        except OSError as error:
            why = error.strerror or str(error)
            raise BadParameter(f"--file {path}", "a file that can be read", why, "Check the name.") from error

    def work(orm: "OrmSession") -> int:
        award = experiments.find_experiment(orm, experiment)
        entry = entries.write_entry(orm, this_user(), award, text, tags=tag or [])
        for name, one in stored:
            how: dict[str, Any] = {"size": one.size, "blake3": one.blake3, "path": one.path}
            entries.attach_file(orm, this_user(), entry, name=name, media_type=one.media_type, **how)
        return entry.id

    typer.echo(f"Wrote entry {with_catalog(config, out, work)}.", err=True)


@log_app.command("edit")
def edit_log(
    experiment: ExperimentArgument,
    entry: EntryArgument,
    text: Annotated[str, typer.Argument(help="Markdown, in place of what's there")],
    tag: Annotated[list[str] | None, typer.Option(help="a tag; in place of those that are there")] = None,
    config: ConfigOption = None,
    out: OutOption = None,
) -> None:
    """Change an entry; the old text stays in the audit log."""
    from vitriflow.elogbook import entries, experiments

    def work(orm: "OrmSession") -> None:
        award = experiments.find_experiment(orm, experiment)
        found = entries.find_entry(orm, award.id, entry)
        entries.edit_entry(orm, this_user(), found, text, tag)

    with_catalog(config, out, work)
    typer.echo(f"Changed entry {entry}.", err=True)


@log_app.command("strike")
def strike_log(
    experiment: ExperimentArgument,
    entry: EntryArgument,
    config: ConfigOption = None,
    out: OutOption = None,
) -> None:
    """Strike an entry out; it stays readable."""
    from vitriflow.elogbook import entries, experiments

    def work(orm: "OrmSession") -> None:
        award = experiments.find_experiment(orm, experiment)
        entries.strike_entry(orm, this_user(), entries.find_entry(orm, award.id, entry))

    with_catalog(config, out, work)
    typer.echo(f"Struck out entry {entry}.", err=True)
