"""Where a session lives on disk; the processing folder is a RELION project."""

import re
import shutil
import unicodedata
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from vitriflow.errors import VitriflowError

FOLDER_MODE = 0o750  # nothing world-readable


@dataclass(frozen=True)
class SessionFolder:
    """The folders and files of one session.

    ``<storage root>/<YYYYMM>/<experiment>_<microscope>/<sample>/<session id>/``
    """

    root: Path

    @property
    def raw(self) -> Path:
        """Movies and their metadata as they came: a folder of copies, or a link to the source."""
        return self.root / "raw"

    @property
    def previews(self) -> Path:
        """Small images for the pages."""
        return self.root / "previews"

    @property
    def manifest(self) -> Path:
        """One JSON line for each file that was proved."""
        return self.root / "manifest.jsonl"

    @property
    def record(self) -> Path:
        """Everything the elogbook knew (JSON)."""
        return self.root / "session.json"

    def processed(self, processing: str) -> Path:
        """Root of one processing: a RELION project."""
        return self.root / "processed" / safe_name(processing)


def safe_name(text: str) -> str:
    """Turn any text into a folder name of ASCII letters, digits, dot, dash and underscore.

    RELION splits its command lines and STAR rows at spaces, so project paths have none.
    """
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", plain).strip("-.")
    return plain[:100] or "unnamed"


def session_folder(
    storage_root: Path, when: datetime, experiment: str, microscope: str, sample: str, session: str
) -> SessionFolder:
    """The folder of a session, by the layout of the architecture. Nothing is made yet."""
    return SessionFolder(
        storage_root
        / f"{when:%Y%m}"
        / f"{safe_name(experiment)}_{safe_name(microscope)}"
        / safe_name(sample)
        / safe_name(session)
    )


def make_session_folder(folder: SessionFolder, source: Path, mode: str = "in_place") -> None:
    """Make the folders of a session. ``raw`` is a folder in mode ``copy``, else a link to the source.

    Raises
    ------
    VitriflowError
        When the folders can't be made, saying why, or ``raw`` points elsewhere.
    """
    try:
        for path in (folder.root, folder.previews, folder.root / "processed"):
            path.mkdir(parents=True, exist_ok=True, mode=FOLDER_MODE)
        if mode == "copy":
            _make_raw(folder)
        elif not folder.raw.is_symlink() and not folder.raw.exists():
            folder.raw.symlink_to(source.absolute(), target_is_directory=True)
    except OSError as error:
        raise VitriflowError(
            str(folder.root),
            "a folder that can be written",
            error.strerror or str(error),
            "Check that storage.root is right in facility.toml and that this user may write there.",
        ) from error
    if mode != "copy" and folder.raw.is_symlink() and folder.raw.readlink() != source.absolute():
        raise VitriflowError(
            str(folder.raw),
            f"a link to {source.absolute()}",
            f"a link to {folder.raw.readlink()}",
            "Give the session another name with --session.",
        )


def _make_raw(folder: SessionFolder) -> None:
    """The folder that files are copied to; never through a link to the source."""
    if folder.raw.is_symlink():
        raise VitriflowError(
            str(folder.raw),
            "a folder, for a session whose files are copied",
            f"a link to {folder.raw.readlink()}: its files were taken in where they are",
            "Give the copied session another name with --session.",
        )
    folder.raw.mkdir(exist_ok=True, mode=FOLDER_MODE)


def free_bytes(path: Path) -> int:
    """Free space for this user on the file system of the nearest folder that exists (bytes)."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return shutil.disk_usage(path).free
