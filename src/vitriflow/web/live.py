"""Tells open pages that their session changed: one poller a session, shared by all its readers."""

import asyncio
import contextlib
import hashlib
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import orjson
from sse_starlette import ServerSentEvent
from starlette.concurrency import run_in_threadpool

from vitriflow.catalog import Catalog, views

log = logging.getLogger(__name__)

POLL_S = 0.5
# A page that hears nothing for about two of these says that it's no longer live.
BEAT_S = 5.0


@dataclass
class _Channel:
    """One watched session."""

    readers: int = 0
    pulse: views.Pulse | None = None
    trouble: str = ""
    version: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None

    def announce(self, pulse: views.Pulse | None, trouble: str) -> None:
        """Wake every reader when there's something new to say."""
        if pulse == self.pulse and trouble == self.trouble:
            return
        self.pulse, self.trouble = pulse, trouble
        self.version += 1
        self.changed.set()
        self.changed = asyncio.Event()


class Hub:
    """Watches sessions that somebody looks at.

    Parameters
    ----------
    catalog
        Where the change numbers stand.
    poll_s
        How often a watched session's pulse is read (s).
    """

    def __init__(self, catalog: Catalog, poll_s: float = POLL_S) -> None:
        self._catalog = catalog
        self._poll_s = poll_s
        self._channels: dict[int, _Channel] = {}

    @property
    def watched(self) -> int:
        """How many sessions are polled now."""
        return len(self._channels)

    async def stream(self, session_id: int) -> AsyncIterator[ServerSentEvent]:
        """Events of one session, without end: ``change`` at once and at each change, else ``beat``.

        A reader that comes back after a lost connection gets the present state first, so nothing
        has to be remembered for it.
        """
        channel = self._join(session_id)
        seen = -1
        try:
            while True:
                waiter = channel.changed
                if channel.version != seen and (channel.pulse is not None or channel.trouble):
                    seen = channel.version
                    yield _event(channel)
                    continue
                try:
                    await asyncio.wait_for(waiter.wait(), BEAT_S)
                except TimeoutError:
                    # A trouble is told again and again: a beat would say that all is well.
                    yield _event(channel) if channel.trouble else ServerSentEvent("{}", event="beat")
        finally:
            self._leave(session_id, channel)

    def close(self) -> None:
        """Stop all pollers."""
        for channel in self._channels.values():
            if channel.task is not None:
                channel.task.cancel()
        self._channels.clear()

    def _join(self, session_id: int) -> _Channel:
        channel = self._channels.get(session_id)
        if channel is None:
            channel = self._channels[session_id] = _Channel()
            channel.task = asyncio.create_task(self._watch(session_id, channel))
        channel.readers += 1
        return channel

    def _leave(self, session_id: int, channel: _Channel) -> None:
        channel.readers -= 1
        if channel.readers == 0 and self._channels.get(session_id) is channel:
            del self._channels[session_id]
            if channel.task is not None:
                channel.task.cancel()

    async def _watch(self, session_id: int, channel: _Channel) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            while True:
                try:
                    pulse = await run_in_threadpool(
                        self._catalog.read, lambda db: views.pulse(db, session_id)
                    )
                    channel.announce(pulse, "")
                except Exception as error:  # whatever it is, the readers must hear of it
                    if not channel.trouble:
                        log.warning("session %d can't be watched: %s", session_id, error)
                    channel.announce(channel.pulse, "the catalog doesn't answer")
                await asyncio.sleep(self._poll_s)


def stamp_of(pulse: views.Pulse) -> str:
    """A name of one state of a session: a page that carries it needs nothing anew while it stays."""
    return hashlib.blake2b(repr(pulse).encode(), digest_size=9).hexdigest()


def _event(channel: _Channel) -> ServerSentEvent:
    if channel.trouble:
        return ServerSentEvent(orjson.dumps({"trouble": channel.trouble}).decode(), event="trouble")
    pulse = channel.pulse
    assert pulse is not None
    data = {
        "processing": pulse.processing_id,
        "change": pulse.change,
        "state": pulse.state,
        "last_event": pulse.last_event,
        "stamp": stamp_of(pulse),
    }
    return ServerSentEvent(orjson.dumps(data).decode(), event="change", retry=2000)
