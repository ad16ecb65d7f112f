"""Particles against class averages: every turn and shift at once, and averages from the answers.

What is compared stands on rings (:mod:`vitriflow.kernels.class2d_polar`), whitened, and multiplied
by its CTF: ``Z = c X / sigma``. With ``D = sum c^2`` an average is ``A = sum Z / (D + 1 / s)``, where ``s``
is the signal's power over the noise's. The logarithm of a particle's likelihood ratio (class against no
particle at all) is ::

    L(class, turn, shift) = sum_r w_r mean_theta [ Z A(theta - phi) ] - 1/2 sum_r w_r c^2 |A|^2

The first sum is a product of matrices for each angular harmonic, then one inverse FFT over turns.
Expectation maximisation: Sigworth, J. Struct. Biol. 122 (1998) 328; Scheres et al., J. Mol. Biol. 348 (2005) 139.
"""

import math
from dataclasses import dataclass

import torch

from vitriflow.kernels.class2d_polar import PolarGrid, harmonics, moved, turned

__all__ = ["Averages", "Found", "Particles", "aligned", "match", "self_score"]

_CHUNK = 6_000_000  # numbers of a score table held at a time


@dataclass
class Particles:
    """Particles on the rings of a grid.

    Attributes
    ----------
    z
        ``(n, n_rings, n_angles)``: whitened and multiplied by the CTF.
    c2
        ``(n, n_rings)``: mean of the squared CTF on each ring.
    shift
        ``(n, 2)``: y, x (px) that bring each image's particle to the middle, as known so far.
    """

    z: torch.Tensor
    c2: torch.Tensor
    shift: torch.Tensor

    def __len__(self) -> int:
        return len(self.z)

    def at(self, index: torch.Tensor) -> "Particles":
        """Those of an index or a mask."""
        return Particles(self.z[index], self.c2[index], self.shift[index])

    def on(self, grid: PolarGrid, coarse: PolarGrid) -> "Particles":
        """The same on a coarser grid."""
        if coarse is grid:
            return self
        return Particles(grid.cut(self.z, coarse), self.c2[:, : coarse.n_rings], self.shift)


@dataclass
class Averages:
    """Class averages as harmonics.

    Attributes
    ----------
    a
        ``(k, n_rings, m)`` complex: the regularised averages.
    gain
        ``(k, n_rings)``: 1 / (D + 1 / s), what a sum is multiplied by to become an average.
    """

    a: torch.Tensor
    gain: torch.Tensor

    def __len__(self) -> int:
        return len(self.a)

    def power(self) -> torch.Tensor:
        """``(k, n_rings)``: mean square over the angles."""
        squared = self.a.abs() ** 2
        return squared[..., 0] + 2.0 * squared[..., 1:].sum(dim=-1)

    def on(self, coarse: PolarGrid) -> "Averages":
        """The same on fewer rings and harmonics."""
        rings, orders = coarse.n_rings, coarse.n_angles // 2
        return Averages(self.a[:, :rings, :orders], self.gain[:, :rings])


@dataclass
class Found:
    """Where each particle fits best.

    Attributes
    ----------
    score
        ``(n, k)``: best L over turns and shifts for every class.
    turn
        ``(n, k)``: the turn (radians, from x towards y) from class to particle.
    shift
        ``(n, k, 2)``: y, x (px) that bring the particle to the middle.
    sums, weights
        Soft sums ``(2, k, n_rings, m)`` and their squared CTF ``(2, k, n_rings)`` by halves; zero unless
        halves were given.
    surety
        ``(n,)``: likelihood of the best place of all, 0 to 1; zero unless halves were given.
    """

    score: torch.Tensor
    turn: torch.Tensor
    shift: torch.Tensor
    sums: torch.Tensor
    weights: torch.Tensor
    surety: torch.Tensor


def match(
    particles: Particles,
    averages: Averages,
    grid: PolarGrid,
    shifts: torch.Tensor,
    weights: torch.Tensor,
    *,
    shift_sigma_px: float,
    own: torch.Tensor | None = None,
    halves: torch.Tensor | None = None,
    temperature: float = 1.0,
) -> Found:
    """Compare all particles with all averages over all turns and the given shifts about the known ones.

    Parameters
    ----------
    particles, averages, grid
        On the same rings.
    shifts
        ``(n_shifts, 2)`` y, x (px), added to each particle's own.
    weights
        ``(n_rings,)`` of the rings in L.
    shift_sigma_px
        Standard deviation of a particle's distance from the middle of its box, per axis (px).
    own
        ``(n, k)``: taken off L: what a particle scores with a class because it's in it.
    halves
        ``(n,)`` 0 or 1; given, soft sums are made for each half.
    temperature
        Above 1 makes soft sums softer.

    Returns
    -------
    Found
        Best poses, and sums where asked.
    """
    k, n_angles = len(averages), grid.n_angles
    reference = (averages.a.conj() * weights[None, :, None]).permute(2, 1, 0).contiguous()
    power = averages.power() * weights
    ramps = grid.ramps(shifts)
    found = _nothing(len(particles), k, grid)
    step = max(1, _CHUNK // (len(shifts) * max(k, grid.n_rings) * n_angles))
    for first in range(0, len(particles), step):
        part = slice(first, first + step)
        data = _shifted(particles, part, grid, ramps)  # (p, t, r, m)
        scores = _scores(data, reference, n_angles)  # (p, t, k, angle)
        scores -= 0.5 * (particles.c2[part] @ power.T)[:, None, :, None]
        total = particles.shift[part][:, None, :] + shifts
        scores -= (total.square().sum(-1) / (2.0 * shift_sigma_px**2))[:, :, None, None]
        if own is not None:
            scores -= own[part][:, None, :, None]
        _best(scores, total, found, part)
        if halves is not None:
            _add(scores, data, particles.c2[part], halves[part], temperature, found, part)
    return found


def _nothing(n: int, k: int, grid: PolarGrid) -> Found:
    on, orders = grid.device, grid.n_angles // 2
    return Found(
        torch.empty(n, k, device=on),
        torch.empty(n, k, device=on),
        torch.empty(n, k, 2, device=on),
        torch.zeros((2, k, grid.n_rings, orders), dtype=torch.complex64, device=on),
        torch.zeros((2, k, grid.n_rings), device=on),
        torch.zeros(n, device=on),
    )


def _shifted(
    particles: Particles, part: slice, grid: PolarGrid, ramps: tuple[torch.Tensor, torch.Tensor]
) -> torch.Tensor:
    z = particles.z[part].float()
    centred = moved(z, grid.ramps(particles.shift[part]))
    return harmonics(moved(centred[:, None], ramps))


def _scores(data: torch.Tensor, reference: torch.Tensor, n_angles: int) -> torch.Tensor:
    p, t, r, m = data.shape
    products = torch.bmm(data.permute(3, 0, 1, 2).reshape(m, p * t, r), reference)
    scores: torch.Tensor = torch.fft.irfft(
        products.permute(1, 2, 0).reshape(p, t, reference.shape[2], m), n=n_angles, dim=-1, norm="forward"
    )
    return scores


def _best(scores: torch.Tensor, total: torch.Tensor, found: Found, part: slice) -> None:
    n_angles = scores.shape[-1]
    by_turn, turn = scores.max(dim=-1)  # (p, t, k)
    found.score[part], at = by_turn.max(dim=1)
    found.turn[part] = turn.gather(1, at[:, None, :])[:, 0].float() * (2.0 * math.pi / n_angles)
    found.shift[part] = total.gather(1, at[:, :, None].expand(-1, -1, 2))


def _add(
    scores: torch.Tensor,
    data: torch.Tensor,
    c2: torch.Tensor,
    halves: torch.Tensor,
    temperature: float,
    found: Found,
    part: slice,
) -> None:
    """Add to the soft sums: each particle everywhere, by how likely it is there."""
    p, t, k, n_angles = scores.shape
    chance = torch.softmax(scores.reshape(p, -1) / temperature, dim=1).reshape(p, t, k, n_angles)
    found.surety[part] = chance.reshape(p, -1).amax(dim=1)
    spread = torch.fft.rfft(chance, dim=-1)[..., : n_angles // 2].conj()
    of_class = chance.sum(dim=(1, 3))  # (p, k)
    m = n_angles // 2
    for half in (0, 1):
        mine = halves == half
        if not bool(mine.any()):
            continue
        left = spread[mine].permute(3, 2, 0, 1).reshape(m, k, -1)
        right = data[mine].permute(3, 0, 1, 2).reshape(m, -1, data.shape[2])
        found.sums[half] += torch.bmm(left, right).permute(1, 2, 0)
        found.weights[half] += of_class[mine].T @ c2[mine]


def aligned(particles: Particles, grid: PolarGrid, shift: torch.Tensor, turn: torch.Tensor) -> torch.Tensor:
    """Harmonics ``(n, n_rings, m)`` of particles brought onto their class: moved, then turned back."""
    return turned(harmonics(moved(particles.z.float(), grid.ramps(shift))), -turn)


def self_score(particles: Particles, gain: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """What each particle adds to its own score by being in the average ``(n,)``.

    Parameters
    ----------
    particles
        The particles.
    gain
        ``(n, n_rings)``: :attr:`Averages.gain` of each one's class.
    weights
        ``(n_rings,)`` of the rings in L.
    """
    energy = particles.z.float().square().mean(dim=-1)
    return (energy * gain * weights).sum(dim=-1)
