"""Says every few seconds that a service of this machine lives."""

import os
import socket
import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from vitriflow.catalog import Catalog, Node, now
from vitriflow.facility.monitoring_machine import MachineLook
from vitriflow.facility.processing_run import present

EVERY_S = 5.0


class Heartbeat:
    """A thread that keeps this service's row in the table of nodes fresh. A catalog that's away is waited for.

    Parameters
    ----------
    catalog
        The catalog.
    service
        ``acquire``, ``process`` or ``serve``.
    details
        Asked at each beat: what to show beside it.
    """

    def __init__(
        self, catalog: Catalog, service: str, details: Callable[[], dict[str, Any]] = dict, label: str = ""
    ) -> None:
        self.name = ":".join(part for part in (socket.gethostname(), service, label) if part)[:192]
        self._catalog = catalog
        self._service = service
        self._details = details
        self._machine = MachineLook()
        self._started_at = now()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    @staticmethod
    def living_since() -> datetime:
        """A node that was seen after this lives."""
        return now() - timedelta(seconds=4 * EVERY_S)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End in order: the node is taken off the list, so that nobody misses it."""
        self._over.set()
        self._thread.join()
        present(lambda: self._catalog.write(self._leave))

    def _run(self) -> None:
        while True:
            present(self._beat)
            if self._over.wait(EVERY_S):
                return

    def _beat(self) -> None:
        details = {"host": socket.gethostname(), "pid": os.getpid(), **self._details()}
        details["machine"] = self._machine.values()

        def work(orm: Any) -> None:
            row = orm.get(Node, self.name)
            if row is None:
                row = Node(name=self.name, service=self._service, started_at=self._started_at)
                orm.add(row)
            row.service = self._service
            row.started_at = self._started_at
            row.seen_at = now()
            row.details = details

        self._catalog.write(work)

    def _leave(self, orm: Any) -> None:
        row = orm.get(Node, self.name)
        if row is not None:
            orm.delete(row)
