"""A gain reference is judged on the first movies: rightly, or not at all."""

import numpy as np
import pytest

from tests.kernels.gain_movies import (
    SIDE,
    camera_gain,
    corrected_sums,
    diagnose,
    raw_sums,
    sums_of,
    super_resolution_response,
    super_resolution_sums,
)
from vitriflow.errors import BadImage, Reason
from vitriflow.formats import Orientation
from vitriflow.kernels.gain_diagnosis import ORIENTATIONS, FrameSums, Verdict, diagnose_gain
from vitriflow.kernels.gain_diagnosis_pattern import count_pattern, gain_pattern, orient
from vitriflow.steps.motion_native import MotionParameters

LABELS = list(ORIENTATIONS)


def stored_so_that(label: str, gain: np.ndarray) -> np.ndarray:
    """The reference as a file holds it when ``label`` lays it onto the movie."""
    places = np.arange(gain.size).reshape(gain.shape)
    stored = np.empty(gain.size, gain.dtype)
    source = places if label in ("as_is", "rotated_180", "flipped_y", "flipped_x") else places.T
    laid = orient(np.arange(gain.size).reshape(source.shape), label)
    stored[laid.ravel()] = gain.ravel()
    return stored.reshape(source.shape)


def test_the_eight_orientations_are_those_of_formats_and_of_the_motion_step():
    image = np.arange(12).reshape(3, 4)
    assert [orientation.label for orientation in Orientation] == LABELS
    for orientation in Orientation:
        assert np.array_equal(orient(image, orientation.label), orientation.apply(image))
        assert MotionParameters(gain_orientation=orientation.label).gain_orientation == orientation.label


@pytest.mark.parametrize("label", LABELS)
def test_each_of_the_eight_orientations_is_found_from_one_movie(label):
    found = diagnose(raw_sums(1), stored_so_that(label, camera_gain()))
    assert found.set_orientation == label
    assert found.set_convention == "multiply"
    assert len(found.scores) == 8
    assert found.scores[0].fit == pytest.approx(1.0, abs=0.1)
    assert max(abs(score.fit) for score in found.scores[1:]) < 0.1
    assert found.wrong == (label != "as_is")
    if label != "as_is":
        assert found.verdict is Verdict.WRONG_ORIENTATION
        assert f"set gain_orientation = {label}" in found.text


@pytest.mark.parametrize("label", LABELS)
def test_a_reference_that_is_laid_on_rightly_is_called_right(label):
    found = diagnose(raw_sums(1), stored_so_that(label, camera_gain()), orientation=label)
    assert (found.verdict, found.severity) == (Verdict.RIGHT, "info")


def test_a_reference_upside_down_is_told_in_plain_words():
    found = diagnose(raw_sums(2), camera_gain()[::-1])
    assert found.text == "The gain reference is upside down: set gain_orientation = flipped_y."


def test_a_wrong_orientation_that_was_set_is_told_by_its_name():
    found = diagnose(raw_sums(2), camera_gain(), orientation="rotated_90")
    assert "gain_orientation = rotated_90" in found.text
    assert "set gain_orientation = as_is" in found.text


def test_a_reference_to_divide_by_is_told_from_one_to_multiply_with():
    gain = camera_gain()
    efficiency = np.divide(1.0, gain, out=np.zeros_like(gain), where=gain > 0)
    wrong = diagnose(raw_sums(1), efficiency)
    assert (wrong.verdict, wrong.severity) == (Verdict.WRONG_CONVENTION, "alarm")
    assert "set gain_convention = divide" in wrong.text
    assert diagnose(raw_sums(1), efficiency, convention="divide").verdict is Verdict.RIGHT


def test_orientation_and_convention_that_are_both_wrong_are_both_told():
    found = diagnose(raw_sums(1), camera_gain()[:, ::-1], convention="divide")
    assert "gain_orientation = flipped_x and gain_convention = multiply" in found.text


def test_correction_leaves_nothing_of_the_pattern_when_the_reference_is_right():
    found = diagnose(raw_sums(), camera_gain())
    assert found.severity == "info"
    assert found.movies is not None
    assert found.left is not None
    assert found.movies.pixels.rms == pytest.approx(found.gain_spread, rel=0.1)
    assert found.left.pixels.high < 0.5 * found.movies.pixels.low


@pytest.mark.parametrize("label", ["as_is", "rotated_90", "flipped_y"])
def test_movies_that_are_corrected_already_are_told_and_no_orientation_is_named(label):
    found = diagnose(corrected_sums(), stored_so_that(label, camera_gain()))
    assert (found.verdict, found.severity) == (Verdict.CORRECTED_ALREADY, "alarm")
    assert found.set_orientation is None
    assert "set no gain_reference" in found.text


def test_movies_corrected_with_a_noisy_reference_are_not_taken_for_ones_to_divide():
    noise = 1.0 + 0.03 * np.random.default_rng(3).standard_normal((SIDE, SIDE)).astype(np.float32)
    noisy = camera_gain() * noise
    found = diagnose(sums_of(3, lambda frame, gain: frame * noisy), noisy)
    assert found.verdict is Verdict.CORRECTED_ALREADY
    assert "noise" in found.text


def test_the_reference_of_another_camera_is_refused_in_every_orientation():
    found = diagnose(raw_sums(), camera_gain(gain_seed=7))
    assert (found.verdict, found.severity) == (Verdict.OTHER_CAMERA, "alarm")
    assert found.set_orientation is None
    assert max(abs(score.fit) for score in found.scores) < 0.1


def test_with_one_movie_another_camera_cannot_be_told_from_corrected_movies():
    found = diagnose(raw_sums(1), camera_gain(gain_seed=7))
    assert found.verdict is Verdict.UNDECIDED
    assert found.more_movies is not None
    assert "more movie" in found.text
    assert not found.wrong


def test_a_noisy_reference_fits_and_people_are_told_what_it_leaves():
    noise = 1.0 + 0.03 * np.random.default_rng(4).standard_normal((SIDE, SIDE)).astype(np.float32)
    found = diagnose(raw_sums(), camera_gain() * noise)
    assert (found.verdict, found.severity) == (Verdict.RIGHT, "warning")
    assert "Take a new gain reference" in found.text
    assert found.left is not None
    assert found.left.pixels.rms == pytest.approx(0.03, rel=0.15)


def test_rows_that_still_differ_after_correction_are_told():
    rows = 1.0 + 0.01 * np.random.default_rng(5).standard_normal((SIDE, 1)).astype(np.float32)
    found = diagnose(sums_of(5, lambda frame, gain: frame * rows), camera_gain())
    assert found.severity == "warning"
    assert "rows" in found.text
    assert found.left is not None
    assert found.left.rows.rms == pytest.approx(0.01, rel=0.3)
    assert found.left.columns.high < 0.004


@pytest.mark.parametrize("value", [1.0, 0.02, 1000.0])
def test_a_flat_reference_never_gets_an_orientation(value):
    flat = np.full((SIDE, SIDE), value, np.float32)
    raw = diagnose(raw_sums(), flat)
    assert (raw.verdict, raw.severity) == (Verdict.FLAT, "alarm")
    corrected = diagnose(corrected_sums(), flat)
    assert (corrected.verdict, corrected.severity) == (Verdict.FLAT, "info")
    assert raw.set_orientation is None
    assert corrected.set_orientation is None
    assert diagnose(raw_sums(1), flat).verdict is Verdict.UNDECIDED


def test_raw_movies_without_a_reference_are_told():
    found = diagnose(raw_sums(), None)
    assert (found.verdict, found.severity) == (Verdict.MISSING, "alarm")
    assert "Set gain_reference" in found.text


def test_corrected_movies_without_a_reference_are_fine():
    found = diagnose(corrected_sums(), None)
    assert (found.verdict, found.severity) == (Verdict.NOT_NEEDED, "info")


def test_a_specimen_alone_is_no_fixed_pattern():
    strong = sums_of(5, gain_spread=0.0, contrast=3.0, carbon_edge=True, n_ice_crystals=8)
    assert not diagnose(strong, None).wrong
    assert not diagnose(strong, np.ones((SIDE, SIDE), np.float32)).wrong
    assert diagnose(strong, camera_gain()).set_orientation is None


def test_carbon_ice_and_strong_particles_do_not_hide_the_pattern():
    dirty = sums_of(2, contrast=2.5, carbon_edge=True, n_ice_crystals=6)
    assert diagnose(dirty, np.rot90(camera_gain())).set_orientation == "rotated_90"


def test_hot_pixels_and_dead_columns_do_not_matter():
    bad = {"n_hot_pixels": 800, "n_dead_columns": 6, "n_dead_pixels": 600}
    found = diagnose(sums_of(2, **bad), camera_gain(**bad)[::-1])
    assert found.set_orientation == "flipped_y"
    assert found.scores[0].fit == pytest.approx(1.0, abs=0.1)


def test_defects_that_only_one_of_the_two_knows_do_not_matter():
    bad = {"n_hot_pixels": 800, "n_dead_columns": 6, "n_dead_pixels": 600}
    gain = camera_gain()
    gain[100:104] = 0.0
    gain[:, 40] = 30.0
    gain[7, 7] = np.nan
    assert diagnose(sums_of(2, **bad), gain[::-1]).set_orientation == "flipped_y"


@pytest.mark.parametrize("label", ["as_is", "rotated_180", "flipped_y", "flipped_x"])
def test_of_a_camera_that_is_not_square_four_orientations_fit(label):
    shape = (320, 512)
    found = diagnose(sums_of(2, shape=shape), stored_so_that(label, camera_gain(shape=shape)))
    assert found.set_orientation == label
    assert {s.orientation for s in found.scores} == {"as_is", "rotated_180", "flipped_y", "flipped_x"}


@pytest.mark.parametrize(
    "label", ["rotated_90", "rotated_270", "rotated_90_flipped_y", "rotated_90_flipped_x"]
)
def test_a_reference_with_its_sides_swapped_is_turned(label):
    shape = (320, 512)
    stored = stored_so_that(label, camera_gain(shape=shape))
    assert stored.shape == (512, 320)
    found = diagnose(sums_of(2, shape=shape), stored)
    assert found.set_orientation == label
    assert len(found.scores) == 4


@pytest.mark.parametrize("beat", [0.0, 0.05, 0.15])
@pytest.mark.parametrize("label", ["as_is", "flipped_y", "rotated_90"])
def test_a_super_resolution_reference_is_laid_on_super_resolution_movies(label, beat):
    gain = (1.0 / super_resolution_response(beat)).astype(np.float32)
    found = diagnose(super_resolution_sums(beat, 1), stored_so_that(label, gain))
    assert found.set_orientation == label
    assert found.wrong == (label != "as_is")


def test_the_beat_of_half_pixels_counts_as_a_pattern_of_the_movies():
    plain, beating = (diagnose(super_resolution_sums(beat, 5), None) for beat in (0.0, 0.15))
    assert plain.movies is not None
    assert beating.movies is not None
    beat = 0.15 * np.sqrt(np.mean(np.square([1.0, -0.6, 0.2, -0.6])))
    assert beating.movies.pixels.rms == pytest.approx(np.hypot(plain.movies.pixels.rms, beat), rel=0.1)


def test_a_reference_of_whole_pixels_for_super_resolution_movies_is_told():
    found = diagnose(super_resolution_sums(0.05, 1), camera_gain(shape=(SIDE // 2, SIDE // 2)))
    assert (found.verdict, found.severity) == (Verdict.WRONG_SIZE, "alarm")
    assert "super-resolution" in found.text


def test_a_reference_of_another_size_is_told_as_such():
    found = diagnose(raw_sums(1), camera_gain()[:-2])
    assert (found.verdict, found.severity) == (Verdict.WRONG_SIZE, "alarm")
    assert found.scores == ()


def test_orientations_that_do_the_same_are_all_right():
    gain = camera_gain(n_dead_columns=0, n_dead_pixels=0)
    both = np.sqrt(gain * gain[::-1])
    plain = {"n_dead_columns": 0, "n_dead_pixels": 0, "n_hot_pixels": 0}
    sums = sums_of(2, lambda frame, gain: frame * gain / both, **plain)  # as if the camera's gain were `both`
    found = diagnose(sums, both, orientation="flipped_y")
    assert found.verdict is Verdict.RIGHT
    assert set(found.alike) == {"as_is", "flipped_y"}


def test_too_few_counts_to_tell_are_admitted():
    sums = sums_of(1, dose_per_frame_e_per_A2=0.02, n_frames=2)
    found = diagnose(sums, camera_gain()[::-1])
    assert found.verdict is Verdict.UNDECIDED
    assert not found.wrong
    assert found.set_orientation is None


def test_half_an_electron_a_pixel_and_frame_is_enough():
    found = diagnose(sums_of(1, dose_per_frame_e_per_A2=0.5), np.rot90(camera_gain(), 2))
    assert found.set_orientation == "rotated_180"


@pytest.mark.parametrize("seed", range(6))
def test_no_seed_makes_a_stranger_fit(seed):
    stranger = camera_gain(gain_seed=100 + seed)
    for sums in (raw_sums(1), raw_sums(), corrected_sums()):
        assert diagnose(sums, stranger).set_orientation is None


def test_a_single_sum_without_parts_still_finds_the_orientation():
    sums = raw_sums(1)
    found = diagnose_gain(sums.total, sums.n_frames, camera_gain()[::-1])
    assert found.set_orientation == "flipped_y"
    assert found.movies is None
    assert diagnose_gain(sums.total, sums.n_frames).verdict is Verdict.UNDECIDED


def test_an_unknown_orientation_is_refused():
    with pytest.raises(KeyError, match="sideways"):
        diagnose(raw_sums(1), None, orientation="sideways")


def test_the_pattern_is_the_same_whatever_the_units_of_the_reference():
    gain = camera_gain()
    first, _ = gain_pattern(gain)
    second, _ = gain_pattern(gain * np.float32(370.0))
    assert np.allclose(first, second, atol=1e-4)


def test_pixels_that_stand_out_are_left_out_of_the_pattern():
    total = np.random.default_rng(1).poisson(40.0, (128, 128)).astype(np.float32)
    total[5, 6] = 4000.0
    total[90] = 0.0
    pattern = count_pattern(total)
    assert not pattern.good[5, 6]
    assert not pattern.good[90].any()
    assert pattern.good.mean() > 0.98
    assert pattern.deviation[89].mean() == pytest.approx(0.0, abs=0.06)  # the empty row doesn't pull it


def test_where_most_pixels_count_nothing_the_few_that_do_are_no_defects():
    total = np.random.default_rng(2).poisson(0.1, (256, 256)).astype(np.float32)
    total[30, 40] = 60.0
    pattern = count_pattern(total)
    assert not pattern.good[30, 40]
    assert pattern.good.mean() > 0.99
    assert pattern.counts == pytest.approx(0.1, rel=0.1)


def test_an_image_that_is_all_defects_is_not_judged():
    total = np.zeros((64, 64), np.float32)
    total[5, 5] = 1e6
    gain = camera_gain()[:64, :64]
    assert diagnose_gain(total, 1, gain).verdict is Verdict.UNDECIDED


# -- sums ------------------------------------------------------------------------------------


def frames_of(*values: float, shape: tuple[int, int] = (32, 32)) -> list[np.ndarray]:
    return [np.full(shape, value, np.uint8) for value in values]


def test_a_single_movie_is_parted_into_early_and_late_frames():
    sums = FrameSums((32, 32))
    sums.add(frames_of(1, 2, 3, 4), 4)
    assert sums.parts is not None
    assert [part[0, 0] for part in sums.parts] == [3, 7]


def test_several_movies_are_parted_by_movie():
    sums = FrameSums((32, 32))
    for first in (1, 10, 100, 200):
        sums.add(frames_of(first, first), 2)
    assert sums.parts is not None
    assert [part[0, 0] for part in sums.parts] == [2 + 200, 20 + 400]
    assert sums.total[0, 0] == 622
    assert (sums.n_movies, sums.n_frames) == (4, 8)


def test_a_copy_of_a_movie_is_left_out():
    sums = FrameSums((32, 32))
    assert sums.add(frames_of(1, 2), 2)
    assert not sums.add(frames_of(1, 2), 2)
    assert (sums.n_movies, sums.n_frames) == (1, 2)


def test_one_frame_has_no_parts():
    sums = FrameSums((32, 32))
    sums.add(frames_of(3), 1)
    assert sums.parts is None


@pytest.mark.parametrize(
    ("frames", "reason"),
    [
        (frames_of(1, 2, shape=(32, 30)), Reason.WRONG_SIZE),
        (frames_of(0, 0), Reason.ALL_ZERO),
        ([np.full((32, 32), np.nan, np.float32)] * 2, Reason.NOT_FINITE),
    ],
)
def test_movies_that_cannot_be_summed_are_refused_and_leave_no_trace(frames, reason):
    sums = FrameSums((32, 32))
    sums.add(frames_of(1, 2), 2)
    with pytest.raises(BadImage) as error:
        sums.add(frames, 2)
    assert error.value.reason is reason
    assert (sums.n_movies, sums.total[0, 0]) == (1, 3)
