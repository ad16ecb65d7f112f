"""CTF numbers that another program found: what they are, and what can be said of them alone.

A fit always returns numbers. ctffind's own figures tell a good deal about them: on the spectra of
EMPIAR-10204 right fits correlate by 0.13 to 0.20, nonsense by 0.02 to 0.08.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

LEAST_CORRELATION = 0.12
COARSEST_A = 8.0
_NEIGHBOURS = 5  # on each side
_LEAST_JUMP_A = 5000.0  # between neighbours the stage's height and the operator's choice change as well
_SPREADS = 6.0


@dataclass(frozen=True)
class OutsideCtf:
    """One result of another program, and the optics that it was told.

    Attributes
    ----------
    name
        Of the micrograph, without folder and suffix.
    defocus_u_A, defocus_v_A
        Larger and smaller defocus (A), positive underfocus.
    angle_deg
        From x towards y, of the larger defocus, -90 to 90 (degrees).
    phase_deg
        Of a phase plate (degrees).
    cross_correlation, resolution_A
        As the program gave them; None where it didn't.
    tilt_deg, tilt_axis_deg
        Of the specimen, where the program fitted it (degrees).
    pixel_size_A, voltage_kV, cs_mm, amplitude_contrast
        What the program was told; None where the file doesn't say.
    """

    name: str
    defocus_u_A: float
    defocus_v_A: float
    angle_deg: float
    phase_deg: float = 0.0
    cross_correlation: float | None = None
    resolution_A: float | None = None
    tilt_deg: float | None = None
    tilt_axis_deg: float | None = None
    pixel_size_A: float | None = None
    voltage_kV: float | None = None
    cs_mm: float | None = None
    amplitude_contrast: float | None = None

    @property
    def mean_A(self) -> float:
        """Mean defocus (A)."""
        return 0.5 * (self.defocus_u_A + self.defocus_v_A)


def doubts_of_numbers(ctf: OutsideCtf) -> list[str]:
    """What speaks against a result without a look at its spectrum, in words; empty when nothing does."""
    doubts = []
    if ctf.cross_correlation is not None and ctf.cross_correlation < LEAST_CORRELATION:
        doubts.append(
            f"its own cross correlation is {ctf.cross_correlation:.3f}: so little explains nothing "
            f"(right fits of clear rings reach {LEAST_CORRELATION:g} and more)"
        )
    if ctf.resolution_A is None:
        doubts.append("it doesn't say how far the rings were fitted")
    elif ctf.resolution_A > COARSEST_A:
        doubts.append(f"its rings were fitted to {ctf.resolution_A:.1f} A only")
    if not 500.0 <= ctf.mean_A <= 150000.0:
        doubts.append(f"a defocus of {ctf.mean_A:.0f} A is none that micrographs are taken at")
    elif ctf.defocus_u_A - ctf.defocus_v_A > 0.5 * ctf.mean_A:
        doubts.append(f"an astigmatism of {ctf.defocus_u_A - ctf.defocus_v_A:.0f} A is half of the defocus")
    return doubts


def doubt_of_neighbours(index: int, all_of_them: Sequence[OutsideCtf]) -> str | None:
    """Whether a defocus jumps away from those taken before and after it: a sentence, or None.

    Parameters
    ----------
    index
        Which of them.
    all_of_them
        Results in the order in which they were taken (names sort so).
    """
    first = max(0, index - _NEIGHBOURS)
    near = [
        ctf.mean_A
        for place, ctf in enumerate(all_of_them[first : index + _NEIGHBOURS + 1], start=first)
        if place != index
    ]
    if len(near) < 4:
        return None
    typical = statistics.median(near)
    spread = 1.4826 * statistics.median(abs(value - typical) for value in near)
    jump = all_of_them[index].mean_A - typical
    if abs(jump) <= max(_LEAST_JUMP_A, _SPREADS * spread):
        return None
    return f"its defocus is {jump:+.0f} A away from that of its neighbours ({typical:.0f} A)"


def phases_agree_to_A(difference_A: float, wavelength_A: float) -> float:
    """Resolution (A) to which two CTFs agree whose defocus differs: where phases are pi/2 apart.

    pi lambda dz k^2 = pi/2, so 1/k = sqrt(2 lambda dz).
    """
    return math.sqrt(2.0 * wavelength_A * abs(difference_A))
