"""Signing in and out, cookies, forms, tokens, and what hostile requests get."""

import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from sqlalchemy import func, select

from tests.web.conftest import client_of, running
from tests.web.factory import make_world
from tests.web.people import PASSWORD, Facility, csrf, facility, person, quick_hash, sign_in
from vitriflow.catalog import ApiToken, Audit, Experiment, Membership, Person, WebSession, now
from vitriflow.elogbook.people import add_person
from vitriflow.elogbook.tokens import hash_secret
from vitriflow.errors import CatalogError
from vitriflow.web import create_app
from vitriflow.web.auth_limit import FREE_TRIES, FREE_TRIES_WIDE, MOST_KEPT, Limiter
from vitriflow.web.auth_pages import safe_next

EVIL = "<script>document.body.dataset.owned=1</script>"


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Facility]:
    with facility(tmp_path_factory.mktemp("auth")) as made:
        yield made


@pytest.fixture
def visitor(house: Facility) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=house.address, timeout=120) as client:
        yield client


def test_a_browser_is_sent_to_sign_in_and_back(house: Facility, visitor: httpx.Client) -> None:
    answer = visitor.get(f"/sessions/{house.world.key}?status=done")
    assert answer.status_code == 303
    page = visitor.get(answer.headers["location"])
    where = re.search(r'name="next" value="([^"]+)"', page.text)
    assert where is not None
    data = {"login": "Rita", "password": PASSWORD, "next": where[1], "csrf": csrf(visitor, "/sign-in")}
    answer = visitor.post("/sign-in", data=data)
    assert answer.headers["location"] == f"/sessions/{house.world.key}?status=done"
    assert visitor.get(answer.headers["location"]).status_code == 200
    assert "Sign out" in visitor.get("/").text


def test_the_cookie_can_not_be_read_by_scripts_nor_sent_by_other_sites(
    house: Facility, visitor: httpx.Client
) -> None:
    data = {"login": "rita", "password": PASSWORD, "csrf": csrf(visitor, "/sign-in")}
    cookie = visitor.post("/sign-in", data=data).headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    secret = visitor.cookies["vitriflow"]
    hashes = house.world.catalog.read(lambda orm: list(orm.scalars(select(WebSession.token_hash))))
    assert hash_secret(secret) in hashes
    assert secret not in hashes


def test_behind_https_the_cookie_is_held_to_this_host(house: Facility) -> None:
    headers = {"x-forwarded-proto": "https"}
    page = httpx.get(house.address + "/sign-in", headers=headers)
    visit = re.match(r"__Host-vitriflow-visit=([^;]+); .*Secure", page.headers["set-cookie"])
    assert visit is not None
    data = {"login": "rita", "password": PASSWORD, "csrf": visit[1]}
    headers["cookie"] = f"__Host-vitriflow-visit={visit[1]}"
    answer = httpx.post(house.address + "/sign-in", data=data, headers=headers)
    assert answer.status_code == 303, answer.text
    assert re.match(r"__Host-vitriflow=\S+; .*Secure", answer.headers["set-cookie"])


@pytest.mark.parametrize(
    ("login", "password"),
    [
        ("rita", "wrong"),
        ("nobody", PASSWORD),
        ("rita", ""),
        ("' OR 1=1 --", "x" * 12),
        ("*)(uid=*", "x"),
        ("rita\x00", "x"),
    ],
)
def test_what_does_not_fit_is_refused_without_saying_which(
    house: Facility, login: str, password: str
) -> None:
    with httpx.Client(base_url=house.address, timeout=120) as client:
        data = {"login": login, "password": password, "csrf": csrf(client, "/sign-in")}
        answer = client.post("/sign-in", data=data)
        assert answer.status_code in (401, 429)
        assert "Login and password don&#39;t fit" in answer.text or answer.status_code == 429
        assert "vitriflow=" not in answer.headers.get("set-cookie", "")


def test_a_session_that_somebody_planted_is_not_taken_over(house: Facility, visitor: httpx.Client) -> None:
    """Session fixation: the cookie after signing in is never the one before."""
    visitor.cookies.set("vitriflow", "planted")
    data = {"login": "rita", "password": PASSWORD, "csrf": csrf(visitor, "/sign-in")}
    visitor.post("/sign-in", data=data)
    with httpx.Client(base_url=house.address, cookies={"vitriflow": "planted"}) as planter:
        assert planter.get("/").status_code == 303


def test_signing_out_ends_the_session_on_the_server(house: Facility) -> None:
    client = sign_in(house.address, "rita")
    secret = client.cookies["vitriflow"]
    assert client.post("/sign-out", data={"csrf": csrf(client)}).status_code == 303
    with httpx.Client(base_url=house.address, cookies={"vitriflow": secret}) as thief:
        assert thief.get("/").status_code == 303
    client.close()


def test_a_session_ends_with_its_time(house: Facility) -> None:
    client = sign_in(house.address, "rita")
    hashed = hash_secret(client.cookies["vitriflow"])

    def age(orm):
        orm.get(WebSession, hashed).expires_at = now() - timedelta(seconds=1)

    house.world.catalog.write(age)
    assert client.get("/").status_code == 303
    client.close()


def test_a_form_without_its_secret_an_old_one_or_another_visitors_is_refused(house: Facility) -> None:
    first = sign_in(house.address, "rita")
    old = csrf(first)
    first.post("/sign-out", data={"csrf": old})
    second = sign_in(house.address, "rita")
    stranger = csrf(house.client("otto"))
    for given in ("", old, stranger, "ä"):
        answer = second.post("/me/tokens", data={"name": "x", "scopes": "read", "csrf": given})
        assert answer.status_code == 403, given
        assert "form" in answer.text
    good = csrf(second)
    for headers in ({"origin": "https://evil.example"}, {"origin": "null"}, {"sec-fetch-site": "cross-site"}):
        data = {"name": "x", "scopes": "read", "csrf": good}
        assert second.post("/me/tokens", data=data, headers=headers).status_code == 403
    made = second.post("/me/tokens", data={"name": "x", "scopes": "read", "csrf": good})
    assert "vitriflow_" in made.text
    first.close()
    second.close()


def test_signing_in_by_another_sites_form_is_refused(house: Facility, visitor: httpx.Client) -> None:
    data = {"login": "rita", "password": PASSWORD}
    assert visitor.post("/sign-in", data=data, headers={"origin": "https://evil.example"}).status_code == 403
    assert visitor.post("/sign-in", data=data, headers={"origin": house.address}).status_code == 403


@pytest.mark.parametrize(
    "where",
    [
        "https://evil.example",
        "//evil.example",
        "/\\evil.example",
        "javascript:alert(1)",
        "/x\r\nset-cookie: a=b",
        "/sign-out",
    ],
)
def test_signing_in_never_leads_to_another_site(where: str) -> None:
    assert safe_next(where) == "/"
    assert safe_next("/sessions/a%20b?x=1") == "/sessions/a%20b?x=1"


# ---- tokens


@pytest.mark.parametrize("forged", ["x", "vitriflow_" + "A" * 43, "x" * 5000, "ä", "' OR 1=1"])
def test_a_forged_token_opens_nothing_even_with_a_good_cookie(house: Facility, forged: str) -> None:
    headers = {"authorization": b"Bearer " + forged.encode()}
    answer = house.client("ada").get("/api/sessions", headers=headers)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("change", ["expires_at", "revoked_at"])
def test_a_token_that_is_over_opens_nothing(house: Facility, change: str) -> None:
    client = house.client("rita")
    made = client.post(
        "/api/tokens", json={"name": change, "days": 1}, headers={"x-csrf-token": csrf(client)}
    ).json()
    headers = {"authorization": f"Bearer {made['token']}"}
    assert httpx.get(house.address + "/api/me", headers=headers).json()["scopes"] == ["read"]

    def end(orm):
        row = orm.scalars(select(ApiToken).where(ApiToken.name == change)).one()
        assert made["token"] not in (row.token_hash, row.name)
        setattr(row, change, now() - timedelta(seconds=1))

    house.world.catalog.write(end)
    assert httpx.get(house.address + "/api/me", headers=headers).status_code == 401


def test_a_token_can_not_make_one_that_may_more(house: Facility) -> None:
    client = house.client("rita")
    secret = csrf(client)
    asked = {"name": "admin only", "scopes": ["admin"]}
    made = client.post("/api/tokens", json=asked, headers={"x-csrf-token": secret}).json()
    headers = {"authorization": f"Bearer {made['token']}"}
    more = {"name": "more", "scopes": ["read", "control"]}
    assert httpx.post(house.address + "/api/tokens", json=more, headers=headers).status_code == 403
    assert (
        client.post("/api/tokens", json={**more, "days": 9999}, headers={"x-csrf-token": secret}).status_code
        == 422
    )
    bad = {"name": "x", "scopes": ["root"]}
    assert client.post("/api/tokens", json=bad, headers={"x-csrf-token": secret}).status_code == 422


def test_a_program_gets_a_token_by_login_and_password(house: Facility) -> None:
    asked = {"login": "rita", "password": PASSWORD, "days": 1}
    made = httpx.post(house.address + "/api/login", json=asked).json()
    me = httpx.get(house.address + "/api/me", headers={"authorization": f"Bearer {made['token']}"}).json()
    assert me["login"] == "rita"
    assert me["experiments"] == {"C123": "researcher"}
    assert httpx.post(house.address + "/api/login", json={**asked, "password": "no"}).status_code == 401


# ---- somebody who goes


def test_who_is_deactivated_is_out_at_once_everywhere(house: Facility) -> None:
    def add(orm):
        add_person(orm, "leaver", password_hash=quick_hash(PASSWORD))

    house.world.catalog.write(add)
    client = sign_in(house.address, "leaver")
    token = client.post("/api/tokens", json={"name": "x"}, headers={"x-csrf-token": csrf(client)}).json()[
        "token"
    ]
    ada = house.client("ada")
    assert ada.post("/people/leaver", data={"name": "Leaver", "csrf": csrf(ada)}).status_code == 303
    assert client.get("/").status_code == 303
    assert (
        httpx.get(house.address + "/api/me", headers={"authorization": f"Bearer {token}"}).status_code == 401
    )
    assert not person(house.world, "leaver").active
    client.close()


def test_the_last_administrator_can_not_be_taken_away(house: Facility) -> None:
    ada = house.client("ada")
    answer = ada.post("/people/ada", data={"name": "Ada", "active": "true", "csrf": csrf(ada)})
    assert answer.status_code == 422
    assert "last one" in answer.text
    assert person(house.world, "ada").facility_role == "administrator"


def test_membership_opens_and_closes_an_experiment_from_one_request_to_the_next(house: Facility) -> None:
    olga, otto = house.client("olga"), house.client("otto")
    address = f"/api/sessions/{house.world.key}"
    assert otto.get(address).status_code == 404
    secret = {"x-csrf-token": csrf(olga)}
    let_in = olga.put("/api/experiments/C123/people/otto", json={"role": "researcher"}, headers=secret)
    assert "otto" in {one["login"] for one in let_in.json()["members"]}
    assert otto.get(address).status_code == 200
    assert olga.delete("/api/experiments/C123/people/otto", headers=secret).status_code == 200
    assert otto.get(address).status_code == 404
    rows = house.world.catalog.read(lambda orm: orm.scalar(select(func.count()).select_from(Membership)))
    assert rows == 4  # nothing is forgotten: the ended one stays


# ---- audit


def test_every_write_stands_in_the_audit_log_and_none_holds_a_secret(house: Facility) -> None:
    ada = house.client("ada")
    made = ada.post("/people", data={"login": "newcomer", "name": EVIL, "csrf": csrf(ada)})
    password = re.search(r'id="made">([^<]+)<', made.text)[1]
    sign_in(house.address, "newcomer", password).close()
    rows = ada.get("/api/audit?limit=1000").json()["rows"]
    deeds = {(row["login"], row["action"]) for row in rows}
    assert {("ada", "people.add"), ("newcomer", "sign-in"), ("ada", "sign-in")} <= deeds
    assert password not in str(rows)
    assert PASSWORD not in str(rows)
    page = ada.get("/people").text + ada.get("/audit?action=people").text
    assert EVIL not in page
    assert "&lt;script&gt;" in page


def test_audit_rows_are_only_ever_added(house: Facility) -> None:
    def change(orm):
        orm.scalars(select(Audit).limit(1)).one().login = "somebody else"

    def remove(orm):
        orm.delete(orm.scalars(select(Audit).limit(1)).one())

    for work in (change, remove):
        with pytest.raises(CatalogError, match="only added"):
            house.world.catalog.write(work)


# ---- guessing


def test_guessing_gets_slower_and_slower_and_a_good_password_does_not_help_meanwhile(tmp_path: Path) -> None:
    with facility(tmp_path) as house, httpx.Client(base_url=house.address, timeout=120) as client:
        asked = {"login": "rita", "password": "guess"}
        for _ in range(FREE_TRIES):
            assert client.post("/api/login", json=asked).status_code == 401
        answer = client.post("/api/login", json={**asked, "password": PASSWORD})
        assert answer.status_code == 429
        assert int(answer.headers["retry-after"]) >= 1
        assert client.post("/api/login", json={"login": "carl", "password": PASSWORD}).status_code == 200


def test_the_wait_doubles_is_forgotten_and_shuts_nobody_else_out() -> None:
    clock = [0.0]
    limiter = Limiter(lambda: clock[0])
    for _ in range(FREE_TRIES):
        assert limiter.wait_s("rita", "10.0.0.1") == 0
        limiter.refused("rita", "10.0.0.1")
    waits = []
    for _ in range(12):
        waits.append(limiter.wait_s("Rita ", "10.0.0.1"))
        limiter.refused("rita", "10.0.0.1")
    assert waits[:4] == [1, 2, 4, 8]
    assert limiter.wait_s("rita", "10.0.0.2") == 0
    assert limiter.wait_s("carl", "10.0.0.1") == 0
    for number in range(FREE_TRIES_WIDE):
        limiter.refused(f"somebody{number}", "10.0.0.9")
    assert limiter.wait_s("anybody", "10.0.0.9") > 0
    clock[0] = 1e5
    assert limiter.wait_s("rita", "10.0.0.1") == 0


def test_the_memory_of_guesses_is_bounded() -> None:
    limiter = Limiter(lambda: 0.0)
    for number in range(MOST_KEPT):
        limiter.refused(f"login{number}", f"10.0.{number}")
    assert len(limiter._tries) == MOST_KEPT


# ---- open mode


def test_a_laptop_without_people_needs_no_sign_in_and_says_so(tmp_path: Path) -> None:
    world = make_world(tmp_path)
    with client_of(world) as client:
        assert "open to this machine only" in client.get("/").text
        for headers in (
            {"x-forwarded-for": "192.0.2.7"},
            {"x-forwarded-host": "cryo.example.org"},
            {"forwarded": "for=192.0.2.7"},
        ):
            assert client.get("/api/sessions", headers=headers).status_code == 401
        assert (
            client.post("/people", data={"login": "x"}).status_code == 403
        )  # no first administrator by browser
        assert client.get("/audit").status_code == 403
        world.catalog.write(lambda orm: add_person(orm, "ada", facility_role="administrator"))
        assert client.get("/").status_code == 303
    world.catalog.close()


def test_a_server_that_others_reach_asks_even_without_people(tmp_path: Path) -> None:
    world = make_world(tmp_path)
    with running(create_app(world.url(), open_here=False)) as address:
        assert httpx.get(address + "/").status_code == 303
        assert httpx.get(address + "/api/sessions").status_code == 401
    world.catalog.close()


# ---- files


@pytest.mark.parametrize(
    "path",
    [
        "../catalog.db",
        "..%2f..%2fcatalog.db",
        "%2e%2e/%2e%2e/catalog.db",
        "raw/../../../catalog.db",
        "/etc/passwd",
        "raw/leak.txt",
        "raw/%00",
        "raw\\..\\x",
        ".hidden",
        "raw/movie_1.tiff/x",
        "a" * 3000,
    ],
)
def test_no_path_leads_out_of_a_session(house: Facility, path: str) -> None:
    client = house.client("rita")
    answer = client.get(f"/api/sessions/{house.world.key}/files/{path}")
    assert answer.status_code in (404, 422), answer.text
    assert "not of this session" not in answer.text
    listed = client.get(f"/api/sessions/{house.world.key}/files", params={"path": path})
    assert listed.status_code in (404, 422)


def test_a_session_s_files_are_listed_and_downloaded_whole_or_in_part(house: Facility) -> None:
    client = house.client("rita")
    base = f"/api/sessions/{house.world.key}/files"
    names = {one["name"]: one for one in client.get(base, params={"path": "raw"}).json()["files"]}
    assert set(names) == {"movie_1.tiff"}  # the link that leads out isn't there
    assert names["movie_1.tiff"]["size"] == 1000
    answer = client.get(f"{base}/raw/movie_1.tiff", headers={"range": "bytes=995-"})
    assert answer.status_code == 206
    assert answer.content == b"56789"
    assert answer.headers["content-disposition"].startswith("attachment")


def test_a_body_that_is_too_large_is_refused_before_it_is_read(house: Facility) -> None:
    client = house.client("ada")
    headers = {"x-csrf-token": csrf(client)}
    assert client.post("/people", content=b"x" * 3_000_000, headers=headers).status_code == 413
    asked = {"login": "rita", "password": "x" * 3_000_000}
    assert httpx.post(house.address + "/api/login", json=asked).status_code == 413


def test_answers_carry_the_security_headers_and_are_not_kept(house: Facility, visitor: httpx.Client) -> None:
    for path in ("/sign-in", "/api/sessions", "/"):
        headers = visitor.get(path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert headers["x-frame-options"] == "DENY"
        assert headers["cache-control"] == "no-store"


def test_rows_of_people_survive_in_the_catalog(house: Facility) -> None:
    found = house.world.catalog.read(lambda orm: list(orm.scalars(select(Person.password_hash))))
    assert all(one is None or one.startswith("$argon2id$") for one in found)
    assert house.world.catalog.read(lambda orm: orm.scalar(select(func.count()).select_from(Experiment))) == 2
