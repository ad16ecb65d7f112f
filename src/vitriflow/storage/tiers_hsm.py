"""An archive that an external hierarchical storage manager keeps: a parallel file system with a tape library."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from vitriflow.storage.archive_files import hash_past_cache
from vitriflow.storage.hsm_commands import MIGRATED, RESIDENT, HsmCommands, HsmOptions
from vitriflow.storage.hsm_policy import ilm_rules
from vitriflow.storage.tiers import (
    Archived,
    ArchiveError,
    ArchiveFile,
    ArchiveJob,
    Progress,
    Tier,
    TierOptions,
)
from vitriflow.storage.tiers_directory import DirectoryOptions, DirectoryTier


class HsmTier(Tier):
    """Files are moved to tape and back by the manager's own commands.

    Without ``path`` the sessions' own files are moved, where they are, and stubs stay under their names. With
    ``path`` a copy is written there, as a directory tier does, and that is moved.
    """

    kind = "hsm"
    Options: ClassVar[type[TierOptions]] = HsmOptions
    options: HsmOptions

    def __init__(self, name: str, options: HsmOptions) -> None:
        super().__init__(name, options)
        self._commands = HsmCommands(name, options)
        self._store: DirectoryTier | None = None
        if options.path is not None:
            plain = DirectoryOptions(
                path=options.path, format=options.format, volume_bytes=options.volume_bytes
            )
            self._store = DirectoryTier(name, plain)

    @property
    def stays_visible(self) -> bool:
        """Stubs stay, when the sessions' own files are moved."""
        return self._store is None

    def write(self, job: ArchiveJob, progress: Progress) -> Archived:
        """Copy to tape, and prove it as the settings say."""
        if self._store is not None:
            written = self._store.write(job, progress)
            paths = _volumes(Path(written.location))
            self._to_tape(paths)
            if self.options.prove == "read_back":
                self._back(paths)
                self._store.verify(written.location, job.root, written.files, progress)
            return Archived(
                written.location, written.files, {**written.details, "proved_by": self.options.prove}
            )
        for file in job.files:
            _same_size(job.root, file)
        paths = _paths(job.root, job.files)
        states = self._commands.states(paths)
        self._to_tape([path for path in paths if states[path] == RESIDENT])
        if self.options.prove == "read_back":
            self._back(paths)
            self._compare(job.root, job.files, progress)
        else:
            for file in job.files:
                progress("written", file.size)
        return Archived(str(job.root), list(job.files), {"proved_by": self.options.prove})

    def verify(self, location: str, root: Path, files: Sequence[ArchiveFile], progress: Progress) -> None:
        """Bring everything to the disk from tape, and read it."""
        if self._store is not None:
            self._back(_volumes(Path(location)))
            self._store.verify(location, root, files, progress)
            return
        self._back(_paths(root, files))
        self._compare(root, files, progress)

    def check_present(self, location: str, root: Path, files: Sequence[ArchiveFile]) -> None:
        """Ask the manager where the files are."""
        paths = _paths(root, files)
        if self._store is not None:
            self._store.check_present(location, root, files)
            paths = _volumes(Path(location))
        self._all_on_tape(paths)

    def vacate(self, root: Path, files: Sequence[ArchiveFile], progress: Progress) -> None:
        """Leave stubs only, or remove the files where the copy is elsewhere."""
        if self._store is not None:
            self._store.vacate(root, files, progress)
            return
        paths = _paths(root, files)
        states = self._commands.states(paths)
        self._commands.migrate([path for path in paths if states[path] != MIGRATED])
        after = self._commands.states(paths)
        left = [path for path in paths if after[path] != MIGRATED]
        if left:
            raise self._unexpected(left[0], MIGRATED, after[left[0]], len(left))
        for file in files:
            progress("moved to tape", file.size)

    def recall(self, location: str, root: Path, files: Sequence[ArchiveFile], progress: Progress) -> None:
        """Bring files back, and prove each."""
        if self._store is not None:
            self._back(_volumes(Path(location)))
            self._store.recall(location, root, files, progress)
            return
        for start in range(0, len(files), self.options.batch):
            part = files[start : start + self.options.batch]
            self._back(_paths(root, part))
            self._compare(root, part, progress)

    def residence(self, root: Path, files: Sequence[ArchiveFile]) -> Counter[str]:
        """Where files are, by the manager's word."""
        if self._store is not None:
            return super().residence(root, files)
        return Counter(self._commands.states(_paths(root, files)).values())

    def policy(self, root: Path, hot: Mapping[str, str]) -> str:
        """GPFS rules: raw files of sessions that aren't hot may leave the disk."""
        return ilm_rules(self.name, self.options, root, hot)

    def _to_tape(self, paths: Sequence[Path]) -> None:
        move = self._commands.migrate if self.options.prove == "read_back" else self._commands.premigrate
        move(paths)
        self._all_on_tape(paths)

    def _all_on_tape(self, paths: Sequence[Path]) -> None:
        states = self._commands.states(paths)
        left = [path for path in paths if states[path] == RESIDENT]
        if left:
            raise self._unexpected(left[0], "a copy on tape", RESIDENT, len(left))

    def _back(self, paths: Sequence[Path]) -> None:
        states = self._commands.states(paths)
        self._commands.recall([path for path in paths if states[path] == MIGRATED])
        after = self._commands.states(paths)
        left = [path for path in paths if after[path] == MIGRATED]
        if left:
            raise self._unexpected(left[0], "on the disk after its recall", MIGRATED, len(left))

    def _compare(self, root: Path, files: Sequence[ArchiveFile], progress: Progress) -> None:
        for file in files:
            _same_size(root, file)
            found = hash_past_cache(root.resolve() / file.path)
            if found != file.blake3:
                raise ArchiveError(
                    f"{root / file.path}, back from tape",
                    f"BLAKE3 {file.blake3}",
                    found,
                    "The tape's copy is damaged: use another copy, and tell the library's administrators.",
                )
            progress("proving", file.size)

    def _unexpected(self, path: Path, expected: str, found: str, number: int) -> ArchiveError:
        more = f" ({number} files)" if number > 1 else ""
        return ArchiveError(
            f"tier '{self.name}', {path}", expected, f"{found}{more}", "Look at the manager's own log."
        )


def _paths(root: Path, files: Sequence[ArchiveFile]) -> list[Path]:
    return [root / file.path for file in files]


def _volumes(folder: Path) -> list[Path]:
    """What of a written copy goes to tape: all but the small files that say what it is."""
    tars = sorted(folder.glob("part-*.tar"))
    return tars or sorted(path for path in (folder / "raw").rglob("*") if path.is_file())


def _same_size(root: Path, file: ArchiveFile) -> None:
    try:
        size = (root / file.path).stat().st_size
    except OSError as error:
        raise ArchiveError(str(root / file.path), "a file", error.strerror or str(error), "") from error
    if size != file.size:
        raise ArchiveError(
            str(root / file.path),
            f"{file.size} bytes, as were proved",
            f"{size} bytes",
            "Prove it again first.",
        )
