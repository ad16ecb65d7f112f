"""Files of the package as a browser gets them: read and packed once, kept in memory.

Their addresses hold a hash of all of them (``/static/@HASH/session.js``), so that a browser may keep
them for ever, the modules that a script imports by a relative address included.
"""

import gzip
import hashlib
import mimetypes
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

STATIC = Path(__file__).parent / "static"
_WORTH_PACKING = 1024
_TYPES = {".js": "text/javascript", ".svg": "image/svg+xml", ".css": "text/css"}
_KEPT = "public, max-age=31536000, immutable"


@dataclass(frozen=True)
class File:
    """One file, plain and packed (empty where packing isn't worth it)."""

    plain: bytes
    packed: bytes
    media_type: str
    tag: str


@dataclass(frozen=True)
class Files:
    """All files by name, and the hash that stands for them together."""

    by_name: dict[str, File]
    digest: str

    def url(self, name: str) -> str:
        """Address of a file, which no other content will ever have.

        Raises
        ------
        KeyError
            When no such file is shipped.
        """
        self.by_name[name]
        return f"/static/@{self.digest}/{name}"


@cache
def shipped_files() -> Files:
    """The package's files, read once."""
    return read_files(STATIC)


def read_files(folder: Path) -> Files:
    """All files below a folder, whatever their depth."""
    found = {}
    together = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name, plain = path.relative_to(folder).as_posix(), path.read_bytes()
        tag = hashlib.sha256(plain).hexdigest()[:16]
        together.update(f"{name} {tag}\n".encode())
        kind = _TYPES.get(path.suffix) or mimetypes.guess_type(name)[0] or "text/plain"
        packed = gzip.compress(plain, 9, mtime=0) if len(plain) > _WORTH_PACKING else b""
        found[name] = File(plain, packed, kind, f'"{tag}"')
    return Files(found, together.hexdigest()[:12])


class Shipped:
    """ASGI application that answers with the package's files and nothing else.

    Parameters
    ----------
    files
        What there is to give. A request's path is looked up among their names; no path from a
        request reaches the file system.
    """

    def __init__(self, files: Files) -> None:
        self.files = files

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        await self.answer(scope)(scope, receive, send)

    def answer(self, scope: Scope) -> Response:
        """What a request gets.

        Raises
        ------
        HTTPException
            When there's no such file, or something else is asked than to read it.
        """
        if scope["method"] not in ("GET", "HEAD"):
            raise HTTPException(405, headers={"allow": "GET, HEAD"})
        name = scope["path"].removeprefix(scope.get("root_path", "")).lstrip("/")
        kept = False
        if name.startswith("@"):
            digest, _, name = name[1:].partition("/")
            kept = digest == self.files.digest
        file = self.files.by_name.get(name)
        if file is None:
            raise HTTPException(404)
        headers = {
            "cache-control": _KEPT if kept else "no-cache",
            "etag": file.tag,
            "vary": "accept-encoding",
        }
        asked = Headers(scope=scope)
        if file.tag in asked.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        body = file.plain
        if file.packed and "gzip" in asked.get("accept-encoding", ""):
            body, headers["content-encoding"] = file.packed, "gzip"
        return Response(body, media_type=file.media_type, headers=headers)
