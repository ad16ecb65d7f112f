"""Exposures chosen by the filters of the pages: which they are, and how to say it."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields, replace

import numpy as np
from sqlalchemy.orm import Session as OrmSession

from vitriflow.errors import BadParameter
from vitriflow.web import words
from vitriflow.web.filters import MARKS, PASSES, SET_ASIDE, Filter, chosen, read_brushes
from vitriflow.web.lookup import Scene, find_scene
from vitriflow.web.site import Site

PARTS = tuple(one.name for one in fields(Filter))


def filter_from(parts: Mapping[str, str]) -> Filter:
    """A filter from its parts by name.

    Raises
    ------
    BadParameter
        When a name isn't that of a part. Values are checked when the filter is used.
    """
    for name in parts:
        if name not in PARTS:
            raise BadParameter("filter", "one of " + ", ".join(PARTS), repr(name)[:60])
    return replace(Filter(), **parts)


def is_open(wanted: Filter) -> bool:
    """Whether a filter lets everything through."""
    return not any(value for name, value in asdict(wanted).items() if (name, value) != ("status", "all"))


def exposures_of(scene: Scene, wanted: Filter) -> list[int]:
    """Ids of the exposures that pass a filter.

    Raises
    ------
    BadParameter
        When a part of it isn't a known word.
    """
    rows = np.flatnonzero(chosen(scene.snapshot, scene.overlay, wanted))
    return [int(number) for number in scene.snapshot.ids[rows]]


def find_exposures(
    site: Site, db: OrmSession, key: str, processing: str | None, wanted: Filter
) -> tuple[Scene, list[int]]:
    """A session's processing, and the exposures of it that pass a filter."""
    scene = find_scene(site, db, key, processing, positions=wanted.by_place)
    return scene, exposures_of(scene, wanted)


def filter_words(wanted: Filter, scene: Scene) -> str:
    """A filter in words, such as: done, not rejected by people, fit resolution 0.0 to 4.0 Å."""
    parts = []
    if wanted.status not in ("", "all"):
        parts.append("set aside" if wanted.status == SET_ASIDE else wanted.status)
    if wanted.reason:
        parts.append(words.reason_words(wanted.reason).lower())
    if wanted.mark:
        parts.append(MARKS.get(wanted.mark, wanted.mark))
    if wanted.limits:
        parts.append(f"{PASSES.get(wanted.limits, wanted.limits)} the limits ({_limits(scene)})")
    if wanted.square:
        parts.append(f"grid square {wanted.square}")
    if wanted.hole:
        parts.append(f"foil hole {wanted.hole}")
    parts += [_range(one.quantity, one.low, one.high) for one in read_brushes(wanted.brush)]
    return ", ".join(parts)[:500]


def _limits(scene: Scene) -> str:
    limits: Iterable[str] = (_range(name, *pair) for name, pair in scene.overlay.limits.items())
    return "; ".join(limits) or "none are set"


def _range(name: str, low: float | None, high: float | None) -> str:
    shown = words.QUANTITIES[name]
    ends = [words.DASH if end is None else words.number(end, shown.digits) for end in (low, high)]
    return f"{shown.label.lower()} {ends[0]} to {ends[1]} {shown.unit}".strip()
