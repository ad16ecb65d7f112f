"""What can be said of classes: pictures, resolution, how much they look like noise, which to keep."""

import math
from dataclasses import dataclass

import torch

from vitriflow.kernels.class2d_core import Classifier, places_among
from vitriflow.kernels.class2d_match import Averages, match
from vitriflow.kernels.class2d_model import ring_correlation

__all__ = ["ClassReport", "class_pictures", "class_reports"]

_HALF = 0.5  # both halves are aligned to the same averages, so 0.143 would promise too much
_JUDGED = 200  # particles whose scores are held against those with noise
_NOISE_LIKE = 0.6  # a class with more is no better than noise


@dataclass(frozen=True)
class ClassReport:
    """One class.

    Attributes
    ----------
    class_id
        Its number for life.
    count
        Particles in it, all that were ever assigned.
    resolution_A
        Where the averages of both halves correlate by 0.5; None where they nowhere do.
    noise_likeness
        0 where every particle fits it better than any pattern of the same power, 1 where no better.
    score
        0 to 1: how far it reaches against the best class, times what isn't noise.
    keep
        What automatic selection says. It errs on keeping: only what is like noise goes.
    """

    class_id: int
    count: int
    resolution_A: float | None
    noise_likeness: float
    score: float
    keep: bool


def class_reports(classifier: Classifier) -> list[ClassReport]:
    """All classes, the largest first."""
    if not classifier.started:
        return []
    correlation = ring_correlation(classifier.classes)
    box_A = classifier.prepare.work_box * classifier.prepare.pixel_A
    reach = [_reach(row) for row in correlation]
    noise = _noise_likeness(classifier)
    counts = class_counts(classifier)
    best = max(max(reach), 1.0)
    reports = []
    for place, class_id in enumerate(classifier.classes.ids.tolist()):
        far = reach[place]
        score = (1.0 - noise[place]) * min(1.0, far / best)
        reports.append(
            ClassReport(
                class_id,
                counts.get(class_id, 0),
                round(box_A / far, 2) if far >= 1.0 else None,
                round(noise[place], 3),
                round(score, 3),
                noise[place] <= _NOISE_LIKE and far >= 1.0,
            )
        )
    return sorted(reports, key=lambda one: (-one.count, one.class_id))


def class_counts(classifier: Classifier) -> dict[int, int]:
    """Particles by class that stands today; those of classes that went count where their particles are."""
    counts: dict[int, int] = {}
    for class_id, count in [*classifier.held.counts().items(), *classifier.past_counts.items()]:
        now = classifier.class_now(class_id)
        counts[now] = counts.get(now, 0) + count
    return counts


def _reach(correlation: torch.Tensor) -> float:
    """The ring (not whole) at which the correlation first falls below a half; 0 where it begins there."""
    values = correlation.tolist()
    for ring, value in enumerate(values, start=1):
        if value < _HALF:
            if ring == 1:
                return 0.0
            before = values[ring - 2]
            return float(ring - 1 + (before - _HALF) / max(before - value, 1e-9))
    return float(len(values))


def _noise_likeness(classifier: Classifier) -> list[float]:
    """For each class how its particles' L compares with that with patterns of the same power and random phases."""
    level = classifier.prepare.coarse
    averages = classifier.averages().on(level)
    draw = torch.Generator().manual_seed(classifier.settings.seed + 7)
    found = []
    places = places_among(classifier.held, classifier.classes.ids)
    shifts = classifier.shifts(2.2, 1.5)
    for place in range(len(averages)):
        mine = torch.nonzero(places == place)[:, 0]
        if not len(mine):
            found.append(1.0)
            continue
        mine = mine[torch.randperm(len(mine), generator=draw)[: max(10, _JUDGED // len(averages))]]
        held = classifier.held.take(mine)
        one = Averages(averages.a[place : place + 1], averages.gain[place : place + 1])
        angle = 2.0 * math.pi * torch.rand((4, *one.a.shape[1:]), generator=draw)
        phase = torch.polar(torch.ones_like(angle), angle).to(one.a.device)
        both = Averages(torch.cat([one.a, one.a.abs() * phase]), one.gain.expand(5, -1))
        particles = held.particles.on(classifier.prepare.fine, level)
        own = torch.zeros((len(held), 5), device=one.a.device)
        own[:, 0] = classifier.own(held, classifier.averages(), level)[:, place]
        score = match(
            particles, both, level, shifts, classifier.weights[: level.n_rings],
            shift_sigma_px=classifier.sigma_px, own=own,
        ).score  # fmt: skip
        beaten = (score[:, 1:] >= score[:, :1]).float().mean()
        found.append(min(1.0, 2.0 * float(beaten)))
    return found


def class_pictures(classifier: Classifier) -> torch.Tensor:
    """Averages ``(k, box, box)`` of the work box in the order of the classes, protein bright."""
    grid = classifier.prepare.fine
    averages = classifier.averages()
    on_rings = torch.fft.irfft(averages.a, n=grid.n_angles, dim=-1, norm="forward")
    # Whitening weighs rings; pictures show grey values
    return grid.backward(on_rings * classifier.noise_root[:, None])
