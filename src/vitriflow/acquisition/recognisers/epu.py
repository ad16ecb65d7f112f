"""EPU 2 and 3: grid squares, foil holes, and movies with an XML beside each."""

import re
from collections.abc import Mapping

from vitriflow.acquisition.recognisers.base import Recogniser, Rule

_SQUARE = r"(?:^|/)(?:GridSquare_(?P<grid_square>\d+)/(?:[^/]+/)*)?"
_DATA = (
    rf"{_SQUARE}FoilHole_(?P<foil_hole>\d+)_Data_"
    r"(?:(?P<_area>\d+)(?:_(?P<_shot>(?!\d{8}_\d{4,6}(?!\d))\d+))?(?=[_.-]))?[^/]*"
)
_PICTURE = r"\.(?:mrc|jpe?g|png|tiff?|xml|eer|dm)$"


def _shot(match: re.Match[str]) -> Mapping[str, str]:
    """Which shot of the hole, and which beam position where the name says that (EPU 2.9 and later)."""
    area, shot = match.group("_area"), match.group("_shot")
    if area is None:
        return {}
    position = area if shot is None else f"{area}_{shot}"
    return {"position": position, "shift_position": position}


EPU = Recogniser(
    "epu",
    (
        Rule("atlas", r"(?:^|/)Atlas(?:_\d+)?/[^/]+$", "everything in an atlas's folder"),
        Rule(
            "atlas",
            r"(?:^|/)(?:Atlas|Tile)(?:_[-+\d]+)*\.(?:mrc|jpe?g|png|tiff?|xml|dm)$",
            "an atlas or a tile of it",
        ),
        Rule(
            "grid_square_image",
            rf"(?:^|/)(?:GridSquare_(?P<grid_square>\d+)/)?GridSquare_\d{{8}}_\d{{4,6}}[^/]*{_PICTURE}",
            "a picture of a grid square, or its XML",
        ),
        Rule(
            "session",
            r"(?:^|/)GridSquare_(?P<grid_square>\d+)\.dm(?:\.xml)?$",
            "what is planned for a grid square",
        ),
        Rule(
            "grid_square_image",
            rf"(?:^|/)GridSquare_(?P<grid_square>\d+){_PICTURE}",
            "a picture of a grid square, or its XML",
        ),
        Rule("gain", r"(?:^|/)FoilHole_[^/]*_gain\.(?:tiff?|mrc)$", "the gain reference of a movie"),
        Rule(
            "movie", rf"{_DATA}\.(?:mrcs?|tiff?|eer)$", "a movie of a foil hole, or the sum beside it", _shot
        ),
        Rule("metadata", rf"{_DATA}\.(?:xml|mdoc)$", "the XML of a movie", _shot),
        Rule("preview", rf"{_DATA}\.(?:jpe?g|png|gif|dm5?)$", "a picture of an exposure", _shot),
        Rule(
            "movie",
            rf"{_SQUARE}FoilHole_(?P<foil_hole>\d+)_(?:[^/]*_)?(?:Fractions|EER|Frames)\.(?:mrcs?|tiff?|eer)$",
            "a movie with a shortened name",
        ),
        Rule(
            "foil_hole_image",
            rf"{_SQUARE}FoilHole_(?P<foil_hole>\d+)(?:_\d{{8}}_\d{{4,6}}|_(?!Data_)[^/]*)?{_PICTURE}",
            "a picture of a foil hole, or its XML",
        ),
        Rule(
            "session",
            r"(?:^|/)(?:Epu|Screening)?Session[^/]*\.(?:dm|xml)$|(?:^|/)Sample[^/]*\.(?:dm|xml)$|\.dm(?:\.xml)?$",
            "EPU's own record",
        ),
        Rule("metadata", r"(?:^|/)Metadata/[^/]*\.xml$", "XML of EPU's own records"),
    ),
)
