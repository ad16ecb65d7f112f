"""The aligned movie: frames that add up to the sum, in the numbers that were asked for, and aligned indeed."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.kernels.motion_movies import Case, movie
from vitriflow.elogbook import ImagingParameters
from vitriflow.formats import open_movie, read_image, write_mrc
from vitriflow.steps import Artifact, Context, Kind, MotionResult, Status, find_step, run_step
from vitriflow.steps.motion_native import MotionParameters


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> tuple[Case, Path]:
    made = movie(side=512, n_frames=8, dose=3.0)
    folder = tmp_path_factory.mktemp("movie")
    write_mrc(folder / "movie.mrc", made.frames, 1.0)
    write_mrc(folder / "gain.mrc", made.gain, None)
    return made, folder


def run(folder: Path, out: Path, **chosen: Any) -> MotionResult:
    parameters = MotionParameters(
        pixel_size_A=1.0, gain_reference=folder / "gain.mrc", patches_y=0, dose_weighting=False, **chosen
    )
    movie_file = {"movie": Artifact(kind=Kind.MOVIE, path=folder / "movie.mrc")}
    record = run_step(find_step("motion.native"), movie_file, parameters, Context(out=out, item="a/one"))
    assert isinstance(record, MotionResult)
    assert record.status is Status.DONE, record.reason
    return record


def stack(record: MotionResult) -> np.ndarray:
    with open_movie(record.outputs["aligned_movie"].path) as opened:
        return np.stack(list(opened.frames()))


@pytest.mark.parametrize(("numbers", "bin_factor"), [("float32", 1.0), ("float16", 2.0)])
def test_its_frames_add_up_to_the_sum_in_the_numbers_asked_for(
    case: tuple[Case, Path], tmp_path: Path, numbers: str, bin_factor: float
) -> None:
    made, folder = case
    record = run(folder, tmp_path, write_aligned_movie=numbers, bin_factor=bin_factor)
    artifact = record.outputs["aligned_movie"]
    size = int(512 / bin_factor)
    bytes_each = np.dtype(numbers).itemsize
    assert artifact.path.stat().st_size == 1024 + len(made.frames) * size * size * bytes_each
    assert artifact.pixel_size_A == pytest.approx(bin_factor)
    frames = stack(record)
    assert frames.shape == (8, size, size)
    total = read_image(record.outputs["micrograph"].path).array
    assert np.allclose(
        frames.astype(np.float64).sum(axis=0), total, atol=0.05 if numbers == "float16" else 1e-2
    )


def test_they_are_aligned(case: tuple[Case, Path], tmp_path: Path) -> None:
    made, folder = case
    frames = stack(run(folder, tmp_path, write_aligned_movie="float32"))
    assert np.abs(made.truth.mean_shifts()).max() > 1  # it did move
    first, last = frames[:4].sum(axis=0), frames[4:].sum(axis=0)
    product = np.fft.rfft2(first - first.mean()) * np.conj(np.fft.rfft2(last - last.mean()))
    radius = np.hypot(np.fft.fftfreq(512)[:, None], np.fft.rfftfreq(512)[None, :])
    peak = np.fft.irfft2(product * np.exp(-((radius / 0.03) ** 2)))
    where = np.unravel_index(int(peak.argmax()), peak.shape)
    assert max(min(place, 512 - place) for place in where) <= 1


def test_without_being_asked_none_is_written(case: tuple[Case, Path], tmp_path: Path) -> None:
    _, folder = case
    record = run(folder, tmp_path)
    assert "aligned_movie" not in record.outputs
    assert not list(tmp_path.rglob("*aligned*"))


def test_the_operator_s_form_asks_for_it_by_the_steps_own_name() -> None:
    asked = ImagingParameters(write_aligned_movie="float16")
    assert asked.step_parameters() == {"write_aligned_movie": "float16"}
    assert "write_aligned_movie" in MotionParameters.model_fields
