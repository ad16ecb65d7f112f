"""Hold somebody else's CTF against the spectrum that it's said to describe."""

import math
from dataclasses import dataclass

import numpy as np
import torch

from vitriflow.kernels.ctf_fit import CtfFit, check_spectrum, fit_ctf, fit_resolution, ice_ring
from vitriflow.kernels.ctf_outside import OutsideCtf, phases_agree_to_A
from vitriflow.kernels.ctf_quality import DOUBTFUL, GOOD, NO_RINGS, make_blocks
from vitriflow.kernels.ctf_refine import Refiner
from vitriflow.kernels.ctf_rings import Optics, make_rings
from vitriflow.kernels.ctf_search import Candidate

_LOW_A, _SEARCH_A = 20.0, 4.0
_MARGIN = 1.25  # the two may part a little before the rings end


@dataclass(frozen=True)
class Comparison:
    """What a spectrum says of given CTF parameters.

    Attributes
    ----------
    quality
        ``good``, ``doubtful`` or ``no rings``.
    doubts
        In words; empty when good.
    cross_correlation, fit_resolution_A
        Of the given parameters with this spectrum.
    n_rings_seen
        Rings that agree with them, from the centre outwards.
    share
        What they explain of the spectrum, over what the own fit explains, 0 to 1.
    own
        The own fit.
    ice_ring
        As for the own fit.
    """

    quality: str
    doubts: tuple[str, ...]
    cross_correlation: float
    fit_resolution_A: float | None
    n_rings_seen: int
    share: float
    own: CtfFit
    ice_ring: float | None


def compare_ctf(
    spectrum: torch.Tensor,
    pixel_size_A: float,
    given: OutsideCtf,
    optics: Optics,
) -> Comparison:
    """Say whether a spectrum's rings are those of given parameters.

    The parameters are held against the spectrum as they are, and against a fit of our own. They are
    good where that fit is good and both CTFs agree about as far as its rings reach; doubtful else.

    Parameters
    ----------
    spectrum, pixel_size_A
        As for :func:`~vitriflow.kernels.ctf_fit.fit_ctf`.
    given
        The other program's numbers.
    optics
        The microscope.

    Raises
    ------
    BadImage, BadParameter
        As :func:`~vitriflow.kernels.ctf_fit.fit_ctf`.
    """
    amplitude = check_spectrum(spectrum)
    own = fit_ctf(
        spectrum,
        pixel_size_A,
        optics.voltage_kV,
        optics.cs_mm,
        optics.amplitude_contrast,
        max_defocus_A=max(50000.0, 1.2 * given.defocus_u_A),
        fit_phase_shift=given.phase_deg > 1.0,
    )
    rings = make_rings(amplitude, pixel_size_A, _LOW_A, _SEARCH_A)
    if rings is None:  # then the own fit was refused as well
        raise AssertionError("a spectrum that was fitted has rings of pixels")
    twice = 2.0 * math.radians(given.angle_deg)
    astigmatism = given.defocus_u_A - given.defocus_v_A
    at = np.array([given.mean_A, astigmatism * math.cos(twice), astigmatism * math.sin(twice)])
    start = Candidate(0.0, given.mean_A, astigmatism, 0.5 * twice, math.radians(given.phase_deg))
    theirs = Refiner(rings, optics, start, fit_phase_shift=False).at(at)
    ours = Refiner(rings, optics, _candidate(own), fit_phase_shift=False).run()
    blocks = make_blocks(rings, theirs.chi, theirs.background)
    share = float(np.clip(theirs.gain / max(ours.gain, 1e-9), 0.0, 1.0))
    value = rings.value - theirs.background[rings.ring]
    doubts = _doubts(given, own, optics, share, blocks.run())
    wide = make_rings(amplitude, pixel_size_A, _LOW_A, 2.0 * pixel_size_A) or rings
    far = Refiner(wide, optics, start, fit_phase_shift=False).at(at)
    quality = GOOD if not doubts else NO_RINGS if own.quality == NO_RINGS else DOUBTFUL
    return Comparison(
        quality=quality,
        doubts=tuple(doubts),
        cross_correlation=float(np.corrcoef(value, -np.cos(2.0 * theirs.chi))[0, 1]),
        fit_resolution_A=fit_resolution(make_blocks(wide, far.chi, far.background), wide),
        n_rings_seen=blocks.run(),
        share=share,
        own=own,
        ice_ring=ice_ring(amplitude, pixel_size_A),
    )


def _candidate(fit: CtfFit) -> Candidate:
    return Candidate(
        0.0,
        0.5 * (fit.defocus_u_A + fit.defocus_v_A),
        fit.astigmatism_A,
        math.radians(fit.defocus_angle_deg),
        math.radians(fit.phase_shift_deg),
    )


def _doubts(given: OutsideCtf, own: CtfFit, optics: Optics, share: float, n_rings: int) -> list[str]:
    if own.quality == NO_RINGS:
        return ["the spectrum has no rings that could bear out these numbers"]
    doubts = []
    if n_rings < 4:
        doubts.append(f"only {n_rings} rings of the spectrum agree with these numbers")
    if share < 0.5:
        doubts.append(
            f"they explain {share:.0%} of what {own.defocus_u_A:.0f} and {own.defocus_v_A:.0f} A explain"
        )
    if own.quality == DOUBTFUL:
        return [*doubts, *(f"our own fit is doubtful as well: {doubt}" for doubt in own.doubts)]
    apart = _largest_difference_A(given, own)
    agree = phases_agree_to_A(apart, optics.wavelength_A)
    if own.fit_resolution_A is not None and agree > _MARGIN * own.fit_resolution_A and given.phase_deg <= 1.0:
        doubts.append(
            f"the defocus is up to {apart:.0f} A off our own good fit: the two agree to {agree:.1f} A, "
            f"but rings reach {own.fit_resolution_A:.1f} A"
        )
    return doubts


def _largest_difference_A(given: OutsideCtf, own: CtfFit) -> float:
    """Largest difference of the two defoci over all directions (A)."""
    mean = given.mean_A - 0.5 * (own.defocus_u_A + own.defocus_v_A)
    astigmatism = given.defocus_u_A - given.defocus_v_A
    one, two = 2.0 * math.radians(given.angle_deg), 2.0 * math.radians(own.defocus_angle_deg)
    across = math.hypot(
        astigmatism * math.cos(one) - own.astigmatism_A * math.cos(two),
        astigmatism * math.sin(one) - own.astigmatism_A * math.sin(two),
    )
    return abs(mean) + 0.5 * across
