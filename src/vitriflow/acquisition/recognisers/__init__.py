"""What each file in a microscope's folder is, by its name: rules as data, open to a facility's own."""

from vitriflow.acquisition.recognisers.base import FIELDS, FileKind, Recognised, Recogniser, Rule
from vitriflow.acquisition.recognisers.epu import EPU
from vitriflow.acquisition.recognisers.plain import PLAIN, TEMPORARY
from vitriflow.acquisition.recognisers.registry import GROUP, recognise, recognisers
from vitriflow.acquisition.recognisers.serialem import SERIALEM
from vitriflow.acquisition.recognisers.tomo5 import TOMO5

__all__ = [
    "EPU",
    "FIELDS",
    "GROUP",
    "PLAIN",
    "SERIALEM",
    "TEMPORARY",
    "TOMO5",
    "FileKind",
    "Recognised",
    "Recogniser",
    "Rule",
    "recognise",
    "recognisers",
]
