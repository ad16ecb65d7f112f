"""Coordinates and particle stacks with their STAR files, as RELION 3.1 and later read them."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vitriflow.errors import BadFile, Reason
from vitriflow.formats.mrc import MrcMovie
from vitriflow.formats.mrc_write import MrcWriter
from vitriflow.formats.star import read_star, write_star

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "ParticleSet",
    "read_coordinates",
    "read_particles",
    "read_stack",
    "write_coordinates",
    "write_particles",
    "write_stack",
]


def read_coordinates(path: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Coordinates ``(n, 2)``, y, x in pixels from the first pixel's centre, and scores ``(n,)`` (0 where none).

    A table without rows is a valid answer: nothing was found.

    Raises
    ------
    BadFile
        When it isn't a STAR file of coordinates, or holds values that aren't numbers.
    """
    blocks = [block for block in read_star(path).values() if _columns(block)]
    table = next((block for block in blocks if "rlnCoordinateX" in _columns(block)), None)
    if table is None:
        if not blocks or all(not len(_first(block)) for block in blocks):
            return np.zeros((0, 2)), np.zeros(0)
        raise _bad(path, "columns rlnCoordinateX and rlnCoordinateY", f"{', '.join(_columns(blocks[0])[:6])}")
    try:
        yx = np.stack([_numbers(table, f"rlnCoordinate{axis}") for axis in "YX"], axis=1)
        has_score = "rlnAutopickFigureOfMerit" in _columns(table)
        score = _numbers(table, "rlnAutopickFigureOfMerit") if has_score else np.zeros(len(yx))
    except (KeyError, ValueError, TypeError) as error:
        raise _bad(path, "numbers in all coordinates and scores", str(error)) from error
    if not (np.isfinite(yx).all() and np.isfinite(score).all()):
        raise _bad(path, "finite coordinates and scores", "NaN or infinite ones")
    return yx, score


def _columns(block: Any) -> list[str]:
    return [str(name) for name in (block.keys() if isinstance(block, dict) else block.columns)]


def _first(block: Any) -> Any:
    values = list(block.values()) if isinstance(block, dict) else [block[name] for name in block.columns]
    return np.atleast_1d(values[0]) if values else []


def _numbers(table: Any, name: str) -> NDArray[np.float64]:
    return np.atleast_1d(np.asarray(table[name], dtype=np.float64))


def _bad(path: Path, expected: str, found: str) -> BadFile:
    return BadFile(Reason.METADATA_BROKEN, str(path), expected, found, "Make the file anew.")


def write_coordinates(path: Path, yx: NDArray[np.float64], score: NDArray[np.float64]) -> None:
    """Write coordinates ``(n, 2)`` y, x with scores ``(n,)``, as whole pixels: RELION cuts the rest off."""
    import pandas as pd

    table = {
        "rlnCoordinateX": np.rint(yx[:, 1]),
        "rlnCoordinateY": np.rint(yx[:, 0]),
        "rlnAutopickFigureOfMerit": score.round(5),
    }
    write_star(path, {"": pd.DataFrame(table)})


def write_stack(path: Path, images: NDArray[np.float32], pixel_size_A: float, half: bool = False) -> None:
    """Write images ``(n, height, width)`` as an MRC stack; ``half`` as 16-bit floats (RELION 4 and later)."""
    kind = np.float16 if half else np.float32
    with MrcWriter(path, (images.shape[1], images.shape[2]), kind, pixel_size_A, len(images)) as writer:
        for image in images:
            writer.write(image.astype(kind))


def read_stack(path: Path) -> NDArray[np.float32]:
    """All images ``(n, height, width)`` of an MRC stack, 16-bit floats made 32-bit ones.

    Raises
    ------
    BadFile
        When it isn't MRC, is too short, or is gone.
    """
    movie = MrcMovie(path)
    try:
        frames = [movie.frame(index) for index in range(movie.n_frames)]
    finally:
        movie.close()
    return np.stack(frames).astype(np.float32)


@dataclass(frozen=True)
class ParticleSet:
    """Particles of a STAR file.

    Attributes
    ----------
    table
        ``data_particles``, in order.
    optics
        ``data_optics``: one row per group.
    folder
        Where the STAR file lies.
    """

    table: "pd.DataFrame"
    optics: "pd.DataFrame"
    folder: Path

    def __len__(self) -> int:
        return len(self.table)

    def places(self) -> list[tuple[int, Path]]:
        """For each particle its place in its stack (from 0), and the stack.

        A stack without folder lies beside the STAR file; with one, it's looked for from there upwards,
        as RELION's names count from the project's root.
        """
        found: dict[str, Path] = {}
        places = []
        for name in self.table["rlnImageName"]:
            number, _, stack = str(name).partition("@")
            if stack not in found:
                found[stack] = self._stack(stack)
            places.append((int(number) - 1, found[stack]))
        return places

    def _stack(self, name: str) -> Path:
        given = Path(name)
        if given.is_absolute():
            return given
        for folder in (self.folder, *self.folder.parents):
            if (folder / given).is_file():
                return folder / given
        return self.folder / given

    def optics_of(self, group: int) -> "dict[str, Any]":
        """The row of an optics group."""
        rows = self.optics[self.optics["rlnOpticsGroup"] == group]
        if not len(rows):
            raise _bad(self.folder, f"optics group {group} in data_optics", "none of that number")
        return {str(key): value for key, value in rows.iloc[0].items()}


def read_particles(path: Path) -> ParticleSet:
    """Read a particle STAR file of RELION 3.1 or later.

    Raises
    ------
    BadFile
        When it has no ``data_optics`` and ``data_particles``, or these lack what names the images.
    """
    import pandas as pd

    blocks = read_star(path)
    tables = {}
    for name in ("optics", "particles"):
        block = blocks.get(name)
        if block is None:
            raise _bad(
                path, "data_optics and data_particles (RELION 3.1 or later)", ", ".join(blocks) or "none"
            )
        tables[name] = pd.DataFrame([block]) if isinstance(block, dict) and block else pd.DataFrame(block)
    particles, optics = tables["particles"], tables["optics"]
    for name, table, wanted in (
        ("particles", particles, ("rlnImageName", "rlnOpticsGroup")),
        ("optics", optics, ("rlnOpticsGroup", "rlnImagePixelSize")),
    ):
        missing = [column for column in wanted if column not in table.columns]
        if missing and len(particles):
            raise _bad(path, f"{', '.join(wanted)} in data_{name}", f"no {', '.join(missing)}")
    return ParticleSet(particles, optics, Path(path).resolve().parent)


def write_particles(path: Path, particles: "pd.DataFrame", optics: "pd.DataFrame") -> None:
    """Write a particle STAR file with its optics groups."""
    write_star(path, {"optics": optics, "particles": particles})
