"""For each outside program: what it's given, the exact command line it must see, and what it writes.

What they write is made here by the formats' documentation (and, for RELION, as the real one writes it);
real RELION and real files of CTFFIND are in other tests.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tests.steps.programs.made import (
    STEPS_PX,
    make_micrograph,
    make_movie,
    make_particles,
    make_reference,
    shifts_of,
    volume,
    write_mrc_volume,
)
from vitriflow.formats import (
    open_movie,
    write_coordinates,
    write_mrc,
    write_particles,
    write_stack,
    write_star,
)
from vitriflow.kernels.ctf import ctf_2d
from vitriflow.steps import (
    Artifact,
    BatchItem,
    Kind,
    Result,
    find_step,
    make_parameters,
    run_batch_step,
    run_step,
)
from vitriflow.steps.base import BatchStep, Context

CTF = (12000.0, 11600.0, 30.0)  # U, V (A), angle (degrees)
N_PICKS = 12


@dataclass
class Made:
    """All inputs and good outputs, made once."""

    folder: Path
    movie: Path
    aligned: Path
    rings: Path
    micrograph: Path
    coordinates: Path
    ctf: Path
    items: list[BatchItem]
    reference: Path
    stack: Path
    volume: Path
    picks_yx: np.ndarray = field(default_factory=lambda: np.zeros((0, 2)))

    def file(self, name: str, text: str) -> Path:
        """A text file."""
        path = self.folder / name
        path.write_text(text)
        return path


def make_all(folder: Path) -> Made:
    """Make everything that cases need."""
    movie = make_movie(folder / "a movie.mrcs")
    with open_movie(movie) as opened:
        frames = list(opened.frames())
    total = np.zeros(frames[0].shape, np.float32)
    for number, frame in enumerate(frames):
        total += np.roll(frame, (number * int(STEPS_PX[0]), number * int(STEPS_PX[1])), (0, 1))
    write_mrc(folder / "aligned.mrc", total, 1.0)
    picks = make_micrograph(folder / "mic.mrc")[:N_PICKS]
    write_coordinates(folder / "picks.star", picks, np.linspace(5, 1, len(picks)))
    _rings(folder / "rings.mrc")
    values = dict(zip(("rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle"), CTF, strict=True))
    optics = {"rlnVoltage": 300.0, "rlnSphericalAberration": 2.7, "rlnAmplitudeContrast": 0.1}
    write_star(folder / "ctf.star", {"ctf": values | {"rlnPhaseShift": 0.0} | optics})
    write_stack(
        folder / "boxes.mrcs", np.random.default_rng(2).normal(0, 1, (N_PICKS, 32, 32)).astype("f4"), 4.0
    )
    write_mrc_volume(folder / "map.mrc", volume().astype(np.float32), 4.0)
    return Made(
        folder,
        movie,
        folder / "aligned.mrc",
        folder / "rings.mrc",
        folder / "mic.mrc",
        folder / "picks.star",
        folder / "ctf.star",
        make_particles(folder, 8),
        make_reference(folder / "reference.mrc"),
        folder / "boxes.mrcs",
        folder / "map.mrc",
        picks,
    )


def _rings(path: Path, side: int = 768, pixel_A: float = 1.4) -> None:
    """White noise through a CTF."""
    rng = np.random.default_rng(4)
    curve = ctf_2d((side, side), pixel_A, *CTF, 300.0, 2.7, 0.1).numpy()
    waves = np.fft.rfft2(rng.normal(0, 1, (side, side))) * curve[:, : side // 2 + 1]
    image = np.fft.irfft2(waves, (side, side)) + rng.normal(0, 0.6, (side, side))
    write_mrc(path, image.astype(np.float32), pixel_A)


@dataclass(frozen=True)
class Case:
    """One step with its program."""

    step: str
    program: str
    inputs: Callable[[Made], dict[str, Path]]
    values: Callable[[Made], dict[str, Any]]
    command: Callable[[Made], list[list[str]]]
    files: Callable[[Made], dict[str, Path]]
    nonsense: Callable[[Made], dict[str, Path]]
    says: str = ""
    nonsense_says: str | None = None
    version: str = ""  # that it says by itself
    old: str = ""  # one that's too old or too new; none where every version is taken
    version_arguments: tuple[str, ...] = ("never asked",)
    executable: str = "program"
    answers: tuple[str, ...] = ()

    def run(self, made: Made, out: Path, **more: Any) -> Result:
        """Run the step on the case's inputs."""
        step = find_step(self.step)
        gpu = {} if isinstance(step, BatchStep) else {"gpu": 1}
        parameters = make_parameters(self.step, step.Parameters, {**gpu, **self.values(made), **more})
        context = Context(out, "square 1/exposure 7", threads=2)
        if isinstance(step, BatchStep):
            return run_batch_step(
                step, made.items, {}, None, parameters, Context(out, "batch_0001", threads=2)
            )
        given = {
            port: Artifact(kind=step.inputs[port].kind, path=path) for port, path in self.inputs(made).items()
        }
        return run_step(step, given, parameters, context)


def movie_of(made: Made) -> dict[str, Path]:
    """A movie."""
    return {"movie": made.movie}


def micrograph_of(made: Made) -> dict[str, Path]:
    """A micrograph."""
    return {"micrograph": made.micrograph}


def ring_of(made: Made) -> dict[str, Path]:
    """A micrograph with rings."""
    return {"micrograph": made.rings}


def motion_values(_made: Made) -> dict[str, Any]:
    """Of motion correction."""
    return {"pixel_size_A": 1.0, "dose_per_frame_e_per_A2": 1.5, "patches_x": 5, "patches_y": 4}


def frame_lines(form: str, factor: float = 1.0) -> str:
    """Shifts as MotionCor says them."""
    rows = [form.format(n=n, x=factor * x, y=factor * y) for n, (y, x) in enumerate(shifts_of(), start=1)]
    return "\n".join(rows)


ONE_BY_ONE = "...... Frame ({n:3d}) shift:   {x:8.2f}   {y:8.2f}"
TABLE = "{n:5d} {x:10.2f} {y:10.2f}"


def relion_data(made: Made) -> Path:
    """``run_it002_data.star`` of the case's particles."""
    rows = [f"{n:06d}@stacks/{m:05d}_0.mrcs" for m in (1, 2) for n in range(1, 5)]
    table = pd.DataFrame(
        {
            "rlnImageName": rows,
            "rlnClassNumber": [1, 1, 2, 1, 1, 2, 1, 1],
            "rlnOpticsGroup": 1,
            "rlnAnglePsi": 10.0,
        }
    )
    optics = pd.DataFrame(
        {
            "rlnOpticsGroup": [1],
            "rlnOpticsGroupName": ["opticsGroup1"],
            "rlnImagePixelSize": [4.0],
            "rlnImageSize": [32],
        }
    )
    path = made.folder / "data.star"
    write_particles(path, table, optics)
    return path


def relion_model(made: Made, count: int, resolution: float = 12.5) -> Path:
    """``run_it002_model.star``."""
    table = {
        "rlnReferenceImage": [f"{n:06d}@out/run_it002_classes.mrcs" for n in range(1, count + 1)],
        "rlnClassDistribution": [1.0 / count] * count,
        "rlnAccuracyRotations": [3.5] * count,
        "rlnAccuracyTranslationsAngst": [1.5] * count,
        "rlnEstimatedResolution": [resolution] * count,
    }
    path = made.folder / f"model{count}.star"
    write_star(path, {"model_general": {"rlnNrClasses": count}, "model_classes": pd.DataFrame(table)})
    return path


def empty_map(made: Made) -> Path:
    """A map without anything in it."""
    path = made.folder / "nothing.mrc"
    write_mrc_volume(path, np.zeros((32, 32, 32), np.float32), 4.0)
    return path


Files = Mapping[str, Path]
__all__ = ["Case", "Files", "Kind", "Made", "make_all"]
