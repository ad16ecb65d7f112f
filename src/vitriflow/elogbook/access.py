"""Who may log in to which microscope now: computed from the elogbook, never kept."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session as OrmSession

from vitriflow.catalog import Experiment, Helper, Microscope, Person, Sample, Session, SessionState, now
from vitriflow.elogbook.audit import audit
from vitriflow.elogbook.experiments import find_experiment
from vitriflow.elogbook.people import find_person, join_experiment, leave_experiment, members
from vitriflow.elogbook.permissions import EXPERIMENT_ROLES, FACILITY_ROLES, Caller, Subject
from vitriflow.errors import BadParameter


@dataclass(frozen=True)
class Entry:
    """Somebody who may log in to a microscope now, and why."""

    login: str
    name: str
    unix_name: str | None
    why: str


@dataclass(frozen=True)
class Access:
    """Who may log in to one microscope now."""

    microscope: str
    session: str | None  # key of the current session
    experiment: str | None
    people: tuple[Entry, ...]

    @property
    def unix_names(self) -> list[str]:
        """Accounts to let in; people without one aren't among them."""
        return sorted({one.unix_name for one in self.people if one.unix_name})


def current_session(orm: OrmSession, microscope_id: int) -> Session | None:
    """The session that a microscope works for: the active one, else the newest that's paused."""
    query = select(Session).where(Session.microscope_id == microscope_id).order_by(Session.id.desc()).limit(1)
    active = orm.scalar(query.where(Session.state == SessionState.ACTIVE))
    return active or orm.scalar(query.where(Session.state == SessionState.PAUSED))


def subject_of_session(orm: OrmSession, key: str) -> Subject | None:
    """A session as permissions see it; None when there's none of that key."""
    row = orm.execute(
        select(Session.id, Session.microscope_id, Session.state, Sample.experiment_id)
        .join(Sample, Sample.id == Session.sample_id)
        .where(Session.key == key)
    ).first()
    if row is None:
        return None
    current = None
    if row.state in (SessionState.ACTIVE, SessionState.PAUSED):
        current = current_session(orm, row.microscope_id)
    return Subject(row.experiment_id, current is not None and current.id == row.id, f"session {key}")


def who_may_log_in(orm: OrmSession, microscope: str) -> Access:
    """Operators, collaborators of the current session's experiment, and the session's helpers.

    Raises
    ------
    BadParameter
        When there's no such microscope.
    """
    scope = orm.scalar(select(Microscope).where(Microscope.name == microscope))
    if scope is None:
        known = ", ".join(orm.scalars(select(Microscope.name).order_by(Microscope.name))) or "none yet"
        raise BadParameter("microscope", f"one of: {known}", repr(microscope)[:80])
    found: dict[int, Entry] = {}

    def let_in(person: Person, why: str) -> None:
        if person.active and person.id not in found:
            found[person.id] = Entry(person.login, person.name, person.unix_name, why)

    staff = select(Person).where(Person.facility_role.in_(FACILITY_ROLES)).order_by(Person.login)
    for person in orm.scalars(staff):
        let_in(person, f"{person.facility_role} of the facility")
    session = current_session(orm, scope.id)
    experiment = None
    if session is not None:
        experiment = orm.get_one(Experiment, orm.get_one(Sample, session.sample_id).experiment_id)
        for person, role in members(orm, experiment.id):
            if role in EXPERIMENT_ROLES[:2]:
                let_in(person, f"{role} of {experiment.name}")
        for person in helpers(orm, session.id):
            let_in(person, f"helper of session {session.key}")
    return Access(
        microscope,
        session.key if session else None,
        experiment.name if experiment else None,
        tuple(sorted(found.values(), key=lambda one: one.login)),
    )


def helpers(orm: OrmSession, session_id: int) -> list[Person]:
    """Helpers of a session that weren't revoked."""
    query = (
        select(Person)
        .join(Helper, Helper.person_id == Person.id)
        .where(Helper.session_id == session_id, Helper.revoked_at.is_(None))
        .order_by(Person.login)
    )
    return list(orm.scalars(query).unique())


def add_helper(orm: OrmSession, session: Session, person: Person, added_by: str) -> bool:
    """Let somebody log in for a session; False when it was so already.

    Raises
    ------
    BadParameter
        When the session is closed.
    """
    if session.state == SessionState.CLOSED:
        raise BadParameter(
            f"session {session.key}",
            "a session that isn't closed",
            "a closed one",
            "Helpers end at its stop.",
        )
    if any(one.id == person.id for one in helpers(orm, session.id)):
        return False
    orm.add(Helper(session_id=session.id, person_id=person.id, added_by=added_by[:64], added_at=now()))
    orm.flush()
    return True


def revoke_helpers(orm: OrmSession, session_id: int, person: Person | None = None) -> Sequence[Helper]:
    """Revoke one helper of a session, or all of them (at its stop)."""
    query = select(Helper).where(Helper.session_id == session_id, Helper.revoked_at.is_(None))
    if person is not None:
        query = query.where(Helper.person_id == person.id)
    rows = list(orm.scalars(query))
    for row in rows:
        row.revoked_at = now()
    return rows


def set_helper(orm: OrmSession, caller: Caller, key: str, login: str, *, helps: bool) -> Session:
    """Let somebody log in for a session, or take that back, with its row in the audit log.

    Raises
    ------
    BadParameter
        When there's no such session or person, or the session is closed.
    """
    session = orm.scalar(select(Session).where(Session.key == key))
    if session is None:
        raise BadParameter("session", "the key of a session", repr(key)[:80])
    person = find_person(orm, login)
    if helps:
        changed = add_helper(orm, session, person, caller.login)
    else:
        changed = bool(revoke_helpers(orm, session.id, person))
        orm.flush()
    details = {"person": person.login, "changed": changed}
    audit(orm, caller, "helper.add" if helps else "helper.end", f"session {key}", details)
    return session


def set_member(orm: OrmSession, caller: Caller, experiment: str, login: str, role: str | None) -> Person:
    """Give somebody a role in an experiment (None: end the membership), with its row in the audit log.

    Raises
    ------
    BadParameter
        When there's no such experiment, person or role.
    """
    found = find_experiment(orm, experiment)
    person = find_person(orm, login)
    leaves = role is None
    changed = (
        leave_experiment(orm, found.id, person)
        if leaves
        else join_experiment(orm, found.id, person, role or "")
    )
    what = "membership.end" if leaves else "membership.set"
    details = {"person": person.login, "role": role or "", "changed": changed}
    audit(orm, caller, what, f"experiment {found.name}", details)
    return person
