"""A facility's server as the client commands see it; and the file that keeps its token."""

import http.client
import json
import os
import tempfile
import urllib.error
import urllib.request
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote, urlencode, urlsplit

from vitriflow.errors import BadFile, BadParameter, Reason, VitriflowError

_TIMEOUT_S = 60.0
_PAGE = 100


class Refused(VitriflowError):
    """The server answered, and said no."""

    def __init__(
        self, status: int, thing: str, expected: str = "", found: str = "", remedy: str = ""
    ) -> None:
        self.status = status
        super().__init__(thing, expected, found, remedy)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the token along to wherever it leads."""

    def redirect_request(self, *_: Any) -> None:
        """Follow none."""
        return


class Server:
    """A facility's server.

    Raises
    ------
    BadParameter
        When the address isn't one, or a token would go unencrypted to another machine.
    """

    def __init__(self, url: str, token: str = "", *, insecure: bool = False) -> None:
        parts = urlsplit(url if "://" in url else f"https://{url}")
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
            raise BadParameter("address", "https://HOST[:PORT]", repr(url)[:200])
        if (
            parts.scheme == "http"
            and not insecure
            and parts.hostname not in ("localhost", "127.0.0.1", "::1")
        ):
            raise BadParameter(
                "address",
                "https://",
                "http://",
                "Anybody on the way could read the token; --insecure allows it.",
            )
        self.url = f"{parts.scheme}://{parts.netloc}"
        self.token = token
        self.insecure = insecure
        self._opener = urllib.request.build_opener(_NoRedirects)

    def get(self, address: str, **query: Any) -> Any:
        """What the API answers."""
        asked = {name: value for name, value in query.items() if value is not None}
        with self.open(address + (f"?{urlencode(asked)}" if asked else "")) as answer:
            return json.load(answer)

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """Send JSON, and give what the API answers."""
        with self.open(path, json.dumps(body).encode()) as answer:
            return json.load(answer)

    def files(self, key: str, path: str) -> list[dict[str, Any]]:
        """What a folder of a session holds."""
        found: list[dict[str, Any]] = self.get(f"/api/sessions/{quote(key, safe='')}/files", path=path)[
            "files"
        ]
        return found

    def open(self, path: str, body: bytes | None = None, start: int = 0) -> IO[bytes]:
        """Open an address of the server; from byte ``start`` on.

        Raises
        ------
        Refused
            With what the server said.
        VitriflowError
            When it doesn't answer.
        """
        headers = {"accept": "application/json, */*"}
        if self.token:
            headers["authorization"] = f"Bearer {self.token}"
        if body is not None:
            headers["content-type"] = "application/json"
        if start:
            headers["range"] = f"bytes={start}-"
        request = urllib.request.Request(self.url + path, data=body, headers=headers)
        try:
            answer: IO[bytes] = self._opener.open(request, timeout=_TIMEOUT_S)
        except urllib.error.HTTPError as error:
            with error:
                raise _refusal(self.url, error) from error
        except (OSError, http.client.HTTPException) as error:
            why = getattr(error, "reason", error)
            raise VitriflowError(
                self.url, "a server that answers", str(why), "Check the address and the network."
            ) from error
        return answer


def _refusal(url: str, error: urllib.error.HTTPError) -> Refused:
    try:
        facts = json.loads(error.read(100_000))["error"]
        words = [str(facts.get(name, "")) for name in ("what", "expected", "found", "remedy")]
    except (ValueError, KeyError, TypeError, AttributeError):
        words = [url, "an answer of vitriflow", f"HTTP {error.code}", "Check the address."]
    if error.code == 401 and not words[3].startswith("Try"):
        words[3] = "Sign in again: vitriflow login URL."
    return Refused(error.code, *words)


def sessions_of(server: Server, experiment: str | None = None) -> list[dict[str, Any]]:
    """All sessions that may be seen, newest first; of one experiment if named."""
    found: list[dict[str, Any]] = []
    total = 1
    while len(found) < total:
        page = server.get("/api/sessions", limit=_PAGE, offset=len(found))
        total = page["total"]
        if not page["sessions"]:
            break
        found += page["sessions"]
    return [one for one in found if experiment is None or one["experiment"] == experiment]


# ---- the token's file


def token_file() -> Path:
    """Where tokens are kept: $VITRIFLOW_TOKENS, else below the user's own configuration folder."""
    named = os.environ.get("VITRIFLOW_TOKENS")
    if named:
        return Path(named)
    base = os.environ.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / "vitriflow" / "tokens.json"


def keep(server: Server) -> None:
    """Keep a server's token, in a file that only its owner can read; replaced in one step."""
    path = token_file()
    known = _known(path) if path.exists() else {}
    known.pop(server.url, None)
    known[server.url] = {"token": server.token, "insecure": server.insecure}
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".tokens-")  # made with mode 0600
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            json.dump(known, stream, indent=2)
        Path(name).replace(path)
    except OSError:
        Path(name).unlink(missing_ok=True)
        raise


def kept(url: str | None = None) -> Server:
    """The server signed in to last, or the one named; $VITRIFLOW_TOKEN overrules its token.

    Raises
    ------
    BadParameter
        When nobody signed in to it here, or others can read the file.
    """
    path = token_file()
    overruling = os.environ.get("VITRIFLOW_TOKEN", "")
    known = _known(path) if path.exists() else {}
    if url is None and known:
        url = list(known)[-1]
    if url is None:
        raise BadParameter("token", "a server that you signed in to", "none", "vitriflow login URL")
    one = known.get(url.rstrip("/"), {})
    if not one and not overruling:
        raise BadParameter(
            "token",
            f"one for {url}",
            "none",
            f"vitriflow login {url}; signed in to: {', '.join(known) or 'none'}",
        )
    return Server(url, overruling or str(one["token"]), insecure=bool(one.get("insecure", False)))


def _known(path: Path) -> dict[str, dict[str, Any]]:
    if path.stat().st_mode & 0o077:
        raise BadParameter(
            str(path), "a file that only you can read", "one that others can", f"chmod 600 {path}"
        )
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(known, dict) or not all(isinstance(one, dict) for one in known.values()):
            raise ValueError("not a table of servers")
    except ValueError as error:
        raise BadFile(
            Reason.UNREADABLE,
            str(path),
            "JSON that 'vitriflow login' wrote",
            str(error),
            "Remove it, and sign in again.",
        ) from error
    return known
