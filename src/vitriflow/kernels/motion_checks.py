"""Checks that a movie and its motion can be what they claim to be."""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from vitriflow.errors import BadImage, BrokenInvariant, Reason
from vitriflow.kernels.motion_field import MotionField
from vitriflow.kernels.motion_refine import Refinement

__all__ = ["PatternProbe", "check_frames", "check_shifts", "check_sums"]

_TILE = 512
_EDGE = 0.4  # cycles/px: past it a specimen shows next to nothing, a gain pattern as much as anywhere
_CERTAIN = 4.0  # standard deviations
_FAINT = 0.5  # a frame with less than this part of the median intensity isn't like the others


def check_frames(sums: NDArray[np.float64], total: NDArray[np.float32]) -> tuple[list[int], list[str]]:
    """Refuse movies that hold no picture; name frames that have to be left out.

    Parameters
    ----------
    sums
        ``(n,)`` sum of each frame.
    total
        ``(height, width)`` sum of all frames.

    Returns
    -------
    tuple
        Frames to leave out, counted from 0, and warnings.

    Raises
    ------
    BadImage
        NOT_FINITE, ALL_ZERO or CONSTANT.
    """
    broken = np.nonzero(~np.isfinite(sums))[0]
    if len(broken):
        raise BadImage(
            Reason.NOT_FINITE,
            f"movie, frame {broken[0] + 1}",
            expected="finite values",
            found=f"NaN or infinity in {len(broken)} of {len(sums)} frames",
            remedy="The file was damaged or written wrongly: copy it again, or check what wrote it.",
        )
    low, high = float(total.min()), float(total.max())
    if low == high:
        reason = Reason.ALL_ZERO if low == 0 else Reason.CONSTANT
        raise BadImage(
            reason,
            "movie",
            expected="electrons",
            found=f"{low / len(sums):g} in every pixel of every frame",
            remedy="Look at the beam, the valves and the camera.",
        )
    empty = [int(i) for i in np.nonzero(sums == 0)[0]]
    warnings = []
    if empty:
        names = ", ".join(str(i + 1) for i in empty)
        warnings.append(f"frame {names} is all zero and was left out")
    middle = float(np.median(sums[sums != 0])) if (sums != 0).any() else 0.0
    faint = [int(i) for i in np.nonzero((sums != 0) & (sums < _FAINT * middle))[0]]
    if faint:
        names = ", ".join(str(i + 1) for i in faint)
        warnings.append(f"frame {names} has less than half of the others' intensity")
    return empty, warnings


def check_shifts(field: MotionField, max_shift_px: float) -> None:
    """Refuse a motion that leaves the bounds of what's believed.

    Raises
    ------
    BrokenInvariant
        SHIFT_BOUNDS, or NOT_FINITE.
    """
    height, width = field.shape
    y, x = np.meshgrid([0.0, height / 2, height - 1.0], [0.0, width / 2, width - 1.0], indexing="ij")
    shifts = field.at(y, x)
    if not np.isfinite(shifts).all():
        raise BrokenInvariant(Reason.NOT_FINITE, "shifts", "finite values", "NaN or infinity")
    largest = np.abs(shifts).max(axis=(1, 2, 3))
    frame = int(largest.argmax())
    if largest[frame] > max_shift_px:
        raise BrokenInvariant(
            Reason.SHIFT_BOUNDS,
            f"shift of frame {frame + 1}",
            expected=f"at most {max_shift_px:.1f} px along each axis",
            found=f"{largest[frame]:.1f} px",
            remedy="The frames share nothing to align by, or the stage drifted: raise max_shift_A if it did.",
        )


def check_sums(images: Mapping[str, torch.Tensor | None]) -> None:
    """Refuse sums that aren't pictures.

    Raises
    ------
    BrokenInvariant
        NOT_FINITE or CONSTANT.
    """
    for name, image in images.items():
        if image is None:
            continue
        low, high = (float(value) for value in torch.aminmax(image))
        if not (np.isfinite(low) and np.isfinite(high)):
            raise BrokenInvariant(Reason.NOT_FINITE, f"corrected {name}", "finite values", "NaN or infinity")
        if low == high:
            raise BrokenInvariant(Reason.CONSTANT, f"corrected {name}", "contrast", f"{low:g} everywhere")


class PatternProbe:
    """Measures what stands still on the camera: a gain that wasn't corrected, or not rightly.

    The sums of the first and of the second half of the frames, not aligned, are compared at the
    highest frequencies. Noise of different frames shares nothing there, a specimen next to
    nothing; a fixed pattern is white and shows.

    Parameters
    ----------
    shape
        ``(height, width)`` of the frames.
    n_frames
        How many there are.
    """

    def __init__(self, shape: tuple[int, int], n_frames: int) -> None:
        side = min(_TILE, min(shape) // 2 * 2)
        rows = sorted({(shape[0] - side) // 4, (shape[0] - side) * 3 // 4})
        columns = sorted({(shape[1] - side) // 4, (shape[1] - side) * 3 // 4})
        self._tiles = [(slice(y, y + side), slice(x, x + side)) for y in rows for x in columns]
        self._half = n_frames // 2
        self._n_frames = n_frames
        self._sums = np.zeros((2, len(self._tiles), side, side), dtype=np.float32)

    def add(self, start: int, frames: NDArray[np.generic], gain: NDArray[np.float32] | None) -> None:
        """Take up frames ``start``, ``start + 1``, ... ``(n, height, width)``."""
        for place, tile in enumerate(self._tiles):
            cut = frames[(slice(None), *tile)]
            split = int(np.clip(self._half - start, 0, len(frames)))
            for half, part in ((0, cut[:split]), (1, cut[split:])):
                if len(part):
                    added = part.sum(axis=0, dtype=np.float32)
                    self._sums[half, place] += added if gain is None else added * gain[tile]

    def level(self) -> float:
        """Power of the fixed pattern over the power of one frame's noise; 0 where chance would do."""
        sums = torch.from_numpy(self._sums)
        sums = sums - sums.mean(dim=(2, 3), keepdim=True)
        spectra = torch.fft.rfft2(sums)
        side = self._sums.shape[-1]
        ky = torch.fft.fftfreq(side)[:, None]
        kx = torch.fft.rfftfreq(side)[None, :]
        outer = torch.hypot(ky, kx) > _EDGE
        first, second = spectra[0][:, outer], spectra[1][:, outer]
        shared = float((first * second.conj()).real.mean())
        powers = float((first.abs() ** 2).mean()), float((second.abs() ** 2).mean())
        chance = np.sqrt(powers[0] * powers[1] / (2 * first.numel()))  # what noise shares (one deviation)
        if shared < _CERTAIN * chance:
            return 0.0
        noise = sum(powers) / self._n_frames
        return shared / (self._half * (self._n_frames - self._half)) / max(noise, 1e-30)

    def share(self, refinement: Refinement) -> float:
        """Part of the signal that frames were aligned by which is fixed pattern, 0 to 1."""
        if self._half == 0:
            return 0.0
        k = refinement.frequency
        signal = np.maximum(refinement.signal, 0.0)
        # The power that the alignment's information comes from: k^2 (its slope) times k (its ring).
        power = float(np.sum(k**3 * signal**2 / refinement.noise))
        whole = float(np.sum(k**3 * signal))
        if whole <= 0 or power <= 0:
            return 0.0
        usual = power / whole  # signal over noise, averaged where the signal is
        return float(np.clip(self.level() / usual, 0.0, 1.0))
