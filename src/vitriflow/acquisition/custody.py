"""What the catalog knows of every file of a session: rows of ``source_file``, written in batches."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from pathlib import PurePosixPath
from typing import Any, TypeVar

from sqlalchemy import Table, bindparam, func, insert, select, tuple_, update
from sqlalchemy.orm import Session as OrmSession

from vitriflow.acquisition.scan import FileSeen
from vitriflow.catalog import Catalog, FileState, SourceFile

T = TypeVar("T")
CHUNK = 1000  # rows in one transaction: small enough to let others in
_IN = 400
_TABLE = SourceFile.__table__
MOVED = (FileState.COPIED, FileState.PROVED)


@dataclass(frozen=True, slots=True)
class ProvedFile:
    """A file that was just proved (or hashed in place): what the manifest says of it."""

    key: str
    destination: str
    size: int
    blake3: str
    proved_at: datetime
    mode: str
    method: str
    generation: int
    kind: str
    software: str
    stamp: int


Recorder = Callable[[Sequence[ProvedFile]], None]


@dataclass(slots=True)
class FileChange:
    """What is to be written about one file.

    ``generation`` is the row's; one that isn't known yet is inserted. ``replaces`` says that the
    generation before was replaced by this one.
    """

    file: FileSeen
    kind: str
    software: str
    state: FileState
    generation: int = 1
    fresh: bool = False
    replaces: bool = False
    values: dict[str, Any] = field(default_factory=dict)


def chunks(items: Sequence[T], size: int = CHUNK) -> Iterator[list[T]]:
    """Cut a sequence up."""
    rest = iter(items)
    while part := list(islice(rest, size)):
        yield part


def destination_of(key: str, generation: int) -> str:
    """Where a file goes, below the session's folder: ``raw/`` and its path below the source.

    Other bytes that come under a name that was used go beside it: ``raw/a.g2.tif`` for ``a.tif``.
    """
    if generation == 1:
        return f"raw/{key}"
    path = PurePosixPath("raw", key)
    return str(path.with_name(f"{path.stem}.g{generation}{path.suffix}"))


@dataclass(frozen=True, slots=True)
class KnownFile:
    """The newest generation of one file, as the catalog has it."""

    key: str
    generation: int
    state: str
    problem_code: str | None
    size: int
    stamp: int
    blake3: str | None
    copied: bool
    freed: bool
    gone: bool


def known_files(catalog: Catalog, session_id: int) -> dict[str, KnownFile]:
    """The newest generation of every file of a session, by key."""
    columns = (
        SourceFile.key,
        SourceFile.generation,
        SourceFile.state,
        SourceFile.problem_code,
        SourceFile.size,
        SourceFile.stamp,
        SourceFile.blake3,
        SourceFile.copied_at.is_not(None),
        SourceFile.freed_at.is_not(None),
        SourceFile.gone_at.is_not(None),
    )
    query = select(*columns).where(SourceFile.session_id == session_id).order_by(SourceFile.id)

    def work(orm: OrmSession) -> dict[str, KnownFile]:
        found: dict[str, KnownFile] = {}
        for row in orm.execute(query).yield_per(CHUNK):
            file = KnownFile(*list(row))
            if file.key not in found or found[file.key].generation < file.generation:
                found[file.key] = file
        return found

    return catalog.read(work)


def files_left(catalog: Catalog, session_id: int) -> bool:
    """Whether any file should still be on the source: not freed, and not seen to be missing."""
    query = select(SourceFile.id).where(
        SourceFile.session_id == session_id,
        SourceFile.freed_at.is_(None),
        SourceFile.gone_at.is_(None),
        SourceFile.state.in_((FileState.COMPLETE, *MOVED)),
    )
    return catalog.read(lambda orm: orm.scalar(query.limit(1))) is not None


def file_counts(catalog: Catalog, session_id: int) -> dict[str, int]:
    """Files by state; they add up to all that were ever seen."""
    query = (
        select(SourceFile.state, func.count())
        .where(SourceFile.session_id == session_id)
        .group_by(SourceFile.state)
    )
    return catalog.read(lambda orm: {str(state): number for state, number in orm.execute(query)})


def write_changes(orm: OrmSession, session_id: int, changes: Sequence[FileChange], stamp: datetime) -> None:
    """Write changes as part of a transaction, in a few statements however many there are."""
    assert isinstance(_TABLE, Table)
    fresh = [_fresh_row(session_id, change, stamp) for change in changes if change.fresh]
    if fresh:
        orm.execute(insert(_TABLE), fresh)
    replaced = [change for change in changes if change.replaces]
    if replaced:
        before = [{"k": change.file.key, "g": change.generation - 1} for change in replaced]
        orm.connection().execute(
            _update(session_id, ["state"]), [{**row, "v_state": "replaced"} for row in before]
        )
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for change in changes:
        if change.fresh:
            continue
        values = _columns(change)
        row = {f"v_{name}": value for name, value in values.items()}
        groups.setdefault(tuple(values), []).append({"k": change.file.key, "g": change.generation, **row})
    for names, rows in groups.items():
        orm.connection().execute(_update(session_id, list(names)), rows)


def write_gone(orm: OrmSession, session_id: int, keys: Sequence[str], moment: datetime | None) -> None:
    """Note that files are missing from the source (or, with None, are there again); freed ones aren't missing."""
    for part in chunks(keys, _IN):
        orm.execute(
            update(SourceFile)
            .where(SourceFile.session_id == session_id, SourceFile.key.in_(part))
            .where(SourceFile.freed_at.is_(None), SourceFile.state != FileState.REPLACED)
            .values(gone_at=moment)
        )


def rows_of(orm: OrmSession, session_id: int, wanted: Sequence[tuple[str, int]]) -> list[SourceFile]:
    """Rows by key and generation."""
    found: list[SourceFile] = []
    for part in chunks(wanted, _IN):
        mine = tuple_(SourceFile.key, SourceFile.generation).in_(part)
        found += orm.scalars(select(SourceFile).where(SourceFile.session_id == session_id, mine))
    return found


def _fresh_row(session_id: int, change: FileChange, stamp: datetime) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(
        ("problem_code", "problem", "blake3", "destination", "decodable", "not_before"), None
    )
    row.update(dict.fromkeys(("complete_at", "copied_at", "proved_at", "freed_at", "gone_at"), None))
    row.update(
        session_id=session_id,
        key=change.file.key,
        generation=change.generation,
        kind=change.kind,
        software=change.software,
        attempts=0,
        first_seen_at=stamp,
    )
    row.update(_columns(change))
    return row


def _columns(change: FileChange) -> dict[str, Any]:
    return {
        "state": str(change.state),
        "size": change.file.size,
        "stamp": change.file.changed_ns,
        "gone_at": None,
        **change.values,
    }


def _update(session_id: int, names: Sequence[str]) -> Any:
    assert isinstance(_TABLE, Table)
    return (
        update(_TABLE)
        .where(_TABLE.c.session_id == session_id, _TABLE.c.key == bindparam("k"))
        .where(_TABLE.c.generation == bindparam("g"))
        .values({name: bindparam(f"v_{name}") for name in names})
    )
