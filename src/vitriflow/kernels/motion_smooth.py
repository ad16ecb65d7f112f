"""Noisy tracks made smooth, as smooth as the data themselves ask for."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

__all__ = ["smooth_track"]

_RATIOS = np.logspace(-7, 5, 61)


def smooth_track(
    track: NDArray[np.float64], noise_variance: float, roughness: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    """The most probable smooth track behind noisy positions.

    The prior is a random change of velocity from frame to frame, of a variance that is found by
    maximising the evidence (Gull and MacKay), so that a jittery track is left as it is and a
    calm one is smoothed. Two shapes of the prior compete by their evidence: equal for all frames,
    and larger for early ones, as the beam's first electrons move specimens most.

    Parameters
    ----------
    track
        ``(n,)`` positions.
    noise_variance
        Variance of the noise of each.
    roughness
        ``(n - 2,)`` relative size of the change of velocity expected at each inner frame of the
        second prior; None tries the equal one alone.

    Returns
    -------
    numpy.ndarray
        ``(n,)``.
    """
    n = len(track)
    if n < 4 or noise_variance <= 0:
        return track.copy()
    best: tuple[float, NDArray[np.float64]] | None = None
    for scale in [None] if roughness is None else [None, tuple(roughness.tolist())]:
        values, vectors = _modes(n, scale)
        rotated = vectors.T @ track
        variance = noise_variance * (1.0 + _RATIOS[:, None] / values[2:])
        evidence = -0.5 * np.sum(np.log(variance) + rotated[2:] ** 2 / variance, axis=1)
        most = int(evidence.argmax())
        if best is None or evidence[most] > best[0]:
            kept = np.concatenate([[1.0, 1.0], _RATIOS[most] / (_RATIOS[most] + values[2:])])
            best = (float(evidence[most]), vectors @ (kept * rotated))
    return track.copy() if best is None else best[1]


@lru_cache(maxsize=16)
def _modes(n: int, roughness: tuple[float, ...] | None) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Modes of a track and how much the prior dislikes each: the first two, place and velocity, not at all."""
    rows = np.diff(np.eye(n), n=2, axis=0)
    if roughness is not None:
        rows = rows / np.array(roughness)[:, None]
    values, vectors = np.linalg.eigh(rows.T @ rows)
    values = np.maximum(values, 0.0)
    values[:2] = 0.0
    return values, vectors
