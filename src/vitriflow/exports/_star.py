"""STAR text as RELION 3.1 writes it, replaced on disk only when it says something new.

A project's tables grow by one row an exposure and are written again every few seconds, so rows
are kept as text and joined: turning 50,000 rows into a data frame each time would cost seconds.
"""

import os
import re
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

FILE_MODE = 0o640  # nothing world-readable
_BLANK = re.compile(r"\s")
_WORD = re.compile(r"'([^']*)'|\"([^\"]*)\"|(\S+)")


def word(value: object) -> str:
    """One value as it stands in a STAR row: RELION reads text with blanks when it's quoted."""
    if isinstance(value, float):
        return f"{value:.6f}"
    text = str(value)
    if text == "" or _BLANK.search(text):
        return f'"{text}"'
    return text


def row(values: Iterable[object]) -> str:
    """One line of a loop."""
    return " ".join(word(value) for value in values)


def loop(name: str, labels: Sequence[str], rows: Iterable[str]) -> str:
    """A data block with a loop; ``rows`` are lines made by :func:`row`."""
    head = [f"\n# version 30001\n\ndata_{name}\n\nloop_ "]
    head += [f"_{label} #{number} " for number, label in enumerate(labels, 1)]
    return "\n".join([*head, *rows]) + "\n \n"


def single(name: str, values: dict[str, object]) -> str:
    """A data block with one value for each label."""
    lines = [f"_{label:<40} {word(value)}" for label, value in values.items()]
    return "\n".join([f"\n# version 30001\n\ndata_{name}\n", *lines]) + "\n \n"


def parse(text: str) -> dict[str, list[dict[str, str]]]:
    """Data blocks of a STAR text as rows of words; a block without loop is one row.

    Everything stays text, so that a job whose alias is ``None`` or ``007`` keeps it.
    """
    blocks: dict[str, list[dict[str, str]]] = {}
    rows: list[dict[str, str]] = []
    labels: list[str] = []
    in_loop = False
    for line in text.splitlines():
        words = _words(line)
        if not words:
            continue
        if words[0].startswith("data_"):
            rows = blocks.setdefault(words[0].removeprefix("data_"), [])
            labels, in_loop = [], False
        elif words[0] == "loop_":
            in_loop = True
        elif words[0].startswith("_") and in_loop and not rows:
            labels.append(words[0][1:])
        elif words[0].startswith("_") and not in_loop:
            if not rows:
                rows.append({})
            rows[0][words[0][1:]] = words[1] if len(words) > 1 else ""
        elif in_loop:
            rows.append(dict(zip(labels, words, strict=False)))
    return blocks


def _words(line: str) -> list[str]:
    """Words of a line, quotes taken off, what follows a ``#`` left out."""
    found: list[str] = []
    for match in _WORD.finditer(line):
        if match.group(3) is not None and match.group(3).startswith("#"):
            break
        found.append(next(group for group in match.groups() if group is not None))
    return found


def write_if_changed(path: Path, text: str) -> bool:
    """Put ``text`` at ``path`` by atomic rename, unless it's there already.

    Returns
    -------
    bool
        Whether anything was written.
    """
    data = text.encode()
    try:
        if path.stat().st_size == len(data) and path.read_bytes() == data:
            return False
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        temporary.chmod(FILE_MODE)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return True
