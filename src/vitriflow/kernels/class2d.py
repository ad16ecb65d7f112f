"""Two-dimensional classes that grow while particles arrive: online expectation maximisation.

The classifier holds a bounded sample of the particles it has seen. With each update the new ones are
matched to the classes and join the sample (others leave it, their part in the averages stays), and
passes over the sample make the averages anew. Now and then it looks for views that no class shows: a
class is born, takes the place of one that explains less, or two that show the same become one. It
never starts over, and classes have numbers for life.

Mini-batches whose sums fade: Cappe & Moulines, J. R. Stat. Soc. B 71 (2009) 593; in cryo-EM: Punjani
et al., Nat. Methods 14 (2017) 290; Kimanius et al., Biochem. J. 478 (2021) 4169.
"""

import math

import torch

from vitriflow.errors import BadImage, Reason
from vitriflow.kernels.class2d_core import Classifier, Update, place_best
from vitriflow.kernels.class2d_held import Held
from vitriflow.kernels.class2d_prepare import Class2DSettings, ParticleCtf

__all__ = ["Class2DSettings", "OnlineClassifier", "ParticleCtf", "Update"]

_CHUNK = 2000  # images on the rings at a time
_PAST = 5.0  # past particles weigh at most so many times those held


class OnlineClassifier(Classifier):
    """Classes of particles, refined as they arrive. The same calls with the same seed give the same classes."""

    def update(self, images: torch.Tensor, ctf: ParticleCtf | None = None) -> Update:
        """Take in images ``(n, box, box)``, protein bright, and refine the classes.

        Raises
        ------
        BadImage
            When the images have another size than those before.
        """
        box = self.prepare.box
        if images.ndim != 3 or tuple(images.shape[1:]) != (box, box):
            raise BadImage(
                Reason.WRONG_SIZE,
                "particle images",
                f"boxes of {box} x {box} px, as those before",
                " x ".join(str(size) for size in images.shape[1:]),
                "Extract all particles of a processing with one box size.",
            )
        draw = torch.Generator().manual_seed(1_000_003 * self.settings.seed + self.n_updates)
        self.n_updates += 1
        result = _nothing(self.n_seen, len(images))
        self.n_seen += len(images)
        used = self._usable(images, result, draw)
        for first in range(0, len(used), _CHUNK):
            self._take(images, ctf, used[first : first + _CHUNK], result, draw)
            if not self.started and len(self.held) >= self.settings.first:
                self._start(result, draw)
                self._let_leave(result, draw)
        if self.started and len(used):
            self._refine(result, draw)
        self._tell(self.held, result)
        return result

    def _usable(self, images: torch.Tensor, result: Update, draw: torch.Generator) -> torch.Tensor:
        """Indices of images that can be used, no more than are carried at a time."""
        if not len(images):
            return torch.zeros(0, dtype=torch.long)
        low, high = images.amin(dim=(1, 2)), images.amax(dim=(1, 2))
        good = torch.isfinite(low) & torch.isfinite(high) & (high > low)
        used = torch.nonzero(good)[:, 0]
        result.n_broken = len(images) - len(used)
        most = self.settings.most_per_update
        if len(used) > most:
            result.n_left_out = len(used) - most
            used = used[torch.randperm(len(used), generator=draw)[:most]].sort().values
        self.n_broken += result.n_broken
        self.n_left_out += result.n_left_out
        self.n_used += len(used)
        return used

    def _take(
        self,
        images: torch.Tensor,
        ctf: ParticleCtf | None,
        used: torch.Tensor,
        result: Update,
        draw: torch.Generator,
    ) -> None:
        """Let particles join those held; who has to leave stays in the sums of the past."""
        chosen, part = images[used], None if ctf is None else ctf.some(used)
        if not self.started:
            # The first micrograph may hold three particles: noise is learnt from all that wait
            factor = self.prepare.learn_noise(chosen, part, len(used) / (len(self.held) + len(used)))
            self.held.z = (self.held.z.float() * factor.sqrt()[:, None]).half()
            self.power = self.power * factor
        particles, power = self.prepare.particles(chosen, part)
        n, on = len(particles), self.settings.device
        none = torch.zeros(n, device=on)
        number = result.number[used].to(on)
        new = Held(particles.z, particles.c2, particles.shift, number, number * 0, none, none, none)
        if self.started:
            reach = self.shifts(self.prepare.max_shift_px, 2.0)
            place_best(new, self.compare(new, self.averages(), self.prepare.coarse, reach), self.classes.ids)
        else:
            share = n / (len(self.held) + n)
            self.power = (1.0 - share) * self.power + share * power.mean(dim=0)
        self.held.join(new)
        self._let_leave(result, draw)

    def _let_leave(self, result: Update, draw: torch.Generator) -> None:
        """Hold no more particles than are to be held; nobody leaves before there are classes."""
        if len(self.held) > self.settings.held and self.started:
            self.held, leaving = self.held.draw_to(self.settings.held, draw)
            self._bury(leaving)
            self._tell(leaving, result)

    def _bury(self, leaving: Held) -> None:
        """Add particles that leave to the sums of the past, and let these fade."""
        nowhere = torch.zeros((1, 2), device=self.settings.device)
        found = self.compare(leaving, self.averages(), self.prepare.fine, nowhere, sums=True)
        classes = self.classes
        classes.past_sums += found.sums
        classes.past_weights += found.weights
        held, past = float(classes.weights.sum()), float(classes.past_weights.sum())
        if past > _PAST * held > 0:
            classes.past_sums *= _PAST * held / past
            classes.past_weights *= _PAST * held / past
        for class_id, count in leaving.counts().items():
            self.past_counts[class_id] = self.past_counts.get(class_id, 0) + count

    def held_places(self) -> dict[int, tuple[int, float, float, float, float]]:
        """By number of each particle held: class, turn (degrees), shift y and x (A), score."""
        held = self.held
        shift = held.shift * self.prepare.pixel_A
        turn = held.turn * (180.0 / math.pi)
        columns = (held.class_id, turn, shift[:, 0], shift[:, 1], held.score)
        rows = zip(*(column.tolist() for column in columns), strict=True)
        return dict(zip(held.number.tolist(), rows, strict=True))

    def _tell(self, held: Held, result: Update) -> None:
        """Write where particles stand into the update's answer, as far as they came with it."""
        if not len(result.number):
            return
        number = held.number.cpu()
        mine = number >= int(result.number[0])
        at = number[mine] - int(result.number[0])
        result.class_id[at] = held.class_id.cpu()[mine]
        result.turn_deg[at] = held.turn.cpu()[mine] * (180.0 / math.pi)
        result.shift_A[at] = held.shift.cpu()[mine] * self.prepare.pixel_A
        result.score[at] = held.score.cpu()[mine]


def _nothing(first: int, n: int) -> Update:
    none = torch.zeros(n)
    number = torch.arange(first, first + n)
    return Update(number, torch.zeros(n, dtype=torch.long), none, torch.zeros(n, 2), none.clone())
