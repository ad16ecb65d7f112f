"""``vitriflow recognise FOLDER``: what each file of a microscope's folder is; touches nothing."""

from collections import Counter, defaultdict
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer

if TYPE_CHECKING:
    from vitriflow.acquisition.listing import Entry, Listing

_NAMED = 20  # unknown files, series and squares named one by one
_WORDS = {
    "movie": "movies",
    "metadata": "metadata files (XML, mdoc)",
    "gain": "gain references and defect lists",
    "atlas": "atlas files",
    "grid_square_image": "pictures of grid squares",
    "foil_hole_image": "pictures of foil holes",
    "preview": "previews and sums",
    "session": "session records",
    "montage": "montages and maps",
    "unknown": "unknown",
}


def recognise(
    folder: Annotated[Path, typer.Argument(help="what a microscope wrote")],
    json: Annotated[
        bool, typer.Option("--json", help="one JSON array on standard output, an object a file")
    ] = False,
    names_only: Annotated[
        bool, typer.Option("--names-only", help="open no file: names alone decide")
    ] = False,
) -> None:
    """Say what each file of a folder is, and which exposures, tilt series and squares there are.

    Touches nothing. Files that no recogniser claims are counted and named.
    """
    from vitriflow.acquisition.listing import list_folder

    listing = list_folder(folder.expanduser(), read=not names_only)
    for name in listing.unreadable:
        typer.secho(
            f"vitriflow: folder {name} may not be listed; what's in it isn't counted", err=True, fg="yellow"
        )
    if json:
        options = orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS
        typer.echo(orjson.dumps([asdict(entry) for entry in listing.entries], option=options).decode())
    else:
        _tell(listing)


def _tell(listing: "Listing") -> None:
    entries = listing.entries
    if not entries:
        typer.echo("There's no file here.")
        return
    kinds: dict[str, Counter[str]] = defaultdict(Counter)
    for entry in entries:
        kinds[entry.kind][entry.software or "any program"] += 1
    for kind in [kind for kind in _WORDS if kind in kinds]:
        who = ", ".join(f"{name} {n}" for name, n in kinds[kind].most_common())
        total = sum(kinds[kind].values())
        typer.echo(f"{total:8,}  {_WORDS[kind]}" + (f" ({who})" if kind != "unknown" else ""))
    exposures = {entry.exposure for entry in entries if entry.exposure}
    typer.echo(f"{len(exposures):8,}  exposures that these belong to")
    _tell_optics(listing)
    _tell_series(entries)
    _tell_squares(entries)
    unknown = [entry.path for entry in entries if entry.kind == "unknown"]
    if unknown:
        typer.secho(f"\nNo recogniser claims these {len(unknown):,}:", fg="yellow")
        _some(unknown)


def _tell_optics(listing: "Listing") -> None:
    bases = Counter(group.basis for group in listing.optics_groups().groups)
    for basis, number in sorted(bases.items()):
        if basis != "none":
            typer.echo(f"{number:8,}  optics groups by {basis.replace('_', ' ')}")


def _tell_series(entries: "list[Entry]") -> None:
    series: dict[str, list[Any]] = defaultdict(list)
    for entry in entries:
        if entry.tilt_series and entry.kind in ("movie", "metadata"):
            tilts = series[entry.tilt_series]
            if entry.kind == "movie":
                tilts.append((entry.metadata or {}).get("tilt_angle_deg"))
    if series:
        typer.echo(f"\n{len(series):,} tilt series:")
        _some([_series(name, tilts) for name, tilts in sorted(series.items())])


def _series(name: str, tilts: list[Any]) -> str:
    angles = [angle for angle in tilts if angle is not None]
    span = f", {min(angles):g} to {max(angles):g} degrees" if angles else ""
    return f"{name}: {len(tilts)} movies{span}"


def _tell_squares(entries: "list[Entry]") -> None:
    holes: dict[str, set[str]] = defaultdict(set)
    exposures: dict[str, set[str]] = defaultdict(set)
    for entry in entries:
        if entry.grid_square:
            holes[entry.grid_square] |= {entry.foil_hole} if entry.foil_hole else set()
            exposures[entry.grid_square] |= {entry.exposure} if entry.exposure else set()
    if holes:
        typer.echo(f"\n{len(holes):,} grid squares:")
        _some(
            [
                f"{name}: {len(holes[name])} foil holes, {len(exposures[name])} exposures"
                for name in sorted(holes)
            ]
        )


def _some(lines: list[str]) -> None:
    for line in lines[:_NAMED]:
        typer.echo(f"    {line}")
    if len(lines) > _NAMED:
        typer.echo(f"    and {len(lines) - _NAMED:,} more (all with --json)")
