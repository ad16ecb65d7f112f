"""Topaz, where ``VITRIFLOW_TOPAZ`` says it is: its pretrained model, on the CPU.

Micrographs are made small (``topaz preprocess``) to the 8 A/px that its general model wants, and picked
(``topaz extract``) with a radius of half the particle's diameter. Scores are log-likelihood ratios: its
own threshold of -6 keeps nearly all candidates for people to choose from, 0 those that are more likely
particles than not. Both are scored.
"""

import math
import os
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.measure import CORES, Failed, measure
from benchmarks.picking_score import Points, RealSet, score
from vitriflow.formats import write_mrc

TOPAZ_VARIABLE = "VITRIFLOW_TOPAZ"
THRESHOLDS = {"its default, -6": -6.0, "likelier than not, 0": 0.0}
_MODEL_PIXEL_A = 8.0
_HEAD = ["image_name", "x_coord", "y_coord", "score"]
KEYS = ("f1", "precision", "recall")


def topaz() -> str | None:
    """The Topaz that the person who runs this named."""
    named = os.environ.get(TOPAZ_VARIABLE)
    return named if named and Path(named).is_file() else None


def topaz_picks(
    images: Sequence[Path], pixel_size_A: float, diameter_A: float, out: Path
) -> tuple[dict[str, tuple[Points, NDArray[np.float64]]], float]:
    """Positions y, x ``(n, 2)`` and scores for each image, and seconds for all of them.

    Raises
    ------
    Failed
        When Topaz fails, or what it wrote isn't its table.
    """
    shrink = max(1, math.floor(_MODEL_PIXEL_A / pixel_size_A))
    radius = max(1, round(0.5 * diameter_A / (shrink * pixel_size_A)))
    small, written = out / "small", out / "picks.txt"
    small.mkdir(parents=True)
    words: list[str | Path] = [str(topaz()), "preprocess", "-s", str(shrink), "-o", small, *images]
    seconds = measure(words).wall_s
    words = [str(topaz()), "extract", "-r", str(radius), "-x", str(shrink), "-t", "-6", "-d", "-1"]
    words += ["-j", str(CORES), "-o", written, *(small / f"{image.stem}.tiff" for image in images)]
    usage = measure(words)
    # Some versions write to the file that is named, others always say it all.
    said = written.read_text(encoding="utf-8") if written.is_file() else usage.stdout.decode(errors="replace")
    found = read_topaz(said)
    empty = (np.zeros((0, 2)), np.zeros(0))
    return {image.stem: found.get(image.stem, empty) for image in images}, seconds + usage.wall_s


def read_topaz(text: str) -> dict[str, tuple[Points, NDArray[np.float64]]]:
    """Topaz's table of coordinates, whatever it said before it: y, x and scores by image."""
    lines = [line.split("\t") for line in text.splitlines()]
    if _HEAD not in lines:
        raise Failed(f"Topaz wrote no table of coordinates: {text[-300:]!r}")
    rows: dict[str, list[list[float]]] = {}
    for cells in lines[lines.index(_HEAD) + 1 :]:
        if len(cells) == len(_HEAD):
            rows.setdefault(cells[0], []).append([float(cell) for cell in cells[1:]])
    tables = {name: np.asarray(values, dtype=np.float64) for name, values in rows.items()}
    return {name: (table[:, 1::-1], table[:, 2]) for name, table in tables.items()}


def topaz_scores(
    images: Mapping[str, tuple[NDArray[np.float32], Points]], real: RealSet
) -> dict[str, dict[str, float]]:
    """Mean F1, precision and recall over images with known centres, and seconds an image, by threshold."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{name}.mrc" for name in images]
        for path, (image, _) in zip(paths, images.values(), strict=True):
            write_mrc(path, image, real.pixel_size_A)
        found, seconds = topaz_picks(paths, real.pixel_size_A, real.diameter_A, Path(folder) / "topaz")
    means = {}
    for said, threshold in THRESHOLDS.items():
        each = []
        for name, (image, truth) in images.items():
            points, scores = found[name]
            each.append(score(points[scores >= threshold], truth, image.shape, real))
        columns = dict(zip(KEYS, map(statistics.fmean, zip(*each, strict=True)), strict=True))
        means[said] = columns | {"seconds": seconds / len(images)}
    return means


def topaz_lines(means: Mapping[str, Mapping[str, float]], of: str) -> list[str]:
    """What is told of it, below a table."""
    return [
        f"Topaz ({said}), mean of {of}: F1 {found['f1']:.3f}, precision {found['precision']:.2f}, recall "
        f"{found['recall']:.2f}, {found['seconds']:.1f} s an image on the CPU."
        for said, found in means.items()
    ]
