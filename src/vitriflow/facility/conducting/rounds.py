"""What a microscope's own DAG asks: which session, is all ready for it, how far are its files, may disks be freed."""

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import exists, func, or_, select
from sqlalchemy.orm import Session as OrmSession

from vitriflow.catalog import (
    Catalog,
    Conducted,
    Experiment,
    Exposure,
    ExposureState,
    FileState,
    Measure,
    Microscope,
    Processing,
    Sample,
    Session,
    SessionState,
    SourceFile,
    now,
)
from vitriflow.catalog.views import selection_of
from vitriflow.config import Config
from vitriflow.elogbook import find_session
from vitriflow.elogbook.permissions import Caller
from vitriflow.errors import BadParameter
from vitriflow.facility.access import publish_access
from vitriflow.facility.activation import AWAITS, begin_processing
from vitriflow.facility.conduct import dag_name, take_up
from vitriflow.facility.conducting.lots import has_open, waiting_for
from vitriflow.facility.release import release_round
from vitriflow.facility.reprocess import reprocess
from vitriflow.storage import SessionFolder, make_session_folder

_JUST_CLOSED = timedelta(minutes=10)  # files of a session that was closed before are in
_ON_WAY = (FileState.SEEN, FileState.COMPLETE, FileState.COPIED)


def round_of(config: Config, catalog: Catalog, microscope: str, key: str | None = None) -> dict[str, Any]:
    """What a microscope works on now, as the elogbook says; or how a given session of it stands.

    Returns
    -------
    ``session`` is None when there's nothing to do. Else ``session``, ``state``, ``experiment``, ``sample``,
    ``dag``, ``files`` (counts by state), ``exposures`` (counts), ``waiting`` (not handed out yet), ``over``
    (nothing more will come and all is handed out) and ``next`` (another session is active meanwhile).

    Raises
    ------
    BadParameter
        When the microscope isn't configured, or it has no such session.
    """
    _known(config, microscope)
    return catalog.read(lambda orm: _round(orm, microscope, key))


def prepare(config: Config, catalog: Catalog, microscope: str, key: str) -> dict[str, Any]:
    """Set up what a session needs: its folders, permissions, gain reference, and its conducted processing.

    It can be asked for again and again; what is there is left as it is.

    Returns
    -------
    ``dag``, ``folder``, ``permissions``, ``gain_reference``, ``processing``: its name, or None while it
    waits for the first movie, by which the gain reference is chosen.

    Raises
    ------
    BadParameter
        When there's no such session, or it's another microscope's.
    """
    session = find_session(catalog, key)
    there = catalog.read(lambda orm: orm.get_one(Microscope, session.microscope_id).name)
    if there != microscope:
        raise BadParameter(f"microscope of session {key}", there, repr(microscope)[:80])
    folder = SessionFolder(Path(session.root))
    if AWAITS not in (session.settings or {}) or session.mode == "copy":
        make_session_folder(folder, Path(session.source), session.mode)
    published = publish_access(config, catalog)
    begin_processing(config, catalog, session.id)

    def look(orm: OrmSession) -> tuple[list[Processing], str]:
        rows = select(Processing).where(Processing.session_id == session.id).order_by(Processing.id)
        sample = orm.get_one(Sample, session.sample_id)
        name = dag_name(orm.get_one(Experiment, sample.experiment_id).name, sample.id)
        return list(orm.scalars(rows)), name

    processings, dag = catalog.read(look)
    for processing in processings:
        take_up(config, catalog, processing.id)
    parameters = processings[-1].parameters if processings else {}
    return {
        "dag": dag,
        "folder": str(folder.root),
        "permissions": [*map(str, published.pam), *published.groups],
        "problems": published.problems,
        "gain_reference": parameters.get("gain_reference"),
        "processing": processings[-1].name if processings else None,
    }


def free(config: Config, catalog: Catalog, microscope: str, *, really: bool) -> dict[str, Any]:
    """Free a microscope's disk, file by file with a permit; a dry run unless the facility permits more.

    Parameters
    ----------
    really
        Remove files. It only counts where ``[release] automatic`` is on.

    Returns
    -------
    The report of :func:`vitriflow.facility.release.release_round` without the lists of files, and ``permitted``.
    """
    _known(config, microscope)
    permitted = config.release.automatic
    try:
        report = release_round(config, catalog, microscope, free=really and permitted, by="airflow").as_json()
    except BadParameter:  # it has had no session yet
        return {"dry_run": True, "permitted": permitted, "files": 0, "bytes": 0, "refused": {}}
    short = {name: report[name] for name in ("dry_run", "files", "bytes", "disks", "folders_removed")}
    return {**short, "permitted": permitted, "refused": report["refused"]["counts"]}


def revise(catalog: Catalog, caller: Caller, dag: str, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Begin a new processing with some parameters changed, and hand its exposures out instead.

    What was frozen stays as it is, beside the new one.

    Raises
    ------
    BadParameter
        When there's no such DAG, nothing would change, or a value is wrong. Nothing was begun then.
    """

    def look(orm: OrmSession) -> tuple[str, str, set[str]]:
        query = (
            select(Processing, Session.key)
            .join(Conducted, Conducted.processing_id == Processing.id)
            .join(Session, Session.id == Processing.session_id)
            .where(Conducted.dag == dag, Conducted.released_at.is_(None))
            .order_by(Processing.id.desc())
            .limit(1)
        )
        row = orm.execute(query).first()
        if row is None:
            raise BadParameter(f"DAG {dag}", "one with a processing that Airflow conducts", "none")
        mine = select(Processing.name).where(Processing.session_id == row[0].session_id)
        return row[1], row[0].name, set(orm.scalars(mine))

    key, base, names = catalog.read(look)
    stem = base.partition("-r")[0]
    number = next(n for n in range(2, 10_000) if f"{stem}-r{n}" not in names)
    name = f"{stem}-r{number}"
    reprocess(catalog, caller, key, base, name, changes)
    return {"session": key, "processing": name, "base": base}


def _known(config: Config, microscope: str) -> None:
    if microscope not in config.microscopes:
        known = ", ".join(config.microscopes) or "none is configured"
        raise BadParameter(f"microscope '{microscope}'", known, repr(microscope)[:80], "Check facility.toml.")


def _round(orm: OrmSession, microscope: str, key: str | None) -> dict[str, Any]:
    mine = (
        select(Session, Sample, Experiment)
        .join(Microscope, Microscope.id == Session.microscope_id)
        .join(Sample, Sample.id == Session.sample_id)
        .join(Experiment, Experiment.id == Sample.experiment_id)
        .where(Microscope.name == microscope)
    )
    active = orm.execute(
        mine.where(Session.state == SessionState.ACTIVE).order_by(Session.id.desc()).limit(1)
    ).first()
    if key is not None:
        row = orm.execute(mine.where(Session.key == key)).first()
        if row is None:
            raise BadParameter("session", f"one of {microscope}", repr(key)[:80])
    else:
        row = active or _left_over(orm, mine)
    if row is None:
        return {"microscope": microscope, "session": None}
    session, sample, experiment = row
    standing = _standing(orm, session)
    return {
        "microscope": microscope,
        "session": session.key,
        "state": session.state,
        "experiment": experiment.name,
        "sample": sample.name,
        "dag": dag_name(experiment.name, sample.id),
        **standing,
        "next": active is not None and active[0].id != session.id,
    }


def _left_over(orm: OrmSession, mine: Any) -> Any:
    """The newest closed session of which something wasn't handed out yet."""
    something = (
        exists()
        .where(Processing.session_id == Session.id, Conducted.processing_id == Processing.id)
        .where(Conducted.released_at.is_(None))
        .where(has_open(Processing.id) | (Session.closed_at > now() - _JUST_CLOSED))
    )
    closed = mine.where(Session.state == SessionState.CLOSED, something).order_by(Session.id.desc())
    for row in orm.execute(closed.limit(10)):
        if not _standing(orm, row[0])["over"]:
            return row
    return None


def _standing(orm: OrmSession, session: Session) -> dict[str, Any]:
    states = (
        select(SourceFile.state, func.count())
        .where(SourceFile.session_id == session.id)
        .group_by(SourceFile.state)
    )
    files: dict[str, int] = dict(orm.execute(states).all())
    counted = (
        select(Exposure.state, func.count()).where(Exposure.session_id == session.id).group_by(Exposure.state)
    )
    exposures: dict[str, int] = dict(orm.execute(counted).all())
    query = (
        select(Processing.id)
        .join(Conducted, Conducted.processing_id == Processing.id)
        .where(
            Processing.session_id == session.id,
            Conducted.released_at.is_(None),
            or_(Processing.state == "running", Processing.state == "paused"),
        )
    )
    numbers = list(orm.scalars(query))
    waiting = sum(waiting_for(orm, number) for number in numbers)
    on_way = sum(files.get(state, 0) for state in _ON_WAY) if session.mode == "copy" else 0
    growing = exposures.get(ExposureState.SEEN, 0)
    ended = session.state == SessionState.CLOSED
    outside = _not_taken_in(orm, session.id, numbers) if ended and numbers else 0
    return {
        "files": files,
        "exposures": exposures,
        "on_way": on_way + growing,
        "waiting": waiting + outside,
        "over": ended and not (on_way or growing or waiting or outside),
    }


def _not_taken_in(orm: OrmSession, session_id: int, processings: list[int]) -> int:
    """Exposures that are whole and that a coordinator hasn't taken in yet."""
    whole = (Exposure.session_id == session_id, Exposure.state == ExposureState.COMPLETE)
    there = set(orm.scalars(select(Exposure.id).where(*whole)))
    lacking = 0
    for number in processings:
        rows = (
            select(func.count())
            .select_from(Measure)
            .join(Exposure, Exposure.id == Measure.exposure_id)
            .where(Measure.processing_id == number, *whole)
        )
        chosen = selection_of(orm, number)  # one that was begun for some exposures waits for no other
        wanted = there if chosen is None else there & chosen
        lacking = max(lacking, len(wanted) - (orm.scalar(rows) or 0))
    return lacking
