"""The first look at a spectrum: defoci that could explain its rings.

The whitened spectrum is cut into 24 sectors. Each sector is compared with the rings of every
defocus, after what a smooth background could explain has been taken from both. An astigmatic
candidate then reads each sector's score at that sector's own defocus: two thousand angstroms of
astigmatism cost nothing, where a rotational average would have washed the rings out.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vitriflow.kernels.ctf_rings import (
    SECTORS,
    Floats,
    Optics,
    Rings,
    background_intervals,
    n_periods,
    spline_basis,
)

_ENVELOPES_A2 = (40.0, 150.0, 500.0)  # how fast rings fade: exp(-B k^2)
_ANGLES = 12
_HALF = 2  # scan bins to a ring: fine rings of high defocus need them


@dataclass(frozen=True)
class Candidate:
    """A defocus worth refining.

    Attributes
    ----------
    score
        In standard deviations of noise.
    mean_A, astigmatism_A
        Mean defocus and U - V (A).
    angle_rad, phase_shift_rad
        Of the larger defocus, and of a phase plate (radians).
    """

    score: float
    mean_A: float
    astigmatism_A: float
    angle_rad: float
    phase_shift_rad: float


@dataclass(frozen=True)
class _Polar:
    """Spectrum in scan bins: sums and counts, (n_bins, SECTORS), and the bins' frequencies."""

    k: Floats
    count: Floats
    total: Floats


def _polar(rings: Rings) -> _Polar:
    first = np.floor(rings.k.min() / rings.step * _HALF)
    fine = (np.floor(rings.k / rings.step * _HALF) - first).astype(np.intp)
    n_bins = int(fine.max()) + 1
    cell = fine * SECTORS + rings.sector
    shape = (n_bins, SECTORS)
    count = np.bincount(cell, minlength=n_bins * SECTORS).reshape(shape).astype(np.float64)
    total = np.bincount(cell, rings.value - 1.0, minlength=n_bins * SECTORS).reshape(shape)
    weight = count.sum(axis=1)
    k_sum = np.bincount(fine, rings.k, minlength=n_bins)
    full = weight > 0
    return _Polar(k_sum[full] / weight[full], count[full], total[full])


def _sector_scores(
    rings: Rings, polar: _Polar, optics: Optics, defoci: Floats, envelope_A2: float, both: bool
) -> tuple[Floats, Floats, Floats]:
    """Correlation of each sector with each defocus.

    Returns
    -------
    tuple
        Scores with -cos(2 chi) and with sin(2 chi) (n_defoci, SECTORS), and the variance of their
        sum over sectors (n_defoci,). The second is zero unless ``both``.
    """
    squared = polar.k**2
    weight = polar.count.sum(axis=1)
    fade = np.exp(-envelope_A2 * squared)
    twice = 2.0 * (np.outer(defoci, np.pi * optics.wavelength_A * squared) + optics.phase(squared, 0.0))
    some = np.linspace(defoci[0], defoci[-1], min(64, defoci.size))
    periods = [n_periods(optics, float(defocus), rings.k_low, rings.k_high) for defocus in some]
    intervals = np.array([background_intervals(value) for value in np.interp(defoci, some, periods)])
    parts = [-np.cos(twice) * fade] + ([np.sin(twice) * fade] if both else [])
    variance = np.zeros(defoci.size)
    for part in parts:
        for number in np.unique(intervals):
            rows = intervals == number
            basis = spline_basis(polar.k, rings.k_low, rings.k_high, int(number))
            smooth, _ = np.linalg.qr(basis * np.sqrt(weight)[:, None])
            scaled = part[rows] * np.sqrt(weight)
            scaled -= (scaled @ smooth) @ smooth.T
            part[rows] = scaled / np.sqrt(weight)
        variance += np.square(part) @ weight * rings.sigma**2 / len(parts)
    cosine = parts[0] @ polar.total
    sine = parts[1] @ polar.total if both else np.zeros_like(cosine)
    return cosine, sine, variance


def _gather(scores: Floats, shifts: NDArray[np.int64], length: int) -> Floats:
    """Sum over sectors, each read from its own row on: (length,)."""
    total = np.zeros(length)
    for sector, shift in enumerate(shifts):
        total += scores[shift : shift + length, sector]
    return total


def find_candidates(
    rings: Rings,
    optics: Optics,
    min_defocus_A: float,
    max_defocus_A: float,
    max_astigmatism_A: float,
    fit_phase_shift: bool = False,
    count: int = 5,
) -> list[Candidate]:
    """The defoci that explain the spectrum best, best first.

    Parameters
    ----------
    rings
        The whitened spectrum.
    optics
        The microscope.
    min_defocus_A, max_defocus_A
        Range of the mean defocus (A).
    max_astigmatism_A
        Largest U - V (A).
    fit_phase_shift
        Also look for the phase shift of a phase plate, 0 to 180 degrees.
    count
        At most so many, far enough apart to be different explanations.

    Returns
    -------
    list of Candidate
        At least one.
    """
    step = 0.5 / (np.pi * optics.wavelength_A * rings.k_high**2)
    n_defoci = max(2, int(np.ceil((max_defocus_A - min_defocus_A) / step)) + 1)
    defoci = np.linspace(min_defocus_A, max_defocus_A, n_defoci)
    step = float(defoci[1] - defoci[0])
    polar = _polar(rings)
    theta = (np.arange(SECTORS) + 0.5) * np.pi / SECTORS
    margin = int(np.ceil(0.5 * max_astigmatism_A / step)) + 1
    best = np.full(n_defoci, -np.inf)
    found = np.zeros((n_defoci, 3))
    for envelope in _ENVELOPES_A2:
        cosine, sine, variance = _sector_scores(rings, polar, optics, defoci, envelope, fit_phase_shift)
        deviation = np.sqrt(np.maximum(variance, 1e-30))
        wide = [np.pad(part, ((margin, margin), (0, 0))) for part in (cosine, sine)]
        for astigmatism in np.arange(0.0, max_astigmatism_A + step, 2.0 * step):
            for angle in np.arange(_ANGLES if astigmatism else 1) * np.pi / _ANGLES:
                turned = 0.5 * astigmatism * np.cos(2.0 * (theta - angle)) / step
                shifts = np.rint(turned).astype(int) + margin
                real = _gather(wide[0], shifts, n_defoci)
                imaginary = _gather(wide[1], shifts, n_defoci) if fit_phase_shift else np.zeros(n_defoci)
                score = (np.hypot(real, imaginary) if fit_phase_shift else real) / deviation
                score[defoci < 0.75 * astigmatism] = -np.inf  # V would be below a fifth of U
                better = score > best
                best[better] = score[better]
                phase = (0.5 * np.arctan2(imaginary, real) % np.pi)[better] if fit_phase_shift else 0.0
                found[better] = np.stack(np.broadcast_arrays(astigmatism, angle, phase), axis=-1)
    return _peaks(defoci, best, found, count, apart=4)


def _peaks(defoci: Floats, best: Floats, found: Floats, count: int, apart: int) -> list[Candidate]:
    """The highest scores, no two within ``apart`` steps of defocus."""
    left = best.copy()
    chosen = []
    for _ in range(count):
        index = int(np.argmax(left))
        if not np.isfinite(left[index]):
            break
        chosen.append(Candidate(float(left[index]), float(defoci[index]), *map(float, found[index])))
        left[max(0, index - apart) : index + apart + 1] = -np.inf
    return chosen


@dataclass(frozen=True)
class DefocusScores:
    """How well each mean defocus explains a spectrum, astigmatism and phase given.

    Attributes
    ----------
    scores
        (n,) in standard deviations of noise.
    first_A, step_A
        The first defocus, and the distance to the next (A).
    """

    scores: Floats
    first_A: float
    step_A: float


def defocus_scores(
    rings: Rings,
    optics: Optics,
    range_A: tuple[float, float],
    astigmatism_A: float,
    angle_rad: float,
    phase_shift_rad: float = 0.0,
) -> DefocusScores:
    """Score every mean defocus of a range.

    Parameters
    ----------
    rings
        The whitened spectrum.
    optics
        The microscope.
    range_A
        Smallest and largest mean defocus (A).
    astigmatism_A, angle_rad, phase_shift_rad
        U - V (A), the angle of the larger defocus and the phase shift (radians).
    """
    step = 0.25 / (np.pi * optics.wavelength_A * rings.k_high**2)
    margin = int(np.ceil(0.5 * astigmatism_A / step)) + 1
    length = max(2, int(np.ceil((range_A[1] - range_A[0]) / step)) + 1)
    defoci: Floats = range_A[0] + step * (np.arange(length + 2 * margin, dtype=np.float64) - margin)
    theta = (np.arange(SECTORS) + 0.5) * np.pi / SECTORS
    shifts = np.rint(0.5 * astigmatism_A * np.cos(2.0 * (theta - angle_rad)) / step).astype(int) + margin
    cosine, sine, variance = _sector_scores(
        rings, _polar(rings), optics, defoci, _ENVELOPES_A2[1], both=phase_shift_rad != 0.0
    )
    real, imaginary = _gather(cosine, shifts, length), _gather(sine, shifts, length)
    turned = np.cos(2.0 * phase_shift_rad) * real + np.sin(2.0 * phase_shift_rad) * imaginary
    deviation = np.sqrt(np.maximum(variance[margin : margin + length], 1e-30))
    return DefocusScores(turned / deviation, float(range_A[0]), step)
