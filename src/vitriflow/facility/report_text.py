"""What a report says in sentences: a summary that anybody understands, and a paragraph for a methods section."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from vitriflow import words
from vitriflow.catalog import views
from vitriflow.facility.report_numbers import Columns

_DOES = {
    "motion": "Beam-induced motion was corrected",
    "ctf": "the contrast transfer function was estimated",
    "pick": "particles were picked",
}
_ROLES = (("frame_shifts_A", "motion"), ("defocus_u_A", "ctf"), ("n_picks", "pick"))


def in_short(columns: Columns) -> str:
    """The session in one or two sentences."""
    counts = columns.counts
    if not counts["total"]:
        return "No exposures came in."
    ended = counts["total"] - counts["open"]
    text = f"{words.plural(counts['total'], 'exposure')} came in"
    if ended:
        text += f"; {counts['usable'] / ended:.0%} of the {ended:,} that were processed are usable"
    aside = counts["rejected"] + counts["quarantined"] + counts["failed"]
    text += f", {aside:,} were set aside" if aside else ", none was set aside"
    text += f", {counts['open']:,} are open." if counts["open"] else "."
    parts = []
    for name in ("fit_resolution_A", "total_A", "defocus_A", "n_picks"):
        values = columns.values[name][columns.usable]
        values = values[np.isfinite(values)]
        if len(values):
            label = words.QUANTITIES[name].label.lower()
            parts.append(f"{label} {words.quantity(name, float(np.median(values)))}")
    return text + (f" Medians of the usable ones: {', '.join(parts)}." if parts else "")


def methods(
    session: views.SessionView,
    columns: Columns,
    records: Mapping[str, dict[str, Any]],
    details: Mapping[str, Any],
) -> str:
    """A paragraph that can be taken over into a methods section; what isn't known is left out.

    Parameters
    ----------
    records
        A record of each node, by node.
    details
        What an exposure's own files say.
    """
    used = _used(records)

    def known(name: str) -> Any:
        return used.get(name, session.settings.get(name, details.get(name)))

    at = f" at {known('voltage_kV'):g} kV" if _is_number(known("voltage_kV")) else ""
    camera = known("camera") or details.get("detector")
    text = f"{words.plural(columns.counts['total'], 'exposure')} of {session.sample} were recorded on "
    text += f"{session.microscope}{at}"
    text += f" with a {camera} camera" if camera else ""
    if _is_number(known("nominal_magnification")):
        text += f" at a nominal magnification of {known('nominal_magnification'):,.0f}"
    size = known("pixel_size_A")
    text += f" ({size:g} Å per pixel)" if _is_number(size) else ""
    motion = next((one for one in records.values() if "frame_shifts_A" in one), {})
    dose = known("total_dose_e_per_A2") or known("dose_e_per_A2")
    frames = motion.get("n_frames") or known("n_frames")
    if _is_number(dose):
        text += f", with a total dose of {dose:.3g} e/Å²"
    if frames:
        text += f" in {frames} frames"
    slit = known("energy_slit_eV")
    text += f", and an energy slit of {slit:g} eV" if _is_number(slit) and slit else ""
    low, high = known("target_defocus_min_A"), known("target_defocus_max_A")
    if _is_number(low) and _is_number(high):
        text += f". The planned defocus was {low / 1e4:g} to {high / 1e4:g} µm"
    return f"{text}. {_steps(records)}".strip()


def _steps(records: Mapping[str, dict[str, Any]]) -> str:
    said, version = [], ""
    for field, role in _ROLES:
        record = next((one for one in records.values() if field in one and one.get("provenance")), None)
        if record is None:
            continue
        origin = record["provenance"]
        said.append(
            f"{_DOES[role]} with {origin.get('step', 'a step')} (version {origin.get('step_version', '?')})"
        )
        version = str(origin.get("vitriflow_version", ""))
    if not said:
        return ""
    text = ", and ".join([", ".join(said[:-1]), said[-1]]) if len(said) > 1 else said[0]
    return f"{text[0].upper()}{text[1:]}, in vitriflow {version}."


def _used(records: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for record in records.values():
        values = (record.get("provenance") or {}).get("parameters") or {}
        found |= {name: value for name, value in values.items() if value is not None and name not in found}
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
