"""Finds the folder that a microscope's software made for a session that waits for one."""

from collections.abc import Mapping, Sequence
from pathlib import Path


def folders_of(source: Path) -> list[Path]:
    """Folders in a microscope's source, newest first by the share's own clock; none when it can't be listed."""
    found = []
    try:
        for path in source.iterdir():
            if path.is_dir() and not path.name.startswith((".", "$", "System Volume")):
                found.append((path.stat().st_mtime_ns, path))
    except OSError:
        return []
    return [path for _, path in sorted(found, key=lambda entry: (-entry[0], entry[1].name))]


def appeared(known: Mapping[str, Sequence[str]]) -> Path | None:
    """The newest folder that isn't among the known names of its source; None while there's none."""
    for source, names in known.items():
        old = set(names)
        fresh = [path for path in folders_of(Path(source)) if path.name not in old]
        if fresh:
            return fresh[0]
    return None
