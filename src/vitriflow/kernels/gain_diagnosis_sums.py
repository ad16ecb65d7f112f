"""Sums of raw frames over movies, for looking at the camera and not at the specimen."""

import hashlib
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitriflow.errors import BadImage, Reason

Float = NDArray[np.float32]


class FrameSums:
    """Sums of raw frames over movies, in two parts that share nothing but the camera.

    Movies go to the two parts in turn. While there's only one, its earlier and its later frames
    are the parts: they share the specimen too. A movie whose sum is a copy of one that came
    before is left out, since it shares even the noise.

    Parameters
    ----------
    shape
        ``(height, width)`` of the frames.

    Attributes
    ----------
    n_movies, n_frames
        What was summed, copies left out.
    """

    def __init__(self, shape: tuple[int, int]) -> None:
        self.shape = shape
        self.n_movies = 0
        self.n_frames = 0
        self._parts = np.zeros((2, *shape), dtype=np.float32)
        self._known: set[bytes] = set()

    @property
    def total(self) -> Float:
        """Sum of all frames, ``(height, width)``."""
        result: Float = self._parts.sum(axis=0)
        return result

    @property
    def parts(self) -> tuple[Float, Float] | None:
        """The two independent sums, or None while there's a single frame."""
        return None if self.n_frames < 2 else (self._parts[0], self._parts[1])

    def add(self, frames: Iterable[NDArray[Any]], n_frames: int) -> bool:
        """Take up a movie of raw frames, one at a time.

        Parameters
        ----------
        frames
            ``(height, width)`` each, raw counts.
        n_frames
            How many there will be.

        Returns
        -------
        bool
            False for a copy of a movie that was taken up before.

        Raises
        ------
        BadImage
            When the size differs, or the sum isn't finite, or is nowhere above zero. Nothing is
            taken up then.
        """
        early, late = np.zeros(self.shape, np.float32), np.zeros(self.shape, np.float32)
        for number, frame in enumerate(frames):
            if frame.shape != self.shape:
                raise BadImage(
                    Reason.WRONG_SIZE,
                    f"movie {self.n_movies + 1}, frame {number + 1}",
                    expected=f"{self.shape[1]} x {self.shape[0]} px, as the movies before",
                    found=f"{frame.shape[1]} x {frame.shape[0]} px",
                    remedy="Compare the gain with movies of one camera mode at a time.",
                )
            part = early if 2 * number < n_frames else late
            part += frame
        both = early + late
        _check_counts(both, self.n_movies + 1)
        mark = hashlib.blake2b(both.tobytes(), digest_size=16).digest()
        if mark in self._known:
            return False
        self._known.add(mark)
        if self.n_movies == 0:
            self._parts[0], self._parts[1] = early, late
        elif self.n_movies == 1:
            self._parts[0] += self._parts[1]
            self._parts[1] = both
        else:
            self._parts[self.n_movies % 2] += both
        self.n_movies += 1
        self.n_frames += n_frames
        return True


def _check_counts(total: Float, number: int) -> None:
    if not np.isfinite(total).all():
        raise BadImage(
            Reason.NOT_FINITE,
            f"movie {number}",
            expected="finite counts",
            found="NaN or infinity",
            remedy="The file was damaged or written wrongly: leave it out.",
        )
    if not float(total.mean(dtype=np.float64)) > 0:
        raise BadImage(
            Reason.ALL_ZERO,
            f"movie {number}",
            expected="counts above zero on average",
            found=f"a mean of {float(total.mean(dtype=np.float64)):g}",
            remedy="Look at the beam, the valves and the camera; leave this movie out.",
        )
