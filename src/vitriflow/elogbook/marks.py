"""What people say of exposures: keep, reject, or a comment. All functions work inside the caller's transaction.

Marks are undone, never deleted. Of the marks of one exposure that aren't undone, the newest keep or
reject counts; comments stand beside it.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session as OrmSession

from vitriflow.catalog import Exposure, Limits, Mark, now, views
from vitriflow.elogbook.audit import audit
from vitriflow.elogbook.permissions import Caller
from vitriflow.errors import BadParameter

KINDS = ("keep", "reject", "comment")
LONGEST = 2000
MOST = 100_000  # exposures that one deed may mark
_CHUNK = 500


def mark_exposures(
    orm: OrmSession,
    caller: Caller,
    session_id: int,
    exposures: Collection[int],
    kind: str,
    text: str = "",
    subject: str = "",
) -> list[int]:
    """Mark exposures of a session.

    Parameters
    ----------
    exposures
        Their ids; one that stands twice is marked once.
    kind
        ``keep``, ``reject`` or ``comment``.
    text
        The comment; with keep and reject, why (may be empty).
    subject
        What the audit log calls the session.

    Returns
    -------
    Numbers of the marks, to undo them by.

    Raises
    ------
    BadParameter
        When the kind isn't known, there's no exposure, one isn't of this session, or a comment is empty or too long.
    """
    wanted = sorted(set(exposures))
    text = text.replace("\x00", "").strip()  # which no database keeps
    if kind not in KINDS:
        raise BadParameter("mark", ", ".join(KINDS), repr(kind)[:40])
    if kind == "comment" and not text:
        raise BadParameter("comment", "some words", "nothing", "Write what's to be said.")
    if len(text) > LONGEST:
        raise BadParameter("text of the mark", f"at most {LONGEST} characters", str(len(text)), "Shorten it.")
    if not 1 <= len(wanted) <= MOST:
        raise BadParameter("exposures to mark", f"1 to {MOST:,}", f"{len(wanted):,}", "Select some.")
    refuse_foreign(orm, session_id, wanted)
    moment = now()
    made = [
        Mark(session_id=session_id, exposure_id=number, kind=kind, text=text, author=caller.login, at=moment)
        for number in wanted
    ]
    orm.add_all(made)
    orm.flush()
    audit(
        orm, caller, f"exposure.{kind}", subject, {"exposures": len(made), "first": wanted[0], "text": text}
    )
    return [mark.id for mark in made]


def undo_marks(
    orm: OrmSession, caller: Caller, session_id: int, marks: Collection[int], subject: str = ""
) -> int:
    """Undo marks of a session by their numbers; those that are undone already stay as they are.

    Returns
    -------
    How many were undone now.

    Raises
    ------
    BadParameter
        When one isn't a mark of this session.
    """
    wanted = sorted(set(marks))
    if not 1 <= len(wanted) <= MOST:
        raise BadParameter("marks to undo", f"1 to {MOST:,}", f"{len(wanted):,}")
    moment, undone, known = now(), 0, 0
    for part in _chunks(wanted):
        for mark in orm.scalars(select(Mark).where(Mark.id.in_(part), Mark.session_id == session_id)):
            known += 1
            if mark.undone_at is None:
                mark.undone_at, mark.undone_by = moment, caller.login
                undone += 1
    if known != len(wanted):
        raise BadParameter("marks to undo", "marks of this session", f"{len(wanted) - known} that aren't")
    audit(orm, caller, "exposure.undo", subject, {"marks": undone})
    return undone


def newest_marks(orm: OrmSession, session_id: int, exposures: Collection[int]) -> list[int]:
    """Number of the newest mark of each of some exposures that isn't undone."""
    wanted = set(exposures)
    query = (
        select(Mark.exposure_id, Mark.id)
        .where(Mark.session_id == session_id, Mark.undone_at.is_(None))
        .order_by(Mark.id)
    )
    return sorted({number: mark for number, mark in orm.execute(query) if number in wanted}.values())


def list_marks(
    orm: OrmSession, session_id: int, exposure_id: int | None = None, limit: int = 200
) -> list[dict[str, Any]]:
    """Marks of a session or of one exposure, newest first, those included that were undone."""
    query = select(Mark).where(Mark.session_id == session_id).order_by(Mark.id.desc()).limit(limit)
    if exposure_id is not None:
        query = query.where(Mark.exposure_id == exposure_id)
    names = ("id", "exposure_id", "kind", "text", "author", "at", "undone_at", "undone_by")
    return [{name: getattr(mark, name) for name in names} for mark in orm.scalars(query)]


def verdicts_of(orm: OrmSession, session_id: int) -> dict[int, str]:
    """What people last said of a session's exposures: ``keep`` or ``reject``, by exposure."""
    standing = views.standing_marks(orm, session_id)  # oldest first
    return {number: kind for number, kind in standing if kind != "comment"}


def standing_marks_of(orm: OrmSession, session_id: int) -> tuple[dict[int, Mark], list[Mark]]:
    """What people last said of a session's exposures (keep or reject, by exposure), and all comments, oldest first."""
    query = select(Mark).where(Mark.session_id == session_id, Mark.undone_at.is_(None)).order_by(Mark.id)
    verdicts: dict[int, Mark] = {}
    comments: list[Mark] = []
    for mark in orm.scalars(query):
        if mark.kind == "comment":
            comments.append(mark)
        else:
            verdicts[mark.exposure_id] = mark
    return verdicts, comments


def set_limits(
    orm: OrmSession,
    caller: Caller,
    processing_id: int,
    values: Mapping[str, Sequence[float | None]],
    known: Collection[str],
    subject: str = "",
) -> None:
    """Write down thresholds of a processing; the newest row counts, an empty one takes them all away.

    Parameters
    ----------
    values
        Quantity -> [lowest or None, highest or None]; both ends belong to what passes.
    known
        Names of quantities that there are.

    Raises
    ------
    BadParameter
        When a quantity isn't known, or its lowest is above its highest.
    """
    kept: dict[str, list[float | None]] = {}
    for name, pair in values.items():
        if name not in known:
            raise BadParameter("limits", "one of " + ", ".join(known), repr(name)[:60])
        low, high = pair
        if low is not None and high is not None and low > high:
            raise BadParameter(f"limits of {name}", "the lowest below the highest", f"{low:g} above {high:g}")
        if low is not None or high is not None:
            kept[name] = [low, high]
    orm.add(Limits(processing_id=processing_id, values=kept, author=caller.login, at=now()))
    audit(orm, caller, "limits.set", subject, {name: str(pair) for name, pair in kept.items()})


def refuse_foreign(
    orm: OrmSession, session_id: int, wanted: Sequence[int], what: str = "exposures to mark"
) -> None:
    """Refuse exposures that aren't of a session.

    Raises
    ------
    BadParameter
        Naming them.
    """
    missing: list[int] = []
    for part in _chunks(wanted):
        query = select(Exposure.id, Exposure.session_id).where(Exposure.id.in_(part))
        ours = {number for number, owner in orm.execute(query) if owner == session_id}
        missing += [number for number in part if number not in ours]
    if missing:
        raise BadParameter(
            what,
            "exposures of this session",
            ", ".join(map(str, missing[:5])) + (" ..." if len(missing) > 5 else ""),
            "Select them again; the page may be of another session.",
        )


def _chunks(numbers: Sequence[int]) -> Iterator[Sequence[int]]:
    for start in range(0, len(numbers), _CHUNK):
        yield numbers[start : start + _CHUNK]
