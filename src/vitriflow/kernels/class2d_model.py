"""What the classifier knows: sums of each class by halves, from particles it holds and from those that went."""

from dataclasses import dataclass

import torch

from vitriflow.kernels.class2d_match import Averages
from vitriflow.kernels.class2d_polar import PolarGrid

__all__ = ["ClassSums", "ring_correlation", "shared_signal"]

_LEAST_SIGNAL = 1e-4
_MOST_SIGNAL = 30.0


@dataclass
class ClassSums:
    """Sums of ``k`` classes as harmonics, each for two halves of the particles.

    Attributes
    ----------
    ids
        ``(k,)`` of the classes: given once, never used again for another.
    sums, weights
        ``(2, k, n_rings, m)`` complex and ``(2, k, n_rings)``: of particles held, made anew in each pass.
    past_sums, past_weights
        The same of particles that are no longer held.
    """

    ids: torch.Tensor
    sums: torch.Tensor
    weights: torch.Tensor
    past_sums: torch.Tensor
    past_weights: torch.Tensor

    @classmethod
    def empty(cls, grid: PolarGrid) -> "ClassSums":
        """No class yet."""
        on = grid.device
        sums = torch.zeros((2, 0, grid.n_rings, grid.n_angles // 2), dtype=torch.complex64, device=on)
        weights = torch.zeros((2, 0, grid.n_rings), device=on)
        ids = torch.zeros(0, dtype=torch.long, device=on)
        return cls(ids, sums, weights, sums.clone(), weights.clone())

    def __len__(self) -> int:
        return len(self.ids)

    def total(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Sums and weights by halves, past ones included."""
        return self.sums + self.past_sums, self.weights + self.past_weights

    def grow(self, ids: torch.Tensor) -> None:
        """Add classes without any particle."""
        _, _, rings, orders = self.sums.shape
        more = torch.zeros((2, len(ids), rings, orders), dtype=torch.complex64, device=self.sums.device)
        none = torch.zeros((2, len(ids), rings), device=self.sums.device)
        self.ids = torch.cat([self.ids, ids])
        self.sums, self.past_sums = (torch.cat([one, more], dim=1) for one in (self.sums, self.past_sums))
        self.weights, self.past_weights = (
            torch.cat([one, none], dim=1) for one in (self.weights, self.past_weights)
        )

    def keep(self, which: torch.Tensor) -> None:
        """Keep only the classes of an index or mask."""
        self.ids = self.ids[which]
        self.sums, self.past_sums = self.sums[:, which], self.past_sums[:, which]
        self.weights, self.past_weights = self.weights[:, which], self.past_weights[:, which]

    def averages(self, shared: torch.Tensor) -> Averages:
        """Regularised averages.

        Parameters
        ----------
        shared
            ``(n_rings,)``: signal over noise of the classes together; a class of few particles leans on it.
        """
        sums, weights = self.total()
        own = _cross_power(sums, weights).clamp(min=0.0)
        # The power of an average of n particles is known to about 1 / n of the noise: lean by that
        doubt = 1.0 / (1.0 + weights.sum(dim=0) * shared)
        signal = _smooth((1.0 - doubt) * own + doubt * shared).clamp(_LEAST_SIGNAL, _MOST_SIGNAL)
        gain = 1.0 / (weights.sum(dim=0) + 1.0 / signal)
        return Averages(sums.sum(dim=0) * gain[..., None], gain)


def _mean_over_turn(products: torch.Tensor) -> torch.Tensor:
    """Mean over the angle of a product of two rings, from products of their harmonics."""
    return products[..., 0] + 2.0 * products[..., 1:].sum(dim=-1)


def _cross_power(sums: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Power ``(k, n_rings)`` that the averages of both halves share: noise doesn't add to it."""
    a, b = (sums[half] / weights[half].clamp(min=1e-3)[..., None] for half in (0, 1))
    shared = _mean_over_turn((a * b.conj()).real)
    return torch.where((weights > 0.05).all(dim=0), shared, torch.zeros_like(shared))


def _smooth(by_ring: torch.Tensor) -> torch.Tensor:
    """Means over three rings of ``(k, n_rings)``."""
    padded = torch.cat([by_ring[:, :1], by_ring, by_ring[:, -1:]], dim=1)
    return (padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]) / 3.0


def shared_signal(classes: ClassSums, before: torch.Tensor) -> torch.Tensor:
    """Signal over noise ``(n_rings,)`` of all classes together, weighted by their particles.

    ``before`` is what was thought so far: rings of which the halves know nothing keep a hundredth of it.
    """
    sums, weights = classes.total()
    if not len(classes) or float(weights.sum()) <= 0:
        return before
    power = _cross_power(sums, weights)
    held = weights.sum(dim=0)
    mean = (power * held).sum(dim=0) / held.sum(dim=0).clamp(min=1e-6)
    known = held.sum(dim=0) > 0
    floor = (0.01 * before).clamp(min=_LEAST_SIGNAL)
    return torch.where(known, torch.maximum(_smooth(mean[None])[0], floor), before)


def ring_correlation(classes: ClassSums) -> torch.Tensor:
    """Correlation ``(k, n_rings)`` of the averages of both halves, -1 to 1, smoothed over three rings."""
    sums, _ = classes.total()
    a, b = sums[0], sums[1]
    cross = _smooth(_mean_over_turn((a * b.conj()).real))
    power = [_smooth(_mean_over_turn(one.abs() ** 2)) for one in (a, b)]
    return cross / (power[0] * power[1]).sqrt().clamp(min=1e-12)
