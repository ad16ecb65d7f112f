"""The motion of a movie as a field: shifts that depend on frame and place."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vitriflow.kernels.warp import block_centres

__all__ = ["N_TERMS", "MotionField", "spatial_terms"]

N_TERMS = 6
"""Spatial terms, in RELION's order: {1, u, u^2, v, v^2, u v}, u = x / width - 1/2, v likewise."""

_MEAN_OF_SQUARE = 1.0 / 12.0  # of u^2 over -1/2 to 1/2


def spatial_terms(
    y_px: NDArray[np.floating], x_px: NDArray[np.floating], shape: tuple[int, int]
) -> NDArray[np.float64]:
    """RELION's six spatial terms at places of the image.

    Parameters
    ----------
    y_px, x_px
        Coordinates of the same shape (px).
    shape
        ``(height, width)`` of the image (px).

    Returns
    -------
    numpy.ndarray
        ``(..., 6)``.
    """
    v = np.asarray(y_px, dtype=np.float64) / shape[0] - 0.5
    u = np.asarray(x_px, dtype=np.float64) / shape[1] - 0.5
    return np.stack([np.ones_like(u), u, u * u, v, v * v, u * v], axis=-1)


@dataclass(frozen=True)
class MotionField:
    """Shifts in pixels as a function of frame and place.

    Attributes
    ----------
    coefficients
        ``(n_frames, 2, 6)``: for each frame and axis (y, x) the factors of the spatial terms (px);
        zero for the first frame. A shift is what is added to a frame's coordinates to bring it
        onto the first.
    shape
        ``(height, width)`` of the frames (px).
    """

    coefficients: NDArray[np.float64]
    shape: tuple[int, int]

    @property
    def n_frames(self) -> int:
        """Number of frames."""
        return len(self.coefficients)

    @property
    def is_local(self) -> bool:
        """Whether the shift depends on the place."""
        return bool(np.any(self.coefficients[:, :, 1:]))

    def at(self, y_px: NDArray[np.floating], x_px: NDArray[np.floating]) -> NDArray[np.float64]:
        """Shifts (px) at places: ``(n_frames, ..., 2)``, y then x."""
        terms = spatial_terms(y_px, x_px, self.shape)
        return np.moveaxis(np.tensordot(self.coefficients, terms, axes=(2, -1)), 1, -1)

    def on_blocks(self) -> NDArray[np.float32]:
        """Shifts (px) for :func:`vitriflow.kernels.warp.warp_accumulate`."""
        y, x = np.meshgrid(*block_centres(self.shape), indexing="ij")
        return np.ascontiguousarray(self.at(y, x), dtype=np.float32)

    def mean_shifts(self) -> NDArray[np.float64]:
        """Mean shift over the field (px), ``(n_frames, 2)``, y then x."""
        mean = np.array([1.0, 0.0, _MEAN_OF_SQUARE, 0.0, _MEAN_OF_SQUARE, 0.0])
        return np.asarray(self.coefficients @ mean)

    def relion_model(self) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
        """Global shifts and RELION's local polynomial that come nearest to this field.

        RELION's local model is cubic in the frame number, without a constant, for each spatial
        term; ours is free in time, so what a cubic can't follow is lost on the way to a STAR file.

        Returns
        -------
        tuple
            Global shifts ``(n_frames, 2)``, y then x (px); the 36 coefficients in RELION's order
            (x: 6 terms by 3 powers, then y; px); and the RMS of what is lost (px).
        """
        mean = self.mean_shifts()
        local = self.coefficients.copy()
        local[:, :, 0] -= mean  # what is left has no mean over the field
        t = np.arange(self.n_frames, dtype=np.float64)
        # Powers of t / n keep the equations well scaled; rescaled afterwards.
        scale = max(self.n_frames - 1, 1)
        powers = np.stack([(t / scale) ** p for p in (1, 2, 3)], axis=1)
        flat = local.reshape(self.n_frames, -1)
        fitted = np.linalg.lstsq(powers, flat, rcond=None)[0]
        lost = (flat - powers @ fitted).reshape(local.shape)
        grid = (np.arange(8) + 0.5) / 8
        y, x = np.meshgrid(grid * self.shape[0], grid * self.shape[1], indexing="ij")
        terms = spatial_terms(y, x, self.shape)
        rms = float(np.sqrt(np.mean((lost @ terms.reshape(-1, N_TERMS).T) ** 2)))
        fitted = fitted / scale ** np.arange(1, 4)[:, None]
        by_axis = fitted.reshape(3, 2, N_TERMS)
        coefficients = np.concatenate([by_axis[:, 1].T.reshape(-1), by_axis[:, 0].T.reshape(-1)])
        return mean, coefficients, rms

    @classmethod
    def from_relion(
        cls,
        global_shifts: NDArray[np.floating],
        coefficients: NDArray[np.floating] | None,
        shape: tuple[int, int],
    ) -> "MotionField":
        """The field that a RELION STAR describes: global shifts (y, x) and its 36 coefficients (px)."""
        shifts = np.asarray(global_shifts, dtype=np.float64)
        field = np.zeros((len(shifts), 2, N_TERMS))
        if coefficients is not None:
            t = np.arange(len(shifts), dtype=np.float64)
            powers = np.stack([t, t**2, t**3])
            table = np.asarray(coefficients, dtype=np.float64).reshape(2, N_TERMS, 3)
            field[:, 1] = (table[0] @ powers).T
            field[:, 0] = (table[1] @ powers).T
        field[:, :, 0] += shifts
        return cls(field, shape)
