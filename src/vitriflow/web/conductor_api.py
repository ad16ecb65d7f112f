"""The coordinator by REST, for a workflow engine: what to make DAGs of, lots to run, nodes to start.

A token needs the scope ``conduct``. Questions with ``wait_s`` are answered as soon as there's something
new, or after that long, so that nobody has to ask often.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool

from vitriflow.config import Config
from vitriflow.elogbook.audit import audit
from vitriflow.elogbook.permissions import Caller
from vitriflow.facility.conducting import (
    Asking,
    acknowledge,
    ask,
    describe,
    free,
    offer,
    peek,
    prepare,
    revise,
    round_of,
    standing,
)
from vitriflow.web.api import SessionKey, json_answer
from vitriflow.web.auth import needs
from vitriflow.web.logbook_api import ERRORS, config_of
from vitriflow.web.site import site_of

T = TypeVar("T")
_LOOK_S = 0.4  # how often the catalog is looked at while somebody waits
_COUNT_S = 3.0  # how often a session is counted meanwhile, and how often one that is active is looked for
_WORD = r"^[^\x00-\x1f\x7f/]+$"
MicroscopeName = Annotated[str, Path(min_length=1, max_length=64, pattern=_WORD)]
DagName = Annotated[str, Path(min_length=1, max_length=250, pattern=_WORD)]
AskId = Annotated[int, Path(ge=1, le=2**63 - 1)]
Wait = Annotated[float, Query(ge=0, le=25, description="answer after so long even if nothing is new (s)")]
OneSession = Annotated[str | None, Query(min_length=1, max_length=128, pattern=_WORD)]
Conductor = Annotated[Caller, needs("conduct")]
Word = Annotated[str, Field(min_length=1, max_length=250, pattern=_WORD)]

router = APIRouter(prefix="/api/conduct", responses=ERRORS, tags=["conduct"])


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)


class OffersBody(_Body):
    """How many lots are wanted now."""

    most: int = Field(default=100, ge=1, le=1000)


class PrepareBody(_Body):
    """The microscope that the session is to be prepared on."""

    microscope: Word


class AskBody(_Body):
    """One try of one task of a DAG's run."""

    dag: Word
    run: Word
    node: Annotated[str, Field(min_length=1, max_length=64, pattern=_WORD)]
    try_number: int = Field(default=1, ge=0, le=10_000)
    lot: int | None = Field(default=None, ge=1, le=2**62)
    session: str | None = Field(default=None, min_length=1, max_length=128, pattern=_WORD)
    begin: bool = Field(default=True, description="take what waits when the run has no lot yet")
    revisions: dict[str, str] = Field(default_factory=dict, max_length=10)


class Acknowledged(_Body):
    """Lots for which the engine has runs now."""

    lots: list[Annotated[int, Field(ge=1, le=2**62)]] = Field(max_length=1000)


class FreeBody(_Body):
    """Whether files are to be removed, where the facility permits it."""

    really: bool = False


class ReviseBody(_Body):
    """Parameters to change, by name."""

    parameters: dict[str, Any] = Field(min_length=1, max_length=200)


@router.get("", dependencies=[needs("conduct")])
def dags(request: Request) -> Response:
    """Everything from which DAGs are made: microscopes, the template's graph, one for each experiment and sample."""
    site = site_of(request)
    return json_answer(describe(site.config or Config(), site.catalog))


@router.get("/microscopes/{microscope}", dependencies=[needs("conduct")])
async def round_now(
    request: Request, microscope: MicroscopeName, session: OneSession = None, wait_s: Wait = 0
) -> Response:
    """What a microscope works on, or how one of its sessions stands. Waits for a session when there's none."""
    site = site_of(request)
    config = site.config or Config()

    def look() -> dict[str, Any]:
        return round_of(config, site.catalog, microscope, session)

    return json_answer(await _waited(look, lambda found: found["session"] is not None, wait_s, _COUNT_S))


@router.get("/microscopes/{microscope}/waiting", dependencies=[needs("conduct")])
async def waiting(
    request: Request, microscope: MicroscopeName, session: OneSession = None, wait_s: Wait = 0
) -> Response:
    """Whether lots can be offered now; waits until there are, or until the session has nothing more to come."""
    site = site_of(request)
    config = site.config or Config()

    known: dict[str, Any] = {}
    looked = 0.0

    def look() -> dict[str, Any]:
        nonlocal known, looked
        ready = peek(config, site.catalog, microscope)
        if not known or (not ready and time.monotonic() - looked > _COUNT_S):
            known, looked = round_of(config, site.catalog, microscope, session), time.monotonic()
        return {"ready": ready, **known}

    def enough(found: dict[str, Any]) -> bool:
        return bool(found["ready"] or found.get("over") or (found.get("next") and found["state"] == "closed"))

    return json_answer(await _waited(look, enough, wait_s))


@router.post("/microscopes/{microscope}/offers", dependencies=[needs("conduct")])
def offers(request: Request, microscope: MicroscopeName, body: OffersBody) -> Response:
    """Lots to start runs for. Each is given until it's acknowledged; a run is named by its lot."""
    site = site_of(request)
    found = offer(config_of(site), site.catalog, microscope)
    return json_answer({"offers": [one.as_json() for one in found[: body.most]]})


@router.post("/acknowledged", dependencies=[needs("conduct")])
def acknowledged(request: Request, body: Acknowledged) -> Response:
    """Note that there are runs for lots."""
    site = site_of(request)
    for lot in body.lots:
        acknowledge(site.catalog, lot)
    return json_answer({"lots": body.lots})


@router.post("/sessions/{key}/prepare", dependencies=[needs("conduct")])
def make_ready(request: Request, key: SessionKey, body: PrepareBody) -> Response:
    """Set up folders, permissions, gain reference and processing of a session; again and again if need be."""
    site = site_of(request)
    return json_answer(prepare(config_of(site), site.catalog, body.microscope, key))


@router.post("/asks")
def asks(request: Request, caller: Conductor, body: AskBody) -> Response:
    """Ask for a node, and those that run in one call with it, for a run's lot. The same try asks once."""
    site = site_of(request)
    wanted = Asking(**body.model_dump(), author=caller.login)
    found = ask(config_of(site), site.catalog, wanted)
    subject = f"{body.dag}/{body.run}/{body.node}"[:255]
    site.catalog.write(lambda orm: audit(orm, caller, "conduct.ask", subject, {"try": body.try_number}))
    return json_answer(found.as_json())


@router.get("/asks/{number}", dependencies=[needs("conduct")])
async def ask_stands(
    request: Request, number: AskId, cursor: Annotated[str, Query(max_length=40)] = "", wait_s: Wait = 0
) -> Response:
    """How an ask stands, and what was said since the cursor. Waits for news."""
    site = site_of(request)

    def look() -> dict[str, Any]:
        return standing(site.catalog, number, cursor).as_json()

    return json_answer(await _waited(look, lambda one: one["state"] != "open" or bool(one["lines"]), wait_s))


@router.post("/microscopes/{microscope}/free", dependencies=[needs("conduct")])
def free_disk(request: Request, microscope: MicroscopeName, body: FreeBody) -> Response:
    """Free a microscope's disk by permit; a dry run unless asked for and permitted by the facility."""
    site = site_of(request)
    return json_answer(free(config_of(site), site.catalog, microscope, really=body.really))


@router.post("/dags/{dag}/revise", status_code=201)
def revise_dag(request: Request, caller: Conductor, dag: DagName, body: ReviseBody) -> Response:
    """Begin a new processing of the DAG's newest session with parameters changed."""
    return json_answer(revise(site_of(request).catalog, caller, dag, body.parameters), 201)


async def _waited(
    look: Callable[[], T], enough: Callable[[T], bool], wait_s: float, every_s: float = _LOOK_S
) -> T:
    """Ask until there's enough, or the time is over."""
    deadline = time.monotonic() + wait_s
    while True:
        found = await run_in_threadpool(look)
        left = deadline - time.monotonic()
        if left <= 0 or enough(found):
            return found
        await asyncio.sleep(min(every_s, left))
