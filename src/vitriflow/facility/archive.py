"""Archives sessions, takes them off the disk, and brings them back: each file proved on every way."""

import getpass
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session as OrmSession

from vitriflow.catalog import ArchiveCopy, Catalog, Event, Session, SessionState, now
from vitriflow.config import Config
from vitriflow.elogbook import find_session, write_session_record
from vitriflow.errors import BadParameter, Busy, VitriflowError
from vitriflow.facility.archive_lists import archived_files, read_list, write_list
from vitriflow.facility.archive_rows import (
    Meter,
    Watcher,
    begin_copy,
    change_copy,
    chosen_tier,
    copies_of,
    held,
    missing_from,
    open_tasks,
    place_of,
    raw_files,
    unproved,
)
from vitriflow.facility.journal import EXPOSURES, SMALL, SessionJournal
from vitriflow.facility.release_rows import open_holds
from vitriflow.storage import ArchiveError, ArchiveFile, ArchiveJob, SessionFolder, Tier, open_tier, sums_text

RESIDENT, ARCHIVED, BOTH = "resident", "archived", "both"


def archive_session(
    config: Config, catalog: Catalog, key: str, tier: str | None = None, watch: Watcher | None = None
) -> dict[str, Any]:
    """Copy what of a session is proved and not yet in the archive, and prove it there.

    An interrupted copy goes on. A session that still collects can be archived too: what comes
    later goes into another copy.

    Raises
    ------
    BadParameter
        When there's no such session or tier, or nothing to archive.
    Busy
        When another process archives or recalls this session.
    ArchiveError
        When a file changed, or the copy can't be proved.
    """
    chosen, session = chosen_tier(config, tier), find_session(catalog, key)
    with held(catalog, key):
        files, coming = catalog.read(lambda orm: (raw_files(orm, session.id), unproved(orm, session.id)))
        if not files:
            raise BadParameter(
                f"session '{key}'",
                "proved files to archive",
                f"none ({coming} on their way)" if coming else "none",
                "Wait until they're proved; 'vitriflow status' says how far it is.",
            )
        known = dict(archived_files(catalog, session.id).get(chosen.name, {}))
        wanted = missing_from(known, files)
        if wanted:
            known |= _write_copy(config, catalog, session, chosen, wanted, watch)
        left = missing_from(known, files)
        residence = note_residence(catalog, session)
    return {
        "session": key,
        "tier": chosen.name,
        "files": len(wanted) - len(left),
        "bytes": sum(file.size for file in wanted) - sum(file.size for file in left),
        "already": len(files) - len(wanted),
        "not_yet_proved": coming + len(left),
        "residence": residence,
    }


def _write_copy(
    config: Config,
    catalog: Catalog,
    session: Session,
    tier: Tier,
    files: list[ArchiveFile],
    watch: Watcher | None,
) -> dict[str, str]:
    copy_id = begin_copy(catalog, session, tier.name)
    home = SessionFolder(Path(session.root))
    write_session_record(catalog, session.key, home.record)
    SessionJournal(catalog, session.id).update(sweep=True)
    kept = (home.record, home.manifest, home.root / SMALL, home.root / EXPOSURES)
    records = {path.name: path.read_bytes() for path in kept if path.is_file()}
    job = ArchiveJob(home.root, place_of(config, session), f"copy-{copy_id:04}", files, records)
    total = sum(file.size for file in files)
    try:
        made = tier.write(job, Meter(catalog, copy_id, total, watch))
        listed = {file.path: file.blake3 for file in made.files}
        digest = write_list(home.root, tier.name, copy_id, sums_text(listed))
    except VitriflowError as error:
        text = str(error)
        catalog.write(lambda orm: _fail(orm, copy_id, session.id, text))
        raise

    def work(orm: OrmSession) -> None:
        change_copy(
            orm,
            copy_id,
            state="proved",
            location=made.location,
            n_files=len(made.files),
            n_bytes=sum(file.size for file in made.files),
            manifest_blake3=digest,
            problem=None,
            proved_at=now(),
            checked_at=now(),
            details={**made.details, "doing": None},
        )
        _say(
            orm, session.id, f"{len(made.files)} files archived in '{tier.name}' and proved: {made.location}"
        )

    catalog.write(work)
    return listed


def verify_archive(
    catalog: Catalog, config: Config, key: str, tier: str | None = None, watch: Watcher | None = None
) -> dict[str, Any]:
    """Read a session's copies in an archive again, and compare every file.

    Raises
    ------
    BadParameter
        When there's no copy.
    ArchiveError
        When one isn't whole; its row says so, and it doesn't count as a copy any more.
    """
    session = find_session(catalog, key)
    with held(catalog, key):
        copies = _proved(catalog, session, tier)
        for copy in copies:
            chosen = _tier_of(config, copy)
            files = _files_of(catalog, session, copy)
            try:
                meter = Meter(catalog, copy.id, copy.n_bytes, watch)
                chosen.verify(copy.location, Path(session.root), files, meter)
            except ArchiveError as error:
                _note_broken(catalog, copy, str(error))
                note_residence(catalog, session)
                raise
            _note_checked(catalog, copy)
    return {
        "session": key,
        "copies": len(copies),
        "files": sum(copy.n_files for copy in copies),
        "proved": True,
    }


def remove_from_disk(
    config: Config,
    catalog: Catalog,
    key: str,
    tier: str | None = None,
    watch: Watcher | None = None,
    by: str | None = None,
) -> dict[str, Any]:
    """Take a session's raw files off the disk; what was processed stays.

    Raises
    ------
    Busy
        When it's held, still collecting or being processed: with what has to happen first.
    ArchiveError, BadParameter
        When not every file has a proved copy in every archive that the policy names.
    """
    session = find_session(catalog, key)
    with held(catalog, key):
        files = _may_go(config, catalog, session, tier)
        chosen = _leaving_by(config, catalog, session, tier)
        root = Path(session.root)
        for copy in _proved(catalog, session, None):
            there = _tier_of(config, copy)
            there.check_present(copy.location, root, _files_of(catalog, session, copy))
        _refuse_holds(catalog, session)  # the archive may have taken its time to answer
        total = sum(file.size for file in files)
        chosen.vacate(root, files, Meter(catalog, None, total, watch))
        who = by or getpass.getuser()
        text = f"{len(files)} raw files ({total / 1e9:.2f} GB) were taken off the disk by {who}"
        catalog.write(lambda orm: _say(orm, session.id, f"{text}; they are archived"))
        residence = note_residence(catalog, session, gone=True)
    return {"session": key, "files": len(files), "bytes": total, "residence": residence}


def recall_session(
    config: Config, catalog: Catalog, key: str, tier: str | None = None, watch: Watcher | None = None
) -> dict[str, Any]:
    """Bring a session's raw files back to the disk, each proved before it gets its name.

    Raises
    ------
    BadParameter
        When there's no proved copy.
    ArchiveError
        When the archive's copy is damaged; nothing of it is put on the disk.
    """
    session = find_session(catalog, key)
    with held(catalog, key):
        copies = _proved(catalog, session, tier)
        files: dict[str, ArchiveFile] = {}
        for copy in copies:
            mine = {file.path: file for file in _files_of(catalog, session, copy) if file.path not in files}
            files |= mine
            meter = Meter(catalog, copy.id, sum(file.size for file in mine.values()), watch)
            _recall_copy(catalog, session, _tier_of(config, copy), copy, list(mine.values()), meter)
        total = sum(file.size for file in files.values())
        text = f"{len(files)} raw files ({total / 1e9:.2f} GB) are back on the disk, and proved"
        catalog.write(lambda orm: _say(orm, session.id, text))
        residence = note_residence(catalog, session)
    return {"session": key, "files": len(files), "bytes": total, "residence": residence}


def _recall_copy(
    catalog: Catalog,
    session: Session,
    tier: Tier,
    copy: ArchiveCopy,
    files: list[ArchiveFile],
    meter: Meter,
) -> None:
    catalog.write(lambda orm: change_copy(orm, copy.id, state="recalling"))
    try:
        tier.recall(copy.location, Path(session.root), files, meter)
    except VitriflowError as error:
        text = str(error)
        catalog.write(lambda orm: _say(orm, session.id, f"Recall failed: {text}", "alarm"))
        raise
    finally:  # it stays a copy; a damaged one is told, and found by --verify
        catalog.write(lambda orm: change_copy(orm, copy.id, state="proved", details={"doing": None}))


# -- conditions ----------------------------------------------------------------------------


def _may_go(config: Config, catalog: Catalog, session: Session, tier: str | None) -> list[ArchiveFile]:
    _refuse_holds(catalog, session)
    busy = catalog.read(
        lambda orm: (
            orm.get_one(Session, session.id).state,
            unproved(orm, session.id),
            open_tasks(orm, session.id),
        )
    )
    reasons = [
        text
        for wrong, text in (
            (busy[0] == SessionState.ACTIVE, "it's active"),
            (busy[1], f"{busy[1]} of its files aren't proved yet"),
            (busy[2], f"{busy[2]} tasks of its processing are open"),
        )
        if wrong
    ]
    if reasons:
        raise Busy(
            f"session '{session.key}'", "one that has come to rest", "; ".join(reasons), "Close it, and wait."
        )
    files = catalog.read(lambda orm: raw_files(orm, session.id))
    if not files:
        raise BadParameter(f"session '{session.key}'", "raw files", "none", "There's nothing to remove.")
    archived = archived_files(catalog, session.id)
    policy = {name for name in config.storage.copies if name != "disk"} | ({tier} if tier else set())
    for name in sorted(policy or {chosen_tier(config, tier).name}):
        left = missing_from(dict(archived.get(name, {})), files)
        if left:
            raise ArchiveError(
                f"session '{session.key}'",
                f"a proved copy of all {len(files)} files in tier '{name}'",
                f"{len(left)} without, such as {left[0].path}",
                f"Archive it first: vitriflow archive {session.key} --tier {name}",
            )
    return files


def _refuse_holds(catalog: Catalog, session: Session) -> None:
    holds = catalog.read(lambda orm: open_holds(orm, session.id))
    if holds:
        raise Busy(
            f"session '{session.key}'",
            "one that nobody holds",
            f"held: {'; '.join(holds)}",
            f"Ask them; then: vitriflow hold {session.key} --lift",
        )


def _leaving_by(config: Config, catalog: Catalog, session: Session, tier: str | None) -> Tier:
    """The tier that frees the disk: one that leaves stubs goes before plain removal."""
    names = {copy.tier for copy in _proved(catalog, session, tier)}
    tiers = [
        open_tier(name, config.storage.tiers[name]) for name in sorted(names & config.storage.tiers.keys())
    ]
    stubs = next((one for one in tiers if one.stays_visible), None)
    if stubs is not None:
        return stubs
    if session.mode != "copy":
        raise BadParameter(
            f"session '{session.key}'",
            "a session whose files were copied here",
            "one whose files are where the microscope wrote them",
            "Files in place are never removed; an hsm tier without a path can move them to tape.",
        )
    return tiers[0]


def _proved(catalog: Catalog, session: Session, tier: str | None) -> list[ArchiveCopy]:
    found = catalog.read(lambda orm: copies_of(orm, session.id, tier))
    found = [copy for copy in found if copy.proved_at is not None and copy.state in ("proved", "recalling")]
    if not found:
        where = f" in tier '{tier}'" if tier else ""
        raise BadParameter(
            f"session '{session.key}'",
            f"a proved copy{where}",
            "none",
            f"Make one: vitriflow archive {session.key}",
        )
    return found


def _tier_of(config: Config, copy: ArchiveCopy) -> Tier:
    return chosen_tier(config, copy.tier)


def _files_of(catalog: Catalog, session: Session, copy: ArchiveCopy) -> list[ArchiveFile]:
    listed = read_list(Path(session.root), copy)
    sizes = {file.path: file.size for file in catalog.read(lambda orm: raw_files(orm, session.id))}
    return [ArchiveFile(path, sizes.get(path, 0), digest) for path, digest in listed.items()]


# -- what is noted -------------------------------------------------------------------------


def note_residence(catalog: Catalog, session: Session, gone: bool = False) -> str:
    """Work out where a session's raw files are, and write it down: resident, archived or both."""
    files = catalog.read(lambda orm: raw_files(orm, session.id))
    archived = [
        not missing_from(dict(known), files) for known in archived_files(catalog, session.id).values()
    ]
    root = Path(session.root)
    on_disk = not gone and all((root / file.path).exists() for file in files)
    residence = (BOTH if on_disk else ARCHIVED) if any(archived) else RESIDENT

    def work(orm: OrmSession) -> None:
        orm.scalars(select(Session).where(Session.id == session.id)).one().residence = residence

    catalog.write(work)
    write_session_record(catalog, session.key, SessionFolder(root).record)
    return residence


def _note_broken(catalog: Catalog, copy: ArchiveCopy, text: str) -> None:
    catalog.write(lambda orm: _fail(orm, copy.id, copy.session_id, text, "broken"))


def _note_checked(catalog: Catalog, copy: ArchiveCopy) -> None:
    catalog.write(lambda orm: change_copy(orm, copy.id, checked_at=now(), details={"doing": None}))


def _fail(orm: OrmSession, copy_id: int, session_id: int, text: str, state: str = "failed") -> None:
    change_copy(orm, copy_id, state=state, problem=text, details={"doing": None})
    _say(orm, session_id, f"Archiving failed: {text}", "alarm")


def _say(orm: OrmSession, session_id: int, text: str, severity: str = "info") -> None:
    orm.add(Event(at=now(), session_id=session_id, severity=severity, text=text))
