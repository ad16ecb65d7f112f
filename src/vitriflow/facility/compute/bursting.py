"""When work is sent to a second pool: forecast delay here against transfer, run and cost there.

The decision is a function of plain numbers (:func:`decide`); the gate keeps the numbers.
"""

import math
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

from vitriflow.config import BurstSection
from vitriflow.facility.compute.problems import Problem

_SMOOTHING = 0.1


@dataclass(frozen=True)
class Site:
    """One place where a call could run, in numbers.

    Attributes
    ----------
    run_s
        How long a call runs there (s).
    waiting
        Calls that go before it there.
    slots
        Calls side by side there.
    start_s
        Until it takes its first call (s): a pilot's wait in a queue, a machine's start.
    bandwidth_bytes_per_s
        To there; None where it sees the same files.
    cost_per_s
        Of a slot.
    cost_per_byte
        Of moving data there.
    """

    name: str
    run_s: float
    waiting: int = 0
    slots: int = 1
    start_s: float = 0.0
    bandwidth_bytes_per_s: float | None = None
    cost_per_s: float = 0.0
    cost_per_byte: float = 0.0

    def delay_s(self) -> float:
        """Until a call that's sent now would begin, as far as the queue goes (s)."""
        return self.start_s + math.floor(self.waiting / max(1, self.slots)) * self.run_s

    def transfer_s(self, size_bytes: int) -> float:
        """How long its input takes to get there (s)."""
        if self.bandwidth_bytes_per_s is None:
            return 0.0
        return size_bytes / self.bandwidth_bytes_per_s

    def ready_s(self, size_bytes: int) -> float:
        """Until the call's result is there (s). Data move while others still run."""
        return max(self.delay_s(), self.transfer_s(size_bytes)) + self.run_s

    def cost(self, size_bytes: int) -> float:
        """What a call costs there: a slot is paid for while data move, too."""
        return (self.transfer_s(size_bytes) + self.run_s) * self.cost_per_s + size_bytes * self.cost_per_byte


@dataclass(frozen=True)
class Choice:
    """Where a call is sent, why, and what was counted."""

    site: Site
    ready_s: float
    transfer_s: float
    cost: float
    why: str


def decide(
    size_bytes: int,
    home: Site,
    others: Sequence[Site],
    delay_limit_s: float,
    budget: float | None = None,
) -> Choice:
    """Where to run a call: at home, unless that takes too long and another place is really sooner.

    Parameters
    ----------
    size_bytes
        Of its inputs.
    home
        The first pool.
    others
        Elastic pools.
    delay_limit_s
        Others are asked only when the result at home would take longer than this (s).
    budget
        What may still be spent; None: anything.
    """

    def choice(site: Site, why: str) -> Choice:
        return Choice(site, site.ready_s(size_bytes), site.transfer_s(size_bytes), site.cost(size_bytes), why)

    here = home.ready_s(size_bytes)
    if here <= delay_limit_s:
        return choice(home, f"ready in {here:.0f} s on {home.name}, within {delay_limit_s:.0f} s")
    sooner = [site for site in others if site.ready_s(size_bytes) < here]
    if not sooner:
        return choice(home, f"{here:.0f} s on {home.name}, and nowhere else sooner")
    within = [site for site in sooner if budget is None or site.cost(size_bytes) <= budget]
    if not within:
        return choice(home, f"{here:.0f} s on {home.name}; what's sooner costs more than is left")
    best = min(within, key=lambda site: (site.ready_s(size_bytes), site.cost(size_bytes)))
    moving = best.transfer_s(size_bytes)
    return choice(
        best,
        f"{best.ready_s(size_bytes):.0f} s on {best.name} ({moving:.0f} s of it transfer), {here:.0f} s on {home.name}",
    )


class BurstGate:
    """Decides for each call that doesn't fit into the first pool, and counts what was spent.

    Parameters
    ----------
    section
        ``[compute.burst]``.
    pool
        The second pool: calls go to it as they are, or staged.
    cost_per_node_h, workers_per_node
        Of that pool.
    """

    def __init__(
        self, section: BurstSection, pool: Executor, cost_per_node_h: float = 0.0, workers_per_node: int = 1
    ) -> None:
        self._section = section
        self._pool = pool
        self._cost_per_s = cost_per_node_h / 3600.0 / max(1, workers_per_node)
        self.slots: Mapping[str, int] = dict(getattr(pool, "slots", {"cpu": 1, "gpu": 0}))
        self.backlog = 0  # exposures that coordinators haven't sent yet
        self.spent = 0.0
        self.calls = 0
        self.bytes = 0
        self.why = "nothing was decided yet"
        self._inside = {False: 0, True: 0}
        self._mean_s: dict[tuple[bool, bool], float] = {}  # (gpu, at home) -> seconds
        self._mean_bytes = 0.0
        self._lock = threading.Lock()

    def offer(self, gpu: bool, waiting: int, home_slots: Mapping[str, int]) -> Executor | None:
        """The second pool, when the next call should go there; None: it waits for the first."""
        kind = "gpu" if gpu else "cpu"
        with self._lock:
            there = self.slots.get(kind, 0)
            if self._inside[gpu] >= there:
                return None
            home_s = self._mean_s.get((gpu, True))
            if home_s is None:
                return None  # nothing has run yet: nobody knows how long anything takes
            home = Site("the first pool", home_s, waiting + self.backlog, max(1, home_slots.get(kind, 1)))
            section = self._section
            burst = Site(
                section.pool,
                self._mean_s.get((gpu, False), home_s / section.speed),
                self._inside[gpu],
                there,
                bandwidth_bytes_per_s=section.bandwidth_bytes_per_s if section.stage else None,
                cost_per_s=self._cost_per_s,
                cost_per_byte=section.cost_per_GB / 1e9,
            )
            budget = None if section.most_cost is None else section.most_cost - self.spent
            chosen = decide(int(self._mean_bytes), home, [burst], section.delay_limit_s, budget)
            self.why = chosen.why
            return self._pool if chosen.site is burst else None

    def taken(self, gpu: bool) -> None:
        """A call went to the second pool."""
        with self._lock:
            self._inside[gpu] += 1
            self.calls += 1

    def returned(self, gpu: bool) -> None:
        """A call came back from it."""
        with self._lock:
            self._inside[gpu] -= 1

    def learn(self, gpu: bool, home: bool, result: Any, seconds: float) -> None:
        """How long a call took: by its own records where it has them."""
        records = getattr(result, "records", None)
        if isinstance(records, Mapping) and records:
            ran = sum(float(record.get("seconds", 0.0)) for record in records.values())
        else:
            ran = seconds
        with self._lock:
            known = self._mean_s.get((gpu, home))
            self._mean_s[gpu, home] = ran if known is None else known + _SMOOTHING * (ran - known)
            if not home:
                self.spent += seconds * self._cost_per_s

    def moved(self, size_bytes: int) -> None:
        """Inputs of a call were moved to the other site."""
        with self._lock:
            self.bytes += size_bytes
            self.spent += size_bytes / 1e9 * self._section.cost_per_GB
            known = self._mean_bytes
            self._mean_bytes = size_bytes if not known else known + _SMOOTHING * (size_bytes - known)

    def expect(self, size_bytes: int) -> None:
        """Size of inputs as they come in, before anything was moved."""
        with self._lock:
            known = self._mean_bytes
            self._mean_bytes = size_bytes if not known else known + _SMOOTHING * (size_bytes - known)

    def problems(self) -> list[Problem]:
        """What's wrong with the second pool, and a budget that's spent."""
        found: list[Problem] = list(getattr(self._pool, "problems", list)())
        most = self._section.most_cost
        if most is not None and self.spent >= most:
            text = f"Burst pool '{self._section.pool}' has spent {self.spent:.2f} of {most:.2f}: it's used no more."
            found.append(Problem(f"{self._section.pool}/budget", text, "warning"))
        return found

    def details(self) -> dict[str, Any]:
        """What was sent there, at what cost, and why or why not."""
        with self._lock:
            return {
                "calls": self.calls,
                "bytes": self.bytes,
                "cost": round(self.spent, 2),
                "why": self.why,
            }

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Shut the second pool down."""
        self._pool.shutdown(wait=wait, cancel_futures=cancel_futures)
