"""Records as the steps leave them, with their files."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tests.web.pictures import DIAMETER_A, MICROGRAPH, PIXEL_A, PREVIEW, micrograph_pictures, spectrum_picture
from vitriflow.catalog import now
from vitriflow.errors import Reason
from vitriflow.formats import write_mrc, write_star
from vitriflow.steps.records import (
    Artifact,
    CtfResult,
    Kind,
    MotionResult,
    PickResult,
    PreviewResult,
    Provenance,
    Result,
    Status,
)

STEPS = {"motion": "motion.native", "ctf": "ctf.native", "pick": "pick.dog", "preview": "preview"}


def item_of(number: int, options: dict[str, Any]) -> str:
    return options.get(
        "item", f"GridSquare_{number // 40 + 101}/Data/FoilHole_{7000 + number}_Data_{number % 9}"
    )


def _provenance(step: str) -> Provenance:
    return Provenance(
        step=step,
        step_version="1",
        vitriflow_version="0.1",
        parameters={"pixel_size_A": PIXEL_A, "voltage_kV": 300.0},
        inputs={
            "movie": Artifact(kind=Kind.MOVIE, path=Path("raw/movie.tiff"), blake3="ab" * 32),
            "diagnostic": Artifact(kind=Kind.PICTURE, path=Path("CtfFind/job003/movie.mrc")),
        },
        host="worker1",
        device="cpu",
        process_id=4711,
        started_at=now().isoformat(),
        finished_at=now().isoformat(),
        peak_memory_bytes=1_230_000_000,
        log=["read 40 frames", "done"],
    )


def make_records(
    root: Path, number: int, outcome: str, rng: np.random.Generator, options: dict[str, Any]
) -> dict[str, Result]:
    if outcome in ("open", "growing"):
        return {}
    item = item_of(number, options).replace("/", "_")
    frames = _track(rng, 40)
    motion = MotionResult(
        n_frames=40,
        pixel_size_A=PIXEL_A,
        frame_shifts_A=frames,
        early_A=_path_length(frames[:5]),
        late_A=_path_length(frames[4:]),
        total_A=_path_length(frames),
        net_A=float(np.hypot(*frames[-1])),
        dose_weighted=True,
        dose_per_frame_e_per_A2=1.0,
        mean_intensity=1.2,
        gain_applied="multiplied",
        patch_grid=(3, 3),
        patch_shifts_A=[_near(rng, frames) for _ in range(9)],
    )
    if options.get("full"):
        motion.outputs = {"micrograph": _micrograph(root, item, number)}
    if outcome == "failed":
        failed = MotionResult(
            status=Status.FAILED,
            reason_code=str(Reason.WORKER_DIED),
            reason="the worker died twice (signal 9)",
        )
        return _finish({"motion": failed})
    defocus = float(rng.uniform(7000, 19000))
    ctf = _ctf(rng, defocus, outcome, options)
    if outcome == "quarantined":
        return _finish({"motion": motion, "ctf": ctf})
    quality = options.get("quality", "good")
    ctf.quality = quality
    pick, positions = _picks(root, item, rng, options)
    preview = _preview(root, item, positions, defocus, number)
    records: dict[str, Result] = {"motion": motion, "ctf": ctf, "pick": pick, "preview": preview}
    if outcome == "rejected":
        ctf.status = Status.REJECTED
        ctf.reason_code = str(Reason.CTF_BOUNDS)
        ctf.reason = "astigmatism 1,140 A is above the limit of 800 A"
    return _finish(records)


def _finish(records: dict[str, Result]) -> dict[str, Result]:
    for node, record in records.items():
        record.step = STEPS[node]
        record.seconds = 3.4
        record.peak_memory_bytes = 1_230_000_000
        record.provenance = _provenance(record.step)
    return records


def _track(rng: np.random.Generator, frames: int) -> list[tuple[float, float]]:
    t = np.arange(frames)
    settle = np.exp(-t / 4.0)
    angle, length = rng.uniform(0, 2 * np.pi), rng.uniform(4, 14)
    y = length * np.sin(angle) * (1 - settle) + 0.04 * t + rng.normal(0, 0.12, frames).cumsum() * 0.4
    x = length * np.cos(angle) * (1 - settle) - 0.06 * t + rng.normal(0, 0.12, frames).cumsum() * 0.4
    return [(float(b - y[0]), float(a - x[0])) for a, b in zip(x, y, strict=True)]


def _near(rng: np.random.Generator, frames: list[tuple[float, float]]) -> list[tuple[float, float]]:
    tilt = rng.normal(0, 0.12, 2)
    return [(y * (1 + tilt[0]), x * (1 + tilt[1])) for y, x in frames]


def _path_length(frames: list[tuple[float, float]]) -> float:
    return float(np.hypot(*np.diff(np.array(frames), axis=0).T).sum()) if len(frames) > 1 else 0.0


def _micrograph(root: Path, item: str, number: int) -> Artifact:
    """The picture of the preview at full size, each pixel of it a number of its own."""
    rng = np.random.default_rng(number)
    path = root / "processed" / "live" / "MotionCorr" / f"{item}.mrc"
    path.parent.mkdir(parents=True, exist_ok=True)
    image = rng.integers(-40, 40, (MICROGRAPH, MICROGRAPH), dtype=np.int8)
    image[: MICROGRAPH // 2] += 50  # the upper half of the picture is brighter
    write_mrc(path, image, PIXEL_A)
    return Artifact(kind=Kind.MICROGRAPH, path=path)


def _ctf(rng: np.random.Generator, defocus: float, outcome: str, options: dict[str, Any]) -> CtfResult:
    if outcome == "quarantined":
        return CtfResult(
            status=Status.QUARANTINED,
            reason_code=str(options.get("code", Reason.NO_RINGS)),
            reason=options.get(
                "reason", "the best fit explains nothing (correlation 0.03); empty hole, thick ice or a blank"
            ),
            quality="no rings",
        )
    k = np.linspace(0.005, 0.3, 300)
    wave = 0.5 + 0.5 * np.cos(2 * np.pi * 0.0197 * defocus / 2 * k**2)
    decay = np.exp(-60 * k**2)
    spectrum = wave * decay + rng.normal(0, 0.03, len(k))
    astigmatism = float(rng.gamma(3, 60))
    return CtfResult(
        defocus_u_A=defocus + astigmatism / 2,
        defocus_v_A=defocus - astigmatism / 2,
        astigmatism_A=astigmatism,
        ice_ring=options.get("ice", 1.0 + 0.05 * np.sin(defocus)),
        defocus_angle_deg=float(rng.uniform(-90, 90)),
        cross_correlation=float(rng.uniform(0.1, 0.3)),
        fit_resolution_A=float(3.2 + rng.gamma(2, 0.4)),
        defocus_uncertainty_A=22.0,
        pixel_size_A=PIXEL_A,
        curves={
            "spatial_frequency_per_A": k.tolist(),
            "spectrum": spectrum.tolist(),
            "fit": (wave * decay).tolist(),
            "correlation": (np.exp(-((k / 0.22) ** 4)) * 0.97).tolist(),
        },
    )


def _picks(
    root: Path, item: str, rng: np.random.Generator, options: dict[str, Any]
) -> tuple[PickResult, np.ndarray]:
    grid = np.stack(np.meshgrid(np.arange(12), np.arange(12)), axis=-1).reshape(-1, 2) * 330.0 + 230.0
    kept = grid[rng.random(len(grid)) < 0.7]
    positions = np.clip(kept + rng.normal(0, 60, kept.shape), 90, MICROGRAPH - 90)
    scores = np.sort(rng.gamma(6, 0.1, len(positions)))[::-1]
    path = root / "processed" / "live" / "AutoPick" / f"{item}_autopick.star"
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pd.DataFrame(
        {
            "rlnCoordinateX": positions[:, 0],
            "rlnCoordinateY": positions[:, 1],
            "rlnAutopickFigureOfMerit": scores,
        }
    )
    write_star(path, {"": table})
    artifact = Artifact(kind=Kind.COORDINATES, path=options.get("coordinates", path))
    threshold = 0.35
    record = PickResult(
        n_picks=int((scores >= threshold).sum()),
        n_candidates=len(scores),
        threshold=threshold,
        particle_diameter_A=DIAMETER_A,
        outputs={"coordinates": artifact, "candidates": artifact},
    )
    return record, positions


def _preview(root: Path, item: str, positions: np.ndarray, defocus: float, number: int) -> PreviewResult:
    folder = root / "previews"
    micrograph, thumbnail = micrograph_pictures(positions, number)
    outputs = {}
    for port, data in (
        ("micrograph", micrograph),
        ("thumbnail", thumbnail),
        ("spectrum", spectrum_picture(round(defocus, -3))),
    ):
        path = folder / f"{item}_{port}.png"
        path.write_bytes(data)
        outputs[port] = Artifact(kind=Kind.PICTURE, path=path)
    return PreviewResult(width=PREVIEW, height=PREVIEW, scale=PREVIEW / MICROGRAPH, outputs=outputs)
