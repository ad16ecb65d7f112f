"""Catalogs to test on: SQLite always, PostgreSQL where its programs are. Imported by conftest files."""

import shutil
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.servers import PostgresServer
from vitriflow.catalog import Catalog, upgrade


@pytest.fixture(scope="session")
def postgres(postgres_bin: Path) -> Iterator[PostgresServer]:
    """A running PostgreSQL server. Not below pytest's own folder: another user has to get in."""
    folder = Path(tempfile.mkdtemp(prefix="vf-pg-"))
    folder.chmod(0o755)
    server = PostgresServer(postgres_bin, folder / "server")
    server.start()
    yield server
    server.stop()
    shutil.rmtree(folder)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.service)])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of a database without tables, once for each kind of server."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'catalog.db'}"
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.new_database()


@cache
def _newest() -> bytes:
    """What stands in the file of an SQLite catalog that has just been made."""
    with tempfile.TemporaryDirectory() as folder:
        made = Catalog(f"sqlite:///{folder}/catalog.db")
        upgrade(made)
        made.close()
        return Path(folder, "catalog.db").read_bytes()


def new_sqlite(path: Path) -> Catalog:
    """An up-to-date catalog in an SQLite file, which is new or of this version; migrations ran once for all."""
    if not path.exists():
        path.write_bytes(_newest())
    return Catalog(f"sqlite:///{path}")


@pytest.fixture
def catalog(empty_url: str) -> Iterator[Catalog]:
    """An up-to-date catalog, once for each kind of server."""
    if empty_url.startswith("sqlite:///"):
        made = new_sqlite(Path(empty_url.removeprefix("sqlite:///")))
    else:
        made = Catalog(empty_url)
        upgrade(made)
    yield made
    made.close()


@pytest.fixture
def sqlite_catalog(tmp_path: Path) -> Iterator[Catalog]:
    """An up-to-date catalog in an SQLite file."""
    made = new_sqlite(tmp_path / "only.db")
    yield made
    made.close()
