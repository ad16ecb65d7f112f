"""The JSON API of results; every name in a request is looked up in the catalog."""

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import FileResponse, Response
from sqlalchemy.orm import Session as OrmSession
from sse_starlette import EventSourceResponse
from starlette.concurrency import run_in_threadpool

import vitriflow
from vitriflow.catalog import views
from vitriflow.monitors import open_alarms
from vitriflow.web import models
from vitriflow.web.auth import Caller, needs, while_allowed
from vitriflow.web.detail import as_json, find_detail
from vitriflow.web.files import PICTURE_TYPES, allowed_file, output_path
from vitriflow.web.filters import Wanted, select_rows
from vitriflow.web.lookup import PICTURES, Scene, cards, find_preview, find_scene, node_counts
from vitriflow.web.picks import picks_answer
from vitriflow.web.plots import DEFAULT_POINTS, MOST_POINTS, column_answer
from vitriflow.web.problems import NotFound
from vitriflow.web.site import Site, site_of
from vitriflow.web.summary import summarise

PRINTABLE = r"^[^\x00-\x1f\x7f]+$"
SessionKey = Annotated[str, Path(min_length=1, max_length=128, pattern=PRINTABLE)]
ExposureId = Annotated[int, Path(ge=1, le=2**63 - 1)]
ProcessingName = Annotated[str | None, Query(min_length=1, max_length=64, pattern=PRINTABLE)]
Word = Annotated[str, Query(max_length=64, pattern=r"^[A-Za-z0-9_.-]*$")]
Offset = Annotated[int, Query(ge=0, le=10_000_000)]

_ERRORS: dict[int | str, dict[str, Any]] = {
    404: {"model": models.ErrorAnswer},
    422: {"model": models.ErrorAnswer},
    503: {"model": models.ErrorAnswer},
}
router = APIRouter(prefix="/api", responses=_ERRORS)


def json_answer(value: Any, status: int = 200) -> Response:
    """An answer in JSON; times are UTC with a Z."""
    options = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS | orjson.OPT_UTC_Z
    return Response(orjson.dumps(value, option=options), status, media_type="application/json")


def summary_json(site: Site, scene: Scene) -> dict[str, Any]:
    """A session's summary as the API gives it."""
    summary = summarise(scene.session, scene.snapshot, scene.overlay)
    return {
        **asdict(summary),
        "counts": {**asdict(summary.counts), "reconciles": summary.counts.reconciles},
        "scan_interval_s": site.scan_interval_s,
        "last": None if summary.last is None else datetime.fromtimestamp(summary.last, UTC),
    }


def _session_json(site: Site, scene: Scene) -> dict[str, Any]:
    session = scene.session
    return {
        "key": session.key,
        "state": session.state,
        "microscope": session.microscope,
        "sample": session.sample,
        "experiment": session.experiment,
        "created_at": session.created_at,
        "closed_at": session.closed_at,
        "residence": session.residence,
        "processings": [
            {
                name: getattr(one, name)
                for name in ("name", "state", "change", "created_at", "selected", "selection")
            }
            for one in scene.processings
        ],
        "summary": summary_json(site, scene),
    }


@router.get("/health", response_model=models.HealthAnswer, dependencies=[needs("anyone")])
def health(request: Request) -> Response:
    """Whether the server and its catalog answer."""
    site_of(request).read(views.count_sessions)
    return json_answer({"status": "ok", "version": vitriflow.__version__, "catalog": "ok"})


@router.get("/sessions", response_model=models.SessionsAnswer)
def sessions(
    request: Request,
    caller: Annotated[Caller, needs("own.list")],
    offset: Offset = 0,
    limit: Annotated[int, Query(ge=1, le=100)] = 25,
) -> Response:
    """Sessions, newest first."""
    site = site_of(request)

    def work(db: OrmSession) -> dict[str, Any]:
        found = views.list_sessions(db, limit, offset, caller.experiments)
        scenes = [find_scene(site, db, one.key) for one in found]
        return {
            "total": views.count_sessions(db, caller.experiments),
            "sessions": [_session_json(site, scene) for scene in scenes],
        }

    return json_answer(site.read(work))


@router.get(
    "/sessions/{key}", response_model=models.SessionDetailAnswer, dependencies=[needs("session.read")]
)
def session(request: Request, key: SessionKey, processing: ProcessingName = None) -> Response:
    """One session with its nodes, imaging parameters and what its folder holds."""
    site = site_of(request)

    def work(db: OrmSession) -> dict[str, Any]:
        scene = find_scene(site, db, key, processing)
        return {
            **_session_json(site, scene),
            "settings": scene.session.settings,
            "survey": scene.session.survey,
            "unknown": views.unknown_files(db, scene.session.id),
            "nodes": [asdict(node) for node in node_counts(site, db, scene)],
            "alarms": open_alarms(db, scene.session.id),
            "spans": views.span_stats(db, scene.session.id),
        }

    return json_answer(site.read(work))


@router.get(
    "/sessions/{key}/counts", response_model=models.SummaryAnswer, dependencies=[needs("session.read")]
)
def counts(request: Request, key: SessionKey, processing: ProcessingName = None) -> Response:
    """Counts that reconcile, rate, latency, problems and verdict."""
    site = site_of(request)
    return json_answer(site.read(lambda db: summary_json(site, find_scene(site, db, key, processing))))


@router.get(
    "/sessions/{key}/columns", response_model=models.ColumnsAnswer, dependencies=[needs("session.read")]
)
def columns(
    request: Request,
    key: SessionKey,
    processing: ProcessingName = None,
    since: Annotated[int, Query(ge=-1, le=2**63 - 1, description="change seen last; -1 for all")] = -1,
    known: Annotated[int, Query(ge=0, le=2**63 - 1, description="exposures known")] = 0,
    points: Annotated[int, Query(ge=100, le=MOST_POINTS, description="most points a quantity")] = (
        DEFAULT_POINTS
    ),
) -> Response:
    """Values to plot, thinned so that no outlier is lost; only what is new when ``since`` is given."""
    site = site_of(request)
    scene = site.read(lambda db: find_scene(site, db, key, processing))
    return json_answer(column_answer(scene.snapshot, since, known, points))


@router.get(
    "/sessions/{key}/exposures", response_model=models.ExposuresAnswer, dependencies=[needs("session.read")]
)
def exposures(
    request: Request,
    key: SessionKey,
    wanted: Wanted,
    processing: ProcessingName = None,
    sort: Word = "newest",
    order: Annotated[str, Query(pattern="^(asc|desc)$")] = "desc",
    offset: Offset = 0,
    limit: Annotated[int, Query(ge=1, le=200)] = 48,
) -> Response:
    """A window on the exposures that pass a filter. What wasn't measured sorts last."""
    site = site_of(request)

    def work(db: OrmSession) -> dict[str, Any]:
        scene = find_scene(site, db, key, processing, positions=wanted.by_place)
        rows = select_rows(scene.snapshot, scene.overlay, wanted, sort, order == "desc")
        shown = cards(site, db, scene, rows[offset : offset + limit])
        return {"total": len(rows), "offset": offset, "limit": limit, "exposures": shown}

    return json_answer(site.read(work))


@router.get(
    "/sessions/{key}/exposures/{exposure_id}",
    response_model=models.ExposureAnswer,
    dependencies=[needs("session.read")],
)
def exposure(
    request: Request, key: SessionKey, exposure_id: ExposureId, processing: ProcessingName = None
) -> Response:
    """One exposure with the record that each node left."""
    site = site_of(request)
    detail = site.read(lambda db: find_detail(db, find_scene(site, db, key, processing), exposure_id))
    return json_answer(as_json(detail))


@router.get(
    "/sessions/{key}/exposures/{exposure_id}/picks",
    response_model=models.PicksAnswer,
    dependencies=[needs("session.read")],
)
def picks(
    request: Request,
    key: SessionKey,
    exposure_id: ExposureId,
    processing: ProcessingName = None,
    min_score: Annotated[float | None, Query(allow_inf_nan=False)] = None,
) -> Response:
    """Particle positions and scores, highest score first."""
    site = site_of(request)
    detail = site.read(lambda db: find_detail(db, find_scene(site, db, key, processing), exposure_id))
    return json_answer(picks_answer(detail, min_score))


@router.get(
    "/sessions/{key}/exposures/{exposure_id}/picture/{name}",
    dependencies=[needs("session.read")],
    response_class=FileResponse,
    responses={200: {"content": {"image/png": {}, "image/jpeg": {}}}},
)
def picture(
    request: Request,
    key: SessionKey,
    exposure_id: ExposureId,
    name: Annotated[str, Path(pattern="^(" + "|".join(PICTURES) + ")$")],
    processing: ProcessingName = None,
    result: Annotated[int | None, Query(ge=0, description="the result it's of; for caching only")] = None,
) -> FileResponse:
    """A small picture: micrograph, thumbnail or spectrum."""
    site = site_of(request)

    def work(db: OrmSession) -> tuple[Scene, str | None]:
        scene = find_scene(site, db, key, processing)
        return scene, output_path(find_preview(site, db, scene, exposure_id), name)

    scene, path = site.read(work)
    if path is None:
        raise NotFound("picture", f"a {name} of exposure {exposure_id}", "none yet", "Wait for its preview.")
    real = allowed_file(path, scene.session, scene.processing)
    kind = PICTURE_TYPES.get(real.suffix.lower())
    if kind is None:
        raise NotFound("picture", "a PNG or JPEG file", real.suffix, "The preview step must write one.")
    # The address changes with the result, so what it gave once it gives always.
    keep = "private, max-age=31536000, immutable" if result else "no-cache"
    return FileResponse(real, media_type=kind, headers={"cache-control": keep})


@router.get(
    "/sessions/{key}/events", response_model=models.EventsAnswer, dependencies=[needs("session.read")]
)
def events(
    request: Request,
    key: SessionKey,
    before: Annotated[int | None, Query(ge=1, le=2**63 - 1)] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> Response:
    """What happened, newest first; ``before`` pages back."""
    site = site_of(request)

    def work(db: OrmSession) -> dict[str, Any]:
        found = find_scene(site, db, key).session
        return {"events": views.list_events(db, found.id, before, limit)}

    return json_answer(site.read(work))


@router.get("/sessions/{key}/live", response_class=EventSourceResponse, dependencies=[needs("session.read")])
async def live(request: Request, key: SessionKey) -> EventSourceResponse:
    """Server-sent events: ``change`` when there's something new, ``beat`` while there isn't."""
    site = site_of(request)

    def work() -> int:
        return site.read(lambda db: find_scene(site, db, key)).session.id

    session_id = await run_in_threadpool(work)
    stream = while_allowed(request, "session.read", key, site.hub.stream(session_id))
    return EventSourceResponse(
        stream, ping=60, headers={"cache-control": "no-store", "x-accel-buffering": "no"}
    )
