"""Looks at all rules every few seconds; one process of the facility at a time does, by lease."""

import logging
import os
import threading
import time
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session as OrmSession

from vitriflow.catalog import Catalog, LeaseHandle, now, take_lease, this_owner
from vitriflow.config import Config
from vitriflow.errors import Busy
from vitriflow.facility.keeping import keep_looking, let_go
from vitriflow.facility.notices import Notifier
from vitriflow.monitors import (
    DiskForecast,
    MachineWatch,
    Reading,
    copy_behind,
    expectations,
    look_at_sessions,
    nodes_lost,
    session_size,
    settle_alarms,
    settle_rules,
    silence,
)

_log = logging.getLogger(__name__)
_LEASE_NAME = "monitors"
_MEASURE_S = 5.0  # a share that hangs is given up for this look after so long


class AlarmWatch:
    """A thread that raises and clears alarms. Start one in each service: only one of them acts.

    Parameters
    ----------
    config, catalog
        Of this facility.
    """

    def __init__(self, config: Config, catalog: Catalog) -> None:
        self._config = config
        self._catalog = catalog
        self._forecast = DiskForecast(config.monitors.disk_full_h)
        self._machines = MachineWatch()
        self._notifier = Notifier(config, catalog)
        self._measuring: dict[str, threading.Thread] = {}
        self._lease: LeaseHandle | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="alarms", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()
        self._notifier.start()

    def stop(self) -> None:
        """End, and let another process take this over at once."""
        self._over.set()
        self._notifier.stop()
        self._thread.join(3 * _MEASURE_S)

    def look(self) -> bool:
        """Look once; whether it was this process's turn."""
        ttl = max(30.0, 3 * self._config.monitors.look_every_s)
        try:
            if self._lease is None:
                self._lease = take_lease(
                    self._catalog, _LEASE_NAME, this_owner(f"monitors-{id(self):x}"), ttl
                )
            lease = self._lease
            disks, unread = self._disks()
            self._catalog.write(lambda orm: self._settle(orm, lease, disks, unread))
        except Busy:
            self._lease = None
            return False
        return True

    def _run(self) -> None:
        keep_looking(
            self._over,
            min(self._config.monitors.look_every_s, 3600.0),
            self.look,
            _log,
            "alarms can't be looked at",
        )
        let_go(self._catalog, self._lease)

    def _settle(self, orm: OrmSession, lease: LeaseHandle, disks: list[Reading], unread: set[str]) -> None:
        lease.fence(orm)
        limits, moment = self._config.monitors, now()
        sizes = {
            name: scope.limits.session_bytes
            for name, scope in self._config.microscopes.items()
            if scope.limits.session_bytes is not None
        }
        settle_alarms(orm, "silence", silence(orm, limits.silence_min, moment), moment)
        settle_alarms(orm, "copy_behind", copy_behind(orm, limits.copy_behind_min, moment), moment)
        settle_alarms(orm, "session_size", session_size(orm, sizes), moment)
        settle_alarms(orm, "node_lost", nodes_lost(orm, limits.node_lost_s, moment), moment)
        settle_alarms(orm, "disk_full", disks, moment, unread=unread)
        settle_alarms(orm, "expected", expectations(orm), moment)
        rules = limits.rules
        settle_rules(
            orm, look_at_sessions(orm, rules, moment) | self._machines.look(orm, rules, moment), moment
        )

    # -- disks ------------------------------------------------------------------------------

    def _disks(self) -> tuple[list[Reading], set[str]]:
        """Readings of storage and of the microscopes' sources; those that can't be measured now."""
        places: dict[str, tuple[Path, str]] = {"storage": (self._config.storage.root, "The storage")}
        for name, scope in self._config.microscopes.items():
            for number, source in enumerate(scope.sources, start=1):
                label = name if len(scope.sources) == 1 else f"{name}/{number}"
                places[label] = (source, f"The disk of {name} at {source}")
        readings, unread = [], set()
        devices: set[int] = set()
        for name, (path, what) in places.items():
            found = self._free(name, path)
            if found is None:
                unread.add(f"disk:{name}")
                continue
            device, free = found
            if device not in devices:  # one disk under two names is told of once
                devices.add(device)
                readings.append(self._forecast.read(name, what, free, time.monotonic()))
        return readings, unread

    def _free(self, name: str, path: Path) -> tuple[int, int] | None:
        """Device and free space, asked in a thread of its own: a share that hangs would hold up everything else."""
        waiting = self._measuring.get(name)
        if waiting is not None and waiting.is_alive():
            return None
        found: list[tuple[int, int]] = []

        def ask() -> None:
            try:
                device, state = path.stat().st_dev, os.statvfs(path)
            except OSError:
                return
            found.append((device, state.f_bavail * state.f_frsize))

        thread: Any = threading.Thread(target=ask, name=f"free space of {name}", daemon=True)
        self._measuring[name] = thread
        thread.start()
        thread.join(_MEASURE_S)
        return found[0] if found else None
