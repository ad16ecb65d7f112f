"""Tomo 5 (Thermo Fisher Tomography): movies named by position, order and angle, one mdoc a position."""

from vitriflow.acquisition.recognisers.base import Recogniser, Rule

_IMAGE = r"\.(?:mrcs?|tiff?|eer)$"
_POSITION = r"[^/]*?Position[ _-]?\d+(?:_\d+)*?"
_STAMP = r"\d{8}[_-]\d{4,6}"
_ANGLE = r"[+-]?\d{1,2}(?:[.,]\d+)?"

TOMO5 = Recogniser(
    "tomo5",
    (
        Rule("montage", r"(?:^|/)Search[_ -]?Maps?/", "everything in the folder of search maps"),
        Rule(
            "montage",
            r"(?:^|/)(?:Search[_ -]?Map|Overview)[^/]*\.(?:mrc|jpe?g|png|tiff?|xml|mdoc|dm)$",
            "a search map or overview",
        ),
        Rule(
            "session",
            r"(?:^|/)(?:BatchPositionsList[^/]*\.xml|Batch/[^/]*\.(?:xml|dm)|Session\.dm(?:\.xml)?)$",
            "the batch list or the session's record",
        ),
        Rule(
            "preview",
            r"(?:^|/)[^/]*_(?:Search|Tracking|Exposure|Focus|Overview|Thumbnail|Drift\w*|Eucentric\w*)(?:_\d+)?"
            r"\.(?:mrc|jpe?g|png|tiff?|xml)$",
            "a picture that a position was set up with",
        ),
        Rule("preview", r"(?:^|/)(?:Thumbnails|Batch)/[^/]*\.(?:mrc|jpe?g|png|tiff?)$", "a small picture"),
        Rule(
            "movie",
            rf"(?:^|/)(?P<tilt_series>{_POSITION})_(?P<tilt_order>\d{{3,4}})_(?P<tilt_angle_deg>{_ANGLE})"
            rf"(?:_[^/]*)?{_IMAGE}",
            "a movie of a tilt: position, order, angle, date",
        ),
        Rule(
            "movie",
            rf"(?:^|/)(?!FoilHole_)(?P<tilt_series>[^/]+?)_(?P<tilt_order>\d{{3,4}})_(?P<tilt_angle_deg>{_ANGLE})_{_STAMP}"
            rf"(?:_[^/]*)?{_IMAGE}",
            "a movie of a tilt in a series with a name of its own",
        ),
        Rule(
            "movie",
            rf"(?:^|/)(?P<tilt_series>{_POSITION})_?(?P<tilt_order>\d{{3}})?_?\[(?P<tilt_angle_deg>{_ANGLE})\]"
            rf"[^/]*{_IMAGE}",
            "a movie of a tilt, its angle in brackets",
        ),
        Rule(
            "preview",
            rf"(?:^|/)(?P<tilt_series>{_POSITION})_\d{{3,4}}_{_ANGLE}(?:_[^/]*)?\.(?:jpe?g|png)$",
            "a picture of a tilt",
        ),
        Rule(
            "metadata",
            rf"(?:^|/)(?P<tilt_series>{_POSITION})_\d{{3,4}}_{_ANGLE}(?:_[^/]*)?\.xml$",
            "the XML of a tilt",
        ),
        Rule(
            "metadata",
            rf"(?:^|/)(?P<tilt_series>{_POSITION})(?:_override)?(?:\.mrc)?\.mdoc$",
            "the mdoc of a position (its _override says the same again)",
        ),
        Rule(
            "metadata", r"(?:^|/)(?P<tilt_series>[^/]+?)_override\.mdoc$", "an mdoc that says the same again"
        ),
        Rule(
            "preview",
            rf"(?:^|/)(?P<tilt_series>{_POSITION})(?:_override)?\.(?:mrcs?|st|jpe?g|png)$",
            "the stack of a position's sums",
        ),
    ),
)
