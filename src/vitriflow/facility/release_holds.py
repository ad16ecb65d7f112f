"""Holds: somebody says that nothing of a session may be removed, until it's lifted."""

import getpass

from sqlalchemy import select
from sqlalchemy.orm import Session as OrmSession

from vitriflow.catalog import Catalog, Event, Hold, Session, now
from vitriflow.elogbook import find_session
from vitriflow.errors import BadParameter


def place_hold(catalog: Catalog, key: str, reason: str, by: str | None = None) -> Hold:
    """Hold a session: nothing of it is removed from any disk. A session can have several holds.

    Raises
    ------
    BadParameter
        When there's no such session, or no reason is given.
    """
    session = find_session(catalog, key)
    if not reason.strip():
        raise BadParameter(
            f"hold on session '{key}'", "a reason", "none", "Say who needs it and until when: --reason TEXT."
        )
    who = by or getpass.getuser()

    def work(orm: OrmSession) -> Hold:
        hold = Hold(session_id=session.id, reason=reason.strip(), placed_by=who, placed_at=now())
        orm.add(hold)
        orm.add(Event(at=now(), session_id=session.id, text=f"Held by {who}: {reason.strip()}"))
        orm.flush()
        return hold

    return catalog.write(work)


def lift_holds(catalog: Catalog, key: str, by: str | None = None) -> list[Hold]:
    """Lift all holds of a session; gives those that were lifted.

    Raises
    ------
    BadParameter
        When there's no such session, or it isn't held.
    """
    session = find_session(catalog, key)
    who = by or getpass.getuser()

    def work(orm: OrmSession) -> list[Hold]:
        query = select(Hold).where(Hold.session_id == session.id, Hold.lifted_at.is_(None)).order_by(Hold.id)
        holds = list(orm.scalars(query))
        for hold in holds:
            hold.lifted_by, hold.lifted_at = who, now()
            orm.add(Event(at=now(), session_id=session.id, text=f"Hold lifted by {who}: {hold.reason}"))
        return holds

    lifted = catalog.write(work)
    if not lifted:
        raise BadParameter(f"session '{key}'", "a hold on it", "none", "'vitriflow hold' lists what is held.")
    return lifted


def list_holds(catalog: Catalog, key: str | None = None) -> list[dict[str, object]]:
    """Open holds, oldest first, ready for JSON."""
    query = (
        select(Session.key, Hold.reason, Hold.placed_by, Hold.placed_at)
        .join(Session, Session.id == Hold.session_id)
        .where(Hold.lifted_at.is_(None))
        .order_by(Hold.id)
    )
    if key is not None:
        query = query.where(Session.key == find_session(catalog, key).key)
    rows = catalog.read(lambda orm: list(orm.execute(query)))
    return [
        {"session": session, "reason": reason, "placed_by": who, "placed_at": when.isoformat()}
        for session, reason, who, when in rows
    ]
