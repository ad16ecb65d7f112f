"""Makes the web application: pages, API, live stream, shipped files."""

import logging
import os
import threading
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager

from fastapi import FastAPI
from sqlalchemy.exc import SQLAlchemyError
from starlette.middleware.gzip import GZipMiddleware

import vitriflow
from vitriflow.catalog import Catalog, views
from vitriflow.config import Config
from vitriflow.errors import BadConfig
from vitriflow.facility.signing_in import authenticators_of
from vitriflow.web import (
    alarms,
    api,
    auth_api,
    auth_files,
    auth_pages,
    auth_people,
    conductor_api,
    correct_api,
    graph_pages,
    helper_pages,
    log_api,
    logbook_api,
    logbook_pages,
    marks,
    metrics,
    outlook_api,
    pages,
    people_api,
    places_api,
    problems,
    report_pages,
    reprocess_api,
    reprocess_pages,
    sample_pages,
    table,
    tiles,
    wall,
)
from vitriflow.web.auth import check_declared
from vitriflow.web.live import POLL_S, Hub
from vitriflow.web.lookup import find_scene
from vitriflow.web.models import ErrorAnswer
from vitriflow.web.security import LOOPBACK, Guard
from vitriflow.web.shipped import Shipped, shipped_files
from vitriflow.web.site import Site
from vitriflow.web.summary import summarise

log = logging.getLogger(__name__)

# Sessions read into memory when the server starts, so that nobody waits for the first look.
_WARM = 8
# Forms and JSON (bytes).
LARGEST_BODY = 1024 * 1024


def _warm_up(site: Site) -> None:
    """Read the newest sessions' columns ahead of the first reader."""
    try:
        keys = [one.key for one in site.read(lambda db: views.list_sessions(db, _WARM))]
        for key in keys:
            scene = site.read(lambda db, key=key: find_scene(site, db, key, positions=True))  # type: ignore[misc]
            table.whole_table(scene)
            summarise(scene.session, scene.snapshot, scene.overlay)
    except SQLAlchemyError as error:
        log.warning("the catalog can't be read yet: %s", error)


def create_app(
    catalog_url: str,
    *,
    title: str = "vitriflow",
    allowed_hosts: Collection[str] = LOOPBACK,
    scan_interval_s: float | None = None,
    poll_s: float = POLL_S,
    open_here: bool = True,
    config: Config | None = None,
) -> FastAPI:
    """The web application over one catalog.

    It holds no state that matters, and can be restarted or run several times at once.

    Parameters
    ----------
    catalog_url
        SQLAlchemy URL of the catalog.
    title
        Name of the facility, shown on every page.
    allowed_hosts
        Host names that requests may be for; others are refused. ``*`` allows all. The default
        fits a server that listens on the loopback address; add the names under which others reach it.
    scan_interval_s
        How often the source folders are looked at (s): stated beside the latency.
    poll_s
        How often a watched session is looked at for changes (s).
    open_here
        Whether this machine's own user needs no sign-in while the catalog knows no people. Say no
        for a server that listens on more than the loopback address.
    config
        The facility's configuration; without it sessions can't be started and files not added here.
    """
    catalog = Catalog(catalog_url)
    site = Site(title, catalog, Hub(catalog, poll_s), scan_interval_s, open_here=open_here, config=config)

    people = (config or Config()).people
    site.authenticators = authenticators_of(people)
    site.session_hours, site.token_days = people.session_hours, people.token_days

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        threading.Thread(target=_warm_up, args=(site,), name="vitriflow-web-warm-up", daemon=True).start()
        yield
        site.hub.close()
        catalog.close()

    app = FastAPI(
        title=title,
        version=vitriflow.__version__,
        description="Results and control of vitriflow. Programs sign in with a token: Authorization: Bearer TOKEN.",
        openapi_url="/api/openapi.json",
        docs_url=None,  # Swagger's pages load from a content network; the schema itself is enough
        redoc_url=None,
        lifespan=lifespan,
        responses={code: {"model": ErrorAnswer} for code in (401, 403, 404, 422)},
        max_body_size=LARGEST_BODY,  # a route that takes files says more itself
    )
    app.state.site = site
    problems.install(app)
    app.include_router(api.router)
    for room in (logbook_api, log_api, logbook_pages, sample_pages, wall, alarms, metrics, report_pages):
        app.include_router(room.router)
    for room in (pages, marks, places_api, reprocess_api, reprocess_pages, table, tiles):
        app.include_router(room.router)
    app.include_router(conductor_api.router)
    app.include_router(correct_api.router)
    app.include_router(graph_pages.router)
    app.include_router(outlook_api.router)
    for router in (helper_pages.router, people_api.router):
        app.include_router(router)
    for router in (auth_api.router, auth_files.router, auth_pages.router, auth_people.router):
        app.include_router(router)
    check_declared(app)
    app.mount("/static", Shipped(shipped_files()), name="static")
    app.add_middleware(GZipMiddleware, minimum_size=2048, compresslevel=1)
    app.add_middleware(Guard, allowed_hosts=allowed_hosts)
    return app


def create_app_from_env() -> FastAPI:
    """The application as environment variables describe it, for ``uvicorn --factory``.

    ``VITRIFLOW_CATALOG_URL`` is needed; ``VITRIFLOW_TITLE``, ``VITRIFLOW_ALLOWED_HOSTS`` (commas
    between) and ``VITRIFLOW_SCAN_INTERVAL_S`` may be given.

    Raises
    ------
    BadConfig
        When the URL is missing or the interval isn't a number.
    """
    url = os.environ.get("VITRIFLOW_CATALOG_URL", "")
    if not url:
        raise BadConfig(
            "VITRIFLOW_CATALOG_URL",
            expected="the URL of the catalog",
            found="nothing",
            remedy="Set it, for example to sqlite:////data/vitriflow/catalog.db.",
        )
    hosts = [name.strip() for name in os.environ.get("VITRIFLOW_ALLOWED_HOSTS", "").split(",")]
    interval = os.environ.get("VITRIFLOW_SCAN_INTERVAL_S", "")
    try:
        scan_interval_s = float(interval) if interval else None
    except ValueError:
        raise BadConfig("VITRIFLOW_SCAN_INTERVAL_S", "a number of seconds", repr(interval)) from None
    return create_app(
        url,
        title=os.environ.get("VITRIFLOW_TITLE", "vitriflow"),
        allowed_hosts=[name for name in hosts if name] or LOOPBACK,
        scan_interval_s=scan_interval_s,
    )
