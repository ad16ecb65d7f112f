"""The particles that the classifier has at hand: a bounded, fair sample of all that came."""

from collections import Counter
from dataclasses import dataclass, fields

import torch

from vitriflow.kernels.class2d_match import Particles
from vitriflow.kernels.class2d_polar import PolarGrid

__all__ = ["Held"]


@dataclass
class Held:
    """Particles and where they stand, row by row.

    Attributes
    ----------
    z, c2, shift
        As in :class:`vitriflow.kernels.class2d_match.Particles`; ``z`` as half floats.
    number
        ``(n,)`` running number of each.
    class_id
        ``(n,)``, 0 for none.
    turn, score, surety
        ``(n,)``: turn from class to particle (radians), L, and how sure its best place is (0 to 1).
    """

    z: torch.Tensor
    c2: torch.Tensor
    shift: torch.Tensor
    number: torch.Tensor
    class_id: torch.Tensor
    turn: torch.Tensor
    score: torch.Tensor
    surety: torch.Tensor

    @classmethod
    def empty(cls, grid: PolarGrid) -> "Held":
        """None yet."""
        on = grid.device
        whole = torch.zeros(0, dtype=torch.long, device=on)
        real = torch.zeros(0, device=on)
        z = torch.zeros((0, grid.n_rings, grid.n_angles), dtype=torch.float16, device=on)
        c2 = torch.zeros((0, grid.n_rings), device=on)
        return cls(z, c2, torch.zeros((0, 2), device=on), whole, whole, real, real, real)

    def __len__(self) -> int:
        return len(self.number)

    def counts(self) -> dict[int, int]:
        """Particles by class."""
        return dict(sorted(Counter(int(one) for one in self.class_id.tolist()).items()))

    @property
    def half(self) -> torch.Tensor:
        """``(n,)`` 0 or 1: the half that each belongs to, for good."""
        return self.number % 2

    @property
    def particles(self) -> Particles:
        """What is compared."""
        return Particles(self.z, self.c2, self.shift)

    def join(self, other: "Held") -> None:
        """Put the others behind these."""
        for field in fields(self):
            name = field.name
            setattr(self, name, torch.cat([getattr(self, name), getattr(other, name)]))

    def take(self, index: torch.Tensor) -> "Held":
        """Those of an index or a mask."""
        return Held(**{field.name: getattr(self, field.name)[index] for field in fields(self)})

    def draw_to(self, most: int, draw: torch.Generator) -> tuple["Held", "Held"]:
        """Split into ``most`` drawn by chance, in their order, and the rest."""
        order = torch.randperm(len(self), generator=draw).to(self.number.device)
        stay = torch.zeros(len(self), dtype=torch.bool, device=self.number.device)
        stay[order[:most]] = True
        return self.take(stay), self.take(~stay)
