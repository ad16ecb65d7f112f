"""Opens the catalog by URL, and runs transactions that are retried whole on conflict."""

import random
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TypeVar

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.orm import Session as OrmSession
from sqlalchemy.orm import sessionmaker

from vitriflow.errors import CatalogError

T = TypeVar("T")
# PostgreSQL: serialization failure, deadlock.
_RETRY_SQLSTATES = {"40001", "40P01"}
# MariaDB: deadlock (Galera certification failure too), lock wait, record changed.
_RETRY_MYSQL = {1213, 1205, 1020}
_MAX_TRIES = 12


def now() -> datetime:
    """Our own clock: UTC with zone."""
    return datetime.now(UTC)


class Catalog:
    """A catalog by URL: SQLite in WAL mode on one machine, PostgreSQL or MariaDB for a facility.

    Parameters
    ----------
    url
        SQLAlchemy URL, for example ``sqlite:////data/vitriflow/catalog.db`` or
        ``postgresql+psycopg://vitriflow@db/vitriflow``.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.engine = _make_engine(url)
        self._sessions = sessionmaker(self.engine, expire_on_commit=False)

    def write(self, work: Callable[[OrmSession], T]) -> T:
        """Run ``work`` in one transaction and return what it returns.

        On a conflict (SQLite busy, serialization failure, deadlock, certification failure) the
        whole of ``work`` runs again on a new session, so it must have no other side effects.

        Raises
        ------
        CatalogError
            When the conflict doesn't go away.
        """
        for attempt in range(_MAX_TRIES):
            try:
                with self._sessions() as session, session.begin():
                    return work(session)
            except DBAPIError as error:
                if not _is_conflict(error) or attempt == _MAX_TRIES - 1:
                    raise
                time.sleep(random.uniform(0.5, 1.0) * min(0.01 * 2**attempt, 2.0))
        raise CatalogError(self.url, "a transaction to go through", f"{_MAX_TRIES} conflicts in a row")

    def read(self, work: Callable[[OrmSession], T]) -> T:
        """Run ``work`` on a session that is rolled back afterwards."""
        with self._sessions() as session:
            try:
                return work(session)
            finally:
                session.rollback()

    def close(self) -> None:
        """Give all connections back."""
        self.engine.dispose()


def _make_engine(url: str) -> Engine:
    if url.startswith("sqlite"):
        engine = create_engine(url, connect_args={"timeout": 30, "check_same_thread": False})
        event.listen(engine, "connect", _set_up_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    options: dict[str, Any] = {"pool_pre_ping": True, "pool_recycle": 1800}
    if url.startswith("postgresql"):
        options["isolation_level"] = "REPEATABLE READ"
    return create_engine(url, **options)


def _set_up_sqlite(connection: Any, _record: Any) -> None:
    """WAL so that readers never wait; we say BEGIN ourselves (SQLAlchemy docs, pysqlite transactions)."""
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in (
        "journal_mode=WAL",
        "synchronous=NORMAL",
        "foreign_keys=ON",
        "busy_timeout=30000",
        "cache_size=-65536",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Any) -> None:
    connection.exec_driver_sql("BEGIN")


def _is_conflict(error: DBAPIError) -> bool:
    origin: Any = error.orig
    if getattr(origin, "sqlstate", None) in _RETRY_SQLSTATES:
        return True
    text = str(origin).lower()
    if isinstance(error, OperationalError) and ("database is locked" in text or "busy" in text):
        return True
    arguments: list[Any] = list(getattr(origin, "args", ()))
    return arguments[:1] != [] and arguments[0] in _RETRY_MYSQL
