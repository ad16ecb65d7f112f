"""Two processings side by side: paired values of the exposures that both measured."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy.orm import Session as OrmSession

from vitriflow.catalog import views
from vitriflow.web import words
from vitriflow.web.lookup import Scene, find_scene
from vitriflow.web.problems import NotFound
from vitriflow.web.site import Site
from vitriflow.web.table import SHOWN

_POINTS = 1500  # drawn of a pair of columns


@dataclass(frozen=True)
class Pair:
    """Medians of one quantity over the exposures that both processings measured."""

    name: str
    label: str
    unit: str
    first: str
    second: str
    change: str
    both: int


def compared(site: Site, db: OrmSession, key: str, first: str, second: str) -> tuple[Scene, Scene]:
    """The two processings of those names; without, the newest, and the one that speaks for the session.

    Raises
    ------
    NotFound
        When there's none of that name, or no other to compare with.
    """
    known = find_scene(site, db, key).processings  # newest first
    main = views.main_processing(known)
    if main is None:
        raise NotFound("processing", "two to compare", "none yet", "Process the session first.")
    second = second or known[0].name
    others = [one.name for one in (main, known[-1], known[0]) if one.name != second]
    if not first and not others:
        raise NotFound("processing", "two to compare", f"only '{second}'", "Process the session again first.")
    return find_scene(site, db, key, first or others[0]), find_scene(site, db, key, second)


def paired(one: Scene, two: Scene, name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A quantity of the exposures that both processings measured, in the same order."""
    _, a, b = np.intersect1d(one.snapshot.ids, two.snapshot.ids, return_indices=True)
    left, right = one.snapshot.values[name][a], two.snapshot.values[name][b]
    both = np.isfinite(left) & np.isfinite(right)
    return left[both], right[both]


def pair_of(one: Scene, two: Scene, name: str) -> Pair:
    """A line of the table of medians."""
    left, right = paired(one, two, name)
    shown = words.QUANTITIES[name]
    if not len(left):
        return Pair(name, shown.label, shown.unit, words.DASH, words.DASH, words.DASH, 0)
    first, second, change = (float(np.median(v)) for v in (left, right, right - left))
    texts = [words.number(value, shown.digits) for value in (first, second, change)]
    return Pair(
        name, shown.label, shown.unit, texts[0], texts[1], ("+" if change > 0 else "") + texts[2], len(left)
    )


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Parameters that two processings were given differently: name, first, second."""
    names = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
    return [
        (name, str(old.get(name, "as in the template")), str(new.get(name, "as in the template")))
        for name in names
    ]


def as_json(one: Scene, two: Scene) -> dict[str, Any]:
    """A comparison as the API and the commands give it."""
    assert one.processing is not None
    assert two.processing is not None
    pairs = differences(one.processing.parameters, two.processing.parameters)
    return {
        "first": one.processing.name,
        "second": two.processing.name,
        "counts": {
            scene.processing.name: scene.snapshot.counts() for scene in (one, two) if scene.processing
        },
        "parameters": [{"name": name, "first": old, "second": new} for name, old, new in pairs],
        "medians": [asdict(pair_of(one, two, name)) for name in SHOWN],
    }


def plot_of(left: NDArray[np.float64], right: NDArray[np.float64]) -> dict[str, Any] | None:
    """Points of the paired plot in a square of 100, y downwards, and its range; None without any."""
    if not len(left):
        return None
    step = -(-len(left) // _POINTS)
    left, right = left[::step], right[::step]
    low, high = np.percentile(np.concatenate([left, right]), (0.5, 99.5))
    wide = (high - low) or abs(high) or 1.0
    low, high = low - 0.05 * wide, high + 0.05 * wide
    x, y = (np.clip(100 * (v - low) / (high - low), 0, 100) for v in (left, right))
    points = np.round(np.stack([x, 100 - y], axis=1), 2).tolist()
    return {"points": points, "low": float(low), "high": float(high)}
