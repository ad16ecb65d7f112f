"""An archive in a folder: plain tar files or plain files, with their hashes. Read by anybody, without vitriflow."""

import os
import shutil
import tarfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, ClassVar, Literal

from blake3 import blake3
from pydantic import Field

from vitriflow.errors import VitriflowError
from vitriflow.storage.archive_files import BLOCK, SUMS, PastCache, hash_past_cache, parse_sums, sums_text
from vitriflow.storage.layout import FOLDER_MODE
from vitriflow.storage.manifest import sync_folder
from vitriflow.storage.tiers import (
    Archived,
    ArchiveError,
    ArchiveFile,
    ArchiveJob,
    Progress,
    Tier,
    TierOptions,
)

_README = """\
One copy of the raw files of a session, written by vitriflow. No program of its own is needed to read it.

{unpack}    b3sum --check BLAKE3SUMS               # every file against its BLAKE3 hash

session.json says what the session was; manifest.jsonl when each file was proved (one JSON object a line).
"""
_UNPACK = '    for part in part-*.tar; do tar xf "$part"; done\n'


class DirectoryOptions(TierOptions):
    """Settings of a tier of kind ``directory``."""

    path: Path = Field(
        description="folder of the archive: another disk, a mounted share, a tape's file system"
    )
    format: Literal["tar", "files"] = Field(default="tar", description="tar files, or each file by itself")
    volume_bytes: int = Field(
        default=64 * 1024**3, gt=0, description="a tar file that's longer is followed by another (bytes)"
    )


class DirectoryTier(Tier):
    """Copies in folders: ``<path>/<session's place>/<copy>/``.

    A copy is made in a folder whose name begins with a dot and gets its own name when it's proved.
    """

    kind = "directory"
    Options: ClassVar[type[TierOptions]] = DirectoryOptions
    options: DirectoryOptions

    def write(self, job: ArchiveJob, progress: Progress) -> Archived:
        """Write, re-read past the page cache, compare, rename."""
        final = self.options.path / job.place / job.name
        if final.is_dir():  # it was proved, and nobody was told
            files = _listed(final, job)
            self.verify(str(final), job.root, files, progress)
            return Archived(str(final), files, self._details(final))
        if not self.options.path.is_dir():
            raise ArchiveError(
                f"tier '{self.name}': {self.options.path}",
                "a folder",
                "nothing there",
                "Mount the archive, or make the folder; it isn't made by itself, so that a missing mount is seen.",
            )
        part = final.with_name(f".{final.name}.partial")
        try:
            part.mkdir(parents=True, exist_ok=True, mode=FOLDER_MODE)
            files = self._begin(part, job)
            for volume, members in self._volumes(files):
                self._write_volume(part, volume, members, job.root, progress)
            self._prove(part, files, progress)
            sync_folder(part)
            part.rename(final)
            sync_folder(final.parent)
        except OSError as error:
            raise _trouble(part, error) from error
        return Archived(str(final), files, self._details(final))

    def verify(self, location: str, root: Path, files: Sequence[ArchiveFile], progress: Progress) -> None:
        """Read a copy past the page cache and compare every file."""
        self.check_present(location, root, files)
        try:
            self._prove(Path(location), files, progress)
        except OSError as error:
            raise _trouble(Path(location), error) from error

    def check_present(self, location: str, root: Path, files: Sequence[ArchiveFile]) -> None:
        """Look at names and sizes."""
        folder = Path(location)
        for volume, members in self._volumes_of(folder, files):
            path = folder / volume
            try:
                size = path.stat().st_size
            except OSError as error:
                raise _trouble(path, error) from error
            least = sum(file.size for file in members)
            if size < least:
                raise ArchiveError(str(path), f"{least} bytes or more", f"{size} bytes", _KEEP)

    def vacate(self, root: Path, files: Sequence[ArchiveFile], progress: Progress) -> None:
        """Remove files, and the folders below ``raw`` that become empty."""
        folders = set()
        for file in files:
            path = root / file.path
            path.unlink(missing_ok=True)
            folders.add(path.parent)
            progress("removing from disk", file.size)
        for folder in sorted(folders, key=lambda one: -len(one.parts)):
            while folder.parent != root and folder.is_relative_to(root):
                try:
                    folder.rmdir()
                except OSError:
                    break
                folder = folder.parent

    def recall(self, location: str, root: Path, files: Sequence[ArchiveFile], progress: Progress) -> None:
        """Read each wanted file from the archive, hashing on the way; prove it; give it its name."""
        wanted = {file.path: file for file in files if not _is_there(root, file, progress)}
        folder = Path(location)
        for path, _ in self._volumes_of(folder, list(wanted.values())):
            try:
                for name, stream, mtime in _members(folder / path, path):
                    if name in wanted:
                        _bring_back(root, wanted.pop(name), stream, mtime, progress)
            except OSError as error:
                raise _trouble(folder / path, error) from error
        if wanted:
            missing = ", ".join(list(wanted)[:3])
            raise ArchiveError(location, "all files of the copy", f"{len(wanted)} missing: {missing}", _KEEP)

    # -- volumes: a tar file or a single file each --------------------------------------------

    def _begin(self, part: Path, job: ArchiveJob) -> list[ArchiveFile]:
        """Lay down the list of files, which an interrupted copy keeps, and the records."""
        sums = part / SUMS
        if not sums.exists():
            _write(sums, sums_text({file.path: file.blake3 for file in job.files}))
        unpack = _UNPACK if self.options.format == "tar" else ""
        _write(part / "README.txt", _README.format(unpack=unpack).encode())
        for name, data in job.records.items():
            _write(part / name, data)
        for left in part.rglob(".writing-*"):
            left.unlink()
        return _listed(part, job)

    def _volumes(self, files: Sequence[ArchiveFile]) -> Iterator[tuple[str, list[ArchiveFile]]]:
        if self.options.format == "files":
            yield from ((file.path, [file]) for file in files)
            return
        number, size, members = 1, 0, list[ArchiveFile]()
        for file in files:
            if members and size + file.size > self.options.volume_bytes:
                yield f"part-{number:04}.tar", members
                number, size, members = number + 1, 0, []
            members.append(file)
            size += file.size
        if members:
            yield f"part-{number:04}.tar", members

    def _volumes_of(
        self, folder: Path, files: Sequence[ArchiveFile]
    ) -> Iterator[tuple[str, list[ArchiveFile]]]:
        """Volumes of a copy that exists, whatever the settings are by now."""
        parts = sorted(path.name for path in folder.glob("part-*.tar"))
        if not parts:
            yield from ((file.path, [file]) for file in files)
        elif len(parts) == 1:
            yield parts[0], list(files)
        else:
            yield from ((part, []) for part in parts)

    def _write_volume(
        self, part: Path, name: str, members: Sequence[ArchiveFile], root: Path, progress: Progress
    ) -> None:
        target = part / name
        if target.exists():
            for file in members:
                progress("writing", file.size)
            return
        target.parent.mkdir(parents=True, exist_ok=True, mode=FOLDER_MODE)
        temporary = target.with_name(f".writing-{target.name}"[:250])
        with temporary.open("wb") as stream:
            if name.endswith(".tar") and self.options.format == "tar":
                with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar:
                    for file in members:
                        _add(tar, root, file, progress)
            else:
                (file,) = members
                _copy(root, file, stream.write, progress)
            stream.flush()
            os.fsync(stream.fileno())
        if self.options.format == "files":
            shutil.copystat(root / members[0].path, temporary)
        temporary.chmod(0o440)
        temporary.replace(target)
        sync_folder(target.parent)

    def _prove(self, folder: Path, files: Sequence[ArchiveFile], progress: Progress) -> None:
        """Compare each file of a copy with its hash; a volume that's wrong in an unfinished copy is removed."""
        waiting = {file.path: file for file in files}
        for volume, _ in self._volumes_of(folder, files):
            wrong: str | None = None
            for name, stream, _mtime in _members(folder / volume, volume):
                file = waiting.pop(name, None)
                if file is None:
                    continue
                if _hash(stream) != file.blake3 and wrong is None:
                    wrong = name
                progress("proving", file.size)
            if wrong is not None:
                if folder.name.endswith(".partial"):
                    (folder / volume).unlink()  # so that it's written again
                raise ArchiveError(
                    f"{folder / volume}: {wrong}", "the bytes that were proved", "others", _KEEP
                )
        if waiting:
            if folder.name.endswith(".partial"):
                for volume, _ in self._volumes_of(folder, files):
                    (folder / volume).unlink(missing_ok=True)
            missing = ", ".join(list(waiting)[:3])
            raise ArchiveError(str(folder), "all its files", f"{len(waiting)} missing: {missing}", _KEEP)

    def _details(self, folder: Path) -> dict[str, object]:
        volumes = len(list(folder.glob("part-*.tar")))
        return {"format": "tar" if volumes else "files", "volumes": volumes}


_KEEP = "Don't remove anything from the disk; look at the archive, and archive the session again."


def _listed(folder: Path, job: ArchiveJob) -> list[ArchiveFile]:
    """The files that a copy was begun with: others came later, and go into the next copy."""
    known = {file.path: file for file in job.files}
    listed = parse_sums((folder / SUMS).read_bytes())
    lost = [path for path, digest in listed.items() if path not in known or known[path].blake3 != digest]
    if lost:
        raise ArchiveError(
            f"{folder}: {lost[0]}",
            "a file of the session with the hash that stands in its list",
            "none",
            f"Remove the folder {folder} and archive the session again.",
        )
    return [known[path] for path in listed]


def _members(path: Path, name: str) -> Iterator[tuple[str, Callable[[int], bytes], float]]:
    """Files of a volume, in order: path, how to read it, change time. Read past the page cache."""
    with PastCache(path) as raw:
        if not (name.startswith("part-") and name.endswith(".tar")):
            yield name, raw.read, path.stat().st_mtime
            return
        try:
            with tarfile.open(fileobj=raw, mode="r|") as tar:
                for member in tar:
                    stream: IO[bytes] | None = tar.extractfile(member) if member.isreg() else None
                    if stream is not None:
                        yield member.name, stream.read, member.mtime
        except (tarfile.TarError, EOFError) as error:
            raise ArchiveError(str(path), "a whole tar file", str(error), _KEEP) from error


def _hash(read: Callable[[int], bytes]) -> str:
    digest = blake3()
    while block := read(BLOCK):
        digest.update(block)
    return digest.hexdigest()


class _Reader:
    """Reads a file of the session, hashing on the way."""

    def __init__(self, stream: IO[bytes], progress: Progress) -> None:
        self._stream = stream
        self._progress = progress
        self.digest = blake3()

    def read(self, size: int) -> bytes:
        block = self._stream.read(size)
        self.digest.update(block)
        self._progress("writing", len(block))
        return block


def _add(tar: tarfile.TarFile, root: Path, file: ArchiveFile, progress: Progress) -> None:
    with (root / file.path).open("rb") as stream:
        info = tarfile.TarInfo(file.path)
        state = os.fstat(stream.fileno())
        info.size, info.mtime, info.mode = state.st_size, int(state.st_mtime), 0o640
        reader = _Reader(stream, progress)
        _same_size(file, state.st_size)
        tar.addfile(info, reader)  # type: ignore[arg-type]
    _same_hash(file, reader.digest.hexdigest())


def _copy(root: Path, file: ArchiveFile, write: Callable[[bytes], int], progress: Progress) -> None:
    with (root / file.path).open("rb") as stream:
        reader = _Reader(stream, progress)
        while block := reader.read(BLOCK):
            write(block)
    _same_hash(file, reader.digest.hexdigest())


def _same_size(file: ArchiveFile, size: int) -> None:
    if size != file.size:
        raise ArchiveError(file.path, f"{file.size} bytes, as were proved", f"{size} bytes", _RAW)


def _same_hash(file: ArchiveFile, digest: str) -> None:
    if digest != file.blake3:
        raise ArchiveError(file.path, f"BLAKE3 {file.blake3}, as was proved", digest, _RAW)


_RAW = "The file on disk changed after it was proved: 'vitriflow verify' says which others did."


def _is_there(root: Path, file: ArchiveFile, progress: Progress) -> bool:
    """Whether a file is on the disk already, with the right bytes; other bytes are never overwritten."""
    path = root / file.path
    if not path.is_file():
        return False
    if path.stat().st_size == file.size and hash_past_cache(path) == file.blake3:
        progress("already there", file.size)
        return True
    raise ArchiveError(
        str(path), "no file, or the one that was archived", "another one", "Move it away, then recall again."
    )


def _bring_back(
    root: Path, file: ArchiveFile, read: Callable[[int], bytes], mtime: float, progress: Progress
) -> None:
    path = root / file.path
    path.parent.mkdir(parents=True, exist_ok=True, mode=FOLDER_MODE)
    temporary = path.with_name(f".recalling-{path.name}"[:250])
    digest = blake3()
    try:
        with temporary.open("wb") as stream:
            while block := read(BLOCK):
                digest.update(block)
                stream.write(block)
                progress("recalling", len(block))
            stream.flush()
            os.fsync(stream.fileno())
        if digest.hexdigest() != file.blake3:
            raise ArchiveError(
                f"{file.path} in the archive", f"BLAKE3 {file.blake3}", digest.hexdigest(), _BROKEN
            )
        if hash_past_cache(temporary) != file.blake3:
            raise ArchiveError(str(path), "the bytes that were written", "others", "The disk is failing.")
        os.utime(temporary, (mtime, mtime))
        temporary.chmod(0o640)
        temporary.replace(path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


_BROKEN = "The archive's copy is damaged; use another copy. Nothing of it was put on the disk."


def _write(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".writing-{path.name}")
    with temporary.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)


def _trouble(path: Path, error: OSError) -> VitriflowError:
    return ArchiveError(
        str(error.filename or path),
        "to be read or written",
        error.strerror or str(error),
        "Put that right and give the command again: it goes on where it was.",
    )
