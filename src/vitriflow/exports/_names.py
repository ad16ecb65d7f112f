"""Names inside a RELION project: short, relative, and of letters that RELION can carry.

Measured with RELION 3.1.3: names with a blank or with non-ASCII letters are read (quoted), but a
*folder* with a blank breaks extraction, and ``#``, ``%`` and ``:`` in a file's name can't be
opened at all. So what isn't plainly safe gets a link with a safe name beside it; the file
itself keeps its own.
"""

import hashlib
import os
import re
import unicodedata
from pathlib import Path

from vitriflow.errors import BadConfig

IMPORT = "Import/job001"
MOVIES = "Movies"
_SAFE_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]*")
_UNSAFE_LETTER = re.compile(r"[^A-Za-z0-9._+-]")
_SUFFIX = re.compile(r"[A-Za-z0-9]{1,5}")
_JOB = re.compile(r"job\d{3,}")


def safe_part(text: str) -> str:
    """One component of a path in safe letters; a changed one gets a digest, so that two never meet.

    A file's suffix stays last, since RELION tells formats by it.
    """
    if _SAFE_PART.fullmatch(text):
        return text
    digest = hashlib.blake2b(text.encode(errors="surrogateescape"), digest_size=4).hexdigest()
    stem, dot, suffix = text.rpartition(".")
    if not (stem and _SUFFIX.fullmatch(suffix)):
        stem, dot, suffix = text, "", ""
    plain = unicodedata.normalize("NFKD", stem).encode("ascii", "ignore").decode()
    return f"{_UNSAFE_LETTER.sub('_', plain).lstrip('.+-')}-{digest}{dot}{suffix}".lstrip("-")


def safe_path(text: str) -> str:
    """A relative path with each of its components made safe."""
    return "/".join(safe_part(part) for part in text.split("/") if part not in ("", ".", ".."))


def make_link(link: Path, target: str) -> None:
    """Make ``link`` point at ``target``, replacing an older link in one step.

    Raises
    ------
    BadConfig
        When a file or a folder that isn't a link stands there.
    """
    if link.is_symlink():
        if str(link.readlink()) == target:
            return
    elif link.exists():
        raise BadConfig(
            str(link),
            expected=f"a link to {target}",
            found="a folder" if link.is_dir() else "a file",
            remedy="Move it away: vitriflow never replaces what it didn't make.",
        )
    link.parent.mkdir(parents=True, exist_ok=True)
    temporary = link.parent / f".{link.name}.{os.getpid()}"
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    temporary.replace(link)


class ProjectNames:
    """Turns paths into names relative to the project's root, with links where RELION needs them.

    Parameters
    ----------
    root
        The project: ``processed/<processing>`` of a session.
    shown
        The folder that ``Movies`` shows: the session's ``raw``, or the microscope's own.
    sources
        Other paths of the same folder, as exposures may name it.
    """

    def __init__(self, root: Path, shown: Path, sources: tuple[Path, ...] = ()) -> None:
        self.root = root
        self._shown = shown
        self._bases = (shown, *sources)
        self._made: set[str] = set()

    def link_movies(self) -> None:
        """Make the link ``Movies``: relative inside the session, so that the session can be moved."""
        inside = self.root.is_relative_to(self._shown.parent)
        target = os.path.relpath(self._shown, self.root) if inside else str(self._shown)
        make_link(self.root / MOVIES, target)

    def job_of(self, path: str) -> str | None:
        """The job folder that holds an output, such as ``MotionCorr/job002``; None outside of any."""
        inside = self._inside(path)
        parts = inside.split("/") if inside else []
        return "/".join(parts[:2]) if len(parts) > 2 and _JOB.fullmatch(parts[1]) else None

    def output(self, path: str, item: str) -> str | None:
        """Name of a step's output, or None when it doesn't lie in a job folder.

        The part that comes from the item is made safe by itself, so that a micrograph and its
        coordinates keep names that differ in folder and suffix alone, as RELION expects.
        """
        job, inside = self.job_of(path), self._inside(path)
        if job is None or inside is None:
            return None
        rest = inside[len(job) + 1 :]
        stem, suffix = (item, rest[len(item) :]) if rest.startswith(item) else (rest, "")
        safe = safe_path(stem) + safe_suffix(suffix)
        return self._linked(f"{job}/{safe}", path) if safe != rest else inside

    def movie(self, path: str) -> str:
        """Name of a file as the microscope wrote it: below ``Movies``, or linked from ``Import``."""
        below = self._below(path)
        if below is not None and safe_path(below) == below:
            return f"{MOVIES}/{below}"
        stem = below if below is not None else path.lstrip("/")
        return self._linked(f"{IMPORT}/{safe_path(stem)}", path)

    def imported(self, path: str, item: str) -> str:
        """Name of a ready micrograph: a link in ``Import``, named by its item.

        RELION looks for coordinates under what follows the job folder in a micrograph's name,
        which has to be the item, so ``Movies/...`` itself wouldn't do.
        """
        return self._linked(f"{IMPORT}/{safe_path(item)}{safe_suffix(Path(path).suffix)}", path)

    def _linked(self, name: str, path: str) -> str:
        if name not in self._made:
            link = self.root / name
            below, inside = self._below(path), self._inside(path)
            if inside is not None:
                target = os.path.relpath(self.root / inside, link.parent)
            elif below is not None:
                target = os.path.relpath(self.root / MOVIES / below, link.parent)
            else:
                target = path
            make_link(link, target)
            self._made.add(name)
        return name

    def _inside(self, path: str) -> str | None:
        return _relative(path, self.root)

    def _below(self, path: str) -> str | None:
        return next((found for base in self._bases if (found := _relative(path, base))), None)


def safe_suffix(text: str) -> str:
    """What follows an item's name, made safe: ``_autopick.star`` stays as it is."""
    return _UNSAFE_LETTER.sub("_", text)


def _relative(path: str, base: Path) -> str | None:
    prefix = f"{base}/"
    return path[len(prefix) :] if path.startswith(prefix) else None
