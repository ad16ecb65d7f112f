"""Puts the commands together and turns our errors into one readable message and an exit code."""

import sys

import typer

from vitriflow.errors import VitriflowError

app = typer.Typer(
    name="vitriflow",
    help="Live processing and custody of cryo-EM data.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Entry point of the ``vitriflow`` command."""
    try:
        app()
    except VitriflowError as error:
        sys.stderr.write(f"vitriflow: {error}\n")
        sys.exit(2)
    except KeyboardInterrupt:
        sys.stderr.write("vitriflow: stopped\n")
        sys.exit(130)
