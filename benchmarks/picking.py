"""Picking against known centres: vitriflow and RELION's LoG on the same real files in one run.

Scored as the data's README says: matched one to one by distance, points near the border left out.
RELION is given its best known range of diameters; vitriflow the particle's diameter alone.
"""

import os
import shutil
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks import picking_simulated
from benchmarks.peer_topaz import topaz, topaz_lines, topaz_scores
from benchmarks.picking_score import Points, RealSet, relion_log, score
from vitriflow.kernels.pick import pick
from vitriflow.steps.threads import torch_threads

SETS = (
    RealSet("apoferritin-autocryopicker", "*.png", 2.0, 150.0, (150.0, 180.0), 25, 60),
    RealSet("empiar-10017-jpeg", "*.jpg", 1.77, 170.0, (130.0, 190.0), 54, 110),
)


def data_folder() -> Path:
    named = os.environ.get("VITRIFLOW_DATA")
    return Path(named) if named else Path(__file__).resolve().parents[2] / "shared" / "data"


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


def _row(name: str, ours: dict[str, float], theirs: dict[str, float] | None) -> str:
    def cells(values: dict[str, float] | None) -> str:
        if values is None:
            return "| - | - | - | - "
        return "| {f1:.3f} | {precision:.2f} | {recall:.2f} | {seconds:.2f} ".format(**values)

    return f"| {name} {cells(ours)}{cells(theirs)}|"


def _means(rows: list[dict[str, float]]) -> dict[str, float]:
    return {key: statistics.fmean(row[key] for row in rows) for key in rows[0]}


def run(full: bool) -> tuple[str, dict[str, Any]]:
    """Real micrographs with known centres, then simulated fields."""
    real, data = run_real()
    simulated, more = picking_simulated.run(full)
    return f"{real}\n{simulated}", {**data, "simulated": more}


def run_real() -> tuple[str, dict[str, Any]]:
    """Score both sets, all micrographs of each."""
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
    below: list[str] = []
    for real in SETS:
        images = load(real)
        if not images:
            lines.append(f"| {real.folder}: not found, set VITRIFLOW_DATA | | | | | | | | |")
            continue
        pick(images[0][1], real.pixel_size_A, real.diameter_A)  # the first call loads libraries
        ours: list[dict[str, float]] = []
        theirs: list[dict[str, float]] = []
        for name, image, truth in images:
            started = time.perf_counter()
            with torch_threads(1):  # as the step does it
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
        if topaz() is not None:
            means = topaz_scores({name: (image, truth) for name, image, truth in images}, real)
            data[real.folder]["topaz"] = means
            below += ["", *topaz_lines(means, f"{len(images)} of {real.folder}")]
    return "\n".join([*lines, *below]) + "\n", data


if __name__ == "__main__":
    print(run(full=True)[0])
