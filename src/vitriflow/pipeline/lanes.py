"""What waits at triggers, and when it's let go. Plain data in, plain data out."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NamedTuple

from vitriflow.pipeline.plan import PlanNode
from vitriflow.pipeline.progress import NodeState
from vitriflow.steps import TriggerParameters


class Waiting(NamedTuple):
    """An exposure at a trigger: the particles it brings, and since when it waits."""

    particles: int
    since: datetime


class Release(NamedTuple):
    """Exposures that go on together, and why now."""

    exposures: tuple[int, ...]
    particles: int
    cause: str


@dataclass
class Lane:
    """One trigger, as of the last transaction that went through."""

    name: str
    parameters: TriggerParameters
    waiting: dict[int, Waiting] = field(default_factory=dict)
    particles: int = 0  # of all that waits
    released: int = 0  # exposures in all batches so far
    batches: int = 0
    stopped: bool = False
    busy: bool = False  # a batch of it isn't done with yet

    @property
    def over(self) -> bool:
        """Whether it lets nothing go any more."""
        return self.stopped or (self.parameters.release == "once" and self.batches > 0)

    @property
    def busy_growing(self) -> bool:
        """Whether the end of a batch is what it waits for."""
        return self.busy and self.parameters.release == "growing"

    def next_time(self) -> datetime | None:
        """When the one that waits longest has waited long enough."""
        if self.over or self.parameters.after_s is None or not self.waiting:
            return None
        if self.busy_growing:
            return None  # the end of that batch is what it waits for
        return next(iter(self.waiting.values())).since + timedelta(seconds=self.parameters.after_s)

    def releases(
        self, joined: Mapping[int, Waiting], moment: datetime, ending: bool, signalled: bool
    ) -> list[Release]:
        """What goes on now.

        Parameters
        ----------
        joined
            Exposures that have just come to the trigger.
        moment
            The time now.
        ending
            Whether nothing more will come: what's left is let go.
        signalled
            Whether the node that it listens to has just told it to stop.
        """
        if self.over or not (self.waiting or joined):
            return []
        if self.busy_growing and not signalled:
            return []
        if not (ending or signalled or self._enough(joined) or self._late(joined, moment)):
            return []
        items = [*self.waiting.items(), *joined.items()]
        if signalled:
            return [_release(items, "stop")]
        if self.parameters.release == "growing":
            return [_release(items, self._cause(joined, moment))]
        return self._parts(items, moment, ending)

    def _parts(self, items: list[tuple[int, Waiting]], moment: datetime, ending: bool) -> list[Release]:
        """Batches of the size that was asked for, and what's left when it's time."""
        found: list[Release] = []
        part: list[tuple[int, Waiting]] = []
        particles = 0
        for item in items:
            part.append(item)
            particles += item[1].particles
            cause = self._full(len(part), particles)
            if cause:
                found.append(_release(part, cause))
                part, particles = [], 0
                if self.parameters.release == "once":
                    return found
        if part and self._waited(part[0][1], moment):
            found.append(_release(part, "time"))
        elif part and ending:
            found.append(_release(part, "end"))
        return found

    def _full(self, count: int, particles: int) -> str:
        p = self.parameters
        if p.micrographs is not None and count >= p.micrographs:
            return "micrographs"
        return "particles" if p.particles is not None and particles >= p.particles else ""

    def _enough(self, joined: Mapping[int, Waiting]) -> bool:
        particles = self.particles + sum(one.particles for one in joined.values())
        return bool(self._full(len(self.waiting) + len(joined), particles))

    def _waited(self, one: Waiting, moment: datetime) -> bool:
        limit = self.parameters.after_s
        return limit is not None and (moment - one.since).total_seconds() >= limit

    def _late(self, joined: Mapping[int, Waiting], moment: datetime) -> bool:
        first = next(iter((self.waiting or joined).values()))
        return self._waited(first, moment)

    def _cause(self, joined: Mapping[int, Waiting], moment: datetime) -> str:
        particles = self.particles + sum(one.particles for one in joined.values())
        full = self._full(len(self.waiting) + len(joined), particles)
        return full or ("time" if self._late(joined, moment) else "end")

    def take(self, joined: Mapping[int, Waiting], releases: Iterable[Release], stop: bool) -> None:
        """Remember what a transaction that went through has done."""
        self.stopped = self.stopped or stop
        self.waiting.update(joined)
        self.particles += sum(one.particles for one in joined.values())
        for release in releases:
            self.batches += 1
            self.released += len(release.exposures)
            for exposure in release.exposures:
                self.particles -= self.waiting.pop(exposure).particles
        if self.over:  # nothing of it is asked about again
            self.waiting.clear()
            self.particles = 0


def _release(items: Iterable[tuple[int, Waiting]], cause: str) -> Release:
    known = list(items)
    return Release(tuple(number for number, _ in known), sum(one.particles for _, one in known), cause)


@dataclass
class OpenTask:
    """A task of a batch that may still change."""

    batch: int
    number: int
    lane: str
    node: PlanNode
    state: NodeState


@dataclass
class Draft:
    """What one transaction does to lanes and batches; dropped when it doesn't go through."""

    joined: dict[str, dict[int, Waiting]] = field(default_factory=dict)
    signals: set[str] = field(default_factory=set)  # nodes that told triggers to stop
    released: dict[str, list[Release]] = field(default_factory=dict)
    session_batch: bool = False
    session_looked: bool = False
    open: list[OpenTask] | None = None
