"""Finds and reads the XML or mdoc that belongs to a movie."""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from vitriflow.acquisition.drives import local_path
from vitriflow.acquisition.recognise import FileKind, metadata_keys, recognise, series_of
from vitriflow.acquisition.scan import FileSeen, key_of
from vitriflow.errors import ItemError
from vitriflow.formats import ExposureMetadata, Mdoc, names_from_path, read_epu_xml, read_mdoc

_KEPT = 64  # files that are read again only when they change
_NAMED = ("grid_square", "foil_hole", "position", "tilt_angle_deg")  # fields of names that metadata carry too
_MDOC = ".mdoc"
_STACKS = {"tilt series": FileKind.PREVIEW, "montage": FileKind.MONTAGE}


@dataclass(frozen=True)
class Found:
    """Metadata of one movie.

    Attributes
    ----------
    path
        The file that it mainly came from.
    n_frames
        Frames promised.
    details
        What it says (JSON-ready). ``tilt_series`` and ``tilt_order`` only for exposures of one.
    stack
        What the image is when it's no movie: a ``preview`` (the sums of a tilt series) or a ``montage``.
    """

    path: str | None = None
    n_frames: int | None = None
    details: dict[str, Any] = field(default_factory=dict)
    stack: FileKind | None = None


class MetadataFinder:
    """Reads each metadata file once for as long as it doesn't change.

    Parameters
    ----------
    kept
        Files whose contents are remembered.
    source
        The session's folder.
    drives
        Where the drives of the microscope's PC are here: an mdoc then names its movies exactly, wherever
        they lie below the source.
    """

    def __init__(
        self, kept: int = _KEPT, source: Path | None = None, drives: Mapping[str, Path] | None = None
    ) -> None:
        self._kept = kept
        self._source = source
        self._drives = dict(drives or {})
        self._read: OrderedDict[str, tuple[int, int, ExposureMetadata | Mdoc | str]] = OrderedDict()
        # name of a movie: the mdocs that name it among others, and the path that each gives it
        self._shared: dict[str, dict[str, str]] = {}
        self._indexed: dict[str, tuple[int, int]] = {}
        self._mdocs: tuple[int, list[str]] = (0, [])  # of how many files, and which of them are mdocs

    def find(self, key: str, files: Mapping[str, FileSeen]) -> Found:
        """Join what all metadata files of the movie ``key`` say; of two, the more telling one wins.

        Broken metadata is told in ``details["problems"]``, not raised: the movie may still be good.
        """
        joined: dict[str, Any] = {}
        problems: list[str] = []
        path, series, stack = None, series_of(key), None
        names = [name for name in metadata_keys(key) if name in files]
        for name in names or self._sharing(key, files):
            content = self.content(files[name])
            if isinstance(content, str):
                problems.append(content)
                path = path or name
                continue
            if isinstance(content, Mdoc) and _is_stack(key, name, content):
                stack = _STACKS.get(content.kind)
                continue
            exposure = content if isinstance(content, ExposureMetadata) else _section(content, key)
            if exposure is None:
                continue  # an mdoc that grows with the series, and hasn't come to this movie yet
            path = path or name
            said = exposure.model_dump(mode="json", exclude_none=True, exclude={"problems", "source"})
            problems += exposure.problems
            joined = said | joined
            if isinstance(content, Mdoc) and series is None:
                series = series_of_mdoc(name, content)
        joined = _names(key, series) | joined
        if series is None:
            joined.pop("tilt_order", None)  # else only the number of a section
        elif "tilt_order" in recognise(key).fields:
            joined["tilt_order"] = recognise(key).fields["tilt_order"]
        details = joined | ({"problems": problems} if problems else {})
        if path is not None:
            details["metadata_file"] = path
        return Found(path, joined.get("n_fractions"), details, stack)

    def content(self, file: FileSeen) -> ExposureMetadata | Mdoc | str:
        """What an XML or mdoc says, or why it can't be read."""
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
        if len(self._read) > self._kept:
            self._read.popitem(last=False)
        return content

    def movies_of(self, file: FileSeen) -> list[str]:
        """Names without folders, in small letters, of the movies that an mdoc names."""
        content = self.content(file)
        if not isinstance(content, Mdoc):
            return []
        return [exposure.movie_name.lower() for exposure in content.exposures if exposure.movie_name]

    def outside(self, file: FileSeen) -> Path | None:
        """The folder of an mdoc's movies, when that isn't below the source: they'll never be seen there."""
        content = self.content(file) if self._drives and self._source is not None else None
        for exposure in content.exposures if isinstance(content, Mdoc) else []:
            here = local_path(exposure.movie_path or "", self._drives)
            if here is not None and self._source is not None and not here.is_relative_to(self._source):
                return here.parent
        return None

    def _sharing(self, key: str, files: Mapping[str, FileSeen]) -> list[str]:
        """The mdoc that names this movie among others, whatever it's called itself and wherever it lies.

        Of several that name one so called, that of the longest common path goes first; one that
        means another file, which is there too, says nothing.
        """
        name = PurePosixPath(key).name.lower()
        known = {mdoc: said for mdoc, said in self._shared.get(name, {}).items() if mdoc in files}
        if not known or self._drives:
            self._index(files)
            known = {mdoc: said for mdoc, said in self._shared.get(name, {}).items() if mdoc in files}
        fits = []
        for mdoc, said in known.items():
            exact = self._exactly(said)
            if exact is not None and exact != key and exact in files:
                continue
            fits.append((exact == key, _common_end(key, said), mdoc))
        return [max(fits)[2]] if fits else []

    def _exactly(self, said: str) -> str | None:
        """The key of the file that a path of the microscope's PC means; None outside the source."""
        here = local_path(said, self._drives)
        if here is None or self._source is None or not here.is_relative_to(self._source):
            return None
        return key_of(str(here.relative_to(self._source)))

    def _index(self, files: Mapping[str, FileSeen]) -> None:
        """Note which movies are named by mdocs that aren't called after one; each is read once a change."""
        if self._mdocs[0] != len(files):
            self._mdocs = (len(files), [key for key in files if key.lower().endswith(_MDOC)])
        for key in self._mdocs[1]:
            file = files.get(key)
            if file is None or self._indexed.get(key) == (file.size, file.changed_ns):
                continue
            self._indexed[key] = (file.size, file.changed_ns)
            if key[: -len(_MDOC)] in files or not file.size:
                continue  # called after its movie, or nothing there yet
            content = self.content(file)
            if isinstance(content, Mdoc):
                for exposure in content.exposures:
                    if exposure.movie_name:
                        said = exposure.movie_path or exposure.movie_name
                        self._shared.setdefault(exposure.movie_name.lower(), {})[key] = said


def series_of_mdoc(key: str, mdoc: Mdoc) -> str | None:
    """Name of the tilt series that an mdoc describes: its movies', else its stack's, else its own name.

    None when it describes something else.
    """
    if mdoc.kind in ("frame set", "montage"):
        return None
    folder = PurePosixPath(key).parent
    for exposure in mdoc.exposures:
        if exposure.movie_name and (series := series_of(str(folder / exposure.movie_name))):
            return series
    tomo = any(exposure.software == "Tomo 5" for exposure in mdoc.exposures)
    if mdoc.kind != "tilt series" and not tomo:
        return series_of(key)
    if mdoc.image_file:
        return PureWindowsPath(mdoc.image_file).stem
    stem = PurePosixPath(PurePosixPath(key).stem)
    image = stem.suffix.lower() in (".mrc", ".mrcs", ".st", ".tif", ".tiff", ".eer")
    return series_of(key) or (stem.stem if image else stem.name).removesuffix("_override")


def _common_end(key: str, said: str) -> int:
    """How many of the last parts two paths have in common, whatever their case."""
    ours = [part.lower() for part in reversed(PurePosixPath(key).parts)]
    theirs = [part.lower() for part in reversed(PureWindowsPath(said).parts)]
    return next(
        (n for n, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), min(len(ours), len(theirs))
    )


def _names(key: str, series: str | None) -> dict[str, Any]:
    """What the path says: square, hole, position, angle."""
    said = {name: value for name, value in recognise(key).fields.items() if name in _NAMED}
    found = names_from_path(PurePosixPath(key)) | said
    if series is not None:
        found |= {"tilt_series": series}
    return found


def _is_stack(key: str, mdoc_key: str, mdoc: Mdoc) -> bool:
    """Whether an image is the stack of sums (or of a montage's pieces) that an mdoc describes, and no movie."""
    path = PurePosixPath(key)
    if mdoc.kind not in _STACKS or PurePosixPath(mdoc_key).name.lower() != f"{path.name}{_MDOC}".lower():
        return False
    return all((exposure.movie_name or "").lower() != path.name.lower() for exposure in mdoc.exposures)


def _section(mdoc: Mdoc, key: str) -> ExposureMetadata | None:
    """The section that names this movie; a single section without any name is the movie's own."""
    movie = PurePosixPath(key).name.lower()
    for exposure in mdoc.exposures:
        if exposure.movie_name and exposure.movie_name.lower() == movie:
            return exposure
    if len(mdoc.exposures) == 1 and not mdoc.exposures[0].movie_name:
        return mdoc.exposures[0]
    return None
