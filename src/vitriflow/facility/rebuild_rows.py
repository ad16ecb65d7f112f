"""Reads one session's folder as rows of the catalog, and inserts them."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson
from sqlalchemy import Integer, Table, func, insert, select, text
from sqlalchemy.orm import Session as OrmSession

from vitriflow.acquisition.release_log import FreedLog
from vitriflow.catalog import (
    Attempt,
    Base,
    Experiment,
    Exposure,
    FileState,
    Measure,
    Microscope,
    ResultRow,
    Sample,
    Session,
    SessionState,
    Task,
)
from vitriflow.errors import VitriflowError
from vitriflow.facility.journal import EXPOSURES, OUTCOMES, RESULTS, SMALL, read_lines
from vitriflow.facility.journal_rows import VERSION, from_json, session_tables, table
from vitriflow.storage import SessionFolder, read_manifest

_BATCH = 500
_EXPOSURE_COLUMNS = {"task": "item_id", "result": "item_id", "measure": "exposure_id"}


class Numbers:
    """Keeps the numbers that rows had, as long as they're free: links to pages go on working."""

    def __init__(self) -> None:
        self._used: dict[str, set[int]] = defaultdict(set)
        self._highest: dict[str, int] = defaultdict(int)

    def take(self, name: str, wanted: int | None) -> int:
        """A number for a row of a table: the one it had, else the next."""
        number = wanted if wanted and wanted not in self._used[name] else self._highest[name] + 1
        self._used[name].add(number)
        self._highest[name] = max(self._highest[name], number)
        return number


@dataclass
class SessionRows:
    """Rows of one session, by table, with the numbers that they'll have."""

    key: str
    session_id: int
    tables: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: defaultdict(list))
    shared: dict[str, dict[str, Any]] = field(default_factory=dict)  # microscope, experiment, sample
    streams: list[tuple[Path, dict[int, tuple[int, int, int]]]] = field(default_factory=list)
    moved: tuple[bytes, bytes] | None = None

    @classmethod
    def read(cls, folder: Path, storage: Path, numbers: Numbers, problems: list[str]) -> "SessionRows":
        """Read a session's folder. What can't be read is told in ``problems``."""
        home = SessionFolder(folder)
        record = orjson.loads(home.record.read_bytes())
        small = _small(folder / SMALL, problems) or _from_record(record, folder)
        maps: dict[str, dict[int, int]] = defaultdict(dict)
        (session,) = small["tables"]["session"]
        for name in ("state", "closed_at", "residence"):  # session.json is written at each change of these
            session[name] = record.get(name, session.get(name))
        rows = cls(session["key"], numbers.take("session", session.get("id")))
        maps["session"][session["id"]] = rows.session_id
        old = str(small.get("root") or folder)
        if old != str(folder):
            rows.moved = (orjson.dumps(old)[1:-1], orjson.dumps(str(folder))[1:-1])
            small = orjson.loads(orjson.dumps(small).replace(*rows.moved))
            (session,) = small["tables"]["session"]
        rows._take_small(small["tables"], session, folder, numbers, maps, problems)
        rows._take_exposures(folder, numbers, maps, problems)
        rows._take_files(home, storage, numbers, problems)
        for processing in rows.tables["processing"]:
            rows._take_outcomes(processing, numbers, maps)
        return rows

    def counts(self) -> dict[str, int]:
        """Rows by table."""
        found = {str(name): len(rows) for name, rows in self.tables.items() if rows}
        results = sum(len(kept) for _, kept in self.streams)
        return {**found, **({"result": results} if results else {})}

    # -- reading ---------------------------------------------------------------------------

    def _take_small(
        self,
        tables: Mapping[str, Any],
        session: dict[str, Any],
        folder: Path,
        numbers: Numbers,
        maps: dict[str, dict[int, int]],
        problems: list[str],
    ) -> None:
        for model in (Microscope, Experiment, Sample):
            name = table(model).name
            (self.shared[name],) = tables[name]
        if session["state"] == SessionState.ACTIVE:
            session["state"] = str(SessionState.PAUSED)
            problems.append("it was active, and is paused now: start it again")
        session["root"] = str(folder)
        self.tables["session"] = [{**from_json(table(Session), session), "id": self.session_id}]
        for one in session_tables():
            for values in tables.get(one.name, ()):
                row = from_json(one, values)
                if "id" in row:
                    old = row["id"]
                    row["id"] = maps[one.name][old] = numbers.take(one.name, old)
                lost = _join(one, row, maps)
                if lost is None:
                    self.tables[one.name].append(row)
                else:
                    problems.append(f"a row of {one.name} is left out: its {lost} isn't known")

    def _take_exposures(
        self, folder: Path, numbers: Numbers, maps: dict[str, dict[int, int]], problems: list[str]
    ) -> None:
        latest: dict[str, dict[str, Any]] = {}
        for line in self._lines(folder / EXPOSURES):
            latest[str(line["key"])] = line
        if not latest:
            problems.append("its exposures aren't known; they're found again when it's watched")
        for line in sorted(latest.values(), key=lambda one: int(one["id"])):
            row = from_json(table(Exposure), line)
            row["id"] = maps["exposure"][line["id"]] = numbers.take("exposure", line["id"])
            row["session_id"] = self.session_id
            self.tables["exposure"].append(row)

    def _take_files(self, home: SessionFolder, storage: Path, numbers: Numbers, problems: list[str]) -> None:
        freed = {
            (line.key, line.generation): line.at
            for line in FreedLog(storage / "freed.jsonl").freed()
            if line.session == self.key
        }
        newest: dict[str, int] = {}
        rows: dict[tuple[str, int], dict[str, Any]] = {}
        try:
            for line in read_manifest(home.manifest):
                key = line.source or line.path.removeprefix("raw/")
                newest[key] = max(newest.get(key, 0), line.generation)
                rows[key, line.generation] = _file_row(self.session_id, key, line)
        except VitriflowError as error:
            problems.append(str(error))
        for (key, generation), row in rows.items():
            row["id"] = numbers.take("source_file", None)
            if generation != newest[key]:
                row["state"] = str(FileState.REPLACED)
            when = freed.get((key, generation))
            row["freed_at"] = datetime.fromisoformat(when) if when else None
            self.tables["source_file"].append(row)

    def _take_outcomes(
        self, processing: dict[str, Any], numbers: Numbers, maps: dict[str, dict[int, int]]
    ) -> None:
        _renumber_selection(processing, maps["exposure"])
        root = Path(processing["root"])
        latest: dict[int, dict[str, Any]] = {}
        for line in self._lines(root / OUTCOMES):
            latest[line["measure"]["exposure_id"]] = line
        kept: dict[int, tuple[int, int, int]] = {}
        fixed = {"processing_id": processing["id"]}
        for old, line in latest.items():
            exposure = maps["exposure"].get(old)
            if exposure is None:
                continue
            measure = from_json(table(Measure), line["measure"])
            self.tables["measure"].append({**measure, **fixed, "exposure_id": exposure})
            processing["change"] = max(processing["change"], measure["change"])
            tasks: dict[int, int] = {}
            for values in line["tasks"]:
                number = tasks[values["id"]] = numbers.take("task", values["id"])
                row = from_json(table(Task), values)
                self.tables["task"].append({**row, **fixed, "id": number, "item_id": exposure})
            for values in line["attempts"]:
                row = from_json(table(Attempt), values)
                row["id"] = numbers.take("attempt", values["id"])
                self.tables["attempt"].append({**row, "task_id": tasks[values["task_id"]]})
            for number, revision in line["results"]:
                kept[number] = (exposure, revision, processing["id"])
        # Results are many and large: they're read again, line by line, when they're inserted.
        found = {line["id"] for line in self._lines(root / RESULTS)}
        kept = {number: value for number, value in kept.items() if number in found}
        self.streams.append((root / RESULTS, kept))
        self._numbers = numbers

    def _lines(self, path: Path) -> Iterable[dict[str, Any]]:
        for line in read_lines(path):
            yield orjson.loads(orjson.dumps(line).replace(*self.moved)) if self.moved else line

    # -- writing ---------------------------------------------------------------------------

    def insert(self, orm: OrmSession) -> None:
        """Insert all rows, parents first."""
        self._share(orm)
        for one in Base.metadata.sorted_tables:
            _insert(orm, one, self.tables.get(one.name, []))
        one = table(ResultRow)
        for path, kept in self.streams:
            batch: list[dict[str, Any]] = []
            done: set[int] = set()
            for line in self._lines(path):
                where = kept.get(line["id"])
                if where is None or line["id"] in done:
                    continue
                done.add(line["id"])
                row = from_json(one, line)
                exposure, revision, processing = where
                row |= {"item_id": exposure, "revision": revision, "processing_id": processing}
                row["id"] = self._numbers.take("result", line["id"])
                batch.append(row)
                if len(batch) == _BATCH:
                    _insert(orm, one, batch)
                    batch = []
            _insert(orm, one, batch)

    def _share(self, orm: OrmSession) -> None:
        """Find or make what several sessions belong to; they're known by their names."""
        numbers: dict[str, int] = {}
        for model in (Microscope, Experiment, Sample):
            one = table(model)
            values = from_json(one, self.shared[one.name])
            if one.name == "sample":
                values["experiment_id"] = numbers["experiment"]
            names = {name: values[name] for name in ("name", "experiment_id") if name in values}
            wanted = select(one.c.id).where(*(one.c[name] == value for name, value in names.items()))
            found = orm.scalar(wanted)
            if found is None:
                taken = orm.scalar(select(one.c.id).where(one.c.id == values.get("id")))
                if taken is not None:
                    values.pop("id", None)
                orm.execute(insert(one).values(**values))
                found = orm.scalar(wanted)
                assert found is not None
            numbers[one.name] = int(found)
        (session,) = self.tables["session"]
        session |= {"microscope_id": numbers["microscope"], "sample_id": numbers["sample"]}


def _small(path: Path, problems: list[str]) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = orjson.loads(path.read_bytes())
    except FileNotFoundError:
        problems.append(f"there's no {path.name}: only session.json and the manifest say what it was")
        return None
    except orjson.JSONDecodeError as error:
        problems.append(f"{path.name} can't be read ({error}): only session.json and the manifest are used")
        return None
    if found.get("version", 0) > VERSION:
        problems.append(
            f"{path.name} was written by a newer vitriflow: what this one doesn't know is left out"
        )
    return found


def _from_record(record: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """What session.json alone says."""
    session = {
        "id": 0,
        "key": record["session"],
        "state": record["state"],
        "source": record["source"],
        "root": str(folder),
        "settings": record.get("settings") or {},
        "survey": {},
        "mode": record.get("mode", "in_place"),
        "residence": record.get("residence", "resident"),
        "created_at": record["created_at"],
        "closed_at": record.get("closed_at"),
    }
    return {
        "root": str(folder),
        "tables": {
            "microscope": [{"name": record["microscope"], "settings": {}}],
            "experiment": [{"name": record["experiment"], "title": "", "created_at": record["created_at"]}],
            "sample": [{"name": record["sample"], "settings": {}}],
            "session": [session],
        },
    }


def _file_row(session_id: int, key: str, line: Any) -> dict[str, Any]:
    proved = datetime.fromisoformat(line.proved_at)
    times = dict.fromkeys(("first_seen_at", "complete_at", "copied_at", "proved_at"), proved)
    return {
        "session_id": session_id,
        "key": key,
        "generation": line.generation,
        "kind": line.kind,
        "software": line.software,
        "state": str(FileState.PROVED),
        "size": line.size,
        "stamp": line.stamp,
        "blake3": line.blake3,
        "destination": line.path,
        "decodable": None,
        "attempts": 0,
        **times,
    }


def _renumber_selection(processing: dict[str, Any], exposures: Mapping[int, int]) -> None:
    """The exposures that a processing was begun for, by the numbers that they have now."""
    chosen = processing.get("selection")
    if chosen is not None:
        ids = sorted(exposures[old] for old in chosen["exposures"] if old in exposures)
        processing["selection"] = {**chosen, "n": len(ids), "exposures": ids}


def _join(one: Table, row: dict[str, Any], maps: Mapping[str, Mapping[int, int]]) -> str | None:
    """Point a row at the numbers that its parents have now; the name of a parent that isn't known."""
    for key in one.foreign_keys:
        column, target = key.parent, key.column.table.name
        if row.get(column.name) is None:
            continue
        number = maps.get(target, {}).get(row[column.name])
        if number is None and not column.nullable:
            return target
        row[column.name] = number
    return None


def _insert(orm: OrmSession, one: Table, rows: Sequence[dict[str, Any]]) -> None:
    for start in range(0, len(rows), _BATCH):
        orm.connection().execute(insert(one), list(rows[start : start + _BATCH]))


def catch_up_sequences(orm: OrmSession) -> None:
    """On PostgreSQL numbers come from sequences, which don't know of rows that brought their own."""
    if orm.connection().dialect.name != "postgresql":
        return
    for one in Base.metadata.sorted_tables:
        keys = list(one.primary_key.columns)
        if len(keys) != 1 or not isinstance(keys[0].type, Integer):
            continue
        highest = orm.scalar(select(func.max(keys[0])))
        name = orm.scalar(select(func.pg_get_serial_sequence(one.name, keys[0].name)))
        if highest is not None and name is not None:
            orm.execute(text("SELECT setval(:name, :highest)"), {"name": name, "highest": highest})
