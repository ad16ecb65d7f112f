"""Signing in: local accounts, a directory (LDAP), and room for others such as OpenID Connect.

Whatever finds out who somebody is ends in an :class:`Identity`, and :func:`accept` makes the
catalog's person of it. OpenID Connect finds it out by sending the browser elsewhere instead of
taking a password; its answer would go through :func:`accept` just the same.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from sqlalchemy import select
from sqlalchemy.orm import Session as OrmSession

from vitriflow.catalog import Catalog, Person
from vitriflow.config import LdapSection, PeopleSection
from vitriflow.elogbook.audit import audit
from vitriflow.elogbook.people import add_person, clean_login, set_person
from vitriflow.elogbook.permissions import Caller, Role
from vitriflow.elogbook.tokens import password_fits
from vitriflow.errors import BadParameter
from vitriflow.facility.ldap import (
    DirectoryAway,
    connected,
    in_dn,
    in_filter,
    read_entry,
    read_password,
    same_dn,
    search,
)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Identity:
    """Who somebody is, as an authenticator found out.

    ``facility_role`` is None where the authenticator has no say in it.
    """

    login: str
    source: str
    name: str = ""
    email: str = ""
    unix_name: str | None = None
    facility_role: str | None = None


class Authenticator(Protocol):
    """Something that knows people and their passwords."""

    source: str

    def identify(self, login: str, password: str) -> Identity | None:
        """Who this is; None for a wrong password or somebody unknown.

        Raises
        ------
        DirectoryAway
            When it can't be found out now.
        """
        ...


class Refused(BadParameter):
    """The login or the password isn't right: which of them isn't told."""

    def __init__(self, why: str = "") -> None:
        self.why = why  # for the audit log only
        super().__init__("sign-in", "a login and its password", "ones that don't fit", "Try again.")


class LdapAuthenticator:
    """A directory: OpenLDAP, Active Directory, FreeIPA, ..."""

    source = "ldap"

    def __init__(self, settings: LdapSection) -> None:
        self._settings = settings

    def identify(self, login: str, password: str) -> Identity | None:
        """Bind as the person; an empty password never goes out (a directory takes it as nobody's)."""
        if not password or "\x00" in password:
            return None
        settings = self._settings
        dn = self._dn_of(login)
        if dn is None:
            return None
        with connected(settings, dn, password) as connection:
            if connection is None:
                return None
            names = [settings.name_attribute, settings.mail_attribute, settings.group_attribute]
            names += [settings.unix_attribute] if settings.unix_attribute else []
            entry = self._find(connection, dn, names)
            groups = entry.get(settings.group_attribute, []) + self._groups(connection, login, dn)
        if settings.only_groups and not _in_one(groups, settings.only_groups):
            return None
        roles = [role for group, role in settings.roles.items() if _in_one(groups, (group,))]
        role = next((one for one in (Role.ADMINISTRATOR, Role.OPERATOR) if one in roles), "")
        return Identity(
            login,
            self.source,
            name=_first(entry, settings.name_attribute),
            email=_first(entry, settings.mail_attribute),
            unix_name=_first(entry, settings.unix_attribute) or None,
            facility_role=str(role) if settings.roles else None,
        )

    def _dn_of(self, login: str) -> str | None:
        settings = self._settings
        if settings.bind_dn_template is not None:
            return settings.bind_dn_template.replace("{login}", in_dn(login))
        password = read_password(settings.bind_password_file)
        with connected(settings, settings.bind_dn, password) as connection:
            if connection is None:
                raise DirectoryAway(
                    f"directory {settings.url}",
                    f"to let {settings.bind_dn} search",
                    "a refusal",
                    "Correct bind_dn and bind_password_file in [people.ldap].",
                )
            query = settings.filter.replace("{login}", in_filter(login))
            found = search(connection, settings.base_dn or "", query, ["1.1"])
        if len(found) > 1:
            log.warning("the directory has %d entries for the login %r: none is taken", len(found), login)
        return found[0][0] if len(found) == 1 else None

    def _find(self, connection: object, dn: str, names: list[str]) -> dict[str, list[str]]:
        return read_entry(connection, dn, names) or {}

    def _groups(self, connection: object, login: str, dn: str) -> list[str]:
        settings = self._settings
        if settings.group_base_dn is None:
            return []
        query = settings.group_filter.replace("{dn}", in_filter(dn)).replace("{login}", in_filter(login))
        return [group for group, _ in search(connection, settings.group_base_dn, query, ["1.1"])]


def authenticators_of(settings: PeopleSection) -> list[Authenticator]:
    """The authenticators that facility.toml asks for, besides local accounts."""
    return [LdapAuthenticator(settings.ldap)] if settings.ldap is not None else []


def sign_in(
    catalog: Catalog, authenticators: Sequence[Authenticator], login: str, password: str, address: str = ""
) -> Person:
    """Find out who somebody is, by login and password; each try stands in the audit log.

    A local account is only ever asked for here, never from a directory, so that nobody takes one
    over by a login of the same name elsewhere.

    Raises
    ------
    Refused
        When they don't fit, whatever the reason.
    DirectoryAway
        When the account isn't local and the directory doesn't answer.
    """
    try:
        return _sign_in(catalog, authenticators, login, password, address)
    except Refused as error:
        caller, why = Caller(login=login[:64], address=address), {"why": error.why}
        catalog.write(lambda orm: audit(orm, caller, "sign-in.refused", details=why))
        raise


def _sign_in(
    catalog: Catalog, authenticators: Sequence[Authenticator], login: str, password: str, address: str
) -> Person:
    try:
        login = clean_login(login)
    except BadParameter as error:
        password_fits(None, password)
        raise Refused("no such login") from error
    known = catalog.read(lambda orm: orm.scalar(select(Person).where(Person.login == login)))
    if known is not None and known.source == "local":
        if not password_fits(known.password_hash, password):
            raise Refused("wrong password")
        if not known.active:
            raise Refused("not active")
        return known
    for one in authenticators:
        if known is not None and known.source != one.source:
            continue
        identity = one.identify(login, password)
        if identity is not None:
            return accept(catalog, identity, address)
    if known is None and not authenticators:
        password_fits(None, password)
    raise Refused("unknown, or wrong password")


def accept(catalog: Catalog, identity: Identity, address: str = "") -> Person:
    """The catalog's person for an identity: made at the first sign-in, kept in step at later ones.

    Raises
    ------
    Refused
        When the person was deactivated here, or the login belongs to another source.
    """
    values = {"email": identity.email, "unix_name": identity.unix_name}
    values |= {"name": identity.name} if identity.name else {}
    values |= {"facility_role": identity.facility_role} if identity.facility_role is not None else {}

    def work(orm: OrmSession) -> Person:
        person = orm.scalar(select(Person).where(Person.login == identity.login))
        if person is None:
            person = add_person(orm, identity.login, name=identity.name, source=identity.source)
            audit(orm, _as(person, address), "people.first-sign-in", f"person {person.login}")
        if person.source != identity.source or not person.active:
            raise Refused("not active" if not person.active else f"the login belongs to {person.source}")
        for name, value in values.items():
            try:
                changed = set_person(orm, person, {name: value})
            except BadParameter as error:  # a directory may hold what we can't take; it's no reason to refuse
                log.warning("%s of %s from %s is left: %s", name, identity.login, identity.source, error)
                continue
            if changed and name == "facility_role":
                audit(orm, _as(person, address), "people.role", f"person {person.login}", changed)
        return person

    return catalog.write(work)


def _as(person: Person, address: str) -> Caller:
    return Caller(person_id=person.id, login=person.login, address=address)


def _in_one(groups: Sequence[str], wanted: Sequence[str]) -> bool:
    return any(same_dn(group, one) for group in groups for one in wanted)


def _first(entry: dict[str, list[str]], name: str) -> str:
    for key, values in entry.items():
        if name and key.lower() == name.lower() and values:
            return values[0]
    return ""
