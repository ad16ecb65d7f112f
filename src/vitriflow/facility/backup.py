"""Copies of the catalog, made while it's in use, proved to be readable, and put back."""

import os
import re
import shutil
import sqlite3
import subprocess
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import select
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError

from vitriflow.catalog import Catalog, Lease, found_revision, newest_revision, now, upgrade
from vitriflow.config import Config
from vitriflow.errors import BadParameter, Busy, CatalogError, VitriflowError
from vitriflow.storage import sync_folder

FOLDER = "backups"
_NAME = re.compile(r"catalog-\d{8}T\d{6}Z(-\d+)?\.(db|pgdump)")


@dataclass(frozen=True)
class Backup:
    """A backup that was made and read back: its file, size (bytes), and older ones that went."""

    path: Path
    size: int
    revision: str | None
    removed: list[Path]


def make_backup(config: Config, to: Path | None = None, keep: int | None = None) -> Backup:
    """Copy the catalog while others use it.

    Parameters
    ----------
    to
        Folder; ``<storage root>/backups`` without. Better is one on another disk.
    keep
        Remove all but so many of the newest backups there, after the new one was proved.

    Raises
    ------
    CatalogError
        When there's no catalog, or its database can't be backed up from here: with what to do.
    """
    url = make_url(config.catalog_url)
    kind = url.get_backend_name()
    if kind not in ("sqlite", "postgresql"):
        raise CatalogError(
            f"catalog {url.render_as_string(hide_password=True)}",
            "SQLite or PostgreSQL",
            kind,
            "Back it up with the server's own tool, such as mariadb-dump --single-transaction.",
        )
    folder = to or config.storage.root / FOLDER
    path = _free_name(folder, "db" if kind == "sqlite" else "pgdump")
    temporary = path.with_name(f".{path.name}.partial")
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o750)
        if kind == "sqlite":
            _copy_sqlite(_sqlite_file(url), temporary)
            revision = check_sqlite(temporary)
        else:
            _dump_postgresql(url, temporary)
            revision = None
        _sync(temporary)
        temporary.rename(path)
        sync_folder(folder)
    except OSError as error:
        raise CatalogError(
            str(error.filename or folder),
            "to be written",
            error.strerror or str(error),
            "Make room, or use --to.",
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
    return Backup(path, path.stat().st_size, revision, _rotate(folder, path, keep))


def restore_backup(config: Config, file: Path) -> Path | None:
    """Put a backup of an SQLite catalog back; what is there now is kept beside it.

    Returns
    -------
    Path or None
        Where the catalog that was replaced stands now.

    Raises
    ------
    Busy
        When a process works with the catalog.
    BadParameter, CatalogError
        When the file isn't a whole backup, or the catalog isn't an SQLite file.
    """
    url = make_url(config.catalog_url)
    if url.get_backend_name() != "sqlite":
        name = url.database or "NAME"
        raise BadParameter(
            f"catalog {url.render_as_string(hide_password=True)}",
            "an SQLite file",
            url.get_backend_name(),
            f"Stop all services, then: pg_restore --clean --if-exists --no-owner --dbname={name} {file}",
        )
    if not file.is_file():
        raise BadParameter(str(file), "a backup", "no such file", "'vitriflow backup' makes them.")
    check_sqlite(file)
    target = _sqlite_file(url, must_exist=False)
    temporary = target.with_name(f".{target.name}.restoring")
    shutil.copyfile(file, temporary)
    _sync(temporary)
    kept = _set_aside(config, target) if target.exists() else None
    temporary.chmod(0o640)
    temporary.replace(target)
    sync_folder(target.parent)
    catalog = Catalog(config.catalog_url)
    try:
        upgrade(catalog)
    finally:
        catalog.close()
    return kept


def upgrade_catalog(config: Config, to: Path | None = None) -> tuple[str | None, str, Path | None]:
    """Bring the catalog's tables to this version, with a backup before when there's something to change.

    Returns
    -------
    tuple
        The revision found, the one that it has now, and the backup.
    """
    catalog = Catalog(config.catalog_url)
    try:
        found = found_revision(catalog)
        path = make_backup(config, to).path if found not in (None, newest_revision()) else None
        upgrade(catalog)
        return found, newest_revision(), path
    finally:
        catalog.close()


def backup_before_upgrade(config: Config, catalog: Catalog) -> Path | None:
    """A backup of an SQLite catalog that is about to be brought to this version; None when there's no need.

    A facility's PostgreSQL has backups of its own, and a service mustn't fail to start for want of pg_dump.
    """
    sqlite = make_url(config.catalog_url).get_backend_name() == "sqlite"
    if not sqlite or found_revision(catalog) in (None, newest_revision()):
        return None
    return make_backup(config).path


def check_sqlite(path: Path) -> str:
    """Read all of an SQLite catalog; its revision.

    Raises
    ------
    CatalogError
        When it's damaged, or no catalog.
    """
    try:
        with closing(sqlite3.connect(f"file:{_quoted(path)}?mode=ro&immutable=1", uri=True)) as database:
            said = [row[0] for row in database.execute("PRAGMA integrity_check(5)")]
            revision = database.execute("SELECT version_num FROM alembic_version").fetchone()
    except sqlite3.DatabaseError as error:
        raise CatalogError(str(path), "a whole catalog (SQLite)", str(error), _ANOTHER) from error
    if said != ["ok"] or revision is None:
        raise CatalogError(str(path), "a whole catalog", "; ".join(said)[:300], _ANOTHER)
    return str(revision[0])


_ANOTHER = "Use another backup; 'vitriflow rebuild' makes a catalog from what stands beside the data."


def _copy_sqlite(source: Path, target: Path) -> None:
    """The online backup of SQLite: one consistent state, whoever writes meanwhile."""
    target.unlink(missing_ok=True)
    with closing(sqlite3.connect(source, timeout=60)) as here, closing(sqlite3.connect(target)) as there:
        here.backup(there)
        there.execute("PRAGMA journal_mode=DELETE")  # one file, without a log beside it


def _dump_postgresql(url: URL, target: Path) -> None:
    environment = dict(os.environ)
    if url.password:
        environment["PGPASSWORD"] = str(url.password)
    command = [_program("pg_dump"), "--format=custom", "--no-owner", f"--file={target}"]
    named = (("--host", url.host), ("--port", url.port), ("--username", url.username))
    command += [f"{option}={value}" for option, value in named if value]
    _run([*command, "--no-password", str(url.database)], environment)
    listed = _run([_program("pg_restore"), "--list", str(target)], environment)
    if "alembic_version" not in listed:
        raise CatalogError(
            str(target), "a dump with the table alembic_version", "none", "Is it the right database?"
        )


def _run(command: list[str], environment: dict[str, str]) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, stdin=subprocess.DEVNULL, check=False
    )
    if done.returncode != 0:
        raise CatalogError(
            Path(command[0]).name,
            "exit code 0",
            f"{done.returncode}, saying: {done.stderr.strip()[-400:]}",
            "Its version has to be the server's or newer; name and rights are those of [catalog] url.",
        )
    return done.stdout


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        there = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda p: int(p.parts[-3]))
        found = str(there[-1]) if there else None
    if found is None:
        raise CatalogError(
            name,
            "PostgreSQL's client programs on this machine",
            "none",
            "Install them (Debian: postgresql-client), or let the database's administrators make backups.",
        )
    return found


def _sqlite_file(url: URL, must_exist: bool = True) -> Path:
    path = Path(url.database or "")
    if must_exist and not path.is_file():
        raise CatalogError(
            f"catalog {path}",
            "a file",
            "none",
            "Name the storage root with --out, or the configuration with --config.",
        )
    return path


def _set_aside(config: Config, target: Path) -> Path:
    """Move the present catalog away, with its log, when nobody works with it."""
    try:
        catalog = Catalog(config.catalog_url)
        try:
            moment = now()
            query = select(Lease.name, Lease.owner).where(Lease.expires_at > moment, Lease.owner != "")
            busy = catalog.read(lambda orm: list(orm.execute(query)))
        finally:
            catalog.close()
    except (VitriflowError, DBAPIError):  # a damaged catalog is what one restores for
        busy = []
    if busy:
        name, owner = busy[0]
        raise Busy(
            f"catalog {target}",
            "that nobody works with it",
            f"'{name}' is held by {owner.split(':')[0]}, process {owner.split(':')[2]}"
            if owner.count(":") > 2
            else f"'{name}' is held",
            "Stop all services, wait a minute, and restore again.",
        )
    kept = target.with_name(f"{target.name}.before-{_stamp()}")
    for suffix in ("", "-wal", "-shm"):
        path = target.with_name(target.name + suffix)
        if path.exists():
            path.rename(kept.with_name(kept.name + suffix))
    return kept


def _rotate(folder: Path, newest: Path, keep: int | None) -> list[Path]:
    if keep is None:
        return []
    if keep < 1:
        raise BadParameter("--keep", "1 or more", str(keep), "The newest backup always stays.")
    ours = sorted((p for p in folder.iterdir() if _NAME.fullmatch(p.name) and p.is_file()), key=_order)
    gone = [path for path in ours if path != newest][: max(0, len(ours) - keep)]
    for path in gone:
        path.unlink()
    return gone


def _order(path: Path) -> tuple[str, int]:
    stem = path.stem.split("-")
    return stem[1], int(stem[2]) if len(stem) > 2 else 0


def _free_name(folder: Path, suffix: str) -> Path:
    stamp = _stamp()
    names = (f"catalog-{stamp}{f'-{n}' if n else ''}.{suffix}" for n in range(1000))
    for name in names:
        if not (folder / name).exists():
            return folder / name
    raise VitriflowError(str(folder), "room for a name", f"1000 backups of {stamp}", "")


def _stamp() -> str:
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}"


def _quoted(path: Path) -> str:
    return quote(str(path.absolute()))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
