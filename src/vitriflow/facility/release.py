"""Frees microscopes' disks, by a permit for each file. Without being told to, it only says what it would do."""

import getpass
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from uuid import uuid4

from sqlalchemy import select, update
from sqlalchemy.orm import Session as OrmSession

from vitriflow.acquisition.release import (
    Refusal,
    RefusedError,
    finish_intent,
    remove,
    tidy_folder,
)
from vitriflow.acquisition.release_log import FREED, INTENT, KEPT, FreedLine, FreedLog
from vitriflow.acquisition.scan import ASIDE_PREFIX
from vitriflow.catalog import Catalog, Event, LeaseHandle, Session, SourceFile, now, take_lease, this_owner
from vitriflow.config import Config
from vitriflow.facility.release_permits import Permit, ReleaseReport, examine, told
from vitriflow.facility.release_rows import Refused, load_files, quiet_folders, still_free

LOG_NAME = "freed.jsonl"
_LEASE_S = 120.0
_BATCH = 64


def release_round(
    config: Config,
    catalog: Catalog,
    which: str | None = None,
    *,
    free: bool = False,
    rehash: bool = False,
    by: str | None = None,
    moment: datetime | None = None,
) -> ReleaseReport:
    """Go through the files of all sessions (or of one session or microscope) once.

    Parameters
    ----------
    free
        Remove what has a permit. Without it nothing is touched.
    rehash
        Read each file again before it's removed, and compare its hash as well.
    by
        On whose behalf, for the log; the user of this process without it.
    moment
        What time it is on our clock; for tests.

    Raises
    ------
    BadParameter
        When nothing is named ``which``.
    Busy
        When another process is freeing.
    """
    moment = moment or now()
    report = ReleaseReport(freed=free)
    if not free:
        examine(config, catalog, which, moment, rehash, report)
        return report
    lease = take_lease(catalog, "release", this_owner("release"), _LEASE_S)
    try:
        log = FreedLog(config.storage.root / LOG_NAME)
        report.resolved = _resolve(catalog, log)
        work = _Work(catalog, log, lease, by or getpass.getuser())
        permits = examine(config, catalog, which, moment, rehash, report, lease)
        work.remove_all(permits, report)
        _tidy(config, catalog, which, moment, report)
        return report
    finally:
        lease.release(catalog)


# -- removing ------------------------------------------------------------------------------


class _Work:
    """Removes files that have a permit, batch by batch: intents, removals, outcomes, catalog."""

    def __init__(self, catalog: Catalog, log: FreedLog, lease: LeaseHandle, by: str) -> None:
        self._catalog = catalog
        self._log = log
        self._lease = lease
        self._by = by

    def remove_all(self, permits: Sequence[Permit], report: ReleaseReport) -> None:
        gone: list[Permit] = []
        for start in range(0, len(permits), _BATCH):
            batch = permits[start : start + _BATCH]
            gone += self._batch(batch, report)
        self._log.settle()
        report.files = [told(permit) for permit in gone]
        missed = sum(p.candidate.size for p in permits) - sum(p.candidate.size for p in gone)
        for use in report.disks:
            use.used_after += missed / use.total_bytes if len(report.disks) == 1 and use.total_bytes else 0.0
        self._tell(gone)

    def _batch(self, permits: Sequence[Permit], report: ReleaseReport) -> list[Permit]:
        self._lease.renew(self._catalog)
        allowed = self._catalog.read(lambda orm: still_free(orm, [p.candidate for p in permits]))
        lines = []
        for permit in permits:
            if permit.candidate.id in allowed:
                lines.append((permit, self._intent(permit)))
            else:
                why = "a hold was placed on its session, or it changed, meanwhile"
                report.refused.append(
                    Refused(permit.candidate.session, permit.candidate.key, Refusal.HELD, why)
                )
        self._log.append([line for _, line in lines])
        ended: list[FreedLine] = []
        gone: list[Permit] = []
        try:
            for permit, line in lines:
                ended.append(self._remove(permit, line, report, gone))
        finally:  # also when stopped half-way: what was done is written down
            self._log.append(ended)
            _mark_freed(self._catalog, {permit.candidate.id: now() for permit in gone})
        return gone

    def _remove(
        self, permit: Permit, line: FreedLine, report: ReleaseReport, gone: list[Permit]
    ) -> FreedLine:
        try:
            remove(permit.candidate, line.aside)
        except RefusedError as no:
            report.refused.append(
                Refused(permit.candidate.session, permit.candidate.key, str(no.refusal), no.why)
            )
            return replace(line, what=KEPT, at=now().isoformat(), why=no.why)
        gone.append(permit)
        return replace(line, what=FREED, at=now().isoformat())

    def _intent(self, permit: Permit) -> FreedLine:
        one, ticket = permit.candidate, uuid4().hex
        return FreedLine(
            what=INTENT,
            ticket=ticket,
            at=now().isoformat(),
            by=self._by,
            session=one.session,
            key=one.key,
            generation=one.generation,
            path=os.fsencode(one.path).decode("utf-8", "replace"),
            aside=f"{ASIDE_PREFIX}{ticket[:12]}",
            size=one.size,
            stamp=one.stamp,
            blake3=one.blake3,
            copies=list(permit.copies),
            why=permit.why,
        )

    def _tell(self, gone: Sequence[Permit]) -> None:
        sizes: Counter[str] = Counter()
        for permit in gone:
            sizes[permit.candidate.session] += permit.candidate.size
        numbers = Counter(permit.candidate.session for permit in gone)

        def work(orm: OrmSession) -> None:
            for key, size in sizes.items():
                number = orm.scalar(select(Session.id).where(Session.key == key))
                text = f"{numbers[key]} files ({size / 1e9:.2f} GB) were removed from the microscope's disk"
                orm.add(Event(at=now(), session_id=number, text=f"{text}; see {LOG_NAME}"))

        if sizes:
            self._catalog.write(work)


def _mark_freed(catalog: Catalog, freed: Mapping[int, datetime]) -> None:
    def work(orm: OrmSession) -> None:
        for number, when in freed.items():
            orm.execute(update(SourceFile).where(SourceFile.id == number).values(freed_at=when, gone_at=None))

    if freed:
        catalog.write(work)


def _resolve(catalog: Catalog, log: FreedLog) -> int:
    """Finish what a killed process left open: in the log, on the disk and in the catalog."""
    ended: list[FreedLine] = []
    freed: dict[int, datetime] = {}
    for line in log.open_intents():
        row = catalog.read(lambda orm, line=line: _row_of(orm, line))  # type: ignore[misc]
        if row is None:
            continue
        number, source = row
        outcome = finish_intent(line, Path(source))
        if outcome is None:
            continue  # the disk is away: later
        if outcome == FREED:
            freed[number] = now()
        ended.append(replace(line, what=outcome, at=now().isoformat(), why=f"found after a stop; {line.why}"))
    log.append(ended)
    _mark_freed(catalog, freed)
    return len(ended)


def _row_of(orm: OrmSession, line: FreedLine) -> tuple[int, str] | None:
    query = (
        select(SourceFile.id, Session.source)
        .join(Session, Session.id == SourceFile.session_id)
        .where(
            Session.key == line.session,
            SourceFile.key == line.key,
            SourceFile.generation == line.generation,
        )
    )
    row = orm.execute(query).first()
    return (row[0], row[1]) if row else None


def _tidy(
    config: Config, catalog: Catalog, which: str | None, moment: datetime, report: ReleaseReport
) -> None:
    """Remove empty folders in which nothing has come for as long as a file has to be old."""
    before = moment - timedelta(hours=config.release.min_age_h)
    for files in load_files(catalog, which):
        if files.mode != "copy" or files.holds:
            continue
        for folder in quiet_folders(catalog, files.id, before):
            if tidy_folder(files.source, folder):
                report.folders.append(str(files.source / folder))
