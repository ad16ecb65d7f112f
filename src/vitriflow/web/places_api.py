"""Grid squares by REST: where they are, and what each yields."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from fastapi import APIRouter, Request
from fastapi.responses import Response

from vitriflow.web.api import ProcessingName, SessionKey, json_answer
from vitriflow.web.auth import needs
from vitriflow.web.columns import STATUSES
from vitriflow.web.lookup import Scene, find_scene
from vitriflow.web.site import site_of
from vitriflow.web.verdict import median

router = APIRouter(prefix="/api")
_FEWEST = 5  # exposures, below which a square's share says little


@dataclass(frozen=True)
class Square:
    """What one grid square yields. ``rank`` is 1 for the best; stage positions in um."""

    name: str
    rank: int
    exposures: int
    finished: int
    usable: int
    usable_fraction: float | None
    fit_resolution_A: float | None
    picks_per_exposure: float | None
    stage_x_um: float | None
    stage_y_um: float | None


def rank_squares(scene: Scene) -> list[Square]:
    """Grid squares, the one that yields most first.

    Ordered by the expected share of usable exposures, drawn towards the session's own share where few
    were taken (as if five more had come out like the session); among equals the finer median fit goes first.
    """
    positions, snapshot = scene.overlay.positions, scene.snapshot
    if positions is None or not positions.squares:
        return []
    codes = positions.column("square", snapshot.ids)
    usable = scene.overlay.usable(snapshot)
    ended = snapshot.status != STATUSES.index("open")
    overall = usable.sum() / max(int(ended.sum()), 1)
    order = np.argsort(codes, kind="stable")
    starts = np.searchsorted(codes[order], np.arange(len(positions.squares) + 1))
    found = []
    for code, name in enumerate(positions.squares):
        rows = order[starts[code] : starts[code + 1]]
        if not len(rows):
            continue
        n_usable, n_ended = int(usable[rows].sum()), int(ended[rows].sum())
        good = rows[usable[rows]]
        fit = median(snapshot.values["fit_resolution_A"][good])
        score = (n_usable + _FEWEST * overall) / (n_ended + _FEWEST)
        x, y = _place(scene, name, rows)
        picks = snapshot.values["n_picks"][good]
        picks = picks[np.isfinite(picks)]
        square: dict[str, Any] = {
            "exposures": len(rows),
            "finished": n_ended,
            "usable": n_usable,
            "usable_fraction": n_usable / n_ended if n_ended else None,
            "fit_resolution_A": fit,
            "picks_per_exposure": float(picks.mean()) if len(picks) else None,
            "stage_x_um": x,
            "stage_y_um": y,
        }
        found.append((-round(score, 3), fit if fit is not None else np.inf, name, square))
    found.sort(key=lambda one: one[:3])
    return [Square(name=name, rank=place, **square) for place, (_, _, name, square) in enumerate(found, 1)]


def _place(scene: Scene, name: str, rows: Any) -> tuple[float | None, float | None]:
    """Where a square is: as its own metadata says, else the middle of its exposures."""
    positions = scene.overlay.positions
    if positions is None:
        return None, None
    x, y = positions.places.get(name, (None, None))
    if x is not None and y is not None:
        return x, y
    ids = scene.snapshot.ids[rows]
    return median(positions.column("x", ids)), median(positions.column("y", ids))


@router.get("/sessions/{key}/squares", dependencies=[needs("session.read")])
def squares(request: Request, key: SessionKey, processing: ProcessingName = None) -> Response:
    """Grid squares ranked by what they yield."""
    site = site_of(request)
    scene = site.read(lambda db: find_scene(site, db, key, processing, positions=True))
    return json_answer({"squares": rank_squares(scene)})
