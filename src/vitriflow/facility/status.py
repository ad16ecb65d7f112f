"""Answers 'how is it going' and 'how did this come to be' for one or all sessions."""

from dataclasses import asdict
from typing import Any

from sqlalchemy import or_, select
from sqlalchemy.orm import Session as OrmSession

from vitriflow.catalog import Catalog, Exposure, Measure, Processing, Session
from vitriflow.elogbook import find_session
from vitriflow.errors import BadParameter
from vitriflow.pipeline import counts, explain

_PROBLEMS_SHOWN = 20


def session_status(catalog: Catalog, key: str | None = None) -> list[dict[str, Any]]:
    """One entry for each processing of each session, newest first, with counts that add up.

    Parameters
    ----------
    key
        Only this session, with the exposures that didn't end well.

    Raises
    ------
    BadParameter
        When there's no session of that key.
    """
    only = find_session(catalog, key).id if key is not None else None

    def work(orm: OrmSession) -> list[tuple[Session, Processing]]:
        query = select(Session, Processing).join(Processing, Processing.session_id == Session.id)
        if only is not None:
            query = query.where(Session.id == only)
        return [(row[0], row[1]) for row in orm.execute(query.order_by(Session.id.desc(), Processing.id))]

    entries = []
    for session, processing in catalog.read(work):
        entry: dict[str, Any] = {
            "session": session.key,
            "state": session.state,
            "processing": processing.name,
            "source": session.source,
            "root": processing.root,
            "counts": asdict(counts(catalog, processing.id)),
            "files": session.survey,
        }
        if only is not None:
            entry["problems"] = _problems(catalog, processing.id)
        entries.append(entry)
    return entries


def _problems(catalog: Catalog, processing_id: int) -> list[dict[str, Any]]:
    query = (
        select(Exposure.key, Measure.status, Measure.reason_code, Measure.reason)
        .join(Exposure, Exposure.id == Measure.exposure_id)
        .where(Measure.processing_id == processing_id, Measure.status.in_(("quarantined", "failed")))
        .order_by(Measure.exposure_id.desc())
        .limit(_PROBLEMS_SHOWN)
    )
    rows = catalog.read(lambda orm: list(orm.execute(query)))
    return [
        {"exposure": key, "status": status, "reason_code": code, "reason": reason}
        for key, status, code, reason in rows
    ]


def explain_exposure(
    catalog: Catalog, session: str, processing: str, exposure: str, node: str | None
) -> dict[str, Any]:
    """The chain from an exposure's results back to the camera's file.

    Raises
    ------
    BadParameter
        When the session, the processing or the exposure isn't there, or more than one fits.
    """
    session_id = find_session(catalog, session).id

    def work(orm: OrmSession) -> tuple[int | None, list[str]]:
        found = orm.scalar(
            select(Processing.id).where(Processing.session_id == session_id, Processing.name == processing)
        )
        exact = select(Exposure.item).where(
            Exposure.session_id == session_id, or_(Exposure.key == exposure, Exposure.item == exposure)
        )
        part = (
            select(Exposure.item)
            .where(Exposure.session_id == session_id, Exposure.key.contains(exposure, autoescape=True))
            .limit(4)
        )
        return found, list(orm.scalars(exact)) or list(orm.scalars(part))

    processing_id, items = catalog.read(work)
    if processing_id is None:
        raise BadParameter(f"processing '{processing}'", f"one of session {session}", "none of that name", "")
    if len(items) != 1:
        found = "none" if not items else "several: " + ", ".join(items)
        raise BadParameter(
            f"exposure '{exposure}'", "one exposure of this session", found, "Give more of its path."
        )
    return explain(catalog, processing_id, items[0], node)
