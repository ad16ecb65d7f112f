"""Talks to vitriflow's web server: JSON over HTTP, with errors that say whether asking again can help."""

import os
from pathlib import Path
from typing import Any

import httpx

_PATIENCE_S = 40.0  # longer than any question waits at the other end


class Away(Exception):
    """vitriflow can't be reached, or is starting: asking again later can help."""


class Refused(Exception):
    """vitriflow says no, and why."""


class Client:
    """One vitriflow.

    Parameters
    ----------
    url, token
        Where it answers, and the token to show. ``VITRIFLOW_URL`` and ``VITRIFLOW_TOKEN`` without, or the
        file that ``VITRIFLOW_TOKEN_FILE`` names.
    """

    def __init__(self, url: str | None = None, token: str | None = None) -> None:
        self.url = (url or os.environ.get("VITRIFLOW_URL", "http://127.0.0.1:8300")).rstrip("/")
        secret = token or os.environ.get("VITRIFLOW_TOKEN", "") or _from_file()
        self._headers = {"authorization": f"Bearer {secret}"} if secret else {}

    def ask(self, method: str, path: str, **more: Any) -> dict[str, Any]:
        """Send a request and give the answer.

        Raises
        ------
        Away, Refused
            When there's no answer, or it's no.
        """
        try:
            with httpx.Client(headers=self._headers, timeout=_PATIENCE_S, trust_env=False) as client:
                return _read(client.request(method, self._address(path), **more))
        except httpx.HTTPError as error:
            raise Away(f"vitriflow at {self.url} can't be reached: {error}") from error

    async def aask(self, method: str, path: str, **more: Any) -> dict[str, Any]:
        """The same without holding up others."""
        try:
            async with httpx.AsyncClient(
                headers=self._headers, timeout=_PATIENCE_S, trust_env=False
            ) as client:
                return _read(await client.request(method, self._address(path), **more))
        except httpx.HTTPError as error:
            raise Away(f"vitriflow at {self.url} can't be reached: {error}") from error

    def _address(self, path: str) -> str:
        return f"{self.url}/api/conduct{path}"


def _from_file() -> str:
    named = os.environ.get("VITRIFLOW_TOKEN_FILE", "")
    return Path(named).read_text(encoding="utf-8").strip() if named else ""


def _read(answer: httpx.Response) -> dict[str, Any]:
    if answer.status_code >= 500 or answer.status_code in (408, 429):
        raise Away(f"vitriflow answers {answer.status_code}: {answer.text[:300]}")
    try:
        found = answer.json()
    except ValueError as error:
        raise Away(f"vitriflow's answer isn't JSON: {answer.text[:300]}") from error
    if answer.status_code >= 400:
        said = found.get("error", found) if isinstance(found, dict) else found
        if isinstance(said, dict) and "what" in said:
            raise Refused(
                f"{said['what']}; expected {said.get('expected')}; found {said.get('found')}. {said.get('remedy')}"
            )
        raise Refused(f"vitriflow answers {answer.status_code}: {said}")
    if not isinstance(found, dict):
        raise Away(f"vitriflow's answer isn't an object: {answer.text[:300]}")
    return found
