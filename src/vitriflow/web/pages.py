"""The HTML pages, and the parts of them that are fetched again when something changes."""

from dataclasses import asdict
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse
from sqlalchemy.orm import Session as OrmSession

from vitriflow.catalog import views
from vitriflow.elogbook.access import subject_of_session
from vitriflow.elogbook.marks import list_marks
from vitriflow.elogbook.permissions import may
from vitriflow.web import words
from vitriflow.web.api import ExposureId, Offset, ProcessingName, SessionKey, Word
from vitriflow.web.auth import Caller, needs
from vitriflow.web.columns import STATUSES
from vitriflow.web.detail import Detail, facts, find_detail, metadata_lines
from vitriflow.web.filters import MARKS, PASSES, SET_ASIDE, SORTS, Filter, Wanted, select_rows
from vitriflow.web.live import stamp_of
from vitriflow.web.lookup import Scene, cards, find_scene, node_counts
from vitriflow.web.overlay import KEEP, REJECT
from vitriflow.web.selecting import is_open
from vitriflow.web.site import Site, site_of
from vitriflow.web.summary import summarise
from vitriflow.web.table import SHOWN

PAGE_SIZE = 48
SESSIONS_PAGE = 25
Order = Annotated[str, Query(pattern="^(asc|desc)$")]

Asker = Annotated[Caller, needs("own.list")]
Reader = Annotated[Caller, needs("session.read")]

MARK_WORDS = {KEEP: "keep", REJECT: "reject"}

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
        "rows": [(scene, summarise(scene.session, scene.snapshot, scene.overlay)) for scene in scenes],
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
        "summary": summarise(scene.session, scene.snapshot, scene.overlay),
        "nodes": node_counts(site, db, scene),
    }


def _side_values(db: OrmSession, scene: Scene) -> dict[str, Any]:
    summary = summarise(scene.session, scene.snapshot, scene.overlay)
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
    site: Site,
    db: OrmSession,
    scene: Scene,
    wanted: Filter,
    sort: str,
    order: str,
    offset: int,
    may_mark: bool,
) -> dict[str, Any]:
    rows = select_rows(scene.snapshot, scene.overlay, wanted, sort, order == "desc")
    return {
        "scene": scene,
        "session": scene.session,
        "cards": cards(site, db, scene, rows[offset : offset + PAGE_SIZE]),
        "total": len(rows),
        "everything": scene.snapshot.size,
        "offset": offset,
        "page_size": PAGE_SIZE,
        "wanted": wanted,
        "status": wanted.status,
        "reason": wanted.reason,
        "sort": sort,
        "order": order,
        "statuses": ("all", *STATUSES, SET_ASIDE),
        "marks": MARKS,
        "passes": PASSES,
        "may_mark": may_mark,
        "sorts": {name: "Newest" if name == "newest" else words.QUANTITIES[name].label for name in SORTS},
    }


@router.get("/sessions/{key}")
def session_page(
    request: Request,
    caller: Reader,
    key: SessionKey,
    wanted: Wanted,
    processing: ProcessingName = None,
    sort: Word = "newest",
    order: Order = "desc",
    offset: Offset = 0,
) -> HTMLResponse:
    """One session, live."""
    site = site_of(request)

    def work(db: OrmSession) -> dict[str, Any]:
        scene = find_scene(site, db, key, processing, positions=wanted.by_place)
        may_mark = _may(db, caller, key, "session.mark")
        return {
            **_summary_values(site, db, scene),
            **_side_values(db, scene),
            **_gallery_values(site, db, scene, wanted, sort, order, offset, may_mark),
            "again": _again(db, caller, key, scene, wanted),
            "deeds": _deeds(db, caller, key, scene.session.state),
            "may_limit": _may(db, caller, key, "session.reprocess"),
            "may_let_in": _may(db, caller, key, "session.helpers"),
            "plotted": [(name, words.QUANTITIES[name]) for name in SHOWN],
            "stamp": stamp_of(views.pulse(db, scene.session.id)),
        }

    return site.render(request, "session.html", site.read(work))


def _may(db: OrmSession, caller: Caller, key: str, action: str) -> bool:
    """Whether the caller may do something to a session; pages show only what works."""
    subject = subject_of_session(db, key)
    return subject is not None and may(caller, action, subject)


def _again(db: OrmSession, caller: Caller, key: str, scene: Scene, wanted: Filter) -> str:
    """The query of the page that processes again just what passes the filter; empty where that can't be."""
    if scene.processing is None or is_open(wanted) or not _may(db, caller, key, "session.reprocess"):
        return ""
    parts = {name: value for name, value in asdict(wanted).items() if value not in ("", "all")}
    return urlencode({"base": scene.processing.name, **parts})


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


@router.get("/sessions/{key}/part/gallery")
def gallery_part(
    request: Request,
    caller: Reader,
    key: SessionKey,
    wanted: Wanted,
    processing: ProcessingName = None,
    sort: Word = "newest",
    order: Order = "desc",
    offset: Offset = 0,
) -> HTMLResponse:
    """One window of the gallery."""
    site = site_of(request)

    def work(db: OrmSession) -> dict[str, Any]:
        scene = find_scene(site, db, key, processing, positions=wanted.by_place)
        may_mark = _may(db, caller, key, "session.mark")
        shown = _gallery_values(site, db, scene, wanted, sort, order, offset, may_mark)
        return shown | {"again": _again(db, caller, key, scene, wanted)}

    return site.render(request, "part_gallery.html", site.read(work))


@router.get("/sessions/{key}/exposures/{exposure_id}")
def exposure_page(
    request: Request,
    caller: Reader,
    key: SessionKey,
    exposure_id: ExposureId,
    processing: ProcessingName = None,
) -> HTMLResponse:
    """One exposure."""
    site = site_of(request)

    def work(db: OrmSession) -> dict[str, Any]:
        detail = find_detail(db, find_scene(site, db, key, processing), exposure_id)
        return {
            "detail": detail,
            "marks": list_marks(db, detail.scene.session.id, exposure_id),
            "standing": MARK_WORDS.get(detail.scene.overlay.verdicts.get(exposure_id, 0), ""),
            "may_mark": _may(db, caller, key, "session.mark"),
        }

    values = site.read(work)
    detail: Detail = values["detail"]
    values |= {
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


@router.get("/sessions/{key}/part/latency", dependencies=[needs("session.read")])
def latency_part(request: Request, key: SessionKey) -> HTMLResponse:
    """How long exposures take to each moment, first seen to result."""
    site = site_of(request)

    def work(db: OrmSession) -> dict[str, Any]:
        scene = find_scene(site, db, key)
        return {"spans": views.span_stats(db, scene.session.id)}

    return site.render(request, "part_latency.html", site.read(work))
