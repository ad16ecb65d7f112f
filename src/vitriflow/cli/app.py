"""Puts the commands together and turns our errors into one readable message and an exit code."""

import sys

import typer

import vitriflow
from vitriflow.cli.airflow import airflow_app
from vitriflow.cli.alarms import alarms_app
from vitriflow.cli.archive import archive, recall
from vitriflow.cli.backup import backup, rebuild, upgrade
from vitriflow.cli.client import get, login, ls
from vitriflow.cli.correct import correct
from vitriflow.cli.demo import demo
from vitriflow.cli.exposures import compare, export, limits, mark, reprocess
from vitriflow.cli.gain import gain
from vitriflow.cli.grids import box_app
from vitriflow.cli.launch import launch
from vitriflow.cli.logbook import experiment_app, log_app, sample_app
from vitriflow.cli.membership import people_app
from vitriflow.cli.notices import notices_app
from vitriflow.cli.outlook import outlook
from vitriflow.cli.people import access, audit
from vitriflow.cli.recognise import recognise
from vitriflow.cli.release import hold, release
from vitriflow.cli.replay import replay
from vitriflow.cli.report import report
from vitriflow.cli.service import acquire, install_services, pause, process, resume, start, stop, up
from vitriflow.cli.session import explain, run, serve, status
from vitriflow.cli.setup import doctor, init
from vitriflow.cli.simulate import simulate
from vitriflow.cli.starting import started
from vitriflow.cli.step import step_app
from vitriflow.cli.template import template_app
from vitriflow.cli.validate import validate
from vitriflow.cli.verify import verify
from vitriflow.errors import VitriflowError

app = typer.Typer(
    name="vitriflow",
    help="Live processing and custody of cryo-EM data.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (
    run,
    status,
    explain,
    serve,
    init,
    doctor,
    simulate,
    demo,
    validate,
    recognise,
    gain,
    release,
    hold,
    archive,
    recall,
    backup,
    upgrade,
    rebuild,
    verify,
    report,
    mark,
    limits,
    reprocess,
    compare,
    export,
    correct,
    launch,
    replay,
    outlook,
):
    app.command()(command)
for service in (up, acquire, process, start, stop, pause, resume, install_services):
    app.command()(service)
app.add_typer(step_app, name="step")
app.add_typer(people_app, name="people")
app.add_typer(experiment_app, name="experiment")
app.add_typer(sample_app, name="sample")
app.add_typer(log_app, name="log")
app.add_typer(box_app, name="box")
app.add_typer(alarms_app, name="alarms")
app.add_typer(notices_app, name="notices")
app.add_typer(airflow_app, name="airflow")
app.add_typer(template_app, name="template")
for about_people in (access, audit, login, ls, get):
    app.command()(about_people)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(vitriflow.__version__)
        raise typer.Exit


@app.callback()
def options(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="show the version"
    ),
) -> None:
    """Live processing and custody of cryo-EM data."""


def main() -> None:
    """Entry point of the ``vitriflow`` command."""
    try:
        with started(sys.argv[1:]):
            app()
    except VitriflowError as error:
        sys.stderr.write(f"vitriflow: {error}\n")
        sys.exit(2)
    except KeyboardInterrupt:
        sys.stderr.write("vitriflow: stopped\n")
        sys.exit(130)
