"""What the doctor says: a subject, how it is, in words, and what to do."""

from dataclasses import dataclass
from enum import StrEnum


class Health(StrEnum):
    """How a check ended."""

    GOOD = "good"
    NOTE = "note"  # works, but somebody should know
    BAD = "bad"  # something won't work


@dataclass(frozen=True)
class Finding:
    """One check: what was looked at, how it is, in words, and what to do."""

    subject: str
    health: Health
    text: str
    remedy: str = ""
