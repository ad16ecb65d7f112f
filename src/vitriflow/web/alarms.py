"""Alarms that are, and that were: who was told, by which way, and whether it reached them."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse, Response
from sqlalchemy import select
from sqlalchemy.orm import Session as OrmSession

from vitriflow.catalog import Alarm, Session
from vitriflow.web.api import json_answer
from vitriflow.web.auth import needs
from vitriflow.web.site import site_of

router = APIRouter()
_PAGE = 100
Before = Annotated[int | None, Query(ge=1, le=2**63 - 1)]


def list_alarms(orm: OrmSession, before: int | None) -> list[dict[str, Any]]:
    """Alarms, newest first, with how people were told."""
    query = (
        select(Alarm, Session.key)
        .outerjoin(Session, Session.id == Alarm.session_id)
        .order_by(Alarm.id.desc())
        .limit(_PAGE)
    )
    if before is not None:
        query = query.where(Alarm.id < before)
    names = (
        "id", "subject", "microscope", "severity", "text", "value", "raised_at", "cleared_at",
        "acknowledged_by", "acknowledged_at",
    )  # fmt: skip
    return [
        {name: getattr(row, name) for name in names}
        | {"rule": row.rule.removeprefix("rule:"), "session": key, "told": list(row.told or [])}
        for row, key in orm.execute(query)
    ]


@router.get("/alarms", include_in_schema=False, dependencies=[needs("facility.read")])
def alarms_page(request: Request, before: Before = None) -> HTMLResponse:
    """All alarms, newest first."""
    site = site_of(request)
    found = site.read(lambda orm: list_alarms(orm, before))
    config = site.config
    ways = sorted(config.notices.to) if config is not None else []
    values = {"alarms": found, "ways": ways, "older": found[-1]["id"] if len(found) == _PAGE else None}
    return site.render(request, "alarms.html", values)


@router.get("/api/alarms", tags=["facility"], dependencies=[needs("facility.read")])
def alarms_api(request: Request, before: Before = None) -> Response:
    """All alarms, newest first; ``before`` pages back by id."""
    return json_answer(site_of(request).read(lambda orm: list_alarms(orm, before)))
