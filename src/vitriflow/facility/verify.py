"""Proves a session's files again: what its manifest lists is read past the page cache and compared."""

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import select
from sqlalchemy.orm import Session as OrmSession

from vitriflow.acquisition.copying import is_temporary, read_back
from vitriflow.acquisition.copying_shared import Buffer
from vitriflow.acquisition.scan import key_of, name_of
from vitriflow.catalog import Catalog, Event, FileState, SourceFile, now
from vitriflow.elogbook import find_session
from vitriflow.errors import BadParameter
from vitriflow.storage import ManifestLine, SessionFolder, newest_lines

What = Literal["missing", "changed", "unreadable", "extra", "unlisted"]
_TOLD = 10  # names in the event; the report has them all
_LOOK_AHEAD = 64


@dataclass(frozen=True, slots=True)
class Finding:
    """One file that isn't as the manifest says. ``path`` is below the session's folder."""

    path: str
    what: What
    text: str


@dataclass
class VerifyReport:
    """What was found. ``findings`` is empty when all is well."""

    session: str
    folder: str
    quick: bool
    files: int = 0  # in the manifest
    bytes: int = 0
    proved: int = 0  # files read and found equal (with ``quick``: there, and of the right size)
    waiting: int = 0  # files that the catalog knows and that aren't proved yet
    methods: dict[str, int] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    @property
    def is_good(self) -> bool:
        """Whether nothing is missing, changed, unreadable or unlisted; extra files are only told."""
        return all(finding.what == "extra" for finding in self.findings)

    def as_json(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {"good": self.is_good, **asdict(self)}


def verify_session(
    catalog: Catalog,
    key: str,
    *,
    quick: bool = False,
    threads: int = 4,
    on_progress: Callable[[int, int], None] | None = None,
) -> VerifyReport:
    """Read every file of a session's manifest past the page cache and compare; the result is noted as an event.

    Parameters
    ----------
    quick
        Only names and sizes: finds what is missing, cut short or extra, not a flipped byte.
    threads
        Files read side by side.
    on_progress
        Told the bytes done and the bytes there are to do.

    Raises
    ------
    BadParameter
        When there's no such session, it's only in the archive, or its manifest is gone though files
        were proved.
    """
    session = find_session(catalog, key)
    folder = SessionFolder(Path(session.root))
    if session.residence == "archived":
        raise BadParameter(
            f"session '{key}'",
            "its files on disk",
            "they're in the archive only",
            "Recall it first, or verify the archive.",
        )
    lines = newest_lines(folder.manifest)
    report = VerifyReport(key, str(folder.root), quick, files=len(lines))
    report.bytes = sum(line.size for line in lines.values())
    proved, report.waiting = _known(catalog, session.id)
    if not lines and proved:
        raise BadParameter(
            str(folder.manifest),
            f"the manifest of {len(proved)} proved files",
            "no manifest" if not folder.manifest.exists() else "an empty one",
            "Restore it from a backup or an archive of this session.",
        )
    _prove_all(folder.root, lines, report, threads, on_progress)
    _compare_with_catalog(lines, proved, report)
    if not folder.raw.is_symlink():
        report.findings += _extra(folder, lines)
    report.findings.sort(key=lambda finding: finding.path)
    _note(catalog, session.id, report)
    return report


def _known(catalog: Catalog, session_id: int) -> tuple[dict[str, str], int]:
    """Hashes of proved files by destination, and how many files wait."""

    def work(orm: OrmSession) -> tuple[dict[str, str], int]:
        mine = SourceFile.session_id == session_id
        query = select(SourceFile.destination, SourceFile.blake3).where(
            mine, SourceFile.state == FileState.PROVED
        )
        proved = {path: digest for path, digest in orm.execute(query) if path and digest}
        open_states = (FileState.SEEN, FileState.COMPLETE, FileState.COPIED)
        waiting = orm.scalars(select(SourceFile.id).where(mine, SourceFile.state.in_(open_states)))
        return proved, len(list(waiting))

    return catalog.read(work)


def _prove_all(
    root: Path,
    lines: dict[str, ManifestLine],
    report: VerifyReport,
    threads: int,
    on_progress: Callable[[int, int], None] | None,
) -> None:
    local, buffers = threading.local(), list[Buffer]()

    def prove(line: ManifestLine) -> tuple[ManifestLine, Finding | str]:
        if not hasattr(local, "buffer"):
            local.buffer = Buffer()
            buffers.append(local.buffer)
        return line, _prove(root, line, report.quick, local.buffer)

    done = 0
    with ThreadPoolExecutor(max(1, threads)) as pool:
        for line, found in _ahead(pool, prove, iter(lines.values())):
            if isinstance(found, Finding):
                report.findings.append(found)
            else:
                report.proved += 1
                report.methods[found] = report.methods.get(found, 0) + 1
            done += line.size
            if on_progress is not None:
                on_progress(done, report.bytes)
    for buffer in buffers:
        buffer.close()


def _ahead(
    pool: ThreadPoolExecutor,
    work: Callable[[ManifestLine], tuple[ManifestLine, Finding | str]],
    lines: Iterator[ManifestLine],
) -> Iterator[tuple[ManifestLine, Finding | str]]:
    """Results in order, with only so many under way: memory stays flat however many files there are."""
    pending = [pool.submit(work, line) for line, _ in zip(lines, range(_LOOK_AHEAD), strict=False)]
    while pending:
        yield pending.pop(0).result()
        following = next(lines, None)
        if following is not None:
            pending.append(pool.submit(work, following))


def _prove(root: Path, line: ManifestLine, quick: bool, buffer: Buffer) -> Finding | str:
    """The method by which a file was found to be good, or what is wrong with it."""
    path = root / line.path
    if line.mode == "in_place":
        path = root / name_of(line.path)
    try:
        size = path.stat().st_size
        if size != line.size:
            return Finding(line.path, "changed", f"{size} bytes; the manifest says {line.size}")
        if quick:
            return "size"
        digest, _, method = read_back(path, buffer)
    except FileNotFoundError:
        return Finding(
            line.path, "missing", f"not there; the manifest says that it was proved {line.proved_at}"
        )
    except OSError as error:
        return Finding(line.path, "unreadable", error.strerror or str(error))
    if digest != line.blake3:
        return Finding(line.path, "changed", f"BLAKE3 {digest}; the manifest says {line.blake3}")
    return method


def _compare_with_catalog(
    lines: dict[str, ManifestLine], proved: dict[str, str], report: VerifyReport
) -> None:
    for path, digest in proved.items():
        line = lines.get(path)
        if line is None:
            text = "proved by the catalog, but not in the manifest"
            report.findings.append(Finding(path, "unlisted", text))
        elif line.blake3 != digest:
            text = f"BLAKE3 {digest} in the catalog, {line.blake3} in the manifest"
            report.findings.append(Finding(path, "changed", text))


def _extra(folder: SessionFolder, lines: dict[str, ManifestLine]) -> Iterator[Finding]:
    """Files below raw/ that the manifest doesn't list: on their way, or put there by somebody."""
    for where, _, names in os.walk(folder.raw):
        for name in names:
            path = key_of(str(Path(where, name).relative_to(folder.root)))
            if path not in lines and str(Path(where, name).relative_to(folder.root)) not in lines:
                why = "being copied, or left over" if is_temporary(name) else "not in the manifest"
                yield Finding(path, "extra", why)


def _note(catalog: Catalog, session_id: int, report: VerifyReport) -> None:
    bad = [finding for finding in report.findings if finding.what != "extra"]
    how = "by name and size" if report.quick else "past the page cache"
    if bad:
        names = "; ".join(f"{finding.path} ({finding.what})" for finding in bad[:_TOLD])
        more = f" and {len(bad) - _TOLD} more" if len(bad) > _TOLD else ""
        text = f"Verification {how}: {len(bad)} of {report.files} files aren't as the manifest says: {names}{more}"
    else:
        text = f"Verification {how}: all {report.files} files of the manifest are as it says"
    event = {"at": now(), "session_id": session_id, "severity": "alarm" if bad else "info", "text": text}
    catalog.write(lambda orm: orm.add(Event(**event)))
