"""One processing kept going: its coordinator, its RELION project, its look at the gain reference."""

import threading
from collections.abc import Callable
from concurrent.futures import Executor
from functools import partial
from typing import Any

from vitriflow.catalog import Catalog, Event, Processing, is_away, now
from vitriflow.exports import RelionProject
from vitriflow.facility.gain_check import GainWatch
from vitriflow.facility.journal import SessionJournal
from vitriflow.pipeline import Coordinator, Settings

_EXPORT_EVERY_S = 3.0
_GAIN_EVERY_S = 3.0


def present(work: Callable[[], Any]) -> bool:
    """Do something with the catalog; False when it's away just now (a server that restarts)."""
    try:
        work()
    except Exception as error:
        if not is_away(error):
            raise
        return False
    return True


class ProcessingRun:
    """Keeps one processing going in this process, on an executor that others may use too.

    Parameters
    ----------
    catalog, processing_id
        The processing, from ``start_processing``.
    executor
        Where calls run. Not shut down here.
    settings
        Of the coordinator.
    """

    def __init__(
        self, catalog: Catalog, processing_id: int, executor: Executor, settings: Settings | None = None
    ) -> None:
        self.catalog = catalog
        self.processing_id = processing_id
        self.session_id = catalog.read(lambda orm: orm.get_one(Processing, processing_id).session_id)
        self._coordinator = Coordinator(catalog, processing_id, executor, settings)
        self._over = threading.Event()  # the coordinator has ended: helpers say a last word
        self._stop: threading.Event | None = None
        self._failure: BaseException | None = None

    def wake(self) -> None:
        """Have a look at the catalog now: something was registered. Safe from any thread."""
        self._coordinator.wake()

    def run(self, stop: threading.Event, until_idle: bool = False) -> None:
        """Process until told to stop, or with ``until_idle`` until all that came in is dealt with.

        Raises
        ------
        Busy
            When another process has this processing, or has taken it over.
        """
        self._stop = stop
        helpers = [
            threading.Thread(target=self._guard, args=(self._export,), name="exporter"),
            threading.Thread(target=self._guard, args=(self._check_gain,), name="gain check"),
        ]
        for helper in helpers:
            helper.start()
        try:
            self._coordinator.run(stop, until_idle)
        finally:
            self._over.set()
            for helper in helpers:
                helper.join()
        if self._failure is not None:
            raise self._failure

    def _guard(self, work: Callable[[], None]) -> None:
        """A helper that fails ends the run with its error, never silently."""
        try:
            work()
        except BaseException as error:
            self._failure = self._failure or error
            if self._stop is not None:
                self._stop.set()
            self.wake()

    def _export(self) -> None:
        project = RelionProject(self.catalog, self.processing_id)
        journal = SessionJournal(self.catalog, self.session_id)
        told: set[str] = set()
        last = False
        while not last:
            last = self._over.wait(_EXPORT_EVERY_S)
            present(lambda: self._update_project(project, told))
            present(partial(self._update_journal, journal, told, last))

    def _update_project(self, project: RelionProject, told: set[str]) -> None:
        project.update()
        for problem in project.problems:
            if problem not in told:
                self._say("warning", f"Not in the RELION project: {problem}")
                told.add(problem)

    def _update_journal(self, journal: SessionJournal, told: set[str], last: bool) -> None:
        """Write beside the data what the catalog knows; a disk that says no costs nothing but that."""
        try:
            journal.update(sweep=last)
        except OSError as error:
            text = f"The files from which a lost catalog is made anew can't be written: {error}"
            if text not in told:
                self._say("warning", f"{text}. They catch up when that is put right.")
                told.add(text)

    def _check_gain(self) -> None:
        """Tell people about a wrong gain reference from the first movies on."""
        watch = GainWatch(self.catalog, self.processing_id)
        while not self._over.wait(_GAIN_EVERY_S):
            watch.look()
        watch.finish()

    def _say(self, severity: str, text: str) -> None:
        event = {
            "at": now(),
            "session_id": self.session_id,
            "processing_id": self.processing_id,
            "severity": severity,
            "text": text,
        }
        self.catalog.write(lambda orm: orm.add(Event(**event)))
