"""Looks at a folder that may lie on a network share: names, sizes, nothing opened."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class FileSeen:
    """One file as a look found it. ``changed_ns`` is the share's own clock: compared only with itself."""

    key: str
    path: Path
    size: int
    changed_ns: int


class SourceLostError(Exception):
    """The source folder can't be listed: unmounted, renamed, or access was taken away."""


def look(source: Path) -> Iterator[FileSeen]:
    """Yield every file below ``source``, in no particular order. Links to folders aren't followed.

    Raises
    ------
    SourceLostError
        When the source itself can't be listed. A folder inside that vanishes is passed over.
    """
    try:
        pending = [(source, "", os.scandir(source))]
    except OSError as error:
        raise SourceLostError(error.strerror or str(error)) from error
    while pending:
        folder, prefix, entries = pending.pop()
        with entries:
            for entry in entries:
                try:
                    if entry.is_dir(follow_symlinks=False):
                        inner = folder / entry.name
                        pending.append((inner, f"{prefix}{entry.name}/", os.scandir(inner)))
                    elif entry.is_file():
                        state = entry.stat()
                        yield FileSeen(
                            prefix + entry.name, folder / entry.name, state.st_size, state.st_mtime_ns
                        )
                except OSError:
                    continue  # gone between the listing and the look: the next look knows
