"""How many items stand where. What came in always equals what ended plus what is open."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from sqlalchemy import func, select
from sqlalchemy.orm import Session as OrmSession

from vitriflow.catalog import Catalog, Exposure, Measure, Processing, Task
from vitriflow.catalog.views import selection_of
from vitriflow.pipeline.rows import REVISION

_OPEN = ("waiting", "ready", "running")


@dataclass(frozen=True)
class Tally:
    """Items of one node, or exposures, by how they stand.

    ``stopped`` are items that never came in to a node, because a node that it needs refused
    them; they're not part of ``came_in``.
    """

    came_in: int = 0
    done: int = 0
    failed: int = 0
    rejected: int = 0
    quarantined: int = 0
    open: int = 0
    running: int = 0
    stopped: int = 0

    @property
    def reconciles(self) -> bool:
        """Whether what came in is what ended and what is open."""
        return self.came_in == self.done + self.failed + self.rejected + self.quarantined + self.open


@dataclass(frozen=True)
class Counts:
    """Where everything of one processing stands.

    ``arriving`` are exposures that are there and haven't come in yet: growing, or not looked at. Of a processing
    of some exposures only those count.
    ``set_aside`` are those that came in as a problem, so that no node ever saw them.
    ``batches`` has the nodes whose items are batches: how many of those stand where.
    """

    exposures: Tally
    nodes: dict[str, Tally]
    arriving: int = 0
    set_aside: int = 0
    batches: dict[str, Tally] = field(default_factory=dict)

    @property
    def reconciles(self) -> bool:
        """Whether all tallies add up, and each node saw every exposure that wasn't set aside."""
        wanted = self.exposures.came_in - self.set_aside
        nodes = all(
            tally.reconciles and tally.came_in + tally.stopped == wanted for tally in self.nodes.values()
        )
        batches = all(tally.reconciles for tally in self.batches.values())
        return self.exposures.reconciles and nodes and batches


def counts(catalog: Catalog, processing_id: int) -> Counts:
    """Count exposures and tasks of a processing, all at the same instant.

    Parameters
    ----------
    catalog
        The catalog.
    processing_id
        The processing.
    """
    return catalog.read(lambda session: _count(session, processing_id))


def _count(session: OrmSession, processing_id: int) -> Counts:
    by_status = session.execute(
        select(Measure.status, func.count())
        .where(Measure.processing_id == processing_id)
        .group_by(Measure.status)
    )
    exposures = _tally(dict(by_status.all()))
    by_state = session.execute(
        select(Task.node, Task.state, func.count())
        .where(Task.processing_id == processing_id, Task.revision == REVISION)
        .group_by(Task.state, Task.node)  # read from ix_task_state alone
    )
    of_batches = session.execute(
        select(Task.node, Task.state, func.count())
        .where(
            Task.processing_id == processing_id,
            Task.item_type.in_(("batch", "session")),
            Task.revision == REVISION,
        )
        .group_by(Task.node, Task.state)
    )
    batches: dict[str, dict[str, int]] = {}
    for node, state, number in of_batches:
        batches.setdefault(node, {})[state] = number
    nodes: dict[str, dict[str, int]] = {}
    for node, state, number in by_state:
        if node not in batches:
            nodes.setdefault(node, {})[state] = number
    home = select(Processing.session_id).where(Processing.id == processing_id).scalar_subquery()
    chosen = selection_of(session, processing_id)
    if chosen is None:
        every = select(func.count()).select_from(Exposure).where(Exposure.session_id == home)
        there = session.scalar(every) or 0
    else:
        there = len(chosen)
    tallies = {node: _tally(found) for node, found in nodes.items()}
    seen = max((tally.came_in + tally.stopped for tally in tallies.values()), default=0)
    return Counts(
        exposures,
        tallies,
        there - exposures.came_in,
        exposures.came_in - seen,
        {node: _tally(found) for node, found in batches.items()},
    )


def _tally(found: dict[str, int]) -> Tally:
    waiting = _sum(found, ("open", *_OPEN))
    ended = {name: found.get(name, 0) for name in ("done", "failed", "rejected", "quarantined")}
    total = sum(found.values()) - found.get("stopped", 0)
    return Tally(
        came_in=total,
        open=waiting,
        running=found.get("running", 0),
        stopped=found.get("stopped", 0),
        **ended,
    )


def _sum(found: dict[str, int], names: Iterable[str]) -> int:
    return sum(found.get(name, 0) for name in names)
