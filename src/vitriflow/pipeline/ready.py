"""Order of work: the freshest first, with a share for the oldest, so that a backlog drains."""

import heapq
from datetime import datetime

Work = tuple[int, int]  # exposure id, group number


class ReadyQueue:
    """Work that can start, each piece once.

    Parameters
    ----------
    share
        Every ``share``-th piece that is taken is the oldest; 0 never.
    """

    def __init__(self, share: int = 4) -> None:
        self._share = share
        self._taken = 0
        self._there: set[Work] = set()
        self._newest: list[Work] = []
        self._oldest: list[Work] = []
        self._later: list[tuple[datetime, Work]] = []

    def __len__(self) -> int:
        return len(self._there)

    @property
    def delayed(self) -> int:
        """Pieces that wait for their time."""
        return len(self._later)

    def add(self, work: Work, not_before: datetime | None = None) -> None:
        """Add a piece of work, to be taken now or from a certain time on."""
        if not_before is not None:
            heapq.heappush(self._later, (not_before, work))
        elif work not in self._there:
            self._there.add(work)
            # Of one exposure, the later group first: what is begun gets finished.
            heapq.heappush(self._newest, (-work[0], -work[1]))
            heapq.heappush(self._oldest, (work[0], -work[1]))

    def wake(self, now: datetime) -> None:
        """Make ready what has waited long enough."""
        while self._later and self._later[0][0] <= now:
            self.add(heapq.heappop(self._later)[1])

    def next_time(self) -> datetime | None:
        """When the next delayed piece may start."""
        return self._later[0][0] if self._later else None

    def take(self) -> Work | None:
        """Take the next piece: the freshest, or the oldest when it's its turn. None when there is none."""
        if not self._there:
            self._newest.clear()
            self._oldest.clear()
            return None
        self._taken += 1
        oldest = self._share > 0 and self._taken % self._share == 0
        heap, sign = (self._oldest, 1) if oldest else (self._newest, -1)
        while True:
            first, second = heapq.heappop(heap)
            work = (sign * first, -second)
            if work in self._there:
                self._there.remove(work)
                return work

    def clear(self) -> None:
        """Forget everything: the catalog is about to be read again."""
        self._there.clear()
        self._newest.clear()
        self._oldest.clear()
        self._later.clear()
