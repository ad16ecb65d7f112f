"""What an archive tier is, and how it's found: by its kind, through the entry points ``vitriflow.tiers``."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, ValidationError

from vitriflow.config import TierSection
from vitriflow.errors import BadConfig, VitriflowError

ENTRY_POINTS = "vitriflow.tiers"
Progress = Callable[[str, int], None]  # what is being done, and bytes more that it's done for


class ArchiveError(VitriflowError):
    """A copy in an archive can't be made, isn't whole, or differs from what was proved."""


@dataclass(frozen=True)
class ArchiveFile:
    """One file to be kept: its path below the session's folder, size (bytes) and BLAKE3."""

    path: str
    size: int
    blake3: str


@dataclass(frozen=True)
class ArchiveJob:
    """What goes into one copy.

    Attributes
    ----------
    root
        The session's folder.
    place
        Where the session stands below the storage root; an archive is laid out in the same way.
    name
        Name of this copy inside it.
    files
        What to keep.
    records
        Small files to lay beside it: name -> bytes (session.json, manifest.jsonl).
    """

    root: Path
    place: str
    name: str
    files: Sequence[ArchiveFile]
    records: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class Archived:
    """A copy that was written and proved. ``files`` are those that it holds."""

    location: str
    files: Sequence[ArchiveFile]
    details: Mapping[str, Any] = field(default_factory=dict)


class TierOptions(BaseModel):
    """Parent of a tier's own settings in facility.toml: unknown names are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Tier(ABC):
    """One archive. A plug-in makes a subclass and names it under ``vitriflow.tiers``.

    Parameters
    ----------
    name
        Its name in facility.toml.
    options
        Its settings there, of the type ``Options``.
    """

    kind: ClassVar[str]
    Options: ClassVar[type[TierOptions]]

    def __init__(self, name: str, options: Any) -> None:
        self.name = name
        self.options = options

    @property
    def stays_visible(self) -> bool:
        """Whether a file that leaves the disk keeps its name, as a stub."""
        return False

    @abstractmethod
    def write(self, job: ArchiveJob, progress: Progress) -> Archived:
        """Make a copy and prove it. Called again after an interruption, it goes on.

        Raises
        ------
        ArchiveError
            When a file isn't what the job says, or the copy can't be proved. No half copy stands
            under a final name.
        """

    @abstractmethod
    def verify(self, location: str, root: Path, files: Sequence[ArchiveFile], progress: Progress) -> None:
        """Prove a copy again. Raises ArchiveError naming what is missing or differs."""

    @abstractmethod
    def check_present(self, location: str, root: Path, files: Sequence[ArchiveFile]) -> None:
        """Make sure, without reading it, that a copy is there. Raises ArchiveError."""

    @abstractmethod
    def vacate(self, root: Path, files: Sequence[ArchiveFile], progress: Progress) -> None:
        """Take files off the disk. The caller has made sure that they may go. Can be called again."""

    @abstractmethod
    def recall(self, location: str, root: Path, files: Sequence[ArchiveFile], progress: Progress) -> None:
        """Bring files back, each proved before it gets its name. Called again, it goes on.

        Raises
        ------
        ArchiveError
            When the archive's copy isn't what was proved, or other bytes stand under a file's name.
        """

    def residence(self, root: Path, files: Sequence[ArchiveFile]) -> Counter[str]:
        """How many files are resident, migrated, premigrated (both) or missing on the disk."""
        found: Counter[str] = Counter()
        for file in files:
            path = root / file.path
            found["resident" if path.is_file() and path.stat().st_size == file.size else "missing"] += 1
        return found

    def policy(self, root: Path, hot: Mapping[str, str]) -> str:
        """Rules for the administrators of the storage: what may leave the disk.

        Parameters
        ----------
        root
            The storage root.
        hot
            Folders of sessions that must stay, each with the reason.
        """
        raise ArchiveError(
            f"tier '{self.name}'",
            "a tier whose storage moves files by rules of its own (kind = hsm)",
            f"kind = {self.kind}",
            "Its copies are made by 'vitriflow archive'; there are no rules to print.",
        )


def open_tier(name: str, section: TierSection) -> Tier:
    """Make the tier that a section of facility.toml describes.

    Raises
    ------
    BadConfig
        When there's no such kind, or a setting is wrong.
    """
    known = tier_kinds()
    where = f"[storage.tiers.{name}]"
    if section.kind not in known:
        raise BadConfig(
            f"{where} kind",
            f"one of {', '.join(sorted(known))}",
            repr(section.kind),
            "Correct it, or install the package that brings this kind.",
        )
    kind = known[section.kind]
    try:
        options = kind.Options.model_validate(section.model_extra or {})
    except ValidationError as error:
        first = error.errors()[0]
        field_name = ".".join(str(part) for part in first["loc"]) or "settings"
        names = ", ".join(kind.Options.model_fields)
        expected = first["msg"].removeprefix("Value error, ")
        raise BadConfig(
            f"{where} {field_name}", expected, repr(first.get("input")), f"Known here: {names}."
        ) from error
    return kind(name, options)


def tier_kinds() -> dict[str, type[Tier]]:
    """Kinds of tiers that are installed: ours, and those of plug-ins."""
    from vitriflow.storage.tiers_directory import DirectoryTier
    from vitriflow.storage.tiers_hsm import HsmTier

    ours: dict[str, type[Tier]] = {kind.kind: kind for kind in (DirectoryTier, HsmTier)}
    others = {point.name: point.load() for point in entry_points(group=ENTRY_POINTS)}
    return others | ours
