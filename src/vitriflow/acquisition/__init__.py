"""Finds finished exposures and registers them."""

from vitriflow.acquisition.drives import local_path
from vitriflow.acquisition.intake import Intake, LookReport
from vitriflow.acquisition.optics import Evidence, Group, OpticsGroups, evidence_of
from vitriflow.acquisition.places import SessionBook, place_of
from vitriflow.acquisition.recognise import FileKind, Recognised, item_of, recognise
from vitriflow.acquisition.recognisers import Recogniser, Rule, recognisers
from vitriflow.acquisition.scan import FileSeen, Scanner, SourceLostError, look
from vitriflow.acquisition.watch import Judge, Verdict, Watched

__all__ = [
    "Evidence",
    "FileKind",
    "FileSeen",
    "Group",
    "Intake",
    "Judge",
    "LookReport",
    "OpticsGroups",
    "Recognised",
    "Recogniser",
    "Rule",
    "Scanner",
    "SessionBook",
    "SourceLostError",
    "Verdict",
    "Watched",
    "evidence_of",
    "item_of",
    "local_path",
    "look",
    "place_of",
    "recognise",
    "recognisers",
]
