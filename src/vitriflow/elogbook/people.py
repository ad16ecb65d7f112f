"""People: added, changed, let into experiments and out. All functions work inside the caller's transaction."""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, and_, func, or_, select
from sqlalchemy.orm import Session as OrmSession

from vitriflow.catalog import Experiment, Membership, Person, WebSession, now
from vitriflow.elogbook.audit import audit
from vitriflow.elogbook.permissions import EXPERIMENT_ROLES, FACILITY_ROLES, Caller, Role
from vitriflow.errors import BadParameter

_LOGIN = re.compile(r"[a-z0-9][a-z0-9._@-]{0,63}")
_UNIX = re.compile(r"[a-z_][a-z0-9_.-]{0,31}")
_EMAIL = re.compile(r"[^@\s<>\"',;:]{1,64}@[^@\s<>\"',;:]{1,180}")
SOURCES = ("local", "ldap", "oidc")


def clean_login(login: str) -> str:
    """A login as it's kept: lower case, checked.

    Raises
    ------
    BadParameter
        When it has other characters than letters, digits and ``. _ @ -``.
    """
    plain = login.strip().lower()
    if not _LOGIN.fullmatch(plain):
        raise BadParameter("login", "1 to 64 letters, digits, . _ @ or -", repr(login)[:80])
    return plain


def anybody(orm: OrmSession) -> bool:
    """Whether the catalog knows any person: from the first one on, everybody has to sign in."""
    return orm.scalar(select(Person.id).limit(1)) is not None


def find_person(orm: OrmSession, login: str) -> Person:
    """The person of that login.

    Raises
    ------
    BadParameter
        When there's none.
    """
    found = orm.scalar(select(Person).where(Person.login == login.strip().lower()))
    if found is None:
        raise BadParameter(
            "login", "somebody in this catalog", repr(login)[:80], "An administrator adds people."
        )
    return found


def list_people(orm: OrmSession) -> list[Person]:
    """Everybody, by login."""
    return list(orm.scalars(select(Person).order_by(Person.login)))


def add_person(
    orm: OrmSession,
    login: str,
    *,
    name: str = "",
    email: str = "",
    facility_role: str = "",
    password_hash: str | None = None,
    source: str = "local",
    unix_name: str | None = None,
) -> Person:
    """Add somebody.

    Raises
    ------
    BadParameter
        When the login is taken, or a value can't be right.
    """
    login = clean_login(login)
    if orm.scalar(select(Person.id).where(Person.login == login)) is not None:
        raise BadParameter("login", "one that isn't taken", login, "Choose another, or change that person.")
    person = Person(
        login=login,
        name=name.strip()[:128] or login,
        password_hash=password_hash,
        source=_one_of("source", source, SOURCES),
        created_at=now(),
    )
    set_person(orm, person, {"email": email, "facility_role": facility_role, "unix_name": unix_name})
    orm.add(person)
    orm.flush()
    return person


def set_person(orm: OrmSession, person: Person, values: Mapping[str, Any]) -> dict[str, Any]:
    """Change somebody's name, email, facility_role, unix_name or active; gives what really changed.

    Raises
    ------
    BadParameter
        When a value can't be right, or no active administrator would be left.
    """
    changed: dict[str, Any] = {}
    for name, value in values.items():
        checked = _CHECKS[name](value)
        if getattr(person, name) != checked:
            changed[name] = checked
    left = {"facility_role": person.facility_role, "active": person.active, **changed}
    was = person.facility_role == Role.ADMINISTRATOR and person.active is not False and person.id is not None
    if was and not (left["facility_role"] == Role.ADMINISTRATOR and left["active"]):
        _keep_an_administrator(orm, person)
    for name, value in changed.items():
        setattr(person, name, value)
    if changed.get("active") is False:
        end_sessions_of(orm, person)
    return changed


def replace_password(orm: OrmSession, caller: Caller, person: Person, password_hash: str) -> None:
    """Give a local account another password, sign it out everywhere, and note who did it.

    Raises
    ------
    BadParameter
        When the account isn't one of ours.
    """
    if person.source != "local":
        raise BadParameter("person", "a local account", f"one of {person.source}", "Change it there.")
    person.password_hash = password_hash
    end_sessions_of(orm, person)
    audit(orm, caller, "people.password", f"person {person.login}")


def end_sessions_of(orm: OrmSession, person: Person) -> None:
    """Sign somebody out everywhere."""
    for row in orm.scalars(select(WebSession).where(WebSession.person_id == person.id)):
        orm.delete(row)


def is_now(since: Any, until: Any, at: datetime) -> ColumnElement[bool]:
    """Condition: ``at`` lies between two columns, the second of which may be empty."""
    return and_(since <= at, or_(until.is_(None), until > at))


def roles_of(orm: OrmSession, person_id: int) -> dict[int, str]:
    """Somebody's role in each experiment they belong to now; who leads one counts as collaborator at least."""
    found: dict[int, str] = {}
    order = {role: rank for rank, role in enumerate(reversed(EXPERIMENT_ROLES))}
    query = select(Membership.experiment_id, Membership.role).where(
        Membership.person_id == person_id, is_now(Membership.since, Membership.until, now())
    )
    rows = [(experiment, role) for experiment, role in orm.execute(query)]
    led = orm.scalars(select(Experiment.id).where(Experiment.pi_person_id == person_id))
    rows += [(experiment, str(Role.COLLABORATOR)) for experiment in led]
    for experiment, role in rows:
        known = found.get(experiment)
        if known is None or order[Role(role)] > order[Role(known)]:
            found[experiment] = role
    return found


def members(orm: OrmSession, experiment_id: int) -> list[tuple[Person, str]]:
    """Who belongs to an experiment now, with the role; the one who leads it first."""
    query = (
        select(Person.id)
        .join(Membership, Membership.person_id == Person.id)
        .where(Membership.experiment_id == experiment_id, is_now(Membership.since, Membership.until, now()))
        .order_by(Person.login)
    )
    leader = orm.scalar(select(Experiment.pi_person_id).where(Experiment.id == experiment_id))
    ids = [*([leader] if leader is not None else []), *orm.scalars(query)]
    found = []
    for number in dict.fromkeys(ids):
        person = orm.get(Person, number)
        if person is not None:
            found.append((person, roles_of(orm, number).get(experiment_id, str(Role.RESEARCHER))))
    return found


def join_experiment(orm: OrmSession, experiment_id: int, person: Person, role: str) -> bool:
    """Let somebody into an experiment, or change their role; False when it was so already."""
    role = _one_of("role", role, EXPERIMENT_ROLES)
    rows = _memberships(orm, experiment_id, person)
    if [row.role for row in rows] == [role]:
        return False
    stamp = now()
    for row in rows:
        row.until = stamp
    orm.add(Membership(experiment_id=experiment_id, person_id=person.id, role=role, since=stamp))
    orm.flush()
    return True


def leave_experiment(orm: OrmSession, experiment_id: int, person: Person) -> bool:
    """End somebody's membership; False when there was none.

    Raises
    ------
    BadParameter
        When the person leads the experiment.
    """
    experiment = orm.get_one(Experiment, experiment_id)
    if experiment.pi_person_id == person.id:
        raise BadParameter(
            f"member {person.login}",
            "somebody who doesn't lead the experiment",
            "the one who does",
            "Give the experiment another lead first.",
        )
    rows = _memberships(orm, experiment_id, person)
    for row in rows:
        row.until = now()
    return bool(rows)


def caller_of(orm: OrmSession, person: Person, way: str, **more: Any) -> Caller:
    """What permissions ask about somebody, as it stands now."""
    return Caller(
        way=way,
        person_id=person.id,
        login=person.login,
        name=person.name,
        facility_role=person.facility_role,
        roles=roles_of(orm, person.id),
        **more,
    )


def _memberships(orm: OrmSession, experiment_id: int, person: Person) -> list[Membership]:
    query = select(Membership).where(
        Membership.experiment_id == experiment_id,
        Membership.person_id == person.id,
        is_now(Membership.since, Membership.until, now()),
    )
    return list(orm.scalars(query))


def _keep_an_administrator(orm: OrmSession, person: Person) -> None:
    others = orm.scalar(
        select(func.count())
        .select_from(Person)
        .where(Person.facility_role == Role.ADMINISTRATOR, Person.active.is_(True), Person.id != person.id)
    )
    if not others:
        raise BadParameter(
            f"person {person.login}",
            "an active administrator who stays",
            "the last one",
            "Make somebody else an administrator first.",
        )


def _one_of(name: str, value: str, known: Any) -> str:
    if value not in tuple(map(str, known)):
        raise BadParameter(name, "one of " + ", ".join(map(str, known)), repr(value)[:80])
    return str(value)


def _facility_role(value: Any) -> str:
    return _one_of("facility role", value, FACILITY_ROLES) if value else ""


def _unix_name(value: Any) -> str | None:
    if not value:
        return None
    if not _UNIX.fullmatch(value):
        raise BadParameter("unix name", "the name of an account: a-z, 0-9, . _ -", repr(value)[:80])
    return str(value)


def _email(value: Any) -> str:
    if value and not _EMAIL.fullmatch(value):
        raise BadParameter("e-mail address", "somebody@example.org", repr(value)[:80])
    return str(value)


def _name(value: Any) -> str:
    text = str(value).strip()
    if not text or len(text) > 128 or not text.isprintable():
        raise BadParameter("name", "1 to 128 printable characters", repr(value)[:80])
    return text


_CHECKS: dict[str, Any] = {
    "name": _name,
    "email": _email,
    "facility_role": _facility_role,
    "unix_name": _unix_name,
    "active": bool,
}
