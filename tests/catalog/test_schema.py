"""The catalog's tables: made, brought up to date, and refused when they don't fit."""

import sqlite3
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import text

from vitriflow.catalog import Base, Catalog, check_schema, found_revision, newest_revision, upgrade
from vitriflow.errors import CatalogError


def test_migrations_make_exactly_the_tables_that_the_models_describe(catalog: Catalog) -> None:
    with catalog.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []


def test_upgrading_twice_changes_nothing(empty_url: str) -> None:
    catalog = Catalog(empty_url)
    assert found_revision(catalog) is None
    upgrade(catalog)
    upgrade(catalog)
    assert found_revision(catalog) == newest_revision()
    check_schema(catalog)
    catalog.close()


def test_a_catalog_without_tables_is_refused_with_the_remedy(empty_url: str) -> None:
    catalog = Catalog(empty_url)
    with pytest.raises(CatalogError, match=r"no tables.*vitriflow") as caught:
        check_schema(catalog)
    assert newest_revision() in caught.value.expected
    catalog.close()


def test_a_catalog_of_a_newer_version_is_neither_used_nor_touched(catalog: Catalog) -> None:
    catalog.write(lambda session: session.execute(text("UPDATE alembic_version SET version_num = '9999'")))
    for refused in (check_schema, upgrade):
        with pytest.raises(CatalogError, match="9999, made by a newer vitriflow"):
            refused(catalog)
    assert found_revision(catalog) == "9999"


def test_a_database_of_another_program_is_refused(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "other.db") as other:
        other.execute("CREATE TABLE exposure (id INTEGER)")
    other.close()
    catalog = Catalog(f"sqlite:///{tmp_path / 'other.db'}")
    with pytest.raises(CatalogError, match="another program"):
        upgrade(catalog)
    catalog.close()


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match="no such folder") as caught:
        Catalog(f"sqlite:///{tmp_path / 'gone' / 'catalog.db'}")
    assert str(tmp_path / "gone") in caught.value.expected


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "notes.db").write_text("these are notes, not a database\n" * 100)
    catalog = Catalog(f"sqlite:///{tmp_path / 'notes.db'}")
    with pytest.raises(CatalogError, match=r"notes\.db.*a file of another kind"):
        check_schema(catalog)
    catalog.close()


def test_a_server_that_does_not_answer_is_named_without_its_password() -> None:
    catalog = Catalog("postgresql+psycopg://user:secret@127.0.0.1:9/nowhere")
    with pytest.raises(CatalogError, match="Check that the server runs") as caught:
        check_schema(catalog)
    assert "127.0.0.1:9" in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["not a url", "nosuch://host/name", "sqlite+nosuch:///x.db"])
def test_a_url_that_can_not_be_read_is_refused_with_an_example(url: str) -> None:
    with pytest.raises(CatalogError, match="sqlite:////data"):
        Catalog(url)
