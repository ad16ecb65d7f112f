"""Fetches a session's files: several side by side, going on where it was, each checked by its BLAKE3."""

import http.client
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import blake3

from vitriflow.cli.remote import Refused, Server
from vitriflow.errors import VitriflowError

_CHUNK = 1024 * 1024
_TRIES = 4
PART = ".part"


@dataclass
class Report:
    """What came of a download."""

    fetched: int = 0
    already: int = 0
    proved: int = 0
    unproved: int = 0
    bytes: int = 0
    problems: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def add(self, **numbers: int) -> None:
        """Count, from any thread."""
        with self._lock:
            for name, number in numbers.items():
                setattr(self, name, getattr(self, name) + number)

    def complain(self, text: str) -> None:
        """Note a problem, from any thread."""
        with self._lock:
            self.problems.append(text)


def fetch_all(server: Server, key: str, path: str, to: Path, parallel: int) -> Report:
    """Fetch a session, or a folder or file of it, below ``to/<session>/``.

    Raises
    ------
    VitriflowError
        When the session or path isn't there, or can't be seen.
    """
    report = Report()
    root = to / _safe(key)
    wanted = _wanted(server, key, path)
    with ThreadPoolExecutor(parallel, "vitriflow-get") as pool:
        for _ in pool.map(lambda one: _fetch_told(server, key, one, root, report), wanted):
            pass
    return report


def _wanted(server: Server, key: str, path: str) -> Iterator[dict[str, Any]]:
    """Files below a path, folder by folder."""
    try:
        listed = server.files(key, path)
    except Refused as error:
        folder, _, name = path.rpartition("/")
        listed = [one for one in server.files(key, folder) if one["name"] == name] if path else []
        if not listed:
            raise error from None
    waiting = [listed]
    while waiting:
        for one in waiting.pop():
            if one["kind"] == "folder":
                waiting.append(server.files(key, one["path"]))
            else:
                yield one


def _fetch_told(server: Server, key: str, one: dict[str, Any], root: Path, report: Report) -> None:
    try:
        _fetch(server, key, one, root, report)
    except VitriflowError as error:
        report.complain(f"{one['path']}: {error}")
    except OSError as error:
        report.complain(f"{one['path']}: {error.strerror or error}")


def _fetch(server: Server, key: str, one: dict[str, Any], root: Path, report: Report) -> None:
    target = root.joinpath(*(_safe(part) for part in one["path"].split("/")))
    if not target.resolve().is_relative_to(root.resolve()):
        raise VitriflowError(one["path"], "a path inside the session", "one that leads out of it")
    digest = one["blake3"]
    there = target.is_file() and target.stat().st_size == one["size"]
    if there and (digest is None or _hash(target) == digest):
        report.add(already=1, proved=digest is not None, unproved=digest is None)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + PART)
    for attempt in range(_TRIES):
        report.add(bytes=_stream(server, key, one, part))
        whole = part.stat().st_size == one["size"]
        if whole and (digest is None or _hash(part) == digest):
            part.replace(target)
            report.add(fetched=1, proved=digest is not None, unproved=digest is None)
            return
        if part.stat().st_size >= one["size"] or attempt == _TRIES - 1:
            part.unlink()  # these bytes aren't the right ones: begin afresh
            if attempt >= 1:
                break
    raise VitriflowError(
        one["path"],
        f"{one['size']} bytes" + (f" with the BLAKE3 {digest}" if digest else ""),
        "others, again and again",
        "The file changed on the server or on the way; run 'vitriflow verify' there.",
    )


def _stream(server: Server, key: str, one: dict[str, Any], part: Path) -> int:
    """Append what's missing of a file; gives how many bytes came. A lost connection leaves what came."""
    start = part.stat().st_size if part.exists() else 0
    if start >= one["size"]:
        start = 0
    got = 0
    address = f"/api/sessions/{quote(key, safe='')}/files/{quote(one['path'])}"
    with server.open(address, start=start) as answer:
        resumed = getattr(answer, "status", 200) == 206
        with part.open("ab" if resumed and start else "wb") as stream:
            try:
                while chunk := answer.read(_CHUNK):
                    stream.write(chunk)
                    got += len(chunk)
            except (http.client.HTTPException, ConnectionError, TimeoutError):
                return got  # the next try goes on from here
    return got


def _hash(path: Path) -> str:
    digest = blake3.blake3()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return str(digest.hexdigest())


def _safe(part: str) -> str:
    """A name that stays where it is put, whatever a server says."""
    if part in ("", ".", "..") or "/" in part or "\\" in part or not part.isprintable():
        raise VitriflowError(
            "file name", "a plain name", repr(part)[:200], "The server sent it: tell its administrators."
        )
    return part
