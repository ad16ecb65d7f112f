"""RELION's 2D classification of a simulated stack, as it's run for comparison."""

import subprocess
import time
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from vitriflow.formats import read_stack, read_star, write_particles, write_stack
from vitriflow.simulate import SimulatedParticles


def write_input(particles: SimulatedParticles, folder: Path) -> None:
    """The stack and its STAR file."""
    folder.mkdir(parents=True, exist_ok=True)
    write_stack(folder / "particles.mrcs", particles.images, particles.pixel_size_A)
    n = len(particles.images)
    table = pd.DataFrame(
        {
            "rlnImageName": [f"{i:06d}@particles.mrcs" for i in range(1, n + 1)],
            "rlnMicrographName": [f"m{i // 100:03d}.mrc" for i in range(n)],
            "rlnOpticsGroup": 1,
            "rlnDefocusU": particles.defocus[:, 0],
            "rlnDefocusV": particles.defocus[:, 1],
            "rlnDefocusAngle": particles.defocus[:, 2],
            "rlnPhaseShift": 0.0,
        }
    )
    optics = pd.DataFrame(
        {
            "rlnOpticsGroupName": ["one"],
            "rlnOpticsGroup": [1],
            "rlnVoltage": [particles.voltage_kV],
            "rlnSphericalAberration": [particles.cs_mm],
            "rlnAmplitudeContrast": [particles.amplitude_contrast],
            "rlnImagePixelSize": [particles.pixel_size_A],
            "rlnImageSize": [particles.images.shape[1]],
            "rlnImageDimensionality": [2],
        }
    )
    write_particles(folder / "particles.star", table, optics)


def relion_2d(
    folder: Path, diameter_A: float, n_classes: int, iterations: int = 25, threads: int = 2
) -> tuple[NDArray[np.int64], NDArray[np.float32], float]:
    """Classes of the particles in order, the averages, and seconds."""
    (folder / "C2").mkdir(exist_ok=True)
    command = [
        *("relion_refine", "--o", "C2/run", "--i", "particles.star", "--ctf", "--K", str(n_classes)),
        *("--iter", str(iterations), "--tau2_fudge", "2", "--particle_diameter", f"{diameter_A:g}"),
        *("--zero_mask", "--flatten_solvent", "--oversampling", "1", "--psi_step", "12"),
        *("--offset_range", "5", "--offset_step", "2", "--norm", "--scale"),
        *("--dont_combine_weights_via_disc", "--pool", "30", "--j", str(threads), "--pad", "2"),
        *("--random_seed", "1"),
    ]
    started = time.perf_counter()
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=7200)
    seconds = time.perf_counter() - started
    last = folder / "C2" / f"run_it{iterations:03d}"
    table = read_star(Path(f"{last}_data.star"))["particles"]
    order = [int(str(name).partition("@")[0]) - 1 for name in table["rlnImageName"]]
    classes = np.zeros(len(order), np.int64)
    classes[order] = np.asarray(table["rlnClassNumber"], dtype=np.int64)
    return classes, read_stack(Path(f"{last}_classes.mrcs")), seconds
