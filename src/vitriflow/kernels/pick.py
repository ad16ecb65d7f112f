"""Finds particles on a micrograph by their size alone.

Blob filters over a range of diameters (difference of Gaussians, Voss et al. 2009, J. Struct.
Biol. 166, 205; or Laplacian of Gaussian), then, where the micrograph supports it, a radial template
learnt from its own best peaks. The threshold comes from the scores' own distribution.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from vitriflow.errors import BadParameter
from vitriflow.kernels.pick_prepare import Prepared, prepare
from vitriflow.kernels.pick_scores import Peaks, blob_scores, find_peaks, learnt_scores, skewness
from vitriflow.kernels.pick_threshold import Cut, automatic_threshold

__all__ = ["Picks", "pick"]

# The longest extent is what people call diameter; the dense body that blob filters see is smaller
SMALLEST, LARGEST = 0.6, 0.85
RINGS = (1.0, 1.2)  # where rings and shells answer best: only starts for the learnt template
MIN_DISTANCE = 0.6
KEEP_FLOOR = 0.1  # candidates below this many deviations aren't kept, ...
JUDGE_FLOOR = 0.5  # ... and those below this don't say where the threshold should be
LEARNT_SKEWNESS = 0.12  # from which a learnt template is believed (noise alone reaches 0.05), ...
LEARNT_GAIN = 1.2  # ... if also so many times the blobs'


@dataclass(frozen=True)
class Picks:
    """Particles found on one micrograph.

    Attributes
    ----------
    coordinates
        ``(n, 2)``: y, x of all candidates in pixels of the full micrograph, the first pixel's
        centre being (0, 0); best score first.
    score
        ``(n,)``, in standard deviations of the micrograph's score map.
    threshold
        Candidates with a score at or above it count; when none does, one above the best score.
    mask
        ``(h, w)`` bool of the binned micrograph: True where nothing is picked (padding, carbon,
        ice, dirt, and too close to the border).
    masked_fraction
        Part of the micrograph that is padding, carbon, ice or dirt.
    method
        ``dog``, ``log`` or ``learnt``: which scores these are.
    expected_f1
        What the fit of the scores' distribution promises, 0 to 1.
    """

    coordinates: NDArray[np.float64]
    score: NDArray[np.float64]
    threshold: float
    mask: NDArray[np.bool_]
    masked_fraction: float
    method: str
    expected_f1: float

    @property
    def accepted(self) -> NDArray[np.float64]:
        """``(n_picks, 2)``: y, x of the candidates that count."""
        return self.coordinates[self.score >= self.threshold]

    @property
    def n_picks(self) -> int:
        """How many candidates count."""
        return int((self.score >= self.threshold).sum())


def _blob_diameters(lowest: float, highest: float) -> tuple[float, ...]:
    count = max(1, min(6, 1 + round(math.log(highest / lowest) / math.log(1.2))))
    return tuple(float(d) for d in np.geomspace(lowest, highest, count))


def _allowed(prepared: Prepared, border: float) -> torch.Tensor:
    allowed = prepared.good.clone()
    rim = max(1, math.ceil(border))
    allowed[:rim] = False
    allowed[-rim:] = False
    allowed[:, :rim] = False
    allowed[:, -rim:] = False
    return allowed


def _checked_range(diameter_A: float, low: float | None, high: float | None) -> tuple[float, float]:
    low = SMALLEST * diameter_A if low is None else low
    high = max(LARGEST * diameter_A, low) if high is None else high
    if not 0 < low <= high:
        raise BadParameter(
            "picking diameters",
            "0 < min_diameter_A <= max_diameter_A",
            f"{low:g} to {high:g} A",
            "Leave both out to take them from particle_diameter_A.",
        )
    return low, high


def _judged(
    scores: torch.Tensor, inverted: torch.Tensor, allowed: torch.Tensor, distance: float
) -> tuple[Peaks, Cut]:
    """Peaks of a score map, and where to cut them by those of the inverted image."""
    peaks = find_peaks(scores, allowed, distance, KEEP_FLOOR)
    decoys = find_peaks(inverted, allowed, distance, JUDGE_FLOOR)
    return peaks, automatic_threshold(peaks.heights[peaks.heights > JUDGE_FLOOR], decoys.heights)


def _best_peaks(
    prepared: Prepared,
    allowed: torch.Tensor,
    diameters: tuple[float, ...],
    distance: float,
    method: str,
    learn: bool,
) -> tuple[Peaks, Cut, str]:
    """Peaks of the score map that tells particles best, their cut, and which map it is."""
    maps = torch.stack(blob_scores(prepared, diameters, method))
    blobs, inverted = maps.amax(dim=0), (-maps).amax(dim=0)
    learnt = None
    if learn:
        rings = blob_scores(prepared, tuple(ring * prepared.diameter for ring in RINGS), "log")
        learnt = learnt_scores(prepared, [blobs, *rings])
    if learnt is None:
        return *_judged(blobs, inverted, allowed, distance), method
    of_learnt = _judged(learnt, -learnt, allowed, distance)
    lean = skewness(learnt, prepared.good)
    if lean > max(LEARNT_SKEWNESS, LEARNT_GAIN * skewness(blobs, prepared.good)):
        return *of_learnt, "learnt"
    of_blobs = _judged(blobs, inverted, allowed, distance)
    # Where blobs show nothing beyond chance, a template may still show faint particles
    if of_learnt[1].present and not of_blobs[1].present:
        return *of_learnt, "learnt"
    return *of_blobs, method


def pick(
    micrograph: torch.Tensor | NDArray[np.generic],
    pixel_size_A: float,
    particle_diameter_A: float,
    *,
    min_diameter_A: float | None = None,
    max_diameter_A: float | None = None,
    method: str = "dog",
    contrast: str = "dark",
    learn: bool = True,
    threshold: float | None = None,
    min_distance_A: float | None = None,
    border_A: float | None = None,
    max_picks: int | None = None,
    device: torch.device | str | None = None,
) -> Picks:
    """Find particles of a given diameter.

    Parameters
    ----------
    micrograph
        ``(height, width)``, any real dtype.
    pixel_size_A
        Of the micrograph (A).
    particle_diameter_A
        Longest extent of the particle (A).
    min_diameter_A, max_diameter_A
        Range of the blob filters (A); None: 0.6 and 0.85 of the diameter.
    method
        ``dog`` or ``log``.
    contrast
        ``dark`` or ``bright`` protein.
    learn
        Also try a radial template learnt from the micrograph itself.
    threshold
        Least score (standard deviations of the score map); None: automatic.
    min_distance_A
        Least distance of two picks (A); None: 0.6 of the diameter.
    border_A
        Picks nearer to the border than this are left out (A); None: half the diameter.
    max_picks
        Keep no more than the best so many above the threshold, by raising it.
    device
        Where to compute; None: where the micrograph is.

    Raises
    ------
    BadImage
        For a micrograph or diameter that can't be used.
    BadParameter
        For a range of diameters that makes no sense.
    """
    low, high = _checked_range(particle_diameter_A, min_diameter_A, max_diameter_A)
    prepared = prepare(micrograph, pixel_size_A, particle_diameter_A, contrast, device)
    binned_A = particle_diameter_A / prepared.diameter
    border = 0.5 * particle_diameter_A if border_A is None else border_A
    distance = (MIN_DISTANCE * particle_diameter_A if min_distance_A is None else min_distance_A) / binned_A
    allowed = _allowed(prepared, border / binned_A)
    empty = Peaks(np.zeros((0, 2)), np.zeros(0))
    peaks, cut, used = empty, Cut(math.inf, 0.0, False), method
    if bool(allowed.any()):
        diameters = _blob_diameters(low / binned_A, high / binned_A)
        peaks, cut, used = _best_peaks(prepared, allowed, diameters, distance, method, learn)
    limit = cut.threshold if threshold is None else threshold
    if max_picks is not None and (peaks.heights >= limit).sum() > max_picks:
        limit = float(peaks.heights[max_picks - 1]) if max_picks > 0 else math.inf
    if not math.isfinite(limit):  # a finite number, so that records and pages need no special case
        limit = float(peaks.heights.max(initial=0.0)) + 1.0
    scale, origin = np.array(prepared.scale), np.array(prepared.origin)
    full_area = float(np.prod(np.asarray(micrograph.shape, dtype=np.float64)))
    good_area = float(prepared.good.sum()) * float(scale.prod())
    return Picks(
        coordinates=peaks.positions * scale + origin,
        score=peaks.heights,
        threshold=limit,
        mask=(~allowed).cpu().numpy(),
        masked_fraction=min(1.0, max(0.0, 1.0 - good_area / full_area)),
        method=used,
        expected_f1=cut.expected_f1,
    )
