"""The contrast transfer function: its phase and its image.

Conventions (all of vitriflow): defocus is positive for underfocus, in angstroms. The angle of
astigmatism runs from the x axis (columns) towards the y axis (rows), of the larger defocus, in
the array as stored, row 0 first. That's what ctffind and RELION write for MRC files.

The phase is ::

    chi(k, theta) = pi lambda z(theta) k^2 - pi/2 Cs lambda^3 k^4 + phase + asin(amplitude contrast)
    z(theta)      = (U + V) / 2 + (U - V) / 2 cos(2 (theta - angle))

Sources: Rohou & Grigorieff, J. Struct. Biol. 192 (2015) 216, eqs. 2 to 5; Mindell & Grigorieff,
J. Struct. Biol. 142 (2003) 334.
"""

import math

import torch

from vitriflow.errors import BadParameter
from vitriflow.units import ANGSTROM_PER_MM, electron_wavelength_A


def check_optics(voltage_kV: float, cs_mm: float, amplitude_contrast: float) -> None:
    """Refuse optics that no microscope has.

    Raises
    ------
    BadParameter
        Voltage outside 10 to 1500 kV, Cs outside 0 to 20 mm, amplitude contrast outside 0 to 1.
    """
    limits = (
        ("voltage_kV", voltage_kV, 10.0, 1500.0, "kV"),
        ("spherical_aberration_mm", cs_mm, 0.0, 20.0, "mm"),
        ("amplitude_contrast", amplitude_contrast, 0.0, 1.0, "(a fraction)"),
    )
    for name, value, low, high, unit in limits:
        if not (math.isfinite(value) and low <= value <= high):
            raise BadParameter(
                name,
                expected=f"{low:g} to {high:g} {unit}",
                found=f"{value:g}",
                remedy="Give the microscope's own value; check its unit.",
            )


def ctf_phase(
    ky: torch.Tensor,
    kx: torch.Tensor,
    defocus_u_A: float,
    defocus_v_A: float,
    angle_deg: float,
    voltage_kV: float,
    cs_mm: float,
    amplitude_contrast: float = 0.1,
    phase_shift_deg: float = 0.0,
) -> torch.Tensor:
    """Phase chi of the contrast transfer function, amplitude contrast included.

    Parameters
    ----------
    ky, kx
        Spatial frequencies (1/A), shapes that broadcast against each other.
    defocus_u_A, defocus_v_A
        Larger and smaller defocus (A), positive underfocus.
    angle_deg
        From x towards y, of the larger defocus (degrees).
    voltage_kV, cs_mm, amplitude_contrast
        Optics: kV, mm, fraction.
    phase_shift_deg
        Of a phase plate (degrees).

    Returns
    -------
    torch.Tensor
        chi (radians), in the shape of ``ky`` and ``kx`` together.

    Raises
    ------
    BadParameter
        When the optics can't be.
    """
    check_optics(voltage_kV, cs_mm, amplitude_contrast)
    wavelength = electron_wavelength_A(voltage_kV)
    squared = ky * ky + kx * kx
    mean = 0.5 * (defocus_u_A + defocus_v_A)
    half = 0.5 * (defocus_u_A - defocus_v_A)
    twice = 2.0 * math.radians(angle_deg)
    # k^2 cos(2 theta) and k^2 sin(2 theta) without an arctangent: exact at k = 0 too
    defocus_k2 = mean * squared + half * (
        math.cos(twice) * (kx * kx - ky * ky) + math.sin(twice) * (2.0 * kx * ky)
    )
    aberration = 0.5 * math.pi * cs_mm * ANGSTROM_PER_MM * wavelength**3
    offset = math.asin(amplitude_contrast) + math.radians(phase_shift_deg)
    return math.pi * wavelength * defocus_k2 - aberration * squared * squared + offset


def ctf_2d(
    shape: tuple[int, int],
    pixel_size_A: float,
    defocus_u_A: float,
    defocus_v_A: float,
    angle_deg: float,
    voltage_kV: float,
    cs_mm: float,
    amplitude_contrast: float = 0.1,
    phase_shift_deg: float = 0.0,
    half: bool = True,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> torch.Tensor:
    """Contrast transfer function of an image, -sin(chi), ready to multiply its Fourier transform.

    The sign turns projected potential into image contrast: at underfocus dense matter is dark.

    Parameters
    ----------
    shape
        (height, width) of the image in pixels.
    pixel_size_A
        Pixel size (A).
    defocus_u_A, defocus_v_A, angle_deg, voltage_kV, cs_mm, amplitude_contrast, phase_shift_deg
        As for :func:`ctf_phase`.
    half
        True: layout of ``torch.fft.rfft2``, (height, width // 2 + 1). False: that of ``fft2``.
    dtype, device
        Of the result. The phase is always computed in float64.

    Returns
    -------
    torch.Tensor
        (height, width // 2 + 1) or (height, width).
    """
    height, width = shape
    ky = torch.fft.fftfreq(height, pixel_size_A, dtype=torch.float64, device=device)[:, None]
    frequencies = torch.fft.rfftfreq if half else torch.fft.fftfreq
    kx = frequencies(width, pixel_size_A, dtype=torch.float64, device=device)[None, :]
    chi = ctf_phase(
        ky,
        kx,
        defocus_u_A,
        defocus_v_A,
        angle_deg,
        voltage_kV,
        cs_mm,
        amplitude_contrast,
        phase_shift_deg,
    )
    return -torch.sin(chi).to(dtype)
