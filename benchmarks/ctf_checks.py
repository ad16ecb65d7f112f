"""Is the CTF fit's word to be trusted: many spectra drawn from the model, and results to import.

Drawn spectra cost little, so that there can be hundreds: rings of every strength down to none, ice,
a particle's own shape, a phase plate. What counts is that no fit called good is far off, and
that errors are as large as the stated uncertainty says.
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import peers
from benchmarks.measure import table
from vitriflow.kernels import ctf_phase, fit_ctf

PIXEL_A = 1.4
_MICROSCOPES = ((300.0, 2.7), (200.0, 2.7), (200.0, 1.4), (120.0, 2.0), (80.0, 2.0))


@dataclass(frozen=True)
class Drawn:
    """What a drawn spectrum is of; ``ssnr`` is signal over noise where the CTF is 1, before the envelope."""

    mean_A: float
    astigmatism_A: float
    angle_deg: float
    voltage_kV: float = 300.0
    cs_mm: float = 2.7
    phase_deg: float = 0.0
    ssnr: float = 0.3
    b_factor_A2: float = 60.0
    ice: float = 0.0
    seed: int = 1


AMPLITUDE_CONTRAST = 0.07


def draw_spectrum(case: Drawn, size: int = 512, n_tiles: int = 70) -> torch.Tensor:
    """Amplitude spectrum (size, size): the model's power times gamma noise of ``n_tiles`` tiles."""
    random = np.random.default_rng(case.seed)
    axis = torch.from_numpy((np.arange(size) - size // 2) / (size * PIXEL_A))
    half = 0.5 * case.astigmatism_A
    chi = ctf_phase(
        axis[:, None],
        axis[None, :],
        case.mean_A + half,
        case.mean_A - half,
        case.angle_deg,
        case.voltage_kV,
        case.cs_mm,
        AMPLITUDE_CONTRAST,
        case.phase_deg,
    ).numpy()
    k = np.hypot(axis[:, None].numpy(), axis[None, :].numpy())
    # the particle's form factor: rings of its own, strongest inside 12 A
    diameter, phase = random.uniform(60.0, 180.0), random.uniform(0.0, 2.0 * np.pi)
    form = 1.0 + 0.3 * np.cos(2.0 * np.pi * diameter * k + phase) * np.exp(-((k / 0.12) ** 2))
    signal = case.ssnr * np.exp(-0.5 * case.b_factor_A2 * k**2) * (1.0 + 8.0 * np.exp(-900.0 * k**2)) * form
    noise = (1.0 + case.ice * np.exp(-(((k - 0.27) / 0.012) ** 2))) / (1.0 + 0.3 * (2.0 * PIXEL_A * k) ** 2)
    drawn = random.gamma(n_tiles, 1.0 / n_tiles, (size, size))
    even = 0.5 * (drawn + np.roll(drawn[::-1, ::-1], (1, 1), (0, 1)))  # a real image's spectrum is even
    return torch.from_numpy(np.sqrt((noise + signal * np.sin(chi) ** 2) * even))


def cases(count: int, seed: int) -> Iterator[Drawn]:
    """Random ones over the goal's whole range; a fifth with a phase plate, a tenth with no rings at all."""
    random = np.random.default_rng(seed)
    for number in range(count):
        plate = number % 5 == 4
        mean = float(np.exp(random.uniform(np.log(3000.0), np.log(12000.0 if plate else 40000.0))))
        voltage, cs = _MICROSCOPES[int(random.integers(len(_MICROSCOPES)))]
        yield Drawn(
            mean_A=mean,
            astigmatism_A=float(random.uniform(0.0, min(2000.0, 0.5 * mean))),
            angle_deg=float(random.uniform(-90.0, 90.0)),
            voltage_kV=voltage,
            cs_mm=cs,
            phase_deg=float(random.uniform(30.0, 140.0)) if plate else 0.0,
            ssnr=0.0 if number % 10 == 7 else float(10 ** random.uniform(-2.2, -0.3)),
            b_factor_A2=float(random.uniform(40.0, 150.0)),
            ice=float(random.choice([0.0, 0.0, 0.5, 3.0])),
            seed=seed * 1000 + number,
        )


def calibrate(count: int, seed: int) -> list[dict[str, Any]]:
    """Fit so many drawn spectra; a row for each."""
    rows = []
    for case in cases(count, seed):
        fit = fit_ctf(
            draw_spectrum(case),
            PIXEL_A,
            case.voltage_kV,
            case.cs_mm,
            AMPLITUDE_CONTRAST,
            fit_phase_shift=case.phase_deg > 0,
        )
        error = 0.5 * (fit.defocus_u_A + fit.defocus_v_A) - case.mean_A
        turned = (fit.defocus_angle_deg - case.angle_deg + 90.0) % 180.0 - 90.0
        rows.append(
            {
                "quality": fit.quality,
                "no_signal": case.ssnr == 0.0,
                "error_A": error,
                "pull": error / fit.defocus_uncertainty_A,
                "angle_pull": turned / max(fit.angle_uncertainty_deg, 0.1),
                "astigmatism_A": case.astigmatism_A,
                "far": case.ssnr == 0.0 or abs(error) > 0.01 * case.mean_A + 30.0,
            }
        )
    return rows


def calibration_text(rows: list[dict[str, Any]], seed: int) -> str:
    """A table: of each verdict how many were right, and how errors compare with what was stated."""
    lines = []
    for quality in ("good", "doubtful", "no rings"):
        chosen = [row for row in rows if row["quality"] == quality]
        if not chosen:
            continue
        pulls = np.array([row["pull"] for row in chosen])
        angles = np.array([row["angle_pull"] for row in chosen if row["astigmatism_A"] > 300.0] or [0.0])
        told = quality != "no rings"
        lines.append(
            (
                quality,
                str(len(chosen)),
                str(sum(row["far"] for row in chosen)),
                f"{np.mean(np.abs(pulls) < 3.0):.0%}" if told else "-",
                f"{np.sqrt(np.mean(pulls**2)):.2f}" if told else "-",
                f"{np.sqrt(np.mean(angles**2)):.2f}" if told else "-",
            )
        )
    head = (
        "verdict",
        "spectra",
        "far off",
        "within 3 sigma",
        "rms of error / sigma",
        "the same of the angle",
    )
    return (
        f"{len(rows)} spectra drawn from the model (seed {seed}), from clear rings to none, with ice rings and "
        "phase plates; far off is more than 1 % and 30 A, or any defocus where there was no signal:\n\n"
        f"{table(head, lines)}"
    )


def imports(folder: Path, out: Path) -> list[dict[str, Any]]:
    """Verdicts of ``ctf.import`` on the real ctffind output, and on the reference in the same format."""
    reference = folder / "ctf_reference.csv"
    if not reference.is_file():
        return []
    right = out / "reference"
    right.mkdir(parents=True, exist_ok=True)
    with reference.open(encoding="utf-8") as file:
        known = list(csv.DictReader(file))
    template = sorted((folder / "CtfFind").glob("*_PS.txt"))[0]
    for row in known:
        write_as_ctffind(template, row, right)
    files = [next((folder / "MotionCorr").glob(f"{row['micrograph']}*_PS.mrc")) for row in known]
    rows = []
    for name, results in (("ctffind's output", folder / "CtfFind"), ("the reference", right)):
        settings = {"input": "power_spectrum", "results": results}
        _, records = peers.native_step("ctf.import", files, out / "imported", settings, (0, 1))
        rows += [{"results": name, "quality": record["quality"]} for record in records]
    return rows


def write_as_ctffind(template: Path, row: dict[str, str], folder: Path) -> Path:
    """A ctffind ``.txt`` with the numbers of a row of ``ctf_reference.csv``, the header as the template's."""
    comments = [line for line in template.read_text().splitlines() if line.startswith("#")]
    stem = template.name.removesuffix("_PS.txt").removesuffix("_frameImage")
    names = ("defocus_u_A", "defocus_v_A", "defocus_angle_deg", "cross_correlation", "fit_resolution_A")
    u, v, angle, correlation, resolution = (row[name] for name in names)
    numbers = f"1.000000 {u} {v} {angle} 0.000000 {correlation} {resolution}"
    path = folder / f"{row['micrograph']}_frameImage_PS.txt"
    text = "\n".join([*(line.replace(stem, row["micrograph"]) for line in comments), numbers, ""])
    path.write_text(text, encoding="utf-8")
    return path


def imports_text(rows: list[dict[str, Any]]) -> str:
    """How many of each were called what."""
    lines = []
    for name in dict.fromkeys(row["results"] for row in rows):
        chosen = [row["quality"] for row in rows if row["results"] == name]
        lines.append((name, *(str(chosen.count(quality)) for quality in ("good", "doubtful", "no rings"))))
    return (
        "Results imported with `ctf.import` for the 12 real spectra: ctffind's real output, wrong by a factor of "
        "four, and the reference written in the same format:\n\n"
        f"{table(('results', 'good', 'doubtful', 'no rings'), lines)}"
    )


def real_spectra(folder: Path, out: Path) -> list[dict[str, Any]]:
    """The real spectra against their reference."""
    table_path = folder / "ctf_reference.csv"
    if not table_path.is_file():
        return []
    with table_path.open(encoding="utf-8") as file:
        reference = {row["micrograph"]: row for row in csv.DictReader(file)}
    files = {name: next((folder / "MotionCorr").glob(f"{name}*_PS.mrc")) for name in reference}
    settings = {
        "input": "power_spectrum",
        "voltage_kV": 200,
        "spherical_aberration_mm": 1.4,
        "amplitude_contrast": 0.1,
    }
    _, records = peers.native_step("ctf.native", list(files.values()), out / "real", settings, (0, 1))
    rows = []
    for name, record in zip(files, records, strict=True):
        known = {key: float(value) for key, value in reference[name].items() if key != "micrograph"}
        angle = (record["defocus_angle_deg"] - known["defocus_angle_deg"] + 90.0) % 180.0 - 90.0
        rows.append(
            {
                "micrograph": name,
                "u_error_A": record["defocus_u_A"] - known["defocus_u_A"],
                "v_error_A": record["defocus_v_A"] - known["defocus_v_A"],
                "angle_error_deg": angle,
                "quality": record["quality"],
                "seconds": record["seconds"],
            }
        )
    return rows


def real_text(real: list[dict[str, Any]]) -> str:
    """A table of them, and the largest differences."""
    worst = max(max(abs(row["u_error_A"]), abs(row["v_error_A"])) for row in real)
    turned = sorted(abs(row["angle_error_deg"]) for row in real)
    rows = [
        (
            row["micrograph"],
            f"{row['u_error_A']:+.0f}",
            f"{row['v_error_A']:+.0f}",
            f"{row['angle_error_deg']:+.1f}",
            row["quality"],
            f"{row['seconds']:.2f}",
        )
        for row in real
    ]
    head = ("spectrum", "U - reference A", "V - reference A", "angle - reference", "quality", "s")
    return (
        "Real spectra (EMPIAR-10204, 200 kV) against the reference:\n\n"
        f"{table(head, rows)}\n\n"
        f"Largest difference {worst:.0f} A (goal 50); {sum(t <= 4.0 for t in turned)} of {len(turned)} angles "
        f"within 4 degrees (goal 95 %), largest {turned[-1]:.1f}."
    )
