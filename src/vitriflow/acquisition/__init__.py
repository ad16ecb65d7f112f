"""Finds finished exposures and registers them."""

from vitriflow.acquisition.drives import local_path
from vitriflow.acquisition.intake import Intake, LookReport
from vitriflow.acquisition.recognise import FileKind, Recognised, item_of, recognise
from vitriflow.acquisition.scan import FileSeen, Scanner, SourceLostError, look
from vitriflow.acquisition.watch import Judge, Verdict, Watched

__all__ = [
    "FileKind",
    "FileSeen",
    "Intake",
    "Judge",
    "LookReport",
    "Recognised",
    "Scanner",
    "SourceLostError",
    "Verdict",
    "Watched",
    "item_of",
    "local_path",
    "look",
    "recognise",
]
