"""Numbers, times and reasons in words, as pages use them; they stand in :mod:`vitriflow.words`."""

from vitriflow.words import (
    DASH,
    MINUS,
    QUANTITIES,
    REASONS,
    STATUS_HELP,
    STATUS_WORDS,
    Quantity,
    ago,
    duration,
    iso,
    number,
    plural,
    quantity,
    reason_words,
    size,
    utc,
)

__all__ = [
    "DASH",
    "MINUS",
    "QUANTITIES",
    "REASONS",
    "STATUS_HELP",
    "STATUS_WORDS",
    "Quantity",
    "ago",
    "duration",
    "iso",
    "number",
    "plural",
    "quantity",
    "reason_words",
    "size",
    "utc",
]
