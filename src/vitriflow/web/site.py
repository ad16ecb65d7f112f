"""What all pages share: catalog, columns, hub, templates."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from sqlalchemy.orm import Session as OrmSession

import vitriflow
from vitriflow.catalog import Catalog
from vitriflow.web import words
from vitriflow.web.columns import ColumnStore
from vitriflow.web.live import Hub
from vitriflow.web.tally import TaskTally

T = TypeVar("T")
STATIC = Path(__file__).parent / "static"


@dataclass
class Site:
    """One server's state; it stands in ``app.state.site``."""

    title: str
    catalog: Catalog
    hub: Hub
    scan_interval_s: float | None = None
    columns: ColumnStore = field(default_factory=ColumnStore)
    tally: TaskTally = field(default_factory=TaskTally)
    templates: Environment = field(default_factory=lambda: _environment())
    roles: dict[int, dict[str, str]] = field(default_factory=dict)

    def read(self, work: Callable[[OrmSession], T]) -> T:
        """Run a query in one transaction, so that all numbers of an answer belong together."""
        return self.catalog.read(work)

    def render(
        self, request: Request, template: str, values: dict[str, Any], status: int = 200
    ) -> HTMLResponse:
        """A page from a template; everything put in is escaped."""
        shared = {"site": self, "path": request.url.path, "version": vitriflow.__version__}
        text = self.templates.get_template(template).render({**shared, **values})
        return HTMLResponse(text, status_code=status)


def site_of(request: Request) -> Site:
    """The server's state, from a request."""
    site: Site = request.app.state.site
    return site


@cache
def static_url(name: str) -> str:
    """Address of a shipped file, with its hash: a browser may keep it for ever."""
    digest = hashlib.sha256((STATIC / name).read_bytes()).hexdigest()[:12]
    return f"/static/{name}?v={digest}"


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("vitriflow.web", "templates"),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["static"] = static_url
    environment.globals["words"] = words
    environment.filters["number"] = words.number
    environment.filters["duration"] = words.duration
    environment.filters["ago"] = words.ago
    environment.filters["utc"] = words.utc
    environment.filters["iso"] = words.iso
    environment.filters["bytes"] = words.size
    return environment
