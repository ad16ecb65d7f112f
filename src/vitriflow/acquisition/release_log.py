"""The log of what was removed from microscopes' disks: append-only, an intent before, the outcome after."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import orjson

INTENT = "intent"
FREED = "freed"
KEPT = "kept"


@dataclass(frozen=True, slots=True)
class FreedLine:
    """One line of ``freed.jsonl``.

    Attributes
    ----------
    what
        ``intent`` (written before a file is touched), then ``freed`` or ``kept``.
    ticket
        Joins an intent to its outcome.
    at, by
        When (ISO 8601, UTC, our clock) and on whose behalf.
    session, key, generation
        Which file.
    path
        Where it stood on the microscope's disk.
    aside
        Its name while it's being removed: it's first renamed, so that nothing else can be hit.
    size, stamp, blake3
        What it was: bytes, the disk's own change time (ns), hash.
    copies
        Where its proved copies are.
    why
        The permit, or why it was kept.
    """

    what: str
    ticket: str
    at: str
    by: str = ""
    session: str = ""
    key: str = ""
    generation: int = 1
    path: str = ""
    aside: str = ""
    size: int = 0
    stamp: int = 0
    blake3: str = ""
    copies: list[str] = field(default_factory=list)
    why: str = ""


class FreedLog:
    """Adds to ``freed.jsonl``, and finds what a kill left open.

    Parameters
    ----------
    path
        The log. Beside it ``.freed.offset`` says up to where nothing is open, so that a long log isn't
        read again each time; it may be removed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._mark = path.with_name(".freed.offset")

    def append(self, lines: Sequence[FreedLine]) -> None:
        """Write lines and sync them to disk before returning."""
        if not lines:
            return
        fresh = not self.path.exists()
        data = b"".join(orjson.dumps(asdict(line)) + b"\n" for line in lines)
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o640)
        try:
            end = os.fstat(descriptor).st_size
            if end and os.pread(descriptor, 1, end - 1) != b"\n":
                data = b"\n" + data  # a power cut tore the last line: it stays, and counts for nothing
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if fresh:
            _sync_folder(self.path.parent)

    def open_intents(self) -> list[FreedLine]:
        """Intents without an outcome: what was being removed when a process died."""
        waiting: dict[str, FreedLine] = {}
        for line in self._lines(self._settled()):
            if line.what == INTENT:
                waiting[line.ticket] = line
            else:
                waiting.pop(line.ticket, None)
        return list(waiting.values())

    def settle(self) -> None:
        """Note that nothing is open up to here."""
        if self.path.exists():
            temporary = self._mark.with_name(f"{self._mark.name}.{os.getpid()}")
            temporary.write_text(f"{self.path.stat().st_size}\n", encoding="ascii")
            temporary.replace(self._mark)

    def freed(self) -> Iterable[FreedLine]:
        """All that was removed, oldest first."""
        return (line for line in self._lines(0) if line.what == FREED)

    def _settled(self) -> int:
        try:
            return int(self._mark.read_text(encoding="ascii"))
        except (OSError, ValueError):
            return 0

    def _lines(self, start: int) -> Iterable[FreedLine]:
        try:
            stream = self.path.open("rb")
        except FileNotFoundError:
            return
        with stream:
            if start <= self.path.stat().st_size:
                stream.seek(start)
            for raw in stream:
                line = _parsed(raw)
                if line is not None:
                    yield line


def _parsed(raw: bytes) -> FreedLine | None:
    """A line; None for one that was torn."""
    try:
        values: dict[str, Any] = orjson.loads(raw)
        return FreedLine(**{name: values[name] for name in FreedLine.__slots__ if name in values})
    except (orjson.JSONDecodeError, TypeError):
        return None


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
