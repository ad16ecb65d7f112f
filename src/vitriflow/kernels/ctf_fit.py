"""Fit the contrast transfer function of a micrograph to its power spectrum.

Four parts, each in its own module: a search over all defoci (``ctf_search``), least squares on
every pixel (``ctf_refine``), the question whether to believe it (``ctf_quality``), and the last,
precise fit with its uncertainty (``ctf_precise``).
"""

import math
from dataclasses import dataclass, field

import numpy as np
import torch

from vitriflow.errors import BadImage, BadParameter, Reason
from vitriflow.kernels.ctf import check_optics
from vitriflow.kernels.ctf_curves import equiphase_curves
from vitriflow.kernels.ctf_precise import Precise, settle
from vitriflow.kernels.ctf_quality import Blocks, Evidence, judge, make_blocks
from vitriflow.kernels.ctf_refine import Refined, Refiner
from vitriflow.kernels.ctf_rings import Floats, Optics, Rings, make_rings
from vitriflow.kernels.ctf_search import Candidate, find_candidates
from vitriflow.kernels.spectrum import SMALLEST_BOX

_SEARCH_A = 4.0  # finer rings say nothing new about which defocus it is
_RIVAL, _RIVAL_WITH_PHASE = 0.7, 0.85  # phase and defocus trade places; their rivals are closer
_FLOOR_A = 5.0  # no fit is surer than this: magnification and optics aren't known better


@dataclass(frozen=True)
class CtfFit:
    """What a spectrum says about defocus, and how far to believe it.

    Attributes
    ----------
    defocus_u_A, defocus_v_A
        Larger and smaller defocus (A), positive underfocus.
    defocus_angle_deg
        From x towards y, of the larger defocus, in (-90, 90] (degrees).
    phase_shift_deg
        Of a phase plate, 0 to 180 (degrees); 0 unless it was fitted or given.
    cross_correlation
        Of the whitened spectrum with the rings of the fit, over the resolution range.
    fit_resolution_A
        Where the rings stop fitting (A); None when they never start.
    ice_ring
        Mean power at 3.6 to 4.0 A over that at 4.0 to 4.4 A; None past the spectrum's edge.
    defocus_uncertainty_A, defocus_u_uncertainty_A, defocus_v_uncertainty_A
        One standard deviation of mean defocus, U and V (A).
    angle_uncertainty_deg, phase_uncertainty_deg
        Likewise (degrees).
    quality
        ``good``, ``doubtful`` or ``no rings``.
    doubts
        In words, what keeps the fit from being good; empty when it is.
    n_rings_seen
        Blocks of rings that agree with the fit, from the centre outwards.
    curves
        Equiphase averages: ``spatial_frequency_per_A``, ``spectrum``, ``fit``, ``correlation``.
    """

    defocus_u_A: float
    defocus_v_A: float
    defocus_angle_deg: float
    phase_shift_deg: float
    cross_correlation: float
    fit_resolution_A: float | None
    ice_ring: float | None
    defocus_uncertainty_A: float
    defocus_u_uncertainty_A: float
    defocus_v_uncertainty_A: float
    angle_uncertainty_deg: float
    phase_uncertainty_deg: float
    quality: str
    doubts: tuple[str, ...] = ()
    n_rings_seen: int = 0
    curves: dict[str, list[float]] = field(default_factory=dict)

    @property
    def astigmatism_A(self) -> float:
        """U - V (A)."""
        return self.defocus_u_A - self.defocus_v_A


def fit_ctf(
    spectrum: torch.Tensor,
    pixel_size_A: float,
    voltage_kV: float,
    cs_mm: float,
    amplitude_contrast: float = 0.1,
    min_defocus_A: float = 2000.0,
    max_defocus_A: float = 50000.0,
    max_astigmatism_A: float = 3000.0,
    min_resolution_A: float = 20.0,
    max_resolution_A: float = 3.5,
    fit_phase_shift: bool = False,
) -> CtfFit:
    """Fit defocus, astigmatism and, where asked, phase shift.

    The spectrum is small, so the fit itself runs on the CPU in float64 whatever the device.

    Parameters
    ----------
    spectrum
        (box, box) amplitude, zero frequency at (box // 2, box // 2), as
        :func:`~vitriflow.kernels.spectrum.power_spectrum` and RELION's ``_PS.mrc`` give it.
    pixel_size_A
        Pixel size that the box stands for (A).
    voltage_kV, cs_mm, amplitude_contrast
        Optics: kV, mm, fraction.
    min_defocus_A, max_defocus_A
        Range of the mean defocus (A).
    max_astigmatism_A
        Largest U - V (A).
    min_resolution_A, max_resolution_A
        Coarsest and finest rings used (A). Those past 4.6 A count where they agree with the others.
    fit_phase_shift
        Also fit the phase shift of a phase plate.

    Returns
    -------
    CtfFit
        Always, also when there are no rings: ``quality`` says so.

    Raises
    ------
    BadParameter
        When a parameter can't be.
    BadImage
        When the spectrum isn't a finite square with contrast, or the range holds too few pixels.
    """
    check_optics(voltage_kV, cs_mm, amplitude_contrast)
    _check_ranges(
        pixel_size_A, min_defocus_A, max_defocus_A, max_astigmatism_A, min_resolution_A, max_resolution_A
    )
    amplitude = check_spectrum(spectrum)
    optics = Optics(voltage_kV, cs_mm, amplitude_contrast)
    rings = make_rings(amplitude, pixel_size_A, min_resolution_A, max(max_resolution_A, _SEARCH_A))
    if rings is None:
        raise BadImage(
            Reason.WRONG_SIZE,
            f"power spectrum at {pixel_size_A:g} A/px",
            expected=f"pixels between {min_resolution_A:g} and {max_resolution_A:g} A",
            found=f"an edge at {2 * pixel_size_A:.3g} A, or an image filtered to nothing",
            remedy="Check the pixel size; fit an image that hasn't been low-pass filtered.",
        )
    candidates = find_candidates(
        rings, optics, min_defocus_A, max_defocus_A, max_astigmatism_A, fit_phase_shift
    )
    fits = sorted(
        (Refiner(rings, optics, start, fit_phase_shift).run() for start in candidates),
        key=lambda fit: -fit.gain,
    )
    best = fits[0]
    blocks = make_blocks(rings, best.chi, best.background)
    rival = max((fit for fit in fits[1:] if _differs(fit, best)), key=lambda fit: fit.gain, default=None)
    rival_gain = 0.0 if rival is None else rival.gain / max(best.gain, 1e-9)
    limits = (min_resolution_A, max_resolution_A)
    start = np.array([*best.parameters[:3], best.phase_shift_rad])
    precise = settle(amplitude, pixel_size_A, optics, start, limits, fit_phase_shift)
    if precise is None or _astray(precise, best):
        precise = _as_it_was(rings, optics, best, fit_phase_shift)
    covariance = precise.covariance
    best = _refiner_at(rings, optics, precise, fit_phase_shift).at(precise.parameters[: best.parameters.size])
    evidence = Evidence(
        blocks=blocks,
        rival_gain=rival_gain,
        rival_defocus_A=None if rival is None else rival.mean_A,
        rival_limit=_RIVAL_WITH_PHASE if fit_phase_shift else _RIVAL,
        inside=_inside(best, min_defocus_A, max_defocus_A, max_astigmatism_A),
        relative_uncertainty=math.sqrt(max(covariance[0, 0], 0.0)) / max(abs(best.mean_A), 1.0),
    )
    wide = make_rings(amplitude, pixel_size_A, min_resolution_A, 2.0 * pixel_size_A) or rings
    return _report(amplitude, pixel_size_A, rings, wide, optics, best, covariance, evidence, fit_phase_shift)


def _check_ranges(
    pixel_A: float, low_defocus: float, high_defocus: float, astigmatism: float, coarse: float, fine: float
) -> None:
    if not (math.isfinite(pixel_A) and pixel_A > 0):
        raise BadParameter("pixel_size_A", "a positive number of angstroms", f"{pixel_A}")
    if not 0 < low_defocus < high_defocus:
        raise BadParameter(
            "min_defocus_A, max_defocus_A", "0 < smallest < largest", f"{low_defocus:g} and {high_defocus:g}"
        )
    if not astigmatism >= 0:
        raise BadParameter("max_astigmatism_A", "zero or more", f"{astigmatism:g}")
    if not 0 < fine < coarse:
        raise BadParameter(
            "min_resolution_A, max_resolution_A", "0 < finest < coarsest", f"{coarse:g} and {fine:g}"
        )


def check_spectrum(spectrum: torch.Tensor) -> Floats:
    """The spectrum as float64 on the CPU, or a named refusal."""
    if spectrum.ndim != 2 or spectrum.shape[0] != spectrum.shape[1] or spectrum.shape[0] < SMALLEST_BOX:
        raise BadImage(
            Reason.WRONG_SIZE,
            "power spectrum",
            expected=f"a square of at least {SMALLEST_BOX} px, zero frequency in the middle",
            found=f"{tuple(spectrum.shape)}",
            remedy="If this is a micrograph, set input=micrograph.",
        )
    amplitude: Floats = spectrum.detach().to("cpu", torch.float64).numpy()
    if not np.isfinite(amplitude).all():
        raise BadImage(Reason.NOT_FINITE, "power spectrum", "finite values", "NaN or infinity")
    if amplitude.min() < 0:
        raise BadImage(
            Reason.INTENSITY,
            "power spectrum",
            expected="amplitudes, which are never negative",
            found=f"{amplitude.min():g}",
            remedy="If this is a micrograph, set input=micrograph.",
        )
    if amplitude.max() == amplitude.min():
        reason = Reason.ALL_ZERO if amplitude.max() == 0 else Reason.CONSTANT
        raise BadImage(reason, "power spectrum", "contrast", f"{amplitude.max():g} in every pixel")
    return amplitude


def _differs(one: Refined, two: Refined) -> bool:
    """Whether two fits are different explanations, not the same one reached twice."""
    return abs(one.mean_A - two.mean_A) > max(100.0, 0.02 * two.mean_A)


def _astray(precise: Precise, best: Refined) -> bool:
    """Whether the last fit left the minimum that was judged."""
    return abs(float(precise.parameters[0]) - best.mean_A) > max(100.0, 0.02 * best.mean_A)


def _as_it_was(rings: Rings, optics: Optics, best: Refined, fit_phase_shift: bool) -> Precise:
    """The first fit, where the precise one can't be had."""
    covariance = Refiner(rings, optics, best.as_candidate(), fit_phase_shift).covariance(best.parameters)
    return Precise(np.array([*best.parameters[:3], best.phase_shift_rad]), covariance)


def _refiner_at(rings: Rings, optics: Optics, at: Precise, fit_phase_shift: bool) -> Refiner:
    mean, along, across, phase = (float(value) for value in at.parameters)
    angle = 0.5 * math.atan2(across, along)
    start = Candidate(0.0, mean, math.hypot(along, across), angle, phase)
    return Refiner(rings, optics, start, fit_phase_shift)


def _inside(fit: Refined, low: float, high: float, astigmatism: float) -> bool:
    return 0.95 * low <= fit.mean_A <= 1.05 * high and fit.astigmatism_A <= 1.1 * astigmatism + 100.0


def fit_resolution(blocks: Blocks, rings: Rings) -> float | None:
    """Resolution (A) at the outer edge of the last block of the first unbroken run."""
    end = blocks.run()
    if end == 0:
        return None
    edge = 0.5 * (blocks.k[end - 1] + blocks.k[end]) if end < blocks.k.size else rings.k_high
    return float(1.0 / edge)


def ice_ring(amplitude: Floats, pixel_size_A: float) -> float | None:
    """Mean power at 3.6 to 4.0 A over that at 4.0 to 4.4 A."""
    size = amplitude.shape[0]
    if 2.0 * pixel_size_A > 3.6:
        return None
    axis = (np.arange(size) - size // 2) / (size * pixel_size_A)
    k = np.hypot(axis[:, None], axis[None, :])
    power = np.square(amplitude)
    ice = power[(k >= 1 / 4.0) & (k < 1 / 3.6)].mean()
    beside = power[(k >= 1 / 4.4) & (k < 1 / 4.0)].mean()
    return float(ice / beside) if beside > 0 else None


def _uncertainties(fit: Refined, covariance: Floats) -> tuple[float, float, float, float, float]:
    """One standard deviation of mean defocus, U, V (A), angle and phase shift (degrees)."""
    twice = 2.0 * fit.angle_rad
    outwards, around = np.zeros(len(covariance)), np.zeros(len(covariance))
    outwards[1:3] = math.cos(twice), math.sin(twice)
    around[1:3] = -math.sin(twice), math.cos(twice)
    mean = np.eye(len(covariance))[0]

    def spread(direction: Floats) -> float:
        return math.sqrt(max(float(direction @ covariance @ direction), 0.0))

    angle = math.degrees(0.5 * spread(around) / max(fit.astigmatism_A, 1e-6))
    phase = math.degrees(math.sqrt(max(float(covariance[3, 3]), 0.0))) if len(covariance) > 3 else 0.0
    return (
        max(spread(mean), _FLOOR_A),
        max(spread(mean + 0.5 * outwards), _FLOOR_A),
        max(spread(mean - 0.5 * outwards), _FLOOR_A),
        min(angle, 90.0),
        phase,
    )


def _report(
    amplitude: Floats,
    pixel_size_A: float,
    rings: Rings,
    wide: Rings,
    optics: Optics,
    best: Refined,
    covariance: Floats,
    evidence: Evidence,
    fit_phase_shift: bool,
) -> CtfFit:
    """Put the numbers into the units and ranges that people expect."""
    quality, doubts = judge(evidence)
    full = Refiner(wide, optics, best.as_candidate(), fit_phase_shift).at(best.parameters)
    half = 0.5 * best.astigmatism_A
    angle = math.degrees(best.angle_rad)
    value = rings.value - best.background[rings.ring]
    sure = _uncertainties(best, covariance)
    return CtfFit(
        defocus_u_A=best.mean_A + half,
        defocus_v_A=best.mean_A - half,
        defocus_angle_deg=angle if angle > -90.0 else 90.0,
        phase_shift_deg=math.degrees(best.phase_shift_rad) % 180.0,
        cross_correlation=float(np.corrcoef(value, -np.cos(2.0 * best.chi))[0, 1]),
        fit_resolution_A=fit_resolution(make_blocks(wide, full.chi, full.background), wide),
        ice_ring=ice_ring(amplitude, pixel_size_A),
        defocus_uncertainty_A=sure[0],
        defocus_u_uncertainty_A=sure[1],
        defocus_v_uncertainty_A=sure[2],
        angle_uncertainty_deg=sure[3],
        phase_uncertainty_deg=sure[4],
        quality=quality,
        doubts=doubts,
        n_rings_seen=evidence.blocks.run(),
        curves=equiphase_curves(wide, optics, full),
    )
