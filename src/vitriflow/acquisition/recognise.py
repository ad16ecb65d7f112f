"""What a file in a microscope's folder is, by its name: rules as data.

The first rule that matches wins. Names say what a file claims to be; whether a movie is whole,
and whether it's a movie at all, its structure decides later (``vitriflow.formats``).
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import PurePosixPath


class FileKind(StrEnum):
    """What a file is for."""

    MOVIE = "movie"
    GAIN = "gain"
    METADATA = "metadata"
    ATLAS = "atlas"
    GRID_SQUARE_IMAGE = "grid_square_image"
    FOIL_HOLE_IMAGE = "foil_hole_image"
    PREVIEW = "preview"
    SESSION = "session"
    MONTAGE = "montage"
    TEMPORARY = "temporary"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Rule:
    """Names that match ``pattern`` (searched in the path below the source folder) are ``kind``."""

    software: str
    kind: FileKind
    pattern: re.Pattern[str]


def _rule(software: str, kind: FileKind, pattern: str) -> Rule:
    return Rule(software, kind, re.compile(pattern, re.IGNORECASE))


_IMAGE = r"\.(mrc|mrcs|tif|tiff|eer)$"
RULES: tuple[Rule, ...] = (
    _rule("", FileKind.TEMPORARY, r"(^|/)(\.|~)|\.(tmp|part|partial|crdownload|lock)$"),
    _rule("epu", FileKind.ATLAS, r"(^|/)Atlas(_\d+)?[/.]|(^|/)(Atlas|Tile)_[^/]*\.(mrc|jpg|xml|dm)$"),
    _rule("epu", FileKind.GRID_SQUARE_IMAGE, r"(^|/)GridSquare_\d{8}_\d{6}\.(mrc|jpg|tiff?|xml)$"),
    _rule("epu", FileKind.FOIL_HOLE_IMAGE, r"(^|/)FoilHoles/FoilHole_[^/]*\.(mrc|jpg|tiff?|xml)$"),
    _rule("epu", FileKind.GAIN, r"(^|/)FoilHole_[^/]*_gain\.(tiff?|mrc)$"),
    _rule("epu", FileKind.MOVIE, r"(^|/)FoilHole_\d+_Data_[^/]*" + _IMAGE),
    _rule("epu", FileKind.METADATA, r"(^|/)FoilHole_\d+_Data_[^/]*\.xml$"),
    _rule("epu", FileKind.PREVIEW, r"(^|/)FoilHole_\d+_Data_[^/]*\.(jpg|png)$"),
    _rule("epu", FileKind.SESSION, r"\.dm$"),
    _rule("tomo5", FileKind.GAIN, r"(^|/)[^/]*gain[^/]*\.(gain|mrc|tiff?|dm4)$"),
    _rule("tomo5", FileKind.MONTAGE, r"(^|/)(SearchMap|Search_map|Overview)[^/]*\.(mrc|jpg|xml|mdoc)$"),
    _rule("tomo5", FileKind.MOVIE, r"(^|/)Position_\d+(_\d+)*_-?\d+(\.\d+)?_[^/]*" + _IMAGE),
    _rule("tomo5", FileKind.METADATA, r"(^|/)Position_\d+(_\d+)?(_override)?\.mdoc$"),
    _rule("tomo5", FileKind.SESSION, r"(^|/)(BatchPositionsList|Session)\.(xml|dm)$"),
    _rule(
        "",
        FileKind.GAIN,
        r"(^|/)[^/]*(gain|SuperRef|CountRef|_ref)[^/]*\.(mrc|tiff?|dm4|gain)$|\.(gain|dm4)$",
    ),
    _rule("", FileKind.GAIN, r"(^|/)defects[^/]*\.txt$"),
    _rule("serialem", FileKind.METADATA, r"\.mdoc$"),
    _rule("serialem", FileKind.SESSION, r"\.(nav|adoc|log)$"),
    _rule("serialem", FileKind.MONTAGE, r"\.(st|map|ali|bin\d*)$"),
    _rule("", FileKind.METADATA, r"\.xml$"),
    _rule("", FileKind.PREVIEW, r"\.(jpe?g|png|gif)$"),
    _rule("", FileKind.MOVIE, _IMAGE),
)

_SUFFIX_OF_FRACTIONS = re.compile(r"_(Fractions|EER)$", re.IGNORECASE)
_TOMO_POSITION = re.compile(r"^(Position_\d+(?:_\d+)?)_\d{3}_-?\d+(?:\.\d+)?_", re.IGNORECASE)


@dataclass(frozen=True)
class Recognised:
    """What a file is, and who wrote it as far as its name tells."""

    kind: FileKind
    software: str


def recognise(key: str) -> Recognised:
    """Say what a file is from its path below the source folder (with forward slashes)."""
    for rule in RULES:
        if rule.pattern.search(key):
            return Recognised(rule.kind, rule.software)
    return Recognised(FileKind.UNKNOWN, "")


def item_of(key: str) -> str:
    """Name of an exposure: its path below the source without suffix."""
    return str(PurePosixPath(key).with_suffix(""))


def sum_of_movie(key: str) -> str | None:
    """For a movie that EPU writes, the stem under which it also leaves the sum of its frames."""
    path = PurePosixPath(key)
    stem, count = _SUFFIX_OF_FRACTIONS.subn("", path.stem)
    return str(path.with_name(stem)) if count else None


def metadata_keys(key: str) -> list[str]:
    """Paths at which the metadata of a movie may stand, most telling first."""
    path = PurePosixPath(key)
    plain = _SUFFIX_OF_FRACTIONS.sub("", path.stem)
    names = [f"{path.stem}.xml", f"{plain}.xml", f"{path.name}.mdoc", f"{path.stem}.mdoc"]
    position = _TOMO_POSITION.match(path.name)
    if position:
        names.append(f"{position.group(1)}.mdoc")
    unique = list(dict.fromkeys(names))
    return [str(path.with_name(name)) for name in unique]
