"""Writes what a look at the source found: exposures, files, events, in transactions of moderate size."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from blake3 import blake3
from sqlalchemy import select, update
from sqlalchemy.orm import Session as OrmSession

from vitriflow.acquisition.custody import (
    CHUNK,
    FileChange,
    ProvedFile,
    Recorder,
    destination_of,
    write_changes,
    write_gone,
)
from vitriflow.acquisition.late import LateMetadata, fill
from vitriflow.acquisition.places import PLACE_KINDS, SessionBook, place_of, series_news
from vitriflow.acquisition.recognise import FileKind, item_of, recognise
from vitriflow.acquisition.scan import FileSeen, Seen
from vitriflow.catalog import Catalog, Event, Exposure, ExposureState, FileState, Session, SourceFile, now
from vitriflow.errors import Reason

_HASH_BLOCK = 8 * 1024**2
_IN = 400


@dataclass
class ExposureChange:
    """What a look wants to write about one exposure."""

    file: FileSeen
    state: ExposureState
    values: dict[str, Any] = field(default_factory=dict)


class IntakeWriter:
    """The writing half of :class:`Intake`, with the same parameters."""

    def __init__(
        self,
        catalog: Catalog,
        session_id: int,
        source: Path,
        item: str,
        mode: str,
        record: Recorder,
        fence: Callable[[OrmSession], None] = lambda _orm: None,
    ) -> None:
        self.catalog = catalog
        self._fence = fence
        self.session_id = session_id
        self._source = source
        self._item = item
        self._mode = mode
        self._record = record
        self._survey: dict[str, int] = {}
        self._events: list[tuple[str, str]] = []
        self._told: set[str] = set()
        self._lost = False

    # -- events -----------------------------------------------------------------------------

    def say(self, severity: str, text: str) -> None:
        """Tell people something, in a transaction of its own."""
        event = {"at": now(), "session_id": self.session_id, "severity": severity, "text": text}
        self.catalog.write(lambda orm: orm.add(Event(**event)))

    def say_once(self, severity: str, text: str) -> None:
        """Tell people something, unless this process told it before."""
        if text not in self._told:
            self._told.add(text)
            self.say(severity, text)

    def tell_lost(self, why: str) -> None:
        """The source can't be listed: told once."""
        if not self._lost:
            self._lost = True
            lost = f"The source folder {self._source} can't be read ({why})"
            self.say("alarm", f"{lost}. Nothing is lost; waiting for it to come back")

    def tell_seen(self, seen: Seen) -> None:
        """The source was listed; what in it couldn't be is told once."""
        if self._lost:
            self._lost = False
            self.say("info", f"The source folder {self._source} is back")
        for folder in seen.denied:
            self.say_once("warning", f"The folder {folder} on the source may not be listed; it's tried again")
        for key in seen.unnameable:
            text = "its path is longer than 512 characters, so it can't be taken in. Rename it"
            self.say_once("alarm", f"{key[:200]}...: {text}")

    # -- files and exposures ------------------------------------------------------------------

    def file(
        self,
        file: FileSeen,
        kind: FileKind,
        state: FileState,
        *,
        generation: int = 1,
        fresh: bool = False,
        replaces: bool = False,
    ) -> FileChange:
        """A change of a file's row."""
        software = recognise(file.key).software
        change = FileChange(file, str(kind), software, state, generation, fresh, replaces)
        if state != FileState.PROBLEM:
            change.values |= {"problem_code": None, "problem": None}
        if state == FileState.SEEN:
            change.values |= {"complete_at": None}
        return change

    def write(
        self,
        exposures: Sequence[ExposureChange],
        files: Sequence[FileChange],
        survey: dict[str, int],
        late: Mapping[str, Sequence[LateMetadata]],
    ) -> None:
        """Write changes; in place, files that are whole are hashed and recorded first.

        ``late`` has, by the key of an XML or mdoc among ``files``, what it says of exposures of earlier looks.
        """
        by_key: dict[str, list[ExposureChange]] = {}
        for exposure in exposures:
            by_key.setdefault(exposure.file.key, []).append(exposure)
        for start in range(0, len(files), CHUNK):
            part = files[start : start + CHUNK]
            if self._mode == "in_place":
                self._hash(part)
            mine = [e for key in dict.fromkeys(c.file.key for c in part) for e in by_key.pop(key, [])]
            self._write(mine, part, late=[one for c in part for one in late.get(c.file.key, ())])
        rest = [exposure for some in by_key.values() for exposure in some]
        if rest or survey != self._survey:
            self._write(rest, [], survey)
            self._survey = survey

    def _write(
        self,
        exposures: Sequence[ExposureChange],
        files: Sequence[FileChange],
        survey: dict[str, int] | None = None,
        late: Sequence[LateMetadata] = (),
    ) -> None:
        whole = (FileState.COMPLETE, FileState.PROVED)
        pictures = [change.file for change in files if change.kind in PLACE_KINDS and change.state in whole]
        places = [news for news in map(place_of, pictures) if news is not None]
        mdocs = [
            change.file for change in files if change.kind == FileKind.METADATA and change.state in whole
        ]
        series = [news for news in map(series_news, mdocs) if news is not None]

        def work(orm: OrmSession) -> None:
            self._fence(orm)
            stamp = now()
            write_changes(orm, self.session_id, files, stamp)
            known = self._known(orm, [change.file.key for change in exposures])
            book = SessionBook(orm, self.session_id)
            for change in exposures:
                self._write_exposure(orm, change, known, stamp, book)
            for news in places:
                book.note(news)
            for one in series:
                book.note_series(one)
            fill(orm, self.session_id, book, late)
            if survey is not None:
                orm.execute(update(Session).where(Session.id == self.session_id).values(survey=survey))

        self.catalog.write(work)

    def _known(self, orm: OrmSession, keys: Sequence[str]) -> dict[str, Exposure]:
        found: dict[str, Exposure] = {}
        for start in range(0, len(keys), _IN):
            part = keys[start : start + _IN]
            query = select(Exposure).where(Exposure.session_id == self.session_id, Exposure.key.in_(part))
            found.update({row.key: row for row in orm.scalars(query)})
        return found

    def _write_exposure(
        self,
        orm: OrmSession,
        change: ExposureChange,
        known: dict[str, Exposure],
        stamp: datetime,
        book: SessionBook,
    ) -> None:
        key = change.file.key
        row = known.get(key)
        if row is None:
            row = known[key] = Exposure(
                session_id=self.session_id,
                key=key,
                item=item_of(key),
                path=self._path_of(change.file),
                kind=self._item,
                software=recognise(key).software,
                first_seen_at=stamp,
                details={},
            )
            orm.add(row)
        row.state = change.state
        row.size = change.file.size
        if change.state != ExposureState.PROBLEM:
            row.problem_code = row.problem = None
        if change.state == ExposureState.SEEN and not change.values.get("complete_at"):
            row.complete_at = row.copied_at = row.proved_at = None
        before = row.details
        for name, value in change.values.items():
            setattr(row, name, value)
        if "details" in change.values:
            book.complete(row, before)

    def _path_of(self, file: FileSeen) -> str:
        """Where an exposure is read from: the source, until its copy is there.

        A name that isn't UTF-8 can't be written down; such a movie has to be copied first.
        """
        return str(file.path).encode("utf-8", "replace").decode()

    # -- in place -----------------------------------------------------------------------------

    def _hash(self, files: Sequence[FileChange]) -> None:
        """Files that are whole are hashed where they are and recorded; one that can't be read is set aside."""
        proved: list[ProvedFile] = []
        for change in files:
            whole = change.state == FileState.COMPLETE
            if not whole and not (change.state == FileState.PROVED and change.fresh):
                continue
            moment = now()
            try:
                digest = change.values.get("blake3") or hash_file(change.file.path)
            except OSError as error:
                text = f"{change.file.key} can't be read: {error.strerror or error}"
                code = {"problem_code": str(Reason.UNREADABLE), "problem": text}
                change.state, change.values = FileState.PROBLEM, {**change.values, **code}
                continue
            change.state = FileState.PROVED
            destination = destination_of(change.file.key, 1)
            change.values |= {"blake3": digest, "destination": destination, "proved_at": moment}
            change.values.setdefault("complete_at", moment)
            proved.append(
                ProvedFile(
                    key=change.file.key,
                    destination=destination,
                    size=change.file.size,
                    blake3=digest,
                    proved_at=moment,
                    mode="in_place",
                    method="read",
                    generation=change.generation,
                    kind=change.kind,
                    software=change.software,
                    stamp=change.file.changed_ns,
                )
            )
        if proved:
            self._record(proved)

    # -- files that went away -----------------------------------------------------------------

    def note_gone(self, keys: Sequence[str]) -> list[str]:
        """Note that files are missing from the source; those that weren't copied yet are told, and given back."""

        def work(orm: OrmSession) -> list[str]:
            moment = now()
            write_gone(orm, self.session_id, keys, moment)
            lost: list[str] = []
            for start in range(0, len(keys), _IN):
                part = keys[start : start + _IN]
                waiting = (
                    SourceFile.session_id == self.session_id,
                    SourceFile.key.in_(part),
                    SourceFile.state == FileState.COMPLETE,
                )
                found = list(orm.scalars(select(SourceFile.key).where(*waiting)))
                text = "it was removed or renamed on the source before it was copied"
                gone = {"problem_code": str(Reason.VANISHED), "problem": text}
                orm.execute(
                    update(SourceFile)
                    .where(*waiting)
                    .values(state=FileState.PROBLEM, **gone)
                    .execution_options(synchronize_session=False)
                )
                orm.execute(
                    update(Exposure)
                    .where(Exposure.session_id == self.session_id, Exposure.key.in_(found))
                    .values(state=ExposureState.PROBLEM, **gone)
                    .execution_options(synchronize_session=False)
                )
                lost += found
            if lost:
                names = ", ".join(lost[:3]) + (f" and {len(lost) - 3} more" if len(lost) > 3 else "")
                text = f"{len(lost)} files were removed or renamed on the source before they were copied: {names}"
                orm.add(Event(at=moment, session_id=self.session_id, severity="alarm", text=text))
            return lost

        return self.catalog.write(work)


def hash_file(path: Path) -> str:
    """BLAKE3 of a file, read once in blocks (not mapped: a share that vanishes must not kill us)."""
    digest = blake3()
    with path.open("rb") as stream:
        while block := stream.read(_HASH_BLOCK):
            digest.update(block)
    return digest.hexdigest()
