"""Picking: what is found, what isn't, and what is refused."""

import math
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.optimize import linear_sum_assignment

from vitriflow.errors import BadImage, BadParameter, Reason
from vitriflow.kernels.pick import Picks, pick
from vitriflow.simulate import MotionSpec, MovieSpec, simulate_movie
from vitriflow.steps.threads import torch_threads

STILL = MotionSpec(settling_A=0, drift_A=0, jitter_A=0, doming_A=0, blur=False)
DIAMETER_A = 120.0


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """As the step does it: more threads only wait for each other on images so small."""
    with torch_threads(1):
        yield


@cache
def micrograph(**changes: object) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """One frame of 20 e/A^2 at 1.5 um: image, and centres (n, 2) in y, x."""
    spec = {
        "shape": (1536, 1536),
        "n_frames": 1,
        "dose_per_frame_e_per_A2": 20.0,
        "motion": STILL,
        "dtype": "float32",
        "gain_applied": True,
        "n_dead_columns": 0,
        "n_dead_pixels": 0,
        "n_hot_pixels": 0,
        "defocus_u_A": 15100.0,
        "defocus_v_A": 14900.0,
        "seed": 11,
    }
    movie = simulate_movie(MovieSpec(**(spec | changes)))
    return np.asarray(movie.frame(0), dtype=np.float32), movie.truth.particles_px.reshape(-1, 2)


def f1(
    found: NDArray[np.float64], truth: NDArray[np.float64], shape: tuple[int, ...], reach: float, rim: float
) -> float:
    """Matched one to one within ``reach`` px, points within ``rim`` px of the border left out."""

    def inside(points: NDArray[np.float64]) -> NDArray[np.float64]:
        return points[((points >= rim) & (points < np.array(shape) - rim)).all(axis=1)]

    found, truth = inside(found), inside(truth)
    if len(found) == 0 or len(truth) == 0:
        return float(len(found) == len(truth))
    distance = np.linalg.norm(found[:, None] - truth[None], axis=2)
    near = distance <= reach
    rows, columns = linear_sum_assignment(np.where(near, distance, 1e6))
    return 2.0 * int(near[rows, columns].sum()) / (len(found) + len(truth))


def score(picks: Picks, truth: NDArray[np.float64], shape: tuple[int, ...]) -> float:
    return f1(picks.accepted, truth, shape, DIAMETER_A / 2, DIAMETER_A / 2 + 10)


@pytest.mark.parametrize(
    "changes",
    [{}, {"seed": 12}, {"defocus_u_A": 7100.0, "defocus_v_A": 6900.0}, {"dose_per_frame_e_per_A2": 8.0}],
    ids=["1.5 um", "another seed", "0.7 um", "8 e/A^2"],
)
def test_finds_simulated_particles_by_their_diameter_alone(changes: dict[str, float]) -> None:
    image, truth = micrograph(**changes)
    assert score(pick(image, 1.0, DIAMETER_A), truth, image.shape) >= 0.95


def test_without_a_learnt_template_blob_filters_still_reach_the_goal() -> None:
    image, truth = micrograph()
    for method in ("dog", "log"):
        picks = pick(image, 1.0, DIAMETER_A, learn=False, method=method)
        assert picks.method == method
        assert score(picks, truth, image.shape) >= 0.8


@pytest.mark.parametrize("seed", [1, 5, 6])
def test_an_empty_micrograph_gives_no_picks(seed: int) -> None:
    image, _ = micrograph(n_particles=0, seed=seed)
    picks = pick(image, 1.0, DIAMETER_A)
    assert picks.n_picks == 0
    assert len(picks.score) > 0  # candidates stay, so that a person can lower the threshold
    assert math.isfinite(picks.threshold)


@pytest.mark.parametrize("seed", range(6))
def test_pure_noise_gives_no_picks(seed: int) -> None:
    noise = np.random.default_rng(seed).normal(100.0, 10.0, (512, 640)).astype(np.float32)
    assert pick(noise, 4.0, 150.0).n_picks == 0


def test_a_few_particles_are_found_and_the_noise_is_not() -> None:
    image, truth = micrograph(n_particles=8)
    picks = pick(image, 1.0, DIAMETER_A)
    assert score(picks, truth, image.shape) >= 0.9


@pytest.mark.parametrize("seed", [21, 22])
def test_faint_particles_that_no_blob_filter_shows_are_found_by_a_learnt_template(seed: int) -> None:
    """A third of the phantom's own contrast: blobs don't stand out from the noise anywhere."""
    image, truth = micrograph(contrast=0.35, dose_per_frame_e_per_A2=40.0, shape=(2048, 2048), seed=seed)
    blobs = pick(image, 1.0, DIAMETER_A, learn=False)
    assert score(blobs, truth, image.shape) < 0.8
    picks = pick(image, 1.0, DIAMETER_A)
    assert picks.method == "learnt"
    assert score(picks, truth, image.shape) >= 0.85
    assert picks.expected_f1 == pytest.approx(score(picks, truth, image.shape), abs=0.12)


def test_crowded_particles_are_told_apart() -> None:
    image, truth = micrograph(particle_spacing_A=130.0)
    assert score(pick(image, 1.0, DIAMETER_A), truth, image.shape) >= 0.95


def test_carbon_is_left_out_and_the_hole_beside_it_is_not() -> None:
    image, truth = micrograph(carbon_edge=True, shape=(2048, 2048))
    picks = pick(image, 1.0, DIAMETER_A)
    assert score(picks, truth, image.shape) >= 0.88
    empty, _ = micrograph(carbon_edge=True, shape=(2048, 2048), n_particles=0)
    empty_picks = pick(empty, 1.0, DIAMETER_A)
    assert empty_picks.n_picks == 0
    assert 0.1 < empty_picks.masked_fraction < 0.6


def test_ice_crystals_are_left_out_and_particles_around_them_are_not() -> None:
    image, truth = micrograph(n_ice_crystals=4, shape=(2048, 2048))
    assert score(pick(image, 1.0, DIAMETER_A), truth, image.shape) >= 0.88
    empty, _ = micrograph(n_ice_crystals=4, shape=(2048, 2048), n_particles=0)
    assert pick(empty, 1.0, DIAMETER_A).n_picks == 0


def test_a_bright_blob_is_not_a_particle_and_spoils_none() -> None:
    image, truth = micrograph()
    y, x = np.mgrid[:1536, :1536]
    blob = np.hypot(y - 700, x - 800) < 150
    spoilt = image + np.float32(60.0) * blob
    picks = pick(spoilt, 1.0, DIAMETER_A)
    accepted = np.rint(picks.accepted).astype(int)
    assert not blob[accepted[:, 0], accepted[:, 1]].any()
    far = np.hypot(truth[:, 0] - 700, truth[:, 1] - 800) > 300
    far_picks = np.hypot(picks.accepted[:, 0] - 700, picks.accepted[:, 1] - 800) > 300
    assert f1(picks.accepted[far_picks], truth[far], image.shape, 60, 70) >= 0.9


def test_picks_keep_their_distance_and_stay_inside() -> None:
    image, _ = micrograph(particle_spacing_A=130.0)
    for distance_A in (72.0, 100.0, 200.0):
        picks = pick(image, 1.0, DIAMETER_A, min_distance_A=distance_A)
        assert np.isfinite(picks.coordinates).all()
        assert (picks.coordinates >= 0).all()
        assert (picks.coordinates <= np.array(image.shape) - 1).all()
        apart = np.linalg.norm(picks.coordinates[:, None] - picks.coordinates[None], axis=2)
        np.fill_diagonal(apart, np.inf)
        assert apart.min() > 0.98 * distance_A  # binned pixels aren't square to the last digit


def test_coordinates_are_those_of_the_full_image_with_the_first_pixel_at_zero() -> None:
    rng = np.random.default_rng(3)
    truth = np.array([[y, x] for y in range(150, 900, 150) for x in range(170, 1300, 160)], dtype=float)
    truth += rng.uniform(-20, 20, truth.shape)
    y, x = np.mgrid[:1001, :1403]  # odd sizes: binning isn't the same in y and x
    image = rng.normal(50.0, 3.0, (1001, 1403)).astype(np.float32)
    for cy, cx in truth:
        near = (slice(max(0, int(cy) - 60), int(cy) + 60), slice(max(0, int(cx) - 60), int(cx) + 60))
        image[near] -= (8.0 * np.exp(-((y[near] - cy) ** 2 + (x[near] - cx) ** 2) / 800.0)).astype(np.float32)
    picks = pick(image, 1.0, 80.0)
    found = picks.accepted
    nearest = np.linalg.norm(truth[:, None] - found[None], axis=2).argmin(axis=1)
    error = found[nearest] - truth
    assert np.abs(error.mean(axis=0)).max() < 0.5  # no bias of half a binned pixel (2 px)
    assert np.abs(error).max() < 4.0


def test_bright_protein_is_the_inverted_image() -> None:
    image, _ = micrograph()
    dark = pick(image, 1.0, DIAMETER_A)
    bright = pick(-image, 1.0, DIAMETER_A, contrast="bright")
    assert bright.n_picks == dark.n_picks
    np.testing.assert_allclose(bright.accepted, dark.accepted, atol=0.05)


def test_padding_is_seen_and_left_out() -> None:
    image, truth = micrograph()
    padded = np.pad(image, ((90, 40), (70, 0)), mode="edge")
    picks = pick(padded, 1.0, DIAMETER_A)
    assert picks.masked_fraction > 0.1
    assert (picks.coordinates >= [90, 70]).all()
    assert (picks.coordinates[:, 0] < 90 + 1536).all()
    assert f1(picks.accepted - [90, 70], truth, image.shape, 60, 70) >= 0.95


def test_a_threshold_can_be_moved_afterwards_from_the_kept_scores() -> None:
    image, _ = micrograph()
    automatic = pick(image, 1.0, DIAMETER_A)
    strict = pick(image, 1.0, DIAMETER_A, threshold=automatic.threshold + 1.0)
    assert strict.n_picks == int((automatic.score >= automatic.threshold + 1.0).sum())
    assert len(strict.score) == len(automatic.score)
    assert (np.diff(automatic.score) <= 0).all()


def test_no_more_than_asked_are_kept_and_they_are_the_best() -> None:
    image, _ = micrograph()
    all_of_them = pick(image, 1.0, DIAMETER_A)
    ten = pick(image, 1.0, DIAMETER_A, max_picks=10)
    assert ten.n_picks == 10
    np.testing.assert_array_equal(ten.accepted, all_of_them.accepted[:10])


def test_the_same_image_gives_the_same_picks() -> None:
    image, _ = micrograph()
    first, second = pick(image, 1.0, DIAMETER_A), pick(torch.from_numpy(image), 1.0, DIAMETER_A)
    np.testing.assert_array_equal(first.coordinates, second.coordinates)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.float16, np.float64])
def test_any_dtype_is_taken(dtype: type) -> None:
    image, truth = micrograph()
    picks = pick(np.clip(image, 0, 120).astype(dtype), 1.0, DIAMETER_A)
    assert score(picks, truth, image.shape) >= 0.95


@pytest.mark.parametrize("pixel_A", [0.2, 0.5, 2.0, 10.0])
def test_the_pixel_size_only_counts_against_the_diameter(pixel_A: float) -> None:
    image, _ = micrograph()
    usual = pick(image, 1.0, DIAMETER_A)
    scaled = pick(image, pixel_A, pixel_A * DIAMETER_A)
    np.testing.assert_allclose(scaled.accepted, usual.accepted, atol=1e-3)


@pytest.mark.parametrize("pixel_A", [0.2, 10.0])
def test_extreme_pixel_sizes_are_answered_or_refused_by_name(pixel_A: float) -> None:
    """The same 120 A on the same image: 600 px is more than a quarter of it, 12 px is small but enough."""
    image, _ = micrograph()
    if pixel_A == 0.2:
        with pytest.raises(BadImage, match="pixel_size_A") as refused:
            pick(image, pixel_A, DIAMETER_A)
        assert refused.value.reason == Reason.PARAMETER
    else:
        picks = pick(image[:700, :600], pixel_A, DIAMETER_A)
        assert np.isfinite(picks.coordinates).all()


def test_saturated_pixels_spoil_nothing() -> None:
    image, truth = micrograph()
    rng = np.random.default_rng(8)
    counts = np.clip(image, 0, np.quantile(image, 0.97))  # all bright ones at the camera's limit
    counts[rng.random(image.shape) < 1e-4] = 65535.0  # and cosmic rays at the file's
    assert score(pick(counts.astype(np.uint16), 1.0, DIAMETER_A), truth, image.shape) >= 0.9


@pytest.mark.parametrize("shape", [(1023, 1301), (1536, 700), (701, 1536)])
def test_odd_and_oblong_images_are_picked(shape: tuple[int, int]) -> None:
    image, truth = micrograph()
    part = image[: shape[0], : shape[1]]
    inside = truth[(truth < np.array(part.shape)).all(axis=1)]
    assert score(pick(part, 1.0, DIAMETER_A), inside, part.shape) >= 0.9


@pytest.mark.parametrize("shape", [(1, 1), (2, 4096), (16, 16), (100, 100)])
def test_images_too_small_for_the_particle_are_refused_by_name(shape: tuple[int, int]) -> None:
    image = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    with pytest.raises(BadImage) as refused:
        pick(image, 1.0, DIAMETER_A)
    assert refused.value.reason in {Reason.PARAMETER, Reason.CONSTANT}


def test_a_stack_is_not_a_micrograph() -> None:
    with pytest.raises(BadImage) as refused:
        pick(np.zeros((3, 400, 400), dtype=np.float32), 1.0, 50.0)
    assert refused.value.reason == Reason.WRONG_SIZE


@pytest.mark.parametrize(
    ("value", "reason"),
    [(0.0, Reason.ALL_ZERO), (7.0, Reason.CONSTANT), (math.nan, Reason.NOT_FINITE)],
)
def test_images_without_content_are_refused_by_name(value: float, reason: Reason) -> None:
    with pytest.raises(BadImage) as refused:
        pick(np.full((400, 400), value, dtype=np.float32), 2.0, 120.0)
    assert refused.value.reason == reason


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_single_pixel_that_is_not_finite_is_refused(bad: float) -> None:
    image = np.random.default_rng(0).normal(size=(400, 400)).astype(np.float32)
    image[17, 333] = bad
    with pytest.raises(BadImage) as refused:
        pick(image, 2.0, 120.0)
    assert refused.value.reason == Reason.NOT_FINITE


@pytest.mark.parametrize("diameter_A", [1.5, 3.0, 390.0, 4000.0])
def test_a_diameter_that_makes_no_sense_is_refused(diameter_A: float) -> None:
    image = np.random.default_rng(0).normal(size=(400, 400)).astype(np.float32)
    with pytest.raises(BadImage, match="particle_diameter_A") as refused:
        pick(image, 1.0, diameter_A)
    assert refused.value.reason == Reason.PARAMETER


def test_a_range_upside_down_is_refused() -> None:
    image = np.random.default_rng(0).normal(size=(400, 400)).astype(np.float32)
    with pytest.raises(BadParameter, match="min_diameter_A"):
        pick(image, 2.0, 120.0, min_diameter_A=100.0, max_diameter_A=80.0)


@pytest.mark.gpu
def test_a_gpu_picks_the_same_particles() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no NVIDIA GPU here")
    image, _ = micrograph()
    here, there = pick(image, 1.0, DIAMETER_A), pick(image, 1.0, DIAMETER_A, device="cuda:0")
    assert f1(there.accepted, here.accepted, image.shape, 2.0, 0.0) >= 0.99
    assert there.threshold == pytest.approx(here.threshold, abs=0.02)


def real_scores(
    folder: Path, pattern: str, pixel_A: float, diameter_A: float, reach: float, rim: float
) -> list[float]:
    scores = []
    for path in sorted((folder / "micrographs").glob(pattern)):
        with Image.open(path) as picture:
            image = np.asarray(picture).astype(np.float32)
        table = np.loadtxt(folder / "centres" / f"{path.stem}.csv", delimiter=",", skiprows=1)
        truth = table[:, 1::-1]
        picks = pick(image, pixel_A, diameter_A)
        scores.append(f1(picks.accepted, truth, image.shape, reach, rim))
    return scores


@pytest.mark.slow
@pytest.mark.parametrize("diameter_A", [145.0, 150.0])
def test_real_apoferritin_is_found(real_data: Path, diameter_A: float) -> None:
    scores = real_scores(real_data / "apoferritin-autocryopicker", "*.png", 2.0, diameter_A, 25, 60)
    assert len(scores) == 8
    assert np.mean(scores) >= 0.95  # 0.97 reached; RELION's LoG 0.69
    assert min(scores) >= 0.90


@pytest.mark.slow
def test_real_beta_galactosidase_is_found(real_data: Path) -> None:
    scores = real_scores(real_data / "empiar-10017-jpeg", "*.jpg", 1.77, 170.0, 54, 110)
    assert len(scores) == 6
    assert np.mean(scores) >= 0.79  # 0.81 reached; RELION's LoG 0.61
    # one of them has unmarked particles by the hundred: precision 0.5 there at any threshold
    assert sorted(scores)[1] >= 0.74
