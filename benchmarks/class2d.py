"""2D classification on stacks whose classes are known: vitriflow and RELION on the same particles in one run.

Purity is the part of the particles whose view is the one that most in their class show; resolution is
where an average, turned and moved onto its view, correlates with it by 0.5. RELION has no seed for how busy the
machine is: beside wall time stands the processors' time of both.
"""

import os
import resource
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.class2d_relion import relion_2d, write_input
from vitriflow.kernels.class2d import Class2DSettings, OnlineClassifier, ParticleCtf
from vitriflow.kernels.class2d_match import Averages, Particles, aligned, match
from vitriflow.kernels.class2d_polar import PolarGrid, harmonics
from vitriflow.kernels.class2d_prepare import shift_grid
from vitriflow.kernels.class2d_report import class_pictures
from vitriflow.simulate import SimulatedParticles, simulate_particles
from vitriflow.steps.threads import torch_threads

DIAMETER_A = 180.0


def purity(classes: NDArray[np.int64], truth: NDArray[np.int64]) -> float:
    pure = sum(np.bincount(truth[classes == one]).max() for one in np.unique(classes[classes > 0]))
    return float(pure / len(truth))


def mutual_information(classes: NDArray[np.int64], truth: NDArray[np.int64]) -> float:
    """Normalised by the mean of both entropies, 0 to 1."""
    table = np.histogram2d(classes, truth, (np.arange(classes.max() + 2), np.arange(truth.max() + 2)))[0]
    joint = table / table.sum()
    rows, columns = joint.sum(axis=1), joint.sum(axis=0)

    def entropy(p: NDArray[np.float64]) -> float:
        return float(-(p[p > 0] * np.log(p[p > 0])).sum())

    shared = entropy(rows) + entropy(columns) - entropy(joint.ravel())
    return shared / (0.5 * (entropy(rows) + entropy(columns)))


def truth_resolution_A(
    averages: NDArray[np.float32], classes: NDArray[np.int64], ids: list[int], particles: SimulatedParticles
) -> float:
    """Mean over the particles of how far their class's average agrees with its most frequent view (A)."""
    box = averages.shape[-1]
    pixel_A = particles.pixel_size_A * particles.images.shape[-1] / box
    grid = PolarGrid(box, 0.5 * DIAMETER_A / pixel_A, box // 2 - 3, 256)
    views = harmonics(grid.forward(torch.from_numpy(particles.views)))
    reached = []
    for average, class_id in zip(averages, ids, strict=True):
        mine = particles.class_of[classes == class_id]
        if not len(mine):
            continue
        view = views[int(np.bincount(mine).argmax())][None]
        at = Particles(
            grid.forward(torch.from_numpy(average)[None].float()),
            torch.ones(1, grid.n_rings),
            torch.zeros(1, 2),
        )
        power = Averages(view, torch.ones(1, grid.n_rings)).power()[0].sqrt()
        white = Averages(view / power[None, :, None], torch.ones(1, grid.n_rings))
        for reach, step in ((8.0, 1.0), (1.0, 0.5), (0.5, 0.25)):
            found = match(at, white, grid, shift_grid(reach, step), grid.weights, shift_sigma_px=1e3)
            at.shift = found.shift[:, 0]
        moved = aligned(at, grid, found.shift[:, 0], found.turn[:, 0])
        cross = (moved * view.conj()).real[0].sum(dim=-1)
        size = (moved.abs().square()[0].sum(dim=-1) * view.abs().square()[0].sum(dim=-1)).sqrt()
        below = torch.nonzero(cross / size < 0.5)[:, 0]
        ring = int(below[0]) if len(below) else grid.n_rings
        reached += [box * pixel_A / max(ring, 0.5)] * len(mine)
    return statistics.fmean(reached)


def ours(particles: SimulatedParticles, n_classes: int, batch: int) -> dict[str, Any]:
    """The classifier fed in batches, two threads."""
    settings = Class2DSettings(particles.pixel_size_A, DIAMETER_A, n_classes, max_shift_A=14.0, passes=2)
    wall, cpu = time.perf_counter(), time.process_time()
    with torch_threads(2):
        classifier = OnlineClassifier(settings, particles.images.shape[-1])
        for first in range(0, len(particles.images), batch):
            part = slice(first, first + batch)
            ctf = ParticleCtf.of(
                torch.from_numpy(particles.defocus[part]),
                particles.voltage_kV,
                particles.cs_mm,
                particles.amplitude_contrast,
            )
            classifier.update(torch.from_numpy(particles.images[part]), ctf)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        classes = np.zeros(len(particles.images), np.int64)
        classes[classifier.held.number.numpy()] = classifier.held.class_id.numpy()
        ids = classifier.classes.ids.tolist()
        return {
            **scores(classes, class_pictures(classifier).numpy(), ids, particles),
            "wall_s": wall,
            "cpu_s": cpu,
        }


def scores(
    classes: NDArray[np.int64], averages: NDArray[np.float32], ids: list[int], particles: SimulatedParticles
) -> dict[str, Any]:
    return {
        "purity": purity(classes, particles.class_of),
        "nmi": mutual_information(classes, particles.class_of),
        "used": int((np.bincount(classes)[1:] >= 3).sum()),
        "resolution_A": truth_resolution_A(averages, classes, ids, particles),
    }


def relion(particles: SimulatedParticles, n_classes: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        write_input(particles, Path(folder))
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        classes, averages, wall = relion_2d(Path(folder), DIAMETER_A, n_classes)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    ids = list(range(1, n_classes + 1))
    return {**scores(classes, averages, ids, particles), "wall_s": wall, "cpu_s": cpu}


def carried(n: int = 4000, batch: int = 200) -> dict[str, float]:
    """Particles a second, batch by batch once there are classes, and peak memory growth over the second half."""
    particles = simulate_particles(n, n_classes=20, snr=0.1, seed=11)
    settings = Class2DSettings(particles.pixel_size_A, DIAMETER_A, 50, held=2000)
    with torch_threads(2):
        classifier = OnlineClassifier(settings, 64)
        seconds: list[float] = []
        for first in range(0, n, batch):
            part = slice(first, first + batch)
            ctf = ParticleCtf.of(torch.from_numpy(particles.defocus[part]), 300.0, 2.7, 0.1)
            started = time.perf_counter()
            classifier.update(torch.from_numpy(particles.images[part]), ctf)
            seconds.append(time.perf_counter() - started)
    steady = seconds[len(seconds) // 2 :]
    rate = batch * len(steady) / sum(steady)
    return {"particles_per_s": rate, "particles_per_day": 86400 * rate, "classes": len(classifier.classes)}


def run(full: bool) -> tuple[str, dict[str, Any]]:
    """SNR 0.05 to 0.2; RELION once, or at every SNR in the full set."""
    lines = [
        "## Two-dimensional classes",
        "",
        "1000 particles of 64 x 64 px in 8 views, 10 classes allowed. vitriflow takes them in batches of 250.",
        "",
        "| SNR | program | purity | NMI | classes used | resolution (A) | wall (s) | processors (s) |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    cases: list[dict[str, Any]] = []
    for seed, snr in enumerate((0.1, 0.05, 0.2)):
        particles = simulate_particles(1000, snr=snr, seed=seed)
        case: dict[str, Any] = {"snr": snr, "vitriflow": ours(particles, 10, 250)}
        if shutil.which("relion_refine") and (full or not cases):
            case["relion"] = relion(particles, 10)
        cases.append(case)
        for name in ("vitriflow", "relion"):
            if name in case:
                one = case[name]
                lines.append(
                    f"| {snr:g} | {name} | {one['purity']:.3f} | {one['nmi']:.2f} | {one['used']} | "
                    f"{one['resolution_A']:.1f} | {one['wall_s']:.0f} | {one['cpu_s']:.0f} |"
                )
    rate = carried(4000 if full else 2400)
    lines += [
        "",
        f"Fed in batches of 200, 50 classes allowed: {rate['particles_per_s']:.0f} particles a second, "
        f"{rate['particles_per_day']:,.0f} a day on {os.cpu_count()} cores.",
    ]
    return "\n".join(lines) + "\n", {"cases": cases, "carried": rate}


if __name__ == "__main__":
    text, _ = run("full" in sys.argv[1:])
    print(text)
