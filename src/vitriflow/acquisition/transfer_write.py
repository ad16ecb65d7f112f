"""Writes what became of copies: rows of files and exposures, and what people are told."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Table, and_, bindparam, func, or_, select, update
from sqlalchemy.orm import Session as OrmSession

from vitriflow.acquisition.custody import ProvedFile
from vitriflow.acquisition.recognise import FileKind
from vitriflow.acquisition.transfer_move import Job, Outcome, Step
from vitriflow.catalog import Event, Exposure, ExposureState, FileState, SourceFile, now
from vitriflow.errors import Reason

TRIES = 3  # a disk that gives other bytes back so often isn't asked again
_LONGEST_WAIT_S = 300.0
_TELL_AFTER = 8  # attempts at a file that is held, before people are told
_FILES = SourceFile.__table__
_EXPOSURES = Exposure.__table__
_PROBLEMS = {Step.CONFLICT: Reason.CONFLICT, Step.REFUSED: Reason.REFUSED, Step.CORRUPT: Reason.CORRUPT}


def waiting_jobs(
    orm: OrmSession, session_id: int, *, state: FileState, movies: bool | None, limit: int
) -> list[Job]:
    """Files that can be copied (or proved) now; movies newest first, others in the order they came."""
    moment = now()
    query = select(
        SourceFile.id,
        SourceFile.key,
        SourceFile.generation,
        SourceFile.kind,
        SourceFile.software,
        SourceFile.state,
        SourceFile.size,
        SourceFile.stamp,
        SourceFile.blake3,
        SourceFile.attempts,
    ).where(
        SourceFile.session_id == session_id,
        SourceFile.state == state,
        or_(SourceFile.not_before.is_(None), SourceFile.not_before <= moment),
    )
    if movies is not None:
        is_movie = SourceFile.kind == FileKind.MOVIE
        query = query.where(is_movie if movies else ~is_movie)
    newest = SourceFile.id.desc() if movies else SourceFile.id
    return [Job(*list(row)) for row in orm.execute(query.order_by(newest).limit(limit))]


def proved_files(outcomes: Sequence[Outcome]) -> list[ProvedFile]:
    """What the manifest says of those that were proved."""
    return [
        ProvedFile(
            key=o.job.key,
            destination=o.job.destination,
            size=o.job.size,
            blake3=o.blake3 or "",
            proved_at=o.at,
            mode="copy",
            method=o.method,
            generation=o.job.generation,
            kind=o.job.kind,
            software=o.job.software,
            stamp=o.job.stamp,
        )
        for o in outcomes
        if o.step == Step.PROVED
    ]


def write_outcomes(
    orm: OrmSession, session_id: int, outcomes: Sequence[Outcome], path_of: Callable[[Job], str]
) -> None:
    """Write outcomes as part of a transaction, in the order they came.

    A row whose file is another one by now (the watcher saw it change) is left alone.
    """
    rows: dict[int, tuple[Job, dict[str, Any]]] = {}
    for outcome in outcomes:
        values = _file_values(outcome)
        if values:
            rows.setdefault(outcome.job.id, (outcome.job, {}))[1].update(values)
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for job, values in rows.values():
        row = {f"v_{name}": value for name, value in values.items()}
        keys = {"w_id": job.id, "w_size": job.size, "w_stamp": job.stamp}
        groups.setdefault(tuple(values), []).append(keys | row)
    for names, some in groups.items():
        orm.connection().execute(_update_files(names), some)
    _write_exposures(orm, session_id, outcomes, path_of)
    for outcome in outcomes:
        event = _event(outcome)
        if event is not None:
            severity, text = event
            orm.add(Event(at=outcome.at, session_id=session_id, severity=severity, text=text))


def _file_values(outcome: Outcome) -> dict[str, Any]:
    job, at = outcome.job, outcome.at
    match outcome.step:
        case Step.COPIED:
            clear = {"attempts": 0, "not_before": None, "problem_code": None, "problem": None}
            place = {"blake3": outcome.blake3, "destination": job.destination, "copied_at": at}
            return {"state": "copied", **place, **clear}
        case Step.PROVED:
            return {"state": "proved", "proved_at": at}
        case Step.CONFLICT | Step.REFUSED:
            return _problem(outcome)
        case Step.CORRUPT if job.attempts + 1 >= TRIES:
            return {**_problem(outcome), "blake3": None, "copied_at": None, "destination": None}
        case Step.CORRUPT:
            undone = {"blake3": None, "copied_at": None, "destination": None}
            return {"state": "complete", **undone, **_later(job, at)}
        case Step.HELD | Step.VANISHED | Step.CHANGED:
            return _later(job, at)
    return {}


def _problem(outcome: Outcome) -> dict[str, Any]:
    return {
        "state": "problem",
        "problem_code": str(_PROBLEMS[outcome.step]),
        "problem": _problem_text(outcome),
        "attempts": outcome.job.attempts + 1,
    }


def _problem_text(outcome: Outcome) -> str:
    key, text = outcome.job.key, outcome.text
    if outcome.step == Step.CONFLICT:
        return f"{key}: {text}. Move what is there away, and touch the source file to have it copied"
    if outcome.step == Step.REFUSED:
        return f"{key} can't be written to the session's folder: {text}. Rename it on the source"
    return f"{key}: the copy {text}, {TRIES} times. Check the disk that the session's folder is on"


def _later(job: Job, at: datetime) -> dict[str, Any]:
    wait = min(0.5 * 2.0 ** min(job.attempts, 20), _LONGEST_WAIT_S)
    return {"attempts": job.attempts + 1, "not_before": at + timedelta(seconds=wait)}


def _event(outcome: Outcome) -> tuple[str, str] | None:
    job = outcome.job
    if outcome.step in (Step.CONFLICT, Step.REFUSED):
        return "alarm", _problem_text(outcome)
    if outcome.step == Step.CORRUPT:
        if job.attempts + 1 >= TRIES:
            return "alarm", _problem_text(outcome)
        text = f"The copy of {job.key} {outcome.text}. It's copied again, and what was computed from it is redone"
        return "alarm", text
    if outcome.step == Step.HELD and job.attempts + 1 == _TELL_AFTER:
        return "warning", f"{job.key} can't be read yet ({outcome.text}); it's tried again until it can"
    return None


def _update_files(names: Sequence[str]) -> Any:
    assert isinstance(_FILES, Table)
    mine = and_(
        _FILES.c.id == bindparam("w_id"),
        _FILES.c.size == bindparam("w_size"),
        _FILES.c.stamp == bindparam("w_stamp"),
        or_(*(_FILES.c.state == state.value for state in (FileState.COMPLETE, FileState.COPIED))),
    )
    return update(_FILES).where(mine).values({name: bindparam(f"v_{name}") for name in names})


def _write_exposures(
    orm: OrmSession, session_id: int, outcomes: Sequence[Outcome], path_of: Callable[[Job], str]
) -> None:
    """An exposure is ready when its copy has its name; it's taken back when the copy proves wrong."""
    movies = [o for o in outcomes if o.job.kind == FileKind.MOVIE]
    assert isinstance(_EXPOSURES, Table)
    table = _EXPOSURES.c
    for step in (Step.COPIED, Step.PROVED, Step.CORRUPT):
        rows = [
            {"w_key": o.job.key, "v_path": path_of(o.job), "v_blake3": o.blake3, "v_at": o.at}
            for o in movies
            if o.step == step
        ]
        if not rows:
            continue
        query = update(_EXPOSURES).where(table.session_id == session_id, table.key == bindparam("w_key"))
        at = bindparam("v_at", type_=table.copied_at.type)
        if step == Step.COPIED:
            values = {
                "state": ExposureState.COMPLETE.value,
                "path": bindparam("v_path"),
                "blake3": bindparam("v_blake3"),
                "complete_at": func.coalesce(table.complete_at, at),
                "copied_at": at,
            }
            query = query.where(table.state == ExposureState.SEEN.value).values(values)
        elif step == Step.PROVED:
            query = query.where(table.blake3 == bindparam("v_blake3")).values(proved_at=at)
        else:
            undone = {"state": "seen", "blake3": None, "complete_at": None, "copied_at": None}
            query = query.where(table.state == ExposureState.COMPLETE.value).values(undone)
        names = {str(name) for name in query.compile().params}
        orm.connection().execute(query, [{k: v for k, v in row.items() if k in names} for row in rows])
    ended = [o for o in movies if _is_final_problem(o)]
    for outcome in ended:
        text = {"problem_code": str(_PROBLEMS[outcome.step]), "problem": _problem_text(outcome)}
        orm.execute(
            update(Exposure)
            .where(Exposure.session_id == session_id, Exposure.key == outcome.job.key)
            .where(Exposure.state != ExposureState.PROBLEM)
            .values(state=ExposureState.PROBLEM, **text)
            .execution_options(synchronize_session=False)
        )


def _is_final_problem(outcome: Outcome) -> bool:
    if outcome.step == Step.CORRUPT:
        return outcome.job.attempts + 1 >= TRIES
    return outcome.step in (Step.CONFLICT, Step.REFUSED)
