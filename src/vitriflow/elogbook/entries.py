"""The log: what people write and the system did. All functions work inside the caller's transaction."""

import re
from collections.abc import Iterable
from typing import Any

from markdown_it import MarkdownIt
from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session as OrmSession

from vitriflow.catalog import Experiment, LogEntry, LogFile, Sample, Session, now
from vitriflow.elogbook.audit import audit
from vitriflow.elogbook.permissions import Caller, Role
from vitriflow.errors import BadParameter

SYSTEM = "vitriflow"
_LONGEST = 100_000
_TAG = re.compile(r"[\w.+-]{1,40}")
_MARKDOWN = MarkdownIt("js-default", {"linkify": False, "html": False})  # no raw HTML, no script links


def write_entry(
    orm: OrmSession,
    caller: Caller,
    experiment: Experiment,
    text: str,
    *,
    tags: Iterable[str] = (),
    sample: Sample | None = None,
    session: Session | None = None,
    exposure_id: int | None = None,
) -> LogEntry:
    """Add an entry in Markdown.

    Raises
    ------
    BadParameter
        When it's empty or too long, or a tag has other characters than letters, digits and ``_ . + -``.
    """
    entry = LogEntry(
        experiment_id=experiment.id,
        sample_id=sample.id if sample else None,
        session_id=session.id if session else None,
        exposure_id=exposure_id,
        at=now(),
        author=caller.login or "somebody",
        text=_text(text),
        tags=clean_tags(tags),
    )
    orm.add(entry)
    orm.flush()
    audit(orm, caller, "log.write", f"{experiment.name}/{entry.id}")
    return entry


def note(
    orm: OrmSession,
    experiment_id: int,
    text: str,
    *,
    sample_id: int | None = None,
    session_id: int | None = None,
    tags: Iterable[str] = (),
) -> LogEntry:
    """Add what the system did, as an automatic entry."""
    entry = LogEntry(
        experiment_id=experiment_id,
        sample_id=sample_id,
        session_id=session_id,
        at=now(),
        author=SYSTEM,
        automatic=True,
        text=text[:_LONGEST],
        tags=list(tags),
    )
    orm.add(entry)
    return entry


def find_entry(orm: OrmSession, experiment_id: int, number: int) -> LogEntry:
    """An experiment's log entry by its number.

    Raises
    ------
    BadParameter
        When it has none of that number.
    """
    entry = orm.get(LogEntry, number)
    if entry is None or entry.experiment_id != experiment_id:
        raise BadParameter("log entry", "the number of an entry of this experiment", str(number))
    return entry


def edit_entry(
    orm: OrmSession, caller: Caller, entry: LogEntry, text: str, tags: Iterable[str] | None = None
) -> LogEntry:
    """Change one's own entry; an operator may change anybody's. The old text stays in the audit log.

    Raises
    ------
    BadParameter
        When it isn't one's own, was struck out, or is the system's.
    """
    _changeable(caller, entry)
    audit(orm, caller, "log.edit", str(entry.id), {"was": entry.text})
    entry.text = _text(text)
    if tags is not None:
        entry.tags = clean_tags(tags)
    entry.edited_at = now()
    return entry


def strike_entry(orm: OrmSession, caller: Caller, entry: LogEntry) -> LogEntry:
    """Strike an entry out: it stays readable, marked as struck.

    Raises
    ------
    BadParameter
        As :func:`edit_entry`.
    """
    _changeable(caller, entry)
    entry.struck_at, entry.struck_by = now(), caller.login
    audit(orm, caller, "log.strike", str(entry.id))
    return entry


def list_entries(
    orm: OrmSession,
    experiment_id: int,
    *,
    session_id: int | None = None,
    sample_id: int | None = None,
    search: str = "",
    tag: str = "",
    automatic: bool | None = None,
    before: int | None = None,
    limit: int = 100,
) -> list[dict[str, Any]]:
    """Entries of an experiment, newest first, with their files; ``before`` pages back by id."""
    query = select(LogEntry).where(LogEntry.experiment_id == experiment_id)
    for column, value in ((LogEntry.session_id, session_id), (LogEntry.sample_id, sample_id)):
        if value is not None:
            query = query.where(column == value)
    if automatic is not None:
        query = query.where(LogEntry.automatic == automatic)
    for word in search.lower().split():
        like = func.lower(LogEntry.text).contains(word, autoescape=True)
        query = query.where(or_(like, func.lower(LogEntry.author).contains(word, autoescape=True)))
    if before is not None:
        query = query.where(LogEntry.id < before)
    query = query.order_by(LogEntry.id.desc())
    found: list[LogEntry] = []
    for entry in orm.scalars(query.execution_options(yield_per=500)):  # tags are JSON: looked at here
        if not tag or tag in entry.tags:
            found.append(entry)
        if len(found) >= limit:
            break
    files = _files(orm, [entry.id for entry in found])
    return [_shown(entry, files.get(entry.id, [])) for entry in found]


def known_tags(orm: OrmSession, experiment_id: int) -> list[str]:
    """Tags used in an experiment's log, sorted."""
    rows = orm.scalars(select(LogEntry.tags).where(LogEntry.experiment_id == experiment_id))
    return sorted({str(tag) for tags in rows for tag in tags})


def attach_file(
    orm: OrmSession,
    caller: Caller,
    entry: LogEntry,
    *,
    name: str,
    media_type: str,
    size: int,
    blake3: str,
    path: str,
) -> LogFile:
    """Tie a file, whose bytes are in place already, to an entry."""
    row = LogFile(
        entry_id=entry.id,
        name=clean_file_name(name),
        media_type=media_type[:128],
        size=size,
        blake3=blake3,
        path=path,
    )
    orm.add(row)
    orm.flush()
    audit(orm, caller, "log.attach", str(entry.id), {"name": row.name, "size": size})
    return row


def clean_file_name(name: str) -> str:
    """A file's name for showing: without folders and control characters. It's never used as a path."""
    last = name.replace("\\", "/").rsplit("/", 1)[-1]
    plain = "".join(char for char in last if char.isprintable()).strip()
    return plain[-200:] or "file"


def clean_tags(tags: Iterable[str]) -> list[str]:
    """Tags as kept: without a leading ``#``, each once, in the order given.

    Raises
    ------
    BadParameter
        When one has other characters than letters, digits and ``_ . + -``, or there are more than 20.
    """
    plain = list(dict.fromkeys(tag.strip().lstrip("#") for tag in tags if tag.strip()))
    for tag in plain:
        if not _TAG.fullmatch(tag):
            raise BadParameter("tag", "1 to 40 letters, digits, _ . + or -", repr(tag)[:60])
    if len(plain) > 20:
        raise BadParameter("tags", "at most 20", str(len(plain)))
    return plain


def as_html(text: str) -> str:
    """Markdown as HTML that's safe to put into a page: raw HTML is shown as text, script links aren't links."""
    return str(_MARKDOWN.render(text))


def _shown(entry: LogEntry, files: list[LogFile]) -> dict[str, Any]:
    return {
        "id": entry.id,
        "at": entry.at,
        "author": entry.author,
        "automatic": entry.automatic,
        "text": entry.text,
        "html": as_html(entry.text),
        "tags": list(entry.tags),
        "sample_id": entry.sample_id,
        "session_id": entry.session_id,
        "exposure_id": entry.exposure_id,
        "edited_at": entry.edited_at,
        "struck_at": entry.struck_at,
        "struck_by": entry.struck_by,
        "files": [
            {"id": one.id, "name": one.name, "media_type": one.media_type, "size": one.size} for one in files
        ],
    }


def _files(orm: OrmSession, entries: list[int]) -> dict[int, list[LogFile]]:
    found: dict[int, list[LogFile]] = {}
    for row in orm.scalars(select(LogFile).where(LogFile.entry_id.in_(entries)).order_by(LogFile.id)):
        found.setdefault(row.entry_id, []).append(row)
    return found


def _changeable(caller: Caller, entry: LogEntry) -> None:
    operator = caller.role_in(entry.experiment_id) in (Role.OPERATOR, Role.ADMINISTRATOR)
    if entry.automatic:
        raise BadParameter(
            f"entry {entry.id}", "somebody's own words", "an entry of the system", "Write another."
        )
    if entry.struck_at is not None:
        raise BadParameter(
            f"entry {entry.id}", "one that stands", "one that was struck out", "Write another."
        )
    if entry.author != caller.login and not operator:
        raise BadParameter(f"entry {entry.id}", "one's own", f"one by {entry.author}", "Write another.")


def _text(text: str) -> str:
    plain = text.strip()
    if not plain:
        raise BadParameter("entry", "some text", "nothing")
    if len(plain) > _LONGEST:
        raise BadParameter("entry", f"at most {_LONGEST} characters", str(len(plain)), "Attach it as a file.")
    return plain
