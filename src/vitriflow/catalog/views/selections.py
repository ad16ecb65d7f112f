"""Which exposures a processing is for: all of its session, or some that were chosen when it began."""

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session as OrmSession

from vitriflow.catalog.tables import Processing
from vitriflow.catalog.views.shapes import ProcessingView


def selection_of(db: OrmSession, processing_id: int) -> frozenset[int] | None:
    """Ids of the exposures that a processing is for; None when it's for all, those that come later too.

    It never changes once the processing has begun.
    """
    found = db.scalar(select(Processing.selection).where(Processing.id == processing_id))
    return None if found is None else frozenset(found["exposures"])


def as_selection(exposures: Iterable[int], words: str) -> dict[str, Any]:
    """A selection as it's stored: how many, how they were chosen, and which."""
    ids = sorted(set(exposures))
    return {"n": len(ids), "words": words, "exposures": ids}


def main_processing(known: Sequence[ProcessingView]) -> ProcessingView | None:
    """Of a session's processings (newest first) the one that speaks for it: the newest that's for all exposures."""
    return next((one for one in known if one.selected is None), known[0] if known else None)
