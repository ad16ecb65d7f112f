"""Grid boxes and grids. All functions work inside the caller's transaction."""

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session as OrmSession

from vitriflow.catalog import Experiment, Grid, GridBox, GridState, Sample, now
from vitriflow.elogbook.audit import audit
from vitriflow.elogbook.experiments import clean_name
from vitriflow.elogbook.permissions import Caller
from vitriflow.errors import BadParameter

_MOST = 64


def create_box(
    orm: OrmSession,
    caller: Caller,
    experiment: Experiment,
    name: str,
    *,
    container: str = "",
    n_grids: int = 4,
    comment: str = "",
) -> GridBox:
    """Make a box with so many positions, each with a grid that nobody named yet.

    Raises
    ------
    BadParameter
        When the name is taken or can't be used, or the number of grids is out of range.
    """
    name = clean_name("box's name", name)
    if not 1 <= n_grids <= _MOST:
        raise BadParameter("grids in the box", f"1 to {_MOST}", str(n_grids))
    mine = (GridBox.experiment_id == experiment.id, GridBox.name == name)
    if orm.scalar(select(GridBox.id).where(*mine)) is not None:
        raise BadParameter("box's name", f"one that {experiment.name} doesn't have yet", repr(name))
    box = GridBox(
        experiment_id=experiment.id,
        name=name,
        container=container.strip()[:64],
        comment=comment.strip()[:5000],
        created_at=now(),
    )
    orm.add(box)
    orm.flush()
    orm.add_all(Grid(box_id=box.id, position=number) for number in range(1, n_grids + 1))
    audit(orm, caller, "box.create", f"{experiment.name}/{name}", {"grids": n_grids})
    return box


def edit_grid(orm: OrmSession, caller: Caller, grid: Grid, **changes: Any) -> Grid:
    """Change a grid's ``name``, ``sample`` (its name, or none), ``state`` or ``comment``.

    Raises
    ------
    BadParameter
        When a value can't be right, or the sample isn't of the box's experiment.
    """
    unknown = set(changes) - {"name", "sample", "state", "comment"}
    if unknown:
        raise BadParameter(f"field '{min(unknown)}'", "name, sample, state or comment", "this name")
    box = orm.get_one(GridBox, grid.box_id)
    if "state" in changes:
        if changes["state"] not in tuple(GridState):
            raise BadParameter("state of the grid", ", ".join(GridState), repr(changes["state"])[:40])
        grid.state = changes["state"]
    if "sample" in changes:
        grid.sample_id = _sample_id(orm, box.experiment_id, changes["sample"])
    if "name" in changes:
        grid.name = str(changes["name"]).strip()[:64]
    if "comment" in changes:
        grid.comment = str(changes["comment"]).strip()[:5000]
    audit(orm, caller, "grid.write", f"{box.name}/{grid.position}", changes)
    return grid


def find_grid(orm: OrmSession, experiment_id: int, box: str, position: int) -> Grid:
    """The grid at a position of an experiment's box.

    Raises
    ------
    BadParameter
        When there's no such box or position.
    """
    query = (
        select(Grid)
        .join(GridBox, GridBox.id == Grid.box_id)
        .where(GridBox.experiment_id == experiment_id, GridBox.name == box, Grid.position == position)
    )
    grid = orm.scalar(query)
    if grid is None:
        raise BadParameter(
            "grid", "a box of this experiment and a position in it", f"{box!r}, position {position}"[:120]
        )
    return grid


def list_boxes(orm: OrmSession, experiment_id: int) -> list[dict[str, Any]]:
    """An experiment's boxes with their grids, as pages and the API show them."""
    boxes = orm.scalars(
        select(GridBox).where(GridBox.experiment_id == experiment_id).order_by(GridBox.id)
    ).all()
    rows = orm.execute(
        select(Grid, Sample.name)
        .outerjoin(Sample, Sample.id == Grid.sample_id)
        .where(Grid.box_id.in_([box.id for box in boxes]))
        .order_by(Grid.box_id, Grid.position)
    ).all()
    return [
        {
            "name": box.name,
            "container": box.container,
            "comment": box.comment,
            "created_at": box.created_at,
            "grids": [
                {
                    "id": grid.id,
                    "position": grid.position,
                    "name": grid.name,
                    "sample": sample,
                    "state": grid.state,
                    "comment": grid.comment,
                }
                for grid, sample in rows
                if grid.box_id == box.id
            ],
        }
        for box in boxes
    ]


def _sample_id(orm: OrmSession, experiment_id: int, name: str | None) -> int | None:
    if not name:
        return None
    mine = (Sample.experiment_id == experiment_id, Sample.name == name)
    found = orm.scalar(select(Sample.id).where(*mine))
    if found is None:
        raise BadParameter("sample on the grid", "a sample of this experiment", repr(name)[:80])
    return found
