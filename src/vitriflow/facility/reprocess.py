"""A new processing of a session with changed parameters, beside those that there are."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session as OrmSession

from vitriflow.catalog import Catalog, Event, Processing, Session, now, views
from vitriflow.elogbook.audit import audit
from vitriflow.elogbook.marks import refuse_foreign
from vitriflow.elogbook.permissions import Caller
from vitriflow.errors import BadParameter
from vitriflow.facility.session_form import BadForm, FormField, form_fields, read_changes, readers
from vitriflow.pipeline import Plan, Template, make_plan, parse_template, start_processing
from vitriflow.steps.precedence import FILLED
from vitriflow.storage import SessionFolder

_NONE = object()
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class Begun:
    """A processing that was begun.

    ``changes`` are the values that act; ``notes`` say which of those that were given don't, or not everywhere.
    """

    number: int
    name: str
    exposures: int | None  # how many it's for; None: all, those to come too
    changes: dict[str, Any]
    notes: list[str] = field(default_factory=list)


def reprocess(
    catalog: Catalog,
    caller: Caller,
    key: str,
    base: str,
    name: str,
    answers: Mapping[str, Any],
    *,
    exposures: Collection[int] | None = None,
    chosen_by: str = "",
) -> Begun:
    """Begin a processing like another one of the session, with some parameters changed.

    ``vitriflow process`` takes it up.

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
    exposures
        Ids of the exposures that it's for. Without, it's for all of the session, those that come later too.
    chosen_by
        How they were chosen, in words that people will read.

    Raises
    ------
    BadParameter
        When there's no such session or processing, the name can't be used, nothing would change, an
        exposure is another session's, or a value is wrong (:class:`BadForm` names each) or can't act: because
        a node sets it itself. Nothing was begun then.
    """
    if not _NAME.fullmatch(name):
        raise BadParameter(
            "name of the processing", "1 to 64 letters, digits, dots and dashes", repr(name)[:80]
        )
    session_id, root, template, old, names = catalog.read(lambda orm: _standing(orm, key, base))
    if name in names:
        raise BadParameter("name of the processing", "one that the session doesn't have yet", repr(name)[:80])
    ids = None if exposures is None else sorted(set(exposures))
    if ids is not None:
        if not ids:
            raise BadParameter(
                "exposures to process", "at least one", "none", "Choose others: nothing passes this filter."
            )
        catalog.read(lambda orm: refuse_foreign(orm, session_id, ids, "exposures to process"))
    changes, notes = changed(template, old, answers)
    if not changes and ids is None:
        found = "the same" if not notes else "; ".join(notes)
        raise BadParameter(
            "the parameters", f"some that differ from those of '{base}'", found, "Change at least one."
        )
    selection = None if ids is None else views.as_selection(ids, chosen_by)
    folder = SessionFolder(Path(root)).processed(name)
    number = start_processing(catalog, session_id, name, template, {**old, **changes}, folder, selection)
    text = _told(caller, name, base, changes, selection, notes)
    details = {"name": name, "base": base, **({"exposures": len(ids)} if ids is not None else {}), **changes}

    def tell(orm: OrmSession) -> None:
        event = {"at": now(), "session_id": session_id, "processing_id": number, "text": text[:2000]}
        orm.add(Event(**event))
        audit(orm, caller, "processing.start", f"session {key}", details)

    catalog.write(tell)
    return Begun(number, name, None if ids is None else len(ids), changes, notes)


def _told(
    caller: Caller,
    name: str,
    base: str,
    changes: Mapping[str, Any],
    selection: Mapping[str, Any] | None,
    notes: list[str],
) -> str:
    text = f"{caller.login} began processing '{name}', like '{base}'"
    if changes:
        text += " but for " + ", ".join(f"{one} = {value}" for one, value in sorted(changes.items()))
    if selection is not None:
        count = selection["n"]
        text += f", of {count} exposure{'' if count == 1 else 's'}"
        text += f" ({selection['words']})" if selection["words"] else ""
    return "; ".join([text, *notes])


def changed(
    template: Template, old: Mapping[str, Any], answers: Mapping[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    """What answers change of a processing's parameters, and what of them doesn't act.

    Raises
    ------
    BadForm
        When a value is wrong, or could act nowhere, because each node that would read it sets it itself.
    """
    asked = read_changes(template, answers)
    fixed = {name: _fixed(template, old, name) for name in asked}
    nowhere = {name: text for name, (text, all_of_them) in fixed.items() if all_of_them}
    if nowhere:
        raise BadForm({name: f"has no effect: {text}" for name, text in nowhere.items()})
    before = make_plan(template, old)
    changes, notes = {}, []
    for name, value in asked.items():
        after = make_plan(template, {**old, name: value})
        if old.get(name, _NONE) == value or not _differ(before, after, name):
            notes.append(f"{name} is {value} already, so that changes nothing")
            continue
        changes[name] = value
        if fixed[name][0]:
            notes.append(f"{name} has no effect there: {fixed[name][0]}")
    return changes, notes


def _fixed(template: Template, old: Mapping[str, Any], name: str) -> tuple[str, bool]:
    """Which nodes don't take a value, in words (empty: all take it), and whether none does."""
    if "." in name:
        return "", False  # said for one node alone: goes before all
    nodes = readers(template)[name]
    own = [node for node in nodes if name in template.written.nodes[node].set and f"{node}.{name}" not in old]
    said = [node for node in nodes if f"{node}.{name}" in old]
    parts = []
    if own:
        parts.append(f"{_nodes(own)} {'sets' if len(own) == 1 else 'set'} it {_selves(own)}")
    if said:
        parts.append(f"it was given for {_nodes(said)} alone")
    if parts:
        parts.append("to change it there, say " + " or ".join(f"{node}.{name}" for node in [*own, *said]))
    return "; ".join(parts), len(own) + len(said) == len(nodes)


def _nodes(names: list[str]) -> str:
    return f"node {names[0]}" if len(names) == 1 else "nodes " + " and ".join(names)


def _selves(names: list[str]) -> str:
    return "itself" if len(names) == 1 else "themselves"


def _differ(before: Plan, after: Plan, name: str) -> bool:
    """Whether any node would work with another value. A value that's set goes before what files say, so it counts."""
    said = name.rpartition(".")[2] in FILLED
    return any(
        one.parameters != other.parameters
        or (said and one.parameters.model_fields_set != other.parameters.model_fields_set)
        for one, other in zip(before.nodes, after.nodes, strict=True)
    )


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
