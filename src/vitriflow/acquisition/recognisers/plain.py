"""What holds whoever wrote the file: temporary names first of all, and plain formats last."""

from vitriflow.acquisition.recognisers.base import Recogniser, Rule

_GAIN = r"(?:(?:count|super)?gain|gain[_-]?ref(?:erence)?\w*|(?:CDS)?(?:count|super)refs?)"

TEMPORARY = Recogniser(
    "",
    (
        Rule(
            "temporary",
            r"(?:^|/)(?:\.|~)|\.(?:tmp|temp|part|partial|crdownload|lock|swp|bak)$|"
            r"(?:^|/)(?:Thumbs\.db|desktop\.ini)$",
            "a file on its way, or the operating system's own",
        ),
    ),
)

PLAIN = Recogniser(
    "",
    (
        Rule(
            "gain",
            rf"(?:^|[/_. -]){_GAIN}(?:[_. -][^/]*)?\.(?:mrc|tiff?|dm4|gain)$|"
            r"GainRef(?:erence)?[^/]*\.(?:mrc|tiff?|dm4|gain)$|\.(?:gain|dm3|dm4)$",
            "a gain reference",
        ),
        Rule(
            "gain", r"(?:^|[/_. -])defects?(?:pixels?|map)?[^/]*\.(?:txt|xml|tiff?|mrc)$", "a list of defects"
        ),
        Rule("session", r"\.log$", "a log"),
        Rule("metadata", r"\.xml$", "XML of any kind"),
        Rule("preview", r"\.(?:jpe?g|png|gif)$", "a picture"),
        Rule("movie", r"\.(?:mrcs?|tiff?|eer)$", "a movie or an image"),
    ),
)
