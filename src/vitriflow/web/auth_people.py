"""Pages of people: the facility's, an experiment's, and what everybody did."""

from typing import Annotated, Any

from fastapi import APIRouter, Form, Path, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from sqlalchemy import select
from sqlalchemy.orm import Session as OrmSession

from vitriflow.catalog import Audit, Microscope
from vitriflow.elogbook.access import set_member, who_may_log_in
from vitriflow.elogbook.audit import audit, list_audit
from vitriflow.elogbook.experiments import find_experiment
from vitriflow.elogbook.people import (
    SOURCES,
    add_person,
    find_person,
    list_people,
    members,
    replace_password,
    set_person,
)
from vitriflow.elogbook.permissions import EXPERIMENT_ROLES, FACILITY_ROLES, Caller, Subject, may
from vitriflow.elogbook.tokens import hash_password, new_password
from vitriflow.errors import BadParameter
from vitriflow.web.auth import needs
from vitriflow.web.site import site_of

router = APIRouter(include_in_schema=False)

PRINTABLE = r"^[^\x00-\x1f\x7f]+$"
Name = Annotated[str, Path(min_length=1, max_length=128, pattern=PRINTABLE)]
Field = Annotated[str, Form(max_length=256)]
Writer = Annotated[Caller, needs("people.write")]
Opener = Annotated[Caller, needs("membership.write")]
AUDIT_PAGE = 100


@router.get("/people")
def people_page(request: Request, caller: Annotated[Caller, needs("people.read")]) -> HTMLResponse:
    """Everybody of the facility, and who may log in to which microscope now."""
    return _people(request, caller)


def _people(
    request: Request, caller: Caller, told: str = "", secret: str = "", trouble: str = "", status: int = 200
) -> HTMLResponse:
    site = site_of(request)

    def work(orm: OrmSession) -> dict[str, Any]:
        names = list(orm.scalars(select(Microscope.name).order_by(Microscope.name)))
        return {"people": list_people(orm), "access": [who_may_log_in(orm, name) for name in names]}

    values = {
        "told": told,
        "secret": secret,
        "trouble": trouble,
        "roles": list(map(str, FACILITY_ROLES)),
        "sources": SOURCES,
        "writes": may(caller, "people.write"),
    }
    return site.render(request, "people.html", {**site.read(work), **values}, status)


@router.post("/people")
def add_somebody(
    request: Request,
    caller: Writer,
    login: Field = "",
    name: Field = "",
    email: Field = "",
    facility_role: Field = "",
    unix_name: Field = "",
    source: Field = "local",
) -> HTMLResponse:
    """Add somebody; a local account gets a password, which is shown this once."""
    site = site_of(request)
    secret = new_password() if source == "local" else ""
    hashed = hash_password(secret) if secret else None

    def work(orm: OrmSession) -> str:
        person = add_person(
            orm,
            login,
            name=name,
            email=email,
            facility_role=facility_role,
            password_hash=hashed,
            source=source,
            unix_name=unix_name,
        )
        audit(orm, caller, "people.add", f"person {person.login}", {"role": facility_role, "source": source})
        return person.login

    try:
        made = site.catalog.write(work)
    except BadParameter as error:
        return _people(request, caller, trouble=str(error), status=422)
    return _people(request, caller, told=made, secret=secret)


@router.post("/people/{login}")
def change_somebody(
    request: Request,
    caller: Writer,
    login: Name,
    name: Field = "",
    email: Field = "",
    facility_role: Field = "",
    unix_name: Field = "",
    active: Annotated[bool, Form()] = False,
) -> Response:
    """Change somebody's details, role, or whether they may come in at all."""
    values = {
        "name": name,
        "email": email,
        "facility_role": facility_role,
        "unix_name": unix_name,
        "active": active,
    }

    def work(orm: OrmSession) -> None:
        person = find_person(orm, login)
        changed = set_person(orm, person, values)
        audit(orm, caller, "people.change", f"person {person.login}", changed)

    try:
        site_of(request).catalog.write(work)
    except BadParameter as error:
        return _people(request, caller, trouble=str(error), status=422)
    return RedirectResponse("/people", status_code=303)


@router.post("/people/{login}/password")
def reset_password(request: Request, caller: Writer, login: Name) -> HTMLResponse:
    """Give a local account a new password, shown this once, and sign it out everywhere."""
    secret = new_password()
    hashed = hash_password(secret)

    def work(orm: OrmSession) -> str:
        person = find_person(orm, login)
        replace_password(orm, caller, person, hashed)
        return person.login

    try:
        told = site_of(request).catalog.write(work)
    except BadParameter as error:
        return _people(request, caller, trouble=str(error), status=422)
    return _people(request, caller, told=told, secret=secret)


# ---- an experiment's people


@router.get("/experiments/{experiment}/people")
def members_page(
    request: Request, caller: Annotated[Caller, needs("experiment.people")], experiment: Name
) -> HTMLResponse:
    """Who belongs to an experiment."""
    return _members(request, caller, experiment)


def _members(
    request: Request, caller: Caller, name: str, trouble: str = "", status: int = 200
) -> HTMLResponse:
    site = site_of(request)

    def work(orm: OrmSession) -> dict[str, Any]:
        experiment = find_experiment(orm, name)
        writes = may(caller, "membership.write", Subject(experiment.id))
        return {
            "experiment": experiment,
            "members": members(orm, experiment.id),
            "writes": writes,
            "everybody": [one for one in list_people(orm) if one.active] if writes else [],
        }

    values = {"trouble": trouble, "roles": list(map(str, EXPERIMENT_ROLES))}
    return site.render(request, "members.html", {**site.read(work), **values}, status)


@router.post("/experiments/{experiment}/people")
def let_in(
    request: Request, caller: Opener, experiment: Name, login: Field = "", role: Field = "researcher"
) -> Response:
    """Let somebody into an experiment, or change their role in it."""
    try:
        site_of(request).catalog.write(lambda orm: set_member(orm, caller, experiment, login, role))
    except BadParameter as error:
        return _members(request, caller, experiment, str(error), 422)
    return _back(request)


@router.post("/experiments/{experiment}/people/{login}/remove")
def let_out(request: Request, caller: Opener, experiment: Name, login: Name) -> Response:
    """End somebody's membership."""
    try:
        site_of(request).catalog.write(lambda orm: set_member(orm, caller, experiment, login, None))
    except BadParameter as error:
        return _members(request, caller, experiment, str(error), 422)
    return _back(request, 2)


def _back(request: Request, up: int = 0) -> Response:
    """To the page that the form stood on: its address, short of what names the deed."""
    parts = request.url.path.split("/")
    return RedirectResponse("/".join(parts[: len(parts) - up]), status_code=303)


# ---- what everybody did


@router.get("/audit", dependencies=[needs("audit.read")])
def audit_page(
    request: Request,
    login: Annotated[str, Query(max_length=64)] = "",
    action: Annotated[str, Query(max_length=64)] = "",
    subject: Annotated[str, Query(max_length=255)] = "",
    before: Annotated[int | None, Query(ge=1, le=2**63 - 1)] = None,
) -> HTMLResponse:
    """Who did what."""
    site = site_of(request)

    def work(orm: OrmSession) -> list[Audit]:
        return list_audit(
            orm, login=login, action=action, subject=subject, before=before, limit=AUDIT_PAGE + 1
        )

    rows = site.read(work)
    values = {
        "rows": rows[:AUDIT_PAGE],
        "older": rows[AUDIT_PAGE - 1].id if len(rows) > AUDIT_PAGE else None,
        "login": login,
        "action": action,
        "subject": subject,
    }
    return site.render(request, "audit.html", values)
