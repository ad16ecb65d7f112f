"""A new processing of a session with changed parameters, beside those that there are."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session as OrmSession

from vitriflow.catalog import Catalog, Event, Processing, Session, now
from vitriflow.elogbook.audit import audit
from vitriflow.elogbook.permissions import Caller
from vitriflow.errors import BadParameter
from vitriflow.facility.session_form import FormField, form_fields, read_form, readers
from vitriflow.pipeline import Template, parse_template, start_processing
from vitriflow.storage import SessionFolder

_NONE = object()
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def reprocess(
    catalog: Catalog, caller: Caller, key: str, base: str, name: str, answers: Mapping[str, Any]
) -> int:
    """Begin a processing like another one of the session, with some parameters changed.

    It's for all exposures of the session, those that come later too. ``vitriflow process`` takes it up.

    Parameters
    ----------
    key
        The session.
    base
        Name of the processing whose template and parameters it begins from.
    name
        Its own name.
    answers
        The parameters to change, as a form gives them; empty ones stay as they are.

    Returns
    -------
    Its number.

    Raises
    ------
    BadParameter
        When there's no such session or processing, the name can't be used, nothing would change, or a
        value is wrong (:class:`BadForm` names each). Nothing was begun then.
    """
    if not _NAME.fullmatch(name):
        raise BadParameter(
            "name of the processing", "1 to 64 letters, digits, dots and dashes", repr(name)[:80]
        )
    session_id, root, template, old, names = catalog.read(lambda orm: _standing(orm, key, base))
    if name in names:
        raise BadParameter("name of the processing", "one that the session doesn't have yet", repr(name)[:80])
    changes = changed(template, old, answers)
    if not changes:
        raise BadParameter(
            "the parameters", f"some that differ from those of '{base}'", "the same", "Change at least one."
        )
    folder = SessionFolder(Path(root)).processed(name)
    number = start_processing(catalog, session_id, name, template, {**old, **changes}, folder)
    text = f"{caller.login} began processing '{name}', like '{base}' but for " + ", ".join(
        f"{one} = {value}" for one, value in sorted(changes.items())
    )

    def tell(orm: OrmSession) -> None:
        event = {"at": now(), "session_id": session_id, "processing_id": number, "text": text[:2000]}
        orm.add(Event(**event))
        audit(orm, caller, "processing.start", f"session {key}", {"name": name, "base": base, **changes})

    catalog.write(tell)
    return number


def changed(template: Template, old: Mapping[str, Any], answers: Mapping[str, Any]) -> dict[str, Any]:
    """What a form's answers change of a processing's parameters.

    Raises
    ------
    BadForm
        When a value is wrong.
    """
    given = {name: value for name, value in answers.items() if str(value).strip()}
    users = readers(template)
    values = read_form(template, given).step_parameters()
    return {name: value for name, value in values.items() if name in users and old.get(name, _NONE) != value}


def reprocess_fields(catalog: Catalog, key: str, base: str) -> list[tuple[FormField, Any]]:
    """Questions for a new processing like another one, each with the value that it has there.

    Raises
    ------
    BadParameter
        When there's no such session or processing.
    """
    _, _, template, old, _ = catalog.read(lambda orm: _standing(orm, key, base))
    usual = dict(template.written.parameters)
    fields = (one for one in form_fields(template) if one.nodes)
    return [(one, old.get(one.name, usual.get(one.name, one.default))) for one in fields]


def _standing(orm: OrmSession, key: str, base: str) -> tuple[int, str, Template, dict[str, Any], set[str]]:
    session = orm.scalar(select(Session).where(Session.key == key))
    if session is None:
        raise BadParameter("session", "the key of a session", repr(key)[:80])
    rows = {
        row.name: row for row in orm.scalars(select(Processing).where(Processing.session_id == session.id))
    }
    if base not in rows:
        raise BadParameter("processing", ", ".join(sorted(rows)) or "one that was begun", repr(base)[:80])
    row = rows[base]
    template = parse_template(row.template, f"template of processing '{base}'")
    return session.id, session.root, template, dict(row.parameters), set(rows)
