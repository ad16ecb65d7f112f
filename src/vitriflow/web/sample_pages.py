"""Pages of samples: the form made from the pipeline's own parameters, clones, and activation."""

from collections.abc import Callable, Mapping
from itertools import groupby
from typing import Annotated, Any

from fastapi import APIRouter, Form, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from sqlalchemy import select
from sqlalchemy.orm import Session as OrmSession
from starlette.concurrency import run_in_threadpool

from vitriflow.catalog import Microscope, Sample, Session, SessionState
from vitriflow.elogbook import experiments, samples
from vitriflow.elogbook.permissions import Caller, Subject, may
from vitriflow.errors import BadParameter, BadTemplate, Busy, VitriflowError
from vitriflow.facility.logbook import TEMPLATE, activate_sample, read_sample_form, template_of
from vitriflow.facility.new_folder import folders_of
from vitriflow.facility.session_form import BadForm, form_fields
from vitriflow.pipeline import template_names
from vitriflow.web.auth import needs
from vitriflow.web.logbook_api import (
    Describer,
    ExperimentName,
    SampleName,
    Starter,
    check_template,
    config_of,
)
from vitriflow.web.site import Site, site_of

Field = Annotated[str, Form(max_length=2000)]
Reader = Annotated[Caller, needs("experiment.read")]
router = APIRouter(include_in_schema=False)
SHOWN_IF = ("experiment.write", "sample.write", "log.write", "session.start", "membership.write")
_WRONG = (BadParameter, BadTemplate, Busy)


def _to(path: str) -> Response:
    return RedirectResponse(path, status_code=303)


def _home(name: str) -> str:
    return f"/experiments/{name}"


@router.get("/experiments/{experiment}/new-sample")
def new_sample_page(
    request: Request,
    caller: Describer,
    experiment: ExperimentName,
    template: Annotated[str, Query(max_length=64)] = "",
) -> HTMLResponse:
    """The form of a new sample."""
    answers = {TEMPLATE: template} if template else {}
    return _sample_form(request, caller, experiment, None, answers)


@router.post("/experiments/{experiment}/new-sample")
async def make_sample(request: Request, caller: Describer, experiment: ExperimentName) -> Response:
    """Make a sample."""
    form = {name: str(value) for name, value in (await request.form()).items()}
    return await _threaded(lambda: _save_sample(request, caller, experiment, None, form))


@router.get("/experiments/{experiment}/samples/{sample}")
def sample_page(
    request: Request, caller: Reader, experiment: ExperimentName, sample: SampleName
) -> HTMLResponse:
    """One sample: its parameters, and where it can be activated."""
    found = site_of(request).read(lambda orm: samples.find_sample(orm, experiment, sample))
    return _sample_form(request, caller, experiment, found, dict(found.settings or {}))


@router.post("/experiments/{experiment}/samples/{sample}")
async def save_sample(
    request: Request, caller: Describer, experiment: ExperimentName, sample: SampleName
) -> Response:
    """Change a sample."""
    form = {name: str(value) for name, value in (await request.form()).items()}
    return await _threaded(lambda: _save_sample(request, caller, experiment, sample, form))


async def _threaded(work: Callable[[], Response]) -> Response:
    return await run_in_threadpool(work)


_OWN = ("csrf", "sample_name", "sample_title", "sample_description")


def _save_sample(
    request: Request, caller: Caller, experiment: str, sample: str | None, form: Mapping[str, str]
) -> Response:
    site = site_of(request)
    answers = {name: value for name, value in form.items() if name not in _OWN}
    texts = {"title": form.get("sample_title", ""), "description": form.get("sample_description", "")}
    name = form.get("sample_name", "") if sample is None else sample

    def work(orm: OrmSession) -> str:
        if sample is None:
            award = experiments.find_experiment(orm, experiment)
            return samples.create_sample(orm, caller, award, name, settings=settings, **texts).name
        found = samples.find_sample(orm, experiment, sample)
        return samples.edit_sample(orm, caller, found, settings=settings, **texts).name

    try:
        settings = read_sample_form(check_template(answers), site.config)
        made = site.catalog.write(work)
    except BadForm as error:
        found = site.read(lambda orm: samples.find_sample(orm, experiment, sample)) if sample else None
        return _sample_form(request, caller, experiment, found, answers, error.problems, form=form)
    except _WRONG as error:
        found = site.read(lambda orm: samples.find_sample(orm, experiment, sample)) if sample else None
        return _sample_form(request, caller, experiment, found, answers, {"": str(error)}, form=form)
    return _to(f"{_home(experiment)}/samples/{made}")


def _sample_form(
    request: Request,
    caller: Caller,
    experiment: str,
    sample: Sample | None,
    answers: Mapping[str, Any],
    problems: Mapping[str, str] | None = None,
    *,
    form: Mapping[str, str] | None = None,
    trouble: str = "",
) -> HTMLResponse:
    site = site_of(request)
    template = template_of(check_template(answers), site.config)
    fields = form_fields(template)
    award = site.read(lambda orm: experiments.find_experiment(orm, experiment))
    subject = Subject(award.id)
    shown = site.read(lambda orm: samples.list_samples(orm, award.id))
    form = form or {}
    values = {
        "experiment": award,
        "sample": next((one for one in shown if sample is not None and one["name"] == sample.name), None),
        "name": form.get("sample_name", ""),
        "title": form.get("sample_title", sample.title if sample else ""),
        "description": form.get("sample_description", sample.description if sample else ""),
        "groups": [(name, list(group)) for name, group in groupby(fields, key=lambda field: field.group)],
        "template": template,
        "templates": template_names(),
        "answers": answers,
        "problems": problems or {},
        "trouble": trouble or (problems or {}).get("", ""),
        "microscopes": _microscopes(site) if sample is not None else [],
        "can": {action: may(caller, action, subject) for action in SHOWN_IF},
    }
    return site.render(request, "sample.html", values, 422 if problems or trouble else 200)


def _microscopes(site: Site) -> list[dict[str, Any]]:
    """Configured microscopes, with the folders that are there now and what each works on."""
    if site.config is None:
        return []
    query = (
        select(Microscope.name, Session.key)
        .join(Session, Session.microscope_id == Microscope.id)
        .where(Session.state == SessionState.ACTIVE)
    )
    busy = {row.name: row.key for row in site.read(lambda orm: orm.execute(query).all())}
    found = []
    for name, scope in site.config.microscopes.items():
        folders: list[str] = []
        for source in scope.sources:
            try:
                folders += [str(one.relative_to(source)) for one in folders_of(source)]
            except OSError:
                continue  # the share is away: doctor and alarms say so
        found.append({"name": name, "busy": busy.get(name), "folders": folders[:50]})
    return found


@router.post("/experiments/{experiment}/samples/{sample}/clone")
def clone_sample(
    request: Request, caller: Describer, experiment: ExperimentName, sample: SampleName, name: Field = ""
) -> Response:
    """Make a sample like this one."""
    site = site_of(request)

    def work(orm: OrmSession) -> str:
        return samples.clone_sample(orm, caller, samples.find_sample(orm, experiment, sample), name).name

    try:
        made = site.catalog.write(work)
    except _WRONG as error:
        return _again(request, caller, experiment, sample, error)
    return _to(f"{_home(experiment)}/samples/{made}")


@router.post("/experiments/{experiment}/samples/{sample}/activate")
def activate(
    request: Request,
    caller: Starter,
    experiment: ExperimentName,
    sample: SampleName,
    microscope: Field = "",
    source: Field = "auto",
    mode: Field = "",
) -> Response:
    """Start a session of this sample."""
    site = site_of(request)
    how: dict[str, Any] = {"microscope": microscope or None, "source": source.strip() or "auto"}
    how["mode"] = mode if mode in ("copy", "in_place") else None
    try:
        started = activate_sample(config_of(site), site.catalog, caller, experiment, sample, **how)
    except VitriflowError as error:
        return _again(request, caller, experiment, sample, error)
    return _to(f"/sessions/{started.key}")


def _again(
    request: Request, caller: Caller, experiment: str, sample: str, error: VitriflowError
) -> HTMLResponse:
    found = site_of(request).read(lambda orm: samples.find_sample(orm, experiment, sample))
    answers = dict(found.settings or {})
    return _sample_form(request, caller, experiment, found, answers, trouble=str(error))
