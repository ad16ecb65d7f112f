"""The classifier's state and its moves: passes over the particles held, births, deaths, unions."""

from dataclasses import dataclass, field

import torch

from vitriflow.kernels.class2d_births import find_births, find_twins
from vitriflow.kernels.class2d_held import Held
from vitriflow.kernels.class2d_match import Averages, Found, match, self_score
from vitriflow.kernels.class2d_model import ClassSums, shared_signal
from vitriflow.kernels.class2d_polar import PolarGrid
from vitriflow.kernels.class2d_prepare import Class2DSettings, Preparation, shift_grid
from vitriflow.kernels.class2d_seed import precentre, signal_on_rings
from vitriflow.kernels.class2d_split import find_splits, worth_it

__all__ = ["Classifier", "Update"]

_VIEWS, _FEWEST_VIEWS = 384, 200  # particles that a look for new classes is made on
_PER_CLASS = 15  # held particles that a class needs before one more is looked for
_LEAST_MEMBERS = 3
_PARTINGS = 3  # rounds of taking classes apart at the start
_LEAST_GAIN = 60.0  # L that a new class has to bring over the particles looked at


@dataclass
class Update:
    """What one update did.

    Attributes
    ----------
    number
        ``(n,)`` of each image given: a running number over the life of the classifier.
    class_id
        ``(n,)``: its class; 0 where it has none (yet, or never: broken, or left out).
    turn_deg
        ``(n,)``: from the class average to the particle, from x towards y.
    shift_A
        ``(n, 2)``: y, x that bring the particle to the middle of its box.
    score
        ``(n,)``: log-likelihood ratio of its class against no particle.
    n_broken, n_left_out
        Images that aren't finite or are constant, and those drawn out because there were too many.
    born, died
        Numbers of classes.
    """

    number: torch.Tensor
    class_id: torch.Tensor
    turn_deg: torch.Tensor
    shift_A: torch.Tensor
    score: torch.Tensor
    n_broken: int = 0
    n_left_out: int = 0
    born: list[int] = field(default_factory=list)
    died: list[int] = field(default_factory=list)


def places_among(held: Held, ids: torch.Tensor) -> torch.Tensor:
    """Place ``(n,)`` of each particle's class among ``ids``; -1 for none."""
    nowhere = torch.full_like(held.class_id, -1)
    if not len(ids):
        return nowhere
    same = held.class_id[:, None] == ids[None, :]
    return torch.where(same.any(dim=1), same.int().argmax(dim=1), nowhere)


def place_best(held: Held, found: Found, ids: torch.Tensor) -> None:
    """Put each particle into the class that it fits best."""
    best = found.score.argmax(dim=1)
    row = torch.arange(len(best), device=best.device)
    held.class_id = ids[best]
    held.turn, held.shift = found.turn[row, best], found.shift[row, best]
    held.score = found.score[row, best]


class Classifier:
    """What the classifier knows, and what it can do with it.

    Parameters
    ----------
    settings
        See :class:`Class2DSettings`.
    box
        Side of the particle images (px).

    Attributes
    ----------
    classes
        Sums of the classes there are.
    held
        The particles at hand.
    moved_to
        Of classes that went: the class that took their particles (0: none did).
    past_counts
        Particles by class number that are no longer held.
    """

    def __init__(self, settings: Class2DSettings, box: int) -> None:
        self.settings = settings
        self.prepare = Preparation(settings, box)
        grid = self.prepare.fine
        self.classes = ClassSums.empty(grid)
        self.held = Held.empty(grid)
        self.signal = torch.full((grid.n_rings,), 0.1, device=grid.device)
        self.power = torch.zeros(grid.n_rings, device=grid.device)
        self.moved_to: dict[int, int] = {}
        self.past_counts: dict[int, int] = {}
        self.n_seen = self.n_used = self.n_updates = self.n_broken = self.n_left_out = 0
        self.next_id = 1
        self.next_look = 0

    @property
    def started(self) -> bool:
        """Whether there are classes."""
        return len(self.classes) > 0

    @property
    def weights(self) -> torch.Tensor:
        """``(n_rings,)`` of the rings in L."""
        return self.prepare.fine.weights

    @property
    def noise_root(self) -> torch.Tensor:
        """``(n_rings,)``: what whitening divided by."""
        noise = self.prepare.noise
        return torch.ones_like(self.signal) if noise is None else noise.sqrt()

    def averages(self) -> Averages:
        """The classes as they are."""
        return self.classes.averages(self.signal)

    def class_now(self, class_id: int) -> int:
        """The class that holds today what once was in this one (0: none)."""
        seen = set()
        while class_id in self.moved_to and class_id not in seen:
            seen.add(class_id)
            class_id = self.moved_to[class_id]
        return class_id

    # Parts of a pass

    def shifts(self, reach_px: float, step_px: float) -> torch.Tensor:
        """Shifts ``(n, 2)`` of a grid inside a circle (px)."""
        return shift_grid(reach_px, step_px, self.settings.device)

    @property
    def sigma_px(self) -> float:
        """Standard deviation of a particle's distance from the middle of its box, per axis (px)."""
        return max(1.0, 0.5 * self.prepare.max_shift_px)

    def compare(
        self,
        held: Held,
        averages: Averages,
        level: PolarGrid,
        shifts: torch.Tensor,
        own: torch.Tensor | None = None,
        sums: bool = False,
        temperature: float = 1.0,
    ) -> Found:
        """Compare particles with averages on the rings of a level."""
        return match(
            held.particles.on(self.prepare.fine, level),
            averages.on(level),
            level,
            shifts,
            self.weights[: level.n_rings],
            shift_sigma_px=self.sigma_px,
            own=own,
            halves=held.half if sums else None,
            temperature=temperature,
        )

    def own(
        self, held: Held, averages: Averages, level: PolarGrid, ids: torch.Tensor | None = None
    ) -> torch.Tensor:
        """What each particle adds to its own L ``(n, k)`` by being in its class."""
        places = places_among(held, self.classes.ids if ids is None else ids)
        rings = slice(0, level.n_rings)
        gain = averages.gain[places.clamp(min=0)][:, rings]
        part = held.particles.on(self.prepare.fine, level)
        share = self_score(part, gain, self.weights[rings]) * held.surety.square()
        own = torch.zeros((len(held), len(averages)), device=self.settings.device)
        inside = torch.nonzero(places >= 0)[:, 0]
        own[inside, places[inside]] = share[inside]
        return own

    def _pass(
        self,
        level: PolarGrid,
        shifts: torch.Tensor,
        averages: Averages | None = None,
        temperature: float = 1.0,
    ) -> torch.Tensor:
        """One round over all held particles; returns L ``(n, k)`` without what each adds itself."""
        averages = self.averages() if averages is None else averages
        score = self.round(self.held, self.classes, averages, level, shifts, temperature)
        self.signal = shared_signal(self.classes, self.signal)
        return score

    def round(
        self,
        held: Held,
        classes: ClassSums,
        averages: Averages,
        level: PolarGrid,
        shifts: torch.Tensor,
        temperature: float = 1.0,
    ) -> torch.Tensor:
        """Match particles to averages, place them, and make the sums of the classes anew; returns L ``(n, k)``."""
        own = self.own(held, averages, level, classes.ids)
        found = self.compare(held, averages, level, shifts, own, sums=True, temperature=temperature)
        place_best(held, found, classes.ids)
        held.surety = found.surety
        classes.sums.zero_()
        classes.weights.zero_()
        classes.sums[:, :, : level.n_rings, : level.n_angles // 2] = found.sums
        classes.weights[:, :, : level.n_rings] = found.weights
        return found.score

    # Moves

    def _start(self, result: Update, draw: torch.Generator) -> None:
        """First classes, from all particles held."""
        level, reach = self.prepare.coarse, self.prepare.max_shift_px
        self.signal = signal_on_rings(self.power[None], self.held.c2)
        part = self.held.particles.on(self.prepare.fine, level)
        signal = self.signal[: level.n_rings]
        self.held.shift = precentre(
            part, level, self.shifts(reach, 1.0), level.weights, signal, self.sigma_px
        )
        self._look(result, draw)
        # Wide: whoever stands off the middle would else make a class of its own
        for temperature in (2.0, 1.5, 1.0):
            score = self._pass(level, self.shifts(max(3.0, reach), 1.5), temperature=temperature)
        for _ in range(_PARTINGS):
            if not self._part(score, result, draw):
                break
            score = self._pass(level, self.shifts(max(3.0, reach), 1.5))
        self.next_look = 2 * self.n_used

    def _refine(self, result: Update, draw: torch.Generator) -> None:
        """Passes with all detail; now and then a look for what no class shows."""
        level = self.prepare.fine
        for _ in range(self.settings.passes):
            self._pass(level, self.shifts(1.5, 1.0))
        score = self._pass(level, self.shifts(0.75, 0.5))
        self._unite(score, result)
        self._let_die(result)
        if self.n_used >= self.next_look:
            self.next_look = int(1.5 * self.n_used)
            self._look(result, draw)
            self._part(self._pass(self.prepare.coarse, self.shifts(2.2, 1.5)), result, draw)
            self._pass(self.prepare.coarse, self.shifts(2.2, 1.5))
            self._pass(level, self.shifts(0.75, 0.5))
            self._let_die(result)

    def _look(self, result: Update, draw: torch.Generator) -> None:
        """Look for views that no class shows, and let classes be born for them."""
        level = self.prepare.coarse
        n, k = len(self.held), len(self.classes)
        views = max(_FEWEST_VIEWS, min(_VIEWS, 8 * self.settings.n_classes))
        which = torch.randperm(n, generator=draw)[:views].sort().values.to(self.settings.device)
        sample = self.held.take(which)
        near = self.shifts(2.2, 1.5)
        standing = torch.zeros((len(sample), 0), device=self.settings.device)
        if k:
            averages = self.averages()
            standing = self.compare(sample, averages, level, near, self.own(sample, averages, level)).score
        born, gone = find_births(
            sample.particles.on(self.prepare.fine, level),
            standing,
            min(self.settings.n_classes, max(2, n // _PER_CLASS)) - k,
            level,
            near,
            self.weights[: level.n_rings],
            self.signal[: level.n_rings],
            self.sigma_px,
            _LEAST_GAIN,
        )
        for place in sorted(gone, reverse=True):
            self._drop(place, 0, result)
        if not len(born):
            return
        ids = torch.arange(self.next_id, self.next_id + len(born), device=self.settings.device)
        self.next_id += len(born)
        result.born += ids.tolist()
        old = self.averages().on(level)
        self.classes.grow(ids)
        both = Averages(torch.cat([old.a, born.a]), torch.cat([old.gain, born.gain]))
        self._pass(level, near, both)

    def _part(self, score: torch.Tensor, result: Update, draw: torch.Generator) -> bool:
        """Take classes apart that hold two views; whether any was."""
        level, classes = self.prepare.coarse, self.classes
        made, gone = worth_it(find_splits(self, draw), score, self.settings.n_classes - len(classes))
        if not made:
            return False
        whole = self.averages().on(level)
        a, gain = whole.a.clone(), whole.gain.clone()
        for split in made:
            a[split.place], gain[split.place] = split.averages.a[0], split.averages.gain[0]
            classes.past_sums[:, split.place] = 0
            classes.past_weights[:, split.place] = 0
            # Whoever was in it isn't in the new average the way it was in the old
            self.held.class_id[self.held.class_id == classes.ids[split.place]] = 0
        ids = torch.arange(self.next_id, self.next_id + len(made), device=self.settings.device)
        self.next_id += len(made)
        result.born += ids.tolist()
        classes.grow(ids)
        stay = torch.ones(len(classes), dtype=torch.bool, device=self.settings.device)
        stay[gone] = False
        for place in sorted(gone, reverse=True):
            self._drop(place, 0, result)
        a = torch.cat([a, *(split.averages.a[1:] for split in made)])
        gain = torch.cat([gain, *(split.averages.gain[1:] for split in made)])
        self._pass(level, self.shifts(2.2, 1.5), Averages(a[stay], gain[stay]))
        return True

    def _drop(self, place: int, heir: int, result: Update) -> None:
        """Let a class go; ``heir`` is the class that takes its particles, 0 where they're scattered."""
        class_id = int(self.classes.ids[place])
        stay = torch.ones(len(self.classes), dtype=torch.bool, device=self.settings.device)
        stay[place] = False
        self.classes.keep(stay)
        self.moved_to[class_id] = heir
        self.held.class_id[self.held.class_id == class_id] = heir
        result.died.append(class_id)

    def _unite(self, score: torch.Tensor, result: Update) -> None:
        """Make one of classes that show the same."""
        level = self.prepare.fine
        while True:
            twins = find_twins(score, self.held.c2, self.averages(), self.weights)
            if twins is None:
                return
            heir = int(self.classes.ids[twins[1]])
            self._drop(twins[0], heir, result)
            # The heir's particles come with another turn: only a pass tells it
            score = self._pass(level, self.shifts(0.75, 0.5))

    def _let_die(self, result: Update) -> None:
        """Classes that nearly nobody belongs to go; their particles find others with the next pass."""
        if len(self.classes) < 2:
            return
        counts = (self.held.class_id[:, None] == self.classes.ids[None, :]).sum(dim=0)
        few = [place for place in range(len(counts)) if int(counts[place]) < _LEAST_MEMBERS]
        for place in reversed(few[: len(counts) - 1]):
            self._drop(place, 0, result)
