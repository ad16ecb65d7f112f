"""Compares what was found with the simulator's truth: how the demo and the benchmarks judge."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from vitriflow.formats import read_star
from vitriflow.simulate import Truth

SHIFT_TOLERANCE_PX = 0.25
DEFOCUS_TOLERANCE = 0.01
ANGLE_TOLERANCE_DEG = 3.0
ANGLE_COUNTS_ABOVE_A = 300.0
F1_TOLERANCE = 0.8
_BORDER_DIAMETERS = 0.5
_MATCH_DIAMETERS = 0.5


@dataclass(frozen=True)
class Comparison:
    """One exposure against its truth. None where there's no result to compare."""

    item: str
    shift_error_px: float | None = None
    defocus_A: float | None = None
    defocus_error: float | None = None
    angle_error_deg: float | None = None
    astigmatism_A: float = 0.0
    n_true: int = 0
    n_picks: int | None = None
    f1: float | None = None

    def failures(self) -> list[str]:
        """What is outside its tolerance, in words; empty when all is well."""
        found = []
        if self.shift_error_px is None or not self.shift_error_px <= SHIFT_TOLERANCE_PX:
            found.append(f"shift error {_number(self.shift_error_px)} px, allowed {SHIFT_TOLERANCE_PX}")
        if self.defocus_error is None or not self.defocus_error <= DEFOCUS_TOLERANCE:
            found.append(f"defocus error {_number(self.defocus_error)}, allowed {DEFOCUS_TOLERANCE}")
        if self.astigmatism_A > ANGLE_COUNTS_ABOVE_A and (
            self.angle_error_deg is None or not self.angle_error_deg <= ANGLE_TOLERANCE_DEG
        ):
            found.append(
                f"angle error {_number(self.angle_error_deg)} degrees, allowed {ANGLE_TOLERANCE_DEG}"
            )
        if self.f1 is None or not self.f1 >= F1_TOLERANCE:
            found.append(f"picking F1 {_number(self.f1)}, at least {F1_TOLERANCE}")
        return found


def load_truth(path: Path) -> Truth:
    """The simulator's truth of one movie."""
    return Truth.from_dict(json.loads(path.read_text(encoding="utf-8")))


def compare(
    item: str,
    truth: Truth,
    motion: Mapping[str, Any] | None,
    ctf: Mapping[str, Any] | None,
    picks: Mapping[str, Any] | None,
) -> Comparison:
    """Compare the result records of one exposure (as JSON has them) with its truth."""
    values: dict[str, Any] = {"item": item, "n_true": len(truth.particles_px)}
    spec = truth.spec
    values["astigmatism_A"] = spec.defocus_u_A - spec.defocus_v_A
    if motion is not None:
        values["shift_error_px"] = shift_error_px(truth, motion)
    if ctf is not None:
        mean, true = (ctf["defocus_u_A"] + ctf["defocus_v_A"]) / 2, (spec.defocus_u_A + spec.defocus_v_A) / 2
        values["defocus_A"] = mean
        values["defocus_error"] = abs(mean - true) / true
        turn = (ctf["defocus_angle_deg"] - spec.defocus_angle_deg + 90.0) % 180.0 - 90.0
        values["angle_error_deg"] = abs(turn)
    if picks is not None:
        found = read_coordinates(Path(picks["outputs"]["coordinates"]["path"]))
        values["n_picks"] = len(found)
        values["f1"] = f1_score(
            truth.particles_px, found, spec.shape, spec.particle_diameter_A / spec.pixel_size_A
        )
    return Comparison(**values)


def shift_error_px(truth: Truth, motion: Mapping[str, Any]) -> float:
    """RMS error of the shift over patches, frames and both axes (px of the movie).

    Without patches, the global shifts are compared with the true ones at the patches' centres.
    """
    height, width = truth.spec.shape
    rows, columns = motion["patch_grid"]
    tracks = motion["patch_shifts_A"]
    if not tracks:
        rows, columns = 5, 5
        tracks = [motion["frame_shifts_A"]] * (rows * columns)
    y, x = np.meshgrid(
        (np.arange(rows) + 0.5) * height / rows, (np.arange(columns) + 0.5) * width / columns, indexing="ij"
    )
    found = np.asarray(tracks, dtype=np.float64).transpose(1, 0, 2) / truth.spec.pixel_size_A
    true = np.stack([truth.motion.at(frame, y.ravel(), x.ravel()) for frame in range(found.shape[0])])
    true = true.transpose(0, 2, 1)  # (n_frames, 2, n) to (n_frames, n, 2)
    true = true - true[:1]
    return float(np.sqrt(np.mean((found - true) ** 2)))


def read_coordinates(path: Path) -> NDArray[np.float64]:
    """Picks of a RELION coordinate STAR as ``(n, 2)``, y then x (px)."""
    table = next(iter(read_star(path).values()))
    y = np.atleast_1d(np.asarray(table["rlnCoordinateY"], dtype=np.float64))
    x = np.atleast_1d(np.asarray(table["rlnCoordinateX"], dtype=np.float64))
    return np.stack([y, x], axis=1)


def f1_score(
    true: NDArray[np.float64], found: NDArray[np.float64], shape: tuple[int, int], diameter_px: float
) -> float:
    """F1 of picks matched one to one within half a diameter, leaving out a border of half a diameter."""
    border = _BORDER_DIAMETERS * diameter_px
    true, found = (points[_inside(points, shape, border)] for points in (true, found))
    if len(true) == 0 or len(found) == 0:
        return 1.0 if len(true) == len(found) else 0.0
    distance = np.linalg.norm(true[:, None] - found[None], axis=2)
    near = distance <= _MATCH_DIAMETERS * diameter_px
    first, second = linear_sum_assignment(np.where(near, distance, 1e6))
    hits = int(near[first, second].sum())
    return 2.0 * hits / (len(true) + len(found))


def _inside(points: NDArray[np.float64], shape: tuple[int, int], border: float) -> NDArray[np.bool_]:
    limit = np.asarray(shape) - 1 - border
    return np.asarray(np.all((points >= border) & (points <= limit), axis=1), dtype=np.bool_)


def _number(value: float | None) -> str:
    return "missing" if value is None else f"{value:.3g}"
