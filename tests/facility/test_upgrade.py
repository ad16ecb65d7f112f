"""A new version comes while a session of the old one runs: nothing is lost, and nobody is hindered."""

import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from sqlalchemy import MetaData, Table, func, insert, inspect, select, update
from typer.testing import CliRunner

from tests.databases import empty_url, postgres
from vitriflow.catalog import (
    Catalog,
    Exposure,
    LeaseHandle,
    Measure,
    Processing,
    ResultRow,
    Session,
    Task,
    check_schema,
    found_revision,
    newest_revision,
    now,
    take_lease,
    this_owner,
    upgrade,
)
from vitriflow.catalog.schema import _config
from vitriflow.cli import app
from vitriflow.cli.options import open_catalog
from vitriflow.config import Config
from vitriflow.errors import Busy, CatalogError
from vitriflow.facility.backup import check_sqlite

__all__ = ["empty_url", "postgres"]


def upgrade_to(catalog: Catalog, revision: str) -> None:
    def change(orm: Any) -> None:
        config = _config()
        config.attributes["connection"] = orm.connection()
        command.upgrade(config, revision)

    catalog.write(change)


class OldVersion:
    """A process of the first version: it knows only the tables of its time, and writes as its engine did."""

    def __init__(self, url: str) -> None:
        self.catalog = Catalog(url)
        self.tables = MetaData()
        self.tables.reflect(self.catalog.engine)
        self.lease: LeaseHandle | None = None
        self.written = 0
        self.failure: BaseException | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work)

    def table(self, name: str) -> Table:
        return self.tables.tables[name]

    def begin(self) -> None:
        """A session in progress."""
        stamp = now()

        def work(orm: Any) -> None:
            for name, values in (
                ("microscope", {"name": "tem1", "settings": {}}),
                ("experiment", {"name": "e1", "title": "", "created_at": stamp}),
                ("sample", {"experiment_id": 1, "name": "apo", "settings": {}}),
                (
                    "session",
                    {
                        "key": "s1", "microscope_id": 1, "sample_id": 1, "state": "active", "source": "/mnt/tem1",
                        "root": "/data/s1", "settings": {"a": 1}, "survey": {}, "created_at": stamp,
                    },
                ),
                (
                    "processing",
                    {
                        "session_id": 1, "name": "live", "template": "name: quick", "parameters": {},
                        "root": "/data/s1/processed/live", "state": "running", "change": 0, "created_at": stamp,
                    },
                ),
            ):  # fmt: skip
                orm.execute(insert(self.table(name)).values(**values))

        self.catalog.write(work)
        self.lease = take_lease(self.catalog, "processing/1", this_owner("old"), 60.0)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()
        if self.lease is not None:
            self.lease.release(self.catalog)
        self.catalog.close()
        if self.failure is not None:
            raise self.failure

    def _work(self) -> None:
        try:
            while not self._stop.is_set():
                self.catalog.write(self._one)
                self.written += 1
        except BaseException as error:
            self.failure = error

    def _one(self, orm: Any) -> None:
        """One exposure from seen to done, in one transaction with the fence, as a coordinator does it."""
        assert self.lease is not None
        self.lease.fence(orm)
        stamp, key = now(), f"m{self.written}.mrc"
        exposure = self.table("exposure")
        (number,) = orm.execute(
            insert(exposure).values(
                session_id=1, key=key, item=key[:-4], path=f"/mnt/tem1/{key}", kind="movie", software="epu",
                state="complete", size=7, optics_group=1, metadata={}, first_seen_at=stamp, complete_at=stamp,
            )
        ).inserted_primary_key  # fmt: skip
        processing = self.table("processing")
        orm.execute(update(processing).values(change=processing.c.change + 1))
        orm.execute(
            insert(self.table("task")).values(
                processing_id=1, node="motion", revision=1, item_type="exposure", item_id=number, state="done",
                attempts=1,
            )
        )  # fmt: skip
        orm.execute(
            insert(self.table("result")).values(
                processing_id=1, node="motion", revision=1, item_type="exposure", item_id=number, status="done",
                record={"total_A": 1.0}, created_at=stamp,
            )
        )  # fmt: skip
        orm.execute(
            insert(self.table("measure")).values(
                processing_id=1, exposure_id=number, change=self.written, status="done", total_A=1.0
            )
        )
        orm.execute(select(exposure.c.id, exposure.c.state).where(exposure.c.id == number)).one()


@pytest.fixture
def old(empty_url: str) -> Iterator[OldVersion]:
    catalog = Catalog(empty_url)
    upgrade_to(catalog, "0001")
    catalog.close()
    version = OldVersion(empty_url)
    version.begin()
    yield version
    version.catalog.close()


def wait_for(old: OldVersion, number: int) -> None:
    waiter = threading.Event()
    for _ in range(2400):
        if old.written >= number or old.failure is not None:
            return
        waiter.wait(0.1)
    raise AssertionError("the old version came to a standstill")


def test_a_session_of_the_old_version_goes_on_while_the_catalog_is_upgraded(
    old: OldVersion, empty_url: str
) -> None:
    old.start()
    new = Catalog(empty_url)
    try:
        wait_for(old, 5)
        upgrade(new)
        assert found_revision(new) == newest_revision()
        check_schema(new)
        wait_for(old, old.written + 5)
        with pytest.raises(Busy):  # the new version doesn't take the work away from one who does it
            take_lease(new, "processing/1", "elsewhere:0:0:0", 60.0)
    finally:
        old.stop()
    counted = new.read(
        lambda orm: [
            orm.scalar(select(func.count()).select_from(m)) for m in (Exposure, Task, ResultRow, Measure)
        ]
    )
    assert counted == [old.written] * 4
    session, processing = new.read(lambda orm: (orm.get_one(Session, 1), orm.get_one(Processing, 1)))
    assert (session.mode, session.residence, session.settings) == ("in_place", "resident", {"a": 1})
    assert processing.change == old.written
    lease = take_lease(new, "processing/1", this_owner("new"), 60.0)  # now it may
    lease.release(new)
    new.close()


def test_an_old_process_that_was_replaced_can_not_write_any_more(old: OldVersion, empty_url: str) -> None:
    new = Catalog(empty_url)
    upgrade(new)
    assert old.lease is not None
    expired = now() - timedelta(seconds=1)
    new.write(lambda orm: orm.execute(update(old.table("lease")).values(expires_at=expired)))
    lease = take_lease(new, "processing/1", this_owner("new"), 60.0)
    with pytest.raises(Busy, match="taken over"):
        old.catalog.write(old._one)
    assert new.read(lambda orm: orm.scalar(select(func.count()).select_from(Exposure))) == 0
    lease.release(new)
    new.close()


def test_migrations_only_add_what_the_versions_before_need_not_know(empty_url: str) -> None:
    """That's what lets an old process go on: no table or column goes, and what comes fills itself."""
    catalog = Catalog(empty_url)
    upgrade_to(catalog, "0001")
    before = columns_of(catalog)
    upgrade(catalog)
    after = columns_of(catalog)
    for name, columns in before.items():
        for column, kind in columns.items():
            assert after[name][column]["type"] == kind["type"], f"{name}.{column}"
        for column in after[name].keys() - columns.keys():
            facts = after[name][column]
            assert facts["nullable"] or facts["default"] is not None, f"{name}.{column} can't fill itself"
    catalog.close()


def columns_of(catalog: Catalog) -> dict[str, dict[str, dict[str, Any]]]:
    seen = inspect(catalog.engine)
    return {
        name: {
            one["name"]: {"type": str(one["type"]), "nullable": one["nullable"], "default": one["default"]}
            for one in seen.get_columns(name)
        }
        for name in seen.get_table_names()
        if name != "alembic_version"
    }


def test_the_command_makes_a_backup_of_the_old_catalog_first(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'catalog.db'}"
    catalog = Catalog(url)
    upgrade_to(catalog, "0001")
    with pytest.raises(CatalogError, match="revision 0001"):
        check_schema(catalog)
    done = CliRunner().invoke(app, ["upgrade", "--out", str(tmp_path)])
    assert done.exit_code == 0, f"{done.output}{done.exception!r}"
    assert "it was 0001" in done.output
    (saved,) = (tmp_path / "backups").iterdir()
    assert check_sqlite(saved) == "0001"
    check_schema(catalog)
    again = CliRunner().invoke(app, ["upgrade", "--out", str(tmp_path)])
    assert "Backup" not in again.output
    catalog.close()


def test_a_start_of_the_new_version_saves_the_old_catalog_by_itself(tmp_path: Path) -> None:
    config = Config.model_validate({"storage": {"root": tmp_path}})
    catalog = Catalog(config.catalog_url)
    upgrade_to(catalog, "0001")
    catalog.close()
    for _ in range(2):
        open_catalog(config, create=True).close()
    (saved,) = (tmp_path / "backups").iterdir()
    assert check_sqlite(saved) == "0001"
