"""The audit log: who did what, when, to what, from where. Rows are only ever added."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session as OrmSession

from vitriflow.catalog import Audit, now
from vitriflow.elogbook.permissions import Caller

_LONGEST = 1000
_SECRET = ("password", "secret", "token", "csrf")


def audit(
    orm: OrmSession, caller: Caller, action: str, subject: str = "", details: Mapping[str, Any] | None = None
) -> None:
    """Add a row to the audit log, in the transaction of the change that it tells of.

    Values under names like ``password`` are left out, and long texts cut.
    """
    orm.add(
        Audit(
            at=now(),
            person_id=caller.person_id,
            login=caller.login[:64],
            action=action[:64],
            subject=subject[:255],
            details=_plain(details or {}),
            address=caller.address[:64],
        )
    )
    caller.trail.append(action)


def list_audit(
    orm: OrmSession,
    *,
    login: str = "",
    action: str = "",
    subject: str = "",
    before: int | None = None,
    limit: int = 100,
) -> list[Audit]:
    """Rows of the audit log, newest first; texts filter by their beginning, ``before`` pages back."""
    query = select(Audit).order_by(Audit.id.desc()).limit(limit)
    for column, value in ((Audit.login, login), (Audit.action, action), (Audit.subject, subject)):
        if value:
            query = query.where(column.startswith(value, autoescape=True))
    if before is not None:
        query = query.where(Audit.id < before)
    return list(orm.scalars(query))


def _plain(details: Mapping[str, Any]) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for name, value in details.items():
        if any(word in name.lower() for word in _SECRET):
            continue
        if isinstance(value, Mapping):
            kept[name] = _plain(value)
        elif isinstance(value, bool | int | float) or value is None:
            kept[name] = value
        else:
            kept[name] = str(value)[:_LONGEST]
    return kept
