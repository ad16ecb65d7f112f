"""Finds and reads the XML or mdoc that belongs to a movie."""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from vitriflow.acquisition.recognise import metadata_keys
from vitriflow.acquisition.scan import FileSeen
from vitriflow.errors import ItemError
from vitriflow.formats import ExposureMetadata, Mdoc, names_from_path, read_epu_xml, read_mdoc

_KEPT = 64  # files that are read again only when they change


@dataclass(frozen=True)
class Found:
    """Metadata of one movie: the file it mainly came from, frames promised, what it says (JSON-ready)."""

    path: str | None = None
    n_frames: int | None = None
    details: dict[str, Any] = field(default_factory=dict)


class MetadataFinder:
    """Reads each metadata file once for as long as it doesn't change."""

    def __init__(self) -> None:
        self._read: OrderedDict[str, tuple[int, int, ExposureMetadata | Mdoc | str]] = OrderedDict()

    def find(self, key: str, files: Mapping[str, FileSeen]) -> Found:
        """Join what all metadata files of the movie ``key`` say; of two, the more telling one wins.

        Broken metadata is told in ``details["problems"]``, not raised: the movie may still be good.
        """
        movie = PurePosixPath(key).name
        joined: dict[str, Any] = {}
        problems: list[str] = []
        path: str | None = None
        for name in metadata_keys(key):
            file = files.get(name)
            if file is None:
                continue
            content = self._content(file)
            if isinstance(content, str):
                problems.append(content)
                path = path or name
                continue
            exposure = content if isinstance(content, ExposureMetadata) else _section(content, movie)
            if exposure is None:
                continue  # an mdoc that grows with the series, and hasn't come to this movie yet
            path = path or name
            said = exposure.model_dump(mode="json", exclude_none=True, exclude={"problems", "source"})
            problems += exposure.problems
            joined = said | joined
        joined = names_from_path(files[key].path) | joined if key in files else joined
        details = joined | ({"problems": problems} if problems else {})
        if path is not None:
            details["metadata_file"] = path
        return Found(path, joined.get("n_fractions"), details)

    def _content(self, file: FileSeen) -> ExposureMetadata | Mdoc | str:
        known = self._read.get(file.key)
        if known is not None and known[:2] == (file.size, file.changed_ns):
            self._read.move_to_end(file.key)
            return known[2]
        content: ExposureMetadata | Mdoc | str
        try:
            is_xml = file.path.suffix.lower() == ".xml"
            content = read_epu_xml(file.path) if is_xml else read_mdoc(file.path)
        except (ItemError, OSError) as error:
            content = str(error)
        self._read[file.key] = (file.size, file.changed_ns, content)
        if len(self._read) > _KEPT:
            self._read.popitem(last=False)
        return content


def _section(mdoc: Mdoc, movie: str) -> ExposureMetadata | None:
    """The section that names this movie; a single section without any name is the movie's own."""
    for exposure in mdoc.exposures:
        if exposure.movie_name and exposure.movie_name.lower() == movie.lower():
            return exposure
    if len(mdoc.exposures) == 1 and not mdoc.exposures[0].movie_name:
        return mdoc.exposures[0]
    return None
