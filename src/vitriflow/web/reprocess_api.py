"""Processing again, comparing and exporting by REST."""

from dataclasses import asdict
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from vitriflow.elogbook.marks import MOST
from vitriflow.elogbook.permissions import Caller
from vitriflow.exports import micrographs_star
from vitriflow.facility.reprocess import reprocess, reprocess_fields
from vitriflow.web.api import ProcessingName, SessionKey, json_answer
from vitriflow.web.auth import needs
from vitriflow.web.comparing import as_json, compared
from vitriflow.web.filters import Filter
from vitriflow.web.lookup import find_scene
from vitriflow.web.models import ErrorAnswer
from vitriflow.web.problems import NotFound
from vitriflow.web.selecting import filter_words, find_exposures
from vitriflow.web.site import site_of

Maker = Annotated[Caller, needs("session.reprocess")]
Name = Annotated[str, Field(max_length=64)]
Number = Annotated[int, Field(ge=1, le=2**63 - 1)]
Value = bool | int | float | str | None
_ERRORS: dict[int | str, dict[str, Any]] = {
    code: {"model": ErrorAnswer} for code in (401, 403, 404, 422, 503)
}
router = APIRouter(prefix="/api", responses=_ERRORS, tags=["processings"])


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class OnlyBody(_Body):
    """Exposures chosen as in the gallery: every part that's given has to hold."""

    exposures: list[Number] | None = Field(
        default=None, min_length=1, max_length=MOST, description="by their ids; without, by the filters alone"
    )
    status: str = Field(default="all", max_length=64)
    reason: str = Field(default="", max_length=64)
    mark: str = Field(default="", max_length=64, description="keep, reject, not-reject, comment or none")
    limits: str = Field(default="", max_length=64, description="pass or fail")
    square: str = Field(default="", max_length=128)
    hole: str = Field(default="", max_length=128)
    brush: str = Field(default="", max_length=1500)

    def as_filter(self) -> Filter:
        """The filters."""
        return Filter(**self.model_dump(exclude={"exposures"}))


class ProcessingBody(_Body):
    """A processing like another one of the session."""

    name: Name
    base: Name | None = Field(default=None, description="the processing it's like; the main one without")
    parameters: dict[str, Value] = Field(
        default_factory=dict, description="what to change, by the names of the form or of steps, or node.name"
    )
    only: OnlyBody | None = Field(
        default=None, description="some exposures only; without, all, those to come too"
    )


@router.get("/sessions/{key}/processings/form", dependencies=[needs("session.reprocess")])
def form(request: Request, key: SessionKey, base: ProcessingName = None) -> Response:
    """The questions of a new processing, each with the value that it has in the one it's like."""
    site = site_of(request)
    scene = site.read(lambda db: find_scene(site, db, key, base))
    if scene.processing is None:
        raise NotFound("processing", "one to begin from", "none yet", "Wait until processing has begun.")
    found = reprocess_fields(site.catalog, key, scene.processing.name)
    fields = [{**field.as_dict(), "value": value} for field, value in found]
    return json_answer({"base": scene.processing.name, "fields": fields})


@router.post("/sessions/{key}/processings", status_code=201)
def begin(request: Request, caller: Maker, key: SessionKey, body: ProcessingBody) -> Response:
    """Begin a processing with changed parameters, of all exposures or of some.

    ``notes`` say which of the values that were given don't act, or not everywhere.
    """
    site = site_of(request)
    scene = site.read(lambda db: find_scene(site, db, key, body.base))
    if scene.processing is None:
        raise NotFound("processing", "one to begin from", "none yet", "Wait until processing has begun.")
    base, exposures, said = scene.processing.name, None, ""
    if body.only is not None:
        only, wanted = body.only, body.only.as_filter()
        scene, exposures = site.read(lambda db: find_exposures(site, db, key, base, wanted))
        said = filter_words(wanted, scene)
        if only.exposures is not None:
            picked = set(only.exposures)
            known = set(exposures)
            # What isn't in the base's table yet is refused or taken by the session itself, not dropped.
            exposures = sorted(picked & known if said else picked)
            said = ", ".join(filter(None, [f"{len(picked)} by number", said]))
    begun = reprocess(
        site.catalog, caller, key, base, body.name, body.parameters, exposures=exposures, chosen_by=said
    )
    return json_answer({**asdict(begun), "base": base}, 201)


@router.get("/sessions/{key}/compare", dependencies=[needs("session.read")])
def compare(
    request: Request, key: SessionKey, first: ProcessingName = None, second: ProcessingName = None
) -> Response:
    """Two processings: medians over the exposures that both measured, counts, and parameters that differ."""
    site = site_of(request)
    return json_answer(as_json(*site.read(lambda db: compared(site, db, key, first or "", second or ""))))


@router.get(
    "/sessions/{key}/micrographs",
    dependencies=[needs("session.read")],
    response_class=Response,
    responses={200: {"content": {"text/plain": {}}}},
)
def micrographs(
    request: Request,
    key: SessionKey,
    processing: ProcessingName = None,
    which: Annotated[Literal["passing", "all"], Query(description="within the limits, or all")] = "passing",
) -> Response:
    """The finished micrographs as a RELION STAR, without those that people rejected."""
    site = site_of(request)
    scene = site.read(lambda db: find_scene(site, db, key, processing))
    if scene.processing is None:
        raise NotFound("processing", "one to export", "none yet", "Wait until processing has begun.")
    made = micrographs_star(site.catalog, scene.processing.id, passing=which == "passing")
    return Response(made.text, media_type="text/plain; charset=utf-8")
