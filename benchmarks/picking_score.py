"""How picks are scored against centres, and RELION's LoG picker as it's run for comparison."""

import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from vitriflow.formats import read_star, write_mrc, write_star

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


def positions(star: Path) -> Points:
    """Coordinates y, x ``(n, 2)`` of a STAR of picks."""
    picked = next(iter(read_star(star).values()))
    yx = [np.atleast_1d(np.asarray(picked[f"rlnCoordinate{axis}"], dtype=np.float64)) for axis in "YX"]
    return np.stack(yx, axis=1)


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
        found = positions(stars[0]) if stars else np.zeros((0, 2))
    return found, seconds
