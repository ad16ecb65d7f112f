"""Classes that are born, die and become one: the moves that expectation maximisation can't make."""

import math

import torch

from vitriflow.kernels.class2d_match import Averages, Particles
from vitriflow.kernels.class2d_polar import PolarGrid
from vitriflow.kernels.class2d_seed import choose, views

__all__ = ["find_births", "find_twins", "loss_without", "noise_of_difference"]

_NEAR = 12
# Standard deviations of what noise in two averages makes of L; choosing the better of two alike brings 0.8
_TWIN = 1.5
_SWAP_GAIN = 1.3  # a class goes for another that explains so many times more


def find_births(
    particles: Particles,
    standing: torch.Tensor,
    room: int,
    grid: PolarGrid,
    shifts: torch.Tensor,
    weights: torch.Tensor,
    signal: torch.Tensor,
    sigma_px: float,
    least_gain: float,
) -> tuple[Averages, list[int]]:
    """Views among particles that would explain more than the classes there are.

    Parameters
    ----------
    particles
        A sample, centred.
    standing
        ``(n, k)``: their L with each class there is, without what they add to it themselves.
    room
        How many classes may come.
    grid, shifts, weights, signal, sigma_px
        As for :func:`vitriflow.kernels.class2d_seed.views`.
    least_gain
        A class that adds less L over the sample isn't born.

    Returns
    -------
    tuple
        Averages of the newborn, and the places of classes that go for them.
    """
    averages, score, _ = views(particles, grid, shifts, weights, signal, _NEAR, sigma_px)
    explained = standing.max(dim=1).values if standing.shape[1] else torch.zeros(len(particles))
    explained = explained.clamp(min=0.0).to(score.device)
    born, _ = choose(score, room, explained, least_gain)
    gone: list[int] = []
    table = standing.to(score.device).clone()
    while True:
        best = torch.cat([table, score[:, born], torch.zeros_like(score[:, :1])], dim=1)
        loss = loss_without(best)[: table.shape[1]]
        loss[gone] = torch.inf
        if not len(loss):
            break
        top = best.max(dim=1).values
        more, gains = choose(score, 1, top, least_gain)
        worst = int(loss.argmin())
        if not more or gains[0] < _SWAP_GAIN * max(float(loss[worst]), least_gain):
            break
        gone.append(worst)
        table[:, worst] = -torch.inf
        born += more
    where = torch.tensor(born, dtype=torch.long, device=score.device)
    return Averages(averages.a[where], averages.gain[where]), gone


def loss_without(score: torch.Tensor) -> torch.Tensor:
    """What is lost ``(k,)`` over all particles when a class goes and they take their second best."""
    top = score.topk(2, dim=1)
    lost = torch.zeros(score.shape[1], device=score.device)
    return lost.index_add_(0, top.indices[:, 0], top.values[:, 0] - top.values[:, 1])


def noise_of_difference(
    c2: torch.Tensor, averages: Averages, one: int, other: int, weights: torch.Tensor
) -> float:
    """Deviation of a particle's difference in L between two averages that only noise makes different.

    ``c2 (n, n_rings)`` of particles and ``weights (n_rings,)`` as in L.
    """
    typical = c2.mean(dim=0) * weights
    variance = float((typical * (averages.gain[one] + averages.gain[other])).sum())
    return math.sqrt(max(variance, 1e-6))


def find_twins(
    score: torch.Tensor, c2: torch.Tensor, averages: Averages, weights: torch.Tensor
) -> tuple[int, int] | None:
    """Two classes that show the same: what one's particles lose with the other is no more than noise makes.

    Parameters
    ----------
    score
        ``(n, k)``: L of the held particles, without what they add themselves.
    c2
        ``(n, n_rings)``.
    averages
        The classes.
    weights
        ``(n_rings,)`` of the rings in L.

    Returns
    -------
    tuple or None
        Places of the one that goes (the smaller) and the one that takes its particles.
    """
    k = score.shape[1]
    if k < 2:
        return None
    best = score.argmax(dim=1)
    counts = torch.bincount(best, minlength=k)
    found: tuple[float, int, int] | None = None
    for one in range(k):
        mine = score[best == one]
        if len(mine) < 2:
            continue
        loss = (mine[:, one : one + 1] - mine).mean(dim=0)
        loss[one] = torch.inf
        other = int(loss.argmin())
        if counts[other] < counts[one] or (counts[other] == counts[one] and other > one):
            continue
        excess = float(loss[other]) / noise_of_difference(c2, averages, one, other, weights)
        if excess < _TWIN and (found is None or excess < found[0]):
            found = (excess, one, other)
    return None if found is None else found[1:]
