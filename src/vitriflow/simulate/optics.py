"""The microscope as filters of spatial frequency: CTF, envelope, damage, MTF, the power of ice."""

from functools import lru_cache

import gemmi
import numpy as np
from numpy.typing import NDArray

from vitriflow.simulate.spec import MovieSpec
from vitriflow.units import ANGSTROM_PER_MM, electron_wavelength_A

Float = NDArray[np.float32]

ICE_MOLECULES_PER_A3 = 0.0314  # low-density amorphous ice, 0.94 g/cm^3
INELASTIC_MEAN_FREE_PATH_A = 3000.0  # of 300 kV electrons in ice, about


def frequency_axes(shape: tuple[int, int], pixel_size_A: float) -> tuple[Float, Float]:
    """Frequencies (1/A) of the half-plane of a real image: ky ``(height, 1)``, kx ``(1, width // 2 + 1)``."""
    ky = np.fft.fftfreq(shape[0], pixel_size_A).astype(np.float32)[:, None]
    kx = np.fft.rfftfreq(shape[1], pixel_size_A).astype(np.float32)[None, :]
    return ky, kx


def phase_per_scattering_length(voltage_kV: float) -> float:
    """Phase (rad A^2) that one angstrom of scattering length gives: (m / m0) lambda.

    The interaction constant 2 pi m e lambda / h^2 times h^2 / (2 pi m0 e), Kirkland (2010) ch. 5.
    """
    return (1.0 + voltage_kV / 510.99895) * electron_wavelength_A(voltage_kV)


def contrast_transfer(spec: MovieSpec, ky: Float, kx: Float) -> Float:
    """Image contrast per radian of specimen phase: -2 sin(chi), without envelopes.

    chi = pi lambda df(theta) k^2 - pi/2 Cs lambda^3 k^4 + phase shift + asin(amplitude contrast),
    df(theta) = (u + v)/2 + (u - v)/2 cos(2 (theta - angle)), theta from x towards y.
    Weak-phase approximation; Mindell & Grigorieff (2003), Rohou & Grigorieff (2015).
    """
    wavelength = electron_wavelength_A(spec.voltage_kV)
    cs = spec.spherical_aberration_mm * ANGSTROM_PER_MM
    k2 = kx * kx + ky * ky
    mean = 0.5 * (spec.defocus_u_A + spec.defocus_v_A)
    half = 0.5 * (spec.defocus_u_A - spec.defocus_v_A)
    twice = np.deg2rad(2.0 * spec.defocus_angle_deg)
    # k^2 cos(2 (theta - angle)) without an arctangent
    k2_astigmatic = (kx * kx - ky * ky) * np.float32(np.cos(twice)) + (2.0 * kx * ky) * np.float32(
        np.sin(twice)
    )
    offset = np.deg2rad(spec.phase_shift_deg) + np.arcsin(spec.amplitude_contrast)
    chi = np.float32(np.pi * wavelength) * (np.float32(mean) * k2 + np.float32(half) * k2_astigmatic)
    chi -= np.float32(0.5 * np.pi * cs * wavelength**3) * (k2 * k2)
    chi += np.float32(offset)
    result: Float = np.float32(-2.0) * np.sin(chi)
    return result


def envelope(spec: MovieSpec, k2: Float) -> Float:
    """Loss of contrast by the B-factor, the detector's MTF and inelastic scattering in the ice."""
    nyquist2 = (0.5 / spec.pixel_size_A) ** 2
    exponent = -0.25 * spec.b_factor_A2 + np.log(spec.mtf_at_nyquist) / nyquist2
    elastic = np.exp(-spec.ice_thickness_A / INELASTIC_MEAN_FREE_PATH_A)
    result: Float = np.float32(elastic) * np.exp(np.float32(exponent) * k2)
    return result


def critical_dose(k: Float, voltage_kV: float) -> Float:
    """Critical dose (e/A^2) at spatial frequency ``k`` (1/A).

    0.245 k^-1.665 + 2.81 at 300 kV, times 0.8 at 200 kV (Grant & Grigorieff 2015, eq. 3), and in
    proportion between and beyond.
    """
    safe = np.maximum(k, np.float32(1e-4))
    scale = 0.8 + 0.2 * (voltage_kV - 200.0) / 100.0
    result: Float = (np.float32(0.245) * safe ** np.float32(-1.665) + np.float32(2.81)) * np.float32(
        max(scale, 0.3)
    )
    return result


def water_scattering_length(k2: Float) -> Float:
    """Electron scattering factor of one water molecule (A) at squared frequency (1/A^2)."""
    return scattering_factor("O", k2) + np.float32(2.0) * scattering_factor("H", k2)


@lru_cache(maxsize=64)
def _tabulated(element: str) -> tuple[Float, Float]:
    """Scattering factor on a grid of squared frequency: gemmi's c4322 (International Tables C 4.3.2.2)."""
    grid = np.linspace(0.0, 4.0, 4001)
    table = gemmi.Element(element).c4322
    values = [table.calculate_sf(k2 / 4.0) for k2 in grid]
    return grid.astype(np.float32), np.asarray(values, dtype=np.float32)


def scattering_factor(element: str, k2: Float) -> Float:
    """Electron scattering factor (A) of a neutral atom at squared frequency ``k2`` (1/A^2)."""
    grid, values = _tabulated(element)
    return np.interp(k2, grid, values).astype(np.float32)


def ice_amplitude(spec: MovieSpec, k2: Float) -> Float:
    """Standard deviation of the ice's phase per root of frequency area (rad A).

    Randomly placed water molecules, ``thickness x density`` of them per area, with the structure
    factor of amorphous ice drawn smoothly: 0.1 at low frequency, a broad peak at 1/3.7 A, 1
    beyond. Slow variations of thickness add power below 1/30 A.
    """
    edges = np.linspace(0.0, float(np.sqrt(k2.max())) + 1e-3, 2048)
    structure = (
        0.1 + 0.9 / (1.0 + np.exp(-(edges - 0.23) / 0.02)) + 0.8 * np.exp(-(((edges - 0.27) / 0.03) ** 2))
    )
    structure += 4.0 * np.exp(-((edges / 0.015) ** 2))
    per_area = ICE_MOLECULES_PER_A3 * spec.ice_thickness_A
    one = phase_per_scattering_length(spec.voltage_kV) * water_scattering_length(
        (edges**2).astype(np.float32)
    )
    radial = spec.ice_noise * np.sqrt(per_area * structure) * one
    return np.interp(np.sqrt(k2), edges, radial).astype(np.float32)
