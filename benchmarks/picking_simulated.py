"""Picking on simulated fields: vitriflow and RELION's LoG on the same files in one run.

Both are told the particle's diameter d: vitriflow as such, RELION as a range from 0.87 d to 1.13 d, with its
default threshold. Seeds are used nowhere else. Time is of one 4096 x 4096 micrograph, taking turns.
"""

import shutil
import statistics
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.inputs import make_micrograph, still
from benchmarks.measure import CORES, Series, Turn, Usage, alternate, on_cores, table, workspace
from benchmarks.peer_topaz import topaz, topaz_lines, topaz_scores
from benchmarks.peers import native_step
from benchmarks.picking_score import Points, RealSet, positions, relion_log, score
from vitriflow.formats import read_image
from vitriflow.simulate import MovieSpec
from vitriflow.steps import Artifact, Context, Kind, find_step, run_step

SHAPE = (2048, 2048)
TIMED_SHAPE = (4096, 4096)
FIRST_SEED = 9101
USUAL_A = 120.0
SPREAD = 0.13  # of the range that RELION is given, on either side of the diameter


@dataclass(frozen=True)
class Case:
    """A kind of micrograph, and what of the simulator's settings makes it so."""

    name: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    defocus_A: float = 15000.0

    def spec(self, seed: int, shape: tuple[int, int]) -> MovieSpec:
        scale = shape[0] * shape[1] / (SHAPE[0] * SHAPE[1])
        settings: dict[str, Any] = {
            "shape": shape,
            "n_frames": 1,
            "dose_per_frame_e_per_A2": 40.0,
            "contrast": 1.0,
            "motion": still(),
            "dtype": "float32",
            "gain_applied": True,
            "n_dead_columns": 0,
            "n_dead_pixels": 0,
            "n_hot_pixels": 0,
            "defocus_u_A": self.defocus_A + 100.0,
            "defocus_v_A": self.defocus_A - 100.0,
            "seed": seed,
        }
        settings |= self.changes
        if settings.get("n_particles"):
            settings["n_particles"] = max(3, round(settings["n_particles"] * scale))
        return MovieSpec(**settings)

    @property
    def diameter_A(self) -> float:
        return float(self.changes.get("particle_diameter_A", USUAL_A))


_DENSITY: dict[str, dict[str, Any]] = {
    "sparse": {"n_particles": 25},
    "usual": {},
    "crowded": {"particle_spacing_A": 130.0},
}
_CONTRAST = {"full contrast": 1.0, "half": 0.5, "faint (0.3)": 0.3}

CASES = (
    *(
        Case(f"{density}, {contrast}", {**made, "contrast": value})
        for density, made in _DENSITY.items()
        for contrast, value in _CONTRAST.items()
    ),
    *(
        Case(f"{density}, half, {defocus / 1e4:g} um", {**made, "contrast": 0.5}, defocus)
        for density, made in _DENSITY.items()
        for defocus in (6000.0, 25000.0)
    ),
    Case("usual, 8 e/A^2", {"dose_per_frame_e_per_A2": 8.0}),
    Case("small (80 A)", {"particle_diameter_A": 80.0, "particle_spacing_A": 130.0}),
    Case("large (200 A)", {"particle_diameter_A": 200.0, "particle_spacing_A": 280.0}),
    Case("carbon edge", {"carbon_edge": True}),
    Case("ice crystals", {"n_ice_crystals": 5}),
)
TIMED = Case("usual")
EMPTY = (
    Case("empty ice", {"n_particles": 0}),
    Case("empty, carbon edge", {"n_particles": 0, "carbon_edge": True}),
    Case("empty, ice crystals", {"n_particles": 0, "n_ice_crystals": 5}),
)


def ours(path: Path, diameter_A: float, out: Path) -> Points:
    """Picks of the step, as a worker runs it: file in, STAR out."""
    step = find_step("pick.dog")
    record = run_step(
        step,
        {"micrograph": Artifact(kind=Kind.MICROGRAPH, path=path)},
        step.Parameters(particle_diameter_A=diameter_A),
        Context(out=out, item=path.stem, threads=CORES),
    )
    if record.reason is not None:
        raise RuntimeError(record.reason)
    return positions(record.outputs["coordinates"].path)


def _scores(
    case: Case, seeds: range, shape: tuple[int, int], folder: Path, with_relion: bool
) -> tuple[dict[str, float], dict[str, float] | None]:
    """Means over seeds, of ours and of RELION's."""
    mine: list[dict[str, float]] = []
    theirs: list[dict[str, float]] = []
    d = case.diameter_A
    judge = _judge(d)
    for seed in seeds:
        path, truth = make_micrograph(f"pick-{seed}", case.spec(seed, shape), folder)
        image: NDArray[np.float32] = np.asarray(read_image(path).array, dtype=np.float32)
        centres = truth.particles_px.reshape(-1, 2)
        with tempfile.TemporaryDirectory() as out:
            found = [ours(path, d, Path(out))]
        if with_relion:
            found.append(relion_log("mic", image, judge)[0])
        for points, into in zip(found, (mine, theirs), strict=False):
            f1, precision, recall = score(points, centres, shape, judge)
            into.append({"f1": f1, "precision": precision, "recall": recall, "picks": float(len(points))})
    return _means(mine), _means(theirs) if theirs else None


def _topaz_means(seeds: range, shape: tuple[int, int], folder: Path) -> dict[str, dict[str, float]]:
    """Topaz's means over all kinds of fields, by threshold."""
    kinds = []
    for case in CASES:
        images = {}
        for seed in seeds:
            path, truth = make_micrograph(f"pick-{seed}", case.spec(seed, shape), folder)
            image = np.asarray(read_image(path).array, dtype=np.float32)
            images[f"seed_{seed}"] = (image, truth.particles_px.reshape(-1, 2))
        kinds.append(topaz_scores(images, _judge(case.diameter_A)))
    return {said: _means([means[said] for means in kinds]) for said in kinds[0]}


def _judge(d: float) -> RealSet:
    """How fields of particles of this diameter are scored."""
    return RealSet("", "", 1.0, d, ((1 - SPREAD) * d, (1 + SPREAD) * d), d / 2, d / 2 + 10)


def _means(rows: list[dict[str, float]]) -> dict[str, float]:
    return {key: statistics.fmean(row[key] for row in rows) for key in rows[0]}


def _times(folder: Path, shape: tuple[int, int], rounds: int, with_relion: bool) -> dict[str, Series]:
    """Seconds for one micrograph: a worker that is warm, a process of its own, and RELION."""
    case = TIMED
    path, _ = make_micrograph("pick-timed", case.spec(FIRST_SEED, shape), folder)
    image = np.asarray(read_image(path).array, dtype=np.float32)
    d = case.diameter_A
    judge = _judge(d)

    def warm(_: int) -> Turn:
        with tempfile.TemporaryDirectory() as out, on_cores(CORES):
            started, busy = time.perf_counter(), time.process_time()
            ours(path, d, Path(out))
            wall, cpu = time.perf_counter() - started, time.process_time() - busy
        return Turn(Usage(wall, cpu, 0, 0, b"", b""))

    def cold(_: int) -> Turn:
        with tempfile.TemporaryDirectory() as out:
            usage, _records = native_step("pick.dog", [path], Path(out), {"particle_diameter_A": d})
        return Turn(usage)

    def relion(_: int) -> Turn:
        with on_cores(CORES):
            _points, seconds = relion_log("mic", image, judge)
        return Turn(Usage(seconds, 0.0, 0, 0, b"", b""))

    warm(0)  # libraries are loaded once in a worker's life
    programs = {"vitriflow, in a worker": warm, "vitriflow, a process of its own": cold}
    if with_relion:
        programs["RELION LoG"] = relion
    return alternate(programs, rounds)


def run(
    full: bool,
    shape: tuple[int, int] = SHAPE,
    timed_shape: tuple[int, int] = TIMED_SHAPE,
    rounds: int | None = None,
) -> tuple[str, dict[str, Any]]:
    """Score all kinds of fields, and time one."""
    with_relion = shutil.which("relion_autopick") is not None
    seeds = range(FIRST_SEED, FIRST_SEED + (4 if full else 1))
    data: dict[str, Any] = {"seeds": list(seeds), "cases": {}, "empty": {}}
    rows: list[list[str]] = []
    empty_rows: list[list[str]] = []
    with workspace("picking") as folder:
        for case in CASES:
            mine, theirs = _scores(case, seeds, shape, folder, with_relion)
            data["cases"][case.name] = {"vitriflow": mine, "relion_log": theirs}
            rows.append([case.name, *_cells(mine), *_cells(theirs)])
        for case in EMPTY:
            mine, theirs = _scores(case, seeds, shape, folder, with_relion)
            data["empty"][case.name] = {"vitriflow": mine, "relion_log": theirs}
            said = "-" if theirs is None else f"{theirs['picks']:.0f}"
            empty_rows.append([case.name, f"{mine['picks']:.0f}", said])
        series = _times(folder, timed_shape, rounds or (7 if full else 5), with_relion)
        data["topaz"] = _topaz_means(seeds, shape, folder) if topaz() is not None else {}
    data["mean"] = {
        who: _means([case[who] for case in data["cases"].values()])
        for who in ("vitriflow", "relion_log")
        if who == "vitriflow" or with_relion
    }
    rows.append(["**mean**", *_cells(data["mean"]["vitriflow"]), *_cells(data["mean"].get("relion_log"))])
    data["seconds"] = {name: one.wall().record() for name, one in series.items()}
    times = [[name, one.wall().text(2)] for name, one in series.items()]
    head = ("field", "F1", "precision", "recall", "RELION F1", "precision", "recall")
    said_of_topaz = topaz_lines(data["topaz"], "all fields")
    lines = [
        "## Picking on simulated fields",
        "",
        f"{shape[0]} x {shape[1]} px of 1 A, 40 e/A^2, 1.5 um unless said, the phantom of {USUAL_A:g} A, "
        f"{len(seeds)} seed(s) a row.",
        "Contrast 1 is the phantom's physical one.",
        "",
        table(head, rows),
        "",
        *([*said_of_topaz, ""] if said_of_topaz else []),
        "Picks where there is no particle:",
        "",
        table(("field", "vitriflow", "RELION"), empty_rows),
        "",
        f"Seconds for one micrograph of {timed_shape[0]} x {timed_shape[1]}, from file to STAR, taking turns: "
        "median (least..greatest).",
        "",
        table(("program", "s"), times),
    ]
    return "\n".join(lines) + "\n", data


def _cells(values: Mapping[str, float] | None) -> list[str]:
    if values is None:
        return ["-", "-", "-"]
    return [f"{values['f1']:.3f}", f"{values['precision']:.2f}", f"{values['recall']:.2f}"]
