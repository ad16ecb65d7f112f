"""Movies and micrographs with a known truth, made once and kept where ``--cache`` says."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.measure import warm_cache
from vitriflow.facility.judging import load_truth
from vitriflow.formats import write_mrc
from vitriflow.simulate import FileFormat, MotionSpec, MovieSpec, SessionSpec, Truth, simulate_movie
from vitriflow.simulate.writing import write_gain, write_movie

EER_RAW_PER_FRACTION = 20
NOISY_GAIN = 0.03  # spread of the noise of a bad reference
_SUFFIX = {FileFormat.MRC: ".mrc", FileFormat.EER: ".eer"}


@dataclass(frozen=True)
class Case:
    """A movie to make, and how both programs are told about it.

    ``gain`` is "given" (raw counts and their reference), "none" (a camera without a pattern), "withheld"
    (raw counts, and nobody says how they are to be corrected) or "noisy" (a reference of too few counts).
    ``bin_factor`` is what the micrograph is binned by: 2 for super-resolution.
    """

    name: str
    spec: MovieSpec
    format: FileFormat = FileFormat.TIFF_LZW
    gain: str = "given"
    bin_factor: float = 1.0

    @property
    def key(self) -> str:
        text = f"{self.spec.model_dump_json()}{self.format}{EER_RAW_PER_FRACTION}"
        text += self.gain if self.gain == "noisy" else ""  # the others share their files
        return f"{self.name}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"


@dataclass(frozen=True)
class Made:
    """A movie on disk with its gain reference and truth."""

    case: Case
    path: Path
    gain: Path | None
    truth: Truth


def make_movie(case: Case, folder: Path) -> Made:
    """Write the movie of a case into ``folder``, or find it there."""
    at = folder / case.key
    path = at / f"movie{_SUFFIX.get(case.format, '.tif')}"
    gain, truth = at / "gain.mrc", at / "truth.json"
    if not truth.is_file():  # written last, so its presence says that all is there
        at.mkdir(parents=True, exist_ok=True)
        movie = simulate_movie(case.spec)
        session = SessionSpec(format=case.format, eer_frames_per_fraction=EER_RAW_PER_FRACTION)
        write_movie(movie, path, session, None)
        write_gain(gain, _reference(case, movie.gain), case.spec.pixel_size_A)
        truth.write_text(json.dumps(movie.truth.to_dict()), encoding="utf-8")
    warm_cache(path)
    return Made(case, path, gain if case.gain in ("given", "noisy") else None, load_truth(truth))


def _reference(case: Case, gain: NDArray[np.float32]) -> NDArray[np.float32]:
    """The reference as it was taken: the camera's true one, or one with noise of its own."""
    if case.gain != "noisy":
        return gain
    noise = np.random.default_rng(case.spec.seed).normal(1.0, NOISY_GAIN, gain.shape)
    return gain * noise.astype(np.float32)


def make_micrograph(name: str, spec: MovieSpec, folder: Path) -> tuple[Path, Truth]:
    """Write the plain sum of a movie that doesn't move as an aligned micrograph, or find it there."""
    key = hashlib.sha256(spec.model_dump_json().encode()).hexdigest()[:10]
    path, truth = folder / f"{name}-{key}.mrc", folder / f"{name}-{key}.json"
    if not truth.is_file():
        movie = simulate_movie(spec)
        image = movie.sum()
        write_mrc(path, image, spec.pixel_size_A)
        truth.write_text(json.dumps(movie.truth.to_dict()), encoding="utf-8")
    warm_cache(path)
    return path, load_truth(truth)


def still() -> MotionSpec:
    """No motion at all."""
    return MotionSpec(settling_A=0, drift_A=0, jitter_A=0, doming_A=0, blur=False)
