"""What people say of exposures: it counts, it shows, it can be undone, and it's kept who said it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from tests.web.conftest import client_of, fill
from tests.web.factory import World, make_world
from tests.web.people import Facility, csrf, facility
from vitriflow.catalog import Audit, Mark


@pytest.fixture(scope="module")
def marked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[World, httpx.Client]]:
    world = make_world(tmp_path_factory.mktemp("marks"))
    fill(world)
    with client_of(world) as client:
        yield world, client


def counts(client: httpx.Client, world: World) -> dict[str, Any]:
    return client.get(f"/api/sessions/{world.key}/counts").json()


def mark(client: httpx.Client, world: World, ids: list[int], kind: str, text: str = "") -> list[int]:
    body = {"exposures": ids, "kind": kind, "text": text}
    answer = client.post(f"/api/sessions/{world.key}/marks", json=body)
    assert answer.status_code == 201, answer.text
    return answer.json()["marks"]


def listed(client: httpx.Client, world: World, **how: str) -> list[int]:
    return [
        one["id"]
        for one in client.get(f"/api/sessions/{world.key}/exposures", params=how).json()["exposures"]
    ]


def test_rejected_exposures_are_not_usable_until_that_is_undone(marked: tuple[World, httpx.Client]) -> None:
    world, client = marked
    before = counts(client, world)
    made = mark(client, world, world.ids[:3], "reject", "crystalline ice")
    after = counts(client, world)
    assert after["usable"] == before["usable"] - 3
    assert after["people"]["rejected"] == 3
    assert after["counts"] == before["counts"]  # where the pipeline stands isn't touched
    assert "3 exposures set aside by people." in after["verdict"]["reasons"]
    assert sorted(listed(client, world, mark="reject")) == world.ids[:3]
    undone = client.post(f"/api/sessions/{world.key}/marks/undo", json={"marks": made})
    assert undone.json() == {"undone": 3}
    assert counts(client, world) == before
    shown = client.get(f"/api/sessions/{world.key}/marks").json()["marks"]
    assert {one["undone_by"] for one in shown if one["id"] in made} == {"local"}


def test_the_newest_verdict_counts_and_what_is_kept_is_usable_again(
    marked: tuple[World, httpx.Client],
) -> None:
    world, client = marked
    rejected = listed(client, world, status="rejected")
    usable = counts(client, world)["usable"]
    first = mark(client, world, rejected, "reject")
    second = mark(client, world, rejected, "keep")
    assert counts(client, world)["usable"] == usable + 1  # a gate refused it, a person keeps it
    assert listed(client, world, mark="keep") == rejected
    client.post(f"/api/sessions/{world.key}/marks/undo", json={"marks": second})
    assert listed(client, world, mark="reject") == rejected
    client.post(f"/api/sessions/{world.key}/marks/undo", json={"marks": first})


def test_what_failed_is_not_usable_however_much_somebody_wants_to_keep_it(
    marked: tuple[World, httpx.Client],
) -> None:
    world, client = marked
    usable = counts(client, world)["usable"]
    made = mark(client, world, listed(client, world, status="failed"), "keep")
    assert counts(client, world)["usable"] == usable
    client.post(f"/api/sessions/{world.key}/marks/undo", json={"marks": made})


def test_a_comment_shows_on_the_exposures_page_and_changes_no_count(
    marked: tuple[World, httpx.Client],
) -> None:
    world, client = marked
    before = counts(client, world)["usable"]
    mark(client, world, [world.ids[1]], "comment", "<b>ethane</b> in the corner")
    assert counts(client, world)["usable"] == before
    assert listed(client, world, mark="comment") == [world.ids[1]]
    page = client.get(f"/sessions/{world.key}/exposures/{world.ids[1]}").text
    assert "&lt;b&gt;ethane&lt;/b&gt; in the corner" in page
    assert 'data-mark="comment">commented' in client.get(f"/sessions/{world.key}/part/gallery").text


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"exposures": [999999], "kind": "keep"}, "exposures of this session"),
        ({"exposures": [1], "kind": "comment", "text": "  "}, "some words"),
        ({"exposures": [], "kind": "keep"}, "at least 1 item"),
        ({"exposures": [1], "kind": "burn"}, "keep"),
        ({"exposures": [1], "kind": "keep", "text": "x" * 2001}, "2000"),
    ],
)
def test_a_mark_that_makes_no_sense_is_refused_and_leaves_nothing(
    marked: tuple[World, httpx.Client], body: dict[str, Any], said: str
) -> None:
    world, client = marked
    client.cookies.clear()  # a program that never saw a page
    before = world.catalog.read(lambda db: len(db.scalars(select(Mark.id)).all()))
    answer = client.post(f"/api/sessions/{world.key}/marks", json=body)
    assert answer.status_code == 422
    assert said in answer.text
    assert world.catalog.read(lambda db: len(db.scalars(select(Mark.id)).all())) == before


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Facility]:
    folder: Path = tmp_path_factory.mktemp("marking")
    with facility(folder) as made:
        yield made


def test_a_researcher_marks_what_is_theirs_by_name_and_the_audit_log_tells(house: Facility) -> None:
    world = house.world
    rita = house.client("rita")
    headers = {"x-csrf-token": csrf(rita)}
    body = {"exposures": world.ids, "kind": "reject"}
    assert rita.post(f"/api/sessions/{world.key}/marks", json=body).status_code == 403  # no token: refused
    made = rita.post(f"/api/sessions/{world.key}/marks", json=body, headers=headers)
    assert made.status_code == 201
    marks = rita.get(f"/api/sessions/{world.key}/marks").json()["marks"]
    assert [one["author"] for one in marks] == ["rita"]
    rows = world.catalog.read(
        lambda db: db.scalars(select(Audit).where(Audit.action == "exposure.reject")).all()
    )
    assert [(row.login, row.subject) for row in rows] == [("rita", f"session {world.key}")]
    elsewhere = rita.post("/api/sessions/foreign/marks", json=body, headers=headers)
    assert elsewhere.status_code == 404


def test_limits_are_for_collaborators(house: Facility) -> None:
    world = house.world
    body = {"values": {"defocus_A": [5000, None]}}
    for login, status in (("rita", 403), ("carl", 200)):
        client = house.client(login)
        answer = client.post(
            f"/api/sessions/{world.key}/limits", json=body, headers={"x-csrf-token": csrf(client)}
        )
        assert answer.status_code == status, answer.text
    assert answer.json()["author"] == "carl"
