"""A session's report: one HTML file with everything in it, for a public web server, a memory stick or paper."""

import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import orjson
from jinja2 import ChoiceLoader, DictLoader, PackageLoader, StrictUndefined, TemplateError
from jinja2.sandbox import SandboxedEnvironment
from sqlalchemy import func, select
from sqlalchemy.orm import Session as OrmSession

import vitriflow
from vitriflow import words
from vitriflow.catalog import (
    Alarm,
    Catalog,
    Event,
    Exposure,
    ExposureState,
    LogEntry,
    Measure,
    Microscope,
    OpticsGroup,
    now,
    views,
)
from vitriflow.config import Config
from vitriflow.elogbook import ImagingParameters
from vitriflow.errors import BadConfig, BadParameter
from vitriflow.facility.report_numbers import Columns, read_columns
from vitriflow.facility.report_people import limits_said, people_said, verdict_of
from vitriflow.facility.report_pictures import as_data, pictures
from vitriflow.facility.report_plots import plots
from vitriflow.facility.report_text import in_short, methods
from vitriflow.storage import safe_name

SUFFIX = ".report.html"
_SHIPPED = "report.html"
_OWN = "facility's own template"
_MOST = 500  # log entries and alarms each
_MODE = 0o644  # it's made to be read by others


@dataclass(frozen=True)
class Report:
    """A report: the page, and the numbers in it ready for JSON."""

    key: str
    html: str
    values: Mapping[str, Any]

    @property
    def is_final(self) -> bool:
        """Whether the session is closed and nothing of it is open."""
        return self.values["session"]["state"] == "closed" and not self.values["counts"]["open"]

    def as_json(self) -> bytes:
        """The numbers as JSON."""
        return orjson.dumps(self.values, option=orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY)


def make_report(config: Config, catalog: Catalog, key: str, processing: str | None = None) -> Report:
    """Make the report of a session as it stands now.

    Parameters
    ----------
    config
        Of this facility: its name, its own template, and how many pictures.
    key
        The session.
    processing
        The name of one of its processings; the newest without.

    Raises
    ------
    BadParameter
        When there's no such session or processing.
    BadConfig
        When the facility's own template can't be used.
    """
    values, extra = catalog.read(lambda orm: _gather(config, orm, key, processing))
    found = {
        kind: [{**one, "picture": as_data(one["path"])} for one in some]
        for kind, some in extra["pictures"].items()
    }
    shown = {**values, "plots": plots(extra["columns"]), "pictures": found}
    return Report(values["session"]["key"], _render(config.reports.template, shown), values)


def write_report(report: Report, target: Path | None, config: Config) -> Path:
    """Put a report on disk, whole or not at all.

    Parameters
    ----------
    target
        A file, or a folder that is there; without it ``[reports] publish_to``, else the session's own folder.

    Returns
    -------
    The file.

    Raises
    ------
    BadParameter
        When it can't be written there.
    """
    place = target or config.reports.publish_to or Path(str(report.values["session"]["root"]))
    try:
        if target is None and config.reports.publish_to is not None:
            place.mkdir(parents=True, exist_ok=True)
        if place.is_dir():
            place = place / f"{safe_name(report.key)}{SUFFIX}"
        _put(place, report.html.encode("utf-8"))
    except OSError as error:
        raise BadParameter(
            str(place),
            "a file that can be written",
            error.strerror or str(error),
            "Name another with --to, or correct [reports] publish_to.",
        ) from error
    return place


def _put(path: Path, data: bytes) -> None:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".report-")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(_MODE)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


# ---- what's in it


def _gather(
    config: Config, orm: OrmSession, key: str, processing: str | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    session = views.find_session(orm, key)
    if session is None:
        raise BadParameter(
            f"session '{key}'", "a session's name", "none such", "'vitriflow status' lists them."
        )
    known = views.list_processings(orm, session.id)
    chosen = views.main_processing(known)
    if processing is not None:
        chosen = next((one for one in known if one.name == processing), None)
        if chosen is None:
            names = ", ".join(one.name for one in known) or "none yet"
            raise BadParameter(
                f"processing '{processing}' of {key}", f"one of: {names}", repr(processing), "Check it."
            )
    columns = read_columns(orm, session.id, chosen)
    records = views.sample_records(orm, chosen.id) if chosen else {}
    values = {
        "facility": config.facility.name,
        "version": vitriflow.__version__,
        "made_at": now(),
        "session": _session(orm, session) | {"last_finished_at": _last_finished(orm, chosen)},
        "processing": None
        if chosen is None
        else {name: getattr(chosen, name) for name in ("name", "state", "selected", "selection")},
        "in_short": in_short(columns),
        "verdict": asdict(verdict_of(orm, session, chosen, columns)),
        "counts": columns.counts,
        "statistics": columns.statistics(),
        "settings": _settings(session),
        "methods": methods(session, columns, records, _details(orm, session.id)),
        "set_aside": _set_aside(orm, session, chosen, columns),
        "people": people_said(orm, session.id, columns),
        "limits": limits_said(orm, chosen, columns),
        "optics": _optics(orm, session.id),
        "gain": _newest_gain(orm, session.id),
        "alarms": _alarms(orm, session.id),
        "log": _log(orm, session.id),
        "steps": _steps(records),
    }
    some = pictures(orm, session, chosen, columns, config.reports.pictures)
    return values, {"columns": columns, "pictures": some}


def _session(orm: OrmSession, session: views.SessionView) -> dict[str, Any]:
    names = ("key", "state", "sample", "experiment", "experiment_title", "microscope", "source", "root")
    found: dict[str, Any] = {name: getattr(session, name) for name in names}
    first, last = orm.execute(
        select(func.min(Exposure.first_seen_at), func.max(Exposure.first_seen_at)).where(
            Exposure.session_id == session.id
        )
    ).one()
    fixed = orm.scalar(select(Microscope.settings).where(Microscope.name == session.microscope)) or {}
    return found | {
        "created_at": session.created_at,
        "closed_at": session.closed_at,
        "first_at": first,
        "last_at": last,
        "microscope_settings": {
            name: value for name, value in fixed.items() if not isinstance(value, dict | list)
        },
    }


def _last_finished(orm: OrmSession, processing: views.ProcessingView | None) -> datetime | None:
    if processing is None:
        return None
    found = orm.scalar(select(func.max(Measure.finished_at)).where(Measure.processing_id == processing.id))
    return found if found is None or found.tzinfo else found.replace(tzinfo=UTC)


def _settings(session: views.SessionView) -> list[dict[str, Any]]:
    """What was asked for, by the form's own titles; other settings by their names."""
    found = []
    for name, value in session.settings.items():
        if value is None or isinstance(value, dict | list):
            continue
        info = ImagingParameters.model_fields.get(name)
        extra = info.json_schema_extra if info is not None else None
        about = extra if isinstance(extra, dict) else {}
        found.append(
            {
                "name": name,
                "title": (info.title if info is not None else None) or name.replace("_", " "),
                "group": str(about.get("group", "Other")),
                "value": value,
                "unit": str(about.get("unit", "")),
            }
        )
    return found


def _details(orm: OrmSession, session_id: int) -> dict[str, Any]:
    query = (
        select(Exposure.details)
        .where(Exposure.session_id == session_id, Exposure.state == ExposureState.COMPLETE)
        .order_by(Exposure.id.desc())
        .limit(1)
    )
    return dict(orm.scalar(query) or {})


def _set_aside(
    orm: OrmSession, session: views.SessionView, processing: views.ProcessingView | None, columns: Columns
) -> list[dict[str, Any]]:
    found = columns.set_aside()
    ids = [number for one in found for number in one["newest"]]
    names = views.exposure_names(orm, session.id, ids)
    why = views.reasons(orm, session.id, processing.id if processing else None, ids)
    for one in found:
        one["examples"] = [
            {"name": names.get(number, str(number)), "reason": why.get(number, "")}
            for number in one.pop("newest")
        ]
    return found


def _optics(orm: OrmSession, session_id: int) -> list[dict[str, Any]]:
    query = select(Exposure.optics_group, func.count()).where(Exposure.session_id == session_id)
    counts = {row[0]: row[1] for row in orm.execute(query.group_by(Exposure.optics_group))}
    groups = {
        one.number: one
        for one in orm.scalars(select(OpticsGroup).where(OpticsGroup.session_id == session_id))
    }
    return [
        {
            "number": number,
            "name": groups[number].name if number in groups else f"opticsGroup{number}",
            "basis": groups[number].basis if number in groups else "none",
            "centre": [groups[number].centre_x, groups[number].centre_y]
            if number in groups
            else [None, None],
            "exposures": counts.get(number, 0),
        }
        for number in sorted({*counts, *groups})
    ]


def _newest_gain(orm: OrmSession, session_id: int) -> str:
    _, checks = views.people.gain_events(orm, session_id, 0)
    if checks:
        return checks[-1][2]
    query = (
        select(Event.text)
        .where(Event.session_id == session_id, Event.text.startswith("Gain reference"))
        .order_by(Event.id.desc())
        .limit(1)
    )
    return orm.scalar(query) or "The gain reference wasn't checked."


def _alarms(orm: OrmSession, session_id: int) -> list[dict[str, Any]]:
    query = select(Alarm).where(Alarm.session_id == session_id).order_by(Alarm.id).limit(_MOST)
    names = ("severity", "text", "raised_at", "cleared_at", "acknowledged_by")
    return [{name: getattr(row, name) for name in names} for row in orm.scalars(query)]


def _log(orm: OrmSession, session_id: int) -> list[dict[str, Any]]:
    query = (
        select(LogEntry)
        .where(LogEntry.session_id == session_id, LogEntry.struck_at.is_(None))
        .order_by(LogEntry.id)
        .limit(_MOST)
    )
    names = ("at", "author", "automatic", "text")
    return [{name: getattr(row, name) for name in names} for row in orm.scalars(query)]


def _steps(records: Mapping[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Each node's step, versions, and every parameter with where its value came from."""
    found = []
    for node, record in records.items():
        origin = record.get("provenance") or {}
        sources = origin.get("parameter_sources") or {}
        parameters = [
            {"name": name, "value": value, "source": sources.get(name, "")}
            for name, value in sorted((origin.get("parameters") or {}).items())
            if value is not None
        ]
        about = {
            name: origin.get(name, "")
            for name in ("step", "step_version", "vitriflow_version", "host", "device")
        }
        found.append({"node": node, **about, "parameters": parameters})
    return found


# ---- the page


@cache
def _shipped() -> PackageLoader:
    return PackageLoader("vitriflow.facility", "templates")


def _render(template: Path | None, values: Mapping[str, Any]) -> str:
    """The page; everything put in is escaped, and a template of the facility can't reach into the program."""
    own = {}
    if template is not None:
        try:
            own[_OWN] = template.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise BadConfig(
                str(template), "a Jinja2 template in UTF-8", str(error), "Correct [reports] template."
            ) from error
    pages = SandboxedEnvironment(
        loader=ChoiceLoader([DictLoader(own), _shipped()]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pages.filters.update(number=words.number, utc=words.utc, duration=words.duration)
    try:
        return pages.get_template(_OWN if own else _SHIPPED).render(values)
    except TemplateError as error:
        if template is None:
            raise
        line = f", line {error.lineno}" if getattr(error, "lineno", None) else ""  # type: ignore[attr-defined]
        raise BadConfig(
            f"{template}{line}",
            "a template that names only what a report has",
            str(error),
            "Correct it, or start from the shipped one: see the how-to on reports.",
        ) from error
