"""Publishes who may log in to a microscope's machines now, and who may read which session's folder."""

import os
import tempfile
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session as OrmSession

from vitriflow.catalog import Catalog, Experiment, Microscope, Sample, Session
from vitriflow.config import AccessSection, Config, LdapGroupSection
from vitriflow.elogbook.access import Access, who_may_log_in
from vitriflow.elogbook.people import members
from vitriflow.errors import BadConfig, VitriflowError
from vitriflow.facility.ldap import (
    DirectoryAway,
    change_values,
    connected,
    in_dn,
    read_entry,
    read_password,
    same_dn,
)
from vitriflow.storage.acl import Applied, apply_acls, apply_way, pass_only, readers_of


@dataclass
class Published:
    """What one round of publishing did, for the log and the command line."""

    pam: list[Path] = field(default_factory=list)  # files that changed
    groups: list[str] = field(default_factory=list)  # DNs of groups that changed
    folders: int = 0  # session folders whose list changed
    problems: list[str] = field(default_factory=list)


def access_now(catalog: Catalog, microscope: str | None = None) -> list[Access]:
    """Who may log in now, to one microscope or to each.

    Raises
    ------
    BadParameter
        When there's no such microscope.
    """

    def work(orm: OrmSession) -> list[Access]:
        names = (
            [microscope]
            if microscope
            else list(orm.scalars(select(Microscope.name).order_by(Microscope.name)))
        )
        return [who_may_log_in(orm, name) for name in names]

    return catalog.read(work)


def pam_text(access: Access, always: Collection[str] = ("root",)) -> str:
    """A file for pam_access: these accounts may log in, all others may not."""
    lines = [
        "# Written by vitriflow; changes made here are lost. For pam_access: accessfile=THIS FILE",
        f"# microscope {access.microscope}, session {access.session or 'none'}",
    ]
    lines += [f"+:{name}:ALL" for name in (*always, *access.unix_names)]
    return "\n".join([*dict.fromkeys(lines), "-:ALL:ALL", ""])


def write_pam(path: Path, access: Access, always: Collection[str] = ("root",)) -> bool:
    """Write the pam_access file, whole or not at all; False when it was so already.

    Raises
    ------
    VitriflowError
        When it can't be written.
    """
    text = pam_text(access, always)
    temporary: Path | None = None
    try:
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            return False
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", dir=path.parent, prefix=f".{path.name}.", delete=False
        ) as stream:
            temporary = Path(stream.name)
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.chmod(0o644)  # programs that let people in read it before they are root
        temporary.replace(path)
    except OSError as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        raise VitriflowError(
            str(path),
            "a file that can be written",
            error.strerror or str(error),
            "Make its folder, and give this account the right to write there.",
        ) from error
    return True


def sync_group(settings: LdapGroupSection, access: Access) -> bool:
    """Bring the directory's group in step, in one change; False when it was so already.

    Raises
    ------
    DirectoryAway
        When the directory doesn't answer, or refuses.
    """
    dn = settings.dn.replace("{microscope}", in_dn(access.microscope))
    with connected(settings, settings.bind_dn, read_password(settings.bind_password_file)) as connection:
        if connection is None:
            raise DirectoryAway(
                f"directory {settings.url}",
                f"to let {settings.bind_dn} change {dn}",
                "a refusal",
                "Correct bind_dn and bind_password_file in [access.ldap_group].",
            )
        entry = read_entry(connection, dn, [settings.attribute])
        if entry is None:
            raise DirectoryAway(
                f"directory {settings.url}", f"the group {dn}", "no such entry", "Make the group."
            )
        present = next(
            (many for name, many in entry.items() if name.lower() == settings.attribute.lower()), []
        )
        wanted = [*settings.keep, *(_member(settings, name) for name in access.unix_names)]
        add = [one for one in dict.fromkeys(wanted) if not _among(settings, one, present)]
        remove = [one for one in present if not _among(settings, one, wanted)]
        if add or remove:
            change_values(connection, dn, settings.attribute, add, remove)
        return bool(add or remove)


def _member(settings: LdapGroupSection, unix_name: str) -> str:
    if settings.attribute == "memberUid":
        return unix_name
    return settings.member_dn.replace("{unix_name}", in_dn(unix_name))


def _among(settings: LdapGroupSection, one: str, many: Sequence[str]) -> bool:
    if settings.attribute == "memberUid":
        return one in many
    return any(same_dn(one, other) for other in many)


# ---- folders


@dataclass(frozen=True)
class _Tree:
    """A session's folder and the accounts of its experiment's people."""

    key: str
    root: Path
    unix_names: frozenset[str]


def session_trees(catalog: Catalog, session: str | None = None) -> list[_Tree]:
    """Sessions' folders with the accounts of exactly their experiment's active people."""

    def work(orm: OrmSession) -> list[_Tree]:
        query = select(Session, Experiment.id).join(Sample, Sample.id == Session.sample_id)
        query = query.join(Experiment, Experiment.id == Sample.experiment_id).order_by(Session.id)
        people: dict[int, frozenset[str]] = {}
        found = []
        for row, experiment in orm.execute(query):
            if experiment not in people:
                names = [one.unix_name for one, _ in members(orm, experiment) if one.active and one.unix_name]
                people[experiment] = frozenset(filter(None, names))
            found.append(_Tree(row.key, Path(row.root), people[experiment]))
        return found

    trees = catalog.read(work)
    return [tree for tree in trees if session is None or tree.key == session]


def apply_folder_access(
    storage_root: Path, catalog: Catalog, settings: AccessSection, *, everything: bool = False
) -> Published:
    """Give each session's folder a list of its experiment's people, and the folders above it a way through.

    Raises
    ------
    NoAcls
        When the file system can't keep lists.
    """
    done = Published()
    groups = [settings.staff_group] if settings.staff_group else []
    above: dict[Path, set[str]] = {}
    unknown: set[str] = set()
    for tree in session_trees(catalog):
        if not tree.root.is_dir():
            continue  # archived and removed, or not made yet
        readers, missing = readers_of(tree.unix_names, groups)
        unknown |= set(missing)
        one: Applied = apply_acls(tree.root, readers, everything=everything)
        done.folders += one.changed > 0
        done.problems += one.problems
        for folder in _ways(storage_root, tree.root):
            above.setdefault(folder, set()).update(tree.unix_names)
    for folder, names in above.items():
        _open_way(storage_root, folder, names, groups, done)
    done.problems += [f"{name}: no such account on this machine" for name in sorted(unknown)]
    return done


def _ways(storage_root: Path, root: Path) -> list[Path]:
    """Folders from the storage root down to (not with) a session's own."""
    if not root.is_relative_to(storage_root):
        return []
    return [one for one in root.parents if one.is_relative_to(storage_root)]


def _open_way(
    storage_root: Path, folder: Path, names: set[str], groups: Sequence[str], done: Published
) -> None:
    try:
        if len(folder.relative_to(storage_root).parts) < 2:  # the root and its months: everybody goes through
            pass_only(folder)
        else:
            apply_way(folder, readers_of(names, groups)[0])
    except OSError as error:
        done.problems.append(f"{folder}: {error.strerror}")


# ---- all of it


def publish_access(config: Config, catalog: Catalog, *, everything: bool = False) -> Published:
    """One round of all that facility.toml asks for: pam_access files, the directory's groups, folders.

    Services call it every few seconds and after each change of people: it only writes what
    changed. What goes wrong with one thing doesn't hold up the others, and is told.
    """
    settings = config.access
    done = Published()
    for access in access_now(catalog):
        try:
            if settings.pam_file is not None:
                path = pam_path(settings.pam_file, access.microscope)
                if write_pam(path, access, settings.always):
                    done.pam.append(path)
            if settings.ldap_group is not None and sync_group(settings.ldap_group, access):
                done.groups.append(settings.ldap_group.dn.replace("{microscope}", access.microscope))
        except VitriflowError as error:
            done.problems.append(str(error))
    if settings.acls:
        try:
            folders = apply_folder_access(config.storage.root, catalog, settings, everything=everything)
            done.folders = folders.folders
            done.problems += folders.problems
        except VitriflowError as error:
            done.problems.append(str(error))
    return done


def pam_path(pattern: Path, microscope: str) -> Path:
    """Where one microscope's pam_access file goes.

    Raises
    ------
    BadConfig
        When the pattern has no ``{microscope}``.
    """
    if "{microscope}" not in pattern.name:
        raise BadConfig("access.pam_file", "{microscope} in the file's name", str(pattern))
    return pattern.with_name(pattern.name.replace("{microscope}", microscope))
