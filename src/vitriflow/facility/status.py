"""Answers 'how is it going' and 'how did this come to be' for one or all sessions."""

from dataclasses import asdict
from typing import Any

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session as OrmSession

from vitriflow.catalog import (
    Attempt,
    Catalog,
    Exposure,
    ExposureState,
    Measure,
    Processing,
    Session,
    SessionState,
    Task,
)
from vitriflow.catalog.views import span_stats
from vitriflow.elogbook import find_session
from vitriflow.errors import BadParameter
from vitriflow.monitors import open_alarms
from vitriflow.pipeline import CameraFile, Counts, Link, Tally, counts, explain

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

    def work(orm: OrmSession) -> list[tuple[Session, Processing | None]]:
        query = select(Session, Processing).outerjoin(Processing, Processing.session_id == Session.id)
        if only is not None:
            query = query.where(Session.id == only)
        return [(row[0], row[1]) for row in orm.execute(query.order_by(Session.id.desc(), Processing.id))]

    entries = []
    for session, processing in catalog.read(work):
        entry: dict[str, Any] = {
            "session": session.key,
            "state": session.state,
            "processing": processing.name if processing else None,
            "source": session.source,
            "root": processing.root if processing else session.root,
            **_counted(catalog, processing.id if processing else None, session.id),
            "files": session.survey,
        }
        if only is not None or session.state == SessionState.ACTIVE:
            entry["spans"] = catalog.read(lambda orm, number=session.id: span_stats(orm, number))  # type: ignore[misc]
            entry["alarms"] = catalog.read(lambda orm, number=session.id: open_alarms(orm, number))  # type: ignore[misc]
        if only is not None:
            entry["problems"] = _problems(catalog, processing.id) if processing else []
        entries.append(entry)
    return entries


def _counted(catalog: Catalog, processing_id: int | None, session_id: int) -> dict[str, Any]:
    if processing_id is None:
        mine = select(func.count()).select_from(Exposure).where(Exposure.session_id == session_id)
        found = Counts(Tally(), {}, catalog.read(lambda orm: orm.scalar(mine)) or 0)
    else:
        found = counts(catalog, processing_id)
    return {
        "counts": asdict(found.exposures),
        "arriving": found.arriving,
        "nodes": {name: asdict(tally) for name, tally in found.nodes.items()},
    }


def all_alarms(catalog: Catalog) -> list[dict[str, Any]]:
    """Alarms of the whole facility that aren't over, newest first."""
    return catalog.read(open_alarms)


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
    """The chain from an exposure's results back to the camera's file, ready for JSON.

    Raises
    ------
    BadParameter
        When the session, the processing or the exposure isn't there, or more than one fits.
    CatalogError
        When the node has no result.
    """
    session_id = find_session(catalog, session).id

    def work(orm: OrmSession) -> tuple[int | None, list[Exposure]]:
        found = orm.scalar(
            select(Processing.id).where(Processing.session_id == session_id, Processing.name == processing)
        )
        mine = Exposure.session_id == session_id
        exact = select(Exposure).where(mine, or_(Exposure.key == exposure, Exposure.item == exposure))
        part = select(Exposure).where(mine, Exposure.key.contains(exposure, autoescape=True)).limit(4)
        return found, list(orm.scalars(exact)) or list(orm.scalars(part))

    processing_id, exposures = catalog.read(work)
    if processing_id is None:
        raise BadParameter(f"processing '{processing}'", f"one of session {session}", "none of that name", "")
    if len(exposures) != 1:
        found = "none" if not exposures else "several: " + ", ".join(row.key for row in exposures)
        remedy = "Give more of its path."
        raise BadParameter(f"exposure '{exposure}'", "one exposure of this session", found, remedy)
    (row,) = exposures
    chain: dict[str, Any] = {"exposure": row.key, "state": row.state}
    if row.state == ExposureState.PROBLEM:
        return chain | {"reason_code": row.problem_code, "reason": row.problem, "path": row.path}
    attempts = _failed_attempts(catalog, processing_id, row.id)
    links = explain(catalog, processing_id=processing_id, item=row.key, node=node)
    return chain | {"results": [_told(link) for link in links], "attempts_that_failed": attempts}


def _failed_attempts(catalog: Catalog, processing_id: int, exposure_id: int) -> list[dict[str, Any]]:
    query = (
        select(Task.node, Attempt.number, Attempt.reason_code, Attempt.reason, Attempt.ended_at)
        .join(Task, Task.id == Attempt.task_id)
        .where(Task.processing_id == processing_id, Task.item_id == exposure_id)
        .order_by(Attempt.id)
    )
    return [dict(row._mapping) for row in catalog.read(lambda orm: list(orm.execute(query)))]


def _told(link: Link | CameraFile) -> dict[str, Any]:
    """A link of the chain in plain words; long tables of numbers are left to the result itself."""
    if isinstance(link, CameraFile):
        return {"camera_file": asdict(link)}
    provenance = dict(link.record.get("provenance") or {})
    inputs = provenance.pop("inputs", {})
    return {
        "node": link.node,
        "result": link.result_id,
        "revision": link.revision,
        "status": link.status,
        "reason": link.record.get("reason"),
        "warnings": link.record.get("warnings", []),
        "outputs": {port: made["path"] for port, made in link.record.get("outputs", {}).items()},
        **provenance,
        "made_from": {
            port: {"hash_blake3": (inputs.get(port) or {}).get("blake3"), **_told(source)}
            for port, source in link.inputs.items()
        },
    }
