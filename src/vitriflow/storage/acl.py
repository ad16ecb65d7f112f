"""POSIX access control lists of a session's folders, written as the kernel keeps them.

The kernel's form (``linux/posix_acl_xattr.h``): a version, then (tag, permissions, id) for each
entry, in order. No program is run, so a session of 100,000 files takes seconds.
"""

import errno
import grp
import os
import pwd
import stat
import struct
import tempfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from vitriflow.errors import BadParameter, VitriflowError

ACCESS = "system.posix_acl_access"
DEFAULT = "system.posix_acl_default"
PASS_ONLY = 0o711  # others may go through to what's theirs, and see nothing on the way
_VERSION = 2
_ENTRY = struct.Struct("<HHI")
_USER_OBJ, _USER, _GROUP_OBJ, _GROUP, _MASK, _OTHER = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
_NO_ID = 0xFFFFFFFF
_READ, _WRITE, _PASS = 4, 2, 1
_MOST_ENTRIES = 500  # what fits into one block of ext4


class NoAcls(VitriflowError):
    """The file system can't keep access control lists."""


@dataclass(frozen=True)
class Readers:
    """Accounts and groups (by number) that may read a folder; nobody else but its owner may."""

    users: frozenset[int] = frozenset()
    groups: frozenset[int] = frozenset()

    def acl(self, owner: int) -> bytes:
        """The list in the kernel's form: ``owner`` are the owner's permissions, readers get r-x of a folder."""
        return self._packed(owner, _READ | _PASS)

    def file_acl(self, owner: int) -> bytes:
        """The list for a file: its readers may read."""
        return self._packed(owner, _READ)

    def _packed(self, owner: int, given: int) -> bytes:
        entries = [(_USER_OBJ, owner, _NO_ID)]
        entries += [(_USER, given, number) for number in sorted(self.users)]
        entries += [(_GROUP_OBJ, 0, _NO_ID)]
        entries += [(_GROUP, given, number) for number in sorted(self.groups)]
        entries += [(_MASK, given, _NO_ID), (_OTHER, 0, _NO_ID)]
        return struct.pack("<I", _VERSION) + b"".join(_ENTRY.pack(*one) for one in entries)


@dataclass
class Applied:
    """What was done to one tree."""

    changed: int = 0
    kept: int = 0
    problems: list[str] = field(default_factory=list)


def readers_of(unix_names: Collection[str], groups: Collection[str] = ()) -> tuple[Readers, list[str]]:
    """Readers by the names of accounts and groups, and the names that this machine doesn't know.

    Raises
    ------
    BadParameter
        When there are more than a list can hold.
    """
    users, teams, unknown = set(), set(), []
    for name in unix_names:
        try:
            users.add(pwd.getpwnam(name).pw_uid)
        except KeyError:
            unknown.append(name)
    for name in groups:
        try:
            teams.add(grp.getgrnam(name).gr_gid)
        except KeyError:
            unknown.append(name)
    if len(users) + len(teams) > _MOST_ENTRIES:
        raise BadParameter(
            "people of an experiment",
            f"at most {_MOST_ENTRIES} with accounts",
            f"{len(users)}",
            "Put them into a group of accounts, and name it as access.staff_group.",
        )
    return Readers(frozenset(users), frozenset(teams)), sorted(unknown)


def can_do_acls(folder: Path) -> str | None:
    """Why the file system of a folder can't keep lists; None when it can."""
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix=".acl-") as inner:
            wanted = Readers(frozenset({os.getuid()})).acl(_READ | _WRITE | _PASS)
            os.setxattr(inner, ACCESS, wanted)
            os.setxattr(inner, DEFAULT, wanted)
            if os.getxattr(inner, DEFAULT) != wanted:
                return "lists are changed on the way"
    except OSError as error:
        if error.errno in (errno.ENOTSUP, errno.ENOSYS):
            return "the file system keeps no POSIX ACLs"
        return error.strerror or str(error)
    return None


def apply_acls(root: Path, readers: Readers, *, everything: bool = False) -> Applied:
    """Let exactly these readers into a tree, and into whatever is made in it later.

    The top folder is closed to others first and marked as done last (its default list), so that
    an interrupted run is taken up again. Where the top is as it should be, the rest is taken to be
    so too, unless ``everything``. Links are left alone and never followed.

    Raises
    ------
    NoAcls
        When the file system can't keep lists.
    VitriflowError
        When the top folder can't be changed.
    """
    done = Applied()
    try:
        if not everything and _is(root, readers):
            done.kept = 1
            return done
        _put(root, ACCESS, _folder(root, readers))
        for path, mode in _below(root, done):
            try:
                _one(path, mode, readers, done)
            except FileNotFoundError:
                continue  # moved or removed meanwhile
            except OSError as error:
                done.problems.append(f"{path}: {error.strerror}")
        if not done.problems:
            _put(root, DEFAULT, _folder(root, readers))
        done.changed += 1
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            raise NoAcls(
                str(root),
                "a file system that keeps POSIX ACLs",
                "one that doesn't",
                "Mount it with ACLs, or set access.acls = false and use groups.",
            ) from error
        raise VitriflowError(
            str(root),
            "a folder whose access can be changed",
            error.strerror or str(error),
            "Run this as the account that owns the folder, or as root.",
        ) from error
    return done


def apply_way(folder: Path, readers: Readers) -> bool:
    """Let readers see one folder on the way to theirs, without what else is below it; True when changed."""
    wanted = readers.acl(_owner(folder))
    if _get(folder, ACCESS) == wanted:
        return False
    _put(folder, ACCESS, wanted)
    return True


def pass_only(folder: Path) -> bool:
    """Let others go through a folder but see nothing of it; True when changed."""
    mode = stat.S_IMODE(folder.stat().st_mode)
    wanted = (mode | 0o111) & ~0o066
    if mode == wanted:
        return False
    folder.chmod(wanted)
    return True


def _one(path: str, mode: int, readers: Readers, done: Applied) -> None:
    owner = (mode >> 6) & 7
    if stat.S_ISDIR(mode):
        wanted = readers.acl(owner)
        new = _get(path, ACCESS) != wanted or _get(path, DEFAULT) != wanted
        if new:
            _put(path, ACCESS, wanted)
            _put(path, DEFAULT, wanted)
    else:
        wanted = readers.file_acl(owner)
        new = _get(path, ACCESS) != wanted
        if new:
            _put(path, ACCESS, wanted)
    done.changed += new
    done.kept += not new


def _below(root: Path, done: Applied) -> Iterator[tuple[str, int]]:
    waiting = [str(root)]
    while waiting:
        folder = waiting.pop()
        try:
            with os.scandir(folder) as entries:
                found = list(entries)
        except FileNotFoundError:
            continue
        except OSError as error:
            done.problems.append(f"{folder}: {error.strerror}")
            continue
        for entry in found:
            try:
                mode = entry.stat(follow_symlinks=False).st_mode
            except FileNotFoundError:
                continue
            if stat.S_ISLNK(mode):
                continue
            if stat.S_ISDIR(mode):
                waiting.append(entry.path)
            if stat.S_ISDIR(mode) or stat.S_ISREG(mode):
                yield entry.path, mode


def _owner(path: Path | str) -> int:
    return (os.stat(path, follow_symlinks=False).st_mode >> 6) & 7  # noqa: PTH116


def _folder(path: Path, readers: Readers) -> bytes:
    return readers.acl(_owner(path))


def _is(root: Path, readers: Readers) -> bool:
    wanted = _folder(root, readers)
    return _get(root, ACCESS) == wanted and _get(root, DEFAULT) == wanted


def _get(path: Path | str, name: str) -> bytes | None:
    try:
        return os.getxattr(path, name, follow_symlinks=False)
    except OSError as error:
        if error.errno == errno.ENODATA:
            return None
        raise


def _put(path: Path | str, name: str, value: bytes) -> None:
    os.setxattr(path, name, value, follow_symlinks=False)
