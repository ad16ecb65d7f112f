"""The log by REST: entries in Markdown, with files and pictures."""

from collections.abc import Iterator
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, UploadFile
from fastapi.responses import FileResponse, Response
from sqlalchemy import select
from sqlalchemy.orm import Session as OrmSession

from vitriflow.catalog import Experiment, LogEntry, LogFile, Sample, Session
from vitriflow.elogbook import entries, experiments, samples
from vitriflow.elogbook.permissions import Caller
from vitriflow.facility.attachments import LARGEST_BYTES, OTHER, Stored, store_file
from vitriflow.web import logbook_models as models
from vitriflow.web.api import json_answer
from vitriflow.web.auth import needs
from vitriflow.web.logbook_api import (
    ERRORS,
    ExperimentName,
    RowId,
    Words,
    change,
    config_of,
    of_experiment,
)
from vitriflow.web.problems import NotFound
from vitriflow.web.site import Site, site_of

Logger = Annotated[Caller, needs("log.write")]
router = APIRouter(prefix="/api", responses=ERRORS, tags=["elogbook"])
_BLOCK = 1024 * 1024


@router.get("/experiments/{experiment}/log", dependencies=[needs("log.read")])
def list_log(
    request: Request,
    experiment: ExperimentName,
    search: Words = "",
    tag: Annotated[str, Query(max_length=60)] = "",
    session: Annotated[str, Query(max_length=128)] = "",
    automatic: bool | None = None,
    before: Annotated[int | None, Query(ge=1, le=2**63 - 1)] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> Response:
    """Log entries, newest first."""

    def work(orm: OrmSession) -> dict[str, Any]:
        award = experiments.find_experiment(orm, experiment)
        wanted = own_session(orm, award, session).id if session else None
        how: dict[str, Any] = {"search": search, "tag": tag, "automatic": automatic, "before": before}
        found = entries.list_entries(orm, award.id, session_id=wanted, limit=limit, **how)
        return {"entries": found, "tags": entries.known_tags(orm, award.id)}

    return json_answer(site_of(request).read(work))


def own_session(orm: OrmSession, award: Experiment, key: str) -> Session:
    """A session by its key, if it's of this experiment.

    Raises
    ------
    NotFound
        When it isn't.
    """
    mine = select(Session).join(Sample, Sample.id == Session.sample_id)
    found = orm.scalar(mine.where(Session.key == key, Sample.experiment_id == award.id))
    if found is None:
        raise NotFound("session", f"the key of a session of {award.name}", key[:128])
    return found


@router.post("/experiments/{experiment}/log", status_code=201)
def write_entry(
    request: Request, caller: Logger, experiment: ExperimentName, body: models.EntryBody
) -> Response:
    """Write into the log."""

    def work(orm: OrmSession) -> dict[str, Any]:
        award = experiments.find_experiment(orm, experiment)
        sample = samples.find_sample(orm, experiment, body.sample) if body.sample else None
        session = own_session(orm, award, body.session) if body.session else None
        about: dict[str, Any] = {"sample": sample, "session": session, "exposure_id": body.exposure_id}
        entries.write_entry(orm, caller, award, body.text, tags=body.tags, **about)
        return entries.list_entries(orm, award.id, limit=1)[0]

    return json_answer(change(request, work), 201)


@router.patch("/experiments/{experiment}/log/{entry}")
def change_entry(
    request: Request, caller: Logger, experiment: ExperimentName, entry: RowId, body: models.EntryChange
) -> Response:
    """Change one's own entry (an operator: anybody's)."""

    def work(orm: OrmSession) -> None:
        row = of_experiment(orm, experiment, LogEntry, entry, "log entry")
        entries.edit_entry(orm, caller, row, body.text, body.tags)

    change(request, work)
    return json_answer({"id": entry})


@router.post("/experiments/{experiment}/log/{entry}/strike")
def strike_entry(request: Request, caller: Logger, experiment: ExperimentName, entry: RowId) -> Response:
    """Strike an entry out; it stays readable."""

    def work(orm: OrmSession) -> None:
        entries.strike_entry(orm, caller, of_experiment(orm, experiment, LogEntry, entry, "log entry"))

    change(request, work)
    return json_answer({"id": entry})


@router.post(
    "/experiments/{experiment}/log/{entry}/files",
    status_code=201,
    max_body_size=LARGEST_BYTES + 1024 * 1024,
)
def add_file(
    request: Request, caller: Logger, experiment: ExperimentName, entry: RowId, file: UploadFile
) -> Response:
    """Add a file or picture to an entry."""
    site = site_of(request)
    site.read(lambda orm: of_experiment(orm, experiment, LogEntry, entry, "log entry").id)
    name, stored = keep(site, file)

    def work(orm: OrmSession) -> dict[str, Any]:
        row = of_experiment(orm, experiment, LogEntry, entry, "log entry")
        made = tie(orm, caller, row, name, stored)
        return {"id": made.id, "name": made.name, "size": made.size, "media_type": made.media_type}

    return json_answer(site.catalog.write(work), 201)


def keep(site: Site, file: UploadFile) -> tuple[str, Stored]:
    """Put an uploaded file away; gives its name and where it is."""
    return file.filename or "file", store_file(config_of(site).storage.root, _blocks(file))


def tie(orm: OrmSession, caller: Caller, entry: LogEntry, name: str, stored: Stored) -> LogFile:
    """Tie a file that was put away to an entry."""
    how: dict[str, Any] = {"media_type": stored.media_type, "size": stored.size, "blake3": stored.blake3}
    return entries.attach_file(orm, caller, entry, name=name, path=stored.path, **how)


def _blocks(file: UploadFile) -> Iterator[bytes]:
    while block := file.file.read(_BLOCK):
        yield block


@router.get("/experiments/{experiment}/files/{file}", dependencies=[needs("log.read")])
def get_file(request: Request, experiment: ExperimentName, file: RowId) -> Response:
    """A file of a log entry. Only pictures are shown in the browser; all else is downloaded."""
    site = site_of(request)
    row = site.read(lambda orm: of_experiment(orm, experiment, LogFile, file, "file"))
    path = config_of(site).storage.root / row.path  # named by us, by its hash
    if not path.is_file():
        raise NotFound(
            "file", "a file of this entry on disk", "nothing", "It may be in a backup of the storage."
        )
    shown = row.media_type if row.media_type.startswith("image/") else OTHER
    how = "inline" if shown != OTHER else "attachment"
    return FileResponse(path, media_type=shown, filename=row.name, content_disposition_type=how)
