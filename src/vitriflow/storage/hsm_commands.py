"""Runs the commands of a hierarchical storage manager: argument lists from facility.toml, never through a shell."""

import os
import re
import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from vitriflow.storage.tiers import ArchiveError, TierOptions

FILES, LIST = "{files}", "{list}"
RESIDENT, MIGRATED = "resident", "migrated"
_DSMLS = r"^\s*\d+\s+\d+\s+\d+\s+(?P<state>[rpm])\s+(?P<name>.+?)\s*$"


class HsmOptions(TierOptions):
    """Settings of a tier of kind ``hsm``. The defaults are those of IBM Storage Protect for Space Management."""

    path: Path | None = Field(
        default=None,
        description="folder on a file system that the manager moves to tape; without it sessions are on one",
    )
    format: Literal["tar", "files"] = Field(
        default="tar", description="with a path: tar files, or each by itself"
    )
    volume_bytes: int = Field(default=64 * 1024**3, gt=0, description="with a path: longest tar file (bytes)")
    migrate: tuple[str, ...] = Field(
        default=("dsmmigrate", FILES), description="moves files to tape and leaves stubs"
    )
    premigrate: tuple[str, ...] | None = Field(
        default=None, description="copies files to tape and leaves them; migrate without"
    )
    recall: tuple[str, ...] = Field(default=("dsmrecall", FILES), description="brings files back from tape")
    state: tuple[str, ...] = Field(default=("dsmls", FILES), description="says where files are, a line each")
    state_line: str = Field(default=_DSMLS, description="pattern of such a line, with groups state and name")
    states: dict[str, Literal["resident", "premigrated", "migrated"]] = Field(
        default={"r": "resident", "p": "premigrated", "m": "migrated"},
        description="what the group state means",
    )
    prove: Literal["read_back", "state"] = Field(
        default="read_back",
        description="a copy is proved by moving it to tape, back, and reading it; or the manager's word is taken",
    )
    batch: int = Field(default=500, ge=1, le=100_000, description="files of one command")
    timeout_s: float = Field(default=86400.0, gt=0, description="a command that takes longer is ended (s)")
    pool: str = Field(default="system", description="for rules: the pool of the disks")
    external_pool: str = Field(default="tape", description="for rules: the name of the tape's pool")
    exec_script: str = Field(
        default="/usr/lpp/mmfs/bin/mmpolicyExec-hsm", description="for rules: program that moves files"
    )
    high_water: int = Field(default=85, ge=1, le=100, description="for rules: files leave above this (%)")
    low_water: int = Field(default=70, ge=0, le=100, description="for rules: down to this (%)")

    @field_validator("migrate", "premigrate", "recall", "state")
    @classmethod
    def _names_files(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if value is not None and (not value or not any(one == FILES or LIST in one for one in value[1:])):
            raise ValueError(f"a program and its arguments, one of them {FILES} or holding {LIST}")
        return value

    @field_validator("state_line")
    @classmethod
    def _has_groups(cls, value: str) -> str:
        try:
            groups = re.compile(value).groupindex
        except re.error as error:
            raise ValueError(f"a regular expression ({error})") from error
        if not {"state", "name"} <= groups.keys():
            raise ValueError("a regular expression with the groups (?P<state>...) and (?P<name>...)")
        return value

    @model_validator(mode="after")
    def _in_order(self) -> "HsmOptions":
        if self.low_water >= self.high_water:
            raise ValueError("low_water below high_water")
        return self


class HsmCommands:
    """The manager's commands, for files by their path.

    Parameters
    ----------
    tier
        Name of the tier, for messages.
    options
        Its settings.
    """

    def __init__(self, tier: str, options: HsmOptions) -> None:
        self._tier = tier
        self._options = options
        self._line = re.compile(options.state_line, re.MULTILINE)

    def migrate(self, paths: Sequence[Path]) -> None:
        """Move files to tape."""
        self._run_all(self._options.migrate, paths)

    def premigrate(self, paths: Sequence[Path]) -> None:
        """Copy files to tape; they stay on the disk, if the manager can do that."""
        self._run_all(self._options.premigrate or self._options.migrate, paths)

    def recall(self, paths: Sequence[Path]) -> None:
        """Bring files back."""
        self._run_all(self._options.recall, paths)

    def states(self, paths: Sequence[Path]) -> dict[Path, str]:
        """Where each file is: resident, premigrated or migrated.

        Raises
        ------
        ArchiveError
            When the manager doesn't say it of a file, or says what the settings don't know.
        """
        folders: dict[Path, list[Path]] = defaultdict(list)
        for path in paths:
            folders[path.parent].append(path)
        found: dict[Path, str] = {}
        for mine in folders.values():  # by folder: some managers print names without their folder
            for part in self._parts(mine):
                text = self._run(self._options.state, part)
                found |= self._parsed(text, part)
        return found

    def _parsed(self, text: str, paths: Sequence[Path]) -> dict[Path, str]:
        known = {name: path for path in paths for name in (path.name, str(path))}
        found: dict[Path, str] = {}
        for match in self._line.finditer(text):
            path, word = known.get(match["name"]), match["state"]
            if path is None:
                continue
            if word not in self._options.states:
                raise self._error(
                    f"state of {path}",
                    f"one of {', '.join(self._options.states)}",
                    repr(word),
                    "Add it to states.",
                )
            found[path] = self._options.states[word]
        missing = [path for path in paths if path not in found]
        if missing:
            raise self._error(
                f"state of {missing[0]}",
                f"a line like {self._options.state_line}",
                text[-400:].strip() or "nothing",
                "Correct state_line: it has to match what the state command prints.",
            )
        return found

    def _run_all(self, command: Sequence[str], paths: Sequence[Path]) -> None:
        for part in self._parts(paths):
            self._run(command, part)

    def _parts(self, paths: Sequence[Path]) -> Iterator[Sequence[Path]]:
        size = self._options.batch
        return (paths[start : start + size] for start in range(0, len(paths), size))

    def _run(self, command: Sequence[str], paths: Sequence[Path]) -> str:
        listed: Path | None = None
        if any(LIST in one for one in command):
            listed = _listing(paths)
        try:
            return self._finished(_filled(command, paths, listed))
        finally:
            if listed is not None:
                listed.unlink(missing_ok=True)

    def _finished(self, command: list[str]) -> str:
        program = command[0]
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                stdin=subprocess.DEVNULL,
                timeout=self._options.timeout_s,
                check=False,
                errors="surrogateescape",
            )
        except OSError as error:
            raise self._error(
                program, "a program", error.strerror or str(error), "Check its path."
            ) from error
        except subprocess.TimeoutExpired as error:
            found = f"still running after {self._options.timeout_s:g} s"
            raise self._error(program, "an end", found, "Look at the library, or raise timeout_s.") from error
        if done.returncode != 0:
            said = (done.stderr.strip() or done.stdout.strip() or "nothing")[-400:]
            raise self._error(
                " ".join(command)[:200],
                "exit code 0",
                f"{done.returncode}, saying: {said}",
                "Put right what it says, then give the command again: it goes on where it was.",
            )
        return done.stdout

    def _error(self, thing: str, expected: str, found: str, remedy: str) -> ArchiveError:
        return ArchiveError(f"tier '{self._tier}', {thing}", expected, found, remedy)


def _filled(command: Sequence[str], paths: Sequence[Path], listed: Path | None) -> list[str]:
    """The command with the files in place; a path is one argument, whatever it contains."""
    filled: list[str] = []
    for one in command:
        if one == FILES:
            filled += [str(path) for path in paths]
        else:
            filled.append(one.replace(LIST, str(listed)) if listed is not None else one)
    return filled


def _listing(paths: Sequence[Path]) -> Path:
    """A file that lists the paths, one a line. A name with a line break would be two."""
    for path in paths:
        if "\n" in str(path):
            raise ArchiveError(
                repr(str(path)), "a name without a line break", "one", f"Use {FILES} instead of {LIST}."
            )
    handle, name = tempfile.mkstemp(prefix="vitriflow-", suffix=".list")
    with os.fdopen(handle, "w", encoding="utf-8", errors="surrogateescape") as stream:
        stream.writelines(f"{path}\n" for path in paths)
    return Path(name)
