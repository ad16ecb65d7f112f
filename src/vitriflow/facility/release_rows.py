"""What the catalog says about files that may be removed from microscopes' disks."""

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path, PurePosixPath

from sqlalchemy import func, select
from sqlalchemy.orm import Session as OrmSession

from vitriflow.acquisition.release import Candidate, Refusal
from vitriflow.catalog import Catalog, FileState, Hold, Microscope, Session, SessionState, SourceFile
from vitriflow.errors import BadParameter

_CHUNK = 500
_STATES = {
    FileState.SEEN: (Refusal.NOT_PROVED, "it's still being written"),
    FileState.COMPLETE: (Refusal.NOT_PROVED, "it waits to be copied"),
    FileState.COPIED: (Refusal.NOT_PROVED, "its copy hasn't been read back yet"),
    FileState.PROBLEM: (Refusal.PROBLEM, "it was set aside"),
    FileState.REPLACED: (Refusal.REPLACED, "another file came under its name"),
}


@dataclass(frozen=True)
class Refused:
    """A file that stays, and why."""

    session: str
    key: str
    reason: str
    why: str


@dataclass
class SessionFiles:
    """Files of one session: those that are proved, oldest first, and those that are refused already."""

    id: int
    key: str
    microscope: str
    source: Path
    root: Path
    state: str
    mode: str
    holds: list[str]
    proved: list[tuple[datetime, Candidate]] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)


def chosen_sessions(orm: OrmSession, which: str | None) -> list[tuple[Session, str]]:
    """Sessions with files on a microscope's disk: all, one, or those of a microscope.

    Raises
    ------
    BadParameter
        When nothing has that name.
    """
    query = select(Session, Microscope.name).join(Microscope, Microscope.id == Session.microscope_id)
    found = [(row[0], row[1]) for row in orm.execute(query.order_by(Session.id))]
    if which is None:
        return found
    mine = [row for row in found if row[0].key == which] or [row for row in found if row[1] == which]
    if not mine and orm.scalar(select(Microscope.id).where(Microscope.name == which)) is None:
        latest = ", ".join(row[0].key for row in found[-8:]) or "none yet"
        raise BadParameter(
            f"'{which}'", "a session or a microscope", "neither", f"Latest sessions: {latest}."
        )
    return mine


def load_files(catalog: Catalog, which: str | None) -> list[SessionFiles]:
    """All files that haven't been removed yet, by session."""
    return catalog.read(lambda orm: [_session_files(orm, *row) for row in chosen_sessions(orm, which)])


def _session_files(orm: OrmSession, session: Session, microscope: str) -> SessionFiles:
    files = SessionFiles(
        session.id,
        session.key,
        microscope,
        Path(session.source),
        Path(session.root),
        session.state,
        session.mode,
        open_holds(orm, session.id),
    )
    newest: dict[str, int] = dict(
        orm.execute(
            select(SourceFile.key, func.max(SourceFile.generation))
            .where(SourceFile.session_id == session.id)
            .group_by(SourceFile.key)
        ).all()
    )
    query = select(SourceFile).where(
        SourceFile.session_id == session.id, SourceFile.freed_at.is_(None), SourceFile.gone_at.is_(None)
    )
    for row in orm.scalars(query.order_by(SourceFile.proved_at, SourceFile.id)):
        refusal = _refusal(row, session.mode, files.holds, newest[row.key])
        if refusal is not None:
            files.refused.append(Refused(session.key, row.key, *refusal))
        elif row.proved_at is not None:
            files.proved.append((row.proved_at, _candidate(row, files)))
    return files


def _refusal(row: SourceFile, mode: str, holds: Collection[str], newest: int) -> tuple[Refusal, str] | None:
    """What the catalog alone has against removing a file."""
    if mode != "copy":
        return Refusal.IN_PLACE, "it's in place: there's no other copy"
    if row.state in _STATES:
        refusal, why = _STATES[FileState(row.state)]
        return refusal, f"{why}: {row.problem}" if row.problem else why
    if row.generation != newest:
        return Refusal.REPLACED, "another file came under its name"
    if row.proved_at is None or row.blake3 is None or row.destination is None:
        return Refusal.NOT_PROVED, "the catalog doesn't say when it was proved, or where its copy is"
    if holds:
        return Refusal.HELD, f"its session is held: {'; '.join(holds)}"
    return None


def _candidate(row: SourceFile, files: SessionFiles) -> Candidate:
    return Candidate(
        id=row.id,
        session=files.key,
        source=files.source,
        root=files.root,
        key=row.key,
        generation=row.generation,
        kind=row.kind,
        size=row.size,
        stamp=row.stamp,
        blake3=str(row.blake3),
        destination=row.destination,
        decodable=row.decodable,
    )


def open_holds(orm: OrmSession, session_id: int) -> list[str]:
    """Reasons of the holds on a session."""
    query = select(Hold.reason).where(Hold.session_id == session_id, Hold.lifted_at.is_(None))
    return list(orm.scalars(query.order_by(Hold.id)))


def still_free(orm: OrmSession, candidates: Collection[Candidate]) -> set[int]:
    """Of candidates those that may go as far as the catalog knows now: proved, and not held meanwhile."""
    keys = {candidate.session for candidate in candidates}
    sessions = orm.execute(select(Session.id, Session.mode).where(Session.key.in_(keys))).all()
    open_ones = [number for number, mode in sessions if mode == "copy" and not open_holds(orm, number)]
    query = select(SourceFile.id).where(
        SourceFile.id.in_([candidate.id for candidate in candidates]),
        SourceFile.session_id.in_(open_ones),
        SourceFile.state == FileState.PROVED,
        SourceFile.freed_at.is_(None),
    )
    return set(orm.scalars(query))


class Neighbours:
    """Other sessions that read the same folders: a file that they need stays."""

    def __init__(self, orm: OrmSession, mine: SessionFiles) -> None:
        self._others: list[tuple[Session, Path]] = []
        self._proved: dict[int, Mapping[str, tuple[str, int, int]]] = {}
        for other in orm.scalars(select(Session).where(Session.id != mine.id)):
            source = Path(other.source)
            if source == mine.source or mine.source in source.parents or source in mine.source.parents:
                self._others.append((other, source))
                self._proved[other.id] = _states(orm, other.id)

    def needs(self, candidate: Candidate) -> str | None:
        """Why another session needs a file; None when none does."""
        for other, source in self._others:
            if not candidate.path.is_relative_to(source):
                continue
            if other.mode != "copy":
                return f"session {other.key} reads it where it is"
            key = str(PurePosixPath(candidate.path.relative_to(source)))
            known = self._proved[other.id].get(key)
            if known is None:
                if other.state != SessionState.CLOSED:
                    return f"session {other.key} watches the same folder, and hasn't seen it yet"
            elif known != (FileState.PROVED, candidate.size, candidate.stamp):
                return f"session {other.key} hasn't proved it"
        return None


def _states(orm: OrmSession, session_id: int) -> dict[str, tuple[str, int, int]]:
    query = select(SourceFile.key, SourceFile.state, SourceFile.size, SourceFile.stamp)
    mine = query.where(SourceFile.session_id == session_id).order_by(SourceFile.generation)
    return {key: (state, size, stamp) for key, state, size, stamp in orm.execute(mine)}


def quiet_folders(catalog: Catalog, session_id: int, before: datetime) -> list[str]:
    """Folders whose files were all removed, and in which nothing came since; the deepest first."""

    def work(orm: OrmSession) -> list[tuple[str, datetime, datetime | None, datetime | None]]:
        columns = (SourceFile.key, SourceFile.first_seen_at, SourceFile.complete_at, SourceFile.freed_at)
        query = select(*columns).where(SourceFile.session_id == session_id, SourceFile.gone_at.is_(None))
        return [(row[0], row[1], row[2], row[3]) for row in orm.execute(query)]

    good: dict[str, bool] = defaultdict(lambda: True)
    for key, seen, complete, freed in catalog.read(work):
        quiet = freed is not None and max(seen, complete or seen) <= before
        for folder in PurePosixPath(key).parents:
            if folder.parts:
                good[str(folder)] = good[str(folder)] and quiet
    return sorted((name for name, ok in good.items() if ok), key=lambda name: -name.count("/"))
