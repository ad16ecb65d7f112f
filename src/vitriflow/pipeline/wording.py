"""Words that messages about names share."""

import difflib
from collections.abc import Iterable


def listed(names: Iterable[str]) -> str:
    """Names for a sentence."""
    return ", ".join(names) or "none"


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint at the name that was probably meant."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"Did you mean '{near[0]}'?" if near else "Correct or remove it."
