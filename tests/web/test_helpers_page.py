"""An operator lets somebody in for a session from its page, sees who may log in, takes it back; a stop ends it."""

from collections.abc import Iterator

import httpx
import pytest

from tests.web.people import Facility, csrf, facility
from vitriflow.catalog import SessionState
from vitriflow.elogbook import set_session_state


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Facility]:
    with facility(tmp_path_factory.mktemp("helpers")) as made:
        yield made


def post(house: Facility, who: str, path: str, login: str) -> httpx.Response:
    client = house.client(who)
    return client.post(f"/sessions/{house.world.key}/{path}", data={"login": login, "csrf": csrf(client)})


def page(house: Facility, who: str = "olga") -> httpx.Response:
    return house.client(who).get(f"/sessions/{house.world.key}/access")


def may_log_in(house: Facility) -> list[str]:
    return house.client("olga").get("/api/access/tem1").json()["unix_names"]


def test_an_operator_lets_somebody_in_and_out_again(house: Facility) -> None:
    assert f'href="/sessions/{house.world.key}/access"' in (
        house.client("olga").get(f"/sessions/{house.world.key}").text
    )
    assert "collaborator of C123" in page(house).text
    assert "u_otto" not in may_log_in(house)
    assert post(house, "olga", "access", "otto").status_code == 303
    shown = page(house).text
    assert f"helper of session {house.world.key}" in shown
    assert "u_otto" in may_log_in(house)
    api = house.client("olga").get(f"/api/sessions/{house.world.key}/helpers").json()
    assert api["helpers"] == ["otto"]
    assert post(house, "olga", "access/remove", "otto").status_code == 303
    assert "u_otto" not in may_log_in(house)
    assert "None." in page(house).text


def test_somebody_unknown_is_named_on_the_page(house: Facility) -> None:
    answer = post(house, "olga", "access", "<b>nobody</b>")
    assert answer.status_code == 422
    assert 'role="alert"' in answer.text
    assert "<b>nobody" not in answer.text


def test_others_do_not_even_see_the_link(house: Facility) -> None:
    assert page(house, "carl").status_code == 403
    assert post(house, "carl", "access", "otto").status_code == 403
    assert "/access" not in house.client("carl").get(f"/sessions/{house.world.key}").text
    assert page(house, "otto").status_code == 404


def test_a_stop_ends_it_for_good_even_when_the_session_goes_on_later(house: Facility) -> None:
    assert post(house, "olga", "access", "otto").status_code == 303
    set_session_state(house.world.catalog, house.world.key, SessionState.CLOSED)
    assert "u_otto" not in may_log_in(house)
    closed = page(house).text
    assert "works for no session now" in closed
    assert "add-helper" not in closed
    assert "a session that isn&#39;t closed" in post(house, "olga", "access", "otto").text
    set_session_state(house.world.catalog, house.world.key, SessionState.ACTIVE)
    assert "u_otto" not in may_log_in(house)


def test_people_are_added_and_changed_by_rest_as_on_the_page(house: Facility) -> None:
    client = house.client("ada")
    headers = {"x-csrf-token": csrf(client)}
    made = client.post("/api/people", json={"login": "nina", "unix_name": "u_nina"}, headers=headers)
    assert made.status_code == 201, made.text
    assert len(made.json()["password"]) > 10
    changed = client.patch("/api/people/nina", json={"facility_role": "operator"}, headers=headers).json()
    assert (changed["facility_role"], changed["unix_name"], changed["password"]) == (
        "operator",
        "u_nina",
        None,
    )
    again = client.post("/api/people/nina/password", headers=headers).json()
    assert again["password"] != made.json()["password"]
    assert client.patch("/api/people/gone", json={"name": "x"}, headers=headers).status_code == 404
    assert client.post("/api/people", json={"login": "nina"}, headers=headers).status_code == 422
    olga = house.client("olga")
    refused = olga.patch("/api/people/nina", json={"name": "x"}, headers={"x-csrf-token": csrf(olga)})
    assert refused.status_code == 403
