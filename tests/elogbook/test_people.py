"""People, roles and memberships; who may log in to which microscope now, and how it's published."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from vitriflow.catalog import (
    Base,
    Catalog,
    Experiment,
    Membership,
    Microscope,
    Sample,
    Session,
    SessionState,
    now,
)
from vitriflow.config import AccessSection, Config
from vitriflow.elogbook.access import Access, add_helper, revoke_helpers, subject_of_session, who_may_log_in
from vitriflow.elogbook.people import (
    add_person,
    caller_of,
    find_person,
    join_experiment,
    leave_experiment,
    members,
    roles_of,
    set_person,
)
from vitriflow.elogbook.permissions import (
    ACTIONS,
    ANONYMOUS,
    About,
    Caller,
    Forbidden,
    Role,
    SignInNeeded,
    Subject,
    may,
    require,
)
from vitriflow.elogbook.tokens import hash_password, new_password, password_fits
from vitriflow.errors import BadParameter
from vitriflow.facility.access import pam_text, publish_access, write_pam


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    made = Catalog(f"sqlite:///{tmp_path / 'catalog.db'}")
    Base.metadata.create_all(made.engine)

    def fill(orm: Any) -> None:
        for name in ("tem1", "tem2"):
            scope = Microscope(name=name)
            award = Experiment(name=f"E-{name}", created_at=now())
            orm.add_all([scope, award])
            orm.flush()
            grid = Sample(experiment_id=award.id, name="g")
            orm.add(grid)
            orm.flush()
            orm.add(
                Session(
                    key=f"s-{name}", microscope_id=scope.id, sample_id=grid.id, state=SessionState.ACTIVE,
                    source="/x", root=f"/x/{name}", created_at=now(),
                )
            )  # fmt: skip
        add_person(orm, "ada", facility_role="administrator", unix_name="ada")
        add_person(orm, "olga", facility_role="operator", unix_name="olga")
        for login in ("carl", "rita", "helga"):
            add_person(orm, login, unix_name=login)
        join_experiment(orm, 1, find_person(orm, "carl"), "collaborator")
        join_experiment(orm, 1, find_person(orm, "rita"), "researcher")

    made.write(fill)
    yield made
    made.close()


def session(orm: Any, key: str = "s-tem1") -> Session:
    found: Session = orm.scalars(select(Session).where(Session.key == key)).one()
    return found


def access(catalog: Catalog, microscope: str = "tem1") -> Access:
    return catalog.read(lambda orm: who_may_log_in(orm, microscope))


def set_state(catalog: Catalog, state: SessionState) -> None:
    def work(orm: Any) -> None:
        session(orm).state = state

    catalog.write(work)


def test_operators_and_collaborators_of_the_active_experiment_may_log_in(catalog: Catalog) -> None:
    assert access(catalog).unix_names == ["ada", "carl", "olga"]
    assert access(catalog, "tem2").unix_names == ["ada", "olga"]
    assert {one.login: one.why for one in access(catalog).people}["carl"] == "collaborator of E-tem1"


def test_a_stop_revokes_and_a_pause_does_not(catalog: Catalog) -> None:
    catalog.write(lambda orm: add_helper(orm, session(orm), find_person(orm, "helga"), "olga"))
    assert access(catalog).unix_names == ["ada", "carl", "helga", "olga"]
    set_state(catalog, SessionState.PAUSED)
    assert "carl" in access(catalog).unix_names
    set_state(catalog, SessionState.CLOSED)
    assert access(catalog).unix_names == ["ada", "olga"]
    assert access(catalog).session is None


def test_a_helper_is_let_in_for_one_session_and_taken_back(catalog: Catalog) -> None:
    assert catalog.write(lambda orm: add_helper(orm, session(orm), find_person(orm, "helga"), "olga"))
    assert not catalog.write(lambda orm: add_helper(orm, session(orm), find_person(orm, "helga"), "olga"))
    assert "helga" not in access(catalog, "tem2").unix_names
    catalog.write(lambda orm: revoke_helpers(orm, session(orm).id, find_person(orm, "helga")) and None)
    assert "helga" not in access(catalog).unix_names
    set_state(catalog, SessionState.CLOSED)
    with pytest.raises(BadParameter, match="closed"):
        catalog.write(lambda orm: add_helper(orm, session(orm), find_person(orm, "helga"), "olga"))


def test_who_is_deactivated_may_not_log_in(catalog: Catalog) -> None:
    catalog.write(lambda orm: set_person(orm, find_person(orm, "carl"), {"active": False}))
    assert "carl" not in access(catalog).unix_names


def test_a_pam_access_file_is_written_whole_and_only_when_it_changes(
    catalog: Catalog, tmp_path: Path
) -> None:
    path = tmp_path / "tem1.conf"
    assert write_pam(path, access(catalog), ("root", "@staff"))
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    assert lines == ["+:root:ALL", "+:@staff:ALL", "+:ada:ALL", "+:carl:ALL", "+:olga:ALL", "-:ALL:ALL"]
    before = path.stat().st_mtime_ns
    assert not write_pam(path, access(catalog), ("root", "@staff"))
    assert path.stat().st_mtime_ns == before
    assert [one.name for one in tmp_path.iterdir() if "tem1" in one.name] == ["tem1.conf"]


def test_publishing_writes_each_microscope_s_file_and_tells_what_it_could_not(
    catalog: Catalog, tmp_path: Path
) -> None:
    config = Config(access=AccessSection(pam_file=tmp_path / "pam-{microscope}.conf"))
    assert [one.name for one in publish_access(config, catalog).pam] == ["pam-tem1.conf", "pam-tem2.conf"]
    assert publish_access(config, catalog).pam == []
    gone = Config(access=AccessSection(pam_file=tmp_path / "no folder" / "pam-{microscope}.conf"))
    assert len(publish_access(gone, catalog).problems) == 2


@pytest.mark.parametrize("name", ["root:ALL", "a b", "-x", "UPPER", "x\n+:ALL:ALL", "x" * 33])
def test_an_account_name_can_not_smuggle_a_line_into_the_file(catalog: Catalog, name: str) -> None:
    with pytest.raises(BadParameter, match="unix name"):
        catalog.write(lambda orm: set_person(orm, find_person(orm, "carl"), {"unix_name": name}))
    assert name not in pam_text(access(catalog)).splitlines()


# ---- roles


def caller(catalog: Catalog, login: str, **more: Any) -> Caller:
    return catalog.read(lambda orm: caller_of(orm, find_person(orm, login), "cookie", **more))


def subject(catalog: Catalog, key: str = "s-tem1") -> Subject:
    found = catalog.read(lambda orm: subject_of_session(orm, key))
    assert found is not None
    return found


def test_a_collaborator_controls_only_while_theirs_is_the_microscope_s_current_session(
    catalog: Catalog,
) -> None:
    carl, rita, olga = (caller(catalog, name) for name in ("carl", "rita", "olga"))
    assert may(carl, "session.control", subject(catalog))
    assert not may(rita, "session.control", subject(catalog))
    assert not may(carl, "session.control", subject(catalog, "s-tem2"))
    set_state(catalog, SessionState.PAUSED)
    assert may(carl, "session.control", subject(catalog))

    def next_one(orm: Any) -> None:
        old = session(orm)
        orm.add(
            Session(
                key="next", microscope_id=old.microscope_id, sample_id=session(orm, "s-tem2").sample_id,
                state=SessionState.ACTIVE, source="/x", root="/x/n", created_at=now(),
            )
        )  # fmt: skip

    catalog.write(next_one)
    assert not may(carl, "session.control", subject(catalog))
    assert may(olga, "session.control", subject(catalog))


def test_memberships_begin_change_and_end_and_none_is_forgotten(catalog: Catalog) -> None:
    def roles(login: str) -> dict[int, str]:
        return catalog.read(lambda orm: roles_of(orm, find_person(orm, login).id))

    assert not catalog.write(lambda orm: join_experiment(orm, 1, find_person(orm, "carl"), "collaborator"))
    catalog.write(lambda orm: join_experiment(orm, 1, find_person(orm, "carl"), "researcher"))
    assert roles("carl") == {1: "researcher"}
    catalog.write(lambda orm: leave_experiment(orm, 1, find_person(orm, "carl")))
    assert roles("carl") == {}
    carl = caller(catalog, "carl")
    assert not may(carl, "session.read", subject(catalog))
    assert catalog.read(lambda orm: len(orm.scalars(select(Membership)).all())) == 3


def test_who_leads_an_experiment_is_a_collaborator_and_can_not_just_leave(catalog: Catalog) -> None:
    def lead(orm: Any) -> None:
        orm.get_one(Experiment, 1).pi_person_id = find_person(orm, "helga").id

    catalog.write(lead)
    assert may(caller(catalog, "helga"), "log.write", subject(catalog))
    assert catalog.read(lambda orm: members(orm, 1)[0][0].login) == "helga"
    with pytest.raises(BadParameter, match="another lead"):
        catalog.write(lambda orm: leave_experiment(orm, 1, find_person(orm, "helga")))


def test_nobody_may_do_anything_but_sign_in_without_signing_in() -> None:
    for name, rule in ACTIONS.items():
        assert may(ANONYMOUS, name, Subject(1)) == (rule.role == Role.ANYONE), name
    with pytest.raises(SignInNeeded):
        require(ANONYMOUS, "session.read", Subject(1))


def test_scopes_bind_even_an_administrator(catalog: Catalog) -> None:
    reader = caller(catalog, "ada", scopes=frozenset({"read"}))
    for name, rule in ACTIONS.items():
        where = Subject(1) if rule.about == About.EXPERIMENT else Subject()
        assert may(reader, name, where) == (rule.scope == "read"), name
    with pytest.raises(Forbidden, match="scope control"):
        require(reader, "session.control", Subject(1))


@pytest.mark.parametrize("login", ["", " ", "a b", "-x", "x" * 65, "ä", "a/b", "a\x00"])
def test_a_login_that_can_not_be_one_is_refused(catalog: Catalog, login: str) -> None:
    with pytest.raises(BadParameter, match="login"):
        catalog.write(lambda orm: add_person(orm, login))


def test_logins_differ_by_more_than_case(catalog: Catalog) -> None:
    with pytest.raises(BadParameter, match="taken"):
        catalog.write(lambda orm: add_person(orm, "ADA"))


def test_passwords_are_kept_as_argon2_and_too_short_ones_refused() -> None:
    made = new_password()
    hashed = hash_password(made)
    assert hashed.startswith("$argon2id$")
    assert password_fits(hashed, made)
    assert not password_fits(hashed, made + "x")
    assert not password_fits(None, made)
    assert not password_fits("no hash at all", made)
    with pytest.raises(BadParameter, match="10 to"):
        hash_password("short")
