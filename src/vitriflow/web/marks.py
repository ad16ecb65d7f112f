"""Marks and limits by REST: what people say of exposures, and the thresholds that they set."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session as OrmSession

from vitriflow.catalog import views
from vitriflow.elogbook.marks import LONGEST, MOST, list_marks, mark_exposures, set_limits, undo_marks
from vitriflow.elogbook.permissions import Caller
from vitriflow.web.api import ProcessingName, SessionKey, json_answer
from vitriflow.web.auth import needs
from vitriflow.web.limits import Pairs
from vitriflow.web.lookup import Scene, find_scene
from vitriflow.web.models import ErrorAnswer
from vitriflow.web.problems import NotFound
from vitriflow.web.site import site_of

Marker = Annotated[Caller, needs("session.mark")]
Limiter = Annotated[Caller, needs("session.reprocess")]
Number = Annotated[int, Field(ge=1, le=2**63 - 1)]
_ERRORS: dict[int | str, dict[str, Any]] = {
    code: {"model": ErrorAnswer} for code in (401, 403, 404, 422, 503)
}
router = APIRouter(prefix="/api", responses=_ERRORS, tags=["marks"])


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class MarkBody(_Body):
    """Exposures to mark."""

    exposures: list[Number] = Field(min_length=1, max_length=MOST)
    kind: Literal["keep", "reject", "comment"]
    text: str = Field(default="", max_length=LONGEST, description="the comment, or why")


class UndoBody(_Body):
    """Marks to undo, by their numbers."""

    marks: list[Number] = Field(min_length=1, max_length=MOST)


_End = Annotated[float, Field(allow_inf_nan=False)]


class LimitsBody(_Body):
    """Quantity -> lowest and highest value that passes; null for none. Quantities left out have no limits."""

    values: dict[
        str,
        Annotated[
            list[Annotated[float, Field(allow_inf_nan=False)] | None], Field(min_length=2, max_length=2)
        ],
    ]


@router.get("/sessions/{key}/marks", dependencies=[needs("session.read")])
def show_marks(
    request: Request,
    key: SessionKey,
    exposure: Annotated[int | None, Query(ge=1, le=2**63 - 1)] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 200,
) -> Response:
    """Marks of a session, or of one exposure, newest first; undone ones too."""
    site = site_of(request)

    def work(db: OrmSession) -> list[dict[str, Any]]:
        return list_marks(db, find_scene(site, db, key).session.id, exposure, limit)

    return json_answer({"marks": site.read(work)})


@router.post("/sessions/{key}/marks", status_code=201)
def make_marks(request: Request, caller: Marker, key: SessionKey, body: MarkBody) -> Response:
    """Mark exposures: keep, reject or a comment. Answers the marks' numbers, to undo them by."""
    site = site_of(request)
    session = site.read(lambda db: find_scene(site, db, key)).session

    def work(db: OrmSession) -> list[int]:
        return mark_exposures(db, caller, session.id, body.exposures, body.kind, body.text, f"session {key}")

    made = site.catalog.write(work)
    return json_answer({"marks": made, "kind": body.kind}, 201)


@router.post("/sessions/{key}/marks/undo")
def unmake_marks(request: Request, caller: Marker, key: SessionKey, body: UndoBody) -> Response:
    """Undo marks; they stay readable."""
    site = site_of(request)
    session = site.read(lambda db: find_scene(site, db, key)).session
    undone = site.catalog.write(lambda db: undo_marks(db, caller, session.id, body.marks, f"session {key}"))
    return json_answer({"undone": undone})


@router.get("/sessions/{key}/limits", dependencies=[needs("session.read")])
def show_limits(request: Request, key: SessionKey, processing: ProcessingName = None) -> Response:
    """The limits that count for a processing, who set them, and how many exposures pass."""
    site = site_of(request)
    return json_answer(limits_json(site.read(lambda db: find_scene(site, db, key, processing))))


@router.post("/sessions/{key}/limits")
def save_limits(
    request: Request, caller: Limiter, key: SessionKey, body: LimitsBody, processing: ProcessingName = None
) -> Response:
    """Set the limits of a processing in place of those before; without any, all pass."""
    site = site_of(request)
    scene = site.read(lambda db: find_scene(site, db, key, processing))
    if scene.processing is None:
        raise NotFound("processing", "one that limits can be set for", "none yet", "Start processing first.")
    number, name = scene.processing.id, scene.processing.name
    pairs: Pairs = body.values
    site.catalog.write(
        lambda db: set_limits(db, caller, number, pairs, views.QUANTITIES, f"session {key}, {name}")
    )
    return json_answer(limits_json(site.read(lambda db: find_scene(site, db, key, name))))


def limits_json(scene: Scene) -> dict[str, Any]:
    """Limits as the API gives them."""
    overlay, snapshot = scene.overlay, scene.snapshot
    return {
        "values": overlay.limits,
        "author": overlay.limits_by,
        "at": overlay.limits_at,
        "passing": int(overlay.passing(snapshot).sum()),
        "total": snapshot.size,
    }
