"""What MotionCor2 and MotionCor3 say of the frames' shifts: in their output, and in ``-Full.log`` files.

Versions differ: lines ``...... Frame (  1) shift:     0.00     0.00`` under ``Full-frame alignment
shift``, or a table under ``Frame   x Shift   y Shift``.
"""

import math
import re

import numpy as np
from numpy.typing import NDArray

from vitriflow.errors import BadFile, Reason

_NUMBER = r"([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|[-+]?(?:nan|inf))"
_LINE = re.compile(rf"Frame\s*\(\s*(\d+)\s*\)\s*shift:\s*{_NUMBER}\s+{_NUMBER}", re.I)
_ROW = re.compile(rf"\s*(\d+)\s+{_NUMBER}\s+{_NUMBER}\s*$", re.I)
_HEAD = re.compile(r"Full-frame alignment shift|Frame\s+x Shift\s+y Shift", re.I)


def read_motioncor_shifts(text: str, source: str = "MotionCor's output") -> NDArray[np.float64]:
    """Global shift of each frame ``(n_frames, 2)``, y, x in pixels of the movie, the first frame's zero.

    Parameters
    ----------
    text
        What the program said, or a ``-Full.log`` file.
    source
        Name for messages.

    Raises
    ------
    BadFile
        When there's no such table in it, a frame is missing, or a number isn't one.
    """
    rows = _rows(text.replace("\r", "\n").splitlines())
    if not rows:
        raise BadFile(
            Reason.METADATA_MISSING,
            source,
            "a table of full-frame shifts",
            "none",
            "Did it align? Is this another version of the program?",
        )
    numbers = [frame for frame, _, _ in rows]
    if numbers != list(range(numbers[0], numbers[0] + len(rows))):
        raise BadFile(
            Reason.METADATA_BROKEN,
            source,
            "one row of shifts a frame, in order",
            f"frames {numbers[:8]} ...",
            "Run it again.",
        )
    shifts: NDArray[np.float64] = np.array([(y, x) for _, x, y in rows], dtype=np.float64)
    if not all(map(math.isfinite, shifts.ravel())):
        raise BadFile(Reason.METADATA_BROKEN, source, "finite shifts", "NaN or infinity", "Run it again.")
    shifts -= shifts[0].copy()
    return shifts


def _rows(lines: list[str]) -> list[tuple[int, float, float]]:
    """Frame, x and y of the first full table; of a file without heads, of all rows."""
    found: list[tuple[int, float, float]] = []
    headed = any(map(_HEAD.search, lines))
    reading = not headed
    for line in lines:
        match = _LINE.search(line) or _ROW.match(line)
        if reading and match:
            found.append((int(match.group(1)), float(match.group(2)), float(match.group(3))))
        elif _HEAD.search(line):
            if found:
                break
            reading = True
        elif found and headed and line.strip():
            break
    return found
