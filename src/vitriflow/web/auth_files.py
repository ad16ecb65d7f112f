"""A session's files by the API: listed folder by folder, and downloaded, with what proves them."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import FileResponse
from sqlalchemy import or_, select
from sqlalchemy.orm import Session as OrmSession

from vitriflow.catalog import Exposure, SourceFile
from vitriflow.catalog.views import SessionView, find_session
from vitriflow.web import auth_models as models
from vitriflow.web.api import SessionKey
from vitriflow.web.auth import needs
from vitriflow.web.models import ErrorAnswer
from vitriflow.web.problems import NotFound
from vitriflow.web.site import Site, site_of

router = APIRouter(
    prefix="/api", responses={404: {"model": ErrorAnswer}, 401: {"model": ErrorAnswer}}, tags=["files"]
)
_MOST_ASKED = 400  # names in one query
_RAW = "raw"


@dataclass(frozen=True)
class _Place:
    """Something inside a session: its path as asked for, and where it really is."""

    session: SessionView
    path: str
    real: Path


def inside(session: SessionView, path: str) -> _Place:
    """A file or folder of a session, once it's sure that it lies in the session's own folders.

    Links are followed before looking: one that leads out of the session isn't there. Names that
    begin with a dot are the machinery's own, and aren't there either.

    Raises
    ------
    NotFound
        For anything else.
    """
    gone = NotFound("file", "a file of this session", path[:200], "List the session's folder to see them.")
    parts = [part for part in path.split("/") if part]
    if any(part.startswith(".") or "\x00" in part or "\\" in part for part in parts):
        raise gone
    try:
        root = Path(session.root).resolve(strict=True)
        real = root.joinpath(*parts).resolve(strict=True)
        allowed = real.is_relative_to(root)
        if not allowed and parts[:1] == [_RAW] and session.source:
            allowed = real.is_relative_to(Path(session.source).resolve(strict=True))
    except (OSError, ValueError, RuntimeError) as error:
        raise gone from error
    if not allowed or not (real.is_file() or real.is_dir()):
        raise gone
    return _Place(session, "/".join(parts), real)


def _place(site: Site, key: str, path: str) -> _Place:
    session = site.read(lambda orm: find_session(orm, key))
    if session is None:
        raise NotFound("session", "the key of a session", key, "The list of sessions is at /.")
    return inside(session, path)


@router.get("/sessions/{key}/files", dependencies=[needs("session.download")])
def files(
    request: Request,
    key: SessionKey,
    path: Annotated[str, Query(max_length=1024, description="a folder below the session's own")] = "",
) -> models.FilesAnswer:
    """What a folder of a session holds: names, sizes, and the BLAKE3 of what was proved."""
    site = site_of(request)
    place = _place(site, key, path)
    if not place.real.is_dir():
        raise NotFound("folder", "a folder of this session", path[:200])
    found: list[models.FileView] = []
    with os.scandir(place.real) as entries:
        for entry in sorted(entries, key=lambda one: one.name):
            view = _view(place, entry)
            if view is not None:
                found.append(view)
    proofs = site.read(lambda orm: _proofs(orm, place.session, [one.path for one in found]))
    for one in found:
        one.blake3 = proofs.get(one.path)
    return models.FilesAnswer(session=key, path=place.path, files=found)


def _view(place: _Place, entry: os.DirEntry[str]) -> models.FileView | None:
    if entry.name.startswith(".") or not entry.name.isprintable():
        return None
    path = f"{place.path}/{entry.name}" if place.path else entry.name
    try:
        real = inside(place.session, path).real if entry.is_symlink() else Path(entry.path)
        if real.is_dir():
            return models.FileView(name=entry.name, path=path, kind="folder", size=None, blake3=None)
        if not real.is_file():
            return None
        return models.FileView(name=entry.name, path=path, kind="file", size=real.stat().st_size, blake3=None)
    except (NotFound, OSError):
        return None


def _proofs(orm: OrmSession, session: SessionView, paths: list[str]) -> dict[str, str]:
    """BLAKE3 by path below the session's folder, where one is known."""
    found: dict[str, str] = {}
    for start in range(0, len(paths), _MOST_ASKED):
        some = paths[start : start + _MOST_ASKED]
        keys = [one.removeprefix(f"{_RAW}/") for one in some if one.startswith(f"{_RAW}/")]
        exposures = select(Exposure.key, Exposure.blake3).where(
            Exposure.session_id == session.id, Exposure.key.in_(keys), Exposure.blake3.is_not(None)
        )
        found |= {f"{_RAW}/{key}": digest for key, digest in orm.execute(exposures) if digest}
        rows = (
            select(SourceFile.destination, SourceFile.key, SourceFile.blake3)
            .where(
                SourceFile.session_id == session.id,
                SourceFile.blake3.is_not(None),
                or_(SourceFile.destination.in_(some), SourceFile.key.in_(keys)),
            )
            .order_by(SourceFile.generation)
        )
        for destination, key, digest in orm.execute(rows):
            found[destination or f"{_RAW}/{key}"] = str(digest)
    return found


@router.get(
    "/sessions/{key}/files/{path:path}",
    dependencies=[needs("session.download")],
    response_class=FileResponse,
    responses={200: {"content": {"application/octet-stream": {}}}, 206: {}, 416: {}},
)
def download(request: Request, key: SessionKey, path: str) -> FileResponse:
    """One file of a session; with ``Range``, a part of it. Never shown by a browser, always saved."""
    place = _place(site_of(request), key, path)
    if not place.real.is_file():
        raise NotFound("file", "a file of this session", path[:200])
    return FileResponse(
        place.real,
        media_type="application/octet-stream",
        filename=Path(place.path).name,
        headers={"cache-control": "private, no-cache"},
    )
