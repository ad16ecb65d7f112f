"""Stop or go on: what more collection would bring, by REST."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from vitriflow.facility.outlook import session_outlook
from vitriflow.web.api import ProcessingName, SessionKey, json_answer
from vitriflow.web.auth import needs
from vitriflow.web.lookup import find_scene
from vitriflow.web.models import ErrorAnswer
from vitriflow.web.problems import NotFound
from vitriflow.web.site import site_of

_ERRORS: dict[int | str, dict[str, Any]] = {
    code: {"model": ErrorAnswer} for code in (401, 403, 404, 422, 503)
}
router = APIRouter(prefix="/api", responses=_ERRORS, tags=["processings"])


@router.get("/sessions/{key}/outlook", dependencies=[needs("session.read")])
def outlook(
    request: Request,
    key: SessionKey,
    processing: ProcessingName = None,
    target: Annotated[float | None, Query(ge=0.5, le=100, description="wanted resolution (A)")] = None,
) -> Response:
    """Particles kept an hour, resolution against particles, hours left to a target."""
    site = site_of(request)
    scene = site.read(lambda db: find_scene(site, db, key, processing))
    if scene.processing is None:
        raise NotFound("processing", "one that has begun", "none yet", "Wait until processing has begun.")
    return json_answer(session_outlook(site.catalog, scene.processing.id, target).as_dict())
