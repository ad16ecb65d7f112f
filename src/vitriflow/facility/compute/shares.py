"""Whose call is next: shares of slots between experiments, by weight and within limits. Plain data, no threads."""

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from vitriflow.config import CallLimits, ComputeSection

T = TypeVar("T")


@dataclass(frozen=True)
class Party:
    """An experiment, and what stands in facility.toml about its project."""

    experiment: str
    project: str = ""  # an experiment without a project is one by itself
    weight: float = 1.0
    cpu_calls: int | None = None  # of the project
    gpu_calls: int | None = None

    @classmethod
    def of(cls, compute: ComputeSection, experiment: str) -> "Party":
        """What facility.toml says of an experiment."""
        name = compute.project_of(experiment)
        if name is None:
            return cls(experiment)
        project = compute.projects[name]
        return cls(experiment, name, project.weight, project.cpu_calls, project.gpu_calls)

    @property
    def account(self) -> str:
        """The project, or the experiment itself: what shares are between."""
        return f"project {self.project}" if self.project else f"experiment {self.experiment}"


@dataclass
class _Line(Generic[T]):
    """What one experiment waits for, of one kind of worker."""

    party: Party
    waiting: deque[T] = field(default_factory=deque)


class FairQueue(Generic[T]):
    """Calls that wait, by experiment, and how many of each run.

    A free slot goes to the account (project, or experiment without one) that has the fewest slots for its
    weight, and inside it to the experiment that has the fewest. Between equals it's the one whose turns
    so far, over its weight, are fewest; who comes anew starts level with the others, so that nobody
    lives on credit and nobody waits for ever. CPU and GPU calls are shared out separately.
    """

    def __init__(self) -> None:
        self._lines: dict[tuple[bool, str], _Line[T]] = {}
        self._running: Counter[tuple[bool, str]] = Counter()  # of experiments
        self._account_running: Counter[tuple[bool, str]] = Counter()
        self._turns: dict[tuple[bool, str], float] = {}  # of accounts and experiments, over weights
        self._parties: dict[str, Party] = {}

    def put(self, party: Party, gpu: bool, item: T) -> None:
        """Add a call that waits."""
        self._parties[party.experiment] = party
        line = self._lines.get((gpu, party.experiment))
        if line is None or not (line.waiting or self._running[gpu, party.experiment]):
            self._level(gpu, party)
        if line is None:
            line = self._lines[gpu, party.experiment] = _Line(party)
        line.party = party
        line.waiting.append(item)

    def waiting(self, gpu: bool) -> int:
        """How many calls wait."""
        return sum(len(line.waiting) for (kind, _), line in self._lines.items() if kind == gpu)

    def running(self, gpu: bool, experiment: str | None = None) -> int:
        """How many were taken and aren't done: of one experiment, or of all."""
        if experiment is not None:
            return self._running[gpu, experiment]
        return sum(count for (kind, _), count in self._running.items() if kind == gpu)

    def take(self, gpu: bool, limits: CallLimits) -> tuple[Party, T] | None:
        """The next call, counted as running from now on; None when none waits that may run."""
        most = limits.gpu_calls if gpu else limits.cpu_calls
        if most is not None and self.running(gpu) >= most:
            return None
        lines = [
            line
            for (kind, _), line in self._lines.items()
            if kind == gpu and line.waiting and self._may(gpu, line.party, limits)
        ]
        if not lines:
            return None
        line = min(lines, key=lambda one: self._order(gpu, one.party))
        party = line.party
        item = line.waiting.popleft()
        self._running[gpu, party.experiment] += 1
        self._account_running[gpu, party.account] += 1
        self._turns[gpu, party.account] += 1.0 / party.weight
        self._turns[gpu, party.experiment] += 1.0
        return party, item

    def done(self, party: Party, gpu: bool) -> None:
        """A call that was taken has ended."""
        self._running[gpu, party.experiment] -= 1
        self._account_running[gpu, party.account] -= 1
        if not self._running[gpu, party.experiment]:
            del self._running[gpu, party.experiment]
            line = self._lines.get((gpu, party.experiment))
            if line is not None and not line.waiting:  # forget who has nothing any more
                del self._lines[gpu, party.experiment]
        if not self._account_running[gpu, party.account]:
            del self._account_running[gpu, party.account]

    def _may(self, gpu: bool, party: Party, limits: CallLimits) -> bool:
        each = limits.experiment_gpu_calls if gpu else limits.experiment_cpu_calls
        own = party.gpu_calls if gpu else party.cpu_calls
        usual = limits.project_gpu_calls if gpu else limits.project_cpu_calls
        account = self._account_running[gpu, party.account]
        if each is not None and self._running[gpu, party.experiment] >= each:
            return False
        bounds = [bound for bound in (own, usual) if bound is not None] if party.project else []
        return all(account < bound for bound in bounds)

    def _order(self, gpu: bool, party: Party) -> tuple[float, float, float, float, str]:
        return (
            self._account_running[gpu, party.account] / party.weight,
            self._turns[gpu, party.account],
            self._running[gpu, party.experiment],
            self._turns[gpu, party.experiment],
            party.experiment,
        )

    def _level(self, gpu: bool, party: Party) -> None:
        """Who comes anew (or again) starts level with the one that had fewest turns, never behind itself."""
        busy = [
            line.party
            for (kind, _), line in self._lines.items()
            if kind == gpu and (line.waiting or self._running[gpu, line.party.experiment])
        ]
        accounts = [self._turns[gpu, one.account] for one in busy if one.account != party.account]
        peers = [
            self._turns[gpu, one.experiment]
            for one in busy
            if one.account == party.account and one.experiment != party.experiment
        ]
        there = any(one.account == party.account for one in busy)
        if not there:
            self._turns[gpu, party.account] = max(
                self._turns.get((gpu, party.account), 0.0), min(accounts, default=0.0)
            )
        self._turns[gpu, party.experiment] = max(
            self._turns.get((gpu, party.experiment), 0.0), min(peers, default=0.0)
        )
