"""Picking against known centres: vitriflow and RELION's LoG on the same real files in one run.

Scored as the data's README says: matched one to one by distance, points near the border left out.
RELION is given its best known range of diameters; vitriflow the particle's diameter alone.
"""

import os
import shutil
import statistics
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image
from scipy.optimize import linear_sum_assignment

from vitriflow.formats import read_star, write_mrc, write_star
from vitriflow.kernels.pick import pick

Points = NDArray[np.float64]


@dataclass(frozen=True)
class RealSet:
    """One folder of micrographs with centres, and how to score it."""

    folder: str
    pattern: str
    pixel_size_A: float
    diameter_A: float
    relion_range_A: tuple[float, float]
    reach_px: float
    rim_px: float


SETS = (
    RealSet("apoferritin-autocryopicker", "*.png", 2.0, 150.0, (150.0, 180.0), 25, 60),
    RealSet("empiar-10017-jpeg", "*.jpg", 1.77, 170.0, (130.0, 190.0), 54, 110),
)


def data_folder() -> Path:
    named = os.environ.get("VITRIFLOW_DATA")
    return Path(named) if named else Path(__file__).resolve().parents[2] / "shared" / "data"


def score(found: Points, truth: Points, shape: tuple[int, ...], real: RealSet) -> tuple[float, float, float]:
    """F1, precision and recall."""

    def inside(points: Points) -> Points:
        rim = real.rim_px
        return points[((points >= rim) & (points < np.array(shape) - rim)).all(axis=1)]

    found, truth = inside(found), inside(truth)
    if not len(found) or not len(truth):
        return 0.0, 0.0, 0.0
    distance = np.linalg.norm(found[:, None] - truth[None], axis=2)
    near = distance <= real.reach_px
    rows, columns = linear_sum_assignment(np.where(near, distance, 1e6))
    hits = int(near[rows, columns].sum())
    return 2 * hits / (len(found) + len(truth)), hits / len(found), hits / len(truth)


def load(real: RealSet) -> list[tuple[str, NDArray[np.float32], Points]]:
    """Name, image as in the picture file (row 0 on top, as the centres count), centres y, x."""
    images = []
    for path in sorted((data_folder() / real.folder / "micrographs").glob(real.pattern)):
        with Image.open(path) as picture:
            image = np.asarray(picture).astype(np.float32)
        table = np.loadtxt(
            data_folder() / real.folder / "centres" / f"{path.stem}.csv", delimiter=",", skiprows=1
        )
        images.append((path.stem, image, table[:, 1::-1]))
    return images


def relion_log(name: str, image: NDArray[np.float32], real: RealSet) -> tuple[Points, float]:
    """RELION's LoG picker at its default threshold: picks and seconds (its own file reading included)."""
    optics = {
        "rlnOpticsGroupName": ["one"],
        "rlnOpticsGroup": [1],
        "rlnMicrographPixelSize": [real.pixel_size_A],
        "rlnVoltage": [300.0],
        "rlnSphericalAberration": [2.7],
        "rlnAmplitudeContrast": [0.1],
    }
    with tempfile.TemporaryDirectory() as folder:
        at = Path(folder)
        write_mrc(at / f"{name}.mrc", image, real.pixel_size_A)
        table = pd.DataFrame({"rlnMicrographName": [f"{name}.mrc"], "rlnOpticsGroup": [1]})
        write_star(at / "mics.star", {"optics": pd.DataFrame(optics), "micrographs": table})
        low, high = (f"{value:g}" for value in real.relion_range_A)
        command = [
            *("relion_autopick", "--i", "mics.star", "--odir", "AP/", "--pickname", "autopick", "--LoG"),
            *("--LoG_diam_min", low, "--LoG_diam_max", high, "--shrink", "0", "--lowpass", "20"),
            *("--LoG_adjust_threshold", "0"),
        ]
        started = time.perf_counter()
        subprocess.run(command, cwd=at, check=True, capture_output=True, timeout=600)
        seconds = time.perf_counter() - started
        stars = list((at / "AP").rglob("*_autopick.star"))
        picked = next(iter(read_star(stars[0]).values()))
    xy = [np.atleast_1d(np.asarray(picked[f"rlnCoordinate{axis}"], dtype=np.float64)) for axis in "YX"]
    return np.stack(xy, axis=1), seconds


def _row(name: str, ours: dict[str, float], theirs: dict[str, float] | None) -> str:
    def cells(values: dict[str, float] | None) -> str:
        if values is None:
            return "| - | - | - | - "
        return "| {f1:.3f} | {precision:.2f} | {recall:.2f} | {seconds:.2f} ".format(**values)

    return f"| {name} {cells(ours)}{cells(theirs)}|"


def _means(rows: list[dict[str, float]]) -> dict[str, float]:
    return {key: statistics.fmean(row[key] for row in rows) for key in rows[0]}


def run(full: bool) -> tuple[str, dict[str, Any]]:
    """Score both sets; the short set takes three micrographs of each."""
    with_relion = shutil.which("relion_autopick") is not None
    lines = [
        "## Picking on real micrographs",
        "",
        "vitriflow is given the particle's diameter alone, the same settings for every micrograph of a",
        "set; RELION its LoG picker at the default threshold over its best known range of diameters.",
        "",
        "| micrograph | F1 | precision | recall | s | RELION F1 | precision | recall | s |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    data: dict[str, Any] = {}
    for real in SETS:
        images = load(real)
        if not images:
            lines.append(f"| {real.folder}: not found, set VITRIFLOW_DATA | | | | | | | | |")
            continue
        chosen = images if full else images[:3]
        pick(chosen[0][1], real.pixel_size_A, real.diameter_A)  # the first call loads libraries
        ours: list[dict[str, float]] = []
        theirs: list[dict[str, float]] = []
        for name, image, truth in chosen:
            started = time.perf_counter()
            found = pick(image, real.pixel_size_A, real.diameter_A).accepted
            seconds = time.perf_counter() - started
            keys = ("f1", "precision", "recall")
            mine = dict(zip(keys, score(found, truth, image.shape, real), strict=True))
            ours.append(mine | {"seconds": seconds})
            if with_relion:
                found, seconds = relion_log(name, image, real)
                peer = dict(zip(keys, score(found, truth, image.shape, real), strict=True))
                theirs.append(peer | {"seconds": seconds})
            lines.append(_row(name, ours[-1], theirs[-1] if theirs else None))
        peer_mean = _means(theirs) if theirs else None
        lines.append(_row(f"**{real.folder}, mean of {len(ours)}**", _means(ours), peer_mean))
        data[real.folder] = {
            "diameter_A": real.diameter_A,
            "vitriflow": {"mean": _means(ours), "each": ours},
            "relion_log": {"mean": peer_mean, "each": theirs} if theirs else None,
        }
    return "\n".join(lines) + "\n", data


if __name__ == "__main__":
    print(run(full=True)[0])
