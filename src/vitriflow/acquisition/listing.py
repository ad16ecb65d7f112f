"""Says of every file of a folder what it is and what it belongs to; touches nothing."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from vitriflow.acquisition.metadata import MetadataFinder, series_of_mdoc
from vitriflow.acquisition.optics import OpticsGroups, evidence_of
from vitriflow.acquisition.recognise import (
    FileKind,
    item_of,
    plain_stem,
    program_of,
    recognise,
    series_of,
    sum_of_movie,
)
from vitriflow.acquisition.scan import FileSeen, Scanner, SourceLostError, name_of
from vitriflow.errors import BadParameter
from vitriflow.formats import ExposureMetadata, Mdoc

_BESIDE = (FileKind.METADATA, FileKind.PREVIEW)
_FRAMES = (".tif.mdoc", ".tiff.mdoc", ".eer.mdoc")


@dataclass
class Entry:
    """One file.

    Attributes
    ----------
    path
        Below the folder, with forward slashes. Bytes that aren't UTF-8 stand as ``%FF``.
    kind
        What it is for; what nobody claims, and temporary files, are ``unknown``.
    software
        The program that wrote it, as far as names and metadata tell.
    exposure
        Name of the exposure that it belongs to: a movie's path without suffix.
    tilt_series, grid_square, foil_hole
        Where it belongs besides.
    metadata
        Of movies and of metadata files, by our names; None for others.
    """

    path: str
    kind: str
    software: str | None = None
    exposure: str | None = None
    tilt_series: str | None = None
    grid_square: str | None = None
    foil_hole: str | None = None
    metadata: dict[str, Any] | None = None


@dataclass
class Listing:
    """A folder's files, and what couldn't be looked at.

    Attributes
    ----------
    entries
        One for each file, in order of their paths.
    unreadable
        Folders that may not be listed.
    """

    entries: list[Entry] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)

    def optics_groups(self) -> OpticsGroups:
        """Optics groups of its exposures, as a session would give them, in order of their paths."""
        groups = OpticsGroups()
        seen: set[str] = set()
        movies = [entry for entry in self.entries if entry.kind == FileKind.MOVIE]
        for entry in movies or [entry for entry in self.entries if entry.kind == FileKind.METADATA]:
            if entry.exposure is not None and entry.exposure not in seen:
                tilted = entry.tilt_series is not None
                evidence = evidence_of(entry.path, entry.metadata or {}, tilted=tilted)
                if movies or evidence.shift is not None:
                    seen.add(entry.exposure)
                    groups.assign(evidence)
        return groups


def list_folder(folder: Path, *, read: bool = True) -> Listing:
    """Recognise every file below a folder. Links to folders aren't followed.

    Parameters
    ----------
    folder
        What a microscope wrote.
    read
        Open XML and mdoc files for their metadata; else names alone decide.

    Raises
    ------
    BadParameter
        When it isn't a folder, or can't be listed.
    BadConfig
        When a facility's recogniser fails, naming it.
    """
    if not folder.is_dir():
        found = "a file" if folder.exists() else "nothing there"
        raise BadParameter(f"folder {folder}", "a folder that a microscope wrote", found, "Check the path.")
    scanner = Scanner(folder)
    try:
        seen = scanner.scan()
    except SourceLostError as error:
        raise BadParameter(
            f"folder {folder}", "a folder that can be listed", str(error), "Check its permissions."
        ) from error
    keys = sorted([*scanner.files, *seen.unnameable])
    return Listing(list(_Reader(scanner.files, keys, read).entries()), sorted(seen.denied))


class _Reader:
    """Recognises files in the company of the others."""

    def __init__(self, files: Mapping[str, FileSeen], keys: list[str], read: bool) -> None:
        self._keys = keys
        self._read = read
        self._full = {key: file for key, file in files.items() if file.size}  # listings may be of empty files
        self._finder = MetadataFinder(kept=256)
        movies = [key for key in keys if recognise(key).kind == FileKind.MOVIE]
        self._sums = {stem for key in movies if (stem := sum_of_movie(key))}
        real = [key for key in movies if item_of(key) not in self._sums]
        self._series = {name: key for key in movies if (name := recognise(key).fields.get("tilt_series"))}
        self._items = {plain_stem(key).lower(): item_of(key) for key in reversed(real)}

    def entries(self) -> Iterator[Entry]:
        for key in self._keys:
            entry = self._entry(key)
            if entry.kind == FileKind.TEMPORARY:
                entry.kind = FileKind.UNKNOWN
            entry.kind = str(entry.kind)
            entry.path = _shown(key)
            yield entry

    def _entry(self, key: str) -> Entry:
        found = recognise(key)
        entry = Entry(key, found.kind, found.software or None, tilt_series=series_of(key))
        square, hole = found.fields.get("grid_square"), found.fields.get("foil_hole")
        entry.grid_square, entry.foil_hole = square, hole
        if found.kind == FileKind.MOVIE:
            self._movie(key, entry)
        elif found.kind == FileKind.MONTAGE and key.lower().endswith(".st"):
            self._stack(key, entry)
        elif found.kind in _BESIDE:
            entry.exposure = self._exposure(key)
            if found.kind == FileKind.METADATA:
                self._metadata(key, entry)
        return entry

    def _movie(self, key: str, entry: Entry) -> None:
        if item_of(key) in self._sums:
            entry.kind, entry.exposure = FileKind.PREVIEW, self._exposure(key)
            return
        if PurePosixPath(key).stem in self._series:  # the sums of a series, called after it
            entry.kind = FileKind.PREVIEW
            self._join(key, entry)
            return
        entry.exposure, entry.metadata = item_of(key), {}
        if not self._read:
            return
        metadata = self._finder.find(key, self._full)
        if metadata.stack is not None:
            entry.kind, entry.exposure, entry.metadata = metadata.stack, None, None
            return
        entry.metadata = metadata.details
        entry.tilt_series = metadata.details.get("tilt_series")
        entry.software = program_of(entry.software, metadata.details.get("software"))

    def _stack(self, key: str, entry: Entry) -> None:
        """``.st`` is a montage, unless it's called after a tilt series or its mdoc says so."""
        self._join(key, entry)
        mdoc = self._full.get(f"{key}.mdoc") if self._read else None
        content = self._finder.content(mdoc) if mdoc is not None else None
        if isinstance(content, Mdoc) and content.kind == "tilt series":
            entry.tilt_series = entry.tilt_series or series_of_mdoc(f"{key}.mdoc", content)
        if entry.tilt_series is not None:
            entry.kind = FileKind.PREVIEW

    def _exposure(self, key: str) -> str | None:
        stem = plain_stem(key)
        item = self._items.get(stem.lower())
        if item is not None:
            return item
        fields = recognise(key).fields
        own = "shift_position" in fields or key.lower().endswith(_FRAMES)
        return stem if own else None

    def _metadata(self, key: str, entry: Entry) -> None:
        entry.metadata = {}
        self._join(key, entry)
        file = self._full.get(key)
        if not self._read or file is None or not key.lower().endswith((".xml", ".mdoc")):
            return
        content = self._finder.content(file)
        if isinstance(content, str):
            entry.metadata = {"problems": [content]}
        elif isinstance(content, ExposureMetadata):
            entry.metadata = _dump(content)
            entry.software = program_of(entry.software, content.software)
        else:
            self._mdoc(key, content, entry)

    def _join(self, key: str, entry: Entry) -> None:
        """A stack or an mdoc that is called after a tilt series belongs to it."""
        path = PurePosixPath(key)
        stem = PurePosixPath(path.stem).stem if path.suffix.lower() == ".mdoc" else path.stem
        for name in (path.stem, stem, stem.removesuffix("_override")):
            if entry.tilt_series is None and name in self._series:
                movie = self._series[name]
                entry.tilt_series = series_of(movie)
                entry.software = recognise(movie).software or entry.software

    def _mdoc(self, key: str, mdoc: Mdoc, entry: Entry) -> None:
        said = [_dump(exposure) for exposure in mdoc.exposures]
        common = {
            name: value for name, value in said[0].items() if all(one.get(name) == value for one in said)
        }
        if len(said) > 1:
            common |= {"n_exposures": len(said)}
            tilts = [one["tilt_angle_deg"] for one in said if "tilt_angle_deg" in one]
            if tilts:
                common |= {"tilt_min_deg": min(tilts), "tilt_max_deg": max(tilts)}
        entry.metadata = {**common, "mdoc_kind": mdoc.kind} | (
            {"problems": mdoc.problems} if mdoc.problems else {}
        )
        entry.software = program_of(entry.software, mdoc.exposures[0].software)
        entry.tilt_series = series_of_mdoc(key, mdoc) or entry.tilt_series
        if len(said) > 1:
            entry.exposure = None
        elif mdoc.exposures[0].movie_name and entry.exposure is None:
            movie = PurePosixPath(key).parent / mdoc.exposures[0].movie_name
            entry.exposure = self._items.get(plain_stem(str(movie)).lower(), item_of(str(movie)))


def _dump(exposure: ExposureMetadata) -> dict[str, Any]:
    return exposure.model_dump(mode="json", exclude_none=True, exclude={"source"}, exclude_defaults=True)


def _shown(key: str) -> str:
    name = name_of(key)
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return key
    return name
