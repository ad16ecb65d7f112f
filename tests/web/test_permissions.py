"""Each role against each route: what the table of actions says is what the server does."""

import re
from collections.abc import Iterator

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from sqlalchemy import func, select
from sqlalchemy.orm import Session as OrmSession

from tests.web.people import MEMBERS, ROLES, STRANGER, Facility, facility
from vitriflow.catalog import Audit, Session, SessionState
from vitriflow.elogbook.permissions import ACTIONS, About, Role
from vitriflow.web.auth import PUBLIC, all_routes, check_declared, declared, needs

WHO = ("anonymous", STRANGER, "rita", "carl", "olga", "ada", "token:ada", "token:rita")
RANK = {Role.PERSON: 1, Role.RESEARCHER: 2, Role.COLLABORATOR: 3, Role.OPERATOR: 4, Role.ADMINISTRATOR: 5}
# What a name in a path is filled with: the session and experiment that carl and rita belong to.
NAMES = {"experiment": "C123", "microscope": "tem1", "login": "nobody-of-that-name"}


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Facility]:
    with facility(tmp_path_factory.mktemp("permissions")) as made:
        yield made


def routes(app: FastAPI) -> list[tuple[str, str, str]]:
    """(method, path, action) of every route."""
    found = []
    for route in all_routes(app.routes):
        if isinstance(route, APIRoute):
            action = declared(route)
            assert action is not None, route.path
            found += [(method, route.path, action) for method in sorted(route.methods or ())]
    return found


def address_of(house: Facility, path: str) -> str:
    def fill(match: re.Match[str]) -> str:
        name = match[1].partition(":")[0]
        return {"key": house.world.key, **NAMES}.get(name, "999999999")

    return re.sub(r"\{([^}]+)\}", fill, path)


def expected(who: str, action: str) -> str:
    """What the table promises: in, sign-in, hidden or refused."""
    rule = ACTIONS[action]
    if rule.role == Role.ANYONE:
        return "in"
    if who == "anonymous":
        return "sign-in"
    login = who.removeprefix("token:")
    if rule.about == About.EXPERIMENT and login == STRANGER:
        return "hidden"
    if who.startswith("token:") and rule.scope != "read":
        return "refused"
    role = Role(
        ROLES.get(login) or (MEMBERS.get(login, "person") if rule.about == About.EXPERIMENT else "person")
    )
    # Their session is the current one of its microscope.
    least = rule.while_current or rule.role
    return "in" if RANK[role] >= RANK[least] else "refused"


def outcome(answer: httpx.Response) -> str:
    if answer.status_code == 401 or answer.headers.get("location", "").startswith("/sign-in"):
        return "sign-in"
    if answer.status_code == 403:
        return "refused"
    return {404: "hidden"}.get(answer.status_code, "in")


@pytest.mark.parametrize("who", WHO)
def test_every_route_lets_in_exactly_whom_the_table_names(house: Facility, who: str) -> None:
    wrong = []
    seen = audited(house)
    for method, path, action in routes(house.app):
        url = address_of(house, path)
        if path.endswith("/live") or path in ("/sign-out", "/sign-in"):
            continue  # tested by themselves: a stream, and what would sign these browsers out
        if method != "GET":
            activate(house)  # some deeds need no body, so an earlier caller may have stopped it
        # A body that no route can take: whoever is let in hears of that, and next to nothing is changed.
        headers = {"content-type": "text/plain"}
        client = house.visitor
        if who.startswith("token:"):
            headers |= house.with_token(who.removeprefix("token:"))
        elif who != "anonymous":
            client = house.client(who)
            headers["x-csrf-token"] = csrf_of(house, who)
        answer = client.request(method, url, headers=headers, content=b"\xff")
        house.visitor.cookies.clear()
        assert answer.status_code < 500, f"{method} {path}: {answer.text}"
        if method != "GET" and answer.status_code < 400:
            seen, before = audited(house), seen
            assert seen > before, f"{method} {path} left no row in the audit log"
        promised, got = expected(who, action), outcome(answer)
        # What's in may still name something that isn't there (exposure 999999999).
        if got != promised and not (promised == "in" and got == "hidden"):
            wrong.append(f"{method} {path} ({action}) for {who}: {promised}, but {answer.status_code}")
    assert not wrong, "\n".join(wrong)


def audited(house: Facility) -> int:
    return house.world.catalog.read(lambda orm: orm.scalar(select(func.max(Audit.id))) or 0)


def activate(house: Facility) -> None:
    def work(orm: OrmSession) -> None:
        session = orm.get_one(Session, house.world.session_id)
        session.state, session.closed_at = SessionState.ACTIVE, None

    house.world.catalog.write(work)


def csrf_of(house: Facility, login: str) -> str:
    found = house.app.state.__dict__.setdefault("csrf_for_tests", {})
    if login not in found:
        match = re.search(r'data-csrf="([^"]+)"', house.client(login).get("/me").text)
        assert match is not None
        found[login] = match[1]
    return str(found[login])


def test_what_is_declared_covers_every_route(house: Facility) -> None:
    paths = [path for _, path, _ in routes(house.app)]
    assert len(paths) > 25
    unknown = {
        str(getattr(route, "path", ""))
        for route in all_routes(house.app.routes)
        if not isinstance(route, APIRoute)
    }
    assert unknown == set(PUBLIC)


def test_a_route_that_declares_nothing_stops_the_server_from_starting() -> None:
    app = FastAPI(openapi_url=None)

    @app.get("/forgotten")
    def forgotten() -> None: ...

    with pytest.raises(RuntimeError, match="/forgotten declares no permission"):
        check_declared(app)


def test_a_route_about_an_experiment_has_to_name_one() -> None:
    app = FastAPI(openapi_url=None)

    @app.get("/vague", dependencies=[needs("session.read")])
    def vague() -> None: ...

    with pytest.raises(RuntimeError, match=r"/vague needs session\.read"):
        check_declared(app)


def test_lists_hold_only_what_is_ones_own(house: Facility) -> None:
    def keys(login: str) -> set[str]:
        return {one["key"] for one in house.client(login).get("/api/sessions").json()["sessions"]}

    assert keys("rita") == {house.world.key}
    assert keys(STRANGER) == {"foreign"}
    assert keys("olga") == {house.world.key, "foreign"}
    assert house.client(STRANGER).get("/api/sessions").json()["total"] == 1
    page = house.client("rita").get("/").text
    assert "apoferritin" in page
    assert "secret protein" not in page


def test_what_is_foreign_is_answered_like_what_is_not_there(house: Facility) -> None:
    client = house.client("rita")
    for path in (
        "/api/sessions/{}",
        "/api/sessions/{}/files",
        "/api/sessions/{}/live",
        "/api/sessions/{}/events",
    ):
        foreign = client.get(path.format("foreign"))
        missing = client.get(path.format("no-such"))
        assert foreign.status_code == missing.status_code == 404
        assert foreign.text.replace("foreign", "no-such") == missing.text
    assert client.get("/api/experiments/X999/people").status_code == 404


def test_a_token_narrowed_to_an_experiment_sees_nothing_else(house: Facility) -> None:
    token = house.client("olga").post(
        "/api/tokens",
        json={"name": "narrow", "experiment": "C123"},
        headers={"x-csrf-token": csrf_of(house, "olga")},
    )
    assert token.status_code == 422  # an operator of the facility isn't a member of it
    token = house.client("rita").post(
        "/api/tokens",
        json={"name": "narrow", "experiment": "C123"},
        headers={"x-csrf-token": csrf_of(house, "rita")},
    )
    assert token.status_code == 201
    headers = {"authorization": f"Bearer {token.json()['token']}"}
    found = httpx.get(house.address + "/api/sessions", headers=headers).json()
    assert [one["key"] for one in found["sessions"]] == [house.world.key]
    assert httpx.get(house.address + "/api/sessions/foreign", headers=headers).status_code == 404
