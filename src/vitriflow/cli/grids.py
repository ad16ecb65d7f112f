"""``vitriflow box``: grid boxes of an experiment, and what's in them."""

from typing import Annotated, Any

import typer

from vitriflow.cli.logbook import ExperimentArgument, JsonOption, print_json, print_table, with_catalog
from vitriflow.cli.options import ConfigOption, OutOption
from vitriflow.cli.people import this_user

box_app = typer.Typer(help="Grid boxes of an experiment, and what's in them.", no_args_is_help=True)
BoxArgument = Annotated[str, typer.Argument(help="a box's name")]


@box_app.command("list")
def list_boxes(
    experiment: ExperimentArgument,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    out: OutOption = None,
) -> None:
    """List boxes with their grids."""
    from vitriflow.elogbook import boxes, experiments

    found = with_catalog(
        config, out, lambda orm: boxes.list_boxes(orm, experiments.find_experiment(orm, experiment).id)
    )
    if as_json:
        print_json(found)
        return
    rows = [
        {**grid, "box": box["name"], "container": box["container"]} for box in found for grid in box["grids"]
    ]
    columns = ("box", "container", "position", "name", "sample", "state", "comment")
    print_table(rows, columns, "No boxes yet.")


@box_app.command("add")
def add_box(
    experiment: ExperimentArgument,
    name: BoxArgument,
    grids: Annotated[int, typer.Option(help="positions in it")] = 4,
    container: Annotated[str, typer.Option(help="puck or cassette that it's in")] = "",
    comment: Annotated[str, typer.Option(help="anything else")] = "",
    config: ConfigOption = None,
    out: OutOption = None,
) -> None:
    """Make a box."""
    from vitriflow.elogbook import boxes, experiments

    def work(orm: Any) -> None:
        award = experiments.find_experiment(orm, experiment)
        how: dict[str, Any] = {"container": container, "n_grids": grids, "comment": comment}
        boxes.create_box(orm, this_user(), award, name, **how)

    with_catalog(config, out, work)
    typer.echo(f"Made box {name} of {experiment}.", err=True)


@box_app.command("grid")
def change_grid(
    experiment: ExperimentArgument,
    box: BoxArgument,
    position: Annotated[int, typer.Argument(help="the grid's position in the box")],
    name: Annotated[str | None, typer.Option(help="its name")] = None,
    sample: Annotated[str | None, typer.Option(help="the sample on it; empty for none")] = None,
    state: Annotated[str | None, typer.Option(help="where it stands")] = None,
    comment: Annotated[str | None, typer.Option(help="anything else")] = None,
    config: ConfigOption = None,
    out: OutOption = None,
) -> None:
    """Change a grid; what isn't given stays."""
    from vitriflow.elogbook import boxes, experiments

    given = {"name": name, "sample": sample, "state": state, "comment": comment}
    changes = {key: value for key, value in given.items() if value is not None}

    def work(orm: Any) -> None:
        award = experiments.find_experiment(orm, experiment)
        boxes.edit_grid(orm, this_user(), boxes.find_grid(orm, award.id, box, position), **changes)

    with_catalog(config, out, work)
    typer.echo(f"Changed grid {position} of {box}.", err=True)
