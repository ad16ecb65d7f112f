"""What the catalog says about a session's files and their copies in archives."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session as OrmSession

from vitriflow.catalog import (
    ArchiveCopy,
    Catalog,
    FileState,
    Processing,
    Session,
    SourceFile,
    Task,
    TaskState,
    is_away,
    now,
    take_lease,
    this_owner,
)
from vitriflow.config import Config
from vitriflow.errors import BadParameter
from vitriflow.storage import ArchiveFile, Tier, open_tier

_LEASE_S = 60.0
_NOTE_EVERY_S = 3.0
OPEN_TASKS = (TaskState.WAITING, TaskState.READY, TaskState.RUNNING)


def raw_files(orm: OrmSession, session_id: int) -> list[ArchiveFile]:
    """Files of a session that have a proved copy on disk, by path; what they replaced too."""
    query = select(SourceFile.destination, SourceFile.size, SourceFile.blake3).where(
        SourceFile.session_id == session_id,
        SourceFile.state.in_((FileState.PROVED, FileState.REPLACED)),
        SourceFile.proved_at.is_not(None),
        SourceFile.destination.is_not(None),
        SourceFile.blake3.is_not(None),
    )
    found = {
        str(path): ArchiveFile(str(path), size, str(digest))
        for path, size, digest in orm.execute(query.order_by(SourceFile.generation))
    }
    return [found[path] for path in sorted(found)]


def unproved(orm: OrmSession, session_id: int) -> int:
    """How many files of a session are on their way."""
    coming = (FileState.SEEN, FileState.COMPLETE, FileState.COPIED)
    query = select(func.count()).where(
        SourceFile.session_id == session_id,
        SourceFile.state.in_(coming),
        SourceFile.gone_at.is_(None),
    )
    return orm.scalar(query) or 0


def open_tasks(orm: OrmSession, session_id: int) -> int:
    """How many tasks of a session's processings aren't done."""
    query = (
        select(func.count())
        .select_from(Task)
        .join(Processing, Processing.id == Task.processing_id)
        .where(
            Processing.session_id == session_id,
            Processing.state == "running",
            Task.state.in_(OPEN_TASKS),
            Task.revision > 0,
        )
    )
    return orm.scalar(query) or 0


def copies_of(orm: OrmSession, session_id: int, tier: str | None = None) -> list[ArchiveCopy]:
    """Copies of a session in archives, oldest first."""
    query = select(ArchiveCopy).where(ArchiveCopy.session_id == session_id).order_by(ArchiveCopy.id)
    if tier is not None:
        query = query.where(ArchiveCopy.tier == tier)
    return list(orm.scalars(query))


def chosen_tier(config: Config, name: str | None) -> Tier:
    """The tier of that name; without one the first that the copies policy names, or the only one.

    Raises
    ------
    BadParameter, BadConfig
        When there's none, or it can't be told which.
    """
    tiers = config.storage.tiers
    if name is None:
        wanted = [one for one in config.storage.copies if one != "disk"] or list(tiers)
        if len(wanted) != 1 and len(tiers) != 1:
            found = f"{len(tiers)}: {', '.join(tiers)}" if tiers else "none"
            remedy = (
                "Name one with --tier." if tiers else "Describe one in facility.toml: [storage.tiers.NAME]."
            )
            raise BadParameter("archive tier", "one to use", found, remedy)
        name = wanted[0] if len(wanted) == 1 else next(iter(tiers))
    if name not in tiers:
        known = ", ".join(tiers) or "none"
        raise BadParameter(
            f"tier '{name}'", "a section [storage.tiers.NAME] in facility.toml", "none", f"Known: {known}."
        )
    return open_tier(name, tiers[name])


@contextmanager
def held(catalog: Catalog, key: str) -> Iterator[None]:
    """Let no other process archive or recall the same session. Kept alive by a thread: a tape takes hours.

    Raises
    ------
    Busy
        When another does.
    """
    lease = take_lease(catalog, f"archive:{key}", this_owner("archive"), _LEASE_S)
    stop = threading.Event()

    def keep() -> None:
        while not stop.wait(_LEASE_S / 4):
            try:
                lease.renew(catalog)
            except Exception as error:
                if not is_away(error):
                    return  # lost: what it guards can be repeated, and appears by rename

    keeper = threading.Thread(target=keep, name="archive lease", daemon=True)
    keeper.start()
    try:
        yield
    finally:
        stop.set()
        keeper.join()
        lease.release(catalog)


@dataclass(frozen=True)
class ArchiveProgress:
    """How far something is: ``done`` of ``total`` bytes of the work called ``what``."""

    what: str
    done: int
    total: int


Watcher = Callable[[ArchiveProgress], None]


class Meter:
    """Counts bytes for a person who waits, and notes them in the catalog for those who look at pages."""

    def __init__(self, catalog: Catalog, copy_id: int | None, total: int, watch: Watcher | None) -> None:
        self._catalog = catalog
        self._copy = copy_id
        self._total = total
        self._watch = watch
        self._what, self._done, self._noted = "", 0, 0.0

    def __call__(self, what: str, more: int) -> None:
        """Take in bytes that are done."""
        if what != self._what:
            self._what, self._done = what, 0
        self._done += more
        if time.monotonic() - self._noted < _NOTE_EVERY_S:
            return
        self._noted = time.monotonic()
        if self._watch is not None:
            self._watch(ArchiveProgress(self._what, self._done, self._total))
        if self._copy is not None:
            note = {"doing": self._what, "done_bytes": self._done, "total_bytes": self._total}
            number = self._copy
            try:
                self._catalog.write(lambda orm: change_copy(orm, number, details=note))
            except Exception as error:
                if not is_away(error):
                    raise


def change_copy(orm: OrmSession, copy_id: int, **columns: Any) -> None:
    """Change a copy's row; ``details`` are added to those that are there."""
    row = orm.get_one(ArchiveCopy, copy_id)
    details = columns.pop("details", None)
    if details is not None:
        row.details = {**row.details, **details}
    for name, value in columns.items():
        setattr(row, name, value)


def begin_copy(catalog: Catalog, session: Session, tier: str) -> int:
    """The number of the copy to be made: an interrupted one goes on."""

    def work(orm: OrmSession) -> int:
        for row in copies_of(orm, session.id, tier):
            if row.state in ("writing", "failed"):
                row.state, row.problem = "writing", None
                return row.id
        row = ArchiveCopy(
            session_id=session.id, tier=tier, state="writing", location="", details={}, started_at=now()
        )
        orm.add(row)
        orm.flush()
        return row.id

    return catalog.write(work)


def missing_from(archived: dict[str, str], files: Sequence[ArchiveFile]) -> list[ArchiveFile]:
    """Files without the same bytes in an archive."""
    return [file for file in files if archived.get(file.path) != file.blake3]


def place_of(config: Config, session: Session) -> str:
    """Where a session stands below the storage root; its key when it's elsewhere."""
    root = Path(session.root)
    try:
        return str(root.relative_to(config.storage.root))
    except ValueError:
        return session.key
