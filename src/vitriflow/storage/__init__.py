"""Where a session lives on disk, and the manifest of what it holds."""

from vitriflow.storage.archive_files import PastCache, hash_past_cache, parse_sums, sums_text
from vitriflow.storage.layout import (
    SessionFolder,
    free_bytes,
    make_session_folder,
    safe_name,
    session_folder,
)
from vitriflow.storage.manifest import Manifest, ManifestLine, newest_lines, read_manifest, sync_folder
from vitriflow.storage.tiers import (
    Archived,
    ArchiveError,
    ArchiveFile,
    ArchiveJob,
    Tier,
    TierOptions,
    open_tier,
    tier_kinds,
)

__all__ = [
    "ArchiveError",
    "ArchiveFile",
    "ArchiveJob",
    "Archived",
    "Manifest",
    "ManifestLine",
    "PastCache",
    "SessionFolder",
    "Tier",
    "TierOptions",
    "free_bytes",
    "hash_past_cache",
    "make_session_folder",
    "newest_lines",
    "open_tier",
    "parse_sums",
    "read_manifest",
    "safe_name",
    "session_folder",
    "sums_text",
    "sync_folder",
    "tier_kinds",
]
