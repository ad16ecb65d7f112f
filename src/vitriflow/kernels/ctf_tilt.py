"""Tilt of the specimen, from how the defocus changes over the field.

The field is cut into patches. Each patch's spectrum gives a score for every defocus near that of the
whole field; the plane whose defoci have the largest sum of scores is the specimen. No patch has to
be fitted by itself, so weak ones count for what they know.

The spectra are then stretched to the defocus of the field's centre and averaged: a spectrum without
the blur of the tilt, to which the CTF is fitted again. The idea of both is that of ctftilt and of
ctffind 5 (Mindell & Grigorieff, J. Struct. Biol. 142 (2003) 334; Elferich et al., eLife 13 (2024)
RP97227); search and uncertainty are our own.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize

from vitriflow.errors import BadImage, BadParameter, Reason
from vitriflow.kernels.ctf_fit import CtfFit, check_spectrum
from vitriflow.kernels.ctf_rings import Floats, Ints, Optics, make_rings
from vitriflow.kernels.ctf_search import DefocusScores, defocus_scores
from vitriflow.kernels.spectrum import Spectrum, power_spectrum, tile_layout

_PATCH = 1.5  # tiles to a side of a patch
_LOW_A, _HIGH_A = 25.0, 4.6
_FEWEST = 9
_AXES = 24
_STEP_DEG = 2.5
_SUREST_DEG = 1.0
_DEFOCUS_STEP_A = 20.0


@dataclass(frozen=True)
class TiltFit:
    """The plane of the specimen.

    Attributes
    ----------
    tilt_deg
        0 to 90 (degrees).
    axis_deg
        Of the tilt axis, from x towards y, -180 to 180 (degrees): underfocus grows in the direction
        90 degrees further on.
    tilt_uncertainty_deg, axis_uncertainty_deg
        One standard deviation, from leaving out patch after patch (degrees). An axis known to worse
        than 30 degrees says that there's no tilt to speak of.
    gain
        Sum of scores over that of a flat specimen, in standard deviations.
    spectrum
        Averaged after each patch was stretched to the centre's defocus.
    n_patches
        How many there were.
    """

    tilt_deg: float
    axis_deg: float
    tilt_uncertainty_deg: float
    axis_uncertainty_deg: float
    gain: float
    spectrum: Spectrum
    n_patches: int


@dataclass(frozen=True)
class KnownTilt:
    """What the patches say where the plane of the specimen was given.

    Attributes
    ----------
    defocus_A
        Mean defocus at the field's centre (A), to a step of 20 A.
    gain
        Sum of scores over that of a flat specimen, in standard deviations.
    other_way
        Sum of scores of the same tilt the other way round over that of the one given, likewise: far above
        zero when the sign is wrong.
    spectrum
        Averaged after each patch was stretched to the centre's defocus.
    n_patches
        How many there were.
    """

    defocus_A: float
    gain: float
    other_way: float
    spectrum: Spectrum
    n_patches: int


@dataclass(frozen=True)
class _Patches:
    centres: Floats  # (n, 2), y then x from the field's centre (A)
    spectra: list[Spectrum]


def fit_tilt(
    micrograph: torch.Tensor,
    pixel_size_A: float,
    fit: CtfFit,
    optics: Optics,
    box: int = 512,
    max_tilt_deg: float = 65.0,
    threads: int = 2,
) -> TiltFit:
    """Find the tilt of the specimen from the defocus over the field.

    Parameters
    ----------
    micrograph
        (height, width), any real type.
    pixel_size_A
        Pixel size (A).
    fit
        The CTF of the whole field: its defocus is where the search starts, its astigmatism is taken
        as it is.
    optics
        The microscope.
    box
        Size of the spectra (px).
    max_tilt_deg
        Largest tilt tried (degrees).
    threads
        CPU threads.

    Raises
    ------
    BadImage
        When the field is too small for nine patches.
    """
    patches = _cut(micrograph, pixel_size_A, box, threads)
    mean = 0.5 * (fit.defocus_u_A + fit.defocus_v_A)
    reach = math.tan(math.radians(max_tilt_deg)) * float(np.hypot(*patches.centres.T).max())
    low = max(0.2 * mean, mean - reach)
    around = (low, mean + reach)
    tables = _tables(patches, optics, around, fit.astigmatism_A, fit, (micrograph, pixel_size_A))
    return _plane(patches, tables, mean, max_tilt_deg)


def known_tilt(
    micrograph: torch.Tensor,
    pixel_size_A: float,
    fit: CtfFit,
    optics: Optics,
    tilt_deg: float,
    axis_deg: float,
    defocus_range_A: tuple[float, float],
    box: int = 512,
    threads: int = 2,
) -> KnownTilt:
    """The defocus at the centre of a specimen whose tilt is known, and a spectrum without its blur.

    Only the height of the plane is searched, so that this holds where the whole field shows no rings.

    Parameters
    ----------
    micrograph, pixel_size_A, optics, box, threads
        As for `fit_tilt`.
    fit
        The CTF of the whole field; its astigmatism is used unless it found no rings.
    tilt_deg, axis_deg
        The plane: -80 to 80, and the axis from x towards y (degrees). With a positive tilt underfocus
        grows in the direction 90 degrees further on than the axis.
    defocus_range_A
        Where the centre's mean defocus is looked for (A).

    Raises
    ------
    BadParameter
        When the tilt is steeper than 80 degrees.
    BadImage
        When the field is too small for nine patches.
    """
    if not abs(tilt_deg) <= 80.0:
        raise BadParameter("tilt_angle_deg", "-80 to 80 degrees", f"{tilt_deg:g}")
    patches = _cut(micrograph, pixel_size_A, box, threads)
    slopes = _slopes(tilt_deg, axis_deg)
    reach = float(np.abs(patches.centres @ slopes).max())
    low, high = defocus_range_A
    seen = fit.quality != "no rings"
    astigmatism = fit.astigmatism_A if seen else 0.0
    around = (max(0.2 * low, low - reach), high + reach)
    tables = _tables(patches, optics, around, astigmatism, fit, (micrograph, pixel_size_A))
    mean = 0.5 * (low + high)
    scores = _Scores(patches, tables, mean)
    offsets = np.arange(low - mean, high - mean + _DEFOCUS_STEP_A, _DEFOCUS_STEP_A)
    offset, best = scores.best_offset(slopes, offsets)
    _, flat = scores.best_offset(np.zeros(2), offsets)
    _, other = scores.best_offset(-slopes, offsets)
    n = len(patches.centres)
    return KnownTilt(
        defocus_A=mean + offset,
        gain=(best - flat) / math.sqrt(n),
        other_way=(other - best) / math.sqrt(n),
        spectrum=_stretched(patches, mean, np.array([offset, *slopes])),
        n_patches=n,
    )


def _tables(
    patches: _Patches,
    optics: Optics,
    range_A: tuple[float, float],
    astigmatism_A: float,
    fit: CtfFit,
    field: tuple[torch.Tensor, float],
) -> list[DefocusScores]:
    """Scores of each patch over a range of defoci."""
    tables = []
    for spectrum in patches.spectra:
        amplitude = check_spectrum(spectrum.amplitude)
        rings = make_rings(amplitude, spectrum.pixel_size_A, _LOW_A, _HIGH_A)
        if rings is None:
            raise _too_small(*field)
        angle, phase = math.radians(fit.defocus_angle_deg), math.radians(fit.phase_shift_deg)
        tables.append(defocus_scores(rings, optics, range_A, astigmatism_A, angle, phase))
    return tables


def _too_small(micrograph: torch.Tensor, pixel_size_A: float) -> BadImage:
    return BadImage(
        Reason.WRONG_SIZE,
        f"micrograph of {micrograph.shape[0]} x {micrograph.shape[1]} px at {pixel_size_A:g} A/px",
        expected="a field of at least 3 x 3 patches to find a tilt in",
        found="too few pixels",
        remedy="Leave estimate_tilt out for an image this small.",
    )


def _cut(micrograph: torch.Tensor, pixel_size_A: float, box: int, threads: int) -> _Patches:
    """Spectra of patches that cover the field, half overlapping."""
    height, width = micrograph.shape
    tile, _, _ = tile_layout((height, width), pixel_size_A, box)
    side = int(_PATCH * tile) // 2 * 2
    counts = [max(1, round(2.0 * (size - side) / side) + 1) if size > side else 0 for size in (height, width)]
    if min(counts) < 2 or counts[0] * counts[1] < _FEWEST:
        raise _too_small(micrograph, pixel_size_A)
    centres, spectra = [], []
    for y in np.linspace(0, height - side, counts[0]).round().astype(int):
        for x in np.linspace(0, width - side, counts[1]).round().astype(int):
            part = micrograph[y : y + side, x : x + side]
            try:
                spectra.append(power_spectrum(part, pixel_size_A, box=box, threads=threads))
            except BadImage:
                continue  # a patch of one grey value tells nothing; the others do
            centres.append((y + 0.5 * side - 0.5 * height, x + 0.5 * side - 0.5 * width))
    if len(spectra) < _FEWEST:
        raise _too_small(micrograph, pixel_size_A)
    return _Patches(np.asarray(centres) * pixel_size_A, spectra)


class _Scores:
    """What the patches say of planes: (defocus offset A, slope along y, slope along x)."""

    def __init__(self, patches: _Patches, tables: list[DefocusScores], mean: float) -> None:
        self._scores = np.stack([table.scores for table in tables])
        self._first, self._step = tables[0].first_A, tables[0].step_A
        self._centres, self._mean = patches.centres, mean

    def total(self, plane: Floats, chosen: Ints) -> float:
        """Sum of scores of the patches ``chosen``."""
        defocus = self._mean + plane[0] + self._centres[chosen] @ plane[1:]
        place = np.clip((defocus - self._first) / self._step, 0.0, self._scores.shape[1] - 1.001)
        index = place.astype(np.intp)
        part = place - index
        left, right = self._scores[chosen, index], self._scores[chosen, index + 1]
        return float((left * (1.0 - part) + right * part).sum())

    def climb(self, start: Floats, chosen: Ints) -> Floats:
        """The best plane near ``start``."""
        scale = np.array([100.0, 0.05, 0.05])
        simplex = np.vstack([start, start + np.diag(scale)])
        found: Any = minimize(  # type: ignore[call-overload]
            lambda plane: -self.total(plane, chosen),
            start,
            method="Nelder-Mead",
            options={"initial_simplex": simplex, "xatol": 1e-4, "fatol": 1e-4, "maxiter": 400},
        )
        return np.asarray(found.x, dtype=np.float64)

    def best_offset(self, slopes: Floats, offsets: Floats) -> tuple[float, float]:
        """The defocus offset (A) at which a plane of given slopes scores most, and that score."""
        everything = np.arange(len(self._centres))
        totals = [self.total(np.array([offset, *slopes]), everything) for offset in offsets]
        best = int(np.argmax(totals))
        return float(offsets[best]), totals[best]


def _slopes(tilt_deg: float, axis_deg: float) -> Floats:
    """Growth of underfocus along y and x (A/A)."""
    uphill = math.radians(axis_deg + 90.0)
    return math.tan(math.radians(tilt_deg)) * np.array([math.sin(uphill), math.cos(uphill)])


def _plane(patches: _Patches, tables: list[DefocusScores], mean: float, max_tilt_deg: float) -> TiltFit:
    """The plane of the largest sum of scores, and what leaving patches out does to it."""
    scores = _Scores(patches, tables, mean)
    n = len(patches.centres)
    everything = np.arange(n)
    starts = [np.zeros(3)]
    for tilt in np.arange(_STEP_DEG, max_tilt_deg + 1e-9, _STEP_DEG):
        for turn in np.arange(_AXES) * 360.0 / _AXES:
            starts.append(np.array([0.0, *_slopes(tilt, turn)]))
    starts.sort(key=lambda plane: -scores.total(plane, everything))
    found = [scores.climb(start, everything) for start in starts[:4]]
    best = max(found, key=lambda plane: scores.total(plane, everything))
    _, flat = scores.best_offset(np.zeros(2), np.arange(-500.0, 501.0, 50.0))
    tilt_sd, axis_sd = _jackknife(best, n, scores.climb)
    slope_y, slope_x = float(best[1]), float(best[2])
    return TiltFit(
        tilt_deg=math.degrees(math.atan(math.hypot(slope_y, slope_x))),
        axis_deg=_turn(math.degrees(math.atan2(slope_y, slope_x)) - 90.0),
        tilt_uncertainty_deg=tilt_sd,
        axis_uncertainty_deg=axis_sd,
        gain=(scores.total(best, everything) - flat) / math.sqrt(n),
        spectrum=_stretched(patches, mean, best),
        n_patches=n,
    )


def _turn(angle_deg: float) -> float:
    return (angle_deg + 180.0) % 360.0 - 180.0


def _jackknife(best: Floats, n: int, climb: Callable[[Floats, Ints], Floats]) -> tuple[float, float]:
    """Standard deviations of tilt and axis (degrees), from leaving out patches one by one."""
    planes = np.stack([climb(best, np.delete(np.arange(n), index)) for index in range(n)])
    moved = planes[:, 1:] - planes[:, 1:].mean(axis=0)
    # patches overlap by half, so that neighbours share what they say
    covariance = 2.0 * (n - 1) / n * moved.T @ moved
    slope = float(np.hypot(*best[1:]))
    along = best[1:] / max(slope, 1e-9)
    across = np.array([-along[1], along[0]])
    tilt_sd = math.degrees(math.sqrt(float(along @ covariance @ along)) / (1.0 + slope * slope))
    axis_sd = math.degrees(math.sqrt(float(across @ covariance @ across)) / max(slope, 1e-9))
    return max(tilt_sd, _SUREST_DEG), min(max(axis_sd, _SUREST_DEG), 180.0)


def _stretched(patches: _Patches, mean: float, plane: Floats) -> Spectrum:
    """Mean of the patches' power, each stretched so that its rings fall on those of the centre."""
    size = patches.spectra[0].amplitude.shape[0]
    half = size // 2
    axis = torch.arange(size, dtype=torch.float32) - half
    total = torch.zeros((size, size))
    target = mean + float(plane[0])
    for centre, spectrum in zip(patches.centres, patches.spectra, strict=True):
        defocus = target + float(centre @ plane[1:])
        ratio = math.sqrt(max(target, 1.0) / max(defocus, 0.1 * target))
        # 2 / (size - 1) maps pixels to the -1 to 1 of grid_sample with corners aligned
        place = (axis * ratio + half) * (2.0 / (size - 1)) - 1.0
        grid = torch.stack(torch.meshgrid(place, place, indexing="ij")[::-1], dim=-1)[None]
        power = spectrum.amplitude.detach().to("cpu", torch.float32).square()[None, None]
        total += torch.nn.functional.grid_sample(power, grid, padding_mode="border", align_corners=True)[0, 0]
    amplitude = (total / len(patches.spectra)).sqrt()
    tiles = sum(spectrum.n_tiles for spectrum in patches.spectra)
    return Spectrum(amplitude, patches.spectra[0].pixel_size_A, tiles)
