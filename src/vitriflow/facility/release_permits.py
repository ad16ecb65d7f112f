"""Who gets a permit: for each file on a microscope's disk, whether it may go, and why not."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any

from vitriflow.acquisition.release import Candidate, Refusal, RefusedError, check_copy, check_source
from vitriflow.catalog import Catalog, LeaseHandle
from vitriflow.config import Config
from vitriflow.facility.archive_lists import archived_files
from vitriflow.facility.release_rows import Neighbours, Refused, SessionFiles, load_files
from vitriflow.storage import SessionFolder, newest_lines


@dataclass
class DiskUse:
    """One microscope's disk: how full it is, and how full it would be (fractions)."""

    source: str
    total_bytes: int
    used: float
    used_after: float
    full: bool = False  # above the high-water mark when the round began


@dataclass
class ReleaseReport:
    """What a round removed, or would remove; and what stays, with the reason for each."""

    freed: bool = False
    files: list[dict[str, Any]] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    disks: list[DiskUse] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    resolved: int = 0  # removals that a killed process had left open

    @property
    def n_bytes(self) -> int:
        """Bytes that were or would be removed."""
        return sum(int(one["size"]) for one in self.files)

    def as_json(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "dry_run": not self.freed,
            "files": len(self.files),
            "bytes": self.n_bytes,
            "freed" if self.freed else "would_free": self.files,
            "refused": {
                "counts": dict(sorted(Counter(one.reason for one in self.refused).items())),
                "files": [asdict(one) for one in self.refused],
            },
            "disks": [asdict(one) for one in self.disks],
            "folders_removed": self.folders,
            "interrupted_resolved": self.resolved,
        }


@dataclass(frozen=True)
class Permit:
    """A file that may go, and why."""

    candidate: Candidate
    why: str
    copies: tuple[str, ...]


def examine(
    config: Config,
    catalog: Catalog,
    which: str | None,
    moment: datetime,
    rehash: bool,
    report: ReleaseReport,
    lease: LeaseHandle | None = None,
) -> list[Permit]:
    """Say for each file whether it may go; of each disk the oldest first. Fills the report.

    Parameters
    ----------
    which
        A session, a microscope, or None for all.
    moment
        What time it is on our clock.
    rehash
        Read each file again before saying yes.
    lease
        Renewed now and then, when there is one.
    """
    sessions = load_files(catalog, which)
    disks: dict[int, list[SessionFiles]] = {}
    for files in sessions:
        report.refused += files.refused
        try:
            disks.setdefault(files.source.stat().st_dev, []).append(files)
        except OSError as error:
            why = f"{files.source} can't be seen: {error.strerror}"
            report.refused += [
                Refused(files.key, one.key, Refusal.SOURCE_AWAY, why) for _, one in files.proved
            ]
    permits: list[Permit] = []
    for group in disks.values():
        permits += _Disk(config, catalog, group, moment, rehash, report, lease).permits()
    report.files = [told(permit) for permit in permits]
    return permits


class _Disk:
    """The sessions on one microscope's disk, and how far it has to be freed."""

    def __init__(
        self,
        config: Config,
        catalog: Catalog,
        sessions: Sequence[SessionFiles],
        moment: datetime,
        rehash: bool,
        report: ReleaseReport,
        lease: LeaseHandle | None,
    ) -> None:
        self._settings = config.release
        self._copies = config.release.copies or config.storage.copies
        self._catalog = catalog
        self._lease = lease
        self._sessions = {files.key: files for files in sessions}
        self._old = moment - timedelta(hours=config.release.min_age_h)
        self._rehash = rehash
        self._report = report
        where = os.statvfs(sessions[0].source)
        self._total = where.f_blocks * where.f_frsize
        self._used = self._total - where.f_bfree * where.f_frsize
        share = self._used / self._total if self._total else 0.0
        self.use = DiskUse(str(sessions[0].source), self._total, share, share)
        self.use.full = share > self._settings.high_water
        self._facts: dict[str, _Facts] = {}

    def permits(self) -> list[Permit]:
        found = []
        queue = [item for files in self._sessions.values() for item in files.proved]
        for number, (proved_at, candidate) in enumerate(sorted(queue, key=lambda item: item[0])):
            if self._lease is not None and number % 500 == 499:
                self._lease.renew(self._catalog)
            try:
                permit = self._permit(proved_at, candidate)
            except RefusedError as no:
                self._report.refused.append(
                    Refused(candidate.session, candidate.key, str(no.refusal), no.why)
                )
                continue
            found.append(permit)
            self._used -= candidate.size
        self.use.used_after = self._used / self._total if self._total else 0.0
        self._report.disks.append(self.use)
        return found

    def _permit(self, proved_at: datetime, candidate: Candidate) -> Permit:
        old = proved_at <= self._old
        full = self.use.full and self._used > self._settings.low_water * self._total
        if not old and not full:
            why = f"it was proved at {proved_at:%Y-%m-%d %H:%M} UTC, less than {self._settings.min_age_h:g} h ago"
            raise RefusedError(Refusal.TOO_YOUNG, why)
        facts = self._facts.get(candidate.session)
        if facts is None:
            files = self._sessions[candidate.session]
            facts = self._facts[candidate.session] = _Facts(self._catalog, files, self._copies)
        facts.check(candidate)
        found = check_source(candidate, rehash=self._rehash)
        if "disk" in self._copies:
            check_copy(candidate, found)
        elif candidate.kind == "movie" and candidate.decodable is not True:
            raise RefusedError(Refusal.NOT_DECODABLE, "it isn't known that its copy can be decoded")
        why = f"proved more than {self._settings.min_age_h:g} h ago" if old else "the disk is full"
        return Permit(candidate, why, self._copies)


class _Facts:
    """What has to be known of a session before its files may go: read once for all of them."""

    def __init__(self, catalog: Catalog, files: SessionFiles, copies: Sequence[str]) -> None:
        self._manifest = newest_lines(SessionFolder(files.root).manifest)
        self._neighbours = catalog.read(lambda orm: Neighbours(orm, files))
        self._tiers: Mapping[str, Mapping[str, str]] = archived_files(catalog, files.id)
        self._wanted = [name for name in copies if name != "disk"]

    def check(self, candidate: Candidate) -> None:
        line = self._manifest.get(str(candidate.destination))
        if line is None or (line.blake3, line.size) != (candidate.blake3, candidate.size):
            why = "the manifest has no line for its copy with the same size and hash"
            raise RefusedError(Refusal.NOT_IN_MANIFEST, why)
        for name in self._wanted:
            if self._tiers.get(name, {}).get(str(candidate.destination)) != candidate.blake3:
                raise RefusedError(Refusal.COPIES, f"tier '{name}' has no proved copy of it")
        needed = self._neighbours.needs(candidate)
        if needed is not None:
            raise RefusedError(Refusal.NEEDED, needed)


def told(permit: Permit) -> dict[str, Any]:
    """A permit as reports show it."""
    one = permit.candidate
    return {
        "session": one.session,
        "key": one.key,
        "size": one.size,
        "why": permit.why,
        "path": str(one.path),
    }
