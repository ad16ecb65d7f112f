"""What every layout decides: where a movie goes and what is written beside it."""

from abc import ABC, abstractmethod
from pathlib import Path

from vitriflow.simulate.plan import Exposure, FileFormat, SessionSpec


class Layout(ABC):
    """Folders and metadata of one acquisition program.

    Parameters
    ----------
    session
        What was asked for.
    root
        The folder that the microscope writes to.
    """

    def __init__(self, session: SessionSpec, root: Path) -> None:
        self.session = session
        self.root = root / session.name

    @property
    @abstractmethod
    def gain_path(self) -> Path:
        """Where the gain reference goes."""

    @abstractmethod
    def movie_path(self, exposure: Exposure) -> Path:
        """Where the movie goes."""

    def duplicate_path(self, exposure: Exposure) -> Path:
        """A second place for a movie of the same name."""
        path = self.movie_path(exposure)
        return path.parent / "again" / path.name

    @abstractmethod
    def skeleton(self) -> dict[Path, bytes]:
        """Files that are there before the first movie."""

    @abstractmethod
    def beside(self, exposure: Exposure, jpeg: bytes) -> dict[Path, bytes]:
        """Files that follow the movie, in the order in which they appear; the first is its metadata."""

    def ending(self, tail: str) -> str:
        """Suffix of a movie: ``_Fractions.tiff`` for the tail ``_Fractions``, and EER's own."""
        if self.session.format is FileFormat.EER:
            return "_EER.eer"
        return f"{tail}.mrc" if self.session.format is FileFormat.MRC else f"{tail}.tiff"

    @property
    def gain_suffix(self) -> str:
        """``.gain`` for EER, which multiplies there; ``.mrc`` else."""
        return ".gain" if self.session.format is FileFormat.EER else ".mrc"
