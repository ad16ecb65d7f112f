"""Takes one session in: its source is watched, its files copied (or hashed in place), proved and recorded.

``vitriflow run`` and the service ``vitriflow acquire`` both use it, so there's one way in.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from vitriflow.acquisition import Intake, LookReport
from vitriflow.catalog import Catalog, LeaseHandle, Session, is_away, take_lease, this_owner
from vitriflow.config import Config
from vitriflow.storage import SessionFolder, make_session_folder

LEASE_S = 15.0


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
            catalog, f"session:{self.session.key}", this_owner("acquire"), LEASE_S
        )
        self._intake: Intake | None = None
        try:
            make_session_folder(self.folder, self.source, self.session.mode)
        except BaseException:
            self.close()
            raise

    def look(self) -> AcquireReport:
        """Look once at the source, and hand on what is whole. ``away`` when the catalog is."""
        try:
            if self._intake is None:
                self._intake = self._make_intake()
            look = self._intake.look()
            self.lease.renew(self.catalog)
        except Exception as error:
            if not is_away(error):
                raise
            self._intake = None  # what it noted may not have been written
            return AcquireReport(away=True)
        if look.completed or look.problems:
            self._on_news()
        return AcquireReport(look)

    def run(self, stop: threading.Event, on_report: Callable[[AcquireReport], None] | None = None) -> None:
        """Look again and again until stopped; ``on_report`` is told after each look."""
        while not stop.is_set():
            report = self.look()
            if on_report is not None:
                on_report(report)
            stop.wait(self.config.acquisition.scan_interval_s)

    def settled(self) -> bool:
        """Whether every file that was seen whole is proved or a problem."""
        return True

    def close(self) -> None:
        """Stop copying and give the lease back, if it was taken here."""
        if self._own:
            self.lease.release(self.catalog)

    def _make_intake(self) -> Intake:
        settings = self.config.acquisition
        return Intake(
            self.catalog,
            self.session.id,
            self.source,
            kind=self.item,
            quiet_s=settings.quiet_s,
            patience_s=settings.patience_s,
        )
