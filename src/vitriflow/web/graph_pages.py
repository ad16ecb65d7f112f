"""The page that draws a processing's pipeline, with live counts on each node."""

from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse

from vitriflow.facility.graph import processing_graph
from vitriflow.web.api import SessionKey
from vitriflow.web.auth import needs
from vitriflow.web.lookup import find_scene
from vitriflow.web.problems import NotFound
from vitriflow.web.site import site_of

Named = Annotated[str, Query(max_length=64)]
router = APIRouter(include_in_schema=False)
_WIDE, _HIGH, _GAP_X, _GAP_Y, _EDGE = 176, 66, 56, 22, 12
_SHOWN = ("done", "rejected", "quarantined", "failed", "open")


@dataclass(frozen=True)
class Box:
    """One node as it's drawn."""

    name: str
    step: str
    x: int
    y: int
    counts: str
    state: str  # the worst that's there: failed, quarantined, rejected, open, done or nothing
    note: str


@dataclass(frozen=True)
class Drawing:
    """Boxes, lines between them, and the size of it all."""

    width: int
    height: int
    boxes: list[Box]
    lines: list[tuple[str, str]]  # path, what runs along it


def draw(graph: dict[str, Any]) -> Drawing:
    """Place a graph on a plane: columns from left to right, each node in its row."""
    boxes = {node["name"]: _box(node) for node in graph["nodes"]}
    lines = []
    for edge in graph["edges"]:
        one, two = boxes[edge["from"]], boxes[edge["to"]]
        x, y, to_x, to_y = one.x + _WIDE, one.y + _HIGH // 2, two.x, two.y + _HIGH // 2
        middle = (x + to_x) // 2
        text = f"{edge['from']} to {edge['to']}: {edge['kind']}"
        lines.append((f"M{x} {y} C{middle} {y} {middle} {to_y} {to_x} {to_y}", text))
    width = max(box.x for box in boxes.values()) + _WIDE + _EDGE
    height = max(box.y for box in boxes.values()) + _HIGH + _EDGE
    return Drawing(width, height, list(boxes.values()), lines)


def _box(node: dict[str, Any]) -> Box:
    counts = node["counts"]
    said = [f"{counts[name]} {name}" for name in _SHOWN if counts[name]]
    worst = next(
        (name for name in ("failed", "quarantined", "rejected", "open", "done") if counts[name]), "none"
    )
    notes = [f"{number} refused: {code}" for code, number in (node.get("refused") or {}).items()]
    if node.get("batches"):
        notes.append(f"{node['batches']['exposures']} exposures in {node['batches']['batches']} batches")
    if node.get("summary"):
        notes.insert(0, node["summary"])
    return Box(
        node["name"],
        node["step"],
        _EDGE + node["column"] * (_WIDE + _GAP_X),
        _EDGE + node["row"] * (_HIGH + _GAP_Y),
        ", ".join(said) or "nothing yet",
        worst,
        "; ".join(notes),
    )


def _values(request: Request, key: str, processing: str) -> dict[str, Any]:
    site = site_of(request)
    scene = site.read(lambda db: find_scene(site, db, key, processing or None))
    if scene.processing is None:
        raise NotFound("processing", "one that has begun", "none yet", "Wait until processing has begun.")
    graph = processing_graph(site.catalog, scene.processing.id)
    return {
        "scene": scene,
        "session": scene.session,
        "processing": scene.processing,
        "drawing": draw(graph),
        "template": graph["template"],
    }


@router.get("/sessions/{key}/graph", dependencies=[needs("session.read")])
def graph_page(request: Request, key: SessionKey, processing: Named = "") -> HTMLResponse:
    """The pipeline, drawn."""
    return site_of(request).render(request, "session_graph.html", _values(request, key, processing))


@router.get("/sessions/{key}/part/graph", dependencies=[needs("session.read")])
def graph_part(request: Request, key: SessionKey, processing: Named = "") -> HTMLResponse:
    """The drawing alone, for a page that's open."""
    return site_of(request).render(request, "part_graph.html", _values(request, key, processing))
