"""Picks of other programs: EMAN's ``.box``, Topaz' table, and plain rows of x and y.

All are handed over as ``(n, 2)`` y, x in pixels from the first pixel's centre, rows counted as stored.
"""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vitriflow.errors import BadFile, Reason
from vitriflow.formats._raw import RawFile
from vitriflow.formats.particles import read_coordinates

Picks = tuple[NDArray[np.float64], NDArray[np.float64]]
_LARGEST = 256 * 1024**2


def _rows(path: Path, least: int) -> list[list[str]]:
    with RawFile(path) as raw:
        text = raw.read(0, min(raw.size(), _LARGEST)).decode("utf-8", "replace")
    rows = [
        line.replace(",", " ").split()
        for line in text.splitlines()
        if line.strip() and line.strip()[0] != "#"
    ]
    for row in rows:
        if len(row) < least:
            raise _broken(path, f"at least {least} columns a row", repr(" ".join(row)[:80]))
    return rows


def _broken(path: Path, expected: str, found: str) -> BadFile:
    return BadFile(Reason.METADATA_BROKEN, str(path), expected, found, "Make the file anew.")


def _number(path: Path, word: str) -> float:
    try:
        value = float(word)
    except ValueError as error:
        raise _broken(path, "numbers in all columns", repr(word)) from error
    if not math.isfinite(value):
        raise _broken(path, "finite numbers", word)
    return value


def _picks(yx: list[tuple[float, float]], score: list[float]) -> Picks:
    return np.array(yx, dtype=np.float64).reshape(-1, 2), np.array(score, dtype=np.float64)


def read_box(path: Path) -> Picks:
    """EMAN's ``.box``: x and y of the lower left corner, width, height, and a score where there's one."""
    yx, score = [], []
    for row in _rows(path, 4):
        x, y, width, height = (_number(path, word) for word in row[:4])
        yx.append((y + height / 2.0, x + width / 2.0))
        score.append(_number(path, row[4]) if len(row) > 4 else 0.0)
    return _picks(yx, score)


def read_topaz(path: Path) -> Picks:
    """Topaz' table: image_name, x_coord, y_coord, score, divided by tabs."""
    rows = _rows(path, 3)
    if not rows or [name.lower() for name in rows[0][:3]] != ["image_name", "x_coord", "y_coord"]:
        found = " ".join(rows[0])[:80] if rows else "no line"
        raise _broken(path, "a first line with image_name, x_coord, y_coord", repr(found))
    scored = len(rows[0]) > 3
    # A name may hold spaces: numbers are counted from the end of the row
    last = 3 if scored else 2
    yx = [(_number(path, row[1 - last]), _number(path, row[-last])) for row in rows[1:]]
    return _picks(yx, [_number(path, row[-1]) if scored else 0.0 for row in rows[1:]])


def read_xy(path: Path) -> Picks:
    """Rows of x, y, and a score where there's a third column; a first line of words is passed over."""
    rows = _rows(path, 2)
    if rows and not _is_number(rows[0][0]):
        rows = rows[1:]
    yx = [(_number(path, row[1]), _number(path, row[0])) for row in rows]
    return _picks(yx, [_number(path, row[2]) if len(row) > 2 else 0.0 for row in rows])


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


PICK_READERS: dict[str, Callable[[Path], Picks]] = {
    "star": read_coordinates,
    "box": read_box,
    "topaz": read_topaz,
    "xy": read_xy,
}
