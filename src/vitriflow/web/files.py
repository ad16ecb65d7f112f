"""Files that pages may show: named by records of the catalog, never by a request."""

from pathlib import Path
from typing import Any

from vitriflow.catalog.views import ProcessingView, SessionView
from vitriflow.web.problems import NotFound

PICTURE_TYPES = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg"}


def allowed_file(path: str, session: SessionView, processing: ProcessingView | None) -> Path:
    """The file a record names, once it's sure to lie inside the session.

    Links are followed before looking, so that a link out of the session doesn't get through.

    Raises
    ------
    NotFound
        When it isn't there, isn't a plain file, or lies outside the session's folders.
    """
    roots = [session.root, session.source]
    if processing is not None:
        roots.append(processing.root)
    try:
        real = Path(path).resolve(strict=True)
        inside = any(root and real.is_relative_to(Path(root).resolve()) for root in roots)
        plain = real.is_file()
    except (OSError, ValueError, RuntimeError):
        inside = plain = False
    if not (inside and plain):
        raise NotFound(
            "file of this exposure",
            expected="a file inside the session's own folders",
            found="none that may be shown",
            remedy="If the session was moved, tell vitriflow its new root; else process the exposure again.",
        )
    return real


def output_path(record: dict[str, Any] | None, port: str) -> str | None:
    """Path of one output of a result's record, or None."""
    artifact = ((record or {}).get("outputs") or {}).get(port)
    path = artifact.get("path") if isinstance(artifact, dict) else None
    return path if isinstance(path, str) and path else None
