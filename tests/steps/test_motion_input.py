"""What motion.native makes of unusual movies: a right answer, or a refusal that names what is wrong."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from tests.kernels.motion_movies import Case, movie
from vitriflow.errors import BadParameter
from vitriflow.formats import read_image, read_star, write_mrc
from vitriflow.simulate import FileFormat, MotionSpec, MovieSpec, SessionSpec, simulate_movie
from vitriflow.simulate.writing import write_movie
from vitriflow.steps import Artifact, Context, Kind, MotionResult, Status, find_step, run_step
from vitriflow.steps.motion_native import MotionParameters


def run(path: Path, out: Path, metadata: dict[str, Any] | None = None, **chosen: Any) -> MotionResult:
    record = run_step(
        find_step("motion.native"),
        {"movie": Artifact(kind=Kind.MOVIE, path=path)},
        MotionParameters(**chosen),
        Context(out=out, item="one", threads=2, metadata=metadata or {}),
    )
    assert isinstance(record, MotionResult)
    return record


def drifting(n_frames: int, shape: tuple[int, int], counts: float) -> tuple[np.ndarray, np.ndarray]:
    """Frames of a specimen that drifts by 9 px, and the shifts that undo it."""
    rng = np.random.default_rng(17)
    specimen = ndimage.gaussian_filter(rng.standard_normal((shape[0] + 40, shape[1] + 40)), 2.5)
    specimen = counts * (1.0 + 0.3 * specimen / specimen.std()).clip(0.1, 3.0)
    true = np.rint(np.linspace(0.0, 1.0, n_frames)[:, None] * [8.0, -5.0])
    frames = np.empty((n_frames, *shape), np.uint8)
    for number, (dy, dx) in enumerate(true.astype(int)):
        frames[number] = rng.poisson(np.roll(specimen, (-dy, -dx), axis=(0, 1))[20:-20, 20:-20])
    return frames, true


@pytest.fixture(scope="module")
def plain() -> tuple[np.ndarray, np.ndarray]:
    return drifting(8, (301, 420), 4.0)


def check(record: MotionResult, true: np.ndarray, tolerance: float = 0.4) -> None:
    assert record.status is Status.DONE, record.reason
    found = np.array(record.frame_shifts_A) / record.pixel_size_A
    error = found - true
    assert np.sqrt(np.mean((error - error.mean(axis=0)) ** 2)) < tolerance


@pytest.mark.parametrize("dtype", ["int16", "uint16", "float16"])
def test_every_type_of_counts_is_followed(plain, tmp_path, dtype):
    frames, true = plain
    write_mrc(tmp_path / "movie.mrc", frames.astype(dtype), 1.0)
    check(run(tmp_path / "movie.mrc", tmp_path / "out", dose_per_frame_e_per_A2=4.0), true)


@pytest.mark.parametrize("pixel", [0.2, 10.0])
def test_extreme_pixel_sizes_give_the_same_shifts_in_pixels(plain, tmp_path, pixel):
    frames, true = plain
    write_mrc(tmp_path / "movie.mrc", frames, pixel)
    record = run(tmp_path / "movie.mrc", tmp_path / "out", dose_per_frame_e_per_A2=4.0 / pixel**2)
    check(record, true)
    assert record.pixel_size_A == pytest.approx(pixel, rel=1e-3)
    assert not any("counts a frame" in warning for warning in record.warnings)


@pytest.mark.parametrize("pixel", [0.05, 25.0])
def test_pixel_sizes_that_no_microscope_has_are_refused(pixel):
    with pytest.raises(ValueError, match="pixel_size_A"):
        MotionParameters(pixel_size_A=pixel)


@pytest.mark.slow
def test_a_thousand_frames_are_followed(tmp_path):
    frames, true = drifting(1000, (128, 160), 0.5)
    write_mrc(tmp_path / "movie.mrc", frames, 1.0)
    record = run(tmp_path / "movie.mrc", tmp_path / "out", dose_per_frame_e_per_A2=0.5, bin_factor=1.5)
    assert record.n_frames == 1000
    assert record.status is Status.DONE, record.reason
    assert np.sqrt(np.mean((np.array(record.frame_shifts_A) - true) ** 2)) < 0.6
    assert len(read_star(record.outputs["motion"].path)["global_shift"]) == 1000


def test_saturated_pixels_don_t_hold_the_frames_together(plain, tmp_path):
    frames, true = plain
    burnt = frames.copy()
    burnt[:, 100:104, 200:203] = burnt[:, 10, 10] = 255
    write_mrc(tmp_path / "movie.mrc", burnt, 1.0)
    record = run(tmp_path / "movie.mrc", tmp_path / "out", dose_per_frame_e_per_A2=4.0)
    check(record, true)
    assert record.hot_pixels >= 13
    micrograph = read_image(record.outputs["micrograph"].path).array
    assert micrograph.max() < 6 * np.median(micrograph)


def test_a_movie_that_is_saturated_everywhere_is_refused(tmp_path):
    write_mrc(tmp_path / "movie.mrc", np.full((5, 128, 128), 65535, np.uint16), 1.0)
    assert run(tmp_path / "movie.mrc", tmp_path / "out").reason_code == "image.constant"


def test_frames_without_a_mean_are_followed_too(plain, tmp_path):
    """Float frames whose background was taken off by another program."""
    frames, true = plain
    flat = frames.astype(np.float32) - frames.mean(axis=(1, 2), keepdims=True, dtype=np.float32)
    write_mrc(tmp_path / "movie.mrc", flat, 1.0)
    check(run(tmp_path / "movie.mrc", tmp_path / "out", dose_weighting=False), true)


def test_an_empty_frame_inside_is_said_and_its_shift_lies_between(plain, tmp_path):
    frames, true = plain
    holed = frames.copy()
    holed[3] = 0
    write_mrc(tmp_path / "movie.mrc", holed, 1.0)
    record = run(tmp_path / "movie.mrc", tmp_path / "out", dose_per_frame_e_per_A2=4.0)
    check(record, true)
    assert any("frame 4 is all zero" in warning for warning in record.warnings)


def test_a_dose_that_the_files_contradict_is_reported(plain, tmp_path):
    write_mrc(tmp_path / "movie.mrc", plain[0], 1.0)
    told = {"dose_e_per_A2": 32.0}
    record = run(tmp_path / "movie.mrc", tmp_path / "out", told, dose_per_frame_e_per_A2=5.0)
    assert any(
        "dose_per_frame_e_per_A2 is 5" in warning and "makes it 4" in warning for warning in record.warnings
    )
    assert record.dose_per_frame_e_per_A2 == pytest.approx(5.0)
    fine = run(tmp_path / "movie.mrc", tmp_path / "out", told, dose_per_frame_e_per_A2=4.0)
    assert not any("total dose" in warning for warning in fine.warnings)


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Case]:
    """A simulated EER movie of 48 raw frames, and what is true of its 12 frames."""
    spec: dict[str, Any] = {"gain_spread": 0.0, "n_dead_columns": 0, "n_dead_pixels": 0, "n_hot_pixels": 0}
    case = movie(512, 12, seed=23, dose=2.5, **spec)
    path = tmp_path_factory.mktemp("eer") / "movie.eer"
    made = simulate_movie(
        MovieSpec(
            shape=(512, 512),
            n_frames=12,
            seed=23,
            dose_per_frame_e_per_A2=2.5,
            motion=MotionSpec(doming_A=3.0),
            **spec,
        )
    )
    write_movie(made, path, SessionSpec(format=FileFormat.EER, eer_frames_per_fraction=4), None)
    return path, case


@pytest.mark.parametrize("upsampling", [1, 2])
def test_eer_of_a_chosen_dose_a_fraction_moves_as_the_truth_does(events, tmp_path, upsampling):
    path, case = events
    record = run(
        path,
        tmp_path,
        pixel_size_A=1.0,
        eer_dose_per_fraction_e_per_A2=5.0,
        eer_upsampling=upsampling,
        bin_factor=float(upsampling),
        patches_y=3,
        patches_x=3,
    )
    assert record.status is Status.DONE, record.reason
    # the file itself says 30 e/px of the sensor in 48 raw frames: 8 of them to a fraction of 5 e/A^2
    assert record.n_frames == 6
    assert record.dose_per_frame_e_per_A2 == pytest.approx(5.0, rel=0.01)
    assert record.pixel_size_A == pytest.approx(1.0)
    pairs = case.truth.mean_shifts().reshape(6, 2, 2).mean(axis=1)
    error = np.array(record.frame_shifts_A) - (pairs - pairs[0])
    assert np.sqrt(np.mean((error - error.mean(axis=0)) ** 2)) < 0.6
    general = read_star(record.outputs["motion"].path)["general"]
    assert (int(general["rlnEERGrouping"]), int(general["rlnEERUpsampling"])) == (8, upsampling)
    assert int(general["rlnImageSizeX"]) == 512 * upsampling


def test_a_dose_a_fraction_without_a_total_dose_is_refused(events, tmp_path):
    from vitriflow.formats import EerWriter

    with EerWriter(tmp_path / "silent.eer", (64, 64)) as writer:
        for _ in range(4):
            writer.write(np.eye(64, dtype=np.uint8))
    inputs = {"movie": Artifact(kind=Kind.MOVIE, path=tmp_path / "silent.eer")}
    parameters = MotionParameters(pixel_size_A=1.0, eer_dose_per_fraction_e_per_A2=1.0)
    with pytest.raises(BadParameter, match="eer_frames_per_fraction"):
        find_step("motion.native").run(inputs, parameters, Context(out=tmp_path, item="silent"))
