"""The elogbook by REST: experiments, samples, grids, the log, and the life of sessions."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import Response
from sqlalchemy.orm import Session as OrmSession

from vitriflow.catalog import Grid, GridBox, LogEntry, LogFile, Microscope, Session, SessionState
from vitriflow.config import Config
from vitriflow.elogbook import boxes, experiments, find_session, samples
from vitriflow.elogbook.permissions import Caller
from vitriflow.errors import BadConfig
from vitriflow.facility.logbook import activate_sample, change_session, read_sample_form, template_of
from vitriflow.facility.session_form import form_fields
from vitriflow.pipeline import template_names
from vitriflow.web import logbook_models as models
from vitriflow.web.api import SessionKey, json_answer
from vitriflow.web.auth import needs
from vitriflow.web.models import ErrorAnswer
from vitriflow.web.problems import NotFound
from vitriflow.web.site import Site, site_of

T = TypeVar("T")
_NAME = r"^[^\x00-\x1f\x7f/]+$"
ExperimentName = Annotated[str, Path(min_length=1, max_length=64, pattern=_NAME)]
SampleName = Annotated[str, Path(min_length=1, max_length=128, pattern=_NAME)]
RowId = Annotated[int, Path(ge=1, le=2**63 - 1)]
Words = Annotated[str, Query(max_length=200)]
_BLOCK = 1024 * 1024

ERRORS: dict[int | str, dict[str, Any]] = {
    code: {"model": ErrorAnswer} for code in (401, 403, 404, 409, 413, 422, 500, 503)
}
router = APIRouter(prefix="/api", responses=ERRORS, tags=["elogbook"])

Lister = Annotated[Caller, needs("own.list")]
Creator = Annotated[Caller, needs("experiment.create")]
Writer = Annotated[Caller, needs("experiment.write")]
Describer = Annotated[Caller, needs("sample.write")]
Starter = Annotated[Caller, needs("session.start")]
Controller = Annotated[Caller, needs("session.control")]


def config_of(site: Site) -> Config:
    """The facility's configuration.

    Raises
    ------
    BadConfig
        When this server was started without one.
    """
    if site.config is None:
        raise BadConfig(
            "this server",
            "the facility's configuration",
            "a server that was started with a catalog alone",
            "Start it with 'vitriflow serve' or 'vitriflow up'.",
        )
    return site.config


def change(request: Request, work: Callable[[OrmSession], T]) -> T:
    """Do something to the catalog in one transaction."""
    return site_of(request).catalog.write(work)


def of_experiment(orm: OrmSession, experiment: str, table: type[Any], number: int, what: str) -> Any:
    """A row by its number, if it belongs to the experiment.

    Raises
    ------
    NotFound
        When there's none, or it's another experiment's.
    """
    award = experiments.find_experiment(orm, experiment)
    row = orm.get(table, number)
    owner = row
    if isinstance(row, Grid):
        owner = orm.get(GridBox, row.box_id)
    elif isinstance(row, LogFile):
        owner = orm.get(LogEntry, row.entry_id)
    if row is None or owner is None or owner.experiment_id != award.id:
        raise NotFound(what, f"the number of a {what} of {experiment}", str(number))
    return row


# ---- experiments


@router.get("/experiments")
def list_experiments(request: Request, caller: Lister, search: Words = "") -> Response:
    """Experiments that the caller may see, newest first."""
    found = site_of(request).read(lambda orm: experiments.list_experiments(orm, caller, search))
    return json_answer({"experiments": found})


@router.post("/experiments", status_code=201)
def create_experiment(request: Request, caller: Creator, body: models.ExperimentBody) -> Response:
    """Make an experiment."""
    values = body.model_dump(exclude={"name"})
    change(request, lambda orm: experiments.create_experiment(orm, caller, body.name, **values).id)
    return json_answer(_experiment(request, body.name), 201)


@router.get("/experiments/{experiment}", dependencies=[needs("experiment.read")])
def show_experiment(request: Request, experiment: ExperimentName) -> Response:
    """One experiment with its samples and grid boxes."""
    return json_answer(_experiment(request, experiment))


@router.patch("/experiments/{experiment}")
def change_experiment(
    request: Request, caller: Writer, experiment: ExperimentName, body: models.ExperimentChange
) -> Response:
    """Change an experiment; what's left out stays."""
    changes = body.model_dump(exclude_unset=True)

    def work(orm: OrmSession) -> None:
        found = experiments.find_experiment(orm, experiment)
        experiments.edit_experiment(orm, caller, found, **changes)

    change(request, work)
    return json_answer(_experiment(request, experiment))


def _experiment(request: Request, name: str) -> dict[str, Any]:
    def work(orm: OrmSession) -> dict[str, Any]:
        found = experiments.find_experiment(orm, name)
        everything = Caller(way="command", facility_role="operator")
        shown = next(one for one in experiments.list_experiments(orm, everything) if one["name"] == name)
        return {
            **shown,
            "sample_list": samples.list_samples(orm, found.id),
            "boxes": boxes.list_boxes(orm, found.id),
        }

    return site_of(request).read(work)


# ---- samples


@router.get("/session-form", response_model=models.FormAnswer, dependencies=[needs("own.list")])
def session_form(request: Request, template: Annotated[str, Query(max_length=64)] = "") -> Response:
    """The questions of a sample's form, made from the parameters that the template's steps have."""
    named = {"template": template} if template else {}
    found = template_of(check_template(named), site_of(request).config)
    fields = [field.as_dict() for field in form_fields(found)]
    return json_answer({"template": found.name, "templates": template_names(), "fields": fields})


def check_template(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """Settings whose template is one by name: a request never names a file of the server."""
    named = settings.get("template")
    if named and named not in template_names():
        raise NotFound("template", "one of " + ", ".join(template_names()), repr(named)[:80])
    return settings


@router.get("/experiments/{experiment}/samples", dependencies=[needs("experiment.read")])
def list_samples(request: Request, experiment: ExperimentName) -> Response:
    """An experiment's samples, newest first."""

    def work(orm: OrmSession) -> list[dict[str, Any]]:
        return samples.list_samples(orm, experiments.find_experiment(orm, experiment).id)

    return json_answer({"samples": site_of(request).read(work)})


@router.post("/experiments/{experiment}/samples", status_code=201)
def create_sample(
    request: Request, caller: Describer, experiment: ExperimentName, body: models.SampleBody
) -> Response:
    """Make a sample; its imaging parameters are checked as the form is."""
    settings = read_sample_form(check_template(body.settings), site_of(request).config)

    def work(orm: OrmSession) -> None:
        award = experiments.find_experiment(orm, experiment)
        how = {"title": body.title, "description": body.description, "settings": settings}
        samples.create_sample(orm, caller, award, body.name, **how)  # type: ignore[arg-type]

    change(request, work)
    return json_answer(_sample(request, experiment, body.name), 201)


@router.get("/experiments/{experiment}/samples/{sample}", dependencies=[needs("experiment.read")])
def show_sample(request: Request, experiment: ExperimentName, sample: SampleName) -> Response:
    """One sample."""
    return json_answer(_sample(request, experiment, sample))


@router.patch("/experiments/{experiment}/samples/{sample}")
def change_sample(
    request: Request,
    caller: Describer,
    experiment: ExperimentName,
    sample: SampleName,
    body: models.SampleChange,
) -> Response:
    """Change a sample. Sessions that were started keep what they had."""
    changes = {
        name: value for name, value in body.model_dump(exclude_unset=True).items() if value is not None
    }
    if "settings" in changes:
        changes["settings"] = read_sample_form(check_template(changes["settings"]), site_of(request).config)

    def work(orm: OrmSession) -> None:
        samples.edit_sample(orm, caller, samples.find_sample(orm, experiment, sample), **changes)

    change(request, work)
    return json_answer(_sample(request, experiment, sample))


@router.post("/experiments/{experiment}/samples/{sample}/clone", status_code=201)
def clone_sample(
    request: Request,
    caller: Describer,
    experiment: ExperimentName,
    sample: SampleName,
    body: models.CloneBody,
) -> Response:
    """Make a sample like this one."""

    def work(orm: OrmSession) -> None:
        samples.clone_sample(orm, caller, samples.find_sample(orm, experiment, sample), body.name)

    change(request, work)
    return json_answer(_sample(request, experiment, body.name), 201)


@router.post(
    "/experiments/{experiment}/samples/{sample}/activate",
    status_code=201,
    response_model=models.SessionStarted,
)
def activate(
    request: Request,
    caller: Starter,
    experiment: ExperimentName,
    sample: SampleName,
    body: models.ActivateBody,
) -> Response:
    """Start a session of this sample: acquisition and processing begin by themselves."""
    site = site_of(request)
    how = {"microscope": body.microscope, "source": body.source, "mode": body.mode}
    started = activate_sample(config_of(site), site.catalog, caller, experiment, sample, **how)  # type: ignore[arg-type]
    return json_answer(_session(site, started), 201)


def _sample(request: Request, experiment: str, name: str) -> dict[str, Any]:
    def work(orm: OrmSession) -> dict[str, Any]:
        sample = samples.find_sample(orm, experiment, name)
        shown = samples.list_samples(orm, sample.experiment_id)
        return next(one for one in shown if one["name"] == name)

    return site_of(request).read(work)


# ---- sessions


def _session(site: Site, session: Session) -> dict[str, Any]:
    name = site.read(lambda orm: orm.get_one(Microscope, session.microscope_id).name)
    return {
        "key": session.key,
        "state": session.state,
        "microscope": name,
        "source": session.source,
        "mode": session.mode,
    }


def _set_state(request: Request, caller: Caller, key: str, state: SessionState) -> Response:
    site = site_of(request)
    find_session(site.catalog, key)
    return json_answer(_session(site, change_session(site.catalog, caller, key, state)))


@router.post("/sessions/{key}/pause", response_model=models.SessionStarted)
def pause(request: Request, caller: Controller, key: SessionKey) -> Response:
    """Pause a session: nothing new is taken in; what was taken in is processed."""
    return _set_state(request, caller, key, SessionState.PAUSED)


@router.post("/sessions/{key}/resume", response_model=models.SessionStarted)
def resume(request: Request, caller: Controller, key: SessionKey) -> Response:
    """Let a session go on."""
    return _set_state(request, caller, key, SessionState.ACTIVE)


@router.post("/sessions/{key}/stop", response_model=models.SessionStarted)
def stop(request: Request, caller: Controller, key: SessionKey) -> Response:
    """Close a session; what was taken in is processed to its end."""
    return _set_state(request, caller, key, SessionState.CLOSED)


# ---- grids


@router.get("/experiments/{experiment}/boxes", dependencies=[needs("experiment.read")])
def list_boxes(request: Request, experiment: ExperimentName) -> Response:
    """An experiment's grid boxes and what's in them."""

    def work(orm: OrmSession) -> list[dict[str, Any]]:
        return boxes.list_boxes(orm, experiments.find_experiment(orm, experiment).id)

    return json_answer({"boxes": site_of(request).read(work)})


@router.post("/experiments/{experiment}/boxes", status_code=201)
def create_box(
    request: Request, caller: Describer, experiment: ExperimentName, body: models.BoxBody
) -> Response:
    """Make a grid box."""

    def work(orm: OrmSession) -> None:
        award = experiments.find_experiment(orm, experiment)
        boxes.create_box(orm, caller, award, body.name, **body.model_dump(exclude={"name"}))

    change(request, work)
    return json_answer(_experiment(request, experiment)["boxes"], 201)


@router.patch("/experiments/{experiment}/grids/{grid}")
def change_grid(
    request: Request, caller: Describer, experiment: ExperimentName, grid: RowId, body: models.GridChange
) -> Response:
    """Change a grid: its name, sample, state or comment."""
    changes = body.model_dump(exclude_unset=True)

    def work(orm: OrmSession) -> None:
        boxes.edit_grid(orm, caller, of_experiment(orm, experiment, Grid, grid, "grid"), **changes)

    change(request, work)
    return json_answer(_experiment(request, experiment)["boxes"])
