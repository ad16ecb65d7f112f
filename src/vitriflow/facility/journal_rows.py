"""Rows of the catalog as JSON, and back: by the tables themselves, so that columns to come are in it too."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Table, select
from sqlalchemy.orm import Session as OrmSession

from vitriflow.catalog import Base, Experiment, Microscope, Processing, Sample, Session
from vitriflow.catalog.types import UtcDateTime

VERSION = 1
# Tables with a session_id that stand in files of their own.
_ELSEWHERE = {"exposure", "source_file", "session"}


def table(model: type[Base]) -> Table:
    """The table of a class."""
    found = model.__table__
    assert isinstance(found, Table)
    return found


def session_tables() -> list[Table]:
    """Tables whose rows belong to one session, parents before children."""
    return [
        one
        for one in Base.metadata.sorted_tables
        if "session_id" in one.columns and one.name not in _ELSEWHERE and "session" in _targets(one)
    ]


def _targets(one: Table) -> set[str]:
    return {key.column.table.name for key in one.foreign_keys}


def as_json(row: Mapping[Any, Any]) -> dict[str, Any]:
    """A row ready for JSON: times in ISO 8601, UTC."""
    return {
        str(name): value.isoformat() if isinstance(value, datetime) else value for name, value in row.items()
    }


def from_json(one: Table, values: Mapping[str, Any]) -> dict[str, Any]:
    """A row for a table; what the table has no column for is left out."""
    row: dict[str, Any] = {}
    for column in one.columns:
        if column.name not in values:
            continue
        value = values[column.name]
        if isinstance(column.type, UtcDateTime) and isinstance(value, str):
            value = datetime.fromisoformat(value)
        row[column.name] = value
    return row


def rows_where(orm: OrmSession, one: Table, *where: Any) -> list[dict[str, Any]]:
    """Rows of a table, in the order of their numbers, ready for JSON."""
    query = select(one).where(*where).order_by(*one.primary_key.columns)
    return [as_json(row) for row in orm.execute(query).mappings()]


def session_rows(orm: OrmSession, session_id: int) -> dict[str, Any]:
    """All small rows of a session, and of what it belongs to, by table."""
    session = orm.get_one(Session, session_id)
    sample = orm.get_one(Sample, session.sample_id)
    tables: dict[str, Any] = {}
    for model, number in (
        (Microscope, session.microscope_id),
        (Experiment, sample.experiment_id),
        (Sample, sample.id),
        (Session, session_id),
    ):
        one = table(model)
        tables[str(one.name)] = rows_where(orm, one, one.c.id == number)
    for one in session_tables():
        tables[str(one.name)] = rows_where(orm, one, one.c.session_id == session_id)
    return {"version": VERSION, "root": session.root, "tables": tables}


def processings_of(orm: OrmSession, session_id: int) -> list[Processing]:
    """Processings of a session, oldest first."""
    query = select(Processing).where(Processing.session_id == session_id).order_by(Processing.id)
    return list(orm.scalars(query))


def in_parts(numbers: Iterable[int], size: int = 400) -> Iterable[list[int]]:
    """Parts short enough for an IN list on every database."""
    rest = list(numbers)
    return (rest[start : start + size] for start in range(0, len(rest), size))
