"""Gain references: read, checked, turned into the movie's orientation."""

from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vitriflow.errors import BadFile, Reason
from vitriflow.formats._raw import RawFile
from vitriflow.formats.dm import read_dm
from vitriflow.formats.opening import open_movie, sniff
from vitriflow.formats.tiff import read_first_page

Convention = Literal["multiply", "divide"]
_DM_SUFFIXES = {".dm3", ".dm4"}


class Orientation(Enum):
    """The eight ways to lay a reference on a movie: a rotation, then perhaps a flip.

    Rotations are clockwise with row 0 drawn at the top (as in relion_display), so the value
    pair ``(rotations, flip)`` is RELION's ``--gain_rot`` and ``--gain_flip`` and MotionCor's
    RotGain and FlipGain. Flip 0 is none, 1 in y (upside down), 2 in x (left to right).
    """

    AS_IS = (0, 0)
    ROTATED_90 = (1, 0)
    ROTATED_180 = (2, 0)
    ROTATED_270 = (3, 0)
    FLIPPED_Y = (0, 1)
    FLIPPED_X = (0, 2)
    ROTATED_90_FLIPPED_Y = (1, 1)
    ROTATED_90_FLIPPED_X = (1, 2)

    @property
    def label(self) -> str:
        """Name for people and parameters, such as ``rotated_90_flipped_y``."""
        return self.name.lower()

    @property
    def swaps_sides(self) -> bool:
        """Whether height and width change places."""
        return self.value[0] % 2 == 1

    def apply(self, array: NDArray[Any]) -> NDArray[Any]:
        """Turn an array ``(height, width)``; the result is contiguous."""
        turns, flip = self.value
        turned = np.rot90(array, -turns)
        if flip == 1:
            turned = turned[::-1]
        elif flip == 2:
            turned = turned[:, ::-1]
        return np.ascontiguousarray(turned)

    @classmethod
    def from_label(cls, label: str) -> "Orientation":
        """The orientation of that name; KeyError when there is none."""
        return cls[label.upper()]


@dataclass(frozen=True)
class Gain:
    """A gain reference in the movie's orientation.

    Attributes
    ----------
    array
        float32 ``(height, width)``; zero marks a defect.
    convention
        ``multiply``: corrected = raw * array. ``divide``: corrected = raw * mean / array.
    path
        The file it came from.
    orientation
        How it was turned.
    """

    array: NDArray[np.float32]
    convention: Convention
    path: Path
    orientation: Orientation

    @property
    def defects(self) -> NDArray[np.bool_]:
        """Where the reference says that the pixel is no good (zero)."""
        return np.equal(self.array, 0)

    def multiplier(self) -> NDArray[np.float32]:
        """What raw frames are multiplied with, float32 ``(height, width)``; zero at defects.

        For references that divide this is mean / array, the mean taken over all pixels, as
        RELION does for EER.
        """
        if self.convention == "multiply":
            return self.array
        mean = float(self.array.mean(dtype=np.float64))
        inverse = np.zeros_like(self.array)
        np.divide(mean, self.array, out=inverse, where=self.array != 0)
        return inverse


def read_gain(
    path: Path,
    shape: tuple[int, int] | None = None,
    orientation: Orientation = Orientation.AS_IS,
    movie_format: str | None = None,
) -> Gain:
    """Read a gain reference from .mrc, .tif, .gain (TIFF, written for EER), .dm3 or .dm4.

    TIFF and DigitalMicrograph references are flipped in y as movies are; MRC and ``.gain``
    aren't (RELION does the same). References for EER movies divide, but for ``.gain``, which
    multiply; all others multiply.

    Parameters
    ----------
    path
        The reference.
    shape
        ``(height, width)`` of the movie; None leaves the size unchecked.
    orientation
        How to turn it after reading.
    movie_format
        ``Movie.format`` of the movie. For ``eer`` a reference of half or twice the size is
        fitted, as RELION does: repeated, or averaged over 2 x 2 pixels.

    Raises
    ------
    BadFile
        ``gain.missing``, ``gain.wrong_size`` (says both sizes and whether a rotation would
        fit), ``gain.bad`` (negative, not finite or nothing but zeros), or why it can't be read.
    """
    path = Path(path)
    array = orientation.apply(_load(path))
    if shape is not None and movie_format == "eer":
        array = _fit(array, shape)
    if shape is not None and array.shape != tuple(shape):
        raise _wrong_size(path, array.shape, shape, orientation)
    _check_values(path, array)
    divides = movie_format == "eer" and path.suffix.lower() != ".gain"
    return Gain(array, "divide" if divides else "multiply", path, orientation)


def _load(path: Path) -> NDArray[np.float32]:
    """The reference as stored, in MRC order but for ``.gain``, which stays as it is."""
    if not path.exists():
        raise BadFile(
            Reason.GAIN_MISSING,
            str(path),
            expected="a gain reference",
            found="no such file",
            remedy="Give the path of the reference, or none if the movies are corrected already.",
        )
    if path.suffix.lower() in _DM_SUFFIXES:
        return read_dm(path)[0].astype(np.float32)
    with RawFile(path) as raw:
        kind = sniff(raw)
    if kind not in {"mrc", "tiff"}:
        raise BadFile(
            Reason.GAIN_BAD,
            str(path),
            expected="a gain reference in MRC, TIFF (.tif, .gain) or DigitalMicrograph format",
            found=f"a file of kind '{kind}'",
            remedy="Convert it to MRC.",
        )
    if path.suffix.lower() == ".gain":
        # Whatever pages may follow, the first is the gain; RELION takes back its flip of TIFF here.
        return np.ascontiguousarray(read_first_page(path)[::-1], dtype=np.float32)
    with open_movie(path) as movie:
        if movie.n_frames != 1:
            raise BadFile(
                Reason.GAIN_BAD,
                str(path),
                expected="a single image",
                found=f"{movie.n_frames} images",
                remedy="Is this a movie? Give the gain reference.",
            )
        return movie.frame(0).astype(np.float32)


def _fit(array: NDArray[np.float32], shape: tuple[int, int]) -> NDArray[np.float32]:
    """Bring a reference for EER onto a grid twice or half as fine, four times or a quarter too."""
    height, width = array.shape
    for factor in (2, 4):
        if (height * factor, width * factor) == tuple(shape):
            return np.repeat(np.repeat(array, factor, axis=0), factor, axis=1)
        if (height, width) == (shape[0] * factor, shape[1] * factor):
            blocks = array.reshape(shape[0], factor, shape[1], factor)
            return np.asarray(blocks.mean(axis=(1, 3), dtype=np.float64), np.float32)
    return array


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]} x {shape[0]} (width x height)"


def _wrong_size(
    path: Path, found: tuple[int, ...], shape: tuple[int, int], orientation: Orientation
) -> BadFile:
    if found[::-1] == tuple(shape):
        other = "without the rotation" if orientation.swaps_sides else "rotated by 90 degrees"
        remedy = f"It would fit {other}: try another orientation."
    elif (found[0] * 2, found[1] * 2) == tuple(shape) or found == (shape[0] * 2, shape[1] * 2):
        remedy = "One of the two is super-resolution: bin the reference or give the one of the movies' mode."
    else:
        remedy = "Give the reference that belongs to these movies."
    return BadFile(
        Reason.GAIN_SIZE,
        str(path),
        expected=f"a gain reference of {_size(shape)}, as the movie",
        found=_size(found),
        remedy=remedy,
    )


def _check_values(path: Path, array: NDArray[np.float32]) -> None:
    n_bad = int(array.size - np.isfinite(array).sum())
    n_negative = int((array < 0).sum())
    found = ""
    if n_bad:
        found = f"{n_bad} pixels that aren't finite numbers"
    elif n_negative:
        found = f"{n_negative} negative pixels"
    elif not array.any():
        found = "nothing but zeros"
    if found:
        raise BadFile(
            Reason.GAIN_BAD,
            str(path),
            expected="a gain reference of positive numbers, zero at defects",
            found=found,
            remedy="Is this a dark reference or another file? Take the gain reference again.",
        )
