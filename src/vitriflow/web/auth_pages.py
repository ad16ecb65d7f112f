"""Pages to sign in and out, and of one's own account: tokens and password."""

from typing import Annotated, Any

from fastapi import APIRouter, Form, Path, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from sqlalchemy.orm import Session as OrmSession

from vitriflow.catalog import ApiToken, Experiment, Person
from vitriflow.elogbook.audit import audit
from vitriflow.elogbook.people import caller_of, end_sessions_of
from vitriflow.elogbook.permissions import ALL_SCOPES, Caller, Forbidden, Scope, require
from vitriflow.elogbook.tokens import (
    end_session,
    hash_password,
    list_tokens,
    make_token,
    password_fits,
    revoke_token,
    start_session,
)
from vitriflow.errors import BadParameter
from vitriflow.facility.ldap import DirectoryAway
from vitriflow.facility.signing_in import Refused, sign_in
from vitriflow.web.auth import COOKIE, cookie_name, drop_cookie, is_open, needs
from vitriflow.web.problems import NotFound, TooMany
from vitriflow.web.site import Site, put_cookie, site_of

router = APIRouter(include_in_schema=False)

Text = Annotated[str, Form(max_length=256)]
Secret = Annotated[str, Form(max_length=1024)]
Asker = Annotated[Caller, needs("own.account")]
Owner = Annotated[Caller, needs("own.change")]
SCOPES = {
    Scope.READ: "see and download",
    Scope.WRITE: "write into the log, mark exposures",
    Scope.CONTROL: "run sessions",
    Scope.ADMIN: "change people and tokens",
    Scope.CONDUCT: "conduct processing: for Airflow",
}


def safe_next(where: str) -> str:
    """A page of this server to go on to; the list of sessions for anything else."""
    good = where.startswith("/") and not where.startswith(("//", "/\\", "/sign-")) and where.isprintable()
    return where if good and "\\" not in where else "/"


def person_signing_in(site: Site, login: str, password: str, address: str) -> Person:
    """Who signs in, unless there were too many tries.

    Raises
    ------
    TooMany
        Before the password is even looked at.
    Refused
        When login and password don't fit.
    """
    wait = site.limiter.wait_s(login, address)
    if wait > 0:
        raise TooMany("sign-in", wait)
    try:
        person = sign_in(site.catalog, site.authenticators, login, password, address)
    except Refused:
        site.limiter.refused(login, address)
        raise
    site.limiter.fitted(login, address)
    return person


@router.get("/sign-in")
def sign_in_page(
    request: Request,
    caller: Annotated[Caller, needs("anyone")],
    where: Annotated[str, Query(alias="next", max_length=2000)] = "/",
) -> Response:
    """The form."""
    if caller.way == "cookie":
        return RedirectResponse(safe_next(where), status_code=303)
    return _form(request, where)


def _form(
    request: Request, where: str, trouble: str = "", login: str = "", status: int = 200
) -> HTMLResponse:
    site = site_of(request)
    values = {"next": safe_next(where), "trouble": trouble, "login": login, "open_here": is_open(request)}
    return site.render(request, "sign_in.html", values, status)


@router.post("/sign-in")
def do_sign_in(
    request: Request,
    caller: Annotated[Caller, needs("sign-in")],
    login: Text = "",
    password: Secret = "",
    where: Annotated[str, Form(alias="next", max_length=2000)] = "/",
) -> Response:
    """Sign a browser in: always with a new secret, whatever cookie it came with."""
    site = site_of(request)
    try:
        person = person_signing_in(site, login, password, caller.address)
    except Refused:
        caller.trail.append("sign-in.refused")
        return _form(request, where, "Login and password don't fit. Try again.", login, 401)
    except TooMany as error:
        caller.trail.append("sign-in.limited")
        slow = _form(request, where, f"Too many tries. {error.remedy}", login, 429)
        slow.headers["retry-after"] = str(error.wait_s)
        return slow
    except DirectoryAway as error:
        text = "The facility's directory doesn't answer, so only local accounts can sign in now."
        audit_away(site, caller, error)
        return _form(request, where, text, login, 503)
    old = request.cookies.get(cookie_name(request), "")

    def work(orm: OrmSession) -> str:
        if old:
            end_session(orm, old)
        mine = orm.get_one(Person, person.id)
        secret, _ = start_session(orm, mine, site.session_hours, caller.address)
        audit(
            orm,
            caller_of(orm, mine, "cookie", address=caller.address),
            "sign-in",
            details={"by": mine.source},
        )
        return secret

    secret = site.catalog.write(work)
    caller.trail.append("sign-in")
    answer = RedirectResponse(safe_next(where), status_code=303)
    put_cookie(request, answer, cookie_name(request), secret, round(site.session_hours * 3600))
    return answer


def audit_away(site: Site, caller: Caller, error: DirectoryAway) -> None:
    """Note that nobody could be asked."""
    site.catalog.write(lambda orm: audit(orm, caller, "sign-in.away", details={"why": error.found}))


@router.post("/sign-out")
def do_sign_out(request: Request, caller: Annotated[Caller, needs("sign-in")]) -> Response:
    """Sign this browser out: its secret is worth nothing from now on."""
    site = site_of(request)
    secret = request.cookies.get(cookie_name(request), "")

    def work(orm: OrmSession) -> None:
        end_session(orm, secret)
        audit(orm, caller, "sign-out")

    site.catalog.write(work)
    answer = RedirectResponse("/sign-in", status_code=303)
    drop_cookie(request, answer, cookie_name(request))
    answer.headers["clear-site-data"] = '"cache"'
    return answer


# ---- one's own account


@router.get("/me")
def account_page(request: Request, caller: Asker) -> HTMLResponse:
    """Tokens, password, experiments."""
    return _account(request, caller)


def _account(
    request: Request, caller: Caller, made: str = "", trouble: str = "", told: str = "", status: int = 200
) -> HTMLResponse:
    site = site_of(request)

    def work(orm: OrmSession) -> dict[str, Any]:
        person = orm.get(Person, caller.person_id) if caller.person_id is not None else None
        names = {one.id: one.name for one in (orm.get(Experiment, n) for n in caller.roles) if one}
        tokens: list[ApiToken] = list_tokens(orm, person.id) if person else []
        return {"person": person, "experiments": names, "tokens": tokens}

    values = {"made": made, "trouble": trouble, "told": told, "scopes": SCOPES, "days": site.token_days}
    return site.render(request, "me.html", {**site.read(work), **values}, status)


def own_token(
    orm: OrmSession, caller: Caller, name: str, scopes: list[str], days: float, experiment: str
) -> tuple[str, ApiToken]:
    """Make a token of the caller's own, for no more than the caller may do now.

    Raises
    ------
    Forbidden
        When the caller has no account, or asks for a scope that the caller's own token hasn't.
    BadParameter
        When a value can't be right.
    """
    person = _person(orm, caller)
    number = caller.only_experiment
    if experiment:
        mine = [one for one in (orm.get(Experiment, n) for n in caller.roles) if one]
        found = next((one for one in mine if one.name == experiment), None)
        if found is None or number not in (None, found.id):
            raise BadParameter("experiment", "one of your own", repr(experiment)[:80])
        number = found.id
    more = {one for one in scopes if one in tuple(Scope)} - set(caller.scopes)
    if more:
        raise Forbidden("scopes", "those of the token that asks", ", ".join(sorted(more))[:80], "")
    secret, row = make_token(orm, person, name, scopes, days, number)
    details = {"name": row.name, "scopes": ", ".join(row.scopes), "until": row.expires_at}
    audit(orm, caller, "token.make", f"person {person.login}", details)
    return secret, row


def _person(orm: OrmSession, caller: Caller) -> Person:
    if caller.person_id is None:
        raise Forbidden(
            "account",
            "somebody with an account",
            "this machine's own user",
            "Add a person: vitriflow people add",
        )
    return orm.get_one(Person, caller.person_id)


@router.post("/me/tokens")
def make_own_token(
    request: Request,
    caller: Owner,
    name: Text = "",
    scopes: Annotated[list[str] | None, Form(max_length=8)] = None,
    days: Annotated[float, Form(gt=0, le=366)] = 90.0,
    experiment: Text = "",
) -> HTMLResponse:
    """Make a token; its secret is shown this once."""
    site = site_of(request)
    try:
        secret, _ = site.catalog.write(
            lambda orm: own_token(orm, caller, name, scopes or [], days, experiment)
        )
    except BadParameter as error:
        return _account(request, caller, trouble=str(error), status=422)
    return _account(request, caller, made=secret)


@router.post("/me/tokens/{token_id}/revoke")
def revoke_own_token(
    request: Request, caller: Owner, token_id: Annotated[int, Path(ge=1, le=2**31 - 1)]
) -> Response:
    """Revoke one of one's own tokens."""
    site_of(request).catalog.write(lambda orm: revoke_own(orm, caller, token_id))
    return RedirectResponse("/me", status_code=303)


def revoke_own(orm: OrmSession, caller: Caller, token_id: int) -> None:
    """Revoke one of the caller's tokens.

    Raises
    ------
    NotFound
        When the caller has no such token.
    """
    row = revoke_token(orm, caller.person_id, token_id) if caller.person_id is not None else None
    if row is None:
        raise NotFound("token", "one of your own", str(token_id))
    audit(orm, caller, "token.revoke", f"person {caller.login}", {"name": row.name})


@router.post("/me/password")
def change_own_password(
    request: Request, caller: Owner, old: Secret = "", new: Secret = "", again: Secret = ""
) -> Response:
    """Change one's own password; all other browsers are signed out."""
    site = site_of(request)
    require(caller, "own.change")
    if caller.way != "cookie":
        raise Forbidden(
            "password", "a browser that's signed in", f"a {caller.way}", "Sign in with a browser."
        )
    wait = site.limiter.wait_s(caller.login, caller.address)
    if wait > 0:
        raise TooMany("password", wait)
    if new != again:
        return _account(request, caller, trouble="The two new passwords differ.", status=422)
    person = site.read(lambda orm: _person(orm, caller))
    if person.source != "local" or not password_fits(person.password_hash, old):
        site.limiter.refused(caller.login, caller.address)
        return _account(request, caller, trouble="The old password doesn't fit.", status=422)
    try:
        hashed = hash_password(new)
    except BadParameter as error:
        return _account(request, caller, trouble=str(error), status=422)

    def work(orm: OrmSession) -> str:
        mine = _person(orm, caller)
        mine.password_hash = hashed
        end_sessions_of(orm, mine)
        orm.flush()
        secret, _ = start_session(orm, mine, site.session_hours, caller.address)
        audit(orm, caller, "people.password", f"person {mine.login}")
        return secret

    secret = site.catalog.write(work)
    answer = RedirectResponse("/me", status_code=303)
    put_cookie(request, answer, cookie_name(request), secret, round(site.session_hours * 3600))
    return answer


__all__ = ["ALL_SCOPES", "COOKIE", "own_token", "person_signing_in", "revoke_own", "router", "safe_next"]
