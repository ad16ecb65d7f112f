"""Several programs' answers made one: CTFs that agree up to a resolution, picks that others share.

None of it depends on the order in which answers are given.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vitriflow.errors import BadParameter
from vitriflow.units import ANGSTROM_PER_MM, electron_wavelength_A

__all__ = [
    "CtfEstimate",
    "PickClusters",
    "agreeing",
    "ctf_agreement_A",
    "mean_ctf",
    "pick_clusters",
]

Float = NDArray[np.float64]


@dataclass(frozen=True)
class CtfEstimate:
    """One program's answer for one micrograph.

    Attributes
    ----------
    defocus_u_A, defocus_v_A
        Defocus along the angle and across it (A), positive underfocus.
    angle_deg
        From x towards y (degrees).
    phase_shift_deg
        Of a phase plate (degrees).
    voltage_kV, cs_mm, amplitude_contrast
        What the program was told.
    """

    defocus_u_A: float
    defocus_v_A: float
    angle_deg: float
    phase_shift_deg: float
    voltage_kV: float
    cs_mm: float
    amplitude_contrast: float

    @property
    def mean_A(self) -> float:
        """Mean defocus (A)."""
        return 0.5 * (self.defocus_u_A + self.defocus_v_A)

    @property
    def astigmatism(self) -> complex:
        """(U - V) / 2 at twice the angle (A): what can be added and averaged."""
        twice = 2.0 * math.radians(self.angle_deg)
        return 0.5 * (self.defocus_u_A - self.defocus_v_A) * complex(math.cos(twice), math.sin(twice))

    @property
    def offset(self) -> float:
        """Phase that doesn't depend on frequency (radians)."""
        return math.asin(self.amplitude_contrast) + math.radians(self.phase_shift_deg)


def ctf_agreement_A(one: CtfEstimate, other: CtfEstimate) -> float:
    """Resolution (A) up to which two CTFs agree: where their phases first differ by pi/2.

    By radius, in the direction in which they differ most, with phase shifts and spherical aberration::

        pi lambda dz(theta) k^2 - pi/2 dCs lambda^3 k^4 + dphase = +-pi/2

    Phases count modulo 2 pi. It's infinite where they differ by pi/2 at every frequency from zero, and 0 where
    they never do.

    Raises
    ------
    BadParameter
        When the two were made for different voltages: the defocus of one means another at the other.
    """
    if abs(one.voltage_kV - other.voltage_kV) > 1e-3 * one.voltage_kV:
        raise BadParameter(
            "CTFs to compare",
            "one voltage",
            f"{one.voltage_kV:g} and {other.voltage_kV:g} kV",
            "Give both programs the microscope's voltage.",
        )
    wavelength = electron_wavelength_A(one.voltage_kV)
    offset = math.remainder(one.offset - other.offset, 2.0 * math.pi)
    if abs(offset) >= 0.5 * math.pi:
        return math.inf
    across = one.mean_A - other.mean_A
    along = abs(one.astigmatism - other.astigmatism)
    quartic = -0.5 * math.pi * (one.cs_mm - other.cs_mm) * ANGSTROM_PER_MM * wavelength**3
    squares = [
        square
        for difference in (across + along, across - along)
        for limit in (0.5 * math.pi, -0.5 * math.pi)
        for square in _positive_roots(quartic, math.pi * wavelength * difference, offset - limit)
    ]
    return 1.0 / math.sqrt(min(squares)) if squares else 0.0


def _positive_roots(a: float, b: float, c: float) -> list[float]:
    """Positive x with a x^2 + b x + c = 0."""
    if abs(a) < 1e-12:
        roots = [-c / b] if abs(b) > 1e-12 else []
    else:
        inner = b * b - 4.0 * a * c
        if inner < 0:
            return []
        # The form that loses no digits where a is small
        half = -0.5 * (b + math.copysign(math.sqrt(inner), b))
        roots = [half / a] + ([c / half] if half else [])
    return [root for root in roots if root > 1e-12]


def agreeing(estimates: Sequence[CtfEstimate], resolution_A: float) -> list[int]:
    """Indices of the largest group in which all agree with all up to a resolution; sorted.

    Of groups of the same size it's the one that agrees furthest. One estimate agrees with itself.
    """
    apart = {
        (i, j): ctf_agreement_A(estimates[i], estimates[j])
        for i, j in itertools.combinations(range(len(estimates)), 2)
    }
    for size in range(len(estimates), 1, -1):
        groups = []
        for group in itertools.combinations(range(len(estimates)), size):
            worst = max(apart[pair] for pair in itertools.combinations(group, 2))
            if worst <= resolution_A:
                # Ties go by the numbers themselves, not by the order in which they came
                groups.append((worst, sorted(_numbers(estimates[i]) for i in group), list(group)))
        if groups:
            return min(groups)[2]
    return [min(range(len(estimates)), key=lambda i: _numbers(estimates[i]))] if estimates else []


def _numbers(estimate: CtfEstimate) -> tuple[float, ...]:
    return (
        estimate.mean_A,
        estimate.astigmatism.real,
        estimate.astigmatism.imag,
        estimate.phase_shift_deg,
        estimate.cs_mm,
        estimate.amplitude_contrast,
    )


def mean_ctf(estimates: Sequence[CtfEstimate]) -> CtfEstimate:
    """The mean of CTFs: astigmatism on doubled angles, phase shifts on the circle; U is not below V.

    Raises
    ------
    BadParameter
        When there is none.
    """
    if not estimates:
        raise BadParameter("CTFs to average", "at least one", "none", "Wire an input that succeeded.")
    ordered = sorted(estimates, key=_numbers)  # sums don't depend on the order then
    n = len(ordered)
    mean = sum(one.mean_A for one in ordered) / n
    astigmatism = sum((one.astigmatism for one in ordered), 0j) / n
    half = abs(astigmatism)
    angle = 0.5 * math.degrees(math.atan2(astigmatism.imag, astigmatism.real)) if half > 0 else 0.0
    phases = [math.radians(one.phase_shift_deg) for one in ordered]
    phase = math.degrees(math.atan2(sum(map(math.sin, phases)), sum(map(math.cos, phases))))
    return CtfEstimate(
        mean + half,
        mean - half,
        angle,
        # On the circle, but not below the least: 0 stays 0 and 170 stays 170
        phase
        if abs(phase) < 1e-9 or phase >= min(one.phase_shift_deg for one in ordered) - 1e-9
        else phase + 360,
        ordered[0].voltage_kV,
        sum(one.cs_mm for one in ordered) / n,
        sum(one.amplitude_contrast for one in ordered) / n,
    )


@dataclass(frozen=True)
class PickClusters:
    """Picks of several pickers that mean one particle.

    Attributes
    ----------
    yx
        ``(n, 2)``: mean of each cluster's picks (px); the one with most votes first.
    votes
        ``(n,)``: pickers in each.
    score
        ``(n,)``: mean over all pickers of their rank for it, 0 to 1; who didn't pick it gives 0.
    members
        ``(n, n_pickers)``: index of each picker's pick, -1 for none.
    """

    yx: Float
    votes: NDArray[np.int64]
    score: Float
    members: NDArray[np.int64]


def _ranks(scores: Float) -> Float:
    """Scores as ranks from above 0 to 1; equal scores have equal ranks."""
    if not len(scores):
        return np.zeros(0)
    ordered = np.sort(scores)
    below = np.searchsorted(ordered, scores, side="left")
    up_to = np.searchsorted(ordered, scores, side="right")
    ranks: Float = np.asarray((0.5 * (below + up_to) + 0.5) / (len(scores) + 0.5), dtype=np.float64)
    return ranks.clip(0.0, 1.0)


def pick_clusters(
    picks: Sequence[tuple[Float, Float]], radius_px: float, weights: Sequence[float] | None = None
) -> PickClusters:
    """Join picks of different pickers that lie close together, nearest first.

    Two clusters become one while their middles are within the radius and no picker stands in both: each has
    one vote. A picker without picks gives no vote.

    Parameters
    ----------
    picks
        For each picker coordinates ``(n, 2)``, y, x (px), and scores ``(n,)``.
    radius_px
        Largest distance (px).
    weights
        Of each picker in the score; all the same when None.

    Returns
    -------
    PickClusters
        All clusters, lone picks too.
    """
    if not (math.isfinite(radius_px) and radius_px > 0):
        raise BadParameter("consensus radius", "above 0 px", f"{radius_px:g}", "Take half of the diameter.")
    n_pickers = len(picks)
    share = np.ones(n_pickers) if weights is None else np.asarray(weights, dtype=np.float64)
    every = []
    for number, (given, its_scores) in enumerate(picks):
        at = np.asarray(given, dtype=np.float64).reshape(-1, 2)
        ranks = _ranks(np.asarray(its_scores, dtype=np.float64))
        once = _once(at, ranks)
        every.append((at[once], ranks[once], once, np.full(len(once), number)))
    none = (np.zeros((0, 2)), np.zeros(0), np.zeros(0, np.int64), np.zeros(0, np.int64))
    points, rank, index, picker = (np.concatenate(parts) for parts in zip(*every, none, strict=True))
    groups = _join(points, picker, rank, radius_px)
    members = np.full((len(groups), n_pickers), -1, dtype=np.int64)
    yx, score = np.zeros((len(groups), 2)), np.zeros(len(groups))
    for row, group in enumerate(groups):
        members[row, picker[group]] = index[group]
        yx[row] = _middle(points, group)
        score[row] = math.fsum(rank[group] * share[picker[group]]) / max(math.fsum(share), 1e-12)
    votes = (members >= 0).sum(axis=1)
    order = np.lexsort((yx[:, 1], yx[:, 0], -score.round(9), -votes))
    return PickClusters(yx[order], votes[order].astype(np.int64), score[order], members[order])


def _middle(points: Float, group: list[int]) -> tuple[float, float]:
    """Mean of points, exact, so that their order doesn't matter."""
    y, x = (math.fsum(points[group, axis]) / len(group) for axis in (0, 1))
    return y, x


def _once(yx: Float, rank: Float) -> NDArray[np.int64]:
    """Indices of picks without those that stand where a better one of the same picker stands."""
    order = np.lexsort((-rank, yx[:, 1], yx[:, 0]))
    ordered = yx[order]
    first = np.ones(len(yx), dtype=bool)
    first[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    once: NDArray[np.int64] = order[first]
    return once


def _join(points: Float, picker: NDArray[np.int64], rank: Float, radius_px: float) -> list[list[int]]:
    """Groups of points: nearest pairs first, ties by the points themselves and not by who gave them."""
    from scipy.spatial import cKDTree

    group_of = list(range(len(points)))
    groups: dict[int, list[int]] = {i: [i] for i in range(len(points))}
    if len(points) > 1:
        pairs = cKDTree(points).query_pairs(radius_px, output_type="ndarray")
        keyed = []
        for i, j in pairs[picker[pairs[:, 0]] != picker[pairs[:, 1]]]:
            first, second = sorted(((*points[i], rank[i]), (*points[j], rank[j])))
            distance = round(math.dist(points[i], points[j]), 9)
            keyed.append((distance, first, second, int(i), int(j)))
        keyed.sort(key=lambda pair: pair[:3])
        for *_, i, j in keyed:
            a, b = group_of[i], group_of[j]
            if a == b or {picker[m] for m in groups[a]} & {picker[m] for m in groups[b]}:
                continue
            if math.dist(_middle(points, groups[a]), _middle(points, groups[b])) > radius_px * (1 + 1e-9):
                continue
            for member in groups[b]:
                group_of[member] = a
            groups[a] += groups.pop(b)
    return list(groups.values())
