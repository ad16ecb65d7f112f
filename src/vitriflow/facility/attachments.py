"""Files of log entries: kept below the storage root by their hash, never by a name that somebody gave."""

import os
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from blake3 import blake3

from vitriflow.errors import BadParameter, VitriflowError

FOLDER = "elogbook"
LARGEST_BYTES = 64 * 1024**2
# Shown in the page; everything else is offered for download only.
PICTURES = {
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"GIF87a": "image/gif",
    b"GIF89a": "image/gif",
}
OTHER = "application/octet-stream"


@dataclass(frozen=True)
class Stored:
    """A file that was put away."""

    path: str  # below the storage root
    size: int
    blake3: str
    media_type: str  # by what's in it, not by what somebody said


def store_file(root: Path, blocks: Iterable[bytes], largest: int = LARGEST_BYTES) -> Stored:
    """Put a file away, by atomic rename; the same bytes are kept once.

    Raises
    ------
    BadParameter
        When it's empty or larger than allowed; nothing is left behind.
    VitriflowError
        When it can't be written.
    """
    folder = root / FOLDER
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o750)
        handle, name = tempfile.mkstemp(prefix=".upload.", dir=folder)
    except OSError as error:
        raise _unwritable(folder, error) from error
    temporary = Path(name)
    digest, size, head = blake3(), 0, b""
    try:
        with os.fdopen(handle, "wb") as stream:
            for block in blocks:
                size += len(block)
                if size > largest:
                    raise BadParameter(
                        "file", f"at most {largest >> 20} MiB", "more", "Put it on the data share."
                    )
                head = (head + block)[:16]
                digest.update(block)
                stream.write(block)
            stream.flush()
            os.fsync(stream.fileno())
        if not size:
            raise BadParameter("file", "something in it", "0 bytes")
        key = digest.hexdigest()
        final = folder / key[:2] / key
        final.parent.mkdir(exist_ok=True, mode=0o750)
        temporary.chmod(0o640)
        temporary.replace(final)
    except OSError as error:
        raise _unwritable(folder, error) from error
    finally:
        temporary.unlink(missing_ok=True)
    return Stored(str(final.relative_to(root)), size, key, media_type(head))


def media_type(head: bytes) -> str:
    """What a file is by its first bytes: a picture that browsers may show, or anything else."""
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "image/webp"
    return next((kind for magic, kind in PICTURES.items() if head.startswith(magic)), OTHER)


def _unwritable(folder: Path, error: OSError) -> VitriflowError:
    why = error.strerror or str(error)
    return VitriflowError(
        str(folder), "a folder that can be written", why, "Free space, or ask the administrator."
    )
