"""Dose weighting of movie frames after Grant and Grigorieff, eLife 4 (2015) e06980."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

__all__ = ["critical_dose", "dose_weights", "low_rank_weights", "weights_of_frames"]

_A, _B, _C = 0.245, -1.665, 2.81  # eq. 3 there: N_e(k) = A k^B + C at 300 kV
_PIECE = 2048  # samples of frequency
_RELATIVE_AT_200_KV = 0.8  # section "Dose weighting at 200 kV" there, and RELION


def _voltage_factor(voltage_kV: float) -> float:
    """Dose tolerance relative to 300 kV: 1 at 300, 0.8 at 200, linear through both."""
    return 1.0 + (voltage_kV - 300.0) * (1.0 - _RELATIVE_AT_200_KV) / 100.0


def critical_dose(frequency_per_A: NDArray[np.floating], voltage_kV: float = 300.0) -> NDArray[np.float64]:
    """Dose at which the signal has faded to 1/e in intensity (e/A^2), for each spatial frequency.

    Parameters
    ----------
    frequency_per_A
        Any shape (1/A); zero gives infinity.
    voltage_kV
        Accelerating voltage (kV), 80 to 400.

    Raises
    ------
    ValueError
        When the voltage is outside of 80 to 400 kV, where the measurement can't be stretched to.
    """
    if not 80.0 <= voltage_kV <= 400.0:
        raise ValueError(f"voltage_kV has to lie between 80 and 400, not {voltage_kV}")
    k = np.asarray(frequency_per_A, dtype=np.float64)
    with np.errstate(divide="ignore"):
        tolerance = _A * np.power(k, _B, where=k > 0, out=np.full(k.shape, np.inf)) + _C
    return np.asarray(tolerance * _voltage_factor(voltage_kV))


def dose_weights(
    n_frames: int,
    frequency_per_A: NDArray[np.floating],
    dose_per_frame: float,
    *,
    pre_exposure: float = 0.0,
    voltage_kV: float = 300.0,
) -> NDArray[np.float64]:
    """Weight of every frame at every frequency, normalised so that white noise keeps its variance.

    ``w = exp(-D / (2 N_e)) / sqrt(sum of squares over frames)``, D at the frame's end, which is
    what RELION and MotionCor2 do: a noise pixel of the sum varies like one of a single frame.

    Parameters
    ----------
    n_frames
        Number of frames.
    frequency_per_A
        ``(n_k,)`` (1/A).
    dose_per_frame, pre_exposure
        e/A^2.
    voltage_kV
        kV.

    Returns
    -------
    numpy.ndarray
        ``(n_frames, n_k)``.
    """
    dose = pre_exposure + dose_per_frame * np.arange(1, n_frames + 1)
    exponent = -dose[:, None] / (2.0 * critical_dose(frequency_per_A, voltage_kV)[None, :])
    # Relative to the first frame, so that a large dose before can't underflow all weights to 0/0.
    weights = np.exp(exponent - exponent[:1])
    return np.asarray(weights / np.sqrt((weights**2).sum(axis=0)))


def weights_of_frames(
    live: NDArray[np.int64],
    frequency_per_A: NDArray[np.floating],
    n_frames: int,
    dose_per_frame: float,
    *,
    pre_exposure: float = 0.0,
    voltage_kV: float = 300.0,
) -> Iterator[tuple[slice, NDArray[np.float64]]]:
    """:func:`dose_weights` of the frames ``live`` alone, normalised over them, piece by piece of frequency.

    Pieces keep the memory small where there are a thousand frames.

    Yields
    ------
    tuple
        The piece of ``frequency_per_A`` and the weights there, ``(len(live), n)``.
    """
    for first in range(0, len(frequency_per_A), _PIECE):
        piece = slice(first, min(first + _PIECE, len(frequency_per_A)))
        weights = dose_weights(
            n_frames,
            frequency_per_A[piece],
            dose_per_frame,
            pre_exposure=pre_exposure,
            voltage_kV=voltage_kV,
        )[live]
        yield piece, weights / np.sqrt((weights**2).sum(axis=0))


def low_rank_weights(
    weights: NDArray[np.float64], *, with_plain: bool = False, tolerance: float = 1e-3, max_rank: int = 8
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Write the weights as few sums of (a number per frame) x (a curve over frequency).

    Dose weighting is linear: ``sum_f w_f(k) F_f(k) = sum_r curve_r(k) sum_f factor_rf F_f(k)``.
    So frames are added in real space into a handful of sums and only those are transformed, where
    one transform for every frame would be needed otherwise. The curves of Grant and Grigorieff are
    so smooth in dose that four or five reach one part in a thousand.

    Parameters
    ----------
    weights
        ``(n_frames, n_k)`` from :func:`dose_weights`.
    with_plain
        Make the first sum the unweighted one, which is then an output for free.
    tolerance
        Largest error left, relative to the largest weight.
    max_rank
        Never more sums than this.

    Returns
    -------
    tuple
        ``factors (rank, n_frames)`` float32 and ``curves (rank, n_k)``.
    """
    n_frames = weights.shape[0]
    base: NDArray[np.float64] = np.ones((1 if with_plain else 0, n_frames))
    rest = weights - base.T @ np.linalg.lstsq(base.T, weights, rcond=None)[0] if with_plain else weights
    left, _, _ = np.linalg.svd(rest, full_matrices=False)
    largest = float(np.abs(weights).max())
    factors = base.astype(np.float64)
    curves: NDArray[np.float64] = np.zeros((len(base), weights.shape[1]))
    for rank in range(min(max_rank, n_frames) + 1):
        factors = np.vstack([base, left[:, :rank].T]).astype(np.float64)
        if len(factors) == 0:
            continue
        curves = np.asarray(np.linalg.lstsq(factors.T, weights, rcond=None)[0], dtype=np.float64)
        if np.abs(factors.T @ curves - weights).max() <= tolerance * largest:
            break
    return factors.astype(np.float32), curves
