"""Where a session lives on disk."""

from vitriflow.storage.layout import (
    SessionFolder,
    free_bytes,
    make_session_folder,
    safe_name,
    session_folder,
)

__all__ = ["SessionFolder", "free_bytes", "make_session_folder", "safe_name", "session_folder"]
