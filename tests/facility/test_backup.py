"""The catalog is backed up while it's in use, and a backup that can't be read isn't one."""

import os
import sqlite3
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import func, select
from typer.testing import CliRunner

from tests.databases import postgres
from tests.facility.custody import Custody
from tests.servers import PostgresServer
from vitriflow.catalog import (
    Catalog,
    Event,
    SourceFile,
    newest_revision,
    now,
    take_lease,
    this_owner,
    upgrade,
)
from vitriflow.cli import app
from vitriflow.config import Config
from vitriflow.errors import BadParameter, Busy, CatalogError
from vitriflow.facility import backup as backups
from vitriflow.facility.backup import check_sqlite, make_backup, restore_backup

__all__ = ["postgres"]


@pytest.fixture
def custody(tmp_path: Path) -> Iterator[Custody]:
    made = Custody(tmp_path)
    made.fill()
    yield made
    made.catalog.close()


def test_a_backup_made_while_others_write_is_whole_and_consistent(custody: Custody) -> None:
    stop = threading.Event()

    text = "x" * 2000

    def write_pairs() -> None:  # always two at a time: a torn copy would have an odd number
        while not stop.is_set():
            custody.catalog.write(
                lambda orm: orm.add_all([Event(at=now(), text=text), Event(at=now(), text=text)])
            )

    before = custody.catalog.read(lambda orm: orm.scalar(select(func.count(Event.id)))) or 0
    writer = threading.Thread(target=write_pairs)
    writer.start()
    try:
        made = [make_backup(custody.config) for _ in range(4)]
    finally:
        stop.set()
        writer.join()
    for one in made:
        assert one.revision == newest_revision()
        with closing(sqlite3.connect(one.path)) as copy:
            (number,) = copy.execute("SELECT count(*) FROM event").fetchone()
            assert (number - before) % 2 == 0
            assert copy.execute("SELECT count(*) FROM source_file").fetchone() == (5,)
        assert sorted(path.name for path in one.path.parent.glob(f"{one.path.name}*")) == [one.path.name]


def test_old_backups_go_and_nothing_else_in_the_folder(custody: Custody, tmp_path: Path) -> None:
    folder = tmp_path / "safe"
    folder.mkdir()
    (folder / "catalog-notes.db").write_text("mine")
    (folder / "catalog-20200101T000000Z.db").write_text("an old one")
    made = [make_backup(custody.config, folder, keep=2) for _ in range(3)]
    assert made[0].removed == []
    assert made[1].removed == [folder / "catalog-20200101T000000Z.db"]
    left = {path.name for path in folder.iterdir()}
    assert left == {"catalog-notes.db", made[1].path.name, made[2].path.name}


def test_a_backup_is_restored_and_what_was_there_is_kept(custody: Custody) -> None:
    saved = make_backup(custody.config)
    custody.add("later.xml")
    custody.catalog.close()
    kept = restore_backup(custody.config, saved.path)
    assert kept is not None
    assert check_sqlite(kept) == newest_revision()
    catalog = Catalog(custody.config.catalog_url)
    assert catalog.read(lambda orm: orm.scalar(select(func.count(SourceFile.id)))) == 5
    catalog.close()


def test_a_lost_catalog_is_restored(custody: Custody) -> None:
    saved = make_backup(custody.config)
    custody.catalog.close()
    for path in custody.root.glob("catalog.db*"):
        path.unlink()
    assert restore_backup(custody.config, saved.path) is None
    assert len(custody.rows()) == 5


def test_a_damaged_catalog_does_not_hinder_its_restoring(custody: Custody) -> None:
    saved = make_backup(custody.config)
    custody.catalog.close()
    (custody.root / "catalog.db").write_bytes(b"no database " * 1000)
    kept = restore_backup(custody.config, saved.path)
    assert kept is not None
    assert kept.read_bytes().startswith(b"no database")
    assert len(custody.rows()) == 5


def test_a_catalog_in_use_is_not_replaced(custody: Custody) -> None:
    saved = make_backup(custody.config)
    lease = take_lease(custody.catalog, "session:s1", this_owner("run"), 60.0)
    with pytest.raises(Busy, match=f"process {os.getpid()}"):
        restore_backup(custody.config, saved.path)
    lease.release(custody.catalog)
    assert len(custody.rows()) == 5


@pytest.mark.parametrize("damage", ["cut", "zeroed", "other"])
def test_a_damaged_backup_is_refused_before_anything_is_touched(custody: Custody, damage: str) -> None:
    saved = make_backup(custody.config).path
    before = (custody.root / "catalog.db").stat()
    data = saved.read_bytes()
    if damage == "cut":
        saved.write_bytes(data[: len(data) // 2])
    elif damage == "zeroed":
        saved.write_bytes(data[:8192] + bytes(len(data) - 8192))
    else:
        saved.write_bytes(b"these are notes\n" * 1000)
    with pytest.raises(CatalogError, match="vitriflow rebuild"):
        restore_backup(custody.config, saved)
    after = (custody.root / "catalog.db").stat()
    assert (before.st_ino, before.st_size) == (after.st_ino, after.st_size)


def test_there_has_to_be_a_catalog(tmp_path: Path) -> None:
    config = Config.model_validate({"storage": {"root": tmp_path}})
    with pytest.raises(CatalogError, match="--config"):
        make_backup(config)
    assert list(tmp_path.iterdir()) == [tmp_path / "backups"]
    with pytest.raises(BadParameter, match="no such file"):
        restore_backup(config, tmp_path / "none.db")


def test_other_databases_are_sent_to_their_own_tools() -> None:
    config = Config.model_validate({"catalog": {"url": "mysql+pymysql://me:secret@db/vitriflow"}})
    with pytest.raises(CatalogError, match="mariadb-dump") as caught:
        make_backup(config)
    assert "secret" not in str(caught.value)


def test_missing_programs_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = Config.model_validate(
        {"catalog": {"url": "postgresql+psycopg://me@127.0.0.1:9/v"}, "storage": {"root": tmp_path}}
    )
    monkeypatch.setattr(backups.shutil, "which", lambda _name: None)
    monkeypatch.setattr(backups.Path, "glob", lambda *_: iter(()))
    with pytest.raises(CatalogError, match="postgresql-client"):
        make_backup(config)


@pytest.mark.service
def test_a_postgresql_catalog_is_dumped_checked_and_comes_back(
    postgres: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = postgres.new_database()
    config = Config.model_validate({"catalog": {"url": url}, "storage": {"root": tmp_path}})
    catalog = Catalog(url)
    upgrade(catalog)
    catalog.write(lambda orm: orm.add(Event(at=now(), text="kept")))
    made = make_backup(config)
    assert made.path.suffix == ".pgdump"
    catalog.write(lambda orm: orm.add(Event(at=now(), text="lost")))
    catalog.close()
    with pytest.raises(BadParameter, match="pg_restore --clean") as caught:
        restore_backup(config, made.path)
    assert postgres.password not in str(caught.value)
    database = url.rpartition("/")[2]
    subprocess.run(
        [
            str(postgres.programs / "pg_restore"), "--clean", "--if-exists", "--no-owner", "--host=127.0.0.1",
            f"--port={postgres.port}", "--username=vitriflow", f"--dbname={database}", str(made.path),
        ],
        env={**os.environ, "PGPASSWORD": postgres.password},
        check=True,
    )  # fmt: skip
    catalog = Catalog(url)
    assert list(catalog.read(lambda orm: list(orm.scalars(select(Event.text))))) == ["kept"]
    catalog.close()
    wrong = config.model_copy(update={"catalog": config.catalog.model_copy(update={"url": url + "gone"})})
    with pytest.raises(CatalogError, match=r"pg_dump.*does not exist"):
        make_backup(wrong)
    assert not list((tmp_path / "backups").glob(".*"))


def test_the_commands_say_what_they_did(custody: Custody) -> None:
    out = ["--out", str(custody.root)]
    done = CliRunner().invoke(app, ["backup", "--keep", "1", *out])
    assert done.exit_code == 0, done.output
    assert "read back" in done.output
    (path,) = (custody.root / "backups").iterdir()
    assert "is at revision" in CliRunner().invoke(app, ["upgrade", *out]).output
    custody.catalog.close()
    assert "Restored" in CliRunner().invoke(app, ["backup", "--restore", str(path), *out]).output
