"""The API of people: tokens, memberships, helpers, who may log in to a microscope, audit."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from sqlalchemy import select
from sqlalchemy.orm import Session as OrmSession

from vitriflow.catalog import Experiment, Person, Session
from vitriflow.elogbook.access import Access, helpers, set_helper, set_member, who_may_log_in
from vitriflow.elogbook.audit import list_audit
from vitriflow.elogbook.experiments import find_experiment
from vitriflow.elogbook.people import caller_of, list_people, members
from vitriflow.elogbook.permissions import Caller
from vitriflow.elogbook.tokens import list_tokens
from vitriflow.errors import BadParameter
from vitriflow.facility.ldap import DirectoryAway
from vitriflow.facility.signing_in import Refused
from vitriflow.web import auth_models as models
from vitriflow.web.api import PRINTABLE, SessionKey
from vitriflow.web.auth import needs
from vitriflow.web.auth_pages import own_token, person_signing_in, revoke_own
from vitriflow.web.models import ErrorAnswer
from vitriflow.web.problems import NotFound, Unauthorised
from vitriflow.web.site import site_of

_ERRORS: dict[int | str, dict[str, Any]] = {
    code: {"model": ErrorAnswer} for code in (400, 401, 403, 404, 413, 422, 429, 503)
}
router = APIRouter(prefix="/api", responses=_ERRORS, tags=["people"])
Name = Annotated[str, Path(min_length=1, max_length=128, pattern=PRINTABLE)]
Login = Annotated[str, Path(min_length=1, max_length=64, pattern=PRINTABLE)]


@router.post("/login")
def login(
    request: Request, caller: Annotated[Caller, needs("sign-in")], asked: models.LoginRequest
) -> models.TokenMade:
    """Make a token by login and password, for programs on other machines."""
    site = site_of(request)
    try:
        found = person_signing_in(site, asked.login, asked.password, caller.address)
    except Refused as error:
        caller.trail.append("sign-in.refused")
        raise Unauthorised(error.thing, error.expected, error.found, error.remedy) from error
    except DirectoryAway:
        caller.trail.append("sign-in.away")
        raise

    def work(orm: OrmSession) -> models.TokenMade:
        person = orm.get_one(Person, found.id)
        mine = caller_of(orm, person, "token", address=caller.address)
        secret, row = own_token(orm, mine, asked.name, asked.scopes, asked.days, "")
        return models.TokenMade(token=secret, name=row.name, scopes=row.scopes, expires_at=row.expires_at)

    made = site.catalog.write(work)
    caller.trail.append("token.make")
    return made


@router.get("/me")
def me(request: Request, caller: Annotated[Caller, needs("own.account")]) -> models.MeAnswer:
    """Who asks, as which role, and what the token is for."""

    def work(orm: OrmSession) -> dict[str, str]:
        found = {number: orm.get(Experiment, number) for number in caller.roles}
        return {one.name: caller.roles[number] for number, one in found.items() if one is not None}

    return models.MeAnswer(
        login=caller.login,
        name=caller.name,
        way=caller.way,
        facility_role=caller.facility_role,
        scopes=sorted(caller.scopes),
        experiments=site_of(request).read(work),
    )


@router.get("/tokens")
def tokens(request: Request, caller: Annotated[Caller, needs("own.account")]) -> models.TokensAnswer:
    """One's own tokens, without their secrets."""
    number = caller.person_id
    rows = site_of(request).read(lambda orm: list_tokens(orm, number) if number is not None else [])
    shown = [models.TokenView.model_validate(row, from_attributes=True) for row in rows]
    return models.TokensAnswer(tokens=shown)


@router.post("/tokens", status_code=201)
def make_token(
    request: Request, caller: Annotated[Caller, needs("own.change")], asked: models.TokenRequest
) -> models.TokenMade:
    """Make a token of one's own; its secret is told this once."""
    secret, row = site_of(request).catalog.write(
        lambda orm: own_token(orm, caller, asked.name, asked.scopes, asked.days, asked.experiment)
    )
    return models.TokenMade(token=secret, name=row.name, scopes=row.scopes, expires_at=row.expires_at)


@router.delete("/tokens/{token_id}", status_code=204)
def revoke_token(
    request: Request,
    caller: Annotated[Caller, needs("own.change")],
    token_id: Annotated[int, Path(ge=1, le=2**31 - 1)],
) -> None:
    """Revoke one of one's own tokens."""
    site_of(request).catalog.write(lambda orm: revoke_own(orm, caller, token_id))


@router.get("/access/{microscope}", dependencies=[needs("access.read")])
def access(request: Request, microscope: Name) -> models.AccessAnswer:
    """Who may log in to a microscope's machines now: for remote desktops and support machines."""

    def work(orm: OrmSession) -> Access:
        try:
            return who_may_log_in(orm, microscope)
        except BadParameter as error:
            raise NotFound(error.thing, error.expected, error.found) from error

    return models.AccessAnswer.model_validate(site_of(request).read(work), from_attributes=True)


@router.get("/people", dependencies=[needs("people.read")])
def people(request: Request) -> list[dict[str, Any]]:
    """Everybody of the facility."""
    names = ("login", "name", "email", "facility_role", "source", "unix_name", "active", "last_sign_in_at")
    return site_of(request).read(
        lambda orm: [{name: getattr(one, name) for name in names} for one in list_people(orm)]
    )


@router.get("/experiments/{experiment}/people", dependencies=[needs("experiment.people")])
def experiment_people(request: Request, experiment: Name) -> models.MembersAnswer:
    """Who belongs to an experiment."""
    return site_of(request).read(lambda orm: _members(orm, experiment))


@router.put("/experiments/{experiment}/people/{login}")
def set_experiment_member(
    request: Request,
    caller: Annotated[Caller, needs("membership.write")],
    experiment: Name,
    login: Login,
    asked: models.MemberRequest,
) -> models.MembersAnswer:
    """Let somebody into an experiment, or change their role."""

    def work(orm: OrmSession) -> models.MembersAnswer:
        set_member(orm, caller, experiment, login, asked.role)
        return _members(orm, experiment)

    return site_of(request).catalog.write(work)


@router.delete("/experiments/{experiment}/people/{login}")
def end_experiment_member(
    request: Request,
    caller: Annotated[Caller, needs("membership.write")],
    experiment: Name,
    login: Login,
) -> models.MembersAnswer:
    """End somebody's membership."""

    def work(orm: OrmSession) -> models.MembersAnswer:
        set_member(orm, caller, experiment, login, None)
        return _members(orm, experiment)

    return site_of(request).catalog.write(work)


def _members(orm: OrmSession, name: str) -> models.MembersAnswer:
    try:
        experiment = find_experiment(orm, name)
    except BadParameter as error:
        raise NotFound(error.thing, error.expected, error.found) from error
    shown = [
        models.MemberView(login=person.login, name=person.name, role=role)
        for person, role in members(orm, experiment.id)
    ]
    return models.MembersAnswer(experiment=experiment.name, members=shown)


@router.get("/sessions/{key}/helpers", dependencies=[needs("session.helpers")])
def list_helpers(request: Request, key: SessionKey) -> models.HelpersAnswer:
    """Who may log in for this session besides operators and collaborators."""
    return site_of(request).read(lambda orm: _helpers(orm, _session(orm, key)))


@router.put("/sessions/{key}/helpers/{login}")
def let_help(
    request: Request, caller: Annotated[Caller, needs("session.helpers")], key: SessionKey, login: Login
) -> models.HelpersAnswer:
    """Let somebody log in to the microscope for this session; it ends with the session."""

    def work(orm: OrmSession) -> models.HelpersAnswer:
        _session(orm, key)
        return _helpers(orm, set_helper(orm, caller, key, login, helps=True))

    return site_of(request).catalog.write(work)


@router.delete("/sessions/{key}/helpers/{login}")
def end_help(
    request: Request, caller: Annotated[Caller, needs("session.helpers")], key: SessionKey, login: Login
) -> models.HelpersAnswer:
    """Take a helper's access back."""

    def work(orm: OrmSession) -> models.HelpersAnswer:
        _session(orm, key)
        return _helpers(orm, set_helper(orm, caller, key, login, helps=False))

    return site_of(request).catalog.write(work)


def _session(orm: OrmSession, key: str) -> Session:
    found = orm.scalar(select(Session).where(Session.key == key))
    if found is None:
        raise NotFound("session", "the key of a session", key[:200])
    return found


def _helpers(orm: OrmSession, session: Session) -> models.HelpersAnswer:
    return models.HelpersAnswer(session=session.key, helpers=[one.login for one in helpers(orm, session.id)])


@router.get("/audit", dependencies=[needs("audit.read")])
def audit_rows(
    request: Request,
    login: Annotated[str, Query(max_length=64)] = "",
    action: Annotated[str, Query(max_length=64)] = "",
    subject: Annotated[str, Query(max_length=255)] = "",
    before: Annotated[int | None, Query(ge=1, le=2**63 - 1)] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> models.AuditAnswer:
    """Who did what, newest first."""
    rows = site_of(request).read(
        lambda orm: list_audit(orm, login=login, action=action, subject=subject, before=before, limit=limit)
    )
    shown = [models.AuditView.model_validate(row, from_attributes=True) for row in rows]
    return models.AuditAnswer(rows=shown)
