"""What the watcher of a session remembers between looks, and what one look found."""

from collections.abc import Callable
from dataclasses import dataclass, field

from vitriflow.acquisition.custody import MOVED, FileChange, rows_of
from vitriflow.acquisition.intake_write import ExposureChange
from vitriflow.acquisition.late import LateMetadata
from vitriflow.acquisition.recognise import FileKind
from vitriflow.acquisition.scan import FileSeen
from vitriflow.catalog import Catalog, FileState, SourceFile


@dataclass
class LookReport:
    """What one look at the source found. Movies are counted, but for ``files``, ``settling`` and ``queued``."""

    found: int = 0
    new: int = 0
    completed: int = 0
    problems: int = 0
    waiting: int = 0
    settling: int = 0  # other files that may still be growing
    queued: int = 0  # files of any kind that became whole in this look
    lost: str | None = None


@dataclass
class Changes:
    """What one look wants to write."""

    exposures: list[ExposureChange] = field(default_factory=list)
    files: list[FileChange] = field(default_factory=list)
    late: dict[str, list[LateMetadata]] = field(default_factory=dict)  # by the file that says it


@dataclass(frozen=True, slots=True)
class Done:
    """A file that was dealt with, as it was then."""

    size: int
    stamp: int | None
    at: float = float("-inf")  # our clock, when it was settled by this process


class FileRows:
    """Knows the newest generation of each file that has a row in the catalog.

    Parameters
    ----------
    catalog, session_id
        Whose files.
    change
        Makes a change of a file's row: :meth:`IntakeWriter.file`.

    Attributes
    ----------
    newest
        Number of the newest generation, by key.
    """

    def __init__(self, catalog: Catalog, session_id: int, change: Callable[..., FileChange]) -> None:
        self.newest: dict[str, int] = {}
        self._catalog = catalog
        self._session_id = session_id
        self._change = change

    def following(self, file: FileSeen, kind: FileKind) -> FileChange:
        """The row of a file that isn't as it was: a new one when the old one's bytes were copied already."""
        fresh = file.key not in self.newest
        replaces = not fresh and self.moved(file.key) is not None
        generation = self.newest.get(file.key, 1) + replaces
        self.newest[file.key] = generation
        return self._change(
            file, kind, FileState.SEEN, generation=generation, fresh=fresh or replaces, replaces=replaces
        )

    def moved(self, key: str) -> SourceFile | None:
        """The file's newest row, when its bytes were copied or proved."""
        wanted = [(key, self.newest.get(key, 1))]
        rows = self._catalog.read(lambda orm: rows_of(orm, self._session_id, wanted))
        return next((row for row in rows if row.state in MOVED or row.copied_at is not None), None)

    def adopted(self, file: FileSeen, kind: FileKind, digest: str) -> FileChange:
        """A row for an exposure from before files had rows; what was hashed then is its hash."""
        state = FileState.PROVED if digest else FileState.PROBLEM
        self.newest[file.key] = 1
        change = self._change(file, kind, state, fresh=True)
        change.values["blake3"] = digest or None
        return change
