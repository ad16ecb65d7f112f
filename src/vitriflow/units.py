"""Constants and conversions of the field: one place, one meaning."""

import math

ANGSTROM_PER_NM = 10.0
ANGSTROM_PER_UM = 1.0e4
ANGSTROM_PER_MM = 1.0e7
ANGSTROM_PER_M = 1.0e10


def electron_wavelength_A(voltage_kV: float) -> float:
    """Relativistic electron wavelength in angstroms.

    Source: Kirkland, Advanced Computing in Electron Microscopy (2010), eq. 2.5:
    12.2643 / sqrt(V + 0.978466e-6 V^2), V in volts.
    """
    volts = voltage_kV * 1e3
    return 12.2643247 / math.sqrt(volts * (1.0 + volts * 0.978466e-6))


def dose_per_A2_from_SI(dose_e_per_m2: float) -> float:
    """Electrons per square metre (EPU's XML) to electrons per square angstrom."""
    return dose_e_per_m2 / ANGSTROM_PER_M**2
