"""Opens the catalog by URL, and runs transactions that are retried whole on conflict."""

import random
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import orjson
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, OperationalError
from sqlalchemy.orm import Session as OrmSession
from sqlalchemy.orm import sessionmaker

from vitriflow.errors import CatalogError

T = TypeVar("T")
# PostgreSQL: serialization failure, deadlock.
_RETRY_SQLSTATES = {"40001", "40P01"}
# MariaDB: deadlock (Galera certification failure too), lock wait, record changed.
_RETRY_MYSQL = {1213, 1205, 1020}
# PostgreSQL: connection exceptions (class 08), disk full, too many connections, shutting down or starting.
_AWAY_SQLSTATES = ("08", "53100", "53300", "57P01", "57P02", "57P03")
# MariaDB: can't connect, gone away, lost connection, server shutting down, disk full.
_AWAY_MYSQL = {2002, 2003, 2006, 2013, 1053, 1021}
_AWAY_TEXTS = (
    "database or disk is full",
    "disk i/o error",
    "unable to open database file",
    "connection refused",
    "connection is lost",
    "server closed the connection",
    "connection failed",
    "consuming input failed",
    "the connection is closed",
)
_MAX_TRIES = 12


def now() -> datetime:
    """Our own clock: UTC with zone."""
    return datetime.now(UTC)


class Contended(CatalogError):
    """Another program held the database for so long that a transaction was given up."""


class Catalog:
    """A catalog by URL: SQLite in WAL mode on one machine, PostgreSQL or MariaDB for a facility.

    Parameters
    ----------
    url
        SQLAlchemy URL, for example ``sqlite:////data/vitriflow/catalog.db`` or
        ``postgresql+psycopg://vitriflow@db/vitriflow``.

    Raises
    ------
    CatalogError
        When the URL can't be read, or the folder of an SQLite file isn't there.
    """

    def __init__(self, url: str) -> None:
        self.engine = _make_engine(url)
        self.url = self.engine.url.render_as_string(hide_password=True)
        self._readers = sessionmaker(self.engine, expire_on_commit=False)
        writing = self.engine.execution_options(vitriflow_writes=True)
        self._writers = sessionmaker(writing, expire_on_commit=False)

    def write(self, work: Callable[[OrmSession], T]) -> T:
        """Run ``work`` in one transaction and return what it returns.

        On a conflict (SQLite busy, serialization failure, deadlock, certification failure) the
        whole of ``work`` runs again on a new session, so it must have no other side effects.

        Raises
        ------
        CatalogError
            When the conflict doesn't go away (:class:`Contended`), or the file isn't a database.
        """
        for attempt in range(_MAX_TRIES):
            try:
                with self._writers() as session, session.begin():
                    return work(session)
            except DBAPIError as error:
                if not _is_conflict(error):
                    self._explain(error)
                    raise
                if attempt < _MAX_TRIES - 1:
                    time.sleep(random.uniform(0.5, 1.0) * min(0.01 * 2**attempt, 2.0))
        raise Contended(
            f"catalog {self.url}",
            expected="a transaction to go through",
            found=f"{_MAX_TRIES} conflicts in a row",
            remedy="Another program holds the database; 'fuser FILE' or the server's sessions name it.",
        )

    def read(self, work: Callable[[OrmSession], T]) -> T:
        """Run ``work`` on a session that is rolled back afterwards."""
        try:
            with self._readers() as session:
                return work(session)
        except DBAPIError as error:
            self._explain(error)
            raise

    def close(self) -> None:
        """Give all connections back."""
        self.engine.dispose()

    def _explain(self, error: DBAPIError) -> None:
        """Raise a CatalogError for what a person has to put right; say nothing to other errors."""
        text = str(error.orig).lower()
        expected = found = remedy = ""
        if "not a database" in text:
            expected, found = "an SQLite database", "a file of another kind"
            remedy = "Give another file; vitriflow makes the database itself where there is none."
        elif "readonly database" in text:
            expected, found = "a database that can be written", str(error.orig)
            remedy = "Give this user write permission to the file and to its folder."
        if found:
            raise CatalogError(f"catalog {self.url}", expected, found, remedy) from error


def is_away(error: Exception) -> bool:
    """Whether the database can't be used for now (restarting, locked, disk full), so that waiting can help."""
    if isinstance(error, Contended):
        return True
    if not isinstance(error, DBAPIError):
        return False
    if error.connection_invalidated:
        return True
    origin: Any = error.orig
    state = getattr(origin, "sqlstate", None)
    if isinstance(state, str) and state.startswith(_AWAY_SQLSTATES):
        return True
    arguments: list[Any] = list(getattr(origin, "args", ()))
    if arguments and arguments[0] in _AWAY_MYSQL:
        return True
    text = str(origin).lower()
    return isinstance(error, OperationalError) and any(part in text for part in _AWAY_TEXTS)


def _make_engine(url: str) -> Engine:
    json: dict[str, Any] = {"json_serializer": _to_json, "json_deserializer": orjson.loads}
    try:
        parsed = make_url(url)
        if parsed.get_backend_name() == "sqlite":
            _check_folder(parsed.database)
            engine = create_engine(parsed, connect_args={"timeout": 30, "check_same_thread": False}, **json)
            event.listen(engine, "connect", _set_up_sqlite)
            event.listen(engine, "begin", _begin_sqlite)
            return engine
        options: dict[str, Any] = {"pool_pre_ping": True, "pool_recycle": 1800, **json}
        if parsed.get_backend_name() == "postgresql":
            options["isolation_level"] = "REPEATABLE READ"
        return create_engine(parsed, **options)
    except (ArgumentError, NoSuchModuleError, ModuleNotFoundError) as error:
        raise CatalogError(
            f"catalog URL {url!r}",
            expected="an SQLAlchemy URL such as sqlite:////data/catalog.db or postgresql+psycopg://user@host/name",
            found=str(error),
            remedy="Correct [catalog] url in facility.toml.",
        ) from error


def _check_folder(database: str | None) -> None:
    if not database or database == ":memory:" or database.startswith("file:"):
        return
    folder = Path(database).absolute().parent
    if not folder.is_dir():
        raise CatalogError(
            f"catalog {database}",
            expected=f"the folder {folder}",
            found="no such folder",
            remedy="Make the folder, or mount the disk that it belongs to.",
        )


def _to_json(value: Any) -> str:
    return orjson.dumps(value).decode()


def _set_up_sqlite(connection: Any, _record: Any) -> None:
    """WAL so that readers never wait; we say BEGIN ourselves (SQLAlchemy docs, pysqlite transactions)."""
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in (
        "busy_timeout=30000",
        "journal_mode=WAL",
        "synchronous=NORMAL",
        "foreign_keys=ON",
        "cache_size=-65536",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    """A writer takes its place at once: a transaction that starts by reading can't be let in later."""
    writes = connection.get_execution_options().get("vitriflow_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _is_conflict(error: DBAPIError) -> bool:
    origin: Any = error.orig
    if getattr(origin, "sqlstate", None) in _RETRY_SQLSTATES:
        return True
    text = str(origin).lower()
    if isinstance(error, OperationalError) and ("database is locked" in text or "busy" in text):
        return True
    arguments: list[Any] = list(getattr(origin, "args", ()))
    return arguments[:1] != [] and arguments[0] in _RETRY_MYSQL
