"""``vitriflow simulate``: a microscope that isn't there writes a session into a folder."""

import signal
from pathlib import Path
from threading import Event
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from vitriflow.errors import BadParameter

if TYPE_CHECKING:
    from vitriflow.simulate import SessionReport, SessionSpec


def simulate(
    out: Annotated[Path, typer.Argument(help="Folder for 'microscope' (what to watch) and 'truth'.")],
    layout: Annotated[str, typer.Option(help="epu, serialem or tomo5.")] = "epu",
    name: Annotated[str, typer.Option(help="Name of the session's folder.")] = "simulated",
    exposures: Annotated[int, typer.Option(help="Movies to write.", min=1)] = 10,
    every: Annotated[float, typer.Option(help="Seconds from one movie's start to the next's.", min=0)] = 0.0,
    per_hour: Annotated[
        float | None, typer.Option(help="The same as a rate: movies an hour.", min=0.01)
    ] = None,
    write_seconds: Annotated[
        float, typer.Option(help="Seconds that a movie takes to trickle to disk.")
    ] = 0.0,
    unique: Annotated[int | None, typer.Option(help="Make only so many movies and copy them.", min=1)] = None,
    format_: Annotated[
        str, typer.Option("--format", help="mrc, tiff-none, tiff-lzw, tiff-deflate, tiff-zstd or eer.")
    ] = "tiff-lzw",
    dtype: Annotated[str, typer.Option(help="uint8, int8, uint16, int16 or float32.")] = "uint8",
    shape: Annotated[str, typer.Option(help="Height x width of a frame (px).")] = "2048x2048",
    frames: Annotated[int, typer.Option(help="Frames of a movie.", min=1)] = 16,
    pixel_size: Annotated[float, typer.Option(help="Pixel size (A).")] = 1.0,
    voltage: Annotated[float, typer.Option(help="Acceleration voltage (kV).")] = 300.0,
    cs: Annotated[float, typer.Option(help="Spherical aberration (mm).")] = 2.7,
    dose: Annotated[float, typer.Option(help="Dose of a frame (e/A^2).")] = 2.0,
    defocus: Annotated[str, typer.Option(help="Range of defocus (A), smaller first.")] = "8000:20000",
    astigmatism: Annotated[float, typer.Option(help="Largest astigmatism (A).")] = 400.0,
    phase_shift: Annotated[float, typer.Option(help="Phase plate (degrees); 0 is none.")] = 0.0,
    specimen: Annotated[Path | None, typer.Option(help="PDB or mmCIF file; else a phantom.")] = None,
    diameter: Annotated[float, typer.Option(help="Diameter of the particle (A).")] = 120.0,
    spacing: Annotated[float, typer.Option(help="Mean distance of particles (A).")] = 170.0,
    motion: Annotated[Path | None, typer.Option(help="RELION motion STAR to replay; else a model.")] = None,
    ice: Annotated[float, typer.Option(help="Thickness of the ice (A).")] = 350.0,
    carbon: Annotated[bool, typer.Option("--carbon", help="A carbon edge reaches into the field.")] = False,
    crystals: Annotated[int, typer.Option(help="Ice crystals in the field.", min=0)] = 0,
    empty: Annotated[float, typer.Option(help="Share of holes without particles.")] = 0.0,
    dirty: Annotated[float, typer.Option(help="Share of holes with a carbon edge and ice crystals.")] = 0.0,
    tilts: Annotated[int, typer.Option(help="Movies of a tilt series (serialem, tomo5).", min=0)] = 0,
    fault: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME=SHARE of movies that are broken; repeat for more. Names: truncated, empty, zeros, "
            "constant, nan, wrong-size, garbage, no-metadata, bad-metadata, duplicate."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Everything random follows from it.", min=0)] = 1,
) -> None:
    """Play a cryo-EM session: movies with known truth, written as a microscope writes them."""
    height, width = _pair(shape, "x", "--shape", "2048x2048")
    low, high = _pair(defocus, ":", "--defocus", "8000:20000")
    movie: dict[str, Any] = {
        "shape": (int(height), int(width)),
        "n_frames": frames,
        "pixel_size_A": pixel_size,
        "voltage_kV": voltage,
        "spherical_aberration_mm": cs,
        "dose_per_frame_e_per_A2": dose,
        "phase_shift_deg": phase_shift,
        "specimen": specimen,
        "particle_diameter_A": diameter,
        "particle_spacing_A": spacing,
        "ice_thickness_A": ice,
        "carbon_edge": carbon,
        "n_ice_crystals": crystals,
        "dtype": dtype,
        "motion": {"relion_star": motion},
    }
    session = {
        "layout": layout,
        "name": name,
        "exposures": exposures,
        "every_s": 3600.0 / per_hour if per_hour is not None else every,
        "write_s": write_seconds,
        "unique": unique,
        "format": format_,
        "movie": movie,
        "defocus_A": (low, high),
        "astigmatism_A": astigmatism,
        "empty_share": empty,
        "dirty_share": dirty,
        "tilts": tilts or (41 if layout == "tomo5" else 0),
        "faults": dict(_share(text) for text in fault or []),
        "seed": seed,
    }
    report = _play(_checked(session), out)
    console = Console()
    console.print(f"{len(report.movies)} movies in {report.microscope}", soft_wrap=True)
    console.print(f"gain reference {report.gain}", soft_wrap=True)
    console.print(f"truth in {report.truth}", soft_wrap=True)
    if report.stopped:
        raise typer.Exit(130)


def _pair(text: str, separator: str, option: str, example: str) -> tuple[float, float]:
    """Two numbers with something between them."""
    first, _, second = text.lower().partition(separator)
    try:
        return float(first), float(second)
    except ValueError:
        raise BadParameter(option, f"two numbers such as {example}", repr(text)) from None


def _share(text: str) -> tuple[str, float]:
    """A fault and its share."""
    name, _, share = text.partition("=")
    try:
        return name.strip(), float(share)
    except ValueError:
        raise BadParameter("--fault", "a name and a share such as truncated=0.1", repr(text)) from None


def _checked(values: dict[str, Any]) -> "SessionSpec":
    """The session that the options describe, or one readable error."""
    from pydantic import ValidationError

    from vitriflow.simulate import SessionSpec

    try:
        return SessionSpec.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "session"
        found = "" if isinstance(first["input"], dict) else repr(first["input"])
        message = first["msg"].removeprefix("Value error, ")
        raise BadParameter(where, message, found, "See 'vitriflow simulate --help'.") from None


def _play(session: "SessionSpec", out: Path) -> "SessionReport":
    """Play with a progress bar; the first interrupt ends the session cleanly."""
    from vitriflow.simulate import Written, simulate_session

    stop = Event()

    def ask_to_stop(number: int, _frame: FrameType | None) -> None:
        stop.set()
        signal.signal(number, before[signal.Signals(number)])  # a second one ends at once

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[last]}"),
    )
    before = {number: signal.signal(number, ask_to_stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with Progress(*columns, console=Console(stderr=True)) as progress:
            task = progress.add_task("Microscope", total=session.exposures, last="making the first movie")

            def show(written: Written) -> None:
                late = f" ({written.behind_s:.0f} s behind plan)" if written.behind_s > 2 else ""
                progress.update(task, advance=1, last=written.movie.name + late)

            return simulate_session(session, out, show, stop)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
