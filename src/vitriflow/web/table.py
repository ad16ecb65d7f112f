"""All columns of a processing as one binary answer, for a page that draws, brushes and counts by itself.

The answer is: length of the header (4 bytes, little-endian), the header (JSON, padded with spaces so
that the numbers begin at a multiple of 8), then the columns one after the other as the header lists
them. 50,000 exposures are about 4 MB.
"""

import secrets
import struct
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import orjson
from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from numpy.typing import NDArray

from vitriflow.web import words
from vitriflow.web.api import ProcessingName, SessionKey
from vitriflow.web.auth import needs
from vitriflow.web.columns import STATUSES, IntArray
from vitriflow.web.lookup import Scene, find_scene
from vitriflow.web.overlay import Positions
from vitriflow.web.plots import spread
from vitriflow.web.site import site_of

router = APIRouter()
#: Quantities with a plot of their own, in the order of the page.
SHOWN = (
    "total_A",
    "early_A",
    "late_A",
    "defocus_A",
    "astigmatism_A",
    "fit_resolution_A",
    "ice_ring",
    "n_picks",
    "mean_intensity",
    "latency_s",
)
_BYTES = "application/octet-stream"
_TYPES = {"<f8": "f64", "<f4": "f32", "|u1": "u8", "|i1": "i8", "<i4": "i32"}


@router.get(
    "/api/sessions/{key}/table",
    dependencies=[needs("session.read")],
    response_class=Response,
    responses={304: {"description": "The browser has it already."}},
)
def table(
    request: Request,
    key: SessionKey,
    processing: ProcessingName = None,
    since: Annotated[int, Query(ge=-1, le=2**63 - 1, description="change seen last; -1 for all")] = -1,
    known: Annotated[int, Query(ge=0, le=2**63 - 1, description="exposures known")] = 0,
) -> Response:
    """Every exposure's values, places and marks; rows changed after ``since`` only when that's given."""
    site = site_of(request)
    scene = site.read(lambda db: find_scene(site, db, key, processing, positions=True))
    # Measured values hardly shrink, and packing takes longer than sending them.
    headers = {"content-encoding": "identity"}
    if since >= 0:
        return Response(table_bytes(scene, since, known), media_type=_BYTES, headers=headers)
    whole = whole_table(scene)
    headers |= {"etag": whole.tag, "cache-control": "private, no-cache"}
    if whole.tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(whole.body, media_type=_BYTES, headers=headers)


@dataclass(frozen=True)
class Whole:
    """All columns as they are sent, with a name that no other bytes ever had."""

    made_of: tuple[Any, ...]
    tag: str
    body: bytes


def whole_table(scene: Scene) -> Whole:
    """All columns, packed once for each state of the values, marks, limits and places."""
    snapshot, overlay = scene.snapshot, scene.overlay
    # The places themselves, not a number of them: an equal number could be of others.
    made_of = (snapshot.change, snapshot.size, overlay.stamp, overlay.positions)
    known: Whole | None = snapshot.cache.get("table")
    if known is None or known.made_of[:3] != made_of[:3] or known.made_of[3] is not made_of[3]:
        known = Whole(made_of, f'"{secrets.token_urlsafe(12)}"', table_bytes(scene, -1, 0))
        snapshot.cache["table"] = known
    return known


def table_bytes(scene: Scene, since: int, known: int) -> bytes:
    """The answer of ``/table``: see the module."""
    snapshot, overlay = scene.snapshot, scene.overlay
    rows = new_rows(scene, since, known)
    reset = rows is None
    chosen: Any = slice(None) if rows is None else rows
    positions = overlay.positions
    columns: dict[str, NDArray[Any]] = {"id": snapshot.ids[chosen].astype(np.float64)}
    columns["t"] = snapshot.times["complete"][chosen]
    if positions is not None:
        for name in ("x", "y"):
            columns[name] = positions.column(name, snapshot.ids[chosen]).astype(np.float32)
    for name in SHOWN:
        columns[name] = snapshot.values[name][chosen].astype(np.float32)
    if positions is not None:
        for name in ("square", "hole"):
            columns[name] = positions.column(name, snapshot.ids[chosen])
    columns["n"] = (np.arange(snapshot.size, dtype=np.int32) + 1)[chosen]
    columns["status"] = snapshot.status[chosen].astype(np.uint8)
    columns["usable"] = overlay.usable(snapshot)[chosen].astype(np.uint8)
    # Marks change without a change of the processing, and are few: all of them, always.
    marks = overlay.marks(snapshot)
    marked = np.flatnonzero(marks)
    header: dict[str, Any] = {
        "change": snapshot.change,
        "total": snapshot.size,
        "reset": reset,
        "rows": len(columns["id"]),
        "columns": [[name, _TYPES[column.dtype.str]] for name, column in columns.items()],
        "statuses": STATUSES,
        "quantities": {
            name: {**words.QUANTITIES[name]._asdict(), **spread(snapshot, name)} for name in SHOWN
        },
        "limits": overlay.limits,
        "limits_by": overlay.limits_by,
        "limits_at": overlay.limits_at,
        "marks": [snapshot.ids[marked].tolist(), marks[marked].tolist()],
        "commented": sorted(overlay.comments),
        **_places(positions),
    }
    text = orjson.dumps(header, option=orjson.OPT_UTC_Z)
    text += b" " * (-(4 + len(text)) % 8)
    parts = [struct.pack("<I", len(text)), text]
    for column in sorted(columns.values(), key=lambda one: -one.itemsize):
        parts.append(np.ascontiguousarray(column).tobytes())
    header_order = sorted(columns, key=lambda name: -columns[name].itemsize)
    assert header_order == list(columns), "columns stand widest first, so that each is aligned"
    return b"".join(parts)


def _places(positions: Positions | None) -> dict[str, Any]:
    if positions is None:
        return {"squares": [], "holes": [], "square_xy": {}}
    placed = {name: xy for name, xy in positions.places.items() if None not in xy}
    return {"squares": positions.squares, "holes": positions.holes, "square_xy": placed}


def new_rows(scene: Scene, since: int, known: int) -> IntArray | None:
    """Rows after ``since``, or None when the asker had better start afresh.

    Exposures are numbered in order of id. When one comes in between, all later numbers move; that
    shows as an old row among the last ``total - known``.
    """
    snapshot = scene.snapshot
    if since < 0 or since > snapshot.change or known > snapshot.size:
        return None
    added = snapshot.size - known
    if added and not bool(np.all(snapshot.changes[-added:] > since)):
        return None
    return np.asarray(np.flatnonzero(snapshot.changes > since), dtype=np.int64)
