"""Tells people once when a pool of compute doesn't work, and once when it does again."""

import logging
import threading
from collections.abc import Callable

from sqlalchemy import func, select
from sqlalchemy.orm import Session as OrmSession

from vitriflow.catalog import Catalog, Event, Measure, Processing, now
from vitriflow.facility.compute import Problem, SharedPool
from vitriflow.facility.processing_run import present

_log = logging.getLogger(__name__)
LOOK_S = 5.0


class PoolWatch:
    """A thread that looks at the pool every few seconds.

    Parameters
    ----------
    catalog
        Where people are told: by events of every session that is processed here.
    pool
        The pool; where it goes by the backlog, it's told what waits in the catalog.
    sessions
        Asked each time: the sessions that are processed here.
    """

    def __init__(self, catalog: Catalog, pool: SharedPool, sessions: Callable[[], list[int]]) -> None:
        self._catalog = catalog
        self._pool = pool
        self._sessions = sessions
        self._told: dict[tuple[str, int], Problem] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pool watch", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.is_set():
            try:
                present(self.look)
            except (
                Exception
            ) as error:  # whatever a queue's command did: the service goes on without this look
                _log.warning("the pools can't be looked at: %s", error)
            self._over.wait(LOOK_S)

    def look(self) -> None:
        """Look once: tell what's new and what's over."""
        sessions = self._sessions()
        if self._pool.wants_backlog:
            self._pool.note_backlog(self._catalog.read(lambda orm: _backlog(orm, sessions)))
        problems = {problem.key: problem for problem in self._pool.problems()}
        for problem in problems.values():
            for session in sessions:
                if (problem.key, session) not in self._told:
                    self._say(session, problem.severity, problem.text)
                    self._told[problem.key, session] = problem
                    _log.warning("%s", problem.text)
        for (key, session), told in list(self._told.items()):
            if key not in problems:
                del self._told[key, session]
                self._say(session, "info", f"Over: {told.text}")

    def _say(self, session_id: int, severity: str, text: str) -> None:
        event = {"at": now(), "session_id": session_id, "severity": severity, "text": text}
        self._catalog.write(lambda orm: orm.add(Event(**event)))


def _backlog(orm: OrmSession, sessions: list[int]) -> int:
    """Exposures of some sessions that came in and aren't dealt with."""
    query = (
        select(func.count())
        .select_from(Measure)
        .join(Processing, Processing.id == Measure.processing_id)
        .where(Processing.session_id.in_(sessions), Measure.status == "open")
    )
    return orm.scalar(query) or 0
