"""Looks at a folder that may lie on a network share: names, sizes, nothing opened.

A look costs what can still change, not what is there. A folder is listed when its own change time
says so, for a while after it last changed (change times can be coarse on a share), and now and
then in any case. Of files that were dealt with, a few are looked at again in each round.
"""

import errno
import os
import re
import stat
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

MAX_KEY = 512  # what the catalog holds
ASIDE_PREFIX = ".vitriflow-freeing-"  # a file's name for the instant in which it's removed
HOT_S = 600.0  # a folder that changed so recently is looked at in each round, and so are those above it
SETTLE_S = 30.0  # ... and listed, whatever its change time says
_LIST_EVERY_S = 60.0
_LIST_COLD_EVERY_S = 1800.0
_COLD_ROUNDS = 16  # folders that are not hot are looked at once in so many rounds
_AGAIN = 128  # files that were dealt with, looked at again in each round
_GONE = (errno.ENOENT, errno.ENOTDIR)
LOST = (
    errno.ENOTCONN,
    errno.ESTALE,
    errno.EIO,
    errno.ENODEV,
    errno.ENXIO,
    errno.EHOSTDOWN,
    errno.EHOSTUNREACH,
    errno.ETIMEDOUT,
    errno.ECONNRESET,
    errno.ECONNABORTED,
    errno.ECONNREFUSED,
    errno.ENETUNREACH,
    errno.ENETDOWN,
    errno.EREMOTEIO,
)
_ODD = re.compile("%25|%[89A-F][0-9A-F]|[\udc80-\udcff]")
_QUOTED = re.compile("%25|%([89A-F][0-9A-F])")


def key_of(name: str) -> str:
    """A file's name as the catalog can hold it: bytes that aren't UTF-8 are written as ``%FF``.

    All other names stay as they are, but for those that look as if they had been written so.
    :func:`name_of` gives the name back, whatever it was.
    """
    if name.isascii() and "%" not in name:
        return name
    if not _ODD.search(name):
        return name
    plain = name.replace("%", "%25")
    return re.sub("[\udc80-\udcff]", lambda match: f"%{ord(match[0]) - 0xDC00:02X}", plain)


def name_of(key: str) -> str:
    """The name on disk that :func:`key_of` made a key of; works on whole paths too."""
    if "%" not in key:
        return key
    return "/".join(
        _QUOTED.sub(lambda match: chr(0xDC00 + int(match[1], 16)) if match[1] else "%", part)
        for part in key.split("/")
    )


@dataclass(frozen=True, slots=True)
class FileSeen:
    """One file as a look found it. ``changed_ns`` is the share's own clock: compared only with itself."""

    key: str
    folder: str
    size: int
    changed_ns: int

    @property
    def path(self) -> Path:
        """Where it is."""
        return Path(self.folder, name_of(self.key.rpartition("/")[2]))


class SourceLostError(Exception):
    """The source folder can't be listed: unmounted, renamed, or access was taken away."""


@dataclass(slots=True)
class Seen:
    """What a look found to be different from the last one."""

    fresh: list[FileSeen] = field(default_factory=list)  # new, or of another size or change time
    gone: list[str] = field(default_factory=list)
    denied: list[str] = field(default_factory=list)  # folders that may not be listed
    unnameable: list[str] = field(default_factory=list)  # paths too long for the catalog


@dataclass(slots=True)
class _Folder:
    path: str
    prefix: str
    parent: "_Folder | None"
    changed_at: float
    active_at: float
    listed_at: float = float("-inf")
    mtime_ns: int = -1
    names: dict[str, int] = field(default_factory=dict)  # files by their name on disk: inode
    folders: set[str] = field(default_factory=set)


class Scanner:
    """Remembers a folder's tree between looks.

    Parameters
    ----------
    source
        The folder that a microscope writes.
    clock
        Our monotonic clock (s).
    may_be_empty
        Asked when the folder is empty: False when files should be there, so that a share that
        isn't mounted (its empty mount point is all there is) isn't taken for one that was emptied.

    Attributes
    ----------
    files
        All files that are there, by key.
    """

    def __init__(
        self,
        source: Path,
        *,
        clock: Callable[[], float] = time.monotonic,
        may_be_empty: Callable[[], bool] = lambda: True,
    ) -> None:
        self.files: dict[str, FileSeen] = {}
        self._source = str(source)
        self._clock = clock
        self._may_be_empty = may_be_empty
        self._folders: dict[str, _Folder] = {}
        self._round = 0
        self._place = 0
        self._inodes = 0  # how often an inode changed and nothing else did: then inodes say nothing here
        self._doubt: set[str] = set()

    def scan(self, watched: Collection[str] = ()) -> Seen:
        """Look once.

        Parameters
        ----------
        watched
            Keys of files that aren't finished: each is looked at.

        Raises
        ------
        SourceLostError
            When the source can't be listed; nothing known is forgotten.
        """
        seen = Seen()
        now = self._clock()
        if not self._folders:
            self._folders[""] = _Folder(self._source, "", None, now, now)
        self._round += 1
        for number, folder in enumerate(list(self._folders.values())):
            hot = now - folder.active_at < HOT_S or folder.parent is None
            if hot or (number + self._round) % _COLD_ROUNDS == 0:
                self._visit(folder, now, hot, seen)
        handled = {file.key for file in seen.fresh}
        again = self._next_slice()
        for key in {*watched, *again, *self._doubt} - handled:
            self._look_at(key, now, seen)
        self._doubt.clear()
        return seen

    def doubt(self, key: str) -> None:
        """Look at this file in the next round, whatever its folder says."""
        self._doubt.add(key)

    # -- folders ----------------------------------------------------------------------------

    def _visit(self, folder: _Folder, now: float, hot: bool, seen: Seen) -> None:
        if folder.prefix not in self._folders:
            return  # went with the folder above it in this round
        try:
            mtime = os.stat(folder.path).st_mtime_ns  # noqa: PTH116  (no Path objects in the hot loop)
            due = now - folder.listed_at > (_LIST_EVERY_S if hot else _LIST_COLD_EVERY_S)
            if mtime == folder.mtime_ns and now - folder.changed_at >= SETTLE_S and not due:
                return
            with os.scandir(folder.path) as entries:
                found = {entry.name: entry for entry in entries if not entry.name.startswith(ASIDE_PREFIX)}
        except OSError as error:
            self._failed(folder, error, seen)
            return
        if folder.parent is None and not found and not self._may_be_empty():
            raise SourceLostError("it's empty, and shouldn't be: the share may not be mounted")
        if folder.mtime_ns not in (-1, mtime):
            _touch(folder, now)
        folder.mtime_ns, folder.listed_at = mtime, now
        self._compare(folder, found, now, seen)

    def _compare(self, folder: _Folder, found: dict[str, "os.DirEntry[str]"], now: float, seen: Seen) -> None:
        for name in [name for name in folder.names if name not in found]:
            del folder.names[name]
            self._drop(folder.prefix + key_of(name), seen)
            _touch(folder, now)
        for name in [name for name in folder.folders if name not in found]:
            folder.folders.discard(name)
            self._drop_folder(folder.prefix + key_of(name) + "/", seen)
        fresh = found.keys() - folder.names.keys() - folder.folders
        for name in fresh:
            self._meet(folder, found[name], now, seen)
        if self._inodes < _AGAIN:
            known = folder.names
            self._doubt.update(
                folder.prefix + key_of(name)
                for name, entry in found.items()
                if name in known and entry.inode() != known[name]
            )
            known.update((name, found[name].inode()) for name in known.keys() & found.keys())

    def _meet(self, folder: _Folder, entry: "os.DirEntry[str]", now: float, seen: Seen) -> None:
        """An entry that wasn't there before. Links to folders aren't followed."""
        key = folder.prefix + key_of(entry.name)
        try:
            if entry.is_dir(follow_symlinks=False):
                folder.folders.add(entry.name)
                _touch(folder, now)
                inner = _Folder(entry.path, key + "/", folder, now, now)
                self._folders[inner.prefix] = inner
                self._visit(inner, now, True, seen)
                return
            if not entry.is_file():
                return
            state = entry.stat()
        except OSError as error:
            self._must_be_there(error)
            return  # gone between the listing and the look: the next look knows
        if len(key) > MAX_KEY:
            folder.names[entry.name] = entry.inode()
            seen.unnameable.append(key)
            return
        folder.names[entry.name] = entry.inode()
        _touch(folder, now)
        file = FileSeen(key, folder.path, state.st_size, state.st_mtime_ns)
        self.files[key] = file
        seen.fresh.append(file)

    def _failed(self, folder: _Folder, error: OSError, seen: Seen) -> None:
        """A folder that can't be listed: gone, closed to us, or the whole share is away."""
        if folder.parent is None:
            raise SourceLostError(error.strerror or str(error)) from error
        if error.errno in _GONE:
            parent, name = folder.parent, Path(folder.path).name
            parent.folders.discard(name)
            self._drop_folder(folder.prefix, seen)
        elif error.errno in (errno.EACCES, errno.EPERM):
            seen.denied.append(folder.prefix)
        else:
            self._must_be_there(error)

    def _must_be_there(self, error: OSError) -> None:
        if error.errno in LOST:
            raise SourceLostError(error.strerror or str(error)) from error

    # -- files ------------------------------------------------------------------------------

    def _look_at(self, key: str, now: float, seen: Seen) -> None:
        known = self.files.get(key)
        if known is None:
            return
        try:
            state = os.stat(f"{known.folder}/{name_of(key.rpartition('/')[2])}")  # noqa: PTH116
        except OSError as error:
            self._must_be_there(error)
            if error.errno in _GONE:
                folder = self._folders.get(key[: len(key) - len(key.rpartition("/")[2])])
                if folder is not None:
                    folder.names.pop(name_of(key.rpartition("/")[2]), None)
                self._drop(key, seen)
            return
        if not stat.S_ISREG(state.st_mode):
            return
        if (state.st_size, state.st_mtime_ns) == (known.size, known.changed_ns):
            self._inodes += key in self._doubt
            return
        file = FileSeen(key, known.folder, state.st_size, state.st_mtime_ns)
        self.files[key] = file
        seen.fresh.append(file)
        folder = self._folders.get(key[: len(key) - len(key.rpartition("/")[2])])
        if folder is not None:
            folder.active_at = now

    def _next_slice(self) -> list[str]:
        """The next few of all files, round and round."""
        if self._place >= len(self.files):
            self._place = 0
        chosen = list(islice(self.files, self._place, self._place + _AGAIN))
        self._place += _AGAIN
        return chosen

    def _drop(self, key: str, seen: Seen) -> None:
        if self.files.pop(key, None) is not None:
            seen.gone.append(key)

    def _drop_folder(self, prefix: str, seen: Seen) -> None:
        for inner in [name for name in self._folders if name.startswith(prefix)]:
            folder = self._folders.pop(inner)
            for name in folder.names:
                self._drop(inner + key_of(name), seen)


def look(source: Path) -> list[FileSeen]:
    """Every file below ``source``, looked at once.

    Raises
    ------
    SourceLostError
        When the source can't be listed.
    """
    scanner = Scanner(source)
    scanner.scan()
    return list(scanner.files.values())


def _touch(folder: _Folder, now: float) -> None:
    folder.changed_at = now
    above: _Folder | None = folder
    while above is not None:
        above.active_at = now
        above = above.parent
