"""An executable stand-in for a program: keeps the arguments and answers it got, and writes what it's told to."""

import shlex
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path

_HEAD = """#!/bin/sh
if [ "$*" = {version_arguments} ]; then echo {version}; exit 0; fi
{{ printf '%s\\n' "$#"; [ "$#" -eq 0 ] || printf '%s\\n' "$@"; }} >> {seen}
cat > {answers}
printf '%s' "$STAND_IN" > {environment}
"""


class StandIn:
    """A program that does as it's told.

    Attributes
    ----------
    path
        The executable.
    """

    def __init__(self, folder: Path, name: str = "program") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.path = folder / name
        self._seen = folder / "seen"
        self.child = folder / "child"

    def tell(
        self,
        *,
        version_arguments: Sequence[str] = ("never asked",),
        version: str = "",
        says: str = "",
        files: Mapping[str, Path | None] | None = None,
        code: int = 0,
        hang: bool = False,
    ) -> "StandIn":
        """Say what it is to do; a file of None is an empty one."""
        quoted = {
            "version_arguments": shlex.quote(" ".join(version_arguments)),
            "version": shlex.quote(version),
            "seen": shlex.quote(str(self._seen)),
            "answers": shlex.quote(str(self.folder / "answers")),
            "environment": shlex.quote(str(self.folder / "environment")),
        }
        text = _HEAD.format(**quoted) + f"printf '%s\\n' {shlex.quote(says)}\n"
        if hang:
            text += f"setsid sleep 600 & echo $! > {shlex.quote(str(self.child))}\nsleep 600\n"
        for name, source in (files or {}).items():
            folder = Path(name).parent
            text += f"mkdir -p {shlex.quote(str(folder))}\n" if str(folder) != "." else ""
            text += f"cat {shlex.quote(str(source or '/dev/null'))} > {shlex.quote(name)}\n"
        self.path.write_text(text + f"exit {code}\n")
        self.path.chmod(self.path.stat().st_mode | stat.S_IXUSR)
        return self

    @property
    def calls(self) -> list[list[str]]:
        """Arguments of each call so far, that for its version left out."""
        lines = self._seen.read_text().splitlines() if self._seen.exists() else []
        found = []
        while lines:
            count = int(lines[0])
            found.append(lines[1 : count + 1])
            lines = lines[count + 1 :]
        return found

    @property
    def answers(self) -> list[str]:
        """What it was told on its standard input, by line."""
        return (self.folder / "answers").read_text().splitlines()

    @property
    def environment(self) -> str:
        """The variable STAND_IN that it saw."""
        return (self.folder / "environment").read_text()
