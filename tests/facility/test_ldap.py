"""Signing in against a real OpenLDAP server, and its group kept in step with the elogbook."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from tests.conftest import _unavailable as unavailable
from tests.slapd import BASE, PASSWORD, ROOT_DN, ROOT_PASSWORD, Slapd, programs_are_there
from tests.web.people import quick_hash
from vitriflow.catalog import (
    Audit,
    Base,
    Catalog,
    Experiment,
    Microscope,
    Person,
    Sample,
    Session,
    SessionState,
    now,
)
from vitriflow.config import LdapGroupSection, LdapSection, PeopleSection
from vitriflow.elogbook.access import who_may_log_in
from vitriflow.elogbook.people import add_person, join_experiment, set_person
from vitriflow.errors import BadConfig
from vitriflow.facility.access import sync_group
from vitriflow.facility.ldap import DirectoryAway
from vitriflow.facility.signing_in import Refused, authenticators_of, sign_in

pytestmark = pytest.mark.service

STAFF = f"cn=staff,ou=groups,{BASE}"
USERS = f"cn=users,ou=groups,{BASE}"
PEOPLE = f"""\
dn: {BASE}
objectClass: dcObject
objectClass: organization
o: lab
dc: lab

dn: ou=people,{BASE}
objectClass: organizationalUnit
ou: people

dn: ou=groups,{BASE}
objectClass: organizationalUnit
ou: groups

dn: uid=maria,ou=people,{BASE}
objectClass: inetOrgPerson
uid: maria
cn: María O'Neill (EM)
sn: O'Neill
mail: maria@lab.org
userPassword: {PASSWORD}

dn: uid=guest,ou=people,{BASE}
objectClass: inetOrgPerson
uid: guest
cn: Guest
sn: Guest
userPassword: {PASSWORD}

dn: uid=searcher,ou=people,{BASE}
objectClass: inetOrgPerson
uid: searcher
cn: Searcher
sn: Searcher
userPassword: {PASSWORD}

dn: {STAFF}
objectClass: groupOfNames
cn: staff
member: uid=maria,ou=people,{BASE}

dn: {USERS}
objectClass: groupOfNames
cn: users
member: uid=guest,ou=people,{BASE}

dn: cn=tem1-now,ou=groups,{BASE}
objectClass: posixGroup
cn: tem1-now
gidNumber: 5000
memberUid: left-long-ago

dn: cn=tem1-names,ou=groups,{BASE}
objectClass: groupOfNames
cn: tem1-names
member: cn=nobody
"""


@pytest.fixture(scope="module")
def directory() -> Iterator[Slapd]:
    if not programs_are_there():
        unavailable("slapd and ldap-utils", "run 'make services' as root")
    folder = Path(tempfile.mkdtemp(prefix="vf-ldap-"))
    server = Slapd(folder / "slapd")
    server.start()
    server.load(PEOPLE)
    yield server
    server.stop()
    shutil.rmtree(folder)


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    made = Catalog(f"sqlite:///{tmp_path / 'catalog.db'}")
    Base.metadata.create_all(made.engine)
    yield made
    made.close()


def settings(directory: Slapd, **more: Any) -> PeopleSection:
    values: dict[str, Any] = {
        "url": directory.url,
        "start_tls": True,
        "ca_file": directory.certificate,
        "bind_dn_template": f"uid={{login}},ou=people,{BASE}",
        "roles": {STAFF.upper(): "operator"},
        **more,
    }
    return PeopleSection(ldap=LdapSection.model_validate(values))


def enter(catalog: Catalog, section: PeopleSection, login: str, password: str = PASSWORD) -> Person:
    return sign_in(catalog, authenticators_of(section), login, password, "192.0.2.1")


def test_who_the_directory_knows_becomes_a_person_with_the_role_of_their_group(
    directory: Slapd, catalog: Catalog
) -> None:
    person = enter(catalog, settings(directory), "Maria")
    assert (person.login, person.name, person.email) == ("maria", "María O'Neill (EM)", "maria@lab.org")
    assert (person.source, person.facility_role, person.unix_name) == ("ldap", "operator", "maria")
    assert enter(catalog, settings(directory), "guest").facility_role == ""
    assert enter(catalog, settings(directory), "maria").id == person.id


def test_a_search_finds_people_where_there_is_no_template(
    directory: Slapd, catalog: Catalog, tmp_path: Path
) -> None:
    word = tmp_path / "word"
    word.write_text(f"{PASSWORD}\n")
    word.chmod(0o600)
    search = {
        "bind_dn_template": None,
        "base_dn": BASE,
        "bind_dn": f"uid=searcher,ou=people,{BASE}",
        "bind_password_file": word,
        "group_attribute": "",
        "group_base_dn": f"ou=groups,{BASE}",
    }
    assert enter(catalog, settings(directory, **search), "maria").facility_role == "operator"
    for login in ("*", "mar*", "maria)(uid=*", "nobody"):
        with pytest.raises(Refused):
            enter(catalog, settings(directory, **search), login)
    word.chmod(0o644)
    with pytest.raises(BadConfig, match="chmod 600"):
        enter(catalog, settings(directory, **search), "maria")


@pytest.mark.parametrize(
    ("login", "password"),
    [
        ("maria", "wrong"),
        ("maria", ""),
        ("nobody", PASSWORD),
        (f"maria,ou=people,{BASE}", PASSWORD),
        ("guest,ou=people", PASSWORD),
        ("maria\x00", PASSWORD),
        ("maria", f"{PASSWORD}\x00"),
        ("", ""),
    ],
)
def test_what_does_not_fit_is_refused_and_makes_nobody(
    directory: Slapd, catalog: Catalog, login: str, password: str
) -> None:
    with pytest.raises(Refused, match="don't fit"):
        enter(catalog, settings(directory), login, password)
    assert catalog.read(lambda orm: list(orm.scalars(select(Person)))) == []
    assert catalog.read(lambda orm: orm.scalars(select(Audit.action)).all()) == ["sign-in.refused"]


def test_only_some_groups_may_sign_in_where_it_says_so(directory: Slapd, catalog: Catalog) -> None:
    section = settings(directory, only_groups=[STAFF])
    assert enter(catalog, section, "maria")
    with pytest.raises(Refused):
        enter(catalog, section, "guest")


def test_who_was_deactivated_here_stays_out(directory: Slapd, catalog: Catalog) -> None:
    person = enter(catalog, settings(directory), "maria")
    catalog.write(lambda orm: set_person(orm, orm.get_one(Person, person.id), {"active": False}))
    with pytest.raises(Refused):
        enter(catalog, settings(directory), "maria")


def test_a_local_account_is_not_taken_over_by_the_directory(directory: Slapd, catalog: Catalog) -> None:
    catalog.write(
        lambda orm: add_person(
            orm, "maria", facility_role="administrator", password_hash=quick_hash("the local one")
        )
    )
    with pytest.raises(Refused):
        enter(catalog, settings(directory), "maria")
    assert enter(catalog, settings(directory), "maria", "the local one").source == "local"


def test_a_directory_that_is_away_is_told_and_local_accounts_still_work(
    directory: Slapd, catalog: Catalog
) -> None:
    catalog.write(lambda orm: add_person(orm, "local", password_hash=quick_hash("the local one")))
    gone = settings(directory, url="ldap://127.0.0.1:9", timeout_s=2)
    assert enter(catalog, gone, "local", "the local one").login == "local"
    with pytest.raises(DirectoryAway, match="Local accounts still work"):
        enter(catalog, gone, "maria")


def test_a_certificate_that_is_not_trusted_gets_no_password(
    directory: Slapd, catalog: Catalog, tmp_path: Path
) -> None:
    with pytest.raises(DirectoryAway, match=r"[Cc]ertificate"):
        enter(catalog, settings(directory, ca_file=None), "maria")
    assert enter(catalog, settings(directory, ca_file=None, check_certificate=False), "maria")


def test_a_password_never_goes_out_unencrypted_by_mistake() -> None:
    with pytest.raises(ValueError, match="encrypted"):
        LdapSection(url="ldap://ldap.example.org", bind_dn_template="uid={login}")


# ---- the group of those who may log in now


def house(catalog: Catalog) -> tuple[int, int]:
    def work(orm: Any) -> tuple[int, int]:
        scope = Microscope(name="tem1")
        award = Experiment(name="C123", created_at=now())
        orm.add_all([scope, award])
        orm.flush()
        grid = Sample(experiment_id=award.id, name="g")
        orm.add(grid)
        orm.flush()
        session = Session(
            key="s", microscope_id=scope.id, sample_id=grid.id, state=SessionState.ACTIVE, source="/x", root="/x/s",
            created_at=now(),
        )  # fmt: skip
        orm.add(session)
        orm.flush()
        add_person(orm, "olga", facility_role="operator", unix_name="olga")
        join_experiment(orm, award.id, add_person(orm, "carl", unix_name="carl"), "collaborator")
        return award.id, session.id

    return catalog.write(work)


@pytest.mark.parametrize("attribute", ["memberUid", "member"])
def test_the_group_follows_the_elogbook_member_by_member(
    directory: Slapd, catalog: Catalog, tmp_path: Path, attribute: str
) -> None:
    word = tmp_path / "root"
    word.write_text(ROOT_PASSWORD)
    word.chmod(0o600)
    names = attribute == "member"
    dn = f"cn=tem1-names,ou=groups,{BASE}" if names else f"cn=tem1-now,ou=groups,{BASE}"
    section = LdapGroupSection(
        url=directory.url,
        start_tls=True,
        ca_file=directory.certificate,
        bind_dn=ROOT_DN,
        bind_password_file=word,
        dn=dn.replace("tem1", "{microscope}"),
        attribute="member" if names else "memberUid",
        member_dn=f"uid={{unix_name}},ou=people,{BASE}",
        keep=("cn=nobody",) if names else (),
    )

    def members() -> set[str]:
        found = directory.values(dn, attribute)
        return {one.removeprefix("uid=").removesuffix(f",ou=people,{BASE}") for one in found} - {"cn=nobody"}

    def sync() -> bool:
        return sync_group(section, catalog.read(lambda orm: who_may_log_in(orm, "tem1")))

    _, session = house(catalog)
    assert sync()
    assert members() == {"olga", "carl"}
    assert not sync()  # nothing to do

    def stop(orm: Any) -> None:
        orm.get_one(Session, session).state = SessionState.CLOSED

    catalog.write(stop)
    assert sync()
    assert members() == {"olga"}
    missing = section.model_copy(update={"dn": f"cn=none,ou=groups,{BASE}"})
    with pytest.raises(DirectoryAway, match="no such entry"):
        sync_group(missing, catalog.read(lambda orm: who_may_log_in(orm, "tem1")))
