"""From a candidate to a fit: least squares over every pixel of the spectrum.

The model of the whitened power is ``background(k) - modulation(k) cos(2 chi)``. Background and
modulation are cubic splines; for given CTF parameters they follow from a small linear problem
whose sums need only one number per ring and term (variable projection: Golub & Pereyra,
Inverse Problems 19 (2003) R1). The CTF parameters move by damped Gauss-Newton steps.
"""

from dataclasses import dataclass

import numpy as np

from vitriflow.kernels.ctf_rings import (
    SECTORS,
    Floats,
    Optics,
    Rings,
    background_intervals,
    n_periods,
    spline_basis,
)
from vitriflow.kernels.ctf_search import Candidate

_ROUNDS = 25
_MODULATION_RINGS = 2.5  # ring periods per knot interval of the modulation
_BANDS = 6  # radial parts of the blocks whose scatter gives the uncertainty


@dataclass(frozen=True)
class Refined:
    """A candidate after least squares.

    Attributes
    ----------
    parameters
        (mean defocus A, astigmatism x cos 2 angle, astigmatism x sin 2 angle[, phase shift rad]).
    gain
        Fall of the sum of squares over the background alone, in units of noise variance.
    background, modulation
        (n_rings,) of the whitened power.
    chi
        (n,) phase of the CTF at each pixel (radians).
    residual
        (n,) value minus model.
    """

    parameters: Floats
    gain: float
    background: Floats
    modulation: Floats
    chi: Floats
    residual: Floats

    @property
    def mean_A(self) -> float:
        """Mean defocus (A)."""
        return float(self.parameters[0])

    @property
    def astigmatism_A(self) -> float:
        """U - V (A)."""
        return float(np.hypot(self.parameters[1], self.parameters[2]))

    @property
    def angle_rad(self) -> float:
        """Angle of the larger defocus (radians), in (-pi/2, pi/2]."""
        return float(0.5 * np.arctan2(self.parameters[2], self.parameters[1]))

    @property
    def phase_shift_rad(self) -> float:
        """Phase shift (radians); 0 unless it was fitted."""
        return float(self.parameters[3]) if self.parameters.size > 3 else 0.0

    def as_candidate(self) -> Candidate:
        """Where another refinement can start."""
        return Candidate(0.0, self.mean_A, self.astigmatism_A, self.angle_rad, self.phase_shift_rad)


def _dot(one: Floats, two: Floats) -> float:
    return float(np.einsum("i,i->", one, two))


@dataclass
class _Linear:
    """The linear half of the problem at given CTF parameters."""

    background: Floats
    modulation: Floats
    squares: float  # residual sum of squares
    normal: Floats
    active: Floats  # columns of the joint basis that are in use


class Refiner:
    """Least squares of one spectrum around one candidate.

    Parameters
    ----------
    rings
        The whitened spectrum.
    optics
        The microscope.
    start
        Where to start; its defocus also decides how stiff the background is.
    fit_phase_shift
        Whether the phase shift is a parameter.
    """

    def __init__(self, rings: Rings, optics: Optics, start: Candidate, fit_phase_shift: bool) -> None:
        self.rings = rings
        self.optics = optics
        self.start = start
        self.fit_phase_shift = fit_phase_shift
        periods = n_periods(optics, start.mean_A, rings.k_low, rings.k_high)
        low, high = rings.k_low, rings.k_high
        self.smooth = spline_basis(rings.ring_k, low, high, background_intervals(periods))
        self.fade = spline_basis(rings.ring_k, low, high, int(np.clip(periods / _MODULATION_RINGS, 1, 6)))
        self.count = rings.sum()
        self.value_sum = rings.sum(rings.value)
        self.value_squares = float(np.square(rings.value).sum())
        self._smooth_normal = self.smooth.T @ (self.count[:, None] * self.smooth)

    def _chi(self, parameters: Floats) -> Floats:
        rings = self.rings
        defocus = parameters[0] + 0.5 * (parameters[1] * rings.cos2 + parameters[2] * rings.sin2)
        shift = float(parameters[3]) if self.fit_phase_shift else self.start.phase_shift_rad
        return self.optics.phase(rings.squared, defocus, shift)

    def _wave(self, parameters: Floats) -> tuple[Floats, Floats]:
        """-cos(2 chi), and its derivative by chi, at each pixel."""
        twice = 2.0 * self._chi(parameters)
        return -np.cos(twice), 2.0 * np.sin(twice)

    def _solve(self, wave: Floats) -> _Linear:
        """Background and modulation for this wave; the modulation can't be negative."""
        rings, smooth, fade = self.rings, self.smooth, self.fade
        n_smooth = smooth.shape[1]
        wave_sum, wave_squares = rings.sum(wave), rings.sum(wave * wave)
        cross = smooth.T @ (wave_sum[:, None] * fade)
        lower = fade.T @ (wave_squares[:, None] * fade)
        normal = np.block([[self._smooth_normal, cross], [cross.T, lower]])
        right = np.concatenate([smooth.T @ self.value_sum, fade.T @ rings.sum(wave * rings.value)])
        normal += np.eye(right.size) * (1e-9 * np.trace(normal) / right.size)
        active = np.ones(right.size, dtype=bool)
        solution = np.zeros(right.size)
        for _ in range(fade.shape[1] + 1):
            solution[:] = 0.0
            solution[active] = np.linalg.solve(normal[np.ix_(active, active)], right[active])
            negative = solution[n_smooth:] < 0
            if not negative.any():
                break
            active[n_smooth:][negative] = False
        squares = self.value_squares - 2.0 * float(solution @ right) + float(solution @ normal @ solution)
        modulation = fade @ solution[n_smooth:]
        return _Linear(smooth @ solution[:n_smooth], modulation, squares, normal, active)

    def _slopes(self, modulation: Floats, derivative: Floats) -> list[Floats]:
        """Derivative of the model by each CTF parameter, at each pixel."""
        rings = self.rings
        by_chi = modulation[rings.ring] * derivative
        by_defocus = by_chi * rings.squared * (np.pi * self.optics.wavelength_A)
        slopes = [by_defocus, 0.5 * by_defocus * rings.cos2, 0.5 * by_defocus * rings.sin2]
        return [*slopes, by_chi] if self.fit_phase_shift else slopes

    def _joint(self, wave: Floats, linear: _Linear, slopes: list[Floats]) -> tuple[Floats, Floats]:
        """Normal matrix of the CTF parameters with the linear ones projected out, and the links."""
        rings, active = self.rings, linear.active
        links = np.stack(
            [
                np.concatenate([self.smooth.T @ rings.sum(slope), self.fade.T @ rings.sum(wave * slope)])
                for slope in slopes
            ],
            axis=1,
        )[active]
        # einsum stays on one core: BLAS threads that wait for each other cost more than they help
        matrix = np.array([[_dot(one, two) for two in slopes] for one in slopes])
        within = np.linalg.solve(linear.normal[np.ix_(active, active)], links)
        return matrix - links.T @ within, within

    def run(self) -> Refined:
        """Move the parameters until nothing improves."""
        start = self.start
        begin = [
            start.mean_A,
            start.astigmatism_A * np.cos(2.0 * start.angle_rad),
            start.astigmatism_A * np.sin(2.0 * start.angle_rad),
        ]
        parameters = np.array([*begin, start.phase_shift_rad] if self.fit_phase_shift else begin)
        if not start.astigmatism_A:
            parameters[1] = 20.0
        wave, derivative = self._wave(parameters)
        linear = self._solve(wave)
        damping = 1e-3
        for _ in range(_ROUNDS):
            slopes = self._slopes(linear.modulation, derivative)
            matrix, _ = self._joint(wave, linear, slopes)
            residual = self._residual(wave, linear)
            gradient = np.array([_dot(slope, residual) for slope in slopes])
            improved = False
            for _ in range(6):
                damped = matrix + np.diag(np.diag(matrix) * damping + 1e-12 * np.trace(matrix) + 1e-300)
                move = np.linalg.solve(damped, gradient)
                trial_wave, trial_derivative = self._wave(parameters + move)
                trial = self._solve(trial_wave)
                if trial.squares < linear.squares:
                    improved = True
                    break
                damping *= 10.0
            if not improved:
                break
            fall = linear.squares - trial.squares
            parameters, wave, derivative, linear = parameters + move, trial_wave, trial_derivative, trial
            damping = max(damping * 0.1, 1e-9)
            if fall < 1e-3 * self.rings.sigma**2:
                break
        return self._finish(parameters, wave, linear)

    def at(self, parameters: Floats) -> Refined:
        """What the spectrum says of these CTF parameters, as they are."""
        wave, _ = self._wave(parameters)
        return self._finish(parameters, wave, self._solve(wave))

    def _residual(self, wave: Floats, linear: _Linear) -> Floats:
        ring = self.rings.ring
        return np.asarray(self.rings.value - linear.background[ring] - linear.modulation[ring] * wave)

    def _finish(self, parameters: Floats, wave: Floats, linear: _Linear) -> Refined:
        """The fit with its gain over the background alone."""
        right = self.smooth.T @ self.value_sum
        alone = self.value_squares - float(np.linalg.solve(self._smooth_normal, right) @ right)
        return Refined(
            parameters=parameters,
            gain=(alone - linear.squares) / self.rings.sigma**2,
            background=linear.background,
            modulation=linear.modulation,
            chi=self._chi(parameters),
            residual=self._residual(wave, linear),
        )

    def covariance(self, parameters: Floats) -> Floats:
        """Covariance of the CTF parameters at a fit: sandwich estimate over blocks (sector x band).

        Neighbouring pixels aren't independent (tapers, overlapping tiles) and the model isn't
        perfect; the scatter of whole blocks counts both. Source: Liang & Zeger, Biometrika 73
        (1986) 13.
        """
        rings = self.rings
        wave, derivative = self._wave(parameters)
        linear = self._solve(wave)
        slopes = self._slopes(linear.modulation, derivative)
        residual = self._residual(wave, linear)
        matrix, within = self._joint(wave, linear, slopes)
        joint = np.concatenate([self.smooth[rings.ring], self.fade[rings.ring] * wave[:, None]], axis=1)
        explained = joint[:, linear.active] @ within
        band = np.minimum((rings.ring * _BANDS) // rings.n_rings, _BANDS - 1)
        block = (rings.sector * _BANDS + band).astype(np.intp)
        scores = np.stack(
            [
                np.bincount(block, (slope - explained[:, index]) * residual, minlength=SECTORS * _BANDS)
                for index, slope in enumerate(slopes)
            ],
            axis=1,
        )
        inverse = np.linalg.inv(matrix + np.diag(np.diag(matrix) * 1e-9 + 1e-300))
        blocks = inverse @ (scores.T @ scores) @ inverse
        pixels = inverse * float(np.mean(np.square(residual)))
        return np.asarray(blocks if np.trace(blocks) > np.trace(pixels) else pixels)
