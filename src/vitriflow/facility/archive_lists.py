"""Which files have a proved copy in which archive, by lists that stay in the session's folder.

The archive itself isn't asked: it may be a tape.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from blake3 import blake3
from sqlalchemy import select

from vitriflow.catalog import ArchiveCopy, Catalog, Session
from vitriflow.errors import VitriflowError
from vitriflow.storage import parse_sums, sync_folder
from vitriflow.storage.layout import FOLDER_MODE

FOLDER = "archives"


def list_path(root: Path, tier: str, copy_id: int) -> Path:
    """Where the list of one copy's files stands: hashes and paths, as b3sum reads them."""
    return root / FOLDER / f"{tier}-{copy_id}.b3"


def archived_files(catalog: Catalog, session_id: int) -> Mapping[str, Mapping[str, str]]:
    """For each tier the files of a session that have a proved copy there: path -> hash.

    A list that is missing, or isn't the one that was proved, counts for nothing.
    """
    query = (
        select(ArchiveCopy, Session.root)
        .join(Session, Session.id == ArchiveCopy.session_id)
        .where(ArchiveCopy.session_id == session_id, ArchiveCopy.proved_at.is_not(None))
        .order_by(ArchiveCopy.id)
    )
    found: dict[str, dict[str, str]] = {}
    for copy, root in catalog.read(lambda orm: [(row[0], row[1]) for row in orm.execute(query)]):
        if copy.state in ("proved", "recalling"):
            try:
                files = read_list(Path(root), copy)
            except VitriflowError:
                continue
            found.setdefault(copy.tier, {}).update(files)
    return found


def read_list(root: Path, copy: ArchiveCopy) -> dict[str, str]:
    """The files of one copy, after making sure that the list is the one that was proved.

    Raises
    ------
    VitriflowError
        When it's missing or differs.
    """
    path = list_path(root, copy.tier, copy.id)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise VitriflowError(
            str(path),
            f"the list of files in archive copy {copy.id}",
            error.strerror or str(error),
            f"The same list stands with the archive, {copy.location}: copy it here.",
        ) from error
    if blake3(data).hexdigest() != copy.manifest_blake3:
        raise VitriflowError(
            str(path),
            f"the hash {copy.manifest_blake3} that was noted when the copy was proved",
            blake3(data).hexdigest(),
            f"It was changed; the same list stands with the archive, {copy.location}.",
        )
    return parse_sums(data)


def write_list(root: Path, tier: str, copy_id: int, data: bytes) -> str:
    """Write the list of a copy into the session's folder, synced; gives its hash."""
    path = list_path(root, tier, copy_id)
    path.parent.mkdir(exist_ok=True, mode=FOLDER_MODE)
    temporary = path.with_name(f".{path.name}")
    with temporary.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)
    sync_folder(path.parent)
    return blake3(data).hexdigest()
