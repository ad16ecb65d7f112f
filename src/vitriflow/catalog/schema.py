"""Makes the catalog's tables, brings them up to date, and says when they don't fit this version."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session as OrmSession

from vitriflow.catalog.engine import Catalog
from vitriflow.errors import CatalogError

_HERE = Path(__file__).parent / "migrations"


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(_HERE))
    config.set_main_option("path_separator", "os")
    return config


def newest_revision() -> str:
    """The revision of the tables that this version of vitriflow works with."""
    head = ScriptDirectory.from_config(_config()).get_current_head()
    assert head is not None  # the package always carries its first migration
    return head


def found_revision(catalog: Catalog) -> str | None:
    """The revision of the tables in the catalog; None when there are none yet.

    Raises
    ------
    CatalogError
        When the database can't be reached, or isn't a vitriflow catalog.
    """

    def look(session: OrmSession) -> str | None:
        connection = session.connection()
        revision = MigrationContext.configure(connection).get_current_revision()
        if revision is None and inspect(connection).has_table("exposure"):
            raise CatalogError(
                f"catalog {catalog.url}",
                expected="a table 'alembic_version' that tells its revision",
                found="tables without it",
                remedy="This database belongs to another program; give an empty one.",
            )
        return revision

    try:
        return catalog.read(look)
    except DBAPIError as error:
        raise CatalogError(
            f"catalog {catalog.url}",
            expected="a database that answers",
            found=str(error.orig).strip(),
            remedy="Check that the server runs, the address, the name, and the rights of the user.",
        ) from error


def upgrade(catalog: Catalog) -> None:
    """Make the tables, or bring them to this version's revision. Does nothing when they're there.

    Raises
    ------
    CatalogError
        When the catalog was made by a newer version, or can't be reached.
    """
    found = found_revision(catalog)
    _refuse_unknown(catalog, found)
    if found == newest_revision():
        return

    def change(session: OrmSession) -> None:
        config = _config()
        config.attributes["connection"] = session.connection()
        command.upgrade(config, "head")

    catalog.write(change)


def check_schema(catalog: Catalog) -> None:
    """Make sure that the tables are those that this version works with.

    Raises
    ------
    CatalogError
        With the revision found, the one expected, and what to do.
    """
    found = found_revision(catalog)
    _refuse_unknown(catalog, found)
    newest = newest_revision()
    if found != newest:
        raise CatalogError(
            f"catalog {catalog.url}",
            expected=f"tables of revision {newest}",
            found=f"revision {found}" if found else "no tables",
            remedy="Run 'vitriflow init' or start 'vitriflow run': it brings the catalog up to date.",
        )


def _refuse_unknown(catalog: Catalog, found: str | None) -> None:
    known = {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}
    if found is not None and found not in known:
        raise CatalogError(
            f"catalog {catalog.url}",
            expected=f"tables of revision {newest_revision()} or older",
            found=f"revision {found}, made by a newer vitriflow",
            remedy="Use the newer version, or give another catalog.",
        )
