"""Starting and ending a session for the services: what an operator does at the microscope.

A session that was activated stands in the catalog as active; ``vitriflow acquire`` and ``vitriflow process``
see it there within seconds and do the rest.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session as OrmSession

from vitriflow.catalog import (
    Catalog,
    Event,
    Exposure,
    ExposureState,
    Microscope,
    Session,
    SessionState,
    now,
    take_lease,
    this_owner,
)
from vitriflow.config import Config, MicroscopeSection
from vitriflow.elogbook import find_session, open_session, set_session_state, write_session_record
from vitriflow.errors import BadFile, BadParameter
from vitriflow.facility.choose import (
    choose_microscope,
    choose_session_key,
    choose_template,
    join_parameters,
)
from vitriflow.facility.conduct import take_up
from vitriflow.facility.gains import choose_gain, keep_gain, wants_gain
from vitriflow.facility.launch import find_template, scopes_of
from vitriflow.facility.new_folder import folders_of
from vitriflow.pipeline import Template, make_plan, parse_template, start_processing
from vitriflow.storage import SessionFolder, make_session_folder, session_folder

AUTO = "auto"
AWAITS = "awaits_source"  # in a session's settings, until its folder has appeared
PENDING = "processing"  # in a session's settings, until its processing has begun
UNPROCESSED = "no_processing"  # in a session's settings: files are only taken in
FACILITY = "facility"  # in a session's settings: the microscope's table, frozen
_LEASE_S = 20.0


@dataclass(frozen=True)
class Activation:
    """What an operator says to start a session.

    ``source`` is a folder below one of the microscope's sources, a whole path, or ``auto``: the
    newest folder that appears there from now on. ``pipeline`` is a template at hand, which goes before
    the name of one. ``settings`` is kept with the session;
    ``parameters`` are values of the pipeline's steps; without ``process`` files are only taken in.
    """

    microscope: str | None = None
    experiment: str = "local"
    sample: str = "sample"
    source: str = AUTO
    session: str | None = None
    mode: str | None = None
    template: str | None = None
    pipeline: Template | None = None
    processing: str = "live"
    parameters: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    process: bool = True


def activate(config: Config, catalog: Catalog, wanted: Activation) -> Session:
    """Open a session on a microscope, make its folder and begin its processing.

    Where a gain reference is to be chosen from the microscope's folder, the processing begins
    with the first movie, since the reference has to fit it.

    Raises
    ------
    BadParameter, BadTemplate
        When something said isn't so; nothing was begun then. Also when the microscope has an active
        session: it has to be stopped first.
    Busy
        When somebody else activates a session on this microscope at this moment.
    """
    name, scope = choose_microscope(config, wanted.microscope)
    source = _find_source(name, scope, wanted.source)
    pending: dict[str, Any] | None = None
    if wanted.process:
        template = wanted.pipeline or find_template(
            config,
            choose_template(wanted.template or config.processing.template, source or Path("/nonexistent")),
        )
        template = template.filled(scopes_of(config, catalog, name, scope, wanted.experiment, wanted.sample))
        parameters = join_parameters(template, scope, config.processing.parameters, wanted.parameters)
        make_plan(template, parameters)
        pending = _pending(wanted.processing, template, parameters)
    lease = take_lease(catalog, f"activation/{name}", this_owner("activate"), _LEASE_S)
    try:
        _refuse_second(catalog, name, wanted.session)
        session = _open(config, catalog, wanted, name, scope, source, pending)
    finally:
        lease.release(catalog)
    try:
        _make_folder(catalog, session)
        begin_processing(config, catalog, session.id)
    except BaseException:
        set_session_state(catalog, session.key, SessionState.CLOSED)
        raise
    return find_session(catalog, session.key)


def active_session(catalog: Catalog, microscope: str) -> Session | None:
    """The session that this microscope works on now; None when there's none."""
    query = (
        select(Session)
        .join(Microscope, Microscope.id == Session.microscope_id)
        .where(Microscope.name == microscope, Session.state == SessionState.ACTIVE)
        .order_by(Session.id.desc())
        .limit(1)
    )
    return catalog.read(lambda orm: orm.scalar(query))


def end_session(catalog: Catalog, key: str, state: SessionState) -> Session:
    """Pause, resume or close a session, and write its record.

    Raises
    ------
    BadParameter
        When there's no such session, or it's to go on while its microscope works on another.
    """
    session = find_session(catalog, key)
    if state == SessionState.ACTIVE:
        name = catalog.read(lambda orm: orm.get_one(Microscope, session.microscope_id).name)
        _refuse_second(catalog, name, key)
    session = set_session_state(catalog, key, state)
    folder = SessionFolder(Path(session.root))
    if folder.root.is_dir():
        write_session_record(catalog, key, folder.record)
    return session


def put_off_processing(
    catalog: Catalog, session_id: int, name: str, template: Template, parameters: Mapping[str, Any]
) -> None:
    """Note the processing that :func:`begin_processing` is to begin once there's a movie."""
    change_settings(catalog, session_id, {PENDING: _pending(name, template, parameters)})


def begin_processing(config: Config, catalog: Catalog, session_id: int, *, wait: bool = True) -> int | None:
    """Begin the processing that a session was activated with, if that can be done by now.

    Parameters
    ----------
    wait
        For the first movie, where a gain reference is to be chosen by it. Without, and without a
        movie, the processing begins with no reference.

    Returns
    -------
    int or None
        Its number; None when there's nothing to begin, or the first movie isn't there yet.
    """
    session, microscope, first = catalog.read(lambda orm: _standing(orm, session_id))
    wanted = (session.settings or {}).get(PENDING)
    if wanted is None:
        return None
    template = parse_template(wanted["template"], f"template of processing '{wanted['name']}'")
    parameters = dict(wanted["parameters"])
    scope = config.microscopes.get(microscope, MicroscopeSection())
    folder = SessionFolder(Path(session.root))
    if wants_gain(template, scope, parameters):
        if first is None and wait:
            return None
        if first is not None:
            parameters |= _gain_for(catalog, session, scope, first, folder, parameters)
    number = start_processing(
        catalog, session_id, wanted["name"], template, parameters, folder.processed(wanted["name"])
    )
    take_up(config, catalog, number)
    change_settings(catalog, session_id, {PENDING: None})
    return number


def change_settings(catalog: Catalog, session_id: int, changes: Mapping[str, Any], **columns: Any) -> None:
    """Change entries of a session's settings (None takes one out), and columns of its row."""

    def work(orm: OrmSession) -> None:
        row = orm.get_one(Session, session_id)
        joined = {**(row.settings or {}), **changes}
        row.settings = {name: value for name, value in joined.items() if value is not None}
        for name, value in columns.items():
            setattr(row, name, value)

    catalog.write(work)


def default_processing(config: Config, catalog: Catalog, session_id: int) -> None:
    """Give a session without any processing the one that the facility does by default, to begin."""
    session, microscope, _ = catalog.read(lambda orm: _standing(orm, session_id))
    scope = config.microscopes.get(microscope, MicroscopeSection())
    template = find_template(
        config, choose_template(config.processing.template, Path(session.source))
    ).filled({})
    parameters = join_parameters(template, scope, config.processing.parameters, {})
    put_off_processing(catalog, session_id, "live", template, parameters)


def _standing(orm: OrmSession, session_id: int) -> tuple[Session, str, Exposure | None]:
    session = orm.get_one(Session, session_id)
    first = (
        select(Exposure)
        .where(Exposure.session_id == session_id, Exposure.state == ExposureState.COMPLETE)
        .order_by(Exposure.id)
        .limit(1)
    )
    return session, orm.get_one(Microscope, session.microscope_id).name, orm.scalar(first)


def _gain_for(
    catalog: Catalog,
    session: Session,
    scope: MicroscopeSection,
    first: Exposure,
    folder: SessionFolder,
    parameters: Mapping[str, Any],
) -> dict[str, Any]:
    """The chosen reference as a parameter, kept with the session; people are told which, or that none fits."""
    try:
        path = choose_gain(scope, Path(first.path), first.details, parameters.get("gain_orientation"))
        kept = None if path is None else keep_gain(path, folder.root / "gain")
    except (BadFile, OSError) as error:
        path, kept, why = None, None, str(error)
    else:
        why = "none there fits its size"
    if kept is None:
        severity = "alarm"
        text = (
            f"No gain reference was found for the first movie, {first.key} ({why}); movies are processed "
            "without one. Name it with --set gain_reference=FILE in a new processing."
        )
    else:
        severity, text = "info", f"Gain reference: {path}, the newest that fits the first movie, {first.key}"
    event = Event(at=now(), session_id=session.id, severity=severity, text=text)
    catalog.write(lambda orm: orm.add(event))
    return {} if kept is None else {"gain_reference": str(kept)}


def _find_source(name: str, scope: MicroscopeSection, said: str) -> Path | None:
    """The folder that an operator means; None for the next one to appear."""
    if said == AUTO:
        if scope.sources:
            return None
        raise BadParameter(
            f"source of {name}",
            "the folder of this session",
            "'auto', and no sources of this microscope in facility.toml",
            f"Give --source FOLDER, or add sources to [microscopes.{name}].",
        )
    path = Path(said).expanduser()
    tried = [path] if path.is_absolute() else [source / path for source in scope.sources]
    if not path.is_absolute() and not scope.sources:
        tried = [path.absolute()]
    found = [one for one in tried if one.is_dir()]
    if found:
        return found[0]
    there = [f"{folder.name}" for source in scope.sources for folder in folders_of(source)][:6]
    raise BadParameter(
        f"folder {said}",
        "a folder that the microscope writes, such as " + ", ".join(there)
        if there
        else "a folder that is there",
        "nothing at " + " or ".join(map(str, tried)),
        "Check the name, and that the share is mounted; --source auto takes the next folder to appear.",
    )


def _known_folders(name: str, scope: MicroscopeSection) -> dict[str, list[str]]:
    """Names of the folders that are there before the session's own appears."""
    known = {}
    for source in scope.sources:
        try:
            known[str(source)] = sorted(entry.name for entry in source.iterdir())
        except OSError as error:
            raise BadParameter(
                f"source {source} of {name}",
                "a folder that can be listed, so that a new one in it is known as new",
                error.strerror or str(error),
                "Mount the share, or name the session's folder with --source.",
            ) from error
    return known


def _open(
    config: Config,
    catalog: Catalog,
    wanted: Activation,
    name: str,
    scope: MicroscopeSection,
    source: Path | None,
    pending: Mapping[str, Any] | None,
) -> Session:
    settings: dict[str, Any] = {**wanted.parameters, **wanted.settings, FACILITY: scope.table()}
    if pending is not None:
        settings[PENDING] = pending
    else:
        settings[UNPROCESSED] = True
    if source is None:
        settings[AWAITS] = _known_folders(name, scope)
    moment = now()
    place = source or scope.sources[0]
    key = wanted.session or (
        choose_session_key(place, moment) if source else f"{name}-{moment:%Y%m%d-%H%M%S}"
    )
    return open_session(
        catalog,
        key=key,
        source=place,
        microscope=name,
        experiment=wanted.experiment,
        sample=wanted.sample,
        settings=_plain(settings),
        mode=wanted.mode or scope.transfer,
        root_of=lambda when: (
            session_folder(config.storage.root, when, wanted.experiment, name, wanted.sample, key).root
        ),
    )


def _make_folder(catalog: Catalog, session: Session) -> None:
    folder = SessionFolder(Path(session.root))
    if AWAITS in session.settings and session.mode != "copy":
        folder.root.mkdir(parents=True, exist_ok=True, mode=0o750)  # the link to its source comes later
    else:
        make_session_folder(folder, Path(session.source), session.mode)
    write_session_record(catalog, session.key, folder.record)


def _refuse_second(catalog: Catalog, microscope: str, key: str | None) -> None:
    active = active_session(catalog, microscope)
    if active is not None and active.key != key:
        raise BadParameter(
            f"microscope '{microscope}'",
            "no session that is active: a microscope works on one at a time",
            f"session {active.key}, active since {active.created_at:%Y-%m-%d %H:%M} UTC",
            f"End it first: vitriflow stop {active.key}",
        )


def _pending(name: str, template: Template, parameters: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": name, "template": template.text, "parameters": _plain(parameters)}


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}
