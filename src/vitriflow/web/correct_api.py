"""Late corrections, people's verdicts on gates, and the pipeline's graph, by REST."""

from typing import Annotated, Any

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from vitriflow.elogbook.permissions import Caller
from vitriflow.facility.correct import correct, give_verdict, preview
from vitriflow.facility.graph import processing_graph
from vitriflow.web.api import ProcessingName, SessionKey, json_answer
from vitriflow.web.auth import needs
from vitriflow.web.lookup import find_scene
from vitriflow.web.models import ErrorAnswer
from vitriflow.web.problems import NotFound
from vitriflow.web.site import Site, site_of

Corrector = Annotated[Caller, needs("session.reprocess")]
Name = Annotated[str, Field(max_length=64)]
Value = bool | int | float | str | None
_ERRORS: dict[int | str, dict[str, Any]] = {
    code: {"model": ErrorAnswer} for code in (401, 403, 404, 422, 503)
}
router = APIRouter(prefix="/api", responses=_ERRORS, tags=["processings"])


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class CorrectionBody(_Body):
    """Values to put right, and nodes to do anew."""

    processing: Name | None = Field(default=None, description="which; the main one without")
    parameters: dict[str, Value] = Field(
        default_factory=dict,
        description="by name (for every node with it) or node.name; null goes back to what the template says",
    )
    restart: list[Name] = Field(
        default_factory=list, max_length=100, description="nodes to do anew in any case"
    )
    dry_run: bool = Field(default=False, description="only say what it would touch")


class VerdictBody(_Body):
    """A person's word on exposures that a gate judged."""

    processing: Name | None = None
    gate: Name = Field(description="the gate's node")
    exposures: list[Annotated[int, Field(ge=1, le=2**63 - 1)]] = Field(min_length=1, max_length=500)
    accept: bool | None = Field(
        description="true lets them pass, false rejects, null gives the gate its word back"
    )


def _name(site: Site, key: str, processing: str | None) -> str:
    scene = site.read(lambda db: find_scene(site, db, key, processing))
    if scene.processing is None:
        raise NotFound("processing", "one that has begun", "none yet", "Wait until processing has begun.")
    return scene.processing.name


@router.post("/sessions/{key}/corrections", status_code=202)
def begin(request: Request, caller: Corrector, key: SessionKey, body: CorrectionBody) -> Response:
    """Put parameters right: says which nodes and results that touches, and does just those anew."""
    site = site_of(request)
    name = _name(site, key, body.processing)
    if body.dry_run:
        _, touched = preview(site.catalog, key, body.parameters, body.restart, name)
        return json_answer({"processing": name, "touched": touched, "dry_run": True})
    done = correct(site.catalog, caller, key, body.parameters, body.restart, name)
    return json_answer(done.as_dict(), 202)


@router.post("/sessions/{key}/verdicts", status_code=202)
def verdict(request: Request, caller: Corrector, key: SessionKey, body: VerdictBody) -> Response:
    """Let a person's word on some exposures stand instead of a gate's."""
    site = site_of(request)
    name = _name(site, key, body.processing)
    done = give_verdict(site.catalog, caller, key, body.gate, body.exposures, body.accept, name)
    return json_answer({"processing": name, "carried_out": done}, 202)


@router.get("/sessions/{key}/graph", dependencies=[needs("session.read")])
def graph(request: Request, key: SessionKey, processing: ProcessingName = None) -> Response:
    """The pipeline as a graph: nodes with live counts, and edges."""
    site = site_of(request)
    scene = site.read(lambda db: find_scene(site, db, key, processing))
    if scene.processing is None:
        raise NotFound("processing", "one that has begun", "none yet", "Wait until processing has begun.")
    return json_answer(processing_graph(site.catalog, scene.processing.id))
