"""Takes one session in: its source is watched, its files copied (or hashed in place), proved and recorded.

``vitriflow run`` and the service ``vitriflow acquire`` both use it, so there's one way in.
"""

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from vitriflow.acquisition import Intake, LookReport, ProvedFile, Transfer, file_counts
from vitriflow.catalog import (
    Catalog,
    FileState,
    LeaseHandle,
    Microscope,
    Session,
    is_away,
    take_lease,
    this_owner,
)
from vitriflow.config import Config, MicroscopeSection
from vitriflow.errors import Busy
from vitriflow.facility.acquire.software import SoftwareWatch
from vitriflow.facility.journal import SessionJournal
from vitriflow.storage import Manifest, ManifestLine, SessionFolder, make_session_folder

LEASE_S = 15.0
_NUMBERS = count(1)  # two in one process are two owners


@dataclass(frozen=True)
class AcquireReport:
    """How far a session's acquisition is after one look."""

    look: LookReport = field(default_factory=LookReport)
    files: dict[str, int] = field(default_factory=dict)  # files by state: they add up to those seen
    held: str | None = None  # why nothing is copied just now (share gone, destination full ...)
    away: bool = False  # the catalog couldn't be reached


class SessionAcquisition:
    """The acquisition of one session by this process, in the session's own mode.

    Parameters
    ----------
    config, catalog
        Of this facility.
    session_id
        Whose source is watched. Its row says where it is, where it goes, and by which mode.
    item
        What its exposures are: ``movie`` or ``micrograph``.
    lease
        The lease ``session:KEY`` when the caller holds it; without one it's taken here, and
        given back by :meth:`close`.
    on_news
        Called from this class's threads after exposures became ready for processing or a problem.

    Raises
    ------
    Busy
        When another process takes this session in.
    VitriflowError
        When the session's folders can't be made.
    """

    def __init__(
        self,
        config: Config,
        catalog: Catalog,
        session_id: int,
        *,
        item: str = "movie",
        lease: LeaseHandle | None = None,
        on_news: Callable[[], None] | None = None,
    ) -> None:
        self.config = config
        self.catalog = catalog
        self.item = item
        self.session = catalog.read(lambda orm: orm.get_one(Session, session_id))
        self.folder = SessionFolder(Path(self.session.root))
        self.source = Path(self.session.source)
        self._on_news = on_news or (lambda: None)
        self._own = lease is None
        self.lease = lease or take_lease(
            catalog, f"session:{self.session.key}", this_owner(f"acquire{next(_NUMBERS)}"), LEASE_S
        )
        self._intake: Intake | None = None
        self._transfer: Transfer | None = None
        self._look = LookReport()
        self._looked = False
        self._journal = SessionJournal(catalog, session_id)
        self._microscope = catalog.read(lambda orm: orm.get_one(Microscope, self.session.microscope_id).name)
        self._scope = config.microscopes.get(self._microscope, MicroscopeSection())
        self._software = SoftwareWatch(catalog, session_id, self._microscope, self._scope.software)
        try:
            make_session_folder(self.folder, self.source, self.session.mode)
            self._manifest = Manifest(self.folder.manifest)
        except BaseException:
            self.close()
            raise

    def look(self) -> AcquireReport:
        """Look once at the source, and hand on what is whole. ``away`` when the catalog is."""
        try:
            if self._intake is None:
                self._intake = self._make_intake()
                if self.session.mode == "copy" and self._transfer is None:
                    self._transfer = self._make_transfer()
                    self._transfer.start()
            self._look = look = self._intake.look()
            self.lease.renew(self.catalog)
            self._follow()
            if look.completed or not self._looked:
                self._software.look()
                self._looked = True
            report = AcquireReport(look, file_counts(self.catalog, self.session.id), self._held())
        except Exception as error:
            if not is_away(error):
                raise
            self._intake, self._looked = None, False  # what it noted may not have been written
            return AcquireReport(away=True)
        if look.completed or look.problems:
            self._on_news()
        if self._transfer is not None:
            self._transfer.check()
            if look.queued:
                self._transfer.wake()
        return report

    def run(self, stop: threading.Event, on_report: Callable[[AcquireReport], None] | None = None) -> None:
        """Look again and again until stopped; ``on_report`` is told after each look. Stops copying at the end."""
        ended = threading.Event()
        keeper = threading.Thread(target=self._keep_lease, args=(ended,), daemon=True)
        keeper.start()
        try:
            while not stop.is_set():
                report = self.look()
                if on_report is not None:
                    on_report(report)
                stop.wait(self.config.acquisition.scan_interval_s)
        finally:
            ended.set()
            self._end_transfer()
            keeper.join(LEASE_S)

    def settled(self) -> bool:
        """Whether every file that the last look found is proved or a problem."""
        if self._intake is None or not self._looked:
            return False
        if self._look.waiting or self._look.settling or self._look.lost:
            return False
        if self._transfer is not None and not self._transfer.is_idle:
            return False
        waiting = (FileState.COMPLETE, FileState.COPIED)
        found = file_counts(self.catalog, self.session.id)
        return not any(found.get(state) for state in waiting)

    def close(self) -> None:
        """Stop copying and give the lease back, if it was taken here."""
        self._end_transfer()
        if self._own:
            self.lease.release(self.catalog)

    # -- the parts ----------------------------------------------------------------------------

    def _make_intake(self) -> Intake:
        settings = self.config.acquisition
        return Intake(
            self.catalog,
            self.session.id,
            self.source,
            kind=self.item,
            quiet_s=settings.quiet_s,
            patience_s=settings.patience_s,
            mode=self.session.mode,
            record=self._record,
            is_moving=lambda key: self._transfer is not None and self._transfer.is_moving(key),
            fence=self.lease.fence,
            drives=self._scope.drives,
        )

    def _make_transfer(self) -> Transfer:
        settings = self.config.acquisition
        caps = [settings.bandwidth_bytes_per_s, self._scope.limits.copy_bytes_per_s]
        return Transfer(
            self.catalog,
            self.session.id,
            self.source,
            self.folder.root,
            parallel=settings.parallel_copies,
            bandwidth_bytes_per_s=min((cap for cap in caps if cap), default=None),
            record=self._record,
            fence=self.lease.fence,
            on_news=self._on_news,
            on_doubt=self._doubt,
        )

    def _keep_lease(self, ended: threading.Event) -> None:
        """Renew the lease however long a look takes; one that was lost stops the next look."""
        while not ended.wait(LEASE_S / 5.0):
            try:
                self.lease.renew(self.catalog)
            except Busy:
                return  # the next look finds out too, and ends with this error
            except Exception as error:
                if not is_away(error):
                    raise

    def _end_transfer(self) -> None:
        transfer, self._transfer = self._transfer, None
        if transfer is not None:
            transfer.stop()
            transfer.check()

    def _follow(self) -> None:
        with suppress(OSError):  # it catches up at a later look
            self._journal.follow()

    def _held(self) -> str | None:
        return self._transfer.held if self._transfer is not None else None

    def _doubt(self, key: str) -> None:
        if self._intake is not None:
            self._intake.scanner.doubt(key)

    def _record(self, files: Sequence[ProvedFile]) -> None:
        """Write proved files to the manifest, synced, before the catalog says so."""
        self._manifest.append([_line(file) for file in files])


def _line(file: ProvedFile) -> ManifestLine:
    return ManifestLine(
        path=file.destination,
        size=file.size,
        blake3=file.blake3,
        proved_at=file.proved_at.isoformat(timespec="milliseconds"),
        mode=file.mode,
        method=file.method,
        source=file.key,
        generation=file.generation,
        kind=file.kind,
        software=file.software,
        stamp=file.stamp,
    )
