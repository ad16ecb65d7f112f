"""vitriflow mark, limits, reprocess, compare, export: what people say of exposures, and what follows from it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from vitriflow.cli.options import ConfigOption, OutOption, SetOption, configured, open_catalog, parse_settings
from vitriflow.errors import BadParameter

if TYPE_CHECKING:
    from sqlalchemy.orm import Session as OrmSession

    from vitriflow.catalog import Catalog
    from vitriflow.web.lookup import Scene
    from vitriflow.web.site import Site

T = TypeVar("T")
SessionArgument = Annotated[str, typer.Argument(help="a session's name")]
ProcessingOption = Annotated[
    str | None, typer.Option("--processing", help="one of its processings; the main one without")
]
OnlyOption = Annotated[
    list[str] | None,
    typer.Option(
        "--only",
        metavar="WHAT=VALUE",
        help="Choose exposures as in the gallery; all that's given has to hold: status=done, reason=CODE, "
        "mark=keep|reject|not-reject|comment|none, limits=pass|fail, square=NAME, hole=NAME, "
        "brush=QUANTITY:LOWEST:HIGHEST, id=1,2,3, or name=PART of an exposure's name",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="print JSON")]


def _opened(config: Path | None, out: Path | None, work: Callable[["Catalog"], T]) -> T:
    catalog = open_catalog(configured(config, out))
    try:
        return work(catalog)
    finally:
        catalog.close()


def _print_json(value: Any) -> None:
    import orjson

    typer.echo(orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_UTC_Z).decode())


def _site(catalog: "Catalog") -> "Site":
    """What the pages look up sessions with: commands choose exposures by the same filters."""
    from vitriflow.web.live import Hub
    from vitriflow.web.site import Site

    return Site("", catalog, Hub(catalog))


def _choose(
    catalog: "Catalog", session: str, processing: str | None, only: Sequence[str]
) -> tuple["Scene", list[int], str]:
    """Exposures of a session that pass the filters of the command line, and how to say it."""
    from vitriflow.catalog import views
    from vitriflow.web.selecting import PARTS, filter_from, filter_words, find_exposures

    parts: dict[str, str] = {}
    for text in only:
        name, sign, value = text.partition("=")
        if not sign or name in parts or name not in (*PARTS, "id", "name"):
            known = ", ".join((*PARTS, "id", "name"))
            raise BadParameter("--only", f"WHAT=VALUE, with WHAT once each of {known}", repr(text)[:80])
        parts[name] = value
    ids, part = parts.pop("id", None), parts.pop("name", None)
    wanted = filter_from(parts)
    site = _site(catalog)

    def work(db: "OrmSession") -> tuple["Scene", list[int]]:
        scene, found = find_exposures(site, db, session, processing, wanted)
        if part is not None:
            names = views.exposure_names(db, scene.session.id, found)
            found = [number for number in found if part in names.get(number, "")]
        return scene, found

    scene, found = catalog.read(work)
    said = [filter_words(wanted, scene)] if parts else []
    if ids is not None:
        picked = _numbers(ids)
        found = [number for number in found if number in picked]
        lost = sorted(picked - set(found))
        if lost:
            shown = ", ".join(map(str, lost[:5]))
            raise BadParameter(
                "--only id",
                f"exposures of {session} that pass the other filters",
                shown,
                "Check the numbers.",
            )
        said.append(f"{len(picked)} by number")
    if part is not None:
        said.append(f"name contains {part}")
    return scene, found, ", ".join(filter(None, said))


def _numbers(text: str) -> set[int]:
    try:
        return {int(one) for one in text.split(",")}
    except ValueError:
        raise BadParameter("--only id", "numbers of exposures, such as 12,13", repr(text)[:80]) from None


def mark(
    session: SessionArgument,
    kind: Annotated[str, typer.Argument(help="keep, reject or comment; undo takes the newest marks back")],
    only: OnlyOption = None,
    text: Annotated[str, typer.Option(help="the comment, or why")] = "",
    processing: ProcessingOption = None,
    config: ConfigOption = None,
    out: OutOption = None,
) -> None:
    """Keep, reject or comment exposures, chosen with --only; or take the newest mark of each back (undo).

    What people reject isn't usable: it leaves the RELION project, reports and the verdict say so.
    """
    from vitriflow.cli.people import this_user
    from vitriflow.elogbook.marks import mark_exposures, newest_marks, undo_marks

    if not only:
        raise BadParameter(
            "--only", "which exposures to mark", "nothing", "For example: --only name=FoilHole_123"
        )

    def work(catalog: "Catalog") -> int:
        scene, found, _ = _choose(catalog, session, processing, only)
        number, about = scene.session.id, f"session {session}"
        if kind != "undo":
            return len(
                catalog.write(lambda db: mark_exposures(db, this_user(), number, found, kind, text, about))
            )
        standing = catalog.read(lambda db: newest_marks(db, number, found))
        return catalog.write(lambda db: undo_marks(db, this_user(), number, standing, about))

    count = _opened(config, out, work)
    typer.echo(f"{count} mark{'' if count == 1 else 's'} {'undone' if kind == 'undo' else 'made'}.", err=True)


def limits(
    session: SessionArgument,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", "-s", metavar="QUANTITY=LOWEST:HIGHEST", help="either end may be left out"),
    ] = None,
    clear: Annotated[bool, typer.Option("--clear", help="take all limits away")] = False,
    processing: ProcessingOption = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    out: OutOption = None,
) -> None:
    """Show the limits of a processing and how many exposures pass; or set those named, leaving the others."""
    from vitriflow.catalog import views
    from vitriflow.cli.people import this_user
    from vitriflow.elogbook.marks import set_limits
    from vitriflow.web.lookup import find_scene
    from vitriflow.web.marks import limits_json

    def work(catalog: "Catalog") -> dict[str, Any]:
        site = _site(catalog)
        scene = catalog.read(lambda db: find_scene(site, db, session, processing))
        if scene.processing is None:
            raise BadParameter(
                "processing", "one that limits can be set for", "none yet", "Process it first."
            )
        number, about = scene.processing.id, f"session {session}, {scene.processing.name}"
        if settings or clear:
            pairs = {} if clear else dict(scene.overlay.limits)
            for one in settings or []:
                name, low, high = _pair(one)
                pairs[name] = [low, high]
            catalog.write(lambda db: set_limits(db, this_user(), number, pairs, views.QUANTITIES, about))
        return limits_json(catalog.read(lambda db: find_scene(site, db, session, processing)))

    found = _opened(config, out, work)
    if as_json:
        _print_json(found)
        return
    for name, (low, high) in found["values"].items():
        ends = ["-" if end is None else f"{end:g}" for end in (low, high)]
        typer.echo(f"{name}: {ends[0]} to {ends[1]}")
    typer.echo(
        f"{found['passing']} of {found['total']} pass{'' if found['values'] else ': there are no limits'}"
    )


def _pair(text: str) -> tuple[str, float | None, float | None]:
    name, _, ends = text.partition("=")
    try:
        low, high = (float(end) if end.strip() else None for end in ends.split(":"))
    except ValueError:
        raise BadParameter(
            "--set", "QUANTITY=LOWEST:HIGHEST", repr(text)[:80], "For example: --set fit_resolution_A=:6"
        ) from None
    return name.strip(), low, high


def reprocess(
    session: SessionArgument,
    name: Annotated[str, typer.Argument(help="name of the new processing")],
    settings: SetOption = None,
    only: OnlyOption = None,
    base: Annotated[
        str | None, typer.Option("--base", help="the processing that it's like; the main one without")
    ] = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    out: OutOption = None,
) -> None:
    """Begin a processing of a session with changed parameters, beside those that there are.

    It's for all exposures, those to come too; with --only just for those chosen now. 'vitriflow process' (or
    'up') does it. A value that a node sets itself is refused or told; NODE.PARAMETER changes one node alone.
    """
    from dataclasses import asdict

    from vitriflow.cli.people import this_user
    from vitriflow.facility.reprocess import Begun
    from vitriflow.facility.reprocess import reprocess as begin

    def work(catalog: "Catalog") -> "Begun":
        scene, found, said = _choose(catalog, session, base, only or [])
        if scene.processing is None:
            raise BadParameter("processing", "one to begin from", "none yet", "Process the session first.")
        chosen: dict[str, Any] = {"exposures": found, "chosen_by": said} if only else {}
        like = scene.processing.name
        return begin(catalog, this_user(), session, like, name, parse_settings(settings), **chosen)

    begun = _opened(config, out, work)
    if as_json:
        _print_json(asdict(begun))
        return
    many = "all exposures, those to come too" if begun.exposures is None else f"{begun.exposures} exposures"
    typer.echo(f"Began processing '{name}' of {many}.", err=True)
    for note in begun.notes:
        typer.echo(f"Note: {note}.", err=True)


def compare(
    session: SessionArgument,
    first: Annotated[str | None, typer.Argument(help="a processing; the oldest without")] = None,
    second: Annotated[str | None, typer.Argument(help="another; the main one without")] = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    out: OutOption = None,
) -> None:
    """Compare two processings: medians over the exposures that both measured, and parameters that differ."""
    from rich.console import Console
    from rich.table import Table

    from vitriflow.web.comparing import as_json as comparison
    from vitriflow.web.comparing import compared

    def work(catalog: "Catalog") -> dict[str, Any]:
        site = _site(catalog)
        return comparison(*catalog.read(lambda db: compared(site, db, session, first or "", second or "")))

    found = _opened(config, out, work)
    if as_json:
        _print_json(found)
        return
    console = Console()
    table = Table("median of both", found["first"], found["second"], "change", "exposures", box=None)
    for row in found["medians"]:
        unit = f" ({row['unit']})" if row["unit"] else ""
        table.add_row(row["label"] + unit, row["first"], row["second"], row["change"], str(row["both"]))
    console.print(table)
    for row in found["parameters"]:
        console.print(f"{row['name']}: {row['first']} -> {row['second']}", highlight=False, markup=False)


def export(
    session: SessionArgument,
    passing: Annotated[
        bool,
        typer.Option("--passing/--all", help="only those within the limits and kept ones, or all finished"),
    ] = True,
    to: Annotated[
        Path | None, typer.Option("--to", help="the STAR to write; else one in the RELION project")
    ] = None,
    processing: ProcessingOption = None,
    config: ConfigOption = None,
    out: OutOption = None,
) -> None:
    """Write the finished micrographs as a RELION STAR, without those that people rejected. Prints its name."""
    from vitriflow.exports import micrographs_star, write_star_text
    from vitriflow.web.lookup import find_scene

    def work(catalog: "Catalog") -> Any:
        site = _site(catalog)
        scene = catalog.read(lambda db: find_scene(site, db, session, processing))
        if scene.processing is None:
            raise BadParameter("processing", "one to export", "none yet", "Process the session first.")
        made = micrographs_star(catalog, scene.processing.id, passing=passing)
        name = f"micrographs_{'passing' if passing else 'all'}.star"
        return made, write_star_text(made.text, to or Path(scene.processing.root) / name)

    made, path = _opened(config, out, work)
    left = f"{made.rejected} rejected by people" + (f", {made.outside} outside the limits" if passing else "")
    typer.echo(f"{made.count} micrographs of {made.source}; left out: {left}.", err=True)
    typer.echo(f"{path}")
