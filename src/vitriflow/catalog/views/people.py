"""Queries about what people said and set: marks and limits; and about where exposures lie."""

from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session as OrmSession

from vitriflow.catalog.custody import Place
from vitriflow.catalog.logbook import Limits, Mark
from vitriflow.catalog.tables import Event, Exposure, ExposureState

#: exposure id, whole yet, grid square, foil hole, stage x and y (um)
Position = tuple[int, bool, str | None, str | None, float | None, float | None]


def marks_stamp(db: OrmSession, session_id: int) -> tuple[int, int]:
    """What changes when a mark is made or undone: newest number, and how many were undone."""
    query = select(func.max(Mark.id), func.count(Mark.undone_at)).where(Mark.session_id == session_id)
    newest, undone = db.execute(query).one()
    return newest or 0, undone or 0


def standing_marks(db: OrmSession, session_id: int) -> list[tuple[int, str]]:
    """Exposure id and kind of all marks that weren't undone, oldest first."""
    query = (
        select(Mark.exposure_id, Mark.kind)
        .where(Mark.session_id == session_id, Mark.undone_at.is_(None))
        .order_by(Mark.id)
    )
    return [(number, kind) for number, kind in db.execute(query)]


def newest_limits(db: OrmSession, processing_id: int) -> dict[str, Any] | None:
    """The limits that count for a processing: id, values, author, at; None when none were set."""
    query = select(Limits).where(Limits.processing_id == processing_id).order_by(Limits.id.desc()).limit(1)
    row = db.scalar(query)
    if row is None:
        return None
    return {"id": row.id, "values": dict(row.values), "author": row.author, "at": row.at}


def positions_since(db: OrmSession, session_id: int, after: int) -> list[Position]:
    """Where exposures with an id above ``after`` lie, by id."""
    x, y = (Exposure.details[name].as_float() for name in ("stage_x_um", "stage_y_um"))
    columns = (Exposure.id, Exposure.state, Exposure.grid_square, Exposure.foil_hole, x, y)
    query = select(*columns).where(Exposure.session_id == session_id)
    if after:
        query = query.where(Exposure.id > after)
    return [
        (number, state == ExposureState.COMPLETE, square, hole, px, py)
        for number, state, square, hole, px, py in db.execute(query.order_by(Exposure.id))
    ]


def places(db: OrmSession, session_id: int, kind: str) -> dict[str, tuple[float | None, float | None]]:
    """Stage positions (um) of a session's places of one kind, by name."""
    query = select(Place.name, Place.stage_x_um, Place.stage_y_um).where(
        Place.session_id == session_id, Place.kind == kind
    )
    return {name: (x, y) for name, x, y in db.execute(query)}


def gain_events(db: OrmSession, session_id: int, after: int) -> tuple[int, list[tuple[int | None, str, str]]]:
    """Newest event's number, and of those above ``after`` the gain checks: processing, severity, text; oldest first."""
    mine = Event.session_id == session_id
    newest = db.scalar(select(func.max(Event.id)).where(mine)) or 0
    if newest <= after:
        return newest, []
    query = (
        select(Event.processing_id, Event.severity, Event.text)
        .where(mine, Event.id > after, Event.text.startswith("Gain check"))
        .order_by(Event.id)
    )
    return newest, [(number, severity, text) for number, severity, text in db.execute(query)]
