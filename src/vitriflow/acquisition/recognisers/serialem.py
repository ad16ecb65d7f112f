"""SerialEM: frames under any name, with an mdoc each, one for all, or none; tilt series; montages."""

from vitriflow.acquisition.recognisers.base import Recogniser, Rule

_IMAGE = r"\.(?:mrcs?|tiff?|eer)$"
_ANGLE = r"[+-]?\d{1,2}\.\d+"  # an angle always has a decimal: "_12" is a number
_DATE = r"(?:[A-Z][a-z]{2}\d{1,2}_\d{1,2}\.\d{2}\.\d{2}|\d{4}-?\d{2}-?\d{2}[_-]?\d{0,6})"
_SHOT = r"(?P<shift_position>X[+-]?\d+Y[+-]?\d+(?:-\d+)?)"
_TILT = rf"(?P<tilt_series>[^/]+?)_(?P<tilt_order>\d{{2,5}})[_ ]\[?(?P<tilt_angle_deg>{_ANGLE})\]?"

SERIALEM = Recogniser(
    "serialem",
    (
        Rule(
            "gain",
            r"(?:^|/)(?:CDS)?(?:CountRef|SuperRef|CountGain|SuperGain)[^/]*\.(?:mrc|dm4|tiff?|gain)$",
            "the gain reference that SerialEM leaves beside frames",
        ),
        Rule("gain", r"(?:^|/)defects?_[^/]*\.txt$", "the camera's list of defects"),
        Rule("metadata", rf"(?:^|/){_TILT}(?:[_.-][^/]*)?\.mdoc$", "the mdoc of one tilt's frames"),
        Rule("movie", rf"(?:^|/){_TILT}(?:[_-][^/]*)?{_IMAGE}", "frames of a tilt: series, order, angle"),
        Rule("preview", rf"(?:^|/){_TILT}(?:[_-][^/]*)?\.(?:jpe?g|png)$", "a picture of a tilt"),
        Rule("montage", r"\.(?:st|map|bin\d*|preali|ali|rec)$", "a montage or a stack of IMOD's"),
        Rule(
            "montage",
            r"(?:^|[/_. -])(?:LMM|MMM|maps?|LMAP|MMAP|fullgrid|full_grid|gridmap|medmont|lowmag|medmag|polymont|"
            r"polygons?|montage|mont)(?:[_. -][^/]*|\d*)\.(?:mrc|tiff?|hdf)$",
            "a map at low or medium magnification",
        ),
        Rule(
            "preview",
            r"(?:^|/)[^/]*_tgts?_\d+(?:_[^/]*)?\.(?:mrc|tiff?)$|(?:^|/)[^/]*_(?:view|preview)\.mrc$",
            "a picture that targets were set with",
        ),
        Rule("session", r"_tgts?\.txt$", "a list of targets"),
        Rule(
            "movie",
            rf"(?:^|/)[^/]*?[_-]{_SHOT}(?:[_.-][^/]*)?{_IMAGE}",
            "frames of a multiple shot, by its place",
        ),
        Rule("metadata", rf"(?:^|/)[^/]*?[_-]{_SHOT}(?:[_.-][^/]*)?\.mdoc$", "the mdoc of a multiple shot"),
        Rule(
            "movie",
            rf"(?:^|/)[^/]*_{_DATE}(?:_[^/]*)?{_IMAGE}",
            "frames with SerialEM's date",
            None,
            "serialem",
        ),
        Rule("metadata", r"\.(?:mdoc|idoc)$", "an mdoc"),
        Rule(
            "session",
            r"\.(?:nav|adoc|anchor|rawtlt|tlt)$|(?:^|/)[^/]*\.nav~$|"
            r"(?:^|/)SerialEM[^/]*\.(?:txt|log)$",
            "the navigator, settings, logs and lists of tilts",
        ),
    ),
)
