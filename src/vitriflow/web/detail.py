"""One exposure with everything that is known of it, for its page and for ``/api``."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session as OrmSession

from vitriflow.catalog import views
from vitriflow.web import words
from vitriflow.web.columns import QUARANTINED, STATUSES
from vitriflow.web.files import output_path
from vitriflow.web.lookup import PICTURES, Scene, picture_url, role_of
from vitriflow.web.problems import NotFound

_PICTURE_FIELDS = ("width", "height", "scale")


@dataclass(frozen=True)
class Detail:
    """One exposure. ``records`` holds the newest record of each role (motion, ctf, pick, preview)."""

    scene: Scene
    exposure: views.ExposureView
    measure: dict[str, Any] | None
    tasks: list[views.TaskView]
    records: dict[str, dict[str, Any]]
    pictures: dict[str, str]
    number: int | None
    previous: int | None
    next: int | None

    @property
    def status(self) -> str:
        """The exposure's own status: open, done, rejected, quarantined or failed."""
        if self.measure is not None:
            return str(self.measure["status"])
        return STATUSES[QUARANTINED] if self.exposure.state == "problem" else "open"

    @property
    def reason_code(self) -> str | None:
        """Why it was set aside, as a code."""
        return (self.measure or {}).get("reason_code") or self.exposure.problem_code

    @property
    def reason(self) -> str | None:
        """Why it was set aside, in a sentence."""
        return (self.measure or {}).get("reason") or self.exposure.problem

    @property
    def spectrum_has_fit(self) -> bool:
        """Whether the spectrum's picture was made from a CTF step's half data, half fit."""
        provenance = self.records.get("preview", {}).get("provenance") or {}
        return "diagnostic" in (provenance.get("inputs") or {})

    @property
    def warnings(self) -> list[tuple[str, str]]:
        """(node, text) of everything that steps warned of."""
        return [
            (task.node, str(text)) for task in self.tasks for text in (task.record or {}).get("warnings", [])
        ]


def find_detail(db: OrmSession, scene: Scene, exposure_id: int) -> Detail:
    """One exposure of a scene.

    Raises
    ------
    NotFound
        When the session has no such exposure.
    """
    exposure = views.find_exposure(db, scene.session.id, exposure_id)
    if exposure is None:
        raise NotFound(
            "exposure",
            expected=f"an exposure of session {scene.session.key}",
            found=str(exposure_id),
            remedy="Open it from the session's gallery.",
        )
    processing = scene.processing
    measure = None if processing is None else views.find_measure(db, processing.id, exposure_id)
    tasks = [] if processing is None else views.tasks_of(db, processing.id, exposure_id)
    records: dict[str, dict[str, Any]] = {}
    pictures: dict[str, str] = {}
    for task in tasks:
        role = role_of(task.record)
        if not role or task.record is None:
            continue
        records[role] = task.record
        if role == "preview" and processing is not None:
            pictures = {
                name: picture_url(scene.session.key, exposure_id, name, task.result_id or 0, processing.name)
                for name in PICTURES
                if output_path(task.record, name)
            }
    ids = scene.snapshot.ids
    row = scene.snapshot.row_of(exposure_id)
    return Detail(
        scene=scene,
        exposure=exposure,
        measure=measure,
        tasks=tasks,
        records=records,
        pictures=pictures,
        number=None if row is None else row + 1,
        previous=int(ids[row - 1]) if row else None,
        next=int(ids[row + 1]) if row is not None and row + 1 < len(ids) else None,
    )


def picks_path(detail: Detail) -> str | None:
    """The STAR with all candidates (or, failing that, the picks), or None before picking."""
    record = detail.records.get("pick")
    return output_path(record, "candidates") or output_path(record, "coordinates")


def micrograph_path(detail: Detail) -> str | None:
    """The micrograph at full size: of the motion step, or the exposure's own where it came as a micrograph."""
    path = output_path(detail.records.get("motion"), "micrograph")
    if path is None and detail.exposure.kind == "micrograph":
        return detail.exposure.path
    return path


def full_size(detail: Detail) -> dict[str, Any] | None:
    """Width and height of the micrograph (px) with the result that its tiles are of; None without one."""
    preview = detail.records.get("preview", {})
    scale, width, height = (preview.get(name) for name in ("scale", "width", "height"))
    if not (scale and width and height) or micrograph_path(detail) is None:
        return None
    result = next((task.result_id for task in detail.tasks if role_of(task.record) == "motion"), None)
    return {"width": round(width / scale), "height": round(height / scale), "result": result or 0}


def as_json(detail: Detail) -> dict[str, Any]:
    """What ``/api/sessions/KEY/exposures/ID`` answers."""
    exposure = detail.exposure
    measure = detail.measure or {}
    return {
        "id": exposure.id,
        "number": detail.number,
        "key": exposure.key,
        "item": exposure.item,
        "kind": exposure.kind,
        "software": exposure.software,
        "state": exposure.state,
        "size_bytes": exposure.size,
        "blake3": exposure.blake3,
        "optics_group": exposure.optics_group,
        "metadata": exposure.details,
        "first_seen_at": exposure.first_seen_at,
        "complete_at": exposure.complete_at,
        "copied_at": exposure.copied_at,
        "proved_at": exposure.proved_at,
        "status": detail.status,
        "reason_code": detail.reason_code,
        "reason": detail.reason,
        "warnings": [{"node": node, "text": text} for node, text in detail.warnings],
        "values": {name: measure.get(name) for name in views.QUANTITIES},
        "ctf_quality": measure.get("ctf_quality"),
        "first_result_at": measure.get("first_result_at"),
        "finished_at": measure.get("finished_at"),
        "previous": detail.previous,
        "next": detail.next,
        "pictures": detail.pictures,
        "preview": {name: detail.records.get("preview", {}).get(name) for name in _PICTURE_FIELDS},
        "full": full_size(detail),
        "has_picks": picks_path(detail) is not None,
        "nodes": [_node_json(task) for task in detail.tasks],
    }


def _node_json(task: views.TaskView) -> dict[str, Any]:
    return {
        "node": task.node,
        "role": role_of(task.record),
        "revision": task.revision,
        "state": task.state,
        "attempts": task.attempts,
        "reason_code": task.reason_code,
        "reason": task.reason,
        "queued_at": task.queued_at,
        "started_at": task.started_at,
        "finished_at": task.finished_at,
        "worker": task.worker,
        "failed_attempts": [
            {"number": a.number, "reason_code": a.reason_code, "reason": a.reason, "ended_at": a.ended_at}
            for a in task.failed_attempts
        ],
        "result": task.record,
    }


# Numbers of each kind of record worth a line on the page: (field, label, unit, digits).
FACTS: dict[str, tuple[tuple[str, str, str, int], ...]] = {
    "motion": (
        ("total_A", "Path, all frames", "Å", 1),
        ("early_A", "Path up to 4 e/Å²", "Å", 1),
        ("late_A", "Path after 4 e/Å²", "Å", 1),
        ("net_A", "First to last frame", "Å", 1),
        ("n_frames", "Frames", "", 0),
        ("pixel_size_A", "Pixel of the micrograph", "Å", 3),
        ("dose_per_frame_e_per_A2", "Dose per frame", "e/Å²", 2),
        ("mean_intensity", "Mean counts per pixel and frame", "", 3),
        ("hot_pixels", "Hot pixels repaired", "", 0),
        ("patch_fallbacks", "Patches fallen back to global", "", 0),
    ),
    "ctf": (
        ("defocus_u_A", "Defocus U", "Å", 0),
        ("defocus_v_A", "Defocus V", "Å", 0),
        ("astigmatism_A", "Astigmatism", "Å", 0),
        ("defocus_angle_deg", "Angle of U", "°", 1),
        ("phase_shift_deg", "Phase shift", "°", 1),
        ("fit_resolution_A", "Fits to", "Å", 2),
        ("cross_correlation", "Correlation", "", 3),
        ("defocus_uncertainty_A", "Defocus uncertainty", "Å", 0),
        ("angle_uncertainty_deg", "Angle uncertainty", "°", 1),
        ("phase_uncertainty_deg", "Phase uncertainty", "°", 1),
        ("tilt_deg", "Specimen tilt", "°", 1),
        ("tilt_axis_deg", "Tilt axis", "°", 0),
        ("ice_ring", "Ice ring strength", "", 2),
    ),
    "pick": (
        ("n_picks", "Picks", "", 0),
        ("n_candidates", "Candidates", "", 0),
        ("threshold", "Score threshold", "", 3),
        ("particle_diameter_A", "Diameter", "Å", 0),
        ("masked_fraction", "Masked as carbon, ice, dirt (of 1)", "", 2),
    ),
}


def facts(detail: Detail, role: str) -> list[tuple[str, str]]:
    """Label and value with unit of each number that a role's record has."""
    record = detail.records.get(role)
    # What was set aside by its own step carries no measured values, only their defaults.
    if record is None or record.get("status") in ("quarantined", "failed"):
        return []
    lines = []
    for name, label, unit, digits in FACTS[role]:
        value = record.get(name)
        if not isinstance(value, int | float) or isinstance(value, bool):
            continue
        text = words.number(value, digits)
        lines.append((label, text + unit if unit == "°" else f"{text} {unit}".strip()))
    if role == "motion":
        lines.append(("Dose weighted", "yes" if record.get("dose_weighted") else "no"))
        lines.append(("Gain", str(record.get("gain_applied") or "none")))
    if role == "ctf" and record.get("quality"):
        lines.append(("Judged", str(record["quality"])))
    return lines


# Names of metadata.md that people look for first, with their label and unit.
METADATA: tuple[tuple[str, str, str], ...] = (
    ("pixel_size_A", "Pixel size", "Å"),
    ("voltage_kV", "Voltage", "kV"),
    ("spherical_aberration_mm", "Cs", "mm"),
    ("nominal_magnification", "Magnification", "x"),
    ("exposure_time_s", "Exposure time", "s"),
    ("dose_e_per_A2", "Dose", "e/Å²"),
    ("nominal_defocus_A", "Defocus asked for", "Å"),
    ("acquired_at", "Acquired (microscope's clock)", ""),
    ("camera", "Camera", ""),
    ("software", "Software", ""),
)


def metadata_lines(detail: Detail) -> list[tuple[str, str]]:
    """What the exposure's own files said, as label and text; nested values are left to the API."""
    known = detail.exposure.details
    lines = []
    for name, label, unit in METADATA:
        value = known.get(name)
        if isinstance(value, dict) and "value" in value:
            value = value["value"]
        if isinstance(value, bool) or not isinstance(value, str | int | float) or value == "":
            continue
        text = value if isinstance(value, str) else f"{value:,.6g}"
        lines.append((label, f"{text} {unit}".strip()))
    return lines
