"""What all pages share: catalog, columns, hub, templates."""

import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from fastapi import Request
from fastapi.responses import HTMLResponse, Response
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from sqlalchemy.orm import Session as OrmSession

import vitriflow
from vitriflow.catalog import Catalog
from vitriflow.config import Config
from vitriflow.elogbook.permissions import ANONYMOUS, Caller, may
from vitriflow.facility.signing_in import Authenticator
from vitriflow.web import words
from vitriflow.web.auth_limit import Limiter
from vitriflow.web.columns import ColumnStore
from vitriflow.web.live import Hub
from vitriflow.web.overlay import OverlayStore
from vitriflow.web.shipped import shipped_files
from vitriflow.web.tally import TaskTally

T = TypeVar("T")
VISIT = "vitriflow-visit"
_MOST_TOLD = 10_000


@dataclass
class Site:
    """One server's state; it stands in ``app.state.site``."""

    title: str
    catalog: Catalog
    hub: Hub
    scan_interval_s: float | None = None
    columns: ColumnStore = field(default_factory=ColumnStore)
    overlays: OverlayStore = field(default_factory=OverlayStore)
    tally: TaskTally = field(default_factory=TaskTally)
    templates: Environment = field(default_factory=lambda: _environment())
    roles: dict[int, dict[str, str]] = field(default_factory=dict)
    open_here: bool = True  # no sign-in for this machine's own user while the catalog knows no people
    has_people: bool = False  # once true, always true
    config: Config | None = None  # needed for what starts sessions and keeps files
    authenticators: Sequence[Authenticator] = ()
    limiter: Limiter = field(default_factory=Limiter)
    session_hours: float = 12.0
    token_days: float = 90.0
    _told: dict[str, float] = field(default_factory=dict)

    def read(self, work: Callable[[OrmSession], T]) -> T:
        """Run a query in one transaction, so that all numbers of an answer belong together."""
        return self.catalog.read(work)

    def render(
        self, request: Request, template: str, values: dict[str, Any], status: int = 200
    ) -> HTMLResponse:
        """A page from a template; everything put in is escaped."""
        caller = getattr(request.state, "caller", ANONYMOUS)
        shared = {
            "site": self,
            "path": request.url.path,
            "version": vitriflow.__version__,
            "caller": caller,
            "csrf": csrf_of(request),
            "allowed": lambda action: may(caller, action),
        }
        text = self.templates.get_template(template).render({**shared, **values})
        answer = HTMLResponse(text, status_code=status)
        made = getattr(request.state, "new_visit", "")
        if made:
            put_cookie(request, answer, visit_name(request), made, None)
        return answer

    def is_news(self, what: str, seconds: float = 60.0) -> bool:
        """Whether something wasn't noted in the last minute (by this server), and note it."""
        at = time.monotonic()
        if at - self._told.get(what, -seconds) < seconds:
            return False
        if len(self._told) >= _MOST_TOLD:
            self._told.clear()
        self._told[what] = at
        return True


def is_https(request: Request) -> bool:
    """Whether the browser came by https (a proxy on this machine may say so)."""
    return request.url.scheme == "https"


def visit_name(request: Request) -> str:
    """Name of the cookie of a visitor who isn't signed in: it belongs to the forms they were shown."""
    return f"__Host-{VISIT}" if is_https(request) else VISIT


def csrf_of(request: Request) -> str:
    """The secret that forms on a page carry; made anew for a visitor who has none."""
    caller: Caller = getattr(request.state, "caller", ANONYMOUS)
    if caller.way == "cookie":
        return caller.csrf
    known = request.cookies.get(visit_name(request), "") or getattr(request.state, "new_visit", "")
    if not known:
        known = request.state.new_visit = secrets.token_urlsafe(24)
    return str(known)


def put_cookie(request: Request, response: Response, name: str, value: str, seconds: int | None) -> None:
    """Set a cookie that scripts can't read and other sites can't send with forms."""
    response.set_cookie(
        name, value, max_age=seconds, path="/", secure=is_https(request), httponly=True, samesite="lax"
    )


def site_of(request: Request) -> Site:
    """The server's state, from a request."""
    site: Site = request.app.state.site
    return site


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("vitriflow.web", "templates"),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["static"] = shipped_files().url
    environment.globals["words"] = words
    environment.filters["number"] = words.number
    environment.filters["duration"] = words.duration
    environment.filters["ago"] = words.ago
    environment.filters["utc"] = words.utc
    environment.filters["iso"] = words.iso
    environment.filters["bytes"] = words.size
    return environment
