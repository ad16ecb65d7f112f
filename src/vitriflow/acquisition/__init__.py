"""Finds finished exposures and registers them."""

from vitriflow.acquisition.custody import ProvedFile, destination_of, file_counts
from vitriflow.acquisition.drives import local_path
from vitriflow.acquisition.intake import Intake
from vitriflow.acquisition.intake_state import LookReport
from vitriflow.acquisition.optics import Evidence, Group, OpticsGroups, evidence_of
from vitriflow.acquisition.places import SessionBook, place_of
from vitriflow.acquisition.recognise import FileKind, Recognised, item_of, program_of, recognise
from vitriflow.acquisition.recognisers import Recogniser, Rule, recognisers
from vitriflow.acquisition.scan import FileSeen, Scanner, SourceLostError, look
from vitriflow.acquisition.transfer import Transfer
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
    "ProvedFile",
    "Recognised",
    "Recogniser",
    "Rule",
    "Scanner",
    "SessionBook",
    "SourceLostError",
    "Transfer",
    "Verdict",
    "Watched",
    "destination_of",
    "evidence_of",
    "file_counts",
    "item_of",
    "local_path",
    "look",
    "place_of",
    "program_of",
    "recognise",
    "recognisers",
]
