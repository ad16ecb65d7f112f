"""``vitriflow gain MOVIE...``: whether the gain reference belongs to these movies, and which way up."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import orjson
import typer
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from vitriflow.facility.gain_check import Convention
    from vitriflow.kernels.gain_diagnosis import GainDiagnosis, Level, Strength

_COLOURS = {"info": "green", "warning": "yellow", "alarm": "red"}


def gain(
    movies: Annotated[
        list[Path], typer.Argument(help="raw movies of one camera mode, two or more if possible")
    ],
    reference: Annotated[
        Path | None, typer.Option("--gain", help="gain reference; without it the movies alone are judged")
    ] = None,
    orientation: Annotated[
        str, typer.Option(help="how it would be laid on, as the parameter gain_orientation")
    ] = "as_is",
    convention: Annotated[
        str, typer.Option(help="auto, multiply or divide, as the parameter gain_convention")
    ] = "auto",
    json: Annotated[bool, typer.Option("--json", help="one JSON object on standard output")] = False,
) -> None:
    """Say whether a gain reference fits movies, in which of the eight orientations, and what to set.

    The exit code is 1 when movies would be spoilt by using it like that.
    """
    from vitriflow.facility.gain_check import check_gain

    found = check_gain(movies, reference, orientation, cast("Convention", convention))
    if json:
        typer.echo(orjson.dumps(asdict(found), option=orjson.OPT_INDENT_2).decode())
    else:
        _tell(found)
    if found.wrong:
        raise typer.Exit(1)


def _tell(found: "GainDiagnosis") -> None:
    console = Console(soft_wrap=True, highlight=False)
    console.print(found.text, style=_COLOURS[found.severity], markup=False)
    movies = f"{found.n_movies} movie{'s' if found.n_movies != 1 else ''}"
    console.print(f"Looked at {movies}, {found.n_frames} frames, {found.counts:.3g} counts a pixel in all.")
    if found.gain_spread is not None:
        console.print(f"The reference differs by {100 * found.gain_spread:.2g} % from pixel to pixel.")
    if found.movies is not None and found.n_movies > 1:
        console.print(f"The movies' own pattern: {_strength(found.movies)}.")
    if found.left is not None and found.n_movies > 1:
        console.print(f"Left after correction: {_strength(found.left)}.")
    if found.scores:
        table = Table("orientation", "fit", "error", "", box=None)
        for score in found.scores:
            note = "fits" if score.orientation in found.alike else ""
            table.add_row(score.orientation, f"{score.fit:+.3f}", f"{score.error:.3f}", note)
        console.print(table)
        console.print("Fit: +1 multiply, -1 divide, 0 nothing in common.")


def _strength(strength: "Strength") -> str:
    return (
        f"{_level(strength.pixels)} from pixel to pixel, {_level(strength.rows)} between rows, "
        f"{_level(strength.columns)} between columns"
    )


def _level(level: "Level") -> str:
    if level.low == 0.0:
        return f"under {100 * level.high:.2g} %"
    return f"{100 * level.rms:.2g} %"
