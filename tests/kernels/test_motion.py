"""Motion correction of whole movies against the simulator's truth."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from tests.kernels.motion_movies import Case, movie, rms_error
from vitriflow.errors import BadImage, BrokenInvariant, Reason
from vitriflow.kernels import Corrected, MotionSettings, correct_movie, gain_factor


def correct(case: Case, *, use_gain: bool = True, frames=None, **settings) -> Corrected:
    counts = case.frames if frames is None else frames
    chosen = {"pixel_size_A": case.spec.pixel_size_A, "dose_per_frame": case.spec.dose_per_frame_e_per_A2}
    gain, defects = gain_factor(case.gain) if use_gain else (None, None)
    return correct_movie(
        lambda: iter(counts),
        len(counts),
        counts[0].shape,
        MotionSettings(**{**chosen, **settings}),
        gain=gain,
        defects=defects,
        threads=2,
    )


@pytest.fixture(scope="module")
def small() -> tuple[Case, Corrected]:
    case = movie()
    return case, correct(case, unweighted=True, halves=True)


@pytest.mark.slow
def test_a_movie_of_the_demo_s_size_is_followed_to_a_quarter_pixel():
    case = movie(2048, 16, seed=21)
    assert np.sqrt(np.mean(rms_error(correct(case).motion, case.truth) ** 2)) < 0.25


@pytest.mark.slow
def test_a_real_motion_curve_is_followed(real_data):
    star = real_data / "empiar-10204-relion5" / "MotionCorr" / "20170629_00021_frameImage.star"
    case = movie(2048, 24, seed=4, dose=1.277, star=star, pixel_size_A=0.885, voltage_kV=200.0)
    assert np.sqrt(np.mean(rms_error(correct(case, voltage_kV=200.0).motion, case.truth) ** 2)) < 0.35


@pytest.mark.slow
def test_half_an_electron_a_frame_is_enough():
    case = movie(2048, 24, seed=2, dose=0.5)
    assert np.sqrt(np.mean(rms_error(correct(case).motion, case.truth) ** 2)) < 0.4


@pytest.mark.slow
def test_strong_doming_is_followed_and_global_correction_alone_is_not_enough():
    case = movie(2048, 16, seed=3, doming_A=8.0)
    local = np.sqrt(np.mean(rms_error(correct(case).motion, case.truth) ** 2))
    rigid = np.sqrt(np.mean(rms_error(correct(case, patches=(0, 0)).motion, case.truth) ** 2))
    assert local < 0.5
    assert rigid > 3 * local


def test_a_small_movie_is_followed_and_its_defects_are_found(small):
    case, corrected = small
    assert rms_error(corrected.motion, case.truth).max() < 0.6
    assert corrected.defects == int((case.gain == 0).sum())
    assert 18 <= corrected.hot_pixels <= 30  # 20 were put in; some fall on defects, few are chance
    assert corrected.pattern_share < 0.1
    assert not corrected.warnings


def test_the_first_frame_is_where_all_others_are_brought(small):
    _, corrected = small
    assert not corrected.motion.coefficients[0].any()


def test_aligned_sums_show_more_detail_than_unaligned_ones(small):
    case, corrected = small
    fine = _band_power(corrected.unweighted.numpy(), 0.05, 0.12)
    raw = (case.frames.sum(axis=0) * gain_factor(case.gain)[0]).astype(np.float32)
    raw[(raw > 3 * raw.mean()) | (case.gain == 0)] = raw.mean()
    noise = raw.mean()  # Poisson: per pixel the variance is the mean
    assert fine - noise > 2.0 * (_band_power(raw, 0.05, 0.12) - noise)


def test_means_follow_from_the_frames(small):
    case, corrected = small
    n = len(case.frames)
    assert corrected.unweighted.mean() == pytest.approx(corrected.frame_means.sum(), rel=0.01)
    assert corrected.micrograph.mean() == pytest.approx(corrected.frame_means.sum() / np.sqrt(n), rel=0.01)


def test_half_sums_add_up_to_the_whole(small):
    _, corrected = small
    assert torch.allclose(corrected.odd + corrected.even, corrected.micrograph, atol=2e-3)


def test_dose_weighting_leaves_white_noise_white(small):
    _, corrected = small
    high = _band_power(corrected.micrograph.numpy(), 0.38, 0.42)
    one_frame = corrected.frame_means.mean()  # Poisson: variance is the mean
    # The spline passes the mean of |response|^2 over all fractions of a pixel, a little below 1 there.
    assert 0.5 * one_frame < high < 1.2 * one_frame


def test_the_spectrum_has_relion_s_layout_and_pixel_size(small):
    _, corrected = small
    spectrum = corrected.spectrum
    box = spectrum.amplitude.shape[0]
    assert box == 512
    assert spectrum.pixel_size_A == pytest.approx(1.4, abs=0.02)
    # Friedel mates around (box // 2, box // 2), but for the Nyquist row and column
    inner = spectrum.amplitude[1:, 1:]
    assert torch.allclose(inner, inner.flip(0, 1), rtol=1e-3, atol=1e-9)


def test_a_movie_too_large_to_keep_gives_the_same_answer(small):
    case, corrected = small
    gain, defects = gain_factor(case.gain)
    settings = MotionSettings(pixel_size_A=1.0, dose_per_frame=case.spec.dose_per_frame_e_per_A2)
    again = correct_movie(
        lambda: iter(case.frames),
        len(case.frames),
        case.shape,
        settings,
        gain=gain,
        defects=defects,
        frame_budget_bytes=0,
        threads=1,
    )
    assert np.allclose(again.motion.coefficients, corrected.motion.coefficients, atol=1e-3)
    assert torch.allclose(again.micrograph, corrected.micrograph, atol=5e-2)


def test_binning_keeps_grey_values_and_cuts_the_size(small):
    case, corrected = small
    binned = correct(case, bin_factor=2.0)
    assert tuple(binned.micrograph.shape) == (512, 512)
    assert binned.pixel_size_A == pytest.approx(2.0)
    assert binned.micrograph.mean() == pytest.approx(float(corrected.micrograph.mean()), rel=1e-3)


@pytest.mark.parametrize("shape", [(301, 417), (256, 500)])
@pytest.mark.parametrize("n_frames", [1, 2, 5])
def test_few_frames_and_odd_sizes_work(shape, n_frames):
    rng = np.random.default_rng(5)
    specimen = 1.0 + ndimage.gaussian_filter(rng.standard_normal(shape), 3.0) * 5
    frames = rng.poisson(specimen.clip(0), (n_frames, *shape)).astype(np.uint8)
    settings = MotionSettings(pixel_size_A=1.0, dose_per_frame=1.0, max_shift_px=75.0)
    corrected = correct_movie(lambda: iter(frames), n_frames, shape, settings)
    assert tuple(corrected.micrograph.shape) == shape
    assert corrected.motion.n_frames == n_frames
    assert torch.isfinite(corrected.micrograph).all()
    assert np.abs(corrected.motion.mean_shifts()).max() < 1.0  # nothing moved


def test_frames_of_noise_alone_are_refused_and_not_shuffled():
    frames = np.random.default_rng(5).poisson(1.0, (5, 256, 256)).astype(np.uint8)
    with pytest.raises(BrokenInvariant, match="nothing to align by"):
        correct_movie(lambda: iter(frames), 5, (256, 256), MotionSettings(pixel_size_A=1.0))


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "float16", "float32"])
def test_every_type_of_counts_gives_the_same_sum(dtype):
    frames = np.random.default_rng(6).poisson(2.0, (3, 96, 128))
    settings = MotionSettings(pixel_size_A=1.0, patches=(0, 0), max_shift_px=24.0)
    first = correct_movie(lambda: iter(frames.astype(np.float32)), 3, (96, 128), settings)
    other = correct_movie(lambda: iter(frames.astype(dtype)), 3, (96, 128), settings)
    assert torch.allclose(first.micrograph, other.micrograph, atol=1e-3)


def test_a_missing_gain_is_found(small):
    case, _ = small
    with pytest.raises(BrokenInvariant, match="gain reference") as caught:
        correct(case, use_gain=False)
    assert caught.value.reason is Reason.FIXED_PATTERN


def test_a_gain_that_corrects_half_is_called_out(small):
    case, _ = small
    old = Case(case.frames, np.sqrt(case.gain), case.truth, case.spec)
    assert any("gain" in warning for warning in correct(old).warnings)


def test_an_alignment_that_follows_the_camera_is_refused():
    rng = np.random.default_rng(8)
    pattern = 1.0 + 0.3 * rng.standard_normal((512, 512)).clip(-2, 2)
    frames = rng.poisson(4.0 * pattern, (8, 512, 512)).astype(np.uint8)
    settings = MotionSettings(pixel_size_A=1.0, dose_per_frame=4.0)
    with pytest.raises(BrokenInvariant) as caught:
        correct_movie(lambda: iter(frames), 8, (512, 512), settings)
    assert caught.value.reason is Reason.FIXED_PATTERN
    assert "gain" in str(caught.value)


def test_shifts_out_of_bounds_are_refused(small):
    case, _ = small
    with pytest.raises(BrokenInvariant) as caught:
        correct(case, max_shift_px=1.5)
    assert caught.value.reason is Reason.SHIFT_BOUNDS


def test_an_empty_frame_inside_is_left_out_and_said(small):
    case, corrected = small
    frames = case.frames.copy()
    frames[5] = 0
    holed = correct(case, frames=frames, unweighted=True)
    assert holed.skipped == [5]
    assert any("frame 6" in warning for warning in holed.warnings)
    assert holed.motion.n_frames == len(frames)
    # its shift lies between its neighbours', and the sum lacks its electrons
    assert np.abs(holed.motion.mean_shifts() - corrected.motion.mean_shifts()).max() < 0.7
    assert holed.unweighted.mean() == pytest.approx(11 / 12 * float(corrected.unweighted.mean()), rel=0.01)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (0.0, Reason.ALL_ZERO),
        (3.0, Reason.CONSTANT),
        (np.nan, Reason.NOT_FINITE),
        (np.inf, Reason.NOT_FINITE),
    ],
)
def test_a_movie_without_a_picture_is_refused(value, reason):
    frames = np.full((4, 64, 64), value, dtype=np.float32)
    with pytest.raises(BadImage) as caught:
        correct_movie(lambda: iter(frames), 4, (64, 64), MotionSettings(pixel_size_A=1.0))
    assert caught.value.reason is reason


def test_a_single_nan_is_found():
    frames = np.random.default_rng(1).poisson(1.0, (4, 64, 64)).astype(np.float32)
    frames[2, 33, 7] = np.nan
    with pytest.raises(BadImage, match="frame 3"):
        correct_movie(lambda: iter(frames), 4, (64, 64), MotionSettings(pixel_size_A=1.0))


@pytest.mark.gpu
def test_a_gpu_finds_the_same_motion_and_the_same_sum(small):
    if not torch.cuda.is_available():
        pytest.skip("no NVIDIA GPU here")
    case, corrected = small
    gain, defects = gain_factor(case.gain)
    settings = MotionSettings(pixel_size_A=1.0, dose_per_frame=1.2)
    other = correct_movie(
        lambda: iter(case.frames),
        len(case.frames),
        case.shape,
        settings,
        gain=gain,
        defects=defects,
        device="cuda:0",
    )
    assert rms_error(other.motion, corrected.motion).max() < 0.02
    assert torch.allclose(other.micrograph.cpu(), corrected.micrograph, atol=0.1)


def _band_power(image: np.ndarray, low: float, high: float) -> float:
    """Mean power per pixel between two frequencies (cycles/px)."""
    spectrum = np.fft.rfft2(image - image.mean())
    radius = np.hypot(np.fft.fftfreq(image.shape[0])[:, None], np.fft.rfftfreq(image.shape[1])[None, :])
    band = (radius > low) & (radius < high)
    return float((np.abs(spectrum[band]) ** 2).mean() / image.size)
