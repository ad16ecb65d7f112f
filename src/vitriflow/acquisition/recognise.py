"""What a file in a microscope's folder is, by its name, and which files belong together.

Names say what a file claims to be; whether a movie is whole, and whether it's a movie at all, its
structure decides later (``vitriflow.formats``). The rules stand in ``acquisition/recognisers/``.
"""

import re
from pathlib import PurePosixPath

from vitriflow.acquisition.recognisers import FileKind, Recognised, recognise

__all__ = [
    "FileKind",
    "Recognised",
    "item_of",
    "metadata_keys",
    "plain_stem",
    "program_of",
    "recognise",
    "series_of",
    "sum_of_movie",
]

_SUFFIX_OF_FRACTIONS = re.compile(r"_(Fractions|EER|Frames|movie)$", re.IGNORECASE)
_MDOC_OF_IMAGE = re.compile(r"\.(mrcs?|st|tiff?|eer)$", re.IGNORECASE)
_OVERRIDE = re.compile(r"_override$", re.IGNORECASE)
# Folders that only hold what belongs to the folder above them.
_INNER = re.compile(r"(frames?|raw|movies?|fractions|data|mdocs?)", re.IGNORECASE)
# Folders whose names tell apart series that would else be called the same.
_GRID = re.compile(r"(sample|grid|slot|lamella)[ _-]?[^/]*", re.IGNORECASE)
_SQUARE = re.compile(r"GridSquare_\d+", re.IGNORECASE)

_PROGRAMS = {"serialem": "serialem", "tomo 5": "tomo5", "epu": "epu", "tomography": "tomo5"}


def program_of(by_name: str | None, said: object) -> str | None:
    """The acquisition program: what the metadata say, where we know it; else what the name says."""
    return _PROGRAMS.get(str(said or "").lower(), by_name)


def item_of(key: str) -> str:
    """Name of an exposure: its path below the source without suffix."""
    return str(PurePosixPath(key).with_suffix(""))


def plain_stem(key: str) -> str:
    """Path without suffix, and without ``_Fractions`` or ``_EER``: what a movie's other files are named by."""
    path = PurePosixPath(key)
    if path.suffix.lower() == ".mdoc" and _MDOC_OF_IMAGE.search(path.stem):
        path = path.with_suffix("")
    return str(path.with_name(_SUFFIX_OF_FRACTIONS.sub("", path.stem) or path.stem))


def sum_of_movie(key: str) -> str | None:
    """For a movie that EPU writes, the stem under which it also leaves the sum of its frames."""
    path = PurePosixPath(key)
    stem, count = _SUFFIX_OF_FRACTIONS.subn("", path.stem)
    return str(path.with_name(stem)) if count and stem else None


def series_of(key: str) -> str | None:
    """Name of the tilt series that a movie or an mdoc belongs to, as far as the path says.

    A folder such as ``Sample3`` goes before, since each sample of Tomo 5 counts its positions from 1.
    """
    name = recognise(key).fields.get("tilt_series")
    if name is None:
        return None
    grids = [part for part in PurePosixPath(key).parts[:-1] if _GRID.fullmatch(part)]
    grids = [part for part in grids if not _SQUARE.fullmatch(part)]
    return "/".join([*grids, str(name)])


def metadata_keys(key: str) -> list[str]:
    """Paths at which the metadata of a movie may stand, most telling first."""
    path = PurePosixPath(key)
    plain = _SUFFIX_OF_FRACTIONS.sub("", path.stem)
    names = [f"{path.stem}.xml", f"{plain}.xml", f"{path.name}.mdoc", f"{path.stem}.mdoc", f"{plain}.mdoc"]
    keys = [str(path.with_name(name)) for name in names if name != ".xml"]
    series = recognise(key).fields.get("tilt_series")
    if series is not None:
        endings = (".mdoc", ".mrc.mdoc", ".st.mdoc", ".tif.mdoc", ".tiff.mdoc", ".eer.mdoc", "_override.mdoc")
        keys += [str(folder / f"{series}{ending}") for folder in _nearby(path) for ending in endings]
    return list(dict.fromkeys(keys))


def _nearby(path: PurePosixPath) -> list[PurePosixPath]:
    """Folders in which the mdoc of a series may stand: the movie's own, that above, and beside it."""
    folder = path.parent
    if folder == folder.parent:
        return [folder, folder / "mdocs", folder / "mdoc"]
    above = folder.parent
    return [folder, above, above / "mdocs", above / "mdoc"]
