"""Metadata that came after their movie was taken in without them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import exists, select
from sqlalchemy.orm import Session as OrmSession

from vitriflow.acquisition.places import SessionBook
from vitriflow.catalog import Event, Exposure, Measure, now

_NAMED = 3  # movies that an event names


@dataclass(frozen=True)
class LateMetadata:
    """What ``path`` says of the exposure ``key``."""

    key: str
    path: str
    details: dict[str, Any]


def fill(orm: OrmSession, session_id: int, book: SessionBook, late: Sequence[LateMetadata]) -> None:
    """Give exposures what their late metadata say; what can't act any more, or contradicts, is told.

    What is known of the file itself (frames, shape) holds. An exposure whose processing has begun
    keeps its optics group: its results were written with it.
    """
    begun, differing = [], []
    for one in late:
        row = orm.scalar(select(Exposure).where(Exposure.session_id == session_id, Exposure.key == one.key))
        if row is None or (row.details or {}).get("metadata_file"):
            continue
        before = dict(row.details or {})
        differing += _differences(one, before)
        late_for = orm.scalar(select(exists().where(Measure.exposure_id == row.id)))
        own: dict[str, Any] = {name: before[name] for name in ("n_frames", "shape") if name in before}
        row.details = {**before, **one.details, **own}
        if late_for:
            row.details["metadata_late"] = True
        book.complete(row, before if late_for else None)
        if late_for:
            begun.append(one)
    if begun:
        text = (
            f"The metadata of {_listed(begun)} came after processing began. They stand with the exposure now; "
            "results that are there were made without them. 'vitriflow run' with --processing NAME makes new ones"
        )
        orm.add(Event(at=now(), session_id=session_id, severity="warning", text=text))
    if differing:
        text = f"Late metadata contradict what was known: {'; '.join(differing[:_NAMED])}"
        orm.add(Event(at=now(), session_id=session_id, severity="warning", text=text))


def _differences(one: LateMetadata, before: dict[str, Any]) -> list[str]:
    found = []
    for name, value in one.details.items():
        known = before.get("n_frames" if name == "n_fractions" else name)
        if known is not None and known != value:
            found.append(f"{one.path} says {name} {value}, and {one.key} has {known}")
    return found


def _listed(late: Sequence[LateMetadata]) -> str:
    names = ", ".join(one.key for one in late[:_NAMED])
    return names + (f" and {len(late) - _NAMED} more" if len(late) > _NAMED else "")
