"""First class averages out of particles alone, without a reference and without chance deciding.

Every particle is compared with every other over all turns; each is averaged with those most like
it, which makes as many denoised views as there are particles; all are compared with these views
again; and of the views those are chosen, one after the other, that explain most of what the ones
chosen before leave unexplained. What a particle scores with a view because it's in it doesn't count.

That global look is what keeps expectation maximisation from ending where a few classes hold all.
Averaging like with like before anything else: Penczek et al., Ultramicroscopy 63 (1996) 205; the
choice is the greedy one for facility location.
"""

import math

import torch

from vitriflow.kernels.class2d_match import Averages, Particles, aligned, match
from vitriflow.kernels.class2d_polar import PolarGrid, harmonics, moved

__all__ = ["choose", "noise_on_rings", "precentre", "signal_on_rings", "views"]

_CENTRE_ROUNDS = 3


def noise_on_rings(images: torch.Tensor, grid: PolarGrid) -> torch.Tensor:
    """Power of noise on the rings ``(n_rings,)``, from outside the mask of images ``(n, box, box)``.

    For noise of variance 1 in every pixel it's 1. Smoothed over 5 rings.
    """
    outside = 1.0 - grid.mask
    area = float((outside**2).sum())
    mean = (images * outside).sum(dim=(1, 2), keepdim=True) / float(outside.sum())
    spectrum = torch.fft.fft2((images - mean) * outside).abs().square().mean(dim=0) / area
    k = torch.fft.fftfreq(grid.box, device=images.device) * grid.box
    radius = torch.sqrt(k[:, None] ** 2 + k[None, :] ** 2).round().long().clamp(max=grid.n_rings + 3)
    count = torch.bincount(radius.reshape(-1), minlength=grid.n_rings + 4).float()
    power = torch.bincount(radius.reshape(-1), spectrum.reshape(-1), minlength=grid.n_rings + 4) / count
    # A ring around the particle knows the lowest frequencies badly: the third ring stands for them
    power[:3] = power[3]
    smooth = torch.stack([power[max(1, i - 2) : i + 3].mean() for i in range(1, grid.n_rings + 1)])
    return smooth.clamp(min=1e-6 * float(smooth.max()) + 1e-12)


def signal_on_rings(
    raw_power: torch.Tensor, c2: torch.Tensor, least: float = 1e-3, most: float = 10.0
) -> torch.Tensor:
    """Power of the signal over that of the noise ``(n_rings,)``, before any average is known.

    Parameters
    ----------
    raw_power
        ``(n, n_rings)``: mean square of the whitened images on the rings (1 for pure noise).
    c2
        ``(n, n_rings)``: mean squared CTF.
    least, most
        Bounds.
    """
    excess = raw_power.mean(dim=0) - 1.0
    signal = excess / c2.mean(dim=0).clamp(min=0.05)
    kernel = torch.ones(1, 1, 3, device=signal.device) / 3.0
    padded = torch.cat([signal[:1], signal, signal[-1:]])
    smooth = torch.nn.functional.conv1d(padded[None, None], kernel)[0, 0]
    # Power that grows outwards isn't the particle's
    return torch.cummin(smooth.clamp(least, most), dim=0).values.clamp(min=least)


def precentre(
    particles: Particles,
    grid: PolarGrid,
    shifts: torch.Tensor,
    weights: torch.Tensor,
    signal: torch.Tensor,
    sigma_px: float,
) -> torch.Tensor:
    """Shifts ``(n, 2)`` that bring particles to the middle by their own mean, turned all the way round."""
    ramps = grid.ramps(shifts)
    at = particles.shift.clone()
    for _ in range(_CENTRE_ROUNDS):
        mean = moved(particles.z.float(), grid.ramps(at)).mean(dim=-1)  # (n, rings): order zero alone
        radial = mean.sum(dim=0) / (particles.c2.sum(dim=0) + 1.0 / signal)
        for first in range(0, len(particles), 256):
            part = slice(first, first + 256)
            tried = moved(particles.z[part].float()[:, None], ramps).mean(dim=-1)  # (p, t, rings)
            score = tried @ (radial * weights) - shifts.square().sum(-1) / (2.0 * sigma_px**2)
            at[part] = shifts[score.argmax(dim=1)]
    return at


def views(
    particles: Particles,
    grid: PolarGrid,
    shifts: torch.Tensor,
    weights: torch.Tensor,
    signal: torch.Tensor,
    n_near: int,
    sigma_px: float,
    rounds: int = 2,
) -> tuple[Averages, torch.Tensor, torch.Tensor]:
    """Each particle averaged with those most like it, and how well all particles fit all views.

    Returns
    -------
    tuple
        The views (as many as particles); L ``(n, n)`` of each particle (row) with each view (column)
        without what it adds to it itself; members ``(n, n_near)`` of each view.
    """
    n = len(particles)
    n_near = max(2, min(n_near, n - 1))
    gain = 1.0 / (particles.c2 + 1.0 / signal)
    own = harmonics(moved(particles.z.float(), grid.ramps(particles.shift)))
    averages = Averages(own * gain[..., None], gain)
    energy = particles.z.float().square().mean(dim=-1) * weights  # (n, rings)
    member = torch.eye(n, dtype=torch.bool, device=particles.z.device)
    near = torch.zeros((n, n_near), dtype=torch.long, device=particles.z.device)
    for turn_of in range(rounds + 1):
        found = match(particles, averages, grid, shifts, weights, shift_sigma_px=sigma_px)
        score = found.score - member * (energy @ averages.gain.T)
        if turn_of == rounds:
            break
        # At first both sides are single particles: like is mutual
        like = score + score.T if turn_of == 0 else score
        like = like.masked_fill(torch.eye(n, dtype=torch.bool, device=like.device), -math.inf)
        near = like.topk(n_near, dim=0).indices.T  # (view, its members)
        sums, d = own.clone(), particles.c2.clone()
        for place in range(n_near):
            who = near[:, place]
            pick = torch.arange(n, device=who.device)
            sums += aligned(particles.at(who), grid, found.shift[who, pick], found.turn[who, pick])
            d += particles.c2[who]
        averages = Averages(sums * (1.0 / (d + 1.0 / signal))[..., None], 1.0 / (d + 1.0 / signal))
        member = torch.eye(n, dtype=torch.bool, device=near.device)
        member[near.reshape(-1), torch.arange(n, device=near.device).repeat_interleave(n_near)] = True
    return averages, score, near


def choose(
    score: torch.Tensor, count: int, explained: torch.Tensor, least_gain: float
) -> tuple[list[int], list[float]]:
    """Choose views one after the other, each the one that adds most.

    Parameters
    ----------
    score
        ``(n, candidates)``: L of each particle with each candidate.
    count
        How many at most.
    explained
        ``(n,)``: L that each particle has already.
    least_gain
        A candidate that adds less isn't chosen.

    Returns
    -------
    tuple
        Indices of the chosen ones in the order of choice, and what each added.
    """
    best = explained.clone()
    chosen: list[int] = []
    gains: list[float] = []
    for _ in range(min(count, score.shape[1])):
        added = (score - best[:, None]).clamp(min=0.0).sum(dim=0)
        if chosen:
            added[chosen] = -1.0
        which = int(added.argmax())
        if float(added[which]) < least_gain:
            break
        chosen.append(which)
        gains.append(float(added[which]))
        best = torch.maximum(best, score[:, which])
    return chosen, gains
