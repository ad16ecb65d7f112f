"""Which gain reference a session uses, when nobody named one: the newest of the microscope's that fits."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vitriflow.config import MicroscopeSection
from vitriflow.errors import ItemError
from vitriflow.formats import Orientation, open_movie, read_gain
from vitriflow.pipeline import Template
from vitriflow.steps import find_step

_SUFFIXES = {".mrc", ".dm4", ".dm3", ".tif", ".tiff", ".gain"}
_MOST_TRIED = 40  # files that are opened; a folder of gain references holds few of one mode


def wants_gain(template: Template, scope: MicroscopeSection, parameters: dict[str, Any]) -> bool:
    """Whether a processing is to get a reference from the microscope's folders once there's a movie."""
    if parameters.get("gain_reference") is not None or "gain_reference" in parameters:
        return False  # named, or none wanted by name
    steps = (find_step(node.step) for node in template.written.nodes.values())
    return bool(gain_folders(scope)) and any("gain_reference" in s.Parameters.model_fields for s in steps)


def gain_folders(scope: MicroscopeSection, metadata: dict[str, Any] | None = None) -> list[Path]:
    """Folders that may hold it: the camera's own that took the movie, else all of the microscope's."""
    said = [str(value).lower() for name in ("camera", "detector") if (value := (metadata or {}).get(name))]
    cameras = [camera for camera in scope.cameras.values() if camera.gain_folder is not None]
    mine = [c for c in cameras if any(name.lower() in word for name in c.names for word in said)]
    folders = [camera.gain_folder for camera in mine] or [
        *(camera.gain_folder for camera in cameras),
        scope.gain_folder,
    ]
    return list(dict.fromkeys(folder for folder in folders if folder is not None))


def choose_gain(
    scope: MicroscopeSection,
    movie: Path,
    metadata: dict[str, Any] | None = None,
    orientation: str | None = None,
) -> Path | None:
    """The newest reference that has the movie's size; one that the movie's own files name goes first.

    "Newest" compares the times of references with each other, all of one share, never with
    our clock or with the movie's.

    Parameters
    ----------
    scope
        The microscope.
    movie
        The session's first movie.
    metadata
        What its files say: the camera, and perhaps the reference's name.
    orientation
        How references are turned, as the step's parameter says it.

    Raises
    ------
    BadFile
        When the movie can't be read.
    """
    with open_movie(movie) as opened:
        shape, kind = opened.shape, opened.format
    turn = Orientation.from_label((orientation or "as_is").replace("-", "_"))
    named = str((metadata or {}).get("gain_reference") or "").replace("\\", "/").rsplit("/", 1)[-1].lower()
    found = [entry for folder in gain_folders(scope, metadata) for entry in _references(folder)]
    found.sort(key=lambda entry: (entry[1].name.lower() != named, -entry[0], str(entry[1])))
    for _, path in found[:_MOST_TRIED]:
        try:
            read_gain(path, shape, turn, kind)
        except (ItemError, OSError):
            continue  # another mode's, a dark reference, or half-written: the next one may do
        return path
    return None


def keep_gain(path: Path, folder: Path) -> Path:
    """A copy of the reference beside the session's results, so that they can be made again."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o750)
    kept = folder / path.name
    if not kept.exists():
        temporary = folder / f".{path.name}.{os.getpid()}"
        shutil.copyfile(path, temporary)
        temporary.replace(kept)
    return kept


def _references(folder: Path) -> Iterator[tuple[int, Path]]:
    """Time of change and path of what may be a reference, one level of folders down too."""
    try:
        entries = [
            *folder.iterdir(),
            *(inner for sub in folder.iterdir() if sub.is_dir() for inner in sub.iterdir()),
        ]
    except OSError:
        return
    for path in entries:
        try:
            if path.suffix.lower() in _SUFFIXES and path.is_file():
                yield path.stat().st_mtime_ns, path
        except OSError:
            continue
