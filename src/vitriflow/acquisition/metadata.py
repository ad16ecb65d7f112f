"""Finds and reads the XML or mdoc that belongs to a movie."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from vitriflow.acquisition.recognise import metadata_keys
from vitriflow.acquisition.scan import FileSeen
from vitriflow.errors import ItemError
from vitriflow.formats import ExposureMetadata, read_epu_xml, read_mdoc


@dataclass(frozen=True)
class Found:
    """Metadata of one movie: which file it came from, what it says (JSON-ready)."""

    path: str | None = None
    n_frames: int | None = None
    details: dict[str, Any] = field(default_factory=dict)


class MetadataFinder:
    """Reads each metadata file once for as long as it doesn't change."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], tuple[int, int, Found]] = {}

    def find(self, key: str, files: Mapping[str, FileSeen]) -> Found:
        """Metadata of the movie ``key`` if it's there. Broken metadata is told in ``details``, not raised."""
        for name in metadata_keys(key):
            file = files.get(name)
            if file is None:
                continue
            known = self._known.get((name, key))
            if known is not None and known[:2] == (file.size, file.changed_ns):
                return known[2]
            found = _read(file, key)
            self._known[name, key] = (file.size, file.changed_ns, found)
            return found
        return Found()

    def forget(self, key: str) -> None:
        """Drop what is kept for a movie that is settled."""
        for name in metadata_keys(key):
            self._known.pop((name, key), None)


def _read(file: FileSeen, key: str) -> Found:
    try:
        if file.path.suffix.lower() == ".xml":
            metadata: ExposureMetadata = read_epu_xml(file.path)
        else:
            metadata = read_mdoc(file.path, PurePosixPath(key).name)
    except (ItemError, OSError) as error:
        return Found(file.key, None, {"metadata_file": file.key, "problems": [str(error)]})
    details = metadata.model_dump(mode="json", exclude_none=True)
    details["metadata_file"] = file.key
    return Found(file.key, details.get("n_fractions"), details)
