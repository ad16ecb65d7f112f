"""The parts that motion correction is made of."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vitriflow.kernels.dose import critical_dose, dose_weights, low_rank_weights
from vitriflow.kernels.fourier import (
    add_times_curve,
    add_times_curve_torch,
    fourier_crop,
    frequencies,
    good_size,
)
from vitriflow.kernels.frames import pool_frames
from vitriflow.kernels.gain import find_hot_pixels, gain_factor, plan_repairs
from vitriflow.kernels.motion_field import MotionField
from vitriflow.kernels.motion_patches import Cutter, Patches
from vitriflow.kernels.motion_refine import refine_field
from vitriflow.kernels.motion_search import search_shifts
from vitriflow.kernels.motion_smooth import smooth_track
from vitriflow.kernels.warp import block_centres, spline_response, warp_accumulate, warp_accumulate_torch


def _block_shifts(shape: tuple[int, int], shifts: np.ndarray) -> np.ndarray:
    rows, columns = block_centres(shape)
    grid = np.zeros((len(shifts), len(rows), len(columns), 2), np.float32)
    grid += shifts[:, None, None, :]
    return grid


def test_warping_moves_a_wave_by_the_shift_and_keeps_its_height():
    shape = (128, 160)
    y, x = np.meshgrid(np.arange(128), np.arange(160), indexing="ij")
    wave = np.cos(2 * np.pi * (8 * y / 128 + 10 * x / 160)).astype(np.float32)
    shift = np.array([[3.3, -2.6]])
    sums = torch.zeros(1, *shape)
    warp_accumulate(wave[None], None, _block_shifts(shape, shift), np.ones((1, 1), np.float32), sums)
    ky, kx = frequencies(shape)
    sharp = torch.fft.irfft2(torch.fft.rfft2(sums[0]) / spline_response(ky) / spline_response(kx), s=shape)
    expected = np.cos(2 * np.pi * (8 * (y - 3.3) / 128 + 10 * (x + 2.6) / 160))
    assert np.abs(sharp.numpy() - expected)[16:-16, 16:-16].max() < 2e-3


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int16, np.uint16, np.float32])
@pytest.mark.parametrize("shape", [(100, 133), (16, 32), (7, 9)])
def test_numba_and_torch_warp_alike(dtype, shape):
    rng = np.random.default_rng(3)
    frames = rng.integers(0, 100, (6, *shape)).astype(dtype)
    gain = rng.uniform(0.5, 1.5, shape).astype(np.float32)
    rows, columns = block_centres(shape)
    shifts = rng.uniform(-9, 9, (6, len(rows), len(columns), 2)).astype(np.float32)
    weights = rng.uniform(-1, 1, (3, 6)).astype(np.float32)
    first, second = torch.zeros(3, *shape), torch.zeros(3, *shape)
    warp_accumulate(frames, gain, shifts, weights, first, threads=2)
    warp_accumulate_torch(frames, gain, shifts, weights, second)
    assert torch.allclose(first, second, rtol=1e-4, atol=1e-2)


def test_the_number_of_threads_changes_nothing():
    rng = np.random.default_rng(4)
    frames = rng.poisson(1.0, (5, 200, 150)).astype(np.uint8)
    shifts = _block_shifts((200, 150), rng.uniform(-3, 3, (5, 2)))
    one, three = torch.zeros(2, 200, 150), torch.zeros(2, 200, 150)
    weights = rng.uniform(0, 1, (2, 5)).astype(np.float32)
    warp_accumulate(frames, None, shifts, weights, one, threads=1)
    warp_accumulate(frames, None, shifts, weights, three, threads=3)
    assert torch.equal(one, three)


def test_numba_and_torch_compare_patches_alike():
    rng = np.random.default_rng(5)
    pooled = torch.from_numpy(rng.standard_normal((6, 96, 120)).astype(np.float32))
    cutter = Cutter(pooled, Patches.lay((96, 120), (2, 2)), 2, 150.0, 1)
    spectra, rest = cutter._cut(1, rng.uniform(-2, 2, (6, 2)))
    fast = cutter.compare(spectra.clone(), rest, cutter.first_weight)
    move = torch.as_tensor(rest, dtype=torch.float32)
    phase_y = torch.exp(-2j * torch.pi * move[:, 0, None] * cutter._ky[:, 0])
    phase_x = torch.exp(-2j * torch.pi * move[:, 1, None] * cutter._kx[0])
    plain = cutter.compare_torch(spectra, phase_y, phase_x, cutter.first_weight)
    for one, other in zip(fast, plain, strict=True):
        assert np.allclose(one, other, rtol=2e-3, atol=2e-3 * np.abs(other).max())


def test_a_newton_step_finds_a_small_shift():
    rng = np.random.default_rng(6)
    still = torch.from_numpy(_blobs(rng, (128, 128), []))
    moved = torch.from_numpy(_blobs(np.random.default_rng(6), (128, 128), [(0.4, -0.3)]))
    pooled = torch.stack([still, still, still, moved])
    cutter = Cutter(pooled, Patches.lay((128, 128), (1, 1)), 1, 150.0, 1)
    steps, _, _ = cutter.newton(np.zeros((1, 4, 2)), cutter.first_weight)
    # frame 4 shows everything 0.4 px lower and 0.3 px left, so it has to go the other way
    assert steps[0, 3] - steps[0, 0] == pytest.approx([-0.4, 0.3], abs=0.01)


@pytest.mark.parametrize("n", [2, 3])
def test_two_or_three_frames_are_brought_together(n):
    frames = [_blobs(np.random.default_rng(6), (128, 128), [(2.0 * i, -3.0 * i)]) for i in range(n)]
    pooled = torch.from_numpy(np.stack(frames))
    shifts = search_shifts(pooled, b_factor=9.0, max_shift=20.0).double().numpy()
    found = refine_field(
        pooled, shifts, pool=1, shape=(128, 128), grid=(0, 0), b_factor=150.0
    ).field.mean_shifts()
    expected = np.stack([[-2.0 * i, 3.0 * i] for i in range(n)])
    assert np.abs(found - expected).max() < 0.15


def _blobs(rng: np.random.Generator, shape: tuple[int, int], moved: list[tuple[float, float]]) -> np.ndarray:
    y, x = np.meshgrid(np.arange(shape[0]), np.arange(shape[1]), indexing="ij")
    dy, dx = moved[0] if moved else (0.0, 0.0)
    image = np.zeros(shape)
    for cy, cx in rng.uniform(10, shape[0] - 10, (60, 2)):
        image += np.exp(-((y - cy - dy) ** 2 + (x - cx - dx) ** 2) / (2 * 4.0**2))
    return image.astype(np.float32)


def test_a_drift_of_many_pixels_is_found_in_noise():
    rng = np.random.default_rng(7)
    true = np.stack([np.linspace(0, 36, 12), np.linspace(0, -28, 12)], axis=1)
    frames = [
        _blobs(np.random.default_rng(9), (256, 256), [(-dy, -dx)]) + rng.normal(0, 1.0, (256, 256))
        for dy, dx in true
    ]
    pooled = torch.from_numpy(np.stack(frames).astype(np.float32))
    for group in (1, 3):
        found = search_shifts(pooled, b_factor=9.0, max_shift=50.0, group=group).numpy()
        assert np.abs(found - true).max() < (1.0 if group == 1 else 4.0)


def test_critical_dose_is_that_of_grant_and_grigorieff():
    assert critical_dose(np.array([0.1]))[0] == pytest.approx(0.245 * 0.1**-1.665 + 2.81)
    assert critical_dose(np.array([0.1]), 200.0)[0] == pytest.approx(0.8 * (0.245 * 0.1**-1.665 + 2.81))
    assert np.isinf(critical_dose(np.array([0.0]))[0])
    with pytest.raises(ValueError, match="voltage_kV"):
        critical_dose(np.array([0.1]), 40.0)


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(1, 80),
    dose=st.floats(0.1, 5.0),
    before=st.floats(0.0, 200.0),
    voltage=st.sampled_from([100.0, 200.0, 300.0]),
)
def test_weights_keep_noise_and_early_frames_count_most(n, dose, before, voltage):
    k = np.linspace(0, 0.5, 64)
    weights = dose_weights(n, k, dose, pre_exposure=before, voltage_kV=voltage)
    assert np.allclose((weights**2).sum(axis=0), 1.0)
    assert (np.diff(weights, axis=0) <= 1e-12).all()
    assert np.allclose(weights[:, 0], 1 / np.sqrt(n))


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize(("n", "dose"), [(1, 1.0), (2, 1.0), (16, 1.2), (40, 1.0), (80, 0.5), (40, 2.0)])
def test_a_few_sums_stand_for_all_dose_weights(n, dose, plain):
    weights = dose_weights(n, np.linspace(0, 0.7, 500), dose)
    factors, curves = low_rank_weights(weights, with_plain=plain)
    assert len(factors) <= 8
    assert np.abs(factors.T @ curves - weights).max() <= 1.1e-3 * weights.max()
    if plain:
        assert (factors[0] == 1.0).all()


def test_hot_pixels_are_found_and_good_ones_left():
    rng = np.random.default_rng(11)
    total = rng.poisson(40.0, (300, 413)).astype(np.float32)
    bad = {(10, 20), (150, 400), (299, 412), (77, 78)}
    for y, x in bad:
        total[y, x] = 400.0
    total[200, 200] = 0.0
    found = find_hot_pixels(total, None)
    assert bad | {(200, 200)} <= {(int(y), int(x)) for y, x in np.argwhere(found)}
    assert found.sum() < 10


def test_a_pattern_all_over_isn_t_taken_for_hot_pixels():
    total = np.ones((256, 256), np.float32)
    total[::8, ::8] = 1000.0
    assert not find_hot_pixels(total, None).any()


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_bad_pixels_take_values_of_neighbours_of_the_same_frame(dtype):
    bad = np.zeros((64, 64), bool)
    bad[20, 30] = bad[:, 50] = bad[0, 0] = True
    frame = np.random.default_rng(12).integers(3, 9, (64, 64)).astype(dtype)
    frame[bad] = 0
    untouched = frame.copy()
    repairs = plan_repairs(bad)
    repairs.apply(frame, 4)
    assert (frame[bad] >= 3).all()
    assert (frame[~bad] == untouched[~bad]).all()
    near = untouched[18:23, 28:33]
    assert frame[20, 30] in near


def test_a_hole_without_good_neighbours_is_refused():
    bad = np.zeros((200, 200), bool)
    bad[20:180, 20:180] = True
    with pytest.raises(ValueError, match="no good one"):
        plan_repairs(bad)


def test_a_reference_tells_its_defects():
    reference = np.ones((50, 60), np.float32)
    reference[3, 4], reference[5, 6], reference[7, 8] = 0.0, np.nan, 100.0
    factor, defects = gain_factor(reference)
    assert defects.sum() == 3
    assert (factor == 1.0).all()
    with pytest.raises(ValueError, match="zero, negative or not finite"):
        gain_factor(np.zeros((8, 8), np.float32))


def test_a_field_goes_through_relion_s_model_and_back():
    rng = np.random.default_rng(13)
    t = np.arange(20.0)
    powers = np.stack([t, t**2, t**3]) / 20.0 ** np.arange(1, 4)[:, None]
    field = np.einsum("pt,apk->tak", powers, rng.normal(size=(2, 3, 6)))
    field[:, :, 0] += np.cumsum(rng.normal(size=(20, 2)), axis=0)
    field -= field[:1]
    motion = MotionField(field, (300, 400))
    shifts, coefficients, lost = motion.relion_model()
    assert lost < 1e-6
    assert len(coefficients) == 36
    again = MotionField.from_relion(shifts, coefficients, (300, 400))
    y, x = np.array([0.0, 150.0, 299.0]), np.array([399.0, 10.0, 200.0])
    assert np.allclose(again.at(y, x), motion.at(y, x), atol=1e-6)
    assert np.allclose(shifts, motion.mean_shifts())


def test_relion_s_own_coefficients_mean_what_relion_means(real_data):
    from vitriflow.formats import read_star

    blocks = read_star(real_data / "empiar-10204-relion5" / "MotionCorr" / "20170629_00021_frameImage.star")
    coefficients = blocks["local_motion_model"]["rlnMotionModelCoeff"].to_numpy(float)
    table = blocks["global_shift"]
    shifts = table[["rlnMicrographShiftY", "rlnMicrographShiftX"]].to_numpy(float)
    motion = MotionField.from_relion(shifts, coefficients, (3838, 3710))
    # by hand, frame 5 at the image's corner (x, y) = (0, 0), that is u = v = -1/2
    z = np.array([4.0, 16.0, 64.0])
    terms = np.array([1, -0.5, 0.25, -0.5, 0.25, 0.25])
    x_local = terms @ (coefficients[:18].reshape(6, 3) @ z)
    found = motion.at(np.zeros(1), np.zeros(1))[4, 0]
    assert found[1] == pytest.approx(shifts[4, 1] + x_local)


def test_smoothing_takes_noise_off_a_calm_track_and_leaves_a_jittery_one():
    rng = np.random.default_rng(14)
    calm = 5 * (1 - np.exp(-np.arange(40) / 8))
    noisy = calm + rng.normal(0, 0.3, 40)
    assert np.std(smooth_track(noisy, 0.09) - calm) < 0.15
    jittery = np.cumsum(rng.normal(0, 3.0, 40))
    assert np.std(smooth_track(jittery + rng.normal(0, 0.1, 40), 0.01) - jittery) < 0.12


def test_pooling_means_counts_times_gain():
    rng = np.random.default_rng(15)
    frames = rng.integers(0, 9, (2, 13, 22)).astype(np.uint8)
    gain = rng.uniform(0.5, 2, (13, 22)).astype(np.float32)
    expected = (frames * gain)[:, :12, :21].reshape(2, 4, 3, 7, 3).mean(axis=(2, 4))
    assert np.allclose(pool_frames(frames, gain, 3, threads=2), expected, rtol=1e-5)


def test_cropping_a_spectrum_bins_a_smooth_image():
    y, x = np.meshgrid(np.arange(60), np.arange(84), indexing="ij")
    image = torch.from_numpy(np.cos(2 * np.pi * (3 * y / 60 + 5 * x / 84)))
    small = fourier_crop(torch.fft.rfft2(image), (60, 84), (30, 42))
    assert torch.allclose(torch.fft.irfft2(small, s=(30, 42)) / 4, image[::2, ::2], atol=1e-6)
    with pytest.raises(ValueError, match="larger"):
        fourier_crop(small, (30, 42), (60, 84))


def test_a_curve_is_applied_at_each_frequency():
    ky, kx = frequencies((30, 40))
    spectrum = torch.ones((30, 21), dtype=torch.complex64)
    total = torch.zeros_like(spectrum)
    curve = np.linspace(0.0, 1.0, 1001)  # the curve's value is the frequency in cycles/px
    add_times_curve(total, spectrum, curve, 1000.0, ky, kx, threads=2)
    assert torch.allclose(total.real, torch.hypot(*torch.broadcast_tensors(ky, kx)), atol=6e-4)
    plain = torch.zeros_like(spectrum)
    add_times_curve_torch(plain, spectrum, curve, 1000.0, ky, kx)
    assert torch.allclose(plain, total, atol=1.1e-3)


@given(st.integers(1, 5000))
def test_good_sizes_are_even_not_smaller_and_have_small_factors(n):
    size = good_size(n)
    assert size >= n
    assert size % 2 == 0
    for prime in (2, 3, 5):
        while size % prime == 0:
            size //= prime
    assert size == 1
