"""Keeps what's published about access in step while a service runs."""

import logging
import threading

from vitriflow.catalog import Catalog, is_away
from vitriflow.config import Config
from vitriflow.facility.access import publish_access

log = logging.getLogger(__name__)

EVERY_S = 5.0  # so that whoever was let in needn't wait, and whoever was revoked is out soon


class AccessKeeper:
    """A thread that publishes who may log in and who may read which folder, whenever it changed.

    Each service runs one: what it writes is the same everywhere, files are this machine's own,
    and a change that another made already is nothing to do.

    Parameters
    ----------
    config, catalog
        Of this facility. Where ``[access]`` asks for nothing, the thread isn't started.
    """

    def __init__(self, config: Config, catalog: Catalog) -> None:
        self._config = config
        self._catalog = catalog
        self._over = threading.Event()
        self._told: list[str] = []
        self._thread = threading.Thread(target=self._run, name="access", daemon=True)

    @property
    def wanted(self) -> bool:
        """Whether the configuration asks for anything to be published."""
        access = self._config.access
        return access.pam_file is not None or access.ldap_group is not None or access.acls

    def start(self) -> None:
        """Begin, if there's anything to do."""
        if self.wanted:
            self._thread.start()

    def stop(self) -> None:
        """End."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join(30)

    def look(self) -> None:
        """Publish once; a problem is told when it's new."""
        problems = publish_access(self._config, self._catalog).problems
        for problem in problems:
            if problem not in self._told:
                log.warning("access: %s", problem)
        self._told = problems

    def _run(self) -> None:
        while True:
            try:
                self.look()
            except Exception as error:
                if not is_away(error):
                    log.exception("access can't be published")
            if self._over.wait(EVERY_S):
                return
