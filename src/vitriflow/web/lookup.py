"""From a request's names to what the catalog knows: session, processing, rows, one exposure."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from sqlalchemy.orm import Session as OrmSession

from vitriflow.catalog import views
from vitriflow.web.columns import STATUSES, IntArray, Snapshot
from vitriflow.web.files import output_path
from vitriflow.web.overlay import KEEP, REJECT, Overlay
from vitriflow.web.problems import NotFound
from vitriflow.web.site import Site

PICTURES = ("micrograph", "thumbnail", "spectrum")
# Tasks start and stop without a change of what was measured, so their counts don't keep for long.
_NODES_KEPT_S = 2.0


@dataclass(frozen=True)
class Scene:
    """A session, the processing that is shown, and its columns, all from one transaction."""

    session: views.SessionView
    processings: list[views.ProcessingView]
    processing: views.ProcessingView | None
    snapshot: Snapshot
    overlay: Overlay


@dataclass(frozen=True)
class Card:
    """One exposure as the gallery shows it."""

    id: int
    number: int
    name: str
    status: str
    reason_code: str
    reason: str
    quality: str
    values: dict[str, float | None]
    complete_at: float | None
    thumbnail: str | None
    mark: str = ""  # keep or reject, by people
    commented: bool = False
    passes: bool = True  # within the limits that are set


def find_scene(
    site: Site, db: OrmSession, key: str, processing: str | None = None, *, positions: bool = False
) -> Scene:
    """The session of that key with the processing of that name (the newest if none is named).

    With ``positions``, its overlay knows where exposures lie.

    Raises
    ------
    NotFound
        When there's no such session or processing.
    """
    session = views.find_session(db, key)
    if session is None:
        raise NotFound(
            "session",
            expected="the key of a session",
            found=key,
            remedy="The list is at /, and given by 'vitriflow status'.",
        )
    known = views.list_processings(db, session.id)
    chosen = views.main_processing(known)
    if processing:
        chosen = next((one for one in known if one.name == processing), None)
        if chosen is None:
            raise NotFound(
                "processing",
                expected="one of " + ", ".join(one.name for one in known) if known else "none exists yet",
                found=processing,
                remedy="Leave the name out to get the newest.",
            )
    overlay = site.overlays.overlay(db, session.id, chosen.id if chosen else None, positions=positions)
    return Scene(session, known, chosen, site.columns.snapshot(db, session.id, chosen), overlay)


def node_counts(site: Site, db: OrmSession, scene: Scene) -> list[views.NodeView]:
    """Tasks by node and state; counted again only when something changed."""
    if scene.processing is None:
        return []
    known = scene.snapshot.cache.get("nodes")
    if known is None or time.monotonic() - known[0] > _NODES_KEPT_S:
        known = (time.monotonic(), site.tally.nodes(db, scene.processing.id))
        scene.snapshot.cache["nodes"] = known
    counts: list[views.NodeView] = known[1]
    return counts


def node_roles(site: Site, db: OrmSession, processing: views.ProcessingView) -> dict[str, str]:
    """What kind of result each node makes (motion, ctf, pick, preview), told from a record of it."""
    known = site.roles.get(processing.id)
    if known is None or "preview" not in known.values():
        known = {node: role_of(record) for node, record in views.sample_records(db, processing.id).items()}
        site.roles[processing.id] = known
    return known


def role_of(record: dict[str, Any] | None) -> str:
    """What kind of result a record is: any step that leaves the typed record counts, not just ours."""
    if not record:
        return ""
    for name, role in (
        ("frame_shifts_A", "motion"),
        ("defocus_u_A", "ctf"),
        ("n_picks", "pick"),
        ("scale", "preview"),
    ):
        if name in record:
            return role
    return ""


def picture_url(key: str, exposure_id: int, name: str, result_id: int, processing: str) -> str:
    """Address of a picture; it changes when the picture's result does, so browsers may keep it."""
    where = f"/api/sessions/{quote(key, safe='')}/exposures/{exposure_id}/picture/{name}"
    return f"{where}?processing={quote(processing, safe='')}&result={result_id}"


def preview_node(site: Site, db: OrmSession, processing: views.ProcessingView) -> str | None:
    """The node whose results hold the pictures, or None while there's none."""
    roles = node_roles(site, db, processing)
    return next((node for node, role in roles.items() if role == "preview"), None)


def find_preview(site: Site, db: OrmSession, scene: Scene, exposure_id: int) -> dict[str, Any] | None:
    """The record that names an exposure's pictures, or None while there's none."""
    if scene.processing is None:
        return None
    node = preview_node(site, db, scene.processing)
    if node is None:
        return None
    found = views.records_of(db, scene.processing.id, node, [exposure_id])
    return found[exposure_id][1] if exposure_id in found else None


def cards(site: Site, db: OrmSession, scene: Scene, rows: Sequence[int] | IntArray) -> list[Card]:
    """Some exposures as the gallery shows them, in the order given."""
    snapshot = scene.snapshot
    ids = [int(snapshot.ids[row]) for row in rows]
    names = views.exposure_names(db, scene.session.id, ids)
    processing = scene.processing
    aside = [int(snapshot.ids[row]) for row in rows if snapshot.status[row] >= STATUSES.index("rejected")]
    why = views.reasons(db, scene.session.id, processing.id if processing else None, aside)
    records: dict[int, tuple[int, dict[str, Any]]] = {}
    node = preview_node(site, db, processing) if processing else None
    if processing and node:
        records = views.records_of(db, processing.id, node, ids)
    marks, passes = scene.overlay.marks(snapshot), scene.overlay.passing(snapshot)
    made = []
    for row, exposure_id in zip(rows, ids, strict=True):
        result_id, record = records.get(exposure_id, (0, None))
        thumbnail = None
        if processing and output_path(record, "thumbnail"):
            thumbnail = picture_url(scene.session.key, exposure_id, "thumbnail", result_id, processing.name)
        complete = float(snapshot.times["complete"][row])
        made.append(
            Card(
                id=exposure_id,
                number=int(row) + 1,
                name=names.get(exposure_id, f"exposure {exposure_id}"),
                status=STATUSES[snapshot.status[row]],
                reason_code=snapshot.lexicon.word(snapshot.reason[row]),
                reason=why.get(exposure_id, ""),
                quality=snapshot.lexicon.word(snapshot.quality[row]),
                values={name: _value(snapshot.values[name][row]) for name in views.QUANTITIES},
                complete_at=_value(complete),
                thumbnail=thumbnail,
                mark={KEEP: "keep", REJECT: "reject"}.get(int(marks[row]), ""),
                commented=exposure_id in scene.overlay.comments,
                passes=bool(passes[row]),
            )
        )
    return made


def _value(number: float) -> float | None:
    return None if number != number else float(number)
