"""How many tasks of each node stand where, without counting all of them every time."""

import math
import threading
import time

from sqlalchemy.orm import Session as OrmSession

from vitriflow.catalog import views

# Everything is counted again this often, whatever was remembered.
_RECOUNT_S = 60.0


class TaskTally:
    """Counts tasks by node and state.

    Nearly all tasks of a long session are done. So the done ones are what is left of all when the
    others are taken away; all of them are remembered, and only new ones are added.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[int, tuple[float, dict[tuple[str, int], int], int]] = {}

    def nodes(self, db: OrmSession, processing_id: int) -> list[views.NodeView]:
        """Tasks by node and state, in the order of the pipeline, newest revision only."""
        totals = self._totals(db, processing_id)
        others = views.count_not_done(db, processing_id)
        newest: dict[str, int] = {}
        for node, revision in totals:
            newest[node] = max(revision, newest.get(node, 0))
        found = []
        for node, revision in newest.items():
            counts = dict(others.get((node, revision), {}))
            done = totals[node, revision] - sum(counts.values())
            if done > 0:
                counts["done"] = done
            found.append(views.NodeView(node, revision, counts))
        order = {node: place for place, node in enumerate(views.node_order(db, processing_id))}
        return sorted(found, key=lambda view: (order.get(view.node, len(order)), view.node))

    def _totals(self, db: OrmSession, processing_id: int) -> dict[tuple[str, int], int]:
        with self._lock:
            counted_at, totals, newest = self._known.get(processing_id, (-math.inf, {}, 0))
        if time.monotonic() - counted_at > _RECOUNT_S:
            counted_at, totals, newest = time.monotonic(), {}, 0
        added, last = views.count_tasks(db, processing_id, newest)
        totals = {key: totals.get(key, 0) + added.get(key, 0) for key in totals.keys() | added.keys()}
        with self._lock:
            known = self._known.get(processing_id)
            if known is None or last >= known[2]:
                self._known[processing_id] = (counted_at, totals, last)
        return totals
