"""Slows down whoever guesses passwords. Kept in this server's memory: a restart forgets it."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable

FREE_TRIES = 5  # before the first wait
FREE_TRIES_WIDE = 20  # for one login from anywhere, and for one address with any login
LONGEST_WAIT_S = 900.0
FORGET_S = 3600.0
MOST_KEPT = 20_000  # the oldest are forgotten beyond that


class Limiter:
    """Counts refused tries and says how long to wait: 1 s after the free ones, then twice as long each time.

    Counted for a login from an address, for a login from anywhere, and for an address. The
    second and third allow more, so that nobody can shut somebody else out with a few bad tries.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._tries: OrderedDict[tuple[str, str], tuple[int, float]] = OrderedDict()

    def wait_s(self, login: str, address: str) -> float:
        """How long this login from this address has to wait (s); 0 for not at all."""
        at = self._clock()
        with self._lock:
            return max(self._left(key, free, at) for key, free in _keys(login, address))

    def refused(self, login: str, address: str) -> None:
        """A try didn't fit."""
        at = self._clock()
        with self._lock:
            for key, _ in _keys(login, address):
                count, last = self._tries.pop(key, (0, at))
                self._tries[key] = (1 if at - last > FORGET_S else count + 1, at)
            while len(self._tries) > MOST_KEPT:
                self._tries.popitem(last=False)

    def fitted(self, login: str, address: str) -> None:
        """A try did fit: this pair starts afresh."""
        with self._lock:
            self._tries.pop(_keys(login, address)[0][0], None)

    def _left(self, key: tuple[str, str], free: int, at: float) -> float:
        count, last = self._tries.get(key, (0, at))
        if count < free or at - last > FORGET_S:
            return 0.0
        return max(0.0, last + min(LONGEST_WAIT_S, 2.0 ** (count - free)) - at)


def _keys(login: str, address: str) -> tuple[tuple[tuple[str, str], int], ...]:
    login = login.strip().lower()[:64]
    return (((login, address), FREE_TRIES), ((login, ""), FREE_TRIES_WIDE), (("", address), FREE_TRIES_WIDE))
