"""Reports from the pages: read one as it stands now, have it written to the facility's folder."""

from typing import Annotated

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response

from vitriflow.config import Config
from vitriflow.elogbook.audit import audit
from vitriflow.elogbook.permissions import Caller
from vitriflow.errors import BadParameter
from vitriflow.facility.report import SUFFIX, Report, make_report, write_report
from vitriflow.storage import safe_name
from vitriflow.web.api import ProcessingName, SessionKey, json_answer
from vitriflow.web.auth import needs
from vitriflow.web.problems import NotFound
from vitriflow.web.site import site_of

router = APIRouter()
Maker = Annotated[Caller, needs("report.make")]
# It needs nothing but itself; so it may load nothing, run nothing and send nothing.
POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)


def _make(request: Request, key: str, processing: str | None) -> Report:
    site = site_of(request)
    try:
        return make_report(_config(request), site.catalog, key, processing)
    except BadParameter as error:
        raise NotFound("report", error.expected, error.found, error.remedy) from error


def _config(request: Request) -> Config:
    site = site_of(request)
    return site.config or Config.model_validate({"facility": {"name": site.title or "vitriflow"}})


@router.get("/sessions/{key}/report", include_in_schema=False, dependencies=[needs("report.read")])
def report_page(
    request: Request, key: SessionKey, processing: ProcessingName = None, download: bool = False
) -> HTMLResponse:
    """The report as it stands now; with ``download``, as a file."""
    headers = {"content-security-policy": POLICY}
    if download:
        headers["content-disposition"] = f'attachment; filename="{safe_name(key)}{SUFFIX}"'
    return HTMLResponse(_make(request, key, processing).html, headers=headers)


@router.get("/api/sessions/{key}/report", tags=["sessions"], dependencies=[needs("report.read")])
def report_numbers(request: Request, key: SessionKey, processing: ProcessingName = None) -> Response:
    """The numbers of a session's report."""
    return json_answer(dict(_make(request, key, processing).values))


@router.post("/api/sessions/{key}/report", tags=["sessions"])
def write(request: Request, caller: Maker, key: SessionKey, processing: ProcessingName = None) -> Response:
    """Write the report where the facility publishes them, or into the session's folder."""
    path = write_report(_make(request, key, processing), None, _config(request))
    site_of(request).catalog.write(lambda orm: audit(orm, caller, "report.make", key))
    return json_answer({"written": path.name})
