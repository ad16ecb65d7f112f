"""Every error as the same four facts: what, expected, found, remedy; as JSON, or as a page for people."""

import logging
from typing import Any
from urllib.parse import quote

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, RedirectResponse, Response
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from starlette.exceptions import HTTPException

from vitriflow.elogbook.permissions import Forbidden, SignInNeeded
from vitriflow.errors import (
    BadConfig,
    BadParameter,
    BadTemplate,
    Busy,
    CatalogError,
    ItemError,
    VitriflowError,
)
from vitriflow.facility.ldap import DirectoryAway
from vitriflow.web.security import HEADERS
from vitriflow.web.site import site_of

log = logging.getLogger(__name__)


class Unauthorised(SignInNeeded):
    """Login and password don't fit."""


class TooMany(VitriflowError):
    """Too many tries; later ones are answered again."""

    def __init__(self, thing: str, wait_s: float) -> None:
        self.wait_s = max(1, round(wait_s))
        super().__init__(thing, "fewer tries", "too many", f"Wait {self.wait_s} s, then try again.")


class NotFound(VitriflowError):
    """What was asked for isn't there (or isn't this session's)."""


def _answer(request: Request, status: int, error: VitriflowError) -> Response:
    facts = {
        "what": error.thing,
        "expected": error.expected,
        "found": error.found,
        "remedy": error.remedy,
    }
    if request.url.path.startswith("/api") or request.headers.get("hx-request"):
        return JSONResponse({"error": facts}, status_code=status)
    page = {"status": status, "error": facts}
    return site_of(request).render(request, "error.html", page, status)


def _vitriflow_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, VitriflowError)
    if isinstance(error, NotFound):
        return _answer(request, 404, error)
    if isinstance(error, SignInNeeded):
        return _sign_in(request, error)
    if isinstance(error, Forbidden):
        return _answer(request, 403, error)
    if isinstance(error, TooMany):
        answer = _answer(request, 429, error)
        answer.headers["retry-after"] = str(error.wait_s)
        return answer
    if isinstance(error, Busy):
        return _answer(request, 409, error)
    if isinstance(error, BadParameter | BadTemplate):
        return _answer(request, 422, error)
    if isinstance(error, CatalogError | BadConfig | DirectoryAway):
        return _answer(request, 503, error)
    return _answer(request, 409 if isinstance(error, ItemError) else 500, error)


def _sign_in(request: Request, error: SignInNeeded) -> Response:
    """Programs are told; a browser is sent to the sign-in page, and back afterwards."""
    where = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    page = f"/sign-in?next={quote(where, safe='/')}" if where != "/" else "/sign-in"
    if request.headers.get("hx-request"):
        answer = _answer(request, 401, error)
        answer.headers["hx-redirect"] = "/sign-in"
        return answer
    if request.url.path.startswith("/api") or request.method not in ("GET", "HEAD"):
        answer = _answer(request, 401, error)
        answer.headers["www-authenticate"] = "Bearer"
        return answer
    return RedirectResponse(page, status_code=303)


def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first: dict[str, Any] = error.errors()[0]
    where = ".".join(str(part) for part in first.get("loc", ())) or "request"
    return _answer(
        request,
        422,
        BadParameter(
            f"request: {where}",
            expected=str(first.get("msg", "a valid value")),
            found=repr(first.get("input"))[:200],
            remedy="See /api/openapi.json for what each route takes.",
        ),
    )


def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        shown = NotFound(
            "page",
            expected="an address of this server",
            found=request.url.path[:200],
            remedy="Start from the list of sessions at /.",
        )
    else:
        shown = NotFound("request", expected="", found=str(error.detail), remedy="")
    answer = _answer(request, error.status_code, shown)
    for name, value in (error.headers or {}).items():
        answer.headers[name] = value
    return answer


def _catalog(request: Request, error: Exception) -> Response:
    log.error("catalog: %s", error)
    origin = error.orig if isinstance(error, DBAPIError) else error
    return _answer(
        request,
        503,
        CatalogError(
            "catalog",
            expected="a catalog of this version that answers",
            found=str(origin).splitlines()[0][:200] if str(origin) else type(origin).__name__,
            remedy="Run 'vitriflow doctor' on the server; 'vitriflow run FOLDER' makes a new catalog.",
        ),
    )


def _unexpected(request: Request, error: Exception) -> Response:
    answer = _answer(
        request,
        500,
        VitriflowError(
            "server",
            expected="an answer",
            found=type(error).__name__,
            remedy="This is a fault of vitriflow: please report it with the server's log.",
        ),
    )
    answer.headers.update(HEADERS)  # this answer is made outside the middleware that adds them
    return answer


def install(app: FastAPI) -> None:
    """Put the handlers on an application."""
    app.add_exception_handler(VitriflowError, _vitriflow_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(SQLAlchemyError, _catalog)
    app.add_exception_handler(Exception, _unexpected)
