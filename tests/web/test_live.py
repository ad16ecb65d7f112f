"""The live stream: one poller a session, every change told, troubles told too."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
from sse_starlette import ServerSentEvent

from tests.web.conftest import serve
from tests.web.factory import World
from vitriflow.catalog import Catalog, views
from vitriflow.web import live
from vitriflow.web.live import Hub


def told(event: ServerSentEvent) -> tuple[str, dict[str, Any]]:
    return str(event.event), json.loads(event.data)


def run(work: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        await asyncio.wait_for(work(), 120)

    asyncio.run(limited())


def test_a_reader_is_told_the_state_at_once_and_every_change_after(world: World) -> None:
    async def work() -> None:
        hub = Hub(world.catalog, poll_s=0.02)
        stream = hub.stream(world.session_id)
        kind, first = told(await anext(stream))
        assert (kind, first["change"]) == ("change", 0)
        await asyncio.to_thread(world.add)
        kind, second = told(await anext(stream))
        assert (kind, second["change"]) == ("change", 1)
        await asyncio.to_thread(world.say, "gain reference is flipped", "alarm")
        kind, third = told(await anext(stream))
        assert third["last_event"] > second["last_event"]
        await stream.aclose()
        hub.close()

    run(work)


def test_a_file_that_only_just_appeared_wakes_the_page_too(world: World) -> None:
    async def work() -> None:
        hub = Hub(world.catalog, poll_s=0.02)
        stream = hub.stream(world.session_id)
        await anext(stream)
        for outcome in ("growing", "problem"):
            await asyncio.to_thread(world.add, outcome)
            kind, _ = told(await anext(stream))
            assert kind == "change"
        await stream.aclose()

    run(work)


def test_readers_of_one_session_share_one_poller_and_it_ends_with_them(world: World) -> None:
    asked = []

    class Counting(Catalog):
        def read(self, work: Any) -> Any:
            asked.append(1)
            return super().read(work)

    async def work() -> None:
        hub = Hub(Counting(world.url()), poll_s=0.05)
        streams = [hub.stream(world.session_id) for _ in range(20)]
        for stream in streams:
            await anext(stream)
        assert hub.watched == 1
        asked.clear()
        began = time.monotonic()
        await asyncio.sleep(0.5)
        rounds = (time.monotonic() - began) / 0.05
        assert 0 < len(asked) <= rounds + 2, "twenty readers must not ask twenty times"
        for stream in streams:
            await stream.aclose()
        assert hub.watched == 0
        await asyncio.sleep(0.1)
        asked.clear()
        await asyncio.sleep(0.2)
        assert asked == []

    run(work)


def test_silence_is_filled_with_beats(world: World, monkeypatch: Any) -> None:
    monkeypatch.setattr(live, "BEAT_S", 0.05)

    async def work() -> None:
        hub = Hub(world.catalog, poll_s=0.02)
        stream = hub.stream(world.session_id)
        await anext(stream)
        assert told(await anext(stream))[0] == "beat"
        await stream.aclose()

    run(work)


def test_a_catalog_that_stops_answering_is_told_and_its_return_too(world: World) -> None:
    class Breaking(Catalog):
        broken = False

        def read(self, work: Any) -> Any:
            if self.broken:
                raise OSError("gone")
            return super().read(work)

    async def work() -> None:
        catalog = Breaking(world.url())
        hub = Hub(catalog, poll_s=0.02)
        stream = hub.stream(world.session_id)
        await anext(stream)
        catalog.broken = True
        kind, facts = told(await anext(stream))
        assert (kind, facts["trouble"]) == ("trouble", "the catalog doesn't answer")
        catalog.broken = False
        assert told(await anext(stream))[0] == "change"
        await stream.aclose()

    run(work)


def test_the_server_streams_changes_over_http(world: World) -> None:
    with serve(world) as address, httpx.Client(timeout=120) as client:
        path = f"{address}/api/sessions/{world.key}/live"
        with client.stream("GET", path) as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            lines = answer.iter_lines()
            first = next(line for line in lines if line.startswith("data:"))
            world.add()
            second = next(line for line in lines if line.startswith("data:"))
    assert json.loads(first[5:])["change"] == 0
    assert json.loads(second[5:])["change"] == 1


def test_the_pulse_of_a_session_without_processing_is_its_own(world: World) -> None:
    pulse = world.catalog.read(lambda db: views.pulse(db, world.session_id + 99))
    assert (pulse.processing_id, pulse.change, pulse.state) == (None, 0, "")
