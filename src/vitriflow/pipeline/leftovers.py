"""Half-written files that killed workers left beside the results."""

import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

# What tempfile.mkstemp makes of Context.writing's prefix: a dot, the name, eight random letters, the suffix.
_TEMPORARY = re.compile(r"^\..+\.[a-z0-9_]{8}(\.[A-Za-z0-9]+)?$")


def remove_leftovers(folders: Iterable[Path]) -> int:
    """Remove temporary files of steps from folders in which nothing is being written.

    Parameters
    ----------
    folders
        Folders of results. Those that aren't there are skipped.

    Returns
    -------
    How many files were removed.
    """
    removed = 0
    for folder in set(folders):
        with suppress(OSError):
            for path in folder.iterdir():
                if _TEMPORARY.match(path.name) and path.is_file() and not path.is_symlink():
                    path.unlink(missing_ok=True)
                    removed += 1
    return removed
