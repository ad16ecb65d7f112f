"""What waits in Airflow's triggerer: none of these holds a worker, and each ends or wakes its task."""

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any

from airflow.triggers.base import BaseTrigger, TaskFailedEvent, TaskSuccessEvent, TriggerEvent

from vitriflow.airflow.client import Away, Client, Refused

_EVERY_S = float(os.environ.get("VITRIFLOW_LOOK_S", "5"))  # how often a session's files are counted
_WAIT_S = 15  # how long one question waits at vitriflow for news
_LONGEST_PAUSE_S = 30.0
# A task that is woken before the scheduler has heard that its worker ended is taken for one that was killed.
_SETTLE_S = 3.0
_HERE = "vitriflow.airflow.triggers"


class _Asking(BaseTrigger):
    """Parent of all: asks again and again while vitriflow is away, with growing pauses."""

    async def ask(self, method: str, path: str, **more: Any) -> dict[str, Any]:
        """Send a request until there's an answer. Raises Refused when that is no."""
        client, pause = Client(), 1.0
        while True:
            try:
                return await client.aask(method, path, **more)
            except Away as error:
                self.log.warning("%s; asked again in %.0f s", error, pause)
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE_S)


class AskTrigger(_Asking):
    """Asks for a node for a run's lot, shows what vitriflow says, and ends the task as the node ended.

    Asking is safe to repeat: the same try of the same task of the same run asks once, so a triggerer
    that was restarted goes on where it was.
    """

    def __init__(self, asking: dict[str, Any]) -> None:
        super().__init__()
        self.asking = asking

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """What another triggerer needs to go on."""
        return f"{_HERE}.AskTrigger", {"asking": self.asking}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Ask, follow, and end the task."""
        try:
            found = await self.ask("POST", "/asks", json=self.asking)
            number, counts = found["ask"], found["counts"]
            while True:
                for line in found["lines"]:
                    self.log.info("%s", line)
                if found["counts"] != counts and found["state"] == "open":
                    counts = found["counts"]
                    self.log.info("so far: %s", _listed(counts))
                if found["state"] != "open":
                    break
                query = {"cursor": found["cursor"], "wait_s": _WAIT_S}
                found = await self.ask("GET", f"/asks/{number}", params=query)
        except Refused as error:
            self.log.error("%s", error)
            yield TaskFailedEvent()
            return
        if found["state"] == "empty":
            yield TriggerEvent({"state": "empty"})
            return
        self.log.info("%s: %s", self.asking["node"], _listed(found["counts"]))
        if found["state"] == "done":
            yield TaskSuccessEvent(xcoms={"return_value": found["counts"]})
        else:
            self.log.error("Not all went well. Clear this task to try again what failed; the rest stays.")
            yield TaskFailedEvent(xcoms={"return_value": found["counts"]})


class SessionTrigger(_Asking):
    """Waits until a microscope has a session to work on, and gives what the elogbook says of it."""

    def __init__(self, microscope: str) -> None:
        super().__init__()
        self.microscope = microscope

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """What another triggerer needs to go on."""
        return f"{_HERE}.SessionTrigger", {"microscope": self.microscope}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait."""
        self.log.info("Waiting for a session on %s: activate a sample in the elogbook.", self.microscope)
        try:
            while True:
                found = await self.ask("GET", f"/microscopes/{self.microscope}", params={"wait_s": _WAIT_S})
                if found["session"] is not None:
                    break
        except Refused as error:
            self.log.error("%s", error)
            yield TaskFailedEvent()
            return
        self.log.info("Session %(session)s: experiment %(experiment)s, sample %(sample)s", found)
        kept = ("microscope", "session", "experiment", "sample", "dag")
        yield TaskSuccessEvent(xcoms={"return_value": {name: found[name] for name in kept}})


class FilesTrigger(_Asking):
    """Follows a session's files until no more come and all are where they belong."""

    def __init__(self, microscope: str, session: str, every_s: float = _EVERY_S) -> None:
        super().__init__()
        self.microscope, self.session, self.every_s = microscope, session, every_s

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """What another triggerer needs to go on."""
        kept = {"microscope": self.microscope, "session": self.session, "every_s": self.every_s}
        return f"{_HERE}.FilesTrigger", kept

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Follow."""
        said: Any = None
        try:
            while True:
                query = {"session": self.session}
                found = await self.ask("GET", f"/microscopes/{self.microscope}", params=query)
                now = {"files": found["files"], "exposures": found["exposures"]}
                if now != said:
                    said = now
                    self.log.info("files: %s; exposures: %s", *(_listed(counts) for counts in now.values()))
                if found["next"] or (found["state"] == "closed" and not found["on_way"]):
                    break
                await asyncio.sleep(self.every_s)
        except Refused as error:
            self.log.error("%s", error)
            yield TaskFailedEvent()
            return
        yield TaskSuccessEvent(xcoms={"return_value": now})


class LotsTrigger(_Asking):
    """Wakes its task when there are lots to start runs for, and when a session has no more to come."""

    def __init__(self, microscope: str, session: str) -> None:
        super().__init__()
        self.microscope, self.session = microscope, session

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """What another triggerer needs to go on."""
        return f"{_HERE}.LotsTrigger", {"microscope": self.microscope, "session": self.session}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait."""
        query = {"session": self.session, "wait_s": _WAIT_S}
        await asyncio.sleep(_SETTLE_S)
        try:
            while True:
                found = await self.ask("GET", f"/microscopes/{self.microscope}/waiting", params=query)
                if found["ready"]:
                    yield TriggerEvent({"state": "ready"})
                    return
                if found["over"] or (found["next"] and found["state"] == "closed"):
                    yield TaskSuccessEvent()
                    return
                await asyncio.sleep(0.2)
        except Refused as error:
            self.log.error("%s", error)
            yield TaskFailedEvent()


class FreeTrigger(_Asking):
    """Asks vitriflow now and then to free a microscope's disk by permit, as long as a session goes on."""

    def __init__(self, microscope: str, session: str, really: bool, every_s: float = 600.0) -> None:
        super().__init__()
        self.microscope, self.session, self.really, self.every_s = microscope, session, really, every_s

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """What another triggerer needs to go on."""
        kept = {
            "microscope": self.microscope,
            "session": self.session,
            "really": self.really,
            "every_s": self.every_s,
        }
        return f"{_HERE}.FreeTrigger", kept

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Free, wait, free; once more when the session is over."""
        place = f"/microscopes/{self.microscope}"
        try:
            while True:
                report = await self._round(place)
                over = await self._wait(place)
                if over:
                    report = await self._round(place)
                    break
        except Refused as error:
            self.log.error("%s", error)
            yield TaskFailedEvent()
            return
        yield TaskSuccessEvent(xcoms={"return_value": report})

    async def _round(self, place: str) -> dict[str, Any]:
        try:
            report = await self.ask("POST", f"{place}/free", json={"really": self.really})
        except Refused as error:  # somebody frees by hand just now
            self.log.warning("%s", error)
            return {}
        did = "would free" if report["dry_run"] else "freed"
        why = (
            ""
            if report["permitted"]
            else " ([release] automatic is off in facility.toml: nothing is removed)"
        )
        self.log.info("%s %d files, %d bytes%s", did, report["files"], report["bytes"], why)
        if report["refused"]:
            self.log.info("without a permit: %s", _listed(report["refused"]))
        return report

    async def _wait(self, place: str) -> bool:
        """Wait for the next round; whether the session is over."""
        waited = 0.0
        while waited < self.every_s:
            found = await self.ask("GET", place, params={"session": self.session})
            if found["next"] or (found["state"] == "closed" and not found["on_way"]):
                return True
            await asyncio.sleep(min(_EVERY_S, self.every_s))
            waited += _EVERY_S
        return False


class PauseTrigger(BaseTrigger):
    """Wakes its task after a while."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """What another triggerer needs to go on."""
        return f"{_HERE}.PauseTrigger", {"seconds": self.seconds}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait."""
        await asyncio.sleep(max(self.seconds, _SETTLE_S))
        yield TriggerEvent({"state": "again"})


def _listed(counts: dict[str, Any]) -> str:
    return ", ".join(f"{number} {name}" for name, number in sorted(counts.items())) or "none"
