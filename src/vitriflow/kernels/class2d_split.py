"""Classes that hold two views, taken apart.

Expectation maximisation rarely leaves such a class by itself: any new average begins with few
particles, and its noise costs more than its likeness brings. So both halves are refined by themselves first,
on the class's own particles, and only then held against the class as it is. Nobody's own part in an
average counts, so two halves of one view, each noisier than the whole, don't win.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from vitriflow.kernels.class2d_births import loss_without, noise_of_difference
from vitriflow.kernels.class2d_held import Held
from vitriflow.kernels.class2d_match import Averages
from vitriflow.kernels.class2d_model import ClassSums
from vitriflow.kernels.class2d_seed import choose, views

if TYPE_CHECKING:
    from vitriflow.kernels.class2d_core import Classifier

__all__ = ["Split", "find_splits", "worth_it"]

_LEAST = 16  # particles of a class that is looked at
_MOST = 160  # particles that halves are found on
_NEAR = 8
_ROUNDS = 4
_APART = 2.0  # as for twins, and some more: what was split isn't to be united again
_SWAP_GAIN = 1.2


@dataclass(frozen=True)
class Split:
    """A class in two.

    Attributes
    ----------
    place
        Of the class among the classes.
    gain
        What all its particles win in L.
    averages
        Of the two, the larger first, on the coarse level.
    """

    place: int
    gain: float
    averages: Averages


def find_splits(classifier: "Classifier", draw: torch.Generator) -> list[Split]:
    """Classes that are better as two, the one that wins most first."""
    found = []
    for place, class_id in enumerate(classifier.classes.ids.tolist()):
        members = torch.nonzero(classifier.held.class_id == class_id)[:, 0]
        if len(members) < _LEAST:
            continue
        split = _try(classifier, place, classifier.held.take(members), draw)
        if split is not None:
            found.append(split)
    return sorted(found, key=lambda one: (-one.gain, one.place))


def _try(classifier: "Classifier", place: int, members: Held, draw: torch.Generator) -> Split | None:
    level = classifier.prepare.coarse
    rings = slice(0, level.n_rings)
    near, weights = classifier.shifts(2.2, 1.5), classifier.weights[rings]
    whole = classifier.averages().on(level)
    one = Averages(whole.a[place : place + 1], whole.gain[place : place + 1])
    before = classifier.compare(
        members, one, level, near, classifier.own(members, one, level, members.class_id[:1])
    ).score[:, 0]
    sample = members
    if len(members) > _MOST:
        sample = members.take(torch.randperm(len(members), generator=draw)[:_MOST].sort().values)
    part = sample.particles.on(classifier.prepare.fine, level)
    seeds, score, _ = views(
        part,
        level,
        near,
        weights,
        classifier.signal[rings],
        min(_NEAR, len(sample) // 4),
        classifier.sigma_px,
    )
    chosen, _ = choose(score, 2, torch.zeros(len(sample)).to(score.device), 0.0)
    if len(chosen) < 2:
        return None
    ids = torch.tensor([-2, -3], device=members.class_id.device)
    both = ClassSums.empty(classifier.prepare.fine)
    both.grow(ids)
    averages = Averages(seeds.a[chosen], seeds.gain[chosen])
    members.class_id = torch.zeros_like(members.class_id)
    after = before
    for _ in range(_ROUNDS):
        after = classifier.round(members, both, averages, level, near)
        averages = both.averages(classifier.signal).on(level)
    counts = [int((members.class_id == one_id).sum()) for one_id in ids.tolist()]
    if min(counts) < 4:
        return None
    best = after.argmax(dim=1)
    lost = [float((after[best == i, i] - after[best == i, 1 - i]).mean()) for i in (0, 1)]
    noise = noise_of_difference(members.c2[:, rings], averages, 0, 1, weights)
    gain = float((after.amax(dim=1) - before).sum())
    if gain <= 0 or min(lost) < _APART * noise:
        return None
    order = [0, 1] if counts[0] >= counts[1] else [1, 0]
    return Split(place, gain, Averages(averages.a[order], averages.gain[order]))


def worth_it(splits: list[Split], score: torch.Tensor, room: int) -> tuple[list[Split], list[int]]:
    """Which splits to make, and which classes to give up for them.

    Parameters
    ----------
    splits
        From :func:`find_splits`.
    score
        ``(n, k)``: L of the held particles with the classes.
    room
        Classes that may be added.

    Returns
    -------
    tuple
        Splits to make; places of classes that go.
    """
    table = score.clone()
    made: list[Split] = []
    gone: list[int] = []
    for split in splits:
        if room > 0:
            room -= 1
            made.append(split)
            continue
        loss = loss_without(torch.cat([table, torch.zeros_like(table[:, :1])], dim=1))[: table.shape[1]]
        for place in [*gone, *(one.place for one in made), split.place]:
            loss[place] = torch.inf
        least = int(loss.argmin())
        if split.place in gone or split.gain < _SWAP_GAIN * float(loss[least]):
            continue
        made.append(split)
        gone.append(least)
        table[:, least] = -torch.inf
    return made, gone
