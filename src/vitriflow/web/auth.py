"""Who asks, and whether they may: every route says what it needs with ``needs("session.read")``.

>>> @router.get("/sessions/{key}", dependencies=[needs("session.read")])
>>> def page(caller: Annotated[Caller, needs("session.read")]): ...

What an action is done to is found from the path: ``{key}`` is a session, ``{experiment}`` an
experiment's name; other names are registered with :func:`register_subject`.
"""

import hmac
import ipaddress
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from fastapi import Depends, FastAPI, Request
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session as OrmSession
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount

from vitriflow.catalog import Experiment
from vitriflow.elogbook.access import subject_of_session
from vitriflow.elogbook.audit import audit
from vitriflow.elogbook.people import anybody
from vitriflow.elogbook.permissions import (
    ACTIONS,
    FACILITY,
    About,
    Caller,
    Forbidden,
    Role,
    SignInNeeded,
    Subject,
    may,
    require,
    sees,
)
from vitriflow.elogbook.tokens import caller_of_session, caller_of_token, hash_secret, note_use
from vitriflow.web.problems import NotFound
from vitriflow.web.security import LOOPBACK, host_name
from vitriflow.web.site import Site, csrf_of, is_https, site_of, visit_name

COOKIE = "vitriflow"
CSRF_HEADER = "x-csrf-token"
CSRF_FIELD = "csrf"
SAFE = ("GET", "HEAD", "OPTIONS")
# Carry no data of any session: the scripts and styles, and the description of the API.
PUBLIC = ("/static", "/api/openapi.json")

Resolver = Callable[[OrmSession, str], Subject | None]


def _experiment(orm: OrmSession, name: str) -> Subject | None:
    found = orm.scalar(select(Experiment.id).where(Experiment.name == name))
    return None if found is None else Subject(found, name=f"experiment {name}")


_RESOLVERS: dict[str, Resolver] = {"key": subject_of_session, "experiment": _experiment}


def _resolve(resolver: Resolver, text: str, orm: OrmSession) -> Subject | None:
    return resolver(orm, text)


def register_subject(name: str, resolver: Resolver) -> None:
    """Say how a path parameter leads to the experiment that it belongs to (None: no such thing)."""
    _RESOLVERS[name] = resolver


class Needs:
    """Dependency of a route: finds out who asks and of what, refuses, checks forms, and keeps the audit log."""

    def __init__(self, action: str) -> None:
        self.action = action
        self.rule = ACTIONS[action]

    async def __call__(self, request: Request) -> AsyncIterator[Caller]:
        """Give the caller to the route; afterwards record what a writing route didn't record itself."""
        site = site_of(request)
        caller = await caller_of_request(request)
        subject = await run_in_threadpool(self._subject, site, request, caller)
        if subject is None:
            # Whoever sees everything hears from the route itself what's wrong with the name.
            if not caller.sees_all:
                raise _not_there(request) if caller.signed_in else _nobody()
            subject = Subject(experiment_id=0)
        elif caller.signed_in and not sees(caller, subject):
            raise _not_there(request)
        require(caller, self.action, subject)
        writes = request.method not in SAFE
        if writes:
            await check_csrf(request, caller)
        yield caller
        if writes and not caller.trail:
            what = subject.name or request.url.path
            await run_in_threadpool(site.catalog.write, lambda orm: audit(orm, caller, self.action, what))

    def _subject(self, site: Site, request: Request, caller: Caller) -> Subject | None:
        if self.rule.about != About.EXPERIMENT or not caller.signed_in:
            return FACILITY
        for name, resolver in _RESOLVERS.items():
            value = request.path_params.get(name)
            if value is not None:
                text = str(value)
                if len(text) > 512 or not text.isprintable():
                    return None
                return site.read(partial(_resolve, resolver, text))
        return None


def needs(action: str) -> Any:
    """What a route declares: the action (of ``elogbook.permissions.ACTIONS``) that its caller must be allowed.

    Use it as ``dependencies=[needs("session.read")]``, or as
    ``caller: Annotated[Caller, needs("session.read")]`` where the route wants to know who asks.
    """
    return Depends(Needs(action), scope="function")


def declared(route: BaseRoute) -> str | None:
    """The action that a route declares; None when it declares none."""
    dependant = getattr(route, "dependant", None)
    waiting = list(dependant.dependencies) if dependant is not None else []
    while waiting:
        one = waiting.pop()
        if isinstance(one.call, Needs):
            return one.call.action
        waiting += one.dependencies
    return None


def check_declared(app: FastAPI) -> None:
    """Refuse to start with a route that doesn't say who may use it.

    Raises
    ------
    RuntimeError
        Naming the route. It's a mistake of the program.
    """
    for route in all_routes(app.routes):
        path = str(getattr(route, "path", ""))
        if path in PUBLIC:
            continue
        action = declared(route)
        if action is None:
            raise RuntimeError(f"route {path} declares no permission: add dependencies=[needs(...)]")
        known = any("{" + name in path for name in _RESOLVERS)
        if ACTIONS[action].about == About.EXPERIMENT and not known:
            raise RuntimeError(f"route {path} needs {action}, but its path names nothing of an experiment")


def all_routes(routes: Any) -> list[BaseRoute]:
    """All routes of an application, those of included routers too; shipped files as their mount."""
    found: list[BaseRoute] = []
    for route in routes:
        included = getattr(route, "original_router", None)  # FastAPI keeps included routers as they are
        inner = [] if isinstance(route, Mount) else getattr(included or route, "routes", [])
        found += all_routes(inner) if inner else [route]
    return found


async def caller_of_request(request: Request) -> Caller:
    """Who asks: by token, by cookie, as this machine's own user in open mode, or nobody.

    Raises
    ------
    SignInNeeded
        When a token was given that isn't one (any more).
    """
    known = getattr(request.state, "caller", None)
    if isinstance(known, Caller):
        return known
    caller = await run_in_threadpool(_look, request)
    request.state.caller = caller
    return caller


async def while_allowed(
    request: Request, action: str, key: str, stream: AsyncIterator[Any], every_s: float = 15.0
) -> AsyncIterator[Any]:
    """A session's live stream, ended once its reader may no longer see it (signed out, no longer a member)."""
    site = site_of(request)

    def still() -> bool:
        subject = site.read(lambda orm: subject_of_session(orm, key))
        return subject is not None and may(_look(request), action, subject)

    looked = time.monotonic()
    try:
        async for event in stream:
            if time.monotonic() - looked > every_s:
                looked = time.monotonic()
                try:
                    if not await run_in_threadpool(still):
                        return
                except SignInNeeded:
                    return
                except SQLAlchemyError:
                    pass  # the stream itself tells of a catalog that doesn't answer
            yield event
    finally:
        await stream.aclose()  # type: ignore[attr-defined]


def _look(request: Request) -> Caller:
    site = site_of(request)
    address = request.client.host if request.client else ""
    kind, _, secret = request.headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer":
        found = site.read(lambda orm: caller_of_token(orm, secret.strip(), address))
        if found is None:
            raise SignInNeeded(
                "token", "a token that may be used", "one that is unknown, over or revoked", "Make a new one."
            )
        if site.is_news(f"token {hash_secret(secret)}"):
            site.catalog.write(lambda orm: note_use(orm, secret.strip()))
        return found
    cookie = request.cookies.get(cookie_name(request), "")
    if cookie:
        found = site.read(lambda orm: caller_of_session(orm, cookie, address))
        if found is not None:
            return found
    if is_open(request):
        return Caller(
            "open", login="local", name="this machine", facility_role=Role.OPERATOR, address=address
        )
    return Caller(address=address)


def is_open(request: Request) -> bool:
    """Whether the request comes from this very machine to a server of one user: no people, loopback only."""
    site = site_of(request)
    if not site.open_here or site.has_people:
        return False
    headers = request.headers
    proxied = any(name in headers for name in ("x-forwarded-for", "x-forwarded-host", "forwarded", "via"))
    if proxied or host_name(headers.get("host", "")) not in LOOPBACK or not _is_local(request):
        return False
    site.has_people = site.read(anybody)  # people are never deleted, so once true is always true
    return not site.has_people


def _is_local(request: Request) -> bool:
    try:
        return request.client is not None and ipaddress.ip_address(request.client.host).is_loopback
    except ValueError:
        return False


def _nobody() -> SignInNeeded:
    return SignInNeeded("sign-in", "somebody who is signed in", "nobody", "Sign in, or give a token.")


def _not_there(request: Request) -> NotFound:
    """The same answer for what isn't there and for what isn't the caller's."""
    name = next((key for key in _RESOLVERS if key in request.path_params), "")
    what = "session" if name == "key" else name or "page"
    return NotFound(
        what,
        expected=f"the {'key' if what == 'session' else 'name'} of a {what}",
        found=str(request.path_params.get(name, request.url.path))[:200],
        remedy="The list of sessions is at /.",
    )


# ---- forms: a page of another site must not be able to send them in somebody's name


async def check_csrf(request: Request, caller: Caller) -> None:
    """Refuse a write that a browser sends without the secret of its own session.

    Tokens aren't sent by browsers on their own, so requests with one need nothing else. What
    carries neither cookie nor any header that only browsers send is no browser.

    Raises
    ------
    Forbidden
        When the request comes from another site, or its secret is missing, old or another's.
    """
    if caller.way == "token":
        return
    headers = request.headers
    site = headers.get("sec-fetch-site", "")
    origin = headers.get("origin", "")
    if site not in ("", "same-origin", "none") or (origin and not _same(origin, headers.get("host", ""))):
        raise Forbidden(
            "form", "one of this site", f"one of {origin or 'another site'}"[:200], "Reload the page."
        )
    expected = caller.csrf if caller.way == "cookie" else request.cookies.get(visit_name(request), "")
    if caller.way != "cookie" and not (expected or site or origin):
        return
    given = headers.get(CSRF_HEADER, "")
    kind = headers.get("content-type", "")
    if not given and kind.startswith(("application/x-www-form-urlencoded", "multipart/form-data")):
        given = str((await request.form()).get(CSRF_FIELD, ""))
    if not expected or not hmac.compare_digest(given.encode(), expected.encode()):
        raise Forbidden(
            "form", "one from a page of this visit", "an old one, or one of another site", "Reload the page."
        )


def _same(origin: str, host: str) -> bool:
    return urlsplit(origin).netloc.lower() == host.strip().lower()


# ---- cookies


def cookie_name(request: Request) -> str:
    """Name of the cookie that says who it is; by https browsers hold it to this very host."""
    return f"__Host-{COOKIE}" if is_https(request) else COOKIE


def drop_cookie(request: Request, response: Response, name: str) -> None:
    """Take a cookie back."""
    response.delete_cookie(name, path="/", secure=is_https(request), httponly=True, samesite="lax")


__all__ = [
    "Caller",
    "Needs",
    "all_routes",
    "caller_of_request",
    "check_declared",
    "csrf_of",
    "declared",
    "may",
    "needs",
    "register_subject",
    "while_allowed",
]
