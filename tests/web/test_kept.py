"""What a browser keeps: the table while nothing changed, the page while its stamp is the stream's."""

import json
import re

import httpx

from tests.web.conftest import client_of
from tests.web.factory import World
from tests.web.people import csrf
from vitriflow.catalog import Exposure


def table(client: httpx.Client, world: World, tag: str = "") -> httpx.Response:
    headers = {"if-none-match": tag} if tag else {}
    return client.get(f"/api/sessions/{world.key}/table", headers=headers)


def test_the_table_is_sent_once_and_again_after_every_change(world: World) -> None:
    world.add()
    with client_of(world) as client:
        first = table(client, world)
        assert "private" in first.headers["cache-control"]
        tag = first.headers["etag"]
        same = table(client, world, tag)
        assert (same.status_code, same.content) == (304, b"")

        def changed() -> None:
            nonlocal tag
            answer = table(client, world, tag)
            assert answer.status_code == 200, "the page would show what was"
            assert answer.headers["etag"] != tag
            tag = answer.headers["etag"]
            assert table(client, world, tag).status_code == 304

        new = world.add()
        changed()
        world.add("problem")
        changed()
        headers = {"x-csrf-token": csrf(client, "/")}
        api = f"/api/sessions/{world.key}"
        mark = {"exposures": [new], "kind": "reject", "text": ""}
        assert client.post(f"{api}/marks", json=mark, headers=headers).is_success
        changed()
        limits = {"values": {"defocus_A": [0.0, 9000.0]}}
        assert client.post(f"{api}/limits", json=limits, headers=headers).is_success
        changed()


def test_places_that_come_late_are_sent(world: World) -> None:
    world.add(square=None)
    with client_of(world) as client:
        tag = table(client, world).headers["etag"]
        world.catalog.write(lambda db: db.query(Exposure).update({"grid_square": "GridSquare_9"}))
        world.add("growing", square="GridSquare_9")
        answer = table(client, world, tag)
        assert answer.status_code == 200
        assert b"GridSquare_9" in answer.content


def test_a_page_knows_the_state_it_shows_by_the_streams_name(world: World) -> None:
    world.add()

    def told(client: httpx.Client) -> str:
        with client.stream("GET", f"/api/sessions/{world.key}/live") as answer:
            line = next(line for line in answer.iter_lines() if line.startswith("data:"))
        return str(json.loads(line[5:])["stamp"])

    def shown(client: httpx.Client) -> str:
        found = re.search(r'data-stamp="(\w+)"', client.get(f"/sessions/{world.key}").text)
        assert found is not None
        return found[1]

    with client_of(world) as client:
        before = shown(client)
        assert told(client) == before
        world.add()
        assert told(client) == shown(client) != before
        world.say("Disk is full", "alarm")
        assert told(client) == shown(client)
