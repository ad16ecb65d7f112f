"""The HTML pages, and the parts of them that are fetched again when something changes."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse
from sqlalchemy.orm import Session as OrmSession

from vitriflow.catalog import views
from vitriflow.elogbook.access import subject_of_session
from vitriflow.elogbook.permissions import may
from vitriflow.web import words
from vitriflow.web.api import ExposureId, Offset, ProcessingName, SessionKey, Word
from vitriflow.web.auth import Caller, needs
from vitriflow.web.columns import STATUSES
from vitriflow.web.detail import facts, find_detail, metadata_lines
from vitriflow.web.lookup import SET_ASIDE, SORTS, Scene, cards, find_scene, node_counts, select_rows
from vitriflow.web.plots import PLOTTED
from vitriflow.web.site import Site, site_of
from vitriflow.web.summary import summarise

PAGE_SIZE = 48
SESSIONS_PAGE = 25
Order = Annotated[str, Query(pattern="^(asc|desc)$")]

Asker = Annotated[Caller, needs("own.list")]

# Drawn in the plot of total motion.
WITH_TOTAL = ("early_A", "late_A")

router = APIRouter(include_in_schema=False)

# What a file in the source folder turned out to be, in words; other kinds are shown as they stand.
SURVEY_WORDS = {
    "movie": "movies",
    "gain": "gain references",
    "metadata": "metadata files",
    "atlas": "atlas images",
    "grid_square_image": "grid square images",
    "foil_hole_image": "foil hole images",
    "preview": "pictures of the acquisition software",
    "session": "session files",
    "montage": "montages",
    "temporary": "temporary files",
    "unknown": "claimed by no recogniser",
}


def _list_values(site: Site, db: OrmSession, caller: Caller, offset: int) -> dict[str, Any]:
    found = views.list_sessions(db, SESSIONS_PAGE, offset, caller.experiments)
    scenes = [find_scene(site, db, one.key) for one in found]
    return {
        "rows": [(scene, summarise(scene.session, scene.snapshot)) for scene in scenes],
        "total": views.count_sessions(db, caller.experiments),
        "offset": offset,
        "page_size": SESSIONS_PAGE,
    }


@router.get("/")
def session_list(request: Request, caller: Asker, offset: Offset = 0) -> HTMLResponse:
    """All sessions that the caller may see, newest first."""
    site = site_of(request)
    return site.render(request, "sessions.html", site.read(lambda db: _list_values(site, db, caller, offset)))


@router.get("/part/sessions")
def session_rows(request: Request, caller: Asker, offset: Offset = 0) -> HTMLResponse:
    """The list itself, fetched again every few seconds."""
    site = site_of(request)
    return site.render(
        request, "part_sessions.html", site.read(lambda db: _list_values(site, db, caller, offset))
    )


def _summary_values(site: Site, db: OrmSession, scene: Scene) -> dict[str, Any]:
    return {
        "scene": scene,
        "session": scene.session,
        "summary": summarise(scene.session, scene.snapshot),
        "nodes": node_counts(site, db, scene),
    }


def _side_values(db: OrmSession, scene: Scene) -> dict[str, Any]:
    summary = summarise(scene.session, scene.snapshot)
    examples = [number for problem in summary.problems for number in problem.newest]
    processing = scene.processing.id if scene.processing else None
    survey = {kind: n for kind, n in scene.session.survey.items() if isinstance(n, int)}
    return {
        "scene": scene,
        "session": scene.session,
        "summary": summary,
        "names": views.exposure_names(db, scene.session.id, examples),
        "why": views.reasons(db, scene.session.id, processing, examples),
        "events": views.list_events(db, scene.session.id, limit=12),
        "survey": sorted(survey.items(), key=lambda pair: (pair[0] == "unknown", -pair[1])),
        "survey_words": SURVEY_WORDS,
        "unknown": views.unknown_files(db, scene.session.id),
    }


def _gallery_values(
    site: Site, db: OrmSession, scene: Scene, status: str, reason: str, sort: str, order: str, offset: int
) -> dict[str, Any]:
    rows = select_rows(scene.snapshot, status, reason, sort, order == "desc")
    return {
        "scene": scene,
        "session": scene.session,
        "cards": cards(site, db, scene, rows[offset : offset + PAGE_SIZE]),
        "total": len(rows),
        "everything": scene.snapshot.size,
        "offset": offset,
        "page_size": PAGE_SIZE,
        "status": status,
        "reason": reason,
        "sort": sort,
        "order": order,
        "statuses": ("all", *STATUSES, SET_ASIDE),
        "sorts": {name: "Newest" if name == "newest" else words.QUANTITIES[name].label for name in SORTS},
    }


@router.get("/sessions/{key}")
def session_page(
    request: Request,
    caller: Annotated[Caller, needs("session.read")],
    key: SessionKey,
    processing: ProcessingName = None,
    status: Word = "all",
    reason: Word = "",
    sort: Word = "newest",
    order: Order = "desc",
    offset: Offset = 0,
) -> HTMLResponse:
    """One session, live."""
    site = site_of(request)

    def work(db: OrmSession) -> dict[str, Any]:
        scene = find_scene(site, db, key, processing)
        return {
            **_summary_values(site, db, scene),
            **_side_values(db, scene),
            **_gallery_values(site, db, scene, status, reason, sort, order, offset),
            "deeds": _deeds(db, caller, key, scene.session.state),
            "plotted": [
                (name, words.QUANTITIES[name]) for name in PLOTTED if name not in ("early_A", "late_A")
            ],
        }

    return site.render(request, "session.html", site.read(work))


def _deeds(db: OrmSession, caller: Caller, key: str, state: str) -> list[str]:
    """What the caller may do to the session now: pause, resume, stop."""
    subject = subject_of_session(db, key)
    if subject is None or not may(caller, "session.control", subject):
        return []
    return {"active": ["pause", "stop"], "paused": ["resume", "stop"], "closed": ["resume"]}.get(state, [])


@router.get("/sessions/{key}/part/summary", dependencies=[needs("session.read")])
def summary_part(request: Request, key: SessionKey, processing: ProcessingName = None) -> HTMLResponse:
    """Verdict, counts, rate, latency and nodes."""
    site = site_of(request)
    values = site.read(lambda db: _summary_values(site, db, find_scene(site, db, key, processing)))
    return site.render(request, "part_summary.html", values)


@router.get("/sessions/{key}/part/side", dependencies=[needs("session.read")])
def side_part(request: Request, key: SessionKey, processing: ProcessingName = None) -> HTMLResponse:
    """Problems, events and what the source folder holds."""
    site = site_of(request)
    values = site.read(lambda db: _side_values(db, find_scene(site, db, key, processing)))
    return site.render(request, "part_side.html", values)


@router.get("/sessions/{key}/part/gallery", dependencies=[needs("session.read")])
def gallery_part(
    request: Request,
    key: SessionKey,
    processing: ProcessingName = None,
    status: Word = "all",
    reason: Word = "",
    sort: Word = "newest",
    order: Order = "desc",
    offset: Offset = 0,
) -> HTMLResponse:
    """One window of the gallery."""
    site = site_of(request)

    def work(db: OrmSession) -> dict[str, Any]:
        scene = find_scene(site, db, key, processing)
        return _gallery_values(site, db, scene, status, reason, sort, order, offset)

    return site.render(request, "part_gallery.html", site.read(work))


@router.get("/sessions/{key}/exposures/{exposure_id}", dependencies=[needs("session.read")])
def exposure_page(
    request: Request, key: SessionKey, exposure_id: ExposureId, processing: ProcessingName = None
) -> HTMLResponse:
    """One exposure."""
    site = site_of(request)
    detail = site.read(lambda db: find_detail(db, find_scene(site, db, key, processing), exposure_id))
    values = {
        "detail": detail,
        "scene": detail.scene,
        "session": detail.scene.session,
        "exposure": detail.exposure,
        "facts": [
            ("Motion", facts(detail, "motion")),
            ("CTF", facts(detail, "ctf")),
            ("Picks", facts(detail, "pick")),
            ("From the microscope", metadata_lines(detail)),
        ],
        "statuses": STATUSES,
    }
    return site.render(request, "exposure.html", values)
