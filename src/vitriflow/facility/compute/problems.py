"""What's wrong with a pool, in words, for people and for the list of alarms."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """One thing that's wrong now. ``key`` stays the same while it lasts, ``text`` may change."""

    key: str
    text: str
    severity: str = "alarm"  # or warning
