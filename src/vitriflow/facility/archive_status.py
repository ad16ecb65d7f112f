"""Where sessions are: on the disk, in archives, on the way; and rules for what may leave."""

import shutil
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session as OrmSession

from vitriflow.catalog import ArchiveCopy, Catalog, FileState, Hold, Session, SessionState, SourceFile, now
from vitriflow.config import Config
from vitriflow.elogbook import find_session
from vitriflow.errors import VitriflowError
from vitriflow.facility.archive_rows import chosen_tier, copies_of
from vitriflow.facility.findings import Finding, Health
from vitriflow.storage import free_bytes, open_tier


def archive_status(catalog: Catalog, key: str | None = None) -> list[dict[str, Any]]:
    """One entry for each session, newest first: residence, copies, what goes on just now. Ready for JSON."""
    only = find_session(catalog, key).id if key is not None else None

    def work(orm: OrmSession) -> list[dict[str, Any]]:
        query = select(Session).order_by(Session.id.desc())
        if only is not None:
            query = query.where(Session.id == only)
        return [_entry(orm, session) for session in orm.scalars(query)]

    return catalog.read(work)


def _entry(orm: OrmSession, session: Session) -> dict[str, Any]:
    proved = select(func.count(), func.sum(SourceFile.size)).where(
        SourceFile.session_id == session.id, SourceFile.state == FileState.PROVED
    )
    number, size = orm.execute(proved).one()
    return {
        "session": session.key,
        "state": session.state,
        "residence": session.residence,
        "files": number,
        "bytes": int(size or 0),
        "copies": [_copy(copy) for copy in copies_of(orm, session.id)],
    }


def _copy(copy: ArchiveCopy) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "tier": copy.tier,
        "state": copy.state,
        "location": copy.location,
        "files": copy.n_files,
        "bytes": copy.n_bytes,
        "proved_at": _iso(copy.proved_at),
        "checked_at": _iso(copy.checked_at),
        "problem": copy.problem,
    }
    if copy.details.get("doing"):
        entry["progress"] = {name: copy.details.get(name) for name in ("doing", "done_bytes", "total_bytes")}
    return entry


def storage_policy(config: Config, catalog: Catalog, tier: str | None = None, hot_days: float = 30.0) -> str:
    """Rules for the storage's administrators: what of our raw files may leave the disk.

    Hot, and so kept, are sessions that aren't closed, were closed less than ``hot_days`` ago, or are held.
    """
    chosen = chosen_tier(config, tier)
    since = now() - timedelta(days=hot_days)

    def work(orm: OrmSession) -> dict[str, str]:
        held = set(orm.scalars(select(Hold.session_id).where(Hold.lifted_at.is_(None))))
        hot = {}
        for session in orm.scalars(select(Session).order_by(Session.id)):
            why = _hot(session, held, since)
            if why:
                hot[str(Path(session.root))] = f"{session.key}: {why}"
        return hot

    return chosen.policy(config.storage.root, catalog.read(work))


def _hot(session: Session, held: set[int], since: datetime) -> str:
    if session.id in held:
        return "held"
    if session.state != SessionState.CLOSED:
        return f"is {session.state}"
    if session.closed_at is None or session.closed_at > since:
        return f"was closed after {since:%Y-%m-%d}"
    return ""


def _iso(when: datetime | None) -> str | None:
    return when.isoformat() if when else None


def check_tiers(config: Config) -> Iterator[Finding]:
    """For the doctor: each archive's settings, its folder, and the programs that it's driven by."""
    for name, section in config.storage.tiers.items():
        subject = f"tier '{name}'"
        try:
            options = open_tier(name, section).options
        except VitriflowError as error:
            yield Finding(subject, Health.BAD, str(error), "Correct it in facility.toml.")
            continue
        path: Path | None = getattr(options, "path", None)
        commands = (getattr(options, one, None) for one in ("migrate", "premigrate", "recall", "state"))
        missing = [command[0] for command in commands if command and shutil.which(command[0]) is None]
        if path is not None and not path.is_dir():
            yield Finding(subject, Health.BAD, f"there's no folder {path}", "Mount the archive, or make it.")
        elif missing:
            text = f"no program {', '.join(dict.fromkeys(missing))} on this machine"
            yield Finding(subject, Health.BAD, text, "Install it, or give its whole path in facility.toml.")
        elif path is not None:
            yield Finding(subject, Health.GOOD, f"{path}, {free_bytes(path) / 1e9:.0f} GB free")
        else:
            yield Finding(subject, Health.GOOD, "its programs are there")
