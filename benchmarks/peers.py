"""The programs that we are measured against, and how their results are read.

RELION is found on the PATH (Debian's ``relion``); ctffind where ``VITRIFLOW_CTFFIND`` says, MotionCor2 or 3
(which need a GPU of NVIDIA's) where ``VITRIFLOW_MOTIONCOR`` says. AreTomo and Topaz have modules of their own.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.inputs import EER_RAW_PER_FRACTION, Made
from benchmarks.measure import CORES, Failed, Turn, Usage, measure
from vitriflow.formats import read_star, write_star
from vitriflow.kernels.motion_field import MotionField
from vitriflow.simulate import FileFormat, MovieSpec

CTFFIND_VARIABLE = "VITRIFLOW_CTFFIND"
MOTIONCOR_VARIABLE = "VITRIFLOW_MOTIONCOR"
CLI = (sys.executable, "-m", "vitriflow.cli")

Floats = NDArray[np.float64]


def versions() -> dict[str, str]:
    """Of everything that a number may depend on."""
    from benchmarks.peer_aretomo import aretomo
    from benchmarks.peer_topaz import topaz

    found = {name: version(name) for name in ("torch", "numpy", "scipy", "numba", "imagecodecs")}
    program = relion()
    if program is not None:
        said = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=60)
        match = re.search(r"[Vv]ersion:?\s*([0-9][^\s]*)", said.stdout + said.stderr)
        found["relion"] = match.group(1) if match else "unknown"
    if ctffind() is not None:
        found["ctffind"] = str(Path(str(ctffind())).name)
    for name, program in (("motioncor", motioncor()), ("aretomo", aretomo()), ("topaz", topaz())):
        if program is not None:
            found[name] = Path(program).name
    return found


def relion() -> str | None:
    """RELION's motion correction, where it's installed."""
    return shutil.which("relion_run_motioncorr")


def ctffind() -> str | None:
    """The ctffind that the person who runs this named."""
    named = os.environ.get(CTFFIND_VARIABLE)
    return named if named and Path(named).is_file() else None


def motioncor() -> str | None:
    """The MotionCor2 or 3 that the person who runs this named."""
    named = os.environ.get(MOTIONCOR_VARIABLE)
    return named if named and Path(named).is_file() else None


# -- vitriflow itself, as a user runs it -----------------------------------------------------


def native_step(
    step: str,
    files: Sequence[Path],
    out: Path,
    settings: Mapping[str, object],
    allowed: tuple[int, ...] = (0,),
) -> tuple[Usage, list[dict[str, Any]]]:
    """Run ``vitriflow step run`` on files; its usage and its records."""
    words: list[str | Path] = [*CLI, "step", "run", step, *files, "--out", out, "--json"]
    words += ["--device", "cpu", "--threads", str(CORES)]
    for name, value in settings.items():
        words += ["--set", f"{name}={value}"]
    usage = measure(words, allowed=allowed)
    records: list[dict[str, Any]] = json.loads(usage.stdout)
    return usage, records


def motion_settings(made: Made) -> dict[str, object]:
    """What ``motion.native`` is told about a movie: the same as RELION, and the same to write."""
    spec = made.case.spec
    settings: dict[str, object] = {
        "pixel_size_A": spec.pixel_size_A,
        "voltage_kV": spec.voltage_kV,
        "dose_per_frame_e_per_A2": spec.dose_per_frame_e_per_A2,
        "patches_y": 5,
        "patches_x": 5,
        "write_unweighted": "true",
    }
    if made.case.bin_factor != 1.0:
        settings["bin_factor"] = made.case.bin_factor
    if made.gain is not None:
        settings["gain_reference"] = made.gain
    if made.case.format is FileFormat.EER:
        settings["eer_frames_per_fraction"] = EER_RAW_PER_FRACTION
    return settings


# -- RELION ----------------------------------------------------------------------------------


def relion_motion(made: Made, out: Path) -> tuple[Turn, Path]:
    """Run RELION's own motion correction on one movie; returns its usage and the motion's STAR."""
    spec = made.case.spec
    out.mkdir(parents=True, exist_ok=True)
    link = out / f"movie{made.path.suffix}"
    if not link.exists():
        link.symlink_to(made.path)
    optics = pd.DataFrame(
        {
            "rlnOpticsGroupName": ["opticsGroup1"],
            "rlnOpticsGroup": [1],
            "rlnMicrographOriginalPixelSize": [spec.pixel_size_A],
            "rlnVoltage": [spec.voltage_kV],
            "rlnSphericalAberration": [spec.spherical_aberration_mm],
            "rlnAmplitudeContrast": [spec.amplitude_contrast],
        }
    )
    movies = pd.DataFrame({"rlnMicrographMovieName": [link.name], "rlnOpticsGroup": [1]})
    write_star(out / "in.star", {"optics": optics, "movies": movies})
    command: list[str | Path] = [str(relion()), "--i", "in.star", "--o", "MC/", "--use_own"]
    command += ["--j", str(CORES), "--patch_x", "5", "--patch_y", "5"]
    command += ["--bin_factor", f"{made.case.bin_factor:g}"]
    command += ["--bfactor", "150", "--dose_per_frame", f"{spec.dose_per_frame_e_per_A2:g}"]
    command += ["--preexposure", "0", "--dose_weighting", "--angpix", f"{spec.pixel_size_A:g}"]
    command += ["--voltage", f"{spec.voltage_kV:g}", "--save_noDW", "--grouping_for_ps", "4"]
    if made.gain is not None:
        command += ["--gainref", made.gain]
    if made.case.format is FileFormat.EER:
        command += ["--eer_grouping", str(EER_RAW_PER_FRACTION)]
    shutil.rmtree(out / "MC", ignore_errors=True)
    usage = measure(command, cwd=out)
    return Turn(usage), out / "MC" / "movie.star"


# -- MotionCor -------------------------------------------------------------------------------

_MOTIONCOR_INPUT = {".mrc": "-InMrc", ".tif": "-InTiff", ".eer": "-InEer"}


def motioncor_motion(made: Made, out: Path) -> tuple[Turn, Path]:
    """Run MotionCor2 or 3 on one movie; returns its usage and the log of the whole frames' shifts."""
    spec = made.case.spec
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    command: list[str | Path] = [str(motioncor()), _MOTIONCOR_INPUT[made.path.suffix], made.path]
    command += ["-OutMrc", out / "movie.mrc", "-Patch", "5", "5", "-Bft", "150"]
    command += ["-PixSize", f"{spec.pixel_size_A:g}", "-kV", f"{spec.voltage_kV:g}"]
    command += ["-FmDose", f"{spec.dose_per_frame_e_per_A2:g}", "-FtBin", f"{made.case.bin_factor:g}"]
    command += ["-LogDir", f"{out}/"]
    if made.gain is not None:
        command += ["-Gain", made.gain]
    usage = measure(command, cwd=out)
    logs = sorted(out.glob("*-Full.log"))
    if not logs:
        raise Failed(f"MotionCor left no *-Full.log:\n{usage.stdout[-500:].decode(errors='replace')}")
    return Turn(usage), logs[0]


def field_of_motioncor(path: Path, shape: tuple[int, int]) -> MotionField:
    """The shifts of whole frames in MotionCor's log: number, x, y (px). Its patches aren't in there."""
    rows = np.atleast_2d(np.loadtxt(path, comments="#"))
    return MotionField.from_relion(rows[:, [2, 1]], None, shape)


def field_of_star(path: Path, shape: tuple[int, int]) -> MotionField:
    """The motion that a RELION motion STAR describes, whoever wrote it: global and local."""
    blocks = read_star(path)
    track: Any = blocks["global_shift"]
    shifts = np.stack(
        [np.asarray(track[f"rlnMicrographShift{axis}"], dtype=np.float64) for axis in "YX"], axis=1
    )
    model: Any = blocks.get("local_motion_model")
    coefficients = None if model is None else np.asarray(model["rlnMotionModelCoeff"], dtype=np.float64)
    return MotionField.from_relion(shifts, coefficients, shape)


def field_of_record(record: Mapping[str, Any], spec: MovieSpec) -> MotionField:
    """The motion that ``motion.native`` applied, from its patches' tracks.

    Its field has six terms a frame, so that the tracks of 25 patches say it exactly.
    """
    shifts = np.asarray(record["frame_shifts_A"], dtype=np.float64) / spec.pixel_size_A
    tracks = np.asarray(record["patch_shifts_A"], dtype=np.float64) / spec.pixel_size_A
    if not len(tracks):
        return MotionField.from_relion(shifts, None, spec.shape)
    rows, columns = record["patch_grid"]
    # Patches lie evenly over the image; half a pixel of a centre changes nothing that is seen.
    y, x = np.meshgrid(
        (np.arange(rows) + 0.5) * spec.shape[0] / rows,
        (np.arange(columns) + 0.5) * spec.shape[1] / columns,
        indexing="ij",
    )
    from vitriflow.kernels.motion_field import spatial_terms

    terms = spatial_terms(y.ravel(), x.ravel(), spec.shape)
    flat = tracks.reshape(len(terms), -1)
    fitted = np.linalg.lstsq(terms, flat, rcond=None)[0]
    coefficients = fitted.reshape(-1, tracks.shape[1], 2).transpose(1, 2, 0)
    return MotionField(np.ascontiguousarray(coefficients), spec.shape)


# -- ctffind ---------------------------------------------------------------------------------


def ctffind_fit(image: Path, spec: MovieSpec, out: Path, phase_plate: bool) -> tuple[Usage, dict[str, float]]:
    """Run ctffind 4.1 on a micrograph; its usage and fit."""
    out.mkdir(parents=True, exist_ok=True)
    diagnostic = out / f"{image.stem}.ctf.mrc"
    phase = ["yes", "0", "3.15", "0.2"] if phase_plate else ["no"]
    answers = [
        *(str(image), str(diagnostic), spec.pixel_size_A, spec.voltage_kV, spec.spherical_aberration_mm),
        *(spec.amplitude_contrast, 512, 30, 5, 2000, 50000, 100),
        *("no", "no", "no", *phase, "no"),
    ]
    usage = measure(
        [str(ctffind())],
        cwd=out,
        stdin="\n".join(map(str, answers)) + "\n",
        environment={"NCPUS": str(CORES)},
    )
    columns = np.atleast_2d(np.loadtxt(diagnostic.with_suffix(".txt")))[0]
    return usage, {
        "defocus_u_A": float(columns[1]),
        "defocus_v_A": float(columns[2]),
        "defocus_angle_deg": float(columns[3]),
        "phase_shift_deg": float(np.rad2deg(columns[4])),
    }
