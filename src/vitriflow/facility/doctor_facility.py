"""``vitriflow doctor --facility``: one machine's checks, and those of what a facility shares."""

import os
import socket
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from sqlalchemy import text

from vitriflow.catalog import Catalog
from vitriflow.config import Config
from vitriflow.errors import VitriflowError
from vitriflow.facility.doctor import examine
from vitriflow.facility.doctor_programs import check_programs
from vitriflow.facility.findings import Finding, Health

T = TypeVar("T")
_SLOW_MS = 20.0  # a round trip to the database above which pages feel it
_APART_S = 2.0  # clocks
_ANSWER_S = 10.0
_NETWORKS = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "lustre", "gpfs", "beegfs", "ceph", "fuse.glusterfs", "wekafs"}
)


def examine_facility(config: Config) -> Iterator[Finding]:
    """All checks: this machine, microscopes, archives, Airflow, queues; then database, shares, programs, logs."""
    yield from examine(config)
    for check in (check_database, check_shares, check_programs, check_collector):
        yield from check(config)


def check_database(config: Config) -> Iterator[Finding]:
    """Server, round trip, clock, and whether the kind of database fits what shares it."""
    url = config.catalog_url
    if url.startswith("sqlite"):
        yield from _sqlite(config, Path(url.removeprefix("sqlite:///")))
        return
    try:
        catalog = Catalog(url)
    except VitriflowError as error:
        yield Finding("database", Health.BAD, str(error), error.remedy)
        return
    try:
        yield from _server(catalog)
    except Exception as error:  # any driver's own error: the doctor must go on
        first = str(error).strip().splitlines()[0]
        yield Finding("database", Health.BAD, f"{catalog.url}: {first}", _start(url))
    finally:
        catalog.close()


def _start(url: str) -> str:
    server = "PostgreSQL" if url.startswith("postgresql") else "MariaDB"
    return f"Start {server}, and check host, user and password of catalog.url in facility.toml."


def _server(catalog: Catalog) -> Iterator[Finding]:
    with catalog.engine.connect() as connection:
        version = str(connection.execute(text("SELECT version()")).scalar()).split(" on ")[0].split(",")[0]
        trips = []
        for _ in range(5):
            started = time.perf_counter()
            connection.execute(text("SELECT 1")).scalar()
            trips.append(1000.0 * (time.perf_counter() - started))
        theirs = connection.execute(text("SELECT CURRENT_TIMESTAMP")).scalar()
    trip = statistics.median(trips)
    said = f"{version}, {trip:.1f} ms a round trip, at {catalog.url}"
    if trip > _SLOW_MS:
        yield Finding("database", Health.NOTE, said, "Put it nearer: each page asks a dozen times.")
    else:
        yield Finding("database", Health.GOOD, said)
    if isinstance(theirs, datetime) and theirs.tzinfo is not None:
        apart = abs((datetime.now(UTC) - theirs).total_seconds())
        if apart > _APART_S:
            text_ = f"the database's clock is {apart:.0f} s off this machine's"
            yield Finding("clocks", Health.BAD, text_, "Run chrony or ntpd on both: leases go by the clock.")


def _sqlite(config: Config, path: Path) -> Iterator[Finding]:
    shared = [name for name, pool in config.compute.pools.items() if pool.kind != "local"]
    kind = _kind_of(path.parent)
    if kind in _NETWORKS:
        yield Finding(
            "database",
            Health.BAD,
            f"SQLite at {path} lies on {kind}: its locks don't hold there",
            "Set catalog.url to a PostgreSQL server, or to a file on a local disk.",
        )
    elif shared or config.airflow.conducts:
        why = "Airflow conducts" if config.airflow.conducts else f"pools {', '.join(shared)}"
        yield Finding(
            "database",
            Health.NOTE,
            f"SQLite at {path} serves this machine alone ({why})",
            "Fine while all services run here; for several machines set catalog.url to PostgreSQL.",
        )
    else:
        yield Finding("database", Health.GOOD, f"SQLite at {path}: one machine")


def _kind_of(folder: Path) -> str:
    """Type of the file system that a folder lies on, as /proc/mounts says."""
    best = ("", "")
    folder = Path(os.path.realpath(folder))
    try:
        mounts = Path("/proc/mounts").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    for line in mounts.splitlines():
        words = line.split()
        if len(words) < 3:
            continue
        place = words[1].encode().decode("unicode_escape")
        if folder.is_relative_to(place) and len(place) >= len(best[0]):
            best = (place, words[2])
    return best[1]


def check_shares(config: Config) -> Iterator[Finding]:
    """Folders that other machines see too: there, answering, and writable where they have to be."""
    folders = {"storage.root": config.storage.root}
    folders |= {f"compute.pools.{name}.scratch": pool.scratch for name, pool in config.compute.pools.items()}
    if config.programs.folder is not None:
        folders["programs.folder"] = config.programs.folder
    for name, folder in folders.items():
        yield _share(name, folder, writes=name != "programs.folder")


def _share(name: str, folder: Path, *, writes: bool) -> Finding:
    subject = f"share {name}"
    started = time.monotonic()
    state = answer_in_time(lambda: _state(folder, writes))
    if state is None:
        text_ = f"{folder} doesn't answer within {_ANSWER_S:g} s"
        return Finding(subject, Health.BAD, text_, "The share hangs: check its server and the network.")
    kind = _kind_of(folder) if state == "" else ""
    if state:
        remedy = "Make it, mount it ('findmnt' shows what is), and give this user the right to it."
        return Finding(subject, Health.BAD, f"{folder}: {state}", remedy)
    took = 1000.0 * (time.monotonic() - started)
    return Finding(
        subject, Health.GOOD, f"{folder} on {kind or 'an unknown file system'}, answers in {took:.0f} ms"
    )


def _state(folder: Path, writes: bool) -> str:
    """What's wrong with a folder; empty when nothing is."""
    try:
        next(os.scandir(folder), None)
    except OSError as error:
        return error.strerror or str(error)
    if not os.access(folder, os.W_OK if writes else os.R_OK):
        return "this user may not write there" if writes else "this user may not read it"
    return ""


def check_collector(config: Config) -> Iterator[Finding]:
    """Whether the log collector is there."""
    address = config.logs.syslog
    if address is None:
        return
    try:
        _reach(address)
    except OSError as error:
        yield Finding(
            "log collector",
            Health.BAD,
            f"{address}: {error.strerror or error}",
            "Start it, or correct logs.syslog in facility.toml; work goes on without it.",
        )
    else:
        sure = "answers" if address.startswith("tcp") else "has an address; UDP says no more"
        yield Finding("log collector", Health.GOOD, f"{address} {sure}")


def _reach(address: str) -> None:
    if address.startswith("/"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as local:
            local.connect(address)
        return
    parts = urlsplit(address)
    host, tcp = str(parts.hostname), parts.scheme == "tcp"
    if tcp:
        socket.create_connection((host, parts.port or 601), timeout=5.0).close()
    else:
        socket.getaddrinfo(host, parts.port or 514, type=socket.SOCK_DGRAM)


def answer_in_time(work: Callable[[], T], seconds: float = _ANSWER_S) -> T | None:
    """Ask in a thread, since a share that hangs would hold us up; None when there's no answer in time."""
    found: list[T] = []
    thread = threading.Thread(target=lambda: found.append(work()), daemon=True)
    thread.start()
    thread.join(seconds)
    return found[0] if found else None
