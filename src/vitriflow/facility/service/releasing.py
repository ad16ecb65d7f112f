"""Frees the disks of the microscopes that a node holds, now and then, where the facility wants that."""

import logging
import threading
from collections.abc import Callable
from functools import partial

from vitriflow.catalog import Catalog, Event, is_away, now
from vitriflow.config import Config
from vitriflow.errors import BadParameter, Busy
from vitriflow.facility.processing_run import present
from vitriflow.facility.release import release_round

_log = logging.getLogger(__name__)


class ReleaseKeeper:
    """A thread with a round of release every ``[release] interval_s``; does nothing unless ``automatic`` is set.

    Parameters
    ----------
    config, catalog
        Of this facility.
    held
        Asked before each round: the microscopes that this node holds.
    """

    def __init__(self, config: Config, catalog: Catalog, held: Callable[[], list[str]]) -> None:
        self._config = config
        self._catalog = catalog
        self._held = held
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="release", daemon=True)
        self._told = ""

    def start(self) -> None:
        """Begin, where the facility wants it."""
        if self._config.release.automatic:
            self._thread.start()

    def stop(self) -> None:
        """End after the file in hand; a round that was cut short is settled by the next."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join(10.0)

    def _run(self) -> None:
        while not self._over.wait(self._config.release.interval_s):
            for name in self._held():
                self._round(name)

    def _round(self, name: str) -> None:
        try:
            release_round(self._config, self._catalog, name, free=True, by="vitriflow acquire")
        except (Busy, BadParameter):
            return  # somebody frees by hand just now; or this microscope has had no session yet
        except Exception as error:
            if is_away(error):
                return
            _log.exception("the disk of %s can't be freed", name)
            if str(error) != self._told:
                self._told = str(error)
                present(partial(self._tell, f"The disk of {name} can't be freed: {error}"))

    def _tell(self, text: str) -> None:
        self._catalog.write(lambda orm: orm.add(Event(at=now(), severity="alarm", text=text)))
