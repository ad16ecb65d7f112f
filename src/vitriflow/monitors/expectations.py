"""What an operator said of a session, compared with what its exposures say of themselves."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from pydantic import ValidationError
from sqlalchemy import func, select
from sqlalchemy.orm import Session as OrmSession

from vitriflow import words
from vitriflow.catalog import (
    Exposure,
    ExposureState,
    Measure,
    Microscope,
    Processing,
    ResultRow,
    Session,
    SessionState,
)
from vitriflow.elogbook import ImagingParameters
from vitriflow.monitors.alarms import Level, Reading

_NEWEST = 10
_LEAST = 2  # one exposure alone may be a test shot
_DEFOCUSED = 20
_LEAST_DEFOCUSED = 5
_FORMATS = {".mrc": "mrc", ".mrcs": "mrc", ".tif": "tiff", ".tiff": "tiff", ".eer": "eer"}


@dataclass(frozen=True)
class _One:
    """One exposure: its key, software, tilt, metadata, and the frames that processing counted."""

    key: str
    software: str
    tilt_deg: float | None
    details: Mapping[str, Any]
    n_frames: int | None = None


def expectations(orm: OrmSession) -> list[Reading]:
    """Compare each active session's newest exposures with what was said of it; a reading for each thing said.

    Wrong: most of the newest exposures that tell it differ. Over: none of them does any more.
    """
    found = []
    query = (
        select(Session, Microscope.name)
        .join(Microscope, Microscope.id == Session.microscope_id)
        .where(Session.state == SessionState.ACTIVE)
    )
    for session, microscope in orm.execute(query).all():
        asked = _asked(session.settings or {})
        newest = _newest(orm, session.id) if asked else []
        for name, value in asked.items():
            level, text = _compare(orm, session, name, value, newest)
            subject = f"session:{session.key}:{name}"
            severity = "info" if name == "planned_exposures" else "warning"
            found.append(Reading(subject, level, text, None, session.id, microscope, severity))
    return found


def checked_fields() -> list[str]:
    """Names of all imaging parameters that are compared with what arrives."""
    return [
        name
        for name, info in ImagingParameters.model_fields.items()
        if isinstance(info.json_schema_extra, dict) and info.json_schema_extra.get("acts") == "check"
    ]


def _asked(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What was said, of the fields that are compared; 'auto' says nothing."""
    said = {}
    for name in checked_fields():
        if settings.get(name) in (None, "", "auto"):
            continue
        try:
            said[name] = getattr(ImagingParameters.model_validate({name: settings[name]}), name)
        except ValidationError:
            continue
    return said


def _newest(orm: OrmSession, session_id: int) -> list[_One]:
    columns = (
        Exposure.id, Exposure.key, Exposure.software, Exposure.tilt_angle_deg, Exposure.details
    )  # fmt: skip
    query = (
        select(*columns)
        .where(Exposure.session_id == session_id, Exposure.state == ExposureState.COMPLETE)
        .order_by(Exposure.id.desc())
        .limit(_NEWEST)
    )
    rows = orm.execute(query).all()
    frames = (
        select(ResultRow.item_id, ResultRow.record)
        .join(Processing, Processing.id == ResultRow.processing_id)
        .where(
            Processing.session_id == session_id,
            ResultRow.item_type == "exposure",
            ResultRow.item_id.in_([row[0] for row in rows]),
        )
    )
    counted = {item: record.get("n_frames") for item, record in orm.execute(frames) if record.get("n_frames")}
    return [
        _One(key, software or "", tilt, details or {}, counted.get(number))
        for number, key, software, tilt, details in rows
    ]


# ---- one thing said: does an exposure say the same? None where it doesn't say.

Says = Callable[[_One], Any]
Same = Callable[[Any, Any], bool]


def _plain(text: str) -> str:
    return "".join(one for one in text.lower() if one.isalnum())


def _software(one: _One) -> str | None:
    return _plain(one.software or str(one.details.get("software") or "")) or "plain"


def _frames(one: _One) -> list[int] | None:
    known = [one.details.get("n_fractions"), one.details.get("n_raw_frames"), one.n_frames]
    return [int(number) for number in known if number] or None


def _frame_s(one: _One) -> float | None:
    seconds, frames = one.details.get("exposure_time_s"), _frames(one)
    return seconds / frames[0] if seconds and frames else None


def _camera(one: _One) -> list[str] | None:
    return [str(one.details[name]) for name in ("camera", "detector") if one.details.get(name)] or None


def _near(part: float) -> Same:
    return lambda asked, found: abs(found - asked) <= part * abs(asked) + 1e-9


def _is_camera(asked: str, found: list[str]) -> bool:
    name = _plain(asked)
    return any(name in _plain(one) or _plain(one) in name for one in found)


COMPARED: dict[str, tuple[Says, Same]] = {
    "software": (_software, lambda asked, found: found == _plain(asked)),
    "movie_format": (lambda one: _FORMATS.get(PurePosixPath(one.key).suffix.lower()), lambda a, f: a == f),
    "energy_slit_eV": (lambda one: one.details.get("energy_slit_eV"), lambda a, f: abs(a - f) <= 0.5),
    "nominal_magnification": (lambda one: one.details.get("nominal_magnification"), _near(0.005)),
    "camera": (_camera, _is_camera),
    "binning": (lambda one: one.details.get("binning"), _near(0.01)),
    "n_frames": (_frames, lambda asked, found: asked in found),
    "frame_duration_s": (_frame_s, _near(0.05)),
    "exposure_time_s": (lambda one: one.details.get("exposure_time_s"), _near(0.02)),
    "tilt_min_deg": (lambda one: one.tilt_deg, lambda asked, found: found >= asked - 1.0),
    "tilt_max_deg": (lambda one: one.tilt_deg, lambda asked, found: found <= asked + 1.0),
}
_ANY = ("tilt_min_deg", "tilt_max_deg")  # a single one that differs is enough


def _compare(
    orm: OrmSession, session: Session, name: str, value: Any, newest: list[_One]
) -> tuple[Level, str]:
    if name == "planned_exposures":
        return _plan(orm, session, int(value))
    if name in ("target_defocus_min_A", "target_defocus_max_A"):
        return _defocus(orm, session, name, float(value), newest)
    says, same = COMPARED[name]
    known = [found for found in map(says, newest) if found is not None]
    different = [found for found in known if not same(value, found)]
    if not known or (len(known) < _LEAST and name not in _ANY):
        return Level.BETWEEN, ""
    if not different:
        return Level.OVER, ""
    if name not in _ANY and 2 * len(different) <= len(known):
        return Level.BETWEEN, ""
    said = different[0][0] if isinstance(different[0], list) else different[0]
    what, expected, found = _title(name), _shown(name, value), _shown(name, said)
    return Level.WRONG, (
        f"{what} of session {session.key}: {expected} was expected, but the newest exposures say {found}. Correct the "
        "settings of the session or of the microscope."
    )


def _title(name: str) -> str:
    return ImagingParameters.model_fields[name].title or name


def _shown(name: str, value: Any) -> str:
    extra = ImagingParameters.model_fields[name].json_schema_extra
    unit = str(extra.get("unit", "")) if isinstance(extra, dict) else ""
    text = f"{value:.6g}" if isinstance(value, int | float) else str(value)
    return f"{text} {unit}".strip()


def _plan(orm: OrmSession, session: Session, planned: int) -> tuple[Level, str]:
    number = orm.scalar(select(func.count()).where(Exposure.session_id == session.id)) or 0
    if number < planned:
        return Level.OVER, ""
    return Level.WRONG, (
        f"Planned exposures of session {session.key}: {words.number(planned)} were expected, and "
        f"{words.number(number)} are there. To end it: vitriflow stop {session.key}"
    )


def _defocus(
    orm: OrmSession, session: Session, name: str, limit: float, newest: list[_One]
) -> tuple[Level, str]:
    """The median defocus of the newest exposures against one end of the planned range, with 3 % to come back."""
    measured = (
        select(Measure.defocus_A)
        .join(Processing, Processing.id == Measure.processing_id)
        .where(Processing.session_id == session.id, Measure.defocus_A.is_not(None))
        .order_by(Measure.exposure_id.desc())
        .limit(_DEFOCUSED)
    )
    values, how = [value for value in orm.scalars(measured) if value is not None], "measured"
    if len(values) < _LEAST_DEFOCUSED:
        values, how = (
            [one.details["nominal_defocus_A"] for one in newest if one.details.get("nominal_defocus_A")],
            "set",
        )
    if len(values) < _LEAST_DEFOCUSED:
        return Level.BETWEEN, ""
    median = float(np.median(values))
    lowest = name.endswith("min_A")
    if (median < limit) if lowest else (median > limit):
        return Level.WRONG, (
            f"{_title(name)} of session {session.key}: {words.number(limit)} Å was expected, but the "
            f"median {how} of the newest {len(values)} exposures is {words.number(median)} Å. "
            "Focus again, or correct the plan."
        )
    inside = median >= 1.03 * limit if lowest else median <= 0.97 * limit
    return (Level.OVER if inside else Level.BETWEEN), ""
