"""The elogbook's pages: plain forms that work without scripts; a form with a mistake comes back as filled in."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, File, Form, Query, Request, UploadFile
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from sqlalchemy import select
from sqlalchemy.orm import Session as OrmSession

from vitriflow.catalog import Experiment, Grid, LogEntry, Microscope, Person, Sample, Session, SessionState
from vitriflow.elogbook import boxes, entries, experiments, samples
from vitriflow.elogbook.permissions import Caller, Subject, may
from vitriflow.errors import BadParameter, BadTemplate, Busy
from vitriflow.facility.attachments import LARGEST_BYTES
from vitriflow.facility.logbook import (
    change_session,
)
from vitriflow.web.api import SessionKey
from vitriflow.web.auth import needs
from vitriflow.web.log_api import Logger, keep, own_session, tie
from vitriflow.web.logbook_api import (
    Controller,
    Creator,
    Describer,
    ExperimentName,
    Lister,
    RowId,
    Writer,
    of_experiment,
)
from vitriflow.web.sample_pages import SHOWN_IF
from vitriflow.web.site import site_of

Field = Annotated[str, Form(max_length=2000)]
Long = Annotated[str, Form(max_length=110_000)]
Words = Annotated[str, Query(max_length=200)]
Reader = Annotated[Caller, needs("experiment.read")]
router = APIRouter(include_in_schema=False)
_LOG_PAGE = 30
_WRONG = (BadParameter, BadTemplate, Busy)


def _to(path: str) -> Response:
    return RedirectResponse(path, status_code=303)


def _home(name: str) -> str:
    return f"/experiments/{name}"


# ---- experiments


@router.get("/experiments")
def experiments_page(request: Request, caller: Lister, search: Words = "") -> HTMLResponse:
    """Experiments that the caller may see."""
    return _experiments(request, caller, search)


def _experiments(
    request: Request,
    caller: Caller,
    search: str = "",
    trouble: str = "",
    answers: Mapping[str, str] | None = None,
) -> HTMLResponse:
    site = site_of(request)
    found = site.read(lambda orm: experiments.list_experiments(orm, caller, search))
    people = site.read(lambda orm: list(orm.scalars(select(Person).order_by(Person.login))))
    values = {
        "found": found,
        "search": search,
        "trouble": trouble,
        "answers": answers or {},
        "people": people if may(caller, "experiment.create") else [],
    }
    return site.render(request, "experiments.html", values, 422 if trouble else 200)


@router.post("/experiments")
def make_experiment(
    request: Request,
    caller: Creator,
    name: Field = "",
    title: Field = "",
    pi: Field = "",
    starts_at: Field = "",
    ends_at: Field = "",
) -> Response:
    """Make an experiment."""
    answers = {"name": name, "title": title, "pi": pi, "starts_at": starts_at, "ends_at": ends_at}
    try:
        how: dict[str, Any] = {"title": title, "pi": pi.strip() or None}
        how |= {"starts_at": _day(starts_at, "start"), "ends_at": _day(ends_at, "end")}
        made = site_of(request).catalog.write(
            lambda orm: experiments.create_experiment(orm, caller, name, **how).name
        )
    except _WRONG as error:
        return _experiments(request, caller, trouble=str(error), answers=answers)
    return _to(_home(made))


def _day(text: str, what: str) -> datetime | None:
    if not text.strip():
        return None
    try:
        return datetime.fromisoformat(text.strip()).replace(tzinfo=UTC)
    except ValueError:
        raise BadParameter(f"{what} of the experiment", "a day such as 2026-05-01", repr(text)[:40]) from None


@router.get("/experiments/{experiment}")
def experiment_page(
    request: Request,
    caller: Reader,
    experiment: ExperimentName,
    search: Words = "",
    tag: Words = "",
    before: Annotated[int | None, Query(ge=1, le=2**63 - 1)] = None,
) -> HTMLResponse:
    """One experiment: samples, sessions, grids and the log."""
    return _experiment(request, caller, experiment, search=search, tag=tag, before=before)


def _experiment(
    request: Request,
    caller: Caller,
    name: str,
    *,
    search: str = "",
    tag: str = "",
    before: int | None = None,
    trouble: str = "",
    draft: str = "",
) -> HTMLResponse:
    site = site_of(request)

    def work(orm: OrmSession) -> dict[str, Any]:
        award = experiments.find_experiment(orm, name)
        subject = Subject(award.id)
        log = entries.list_entries(orm, award.id, search=search, tag=tag, before=before, limit=_LOG_PAGE)
        about = {entry["session_id"] for entry in log if entry["session_id"]}
        keys = orm.execute(select(Session.id, Session.key).where(Session.id.in_(about)))
        query = (
            select(Session, Sample.name, Microscope.name)
            .join(Sample, Sample.id == Session.sample_id)
            .join(Microscope, Microscope.id == Session.microscope_id)
            .where(Sample.experiment_id == award.id)
            .order_by(Session.id.desc())
            .limit(50)
        )
        return {
            "experiment": award,
            "pi": orm.get(Person, award.pi_person_id) if award.pi_person_id else None,
            "samples": samples.list_samples(orm, award.id),
            "sessions": orm.execute(query).all(),
            "boxes": boxes.list_boxes(orm, award.id),
            "log": log,
            "keys": {row.id: row.key for row in keys},
            "tags": entries.known_tags(orm, award.id),
            "can": {action: may(caller, action, subject) for action in SHOWN_IF},
        }

    values = {
        "trouble": trouble,
        "draft": draft,
        "search": search,
        "tag": tag,
        "log_page": _LOG_PAGE,
        "grid_states": ("available", "loaded", "used", "discarded"),
    }
    return site.render(request, "experiment.html", {**site.read(work), **values}, 422 if trouble else 200)


@router.post("/experiments/{experiment}")
def edit_experiment(
    request: Request, caller: Writer, experiment: ExperimentName, title: Field = "", state: Field = "open"
) -> Response:
    """Change an experiment's title or state."""

    def work(orm: OrmSession) -> None:
        found = experiments.find_experiment(orm, experiment)
        experiments.edit_experiment(orm, caller, found, title=title, state=state)

    try:
        site_of(request).catalog.write(work)
    except _WRONG as error:
        return _experiment(request, caller, experiment, trouble=str(error))
    return _to(_home(experiment))


# ---- sessions

_STATES = {"pause": SessionState.PAUSED, "resume": SessionState.ACTIVE, "stop": SessionState.CLOSED}


def _set_state(request: Request, caller: Caller, key: str, state: SessionState) -> Response:
    change_session(site_of(request).catalog, caller, key, state)
    return _to(f"/sessions/{key}")


@router.post("/sessions/{key}/pause")
def pause(request: Request, caller: Controller, key: SessionKey) -> Response:
    """Pause a session."""
    return _set_state(request, caller, key, SessionState.PAUSED)


@router.post("/sessions/{key}/resume")
def resume(request: Request, caller: Controller, key: SessionKey) -> Response:
    """Let a session go on."""
    return _set_state(request, caller, key, SessionState.ACTIVE)


@router.post("/sessions/{key}/stop")
def stop(request: Request, caller: Controller, key: SessionKey) -> Response:
    """Close a session."""
    return _set_state(request, caller, key, SessionState.CLOSED)


# ---- grids


@router.post("/experiments/{experiment}/boxes")
def make_box(
    request: Request,
    caller: Describer,
    experiment: ExperimentName,
    name: Field = "",
    container: Field = "",
    n_grids: Annotated[int, Form(ge=0, le=1000)] = 4,
) -> Response:
    """Make a grid box."""

    def work(orm: OrmSession) -> None:
        award = experiments.find_experiment(orm, experiment)
        boxes.create_box(orm, caller, award, name, container=container, n_grids=n_grids)

    return _done(request, caller, experiment, work, "grids")


@router.post("/experiments/{experiment}/grids/{grid}")
def edit_grid(
    request: Request,
    caller: Describer,
    experiment: ExperimentName,
    grid: RowId,
    name: Field = "",
    sample: Field = "",
    state: Field = "available",
    comment: Field = "",
) -> Response:
    """Change a grid."""
    changes = {"name": name, "sample": sample, "state": state, "comment": comment}

    def work(orm: OrmSession) -> None:
        boxes.edit_grid(orm, caller, of_experiment(orm, experiment, Grid, grid, "grid"), **changes)

    return _done(request, caller, experiment, work, "grids")


# ---- the log


@router.post("/experiments/{experiment}/log", max_body_size=4 * LARGEST_BYTES)
def write_entry(
    request: Request,
    caller: Logger,
    experiment: ExperimentName,
    text: Long = "",
    tags: Field = "",
    session: Field = "",
    files: Annotated[list[UploadFile] | None, File()] = None,
) -> Response:
    """Write into the log, with files."""
    site = site_of(request)

    try:
        stored = [keep(site, file) for file in files or [] if file.filename]

        def work(orm: OrmSession) -> None:
            award: Experiment = experiments.find_experiment(orm, experiment)
            about = own_session(orm, award, session) if session else None
            words = tags.replace(",", " ").split()
            entry = entries.write_entry(orm, caller, award, text, tags=words, session=about)
            for name, one in stored:
                tie(orm, caller, entry, name, one)

        site.catalog.write(work)
    except _WRONG as error:
        return _experiment(request, caller, experiment, trouble=str(error), draft=text)
    return _to(f"{_home(experiment)}#log")


@router.post("/experiments/{experiment}/log/{entry}/strike")
def strike_entry(request: Request, caller: Logger, experiment: ExperimentName, entry: RowId) -> Response:
    """Strike an entry out."""

    def work(orm: OrmSession) -> None:
        entries.strike_entry(orm, caller, of_experiment(orm, experiment, LogEntry, entry, "log entry"))

    return _done(request, caller, experiment, work, "log")


def _done(
    request: Request, caller: Caller, experiment: str, work: Callable[[OrmSession], Any], where: str
) -> Response:
    try:
        site_of(request).catalog.write(work)
    except _WRONG as error:
        return _experiment(request, caller, experiment, trouble=str(error))
    return _to(f"{_home(experiment)}#{where}")
