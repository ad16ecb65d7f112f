"""Movies that are larger than the micrograph wanted of them: super-resolution, and other binning."""

import numpy as np
import pytest
import torch

from tests.kernels.motion_movies import Case, movie, rms_error
from vitriflow.kernels import Corrected, MotionSettings, correct_movie, gain_factor
from vitriflow.kernels.fourier import fourier_crop
from vitriflow.kernels.motion_sums import binned_shape


@pytest.fixture(scope="module")
def fine() -> Case:
    """A camera of 512 x 640 px that counts on a grid twice as fine, with its gain on that grid."""
    return movie(
        shape=(1024, 1280), n_frames=10, seed=31, dose=3.0, pixel_size_A=0.6, mtf_at_nyquist=0.3, doming_A=2.0
    )


def correct(case: Case, *, budget: int, **chosen) -> Corrected:
    gain, defects = gain_factor(case.gain)
    settings = MotionSettings(
        pixel_size_A=case.spec.pixel_size_A,
        dose_per_frame=case.spec.dose_per_frame_e_per_A2,
        b_factor_px2=150.0 * chosen["bin_factor"] ** 2,
        max_shift_px=100.0,
        **chosen,
    )
    return correct_movie(
        lambda: iter(case.frames),
        len(case.frames),
        case.shape,
        settings,
        gain=gain,
        defects=defects,
        threads=2,
        frame_budget_bytes=0,
        sums_budget_bytes=budget,
    )


@pytest.fixture(scope="module")
def halved(fine: Case) -> Corrected:
    return correct(fine, budget=0, bin_factor=2.0, unweighted=True)


def test_a_super_resolution_movie_is_followed_in_its_own_pixels(fine, halved):
    assert rms_error(halved.motion, fine.truth).max() < 1.0  # half a pixel of the camera
    assert halved.motion.shape == (1024, 1280)


def test_its_micrograph_has_the_camera_s_pixels_and_grey_values(fine, halved):
    assert tuple(halved.micrograph.shape) == (512, 640)
    assert halved.pixel_size_A == pytest.approx(1.2)
    assert float(halved.unweighted.mean()) == pytest.approx(halved.frame_means.sum(), rel=0.01)
    assert halved.defects == int((fine.gain == 0).sum())


@pytest.mark.parametrize(("bin_factor", "halves"), [(2.0, False), (1.5, True)])
def test_binning_frame_by_frame_gives_what_binning_the_sums_gives(fine, bin_factor, halves):
    chosen = {"bin_factor": bin_factor, "unweighted": True, "halves": halves}
    one = correct(fine, budget=0, **chosen)
    other = correct(fine, budget=1 << 40, **chosen)
    assert np.array_equal(one.motion.coefficients, other.motion.coefficients)
    for name in ("micrograph", "unweighted", *(("odd", "even") if halves else ())):
        first, second = getattr(one, name), getattr(other, name)
        assert first.shape == second.shape
        # dose weights of the sums are right to one part in a thousand
        assert float((first - second).square().mean().sqrt()) < 2e-3 * float(second.std()), name
    assert one.pixel_size_A == other.pixel_size_A
    assert one.spectrum is not None


def test_without_a_dose_the_plain_sum_is_binned(fine):
    one, other = (
        correct(fine, budget=budget, bin_factor=2.0, dose_weighting=False, halves=True)
        for budget in (0, 1 << 40)
    )
    assert not one.dose_weighted
    assert torch.allclose(one.micrograph, other.micrograph, atol=1e-3)
    assert torch.allclose(one.odd + one.even, one.micrograph, atol=1e-3)


def test_binning_a_movie_that_stands_still_is_fourier_cropping_its_sum():
    rng = np.random.default_rng(3)
    frames = rng.poisson(30.0, (1, 300, 420)).astype(np.uint8)
    settings = MotionSettings(pixel_size_A=0.5, bin_factor=2.0)
    made = correct_movie(lambda: iter(frames), 1, (300, 420), settings, sums_budget_bytes=0)
    whole = torch.fft.rfft2(torch.from_numpy(frames[0].astype(np.float32)))
    expected = torch.fft.irfft2(fourier_crop(whole, (300, 420), (150, 210)), s=(150, 210)) / 4
    # The spline takes the nearest pixel past the edges, the transform the other side: that rings inwards.
    inner = slice(40, -40)
    assert torch.allclose(made.micrograph[inner, inner], expected[inner, inner], atol=0.05)


@pytest.mark.parametrize("bin_factor", [1.0, 1.25, 1.5, 2.0, 2.7, 4.0, 16.0])
@pytest.mark.parametrize("shape", [(8184, 11520), (3710, 3838), (301, 417)])
def test_binned_sizes_are_even_and_what_was_asked_for(shape, bin_factor):
    height, width = binned_shape(shape, bin_factor)
    if bin_factor == 1.0:
        assert (height, width) == shape
        return
    assert height % 2 == width % 2 == 0
    assert 0 <= shape[0] / bin_factor - height < 2
    assert 0 <= shape[1] / bin_factor - width < 2
