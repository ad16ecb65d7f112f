"""Who may log in to a session's microscope now, and the helpers that an operator lets in for it."""

from typing import Annotated, Any

from fastapi import APIRouter, Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from sqlalchemy import select
from sqlalchemy.orm import Session as OrmSession

from vitriflow.catalog import Microscope, Session, SessionState, views
from vitriflow.elogbook.access import current_session, helpers, set_helper, who_may_log_in
from vitriflow.elogbook.people import list_people
from vitriflow.elogbook.permissions import Caller
from vitriflow.errors import BadParameter
from vitriflow.web.api import SessionKey
from vitriflow.web.auth import needs
from vitriflow.web.problems import NotFound
from vitriflow.web.site import site_of

router = APIRouter(include_in_schema=False)
Opener = Annotated[Caller, needs("session.helpers")]
Login = Annotated[str, Form(max_length=64)]


@router.get("/sessions/{key}/access", dependencies=[needs("session.helpers")])
def access_page(request: Request, key: SessionKey) -> HTMLResponse:
    """Who may log in to the microscope now, and why; helpers to add and to remove."""
    return _page(request, key)


def _page(request: Request, key: str, trouble: str = "", login: str = "", status: int = 200) -> HTMLResponse:
    site = site_of(request)

    def work(orm: OrmSession) -> dict[str, Any]:
        shown = views.find_session(orm, key)
        row = orm.scalar(select(Session).where(Session.key == key))
        if shown is None or row is None:
            raise NotFound("session", "the key of a session", key[:200], "The list of sessions is at /.")
        current = current_session(orm, row.microscope_id)
        microscope = orm.get_one(Microscope, row.microscope_id).name
        mine = helpers(orm, row.id)
        there = {one.id for one in mine}
        return {
            "session": shown,
            "access": who_may_log_in(orm, microscope),
            "current": current is not None and current.id == row.id,
            "current_key": current.key if current is not None else None,
            "closed": row.state == SessionState.CLOSED,
            "helpers": mine,
            "others": [one for one in list_people(orm) if one.active and one.id not in there],
        }

    values = {"trouble": trouble, "login": login}
    return site.render(request, "session_access.html", {**site.read(work), **values}, status)


@router.post("/sessions/{key}/access")
def add_helper(request: Request, caller: Opener, key: SessionKey, login: Login = "") -> Response:
    """Let somebody log in until the session stops."""
    return _set(request, caller, key, login, helps=True)


@router.post("/sessions/{key}/access/remove")
def remove_helper(request: Request, caller: Opener, key: SessionKey, login: Login = "") -> Response:
    """Take a helper's access back."""
    return _set(request, caller, key, login, helps=False)


def _set(request: Request, caller: Caller, key: str, login: str, *, helps: bool) -> Response:
    try:
        site_of(request).catalog.write(lambda orm: set_helper(orm, caller, key, login.strip(), helps=helps))
    except BadParameter as error:
        return _page(request, key, str(error), login, 422)
    return RedirectResponse(request.url.path.removesuffix("/remove"), status_code=303)
