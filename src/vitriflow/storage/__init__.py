"""Where a session lives on disk, and the manifest of what it holds."""

from vitriflow.storage.layout import (
    SessionFolder,
    free_bytes,
    make_session_folder,
    safe_name,
    session_folder,
)
from vitriflow.storage.manifest import Manifest, ManifestLine, newest_lines, read_manifest, sync_folder

__all__ = [
    "Manifest",
    "ManifestLine",
    "SessionFolder",
    "free_bytes",
    "make_session_folder",
    "newest_lines",
    "read_manifest",
    "safe_name",
    "session_folder",
    "sync_folder",
]
