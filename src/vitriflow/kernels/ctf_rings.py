"""What a CTF fit looks at: the pixels of a power spectrum, made even and put in polar order.

The spectrum's mean falls by orders of magnitude from the centre outwards, and its noise falls
with it. Dividing by a smooth curve through the radial mean gives pixels of equal noise, so that
least squares weigh each ring by what it knows.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import BSpline

from vitriflow.units import ANGSTROM_PER_MM, electron_wavelength_A

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]

SECTORS = 24  # of 7.5 degrees, over the half-plane
_CLIP_SIGMA = 5.0
_DEAD = 0.01  # of the power inside 10 A: nothing left but rounding
_INNER_PER_A = 0.1


@dataclass(frozen=True)
class Optics:
    """The microscope: voltage (kV), spherical aberration (mm), amplitude contrast (a fraction)."""

    voltage_kV: float
    cs_mm: float
    amplitude_contrast: float

    @cached_property
    def wavelength_A(self) -> float:
        """Electron wavelength (A)."""
        return electron_wavelength_A(self.voltage_kV)

    @cached_property
    def aberration(self) -> float:
        """pi/2 Cs lambda^3 (A^4): what multiplies k^4 in the phase."""
        return 0.5 * np.pi * self.cs_mm * ANGSTROM_PER_MM * self.wavelength_A**3

    def phase(self, squared: Floats, defocus_A: Floats | float, phase_shift_rad: float = 0.0) -> Floats:
        """Phase chi (radians) at squared spatial frequencies (1/A^2) for a defocus (A) at each."""
        offset = float(np.arcsin(self.amplitude_contrast)) + phase_shift_rad
        chi: Floats = squared * (np.pi * self.wavelength_A * defocus_A - self.aberration * squared) + offset
        return chi


@dataclass(frozen=True)
class Rings:
    """Pixels of half a power spectrum between two resolutions, whitened.

    Attributes
    ----------
    k, squared
        (n,) spatial frequency (1/A) and its square.
    cos2, sin2
        (n,) cosine and sine of twice the polar angle, from x towards y.
    value
        (n,) power divided by the smooth radial curve: about 1, with rings around it.
    ring, sector
        (n,) index of the one-pixel ring, and of the sector of 7.5 degrees.
    step
        Frequency step of the spectrum (1/A): the width of a ring.
    k_low, k_high
        First and last frequency (1/A).
    sigma
        Standard deviation of ``value`` around its ring's mean: the noise.
    ring_k
        (n_rings,) mean frequency of each ring.
    """

    k: Floats
    squared: Floats
    cos2: Floats
    sin2: Floats
    value: Floats
    ring: Ints
    sector: Ints
    step: float
    k_low: float
    k_high: float
    sigma: float
    ring_k: Floats

    @property
    def n_rings(self) -> int:
        """How many rings there are."""
        return int(self.ring_k.size)

    def sum(self, weights: Floats | None = None) -> Floats:
        """(n_rings,) sum over the pixels of each ring."""
        return np.bincount(self.ring, weights, minlength=self.n_rings).astype(np.float64)


def radial_mean(power: Floats, bins: Ints, n_bins: int) -> Floats:
    """(n_bins,) mean over the pixels of each bin; 0 where there are none."""
    count = np.bincount(bins, minlength=n_bins)
    total = np.bincount(bins, power, minlength=n_bins)
    return np.asarray(total / np.maximum(count, 1), dtype=np.float64)


def _last_live_radius(power: Floats, radius: Floats, step: float) -> float:
    """Where a low-pass filter cut the spectrum off, or the largest radius.

    Counting noise is nearly white: the mean power of a camera's image doesn't fall a hundredfold.
    """
    bins = np.floor(radius).astype(np.intp)
    mean = radial_mean(power, bins, int(bins.max()) + 1)
    filled = np.flatnonzero(np.bincount(bins))
    inner = filled[filled * step < _INNER_PER_A]
    inner = inner if inner.size >= 4 else filled[:4]
    typical = float(np.exp(np.mean(np.log(np.maximum(mean[inner], 1e-30)))))
    live = filled[mean[filled] > _DEAD * typical]
    if live.size == 0 or live[-1] == filled[-1]:
        return float(radius.max())
    return 0.93 * float(live[-1])  # the filter's own edge looks like a ring


def _smooth_level(k: Floats, mean: Floats, weight: Floats) -> Floats:
    """A curve through the radial mean that is too stiff to follow rings: log power, degree 4."""
    x = 2.0 * (k - k[0]) / max(k[-1] - k[0], 1e-12) - 1.0
    log = np.log(np.maximum(mean, 1e-12 * mean.max()))
    degree = min(4, max(1, k.size // 8))
    coefficients = np.polynomial.chebyshev.chebfit(x, log, degree, w=np.sqrt(weight))
    return np.asarray(np.exp(np.polynomial.chebyshev.chebval(x, coefficients)), dtype=np.float64)


def make_rings(amplitude: Floats, pixel_size_A: float, low_A: float, high_A: float) -> Rings | None:
    """Cut, whiten and label the pixels of a spectrum.

    Parameters
    ----------
    amplitude
        (n, n) amplitude, zero frequency at (n // 2, n // 2).
    pixel_size_A
        Pixel size that the box stands for (A).
    low_A, high_A
        Resolution limits (A), ``low_A`` the coarser.

    Returns
    -------
    Rings or None
        Pixels on the two frequency axes are left out: there, camera lines and edges live. What lies
        past the edge of a low-pass filter is left out too. None when fewer than 8 rings of pixels stay.
    """
    size = amplitude.shape[0]
    centre = size // 2
    step = 1.0 / (size * pixel_size_A)
    rows = np.arange(size) - centre
    columns = np.arange(size - centre)
    iy, ix = np.meshgrid(rows, columns, indexing="ij")
    radius = np.hypot(iy, ix)
    keep = (radius >= 1.0 / low_A / step) & (radius <= min(1.0 / high_A / step, 0.49 * size))
    keep &= (np.abs(ix) > 1) & (np.abs(iy) > 1)
    power = np.square(amplitude[:, centre:], dtype=np.float64)[keep]
    radius, y, x = radius[keep], iy[keep].astype(np.float64), ix[keep].astype(np.float64)
    if power.size < 200:
        return None
    last = _last_live_radius(power, radius, step)
    keep = radius <= last
    power, radius, y, x = power[keep], radius[keep], y[keep], x[keep]
    first = int(np.floor(radius.min()))
    ring = np.floor(radius).astype(np.intp) - first
    n_rings = int(ring.max()) + 1
    if n_rings < 8:
        return None
    ring_k = radial_mean(radius, ring, n_rings) * step
    count = np.bincount(ring, minlength=n_rings)
    level = _smooth_level(ring_k, radial_mean(power, ring, n_rings), count.astype(np.float64))
    k = radius * step
    value = power / np.interp(k, ring_k, level)
    around = np.arctan2(y, x) % np.pi
    sector = np.minimum((around / np.pi * SECTORS).astype(np.intp), SECTORS - 1)
    value, sigma = _tame(value, ring, n_rings)
    squared_radius = radius * radius
    return Rings(
        k=k,
        squared=k * k,
        cos2=(x * x - y * y) / squared_radius,
        sin2=2.0 * x * y / squared_radius,
        value=value,
        ring=ring,
        sector=sector,
        step=step,
        k_low=float(k.min()),
        k_high=float(k.max()),
        sigma=sigma,
        ring_k=ring_k,
    )


def _tame(value: Floats, ring: Ints, n_rings: int) -> tuple[Floats, float]:
    """Pull spots (lattices, lines, JPEG grids) back to the noise of their ring; return the noise too."""
    for _ in range(2):
        mean = radial_mean(value, ring, n_rings)
        spread = np.sqrt(radial_mean(np.square(value - mean[ring]), ring, n_rings))
        value = np.clip(value, (mean - _CLIP_SIGMA * spread)[ring], (mean + _CLIP_SIGMA * spread)[ring])
    mean = radial_mean(value, ring, n_rings)
    return value, float(np.sqrt(np.mean(np.square(value - mean[ring]))))


def spline_basis(k: Floats, k_low: float, k_high: float, intervals: int) -> Floats:
    """Cubic B-splines with evenly spaced knots.

    Returns
    -------
    numpy.ndarray
        (k.size, intervals + 3): one column for each spline; rows sum to 1.
    """
    inner = np.linspace(k_low, k_high, intervals + 1)
    width = inner[1] - inner[0]
    knots = np.concatenate(
        [inner[0] - width * np.arange(3, 0, -1), inner, inner[-1] + width * np.arange(1, 4)]
    )
    clipped = np.clip(k, k_low, np.nextafter(k_high, k_low))
    return np.asarray(BSpline.design_matrix(clipped, knots, 3).toarray(), dtype=np.float64)


def n_periods(optics: Optics, defocus_A: float, k_low: float, k_high: float) -> float:
    """How many dark rings lie between two frequencies (1/A): turns of 2 chi, whichever its direction."""
    squared = np.linspace(k_low**2, k_high**2, 64)
    chi = optics.phase(squared, defocus_A)
    return float(np.abs(np.diff(chi)).sum() / np.pi)


def background_intervals(periods: float) -> int:
    """Knot intervals of the background: at least one ring period each, or it would eat the rings."""
    return int(np.clip(np.floor(periods), 1, 8))
