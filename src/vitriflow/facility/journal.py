"""What the catalog knows of a session, written beside its data, so that the catalog can be lost.

``catalog.json``  small rows: what the session belongs to, its processings, optics groups, places, events ...
``exposures.jsonl``  a line for each exposure whenever it changed; the last of a number counts
``processed/<name>/results.jsonl``  a line for each result, in order
``processed/<name>/outcomes.jsonl``  a line for each exposure whenever it was dealt with: tasks, what pages plot

The catalog is the truth. These files follow it, may lag, and catch up from where they end; a kill
costs nothing. When the catalog isn't the one they were written from, they're begun anew.
"""

import fcntl
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
from sqlalchemy import select
from sqlalchemy.orm import Session as OrmSession

from vitriflow.catalog import Attempt, Catalog, Exposure, Measure, ResultRow, Session, Task
from vitriflow.facility.journal_rows import (
    as_json,
    in_parts,
    processings_of,
    rows_where,
    session_rows,
    table,
)

SMALL, EXPOSURES, RESULTS, OUTCOMES = "catalog.json", "exposures.jsonl", "results.jsonl", "outcomes.jsonl"
_SWEEP_S = 60.0
_BATCH = 200
_TAIL = 64 * 1024
# By these columns it's seen that an exposure changed.
_LIGHT = ("id", "key", "state", "problem_code", "size", "blake3", "optics_group", "complete_at", "proved_at")


class SessionJournal:
    """Writes the files of one session. Several processes may: one writes at a time, by a lock.

    Parameters
    ----------
    catalog, session_id
        Whose.
    """

    def __init__(self, catalog: Catalog, session_id: int) -> None:
        self._catalog = catalog
        self._id = session_id
        self._root = Path(catalog.read(lambda orm: orm.get_one(Session, session_id).root))
        self._known: dict[int, str] | None = None
        self._size = -1  # of exposures.jsonl when it was last written here
        self._small = b""
        self._next_sweep = 0.0
        self._ends: dict[Path, tuple[int, int]] = {}  # file -> its size, and the number of its last line

    def update(self, sweep: bool = False) -> None:
        """Write what is new. ``sweep`` also what is looked for only now and then."""
        with _locked(self._root) as mine:
            if not mine:
                return
            for number, root in self._catalog.read(self._processings):
                self._follow_results(number, root)
                self._follow_outcomes(number, root)
            if sweep or time.monotonic() >= self._next_sweep:
                self._follow_exposures()
                self._write_small()
                self._next_sweep = time.monotonic() + _SWEEP_S

    def follow(self) -> None:
        """For who only takes files in: write now and then, unless a processing does."""
        if time.monotonic() >= self._next_sweep:
            self._next_sweep = time.monotonic() + _SWEEP_S
            if not self._catalog.read(self._processings):
                self.update(sweep=True)

    def _processings(self, orm: OrmSession) -> list[tuple[int, Path]]:
        return [(row.id, Path(row.root)) for row in processings_of(orm, self._id)]

    def _write_small(self) -> None:
        rows = self._catalog.read(lambda orm: session_rows(orm, self._id))
        data = orjson.dumps(rows, option=orjson.OPT_INDENT_2) + b"\n"
        path = self._root / SMALL
        if data != self._small or not path.exists():
            temporary = path.with_name(f".{path.name}.partial")  # the lock sees to one writer
            temporary.write_bytes(data)
            temporary.replace(path)
            self._small = data

    # -- exposures -------------------------------------------------------------------------

    def _follow_exposures(self) -> None:
        path = self._root / EXPOSURES
        if self._known is None or _size(path) != self._size:
            self._known = {
                int(line["id"]): _print_of(line)
                for line in read_lines(path)
                if isinstance(line.get("id"), int)
            }
        known = self._known
        columns = [table(Exposure).c[name] for name in _LIGHT]

        def look(orm: OrmSession) -> dict[int, str]:
            query = select(*columns).where(Exposure.session_id == self._id)
            rows = (as_json(row) for row in orm.execute(query).mappings())
            return {row["id"]: _print_of(row) for row in rows}

        now = self._catalog.read(look)
        changed = sorted(number for number, light in now.items() if known.get(number) != light)
        for part in in_parts(changed):
            rows = self._catalog.read(
                lambda orm, part=part: rows_where(orm, table(Exposure), Exposure.id.in_(part))  # type: ignore[misc]
            )
            append_lines(path, rows)
            known.update({row["id"]: _print_of(row) for row in rows})
        self._size = _size(path)

    # -- results and outcomes ----------------------------------------------------------------

    def _follow_results(self, processing_id: int, root: Path) -> None:
        path = root / RESULTS
        one = table(ResultRow)
        mine = one.c.processing_id == processing_id

        def same(orm: OrmSession, line: dict[str, Any]) -> bool:
            found = orm.execute(select(one).where(mine, one.c.id == line.get("id"))).mappings().first()
            return found is not None and as_json(found)["created_at"] == line.get("created_at")

        after = self._end_of(path, "id", same)
        while True:
            query = select(one).where(mine, one.c.id > after).order_by(one.c.id).limit(_BATCH)
            rows = self._catalog.read(
                lambda orm, query=query: [as_json(row) for row in orm.execute(query).mappings()]  # type: ignore[misc]
            )
            if not rows:
                return
            after = int(rows[-1]["id"])
            self._append(path, rows, after)

    def _follow_outcomes(self, processing_id: int, root: Path) -> None:
        path = root / OUTCOMES
        mine = (Measure.processing_id == processing_id, Measure.status != "open")

        def same(orm: OrmSession, line: dict[str, Any]) -> bool:
            number = (line.get("measure") or {}).get("exposure_id")
            query = select(Measure.change).where(
                Measure.processing_id == processing_id, Measure.exposure_id == number
            )
            found = orm.scalar(query)
            return found is not None and found >= int(line["change"])

        after = self._end_of(path, "change", same)
        query = select(Measure.exposure_id).where(*mine, Measure.change > after).order_by(Measure.change)
        for part in in_parts(self._catalog.read(lambda orm: list(orm.scalars(query))), _BATCH):
            lines = self._catalog.read(
                lambda orm, part=part: _outcomes(orm, processing_id, part)  # type: ignore[misc]
            )
            if lines:
                self._append(path, lines, int(lines[-1]["change"]))

    def _end_of(self, path: Path, name: str, same: Any) -> int:
        """The number of the last line. A file of another catalog is put aside, and begun anew."""
        size = _size(path)
        known = self._ends.get(path)
        if known is not None and known[0] == size:
            return known[1]
        line = _last_line(path)
        if line is None:
            return -1
        if isinstance(line.get(name), int) and self._catalog.read(lambda orm: same(orm, line)):
            self._ends[path] = (size, int(line[name]))
            return int(line[name])
        path.rename(path.with_name(f"{path.name}.before-{datetime.now(UTC):%Y%m%dT%H%M%S%f}"))
        return -1

    def _append(self, path: Path, lines: Sequence[dict[str, Any]], last: int) -> None:
        append_lines(path, lines)
        self._ends[path] = (_size(path), last)


def write_journals(catalog: Catalog) -> int:
    """Bring the files of all sessions up to date; how many sessions there are."""
    sessions = catalog.read(lambda orm: list(orm.execute(select(Session.id, Session.root))))
    number = 0
    for session_id, root in sessions:
        if Path(root).is_dir():
            SessionJournal(catalog, session_id).update(sweep=True)
            number += 1
    return number


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Lines of such a file; of a missing one none. A torn line counts for nothing: what it said is written again."""
    try:
        stream = path.open("rb")
    except FileNotFoundError:
        return
    with stream:
        for raw in stream:
            line = _parsed(raw)
            if line is not None:
                yield line


def append_lines(path: Path, lines: Sequence[dict[str, Any]]) -> None:
    """Add lines and sync them. A torn last line is cut off first."""
    if not lines:
        return
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
    data = b"".join(orjson.dumps(line, option=orjson.OPT_SERIALIZE_NUMPY) + b"\n" for line in lines)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o640)
    try:
        end = _whole(descriptor)
        os.ftruncate(descriptor, end)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
            os.fsync(descriptor)
        except OSError:
            os.ftruncate(descriptor, end)  # a full disk: written at the next call
            raise
    finally:
        os.close(descriptor)


def _whole(descriptor: int) -> int:
    """Where the last whole line ends."""
    end = os.fstat(descriptor).st_size
    while end > 0:
        start = max(0, end - _TAIL)
        found = os.pread(descriptor, end - start, start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0


def _last_line(path: Path) -> dict[str, Any] | None:
    """The last whole line; None when there is none. An unreadable one is an empty line."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        end = _whole(descriptor)
        if end == 0:
            return None
        start, found = end - 1, -1
        while start > 0 and found < 0:
            here = max(0, start - _TAIL)
            found = os.pread(descriptor, start - here, here).rfind(b"\n")
            found = here + found if found >= 0 else -1
            start = here
        raw = os.pread(descriptor, end - found - 1, found + 1)
    finally:
        os.close(descriptor)
    return _parsed(raw) or {}


def _parsed(raw: bytes) -> dict[str, Any] | None:
    try:
        line = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return None
    return line if isinstance(line, dict) else None


def _print_of(row: dict[str, Any]) -> str:
    return "|".join(str(row.get(name)) for name in _LIGHT)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return -1


def _outcomes(orm: OrmSession, processing_id: int, exposures: list[int]) -> list[dict[str, Any]]:
    """How exposures ended: what pages plot, all tasks with failed attempts, and which results stand."""
    tasks: dict[int, list[dict[str, Any]]] = {number: [] for number in exposures}
    wanted = (Task.processing_id == processing_id, Task.item_type == "exposure", Task.item_id.in_(exposures))
    for task in rows_where(orm, table(Task), *wanted):
        tasks[task["item_id"]].append(task)
    attempts: dict[int, list[dict[str, Any]]] = {number: [] for number in exposures}
    owner = {task["id"]: number for number, mine in tasks.items() for task in mine}
    for part in in_parts(owner):
        for attempt in rows_where(orm, table(Attempt), Attempt.task_id.in_(part)):
            attempts[owner[attempt["task_id"]]].append(attempt)
    results: dict[int, list[list[int]]] = {number: [] for number in exposures}
    query = select(ResultRow.item_id, ResultRow.id, ResultRow.revision).where(
        ResultRow.processing_id == processing_id,
        ResultRow.item_type == "exposure",
        ResultRow.item_id.in_(exposures),
    )
    for item, number, revision in orm.execute(query.order_by(ResultRow.id)):
        results[item].append([number, revision])
    mine = (
        Measure.processing_id == processing_id,
        Measure.exposure_id.in_(exposures),
        Measure.status != "open",
    )
    measures = sorted(rows_where(orm, table(Measure), *mine), key=lambda row: row["change"])
    return [
        {
            "change": measure["change"],
            "measure": measure,
            "tasks": tasks[measure["exposure_id"]],
            "attempts": attempts[measure["exposure_id"]],
            "results": results[measure["exposure_id"]],
        }
        for measure in measures
    ]


@contextmanager
def _locked(root: Path) -> Iterator[bool]:
    """Whether these files are ours to write for the moment."""
    descriptor = os.open(root / "journal.lock", os.O_RDWR | os.O_CREAT, 0o640)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
    finally:
        os.close(descriptor)
