"""Curves and a picture of a CTF fit. Curves are averaged along lines of equal phase.

A plain rotational average blurs the rings of an astigmatic spectrum. Here each pixel is counted
at the frequency where a CTF without astigmatism has the same phase (Rohou & Grigorieff,
J. Struct. Biol. 192 (2015) 216, section 2.4).
"""

import numpy as np
import torch

from vitriflow.kernels.ctf import ctf_phase
from vitriflow.kernels.ctf_refine import Refined
from vitriflow.kernels.ctf_rings import Floats, Optics, Rings, radial_mean

_WINDOW = 7  # rings to each side, at least
_SHALLOW = 0.15  # of the deepest modulation: where rings are shallower the curve isn't stretched further


def equiphase_frequency(rings: Rings, optics: Optics, fit: Refined) -> Floats:
    """(n,) frequency (1/A) at which the mean defocus alone has each pixel's phase.

    Solves ``z u - a u^2 = z(theta) k^2 - a k^4`` for u, the squared frequency.
    """
    mean = fit.mean_A
    if mean <= 0:
        return rings.k
    bend = optics.aberration / (np.pi * optics.wavelength_A)
    offset = float(np.arcsin(optics.amplitude_contrast)) + fit.phase_shift_rad
    target = (fit.chi - offset) / (np.pi * optics.wavelength_A)
    under = mean * mean - 4.0 * bend * target
    # past the turn of the phase the two branches meet; there the pixel keeps its own frequency
    rising = (under > 0.01 * mean * mean) & (2.0 * bend * rings.squared < mean)
    root = np.sqrt(np.where(rising, under, mean * mean))
    squared = np.where(rising, 2.0 * target / (mean + root), rings.squared)
    return np.asarray(np.sqrt(np.maximum(squared, 0.0)))


def _moving_correlation(one: Floats, two: Floats, reach: Floats) -> Floats:
    """Pearson correlation of two curves in a window around each point, ``reach`` points to each side."""
    result = np.zeros(one.size)
    for index, wide in enumerate(reach.astype(int)):
        window = slice(max(0, index - wide), index + wide + 1)
        left, right = one[window] - one[window].mean(), two[window] - two[window].mean()
        norm = float(np.sqrt((left @ left) * (right @ right)))
        result[index] = float(left @ right) / norm if norm > 0 else 0.0
    return result


def equiphase_curves(rings: Rings, optics: Optics, fit: Refined) -> dict[str, list[float]]:
    """Curves for plots, all of one length.

    Returns
    -------
    dict
        ``spatial_frequency_per_A``; ``spectrum``: power without background, stretched so that the
        rings run from about 0 to 1; ``fit``: the squared CTF, 0 to 1; ``correlation``: of the two in
        a window of one and a half rings or more, -1 to 1.
    """
    low = rings.k_low
    bins = np.clip(np.floor((equiphase_frequency(rings, optics, fit) - low) / rings.step), 0, None).astype(
        np.intp
    )
    n_bins = round((rings.k_high - low) / rings.step)
    inside = bins < n_bins
    bins = bins[inside]
    k = low + (np.arange(n_bins) + 0.5) * rings.step
    excess = rings.value - fit.background[rings.ring]
    depth = fit.modulation[rings.ring]
    floor = _SHALLOW * max(float(fit.modulation.max()), 1e-12)
    profile = radial_mean(excess[inside], bins, n_bins)
    stretch = np.maximum(radial_mean(depth[inside], bins, n_bins), floor)
    chi = optics.phase(k * k, fit.mean_A, fit.phase_shift_rad)
    wave = -np.cos(2.0 * chi)
    turn = np.maximum(np.abs(np.gradient(chi)) / np.pi, 1e-6)  # rings per point
    reach = np.clip(np.ceil(0.75 / turn), _WINDOW, max(n_bins // 6, _WINDOW))
    return {
        "spatial_frequency_per_A": np.round(k, 6).tolist(),
        "spectrum": np.round(0.5 + 0.5 * profile / stretch, 4).tolist(),
        "fit": np.round(0.5 + 0.5 * wave, 4).tolist(),
        "correlation": np.round(_moving_correlation(profile, wave, reach), 4).tolist(),
    }


def diagnostic_image(
    amplitude: torch.Tensor,
    pixel_size_A: float,
    defocus_A: tuple[float, float],
    angle_deg: float,
    phase_shift_deg: float,
    optics: Optics,
    to_resolution_A: float | None,
) -> torch.Tensor:
    """Half data, half fit, as ctffind draws it.

    Parameters
    ----------
    amplitude
        (n, n) amplitude spectrum, zero frequency at (n // 2, n // 2).
    pixel_size_A
        Pixel size that the box stands for (A).
    defocus_A
        U and V (A).
    angle_deg, phase_shift_deg
        Of the fit (degrees).
    optics
        The microscope.
    to_resolution_A
        The fit is drawn out to here (A) and is zero past it; None draws all of it.

    Returns
    -------
    torch.Tensor
        (n, n) float32 on the CPU: columns left of the middle hold the spectrum (3 x 3 px averaged,
        even over all frequencies, 0 to 1); the others hold the squared CTF.
    """
    data = amplitude.detach().to("cpu", torch.float64)
    # nine pixels make one: single ones are mostly noise, and a person looks for rings
    data = torch.nn.functional.avg_pool2d(data[None, None], 3, stride=1, padding=1, count_include_pad=False)[
        0, 0
    ]
    size = data.shape[0]
    axis = (torch.arange(size, dtype=torch.float64) - size // 2) / (size * pixel_size_A)
    radius = torch.hypot(axis[:, None], axis[None, :])
    ring = (radius * size * pixel_size_A).round().long().clamp(max=size // 2)
    count = torch.bincount(ring.flatten()).clamp(min=1)
    mean = torch.bincount(ring.flatten(), data.flatten()) / count
    spread = (torch.bincount(ring.flatten(), data.flatten() ** 2) / count - mean**2).clamp(min=0).sqrt()
    # a mean over a sixteenth of the spectrum's width keeps the rings and takes the slope
    reach = max(size // 32, 1)
    padded = torch.nn.functional.pad(mean[None, None], (reach, reach), mode="replicate")
    slope = torch.nn.functional.avg_pool1d(padded, 2 * reach + 1, stride=1)[0, 0]
    typical = spread[ring].clamp(min=1e-30)
    even = 0.5 + ((data - slope[ring]) / typical / 5.0).clamp(-0.5, 0.5)
    chi = ctf_phase(
        axis[:, None],
        axis[None, :],
        defocus_A[0],
        defocus_A[1],
        angle_deg,
        optics.voltage_kV,
        optics.cs_mm,
        optics.amplitude_contrast,
        phase_shift_deg,
    )
    model = torch.sin(chi).square()
    if to_resolution_A is not None:
        model = torch.where(radius <= 1.0 / to_resolution_A, model, 0.0)
    middle = size // 2
    return torch.cat([even[:, :middle], model[:, middle:]], dim=1).to(torch.float32)
