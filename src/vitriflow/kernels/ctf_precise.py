"""The last, precise fit of a CTF: counting noise weighted, the specimen's own shape allowed for.

The model of the whitened power is ``N(k) + S(k) sin^2(chi)``: what counts electrons, and what the
specimen scatters. N is stiff (4 spline intervals), S may bend once a ring. Three things differ from the
first fit (:mod:`vitriflow.kernels.ctf_refine`):

- the noise of a power is in proportion to the power, so dark rings weigh more: weights 1 / model^2,
  found anew twice (quasi-likelihood: Wedderburn, Biometrika 61 (1974) 439);
- particles, ice and optics give each ring an offset of its own that no smooth S follows. It's a
  random effect per ring, its variance taken from the rings' residuals (mixed model: Laird & Ware,
  Biometrics 38 (1982) 963). Where it's large, as near the centre, a ring tells of astigmatism only;
- the uncertainty counts what scatters between sectors and what scatters from ring to ring.
"""

from dataclasses import dataclass

import numpy as np

from vitriflow.kernels.ctf_numba import N_MOMENTS, ring_moments
from vitriflow.kernels.ctf_rings import (
    SECTORS,
    Floats,
    Ints,
    Optics,
    Rings,
    make_rings,
    n_periods,
    spline_basis,
)

_STIFF = 4  # spline intervals of N
_MOST_BENDS = 10  # spline intervals of S, at most
_FLOOR = 0.1  # of the mean power: no dark ring is surer than this
_COHERENT_RINGS = 3.0  # offsets of neighbouring rings go together
_WINDOW = 5  # rings to each side that share one variance of offsets
_BANDS = 6
_SEGMENT = 8  # rings that scatter together
_ROUNDS, _WEIGHTINGS = 12, 3
TRUSTED_A = 4.6  # finer rings have to agree with the coarser ones
_ENOUGH_PERIODS = 4.0
_FARTHEST = {3: 6.3, 4: 7.8}  # chi-squared with so many degrees of freedom: 10 % lie past it
_UPPER = [(one, two) for one in range(4) for two in range(one, 4)]


@dataclass(frozen=True)
class Precise:
    """A fit and what it's worth.

    Attributes
    ----------
    parameters
        (mean defocus A, astigmatism x cos 2 angle, astigmatism x sin 2 angle, phase shift rad).
    covariance
        (n_free, n_free) of the free ones: the first three, or all four.
    """

    parameters: Floats
    covariance: Floats


@dataclass
class _Linear:
    """Everything at one set of CTF parameters; all per ring, but ``normal``."""

    moments: Floats
    noise: Floats
    signal: Floats
    squares: float
    normal: Floats
    active: Floats


class PreciseFit:
    """Weighted least squares of one spectrum with an offset for each ring.

    Parameters
    ----------
    rings
        The whitened spectrum.
    optics
        The microscope.
    start
        (4,) where to start, as in :class:`Precise`.
    fit_phase_shift
        Whether the fourth parameter is free.
    """

    def __init__(self, rings: Rings, optics: Optics, start: Floats, fit_phase_shift: bool) -> None:
        self.rings = rings
        self.start = np.asarray(start, dtype=np.float64).copy()
        self.n_free = 4 if fit_phase_shift else 3
        self._constants = (
            np.pi * optics.wavelength_A,
            optics.aberration,
            float(np.arcsin(optics.amplitude_contrast)),
        )
        periods = n_periods(optics, float(start[0]), rings.k_low, rings.k_high)
        low, high = rings.k_low, rings.k_high
        self.stiff = spline_basis(rings.ring_k, low, high, _STIFF)
        self.bends = spline_basis(rings.ring_k, low, high, int(np.clip(np.floor(periods), 1, _MOST_BENDS)))
        self.weight = np.ones(rings.k.size)
        self.variance = 1.0
        self.offsets = np.zeros(rings.n_rings)
        self._prepare()

    def _prepare(self) -> None:
        """Sums that don't depend on the CTF. ``keep`` is how much of a ring's mean counts."""
        rings = self.rings
        self.total = rings.sum(self.weight)
        self.keep = 1.0 / (1.0 + self.total * self.offsets / self.variance)
        self.mean_sum = rings.sum(self.weight * rings.value)
        lost = (1.0 - self.keep) * self.mean_sum**2 / self.total
        self.value_squares = float((self.weight * rings.value**2).sum() - lost.sum())

    def _moments(self, parameters: Floats) -> Floats:
        rings = self.rings
        out = np.empty((rings.n_rings, N_MOMENTS))
        ring_moments(
            rings.squared,
            rings.cos2,
            rings.sin2,
            rings.value,
            self.weight,
            rings.ring,
            parameters,
            *self._constants,
            out,
        )
        return out

    def _solve(self, parameters: Floats) -> _Linear:
        """N and S for these CTF parameters; S can't be negative."""
        stiff, bends, keep, total = self.stiff, self.bends, self.keep, self.total
        moments = self._moments(parameters)
        wave, wave_squares, wave_value = moments[:, 0], moments[:, 1], moments[:, 2]
        lost = (1.0 - keep) * wave / total
        cross = stiff.T @ ((wave * keep)[:, None] * bends)
        normal = np.block(
            [
                [stiff.T @ ((total * keep)[:, None] * stiff), cross],
                [cross.T, bends.T @ ((wave_squares - lost * wave)[:, None] * bends)],
            ]
        )
        right = np.concatenate(
            [stiff.T @ (self.mean_sum * keep), bends.T @ (wave_value - lost * self.mean_sum)]
        )
        normal += np.eye(right.size) * (1e-9 * np.trace(normal) / right.size)
        n_stiff = stiff.shape[1]
        active = np.ones(right.size, dtype=bool)
        solution = np.zeros(right.size)
        for _ in range(bends.shape[1] + 1):
            solution[:] = 0.0
            solution[active] = np.linalg.solve(normal[np.ix_(active, active)], right[active])
            negative = solution[n_stiff:] < 0
            if not negative.any():
                break
            active[n_stiff:][negative] = False
        squares = self.value_squares - 2.0 * float(solution @ right) + float(solution @ normal @ solution)
        return _Linear(
            moments, stiff @ solution[:n_stiff], bends @ solution[n_stiff:], squares, normal, active
        )

    def _joint(self, linear: _Linear) -> tuple[Floats, Floats, Floats]:
        """Normal matrix and gradient of the free parameters, the linear ones projected out; the links."""
        n, moments, signal = self.n_free, linear.moments, linear.signal
        wave, slope, slope_wave, slope_value = (
            moments[:, 0],
            moments[:, 3 : 3 + n],
            moments[:, 7 : 7 + n],
            moments[:, 11 : 11 + n],
        )
        lost = ((1.0 - self.keep) / self.total)[:, None]
        matrix = np.zeros((n, n))
        for place, (one, two) in enumerate(_UPPER):
            if two < n:
                both = moments[:, 15 + place] - lost[:, 0] * slope[:, one] * slope[:, two]
                matrix[one, two] = matrix[two, one] = float(signal**2 @ both)
        left = self.mean_sum - linear.noise * self.total - signal * wave
        inner = slope_value - linear.noise[:, None] * slope - signal[:, None] * slope_wave
        gradient = signal @ (inner - lost * slope * left[:, None])
        by_ring = signal[:, None] * slope
        links = np.concatenate(
            [
                self.stiff.T @ (self.keep[:, None] * by_ring),
                self.bends.T @ (signal[:, None] * slope_wave - lost * wave[:, None] * by_ring),
            ]
        )[linear.active]
        within = np.linalg.solve(linear.normal[np.ix_(linear.active, linear.active)], links)
        return matrix - links.T @ within, gradient, within

    def _descend(self, parameters: Floats) -> tuple[Floats, _Linear]:
        """Damped Gauss-Newton steps until nothing improves."""
        linear = self._solve(parameters)
        damping = 1e-3
        for _ in range(_ROUNDS):
            matrix, gradient, _ = self._joint(linear)
            improved = False
            for _ in range(6):
                damped = matrix + np.diag(np.diag(matrix) * damping + 1e-12 * np.trace(matrix) + 1e-300)
                move = np.zeros(4)
                move[: self.n_free] = np.linalg.solve(damped, gradient)
                trial = self._solve(parameters + move)
                if trial.squares < linear.squares:
                    improved = True
                    break
                damping *= 10.0
            if not improved:
                break
            fall = linear.squares - trial.squares
            parameters, linear = parameters + move, trial
            damping = max(damping * 0.1, 1e-9)
            if fall < 1e-3 * self.rings.sigma**2:
                break
        return parameters, linear

    def _wave(self, parameters: Floats) -> tuple[Floats, Floats]:
        """sin(chi)^2 at each pixel, and its derivative by chi."""
        rings, (per_defocus, aberration, offset) = self.rings, self._constants
        defocus = parameters[0] + 0.5 * (parameters[1] * rings.cos2 + parameters[2] * rings.sin2)
        chi = rings.squared * (per_defocus * defocus - aberration * rings.squared) + offset + parameters[3]
        return 0.5 - 0.5 * np.cos(2.0 * chi), np.sin(2.0 * chi)

    def _weigh(self, parameters: Floats, linear: _Linear) -> None:
        """Set the weights by the model, and the offsets' variance by the rings' residuals."""
        rings, ring = self.rings, self.rings.ring
        wave, _ = self._wave(parameters)
        model = linear.noise[ring] + linear.signal[ring] * wave
        self.weight = 1.0 / np.square(np.maximum(model, _FLOOR))
        total = rings.sum(self.weight)
        residual = rings.value - model
        mean = rings.sum(self.weight * residual) / total
        self.variance = float(np.average(self.weight * np.square(residual - mean[ring])))
        beyond = np.square(mean) - self.variance / total
        window = np.ones(2 * _WINDOW + 1) / (2 * _WINDOW + 1)
        smooth = np.convolve(np.pad(beyond, _WINDOW, mode="edge"), window, "valid")
        self.offsets = np.maximum(smooth, 0.0) * _COHERENT_RINGS
        self._prepare()

    def run(self) -> Precise:
        """Fit, with weights found anew in between."""
        parameters, linear = self._descend(self.start)
        for _ in range(_WEIGHTINGS - 1):
            self._weigh(parameters, linear)
            parameters, linear = self._descend(parameters)
        return Precise(parameters, self._covariance(parameters, linear))

    def _covariance(self, parameters: Floats, linear: _Linear) -> Floats:
        """Sandwich estimates over blocks (two sectors by a band) and over rings; the larger of the two.

        Source: Liang & Zeger, Biometrika 73 (1986) 13.
        """
        rings, ring, n = self.rings, self.rings.ring, self.n_free
        matrix, _, within = self._joint(linear)
        wave, by_wave = self._wave(parameters)
        by_chi = linear.signal[ring] * by_wave
        by_defocus = by_chi * rings.squared * self._constants[0]
        slopes = [by_defocus, 0.5 * by_defocus * rings.cos2, 0.5 * by_defocus * rings.sin2, by_chi][:n]
        n_stiff = self.stiff.shape[1]
        full = np.zeros((linear.active.size, n))
        full[linear.active] = within
        smooth, bent = self.stiff @ full[:n_stiff], self.bends @ full[n_stiff:]
        drop = (1.0 - np.sqrt(self.keep)) / self.total

        def even(values: Floats) -> Floats:
            return np.asarray(
                np.sqrt(self.weight) * (values - (drop * rings.sum(self.weight * values))[ring])
            )

        residual = even(rings.value - linear.noise[ring] - linear.signal[ring] * wave)
        scores = [
            even(slope - smooth[ring, index] - bent[ring, index] * wave) * residual
            for index, slope in enumerate(slopes)
        ]
        band = np.minimum((ring * _BANDS) // rings.n_rings, _BANDS - 1)
        blocks = (rings.sector // 2) * _BANDS + band
        inverse = np.linalg.inv(matrix + np.diag(np.diag(matrix) * 1e-9 + 1e-300))

        def sandwich(labels: Ints) -> Floats:
            sums = np.stack([np.bincount(labels, score) for score in scores], axis=1)
            return np.asarray(inverse @ (sums.T @ sums) @ inverse)

        # each spline takes its share of the scatter from ring to ring with it
        free = rings.n_rings / _COHERENT_RINGS
        shrunk = free / max(free - int(linear.active.sum()) - n, 0.25 * free)
        around = sandwich(blocks) * (1.0 + 2.0 * n / (SECTORS // 2))
        along = sandwich(ring // _SEGMENT) * shrunk
        spread = np.sqrt(np.maximum(np.diag(around), np.diag(along)) / np.maximum(np.diag(around), 1e-300))
        return np.asarray(around * spread[:, None] * spread[None, :])


def settle(
    amplitude: Floats,
    pixel_size_A: float,
    optics: Optics,
    start: Floats,
    limits_A: tuple[float, float],
    fit_phase_shift: bool,
) -> Precise | None:
    """Fit precisely, with the finest rings where they agree with the coarser ones.

    Past 4.6 A the water ring, Cs and the lens's small errors can pull more than the rings tell. Both fits
    are made; when the fine one lies outside of what the coarse one allows, the coarse one stands. Half of
    their difference is counted in the uncertainty.

    Parameters
    ----------
    amplitude, pixel_size_A
        The spectrum, (n, n), and the pixel size (A) its box stands for.
    optics
        The microscope.
    start
        (4,) where to start, as in :class:`Precise`.
    limits_A
        Coarsest and finest rings (A).
    fit_phase_shift
        Whether the phase shift is free.

    Returns
    -------
    Precise or None
        None where the limits hold too few pixels.
    """
    low_A, high_A = limits_A
    rings = make_rings(amplitude, pixel_size_A, low_A, high_A)
    if rings is None:
        return None
    if 1.0 / rings.k_high >= TRUSTED_A or (
        n_periods(optics, float(start[0]), rings.k_low, 1.0 / TRUSTED_A) < _ENOUGH_PERIODS
    ):
        return PreciseFit(rings, optics, start, fit_phase_shift).run()
    inner = make_rings(amplitude, pixel_size_A, low_A, TRUSTED_A)
    if inner is None:
        return PreciseFit(rings, optics, start, fit_phase_shift).run()
    coarse = PreciseFit(inner, optics, start, fit_phase_shift).run()
    fine = PreciseFit(rings, optics, coarse.parameters, fit_phase_shift).run()
    apart = (fine.parameters - coarse.parameters)[: coarse.covariance.shape[0]]
    distance = float(apart @ np.linalg.solve(coarse.covariance, apart))
    chosen = fine if distance <= _FARTHEST[apart.size] else coarse
    return Precise(chosen.parameters, chosen.covariance + 0.25 * np.outer(apart, apart))
