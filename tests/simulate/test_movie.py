"""The physics: what is put in is what can be measured, with an independent ruler."""

import json

import numpy as np
import pytest
import scipy.fft
import scipy.ndimage

from vitriflow.simulate import Motion, MotionSpec, MovieSpec, Truth, simulate_movie
from vitriflow.units import electron_wavelength_A

STILL = MotionSpec(settling_A=0, drift_A=0, jitter_A=0, doming_A=0)
FLAT = {"gain_spread": 0.0, "n_dead_columns": 0, "n_dead_pixels": 0, "n_hot_pixels": 0, "beam_gradient": 0.0}


def displacement(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Where content of ``first`` stands in ``second``, (y, x) px, by a plain phase-only correlation."""
    window = np.hanning(first.shape[0])[:, None] * np.hanning(first.shape[1])
    a = scipy.fft.fft2((first - first.mean()) * window)
    b = scipy.fft.fft2((second - second.mean()) * window)
    k = np.hypot(
        *np.meshgrid(scipy.fft.fftfreq(first.shape[0]), scipy.fft.fftfreq(first.shape[1]), indexing="ij")
    )
    correlation = scipy.fft.ifft2(np.conj(a) * b * np.exp(-((k / 0.12) ** 2))).real
    y, x = np.unravel_index(np.argmax(correlation), correlation.shape)
    height, width = correlation.shape

    def vertex(before: float, top: float, after: float) -> float:
        return 0.5 * (before - after) / (before - 2 * top + after)

    sub_y = vertex(correlation[y - 1, x], correlation[y, x], correlation[(y + 1) % height, x])
    sub_x = vertex(correlation[y, x - 1], correlation[y, x], correlation[y, (x + 1) % width])
    found = np.array([y + sub_y, x + sub_x])
    half = np.array([height / 2, width / 2])
    return (found + half) % (2 * half) - half


def bright_pair(doming_A: float) -> tuple[Motion, list[np.ndarray]]:
    """Two frames so bright that noise hardly matters, with motion of several px."""
    motion = MotionSpec(settling_A=9.0, drift_A=3.0, doming_A=doming_A, direction_deg=25.0, blur=False)
    spec = MovieSpec(
        shape=(768, 640), n_frames=2, dose_per_frame_e_per_A2=90.0, dtype="uint16", motion=motion, seed=11,
        radiation_damage=False, **FLAT,
    )  # fmt: skip
    movie = simulate_movie(spec)
    return movie.truth.motion, [frame.astype(np.float64) for frame in movie]


def test_adding_the_true_shift_to_a_frames_coordinates_gives_frame_one():
    motion, (first, second) = bright_pair(0.0)
    assert np.allclose(motion.global_shifts_px[0], 0)
    assert np.abs(motion.global_shifts_px[1]).min() > 1
    # a detail at p on frame 1 stands at p - shift on frame 2
    found = displacement(first[:640], second[:640])
    assert np.allclose(found, -motion.global_shifts_px[1], atol=0.1)


def test_local_motion_is_where_the_truth_says():
    motion, (first, second) = bright_pair(5.0)
    errors, locals_ = [], []
    for y in (0, 512):
        for x in (0, 384):
            found = displacement(first[y : y + 256, x : x + 256], second[y : y + 256, x : x + 256])
            centre = np.array(y + 127.5), np.array(x + 127.5)
            errors.append(found + motion.at(1, *centre))
            locals_.append(motion.local_at(1, *centre))
    assert np.abs(locals_).max() > 1.0
    assert np.abs(errors).max() < 0.25


def test_one_seed_is_one_movie_and_another_seed_another():
    spec = MovieSpec(shape=(256, 320), n_frames=2, seed=5)
    first = list(simulate_movie(spec))
    again = list(simulate_movie(spec))
    other = list(simulate_movie(spec.model_copy(update={"seed": 6})))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0], other[0])


def test_frames_are_the_same_in_any_order():
    movie = simulate_movie(MovieSpec(shape=(256, 256), n_frames=3, seed=5))
    last = movie.frame(2)
    assert np.array_equal(list(movie)[2], last)


@pytest.mark.parametrize(("dose", "pixel"), [(0.3, 1.0), (1.2, 0.8), (40.0, 1.0)])
def test_counts_are_poisson_about_the_dose(dose, pixel):
    spec = MovieSpec(
        shape=(512, 512), n_frames=1, dose_per_frame_e_per_A2=dose, pixel_size_A=pixel, n_particles=0,
        ice_noise=0.0, dtype="uint16", motion=STILL, **FLAT,
    )  # fmt: skip
    frame = next(iter(simulate_movie(spec))).astype(np.float64)
    mean = dose * pixel**2
    assert frame.mean() == pytest.approx(mean, rel=5 / 512 / np.sqrt(mean))
    assert frame.var() == pytest.approx(mean, rel=0.02)
    assert (frame == 0).mean() == pytest.approx(np.exp(-mean), abs=0.005)


def test_counts_of_neighbours_and_of_frames_are_independent():
    spec = MovieSpec(
        shape=(512, 512), n_frames=2, n_particles=0, ice_noise=0.0, dtype="uint16", motion=STILL, **FLAT
    )
    a, b = (frame - frame.mean() for frame in map(np.float64, simulate_movie(spec)))
    limit = 5 / 512
    for other in (np.roll(a, 1, 0), np.roll(a, 1, 1), np.roll(a, (1, 1), (0, 1)), b):
        assert abs((a * other).mean() / a.var()) < limit


def test_counts_times_gain_are_flat():
    spec = MovieSpec(
        shape=(256, 256), n_frames=24, dose_per_frame_e_per_A2=20.0, n_particles=0, ice_noise=0.0,
        motion=STILL, beam_gradient=0.0, n_hot_pixels=0, dtype="uint16",
    )  # fmt: skip
    movie = simulate_movie(spec)
    raw = movie.sum() / spec.n_frames
    alive = movie.gain > 0
    corrected = raw * movie.gain
    assert raw[alive].std() / raw[alive].mean() > 0.05
    noise = np.sqrt(1.0 / (spec.n_frames * 20.0))
    assert corrected[alive].std() / corrected[alive].mean() == pytest.approx(noise, rel=0.05)
    assert corrected[alive].mean() == pytest.approx(20.0, rel=0.01)


def test_defects_count_as_they_should():
    spec = MovieSpec(shape=(256, 256), n_frames=1, n_dead_columns=2, n_hot_pixels=15, dtype="uint16")
    movie = simulate_movie(spec)
    frame = movie.frame(0)
    assert len(movie.truth.dead_columns) == 2
    assert (frame[:, movie.truth.dead_columns] == 0).all()
    assert (movie.gain[:, movie.truth.dead_columns] == 0).all()
    y, x = movie.truth.hot_pixels.T
    assert len(y) > 10
    assert frame[y, x].min() > 10 * spec.dose_per_pixel
    assert (movie.gain[y, x] > 0).all()


def test_movies_of_one_camera_share_the_gain():
    a = simulate_movie(MovieSpec(shape=(128, 128), n_frames=1, seed=1))
    b = simulate_movie(MovieSpec(shape=(128, 128), n_frames=1, seed=2))
    assert np.array_equal(a.gain, b.gain)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "float32"])
def test_every_recorded_type_holds_the_same_counts(dtype):
    spec = MovieSpec(shape=(128, 128), n_frames=1, dtype=dtype, n_hot_pixels=0)
    reference = MovieSpec(shape=(128, 128), n_frames=1, dtype="uint16", n_hot_pixels=0)
    frame = simulate_movie(spec).frame(0)
    assert frame.dtype == np.dtype(dtype)
    assert np.array_equal(frame.astype(np.int64), simulate_movie(reference).frame(0).astype(np.int64))


@pytest.mark.parametrize(("phase", "amplitude"), [(0.0, 0.07), (90.0, 0.07), (40.0, 0.3)])
def test_rings_are_dark_where_the_formula_puts_zeros(phase, amplitude):
    defocus = 12000.0
    spec = MovieSpec(
        shape=(1024, 1024), n_frames=1, dose_per_frame_e_per_A2=300.0, dtype="uint16", motion=STILL, seed=3,
        defocus_u_A=defocus, defocus_v_A=defocus, radiation_damage=False, b_factor_A2=0.0, n_particles=0,
        ice_noise=3.0, phase_shift_deg=phase, amplitude_contrast=amplitude, **FLAT,
    )  # fmt: skip
    frame = simulate_movie(spec).frame(0).astype(np.float64)
    spectrum = np.abs(scipy.fft.rfft2(frame - frame.mean())) ** 2
    k = np.hypot(scipy.fft.fftfreq(1024)[:, None], scipy.fft.rfftfreq(1024)[None])
    # chi(k) = n pi, solved here with its own arithmetic
    wavelength = electron_wavelength_A(300.0)
    fine = np.linspace(0.035, 0.14, 200_000)
    chi = np.pi * wavelength * defocus * fine**2 - 0.5 * np.pi * 2.7e7 * wavelength**3 * fine**4
    chi += np.arcsin(amplitude) + np.pi * phase / 180
    zeros = fine[:-1][np.diff(np.floor(chi / np.pi)) != 0]
    tops = fine[:-1][np.diff(np.floor(chi / np.pi + 0.5)) != 0]

    def ring(at: float) -> float:
        return spectrum[np.abs(k - at) < 0.0006].mean()

    assert len(zeros) >= 4
    for zero in zeros:
        brightest = min(ring(top) for top in sorted(tops, key=lambda top: abs(top - zero))[:2])
        assert ring(zero) < 0.5 * brightest


def test_the_larger_defocus_lies_along_its_angle():
    """Rings lie closer to the centre along the direction of the larger defocus."""
    spec = MovieSpec(
        shape=(1024, 1024), n_frames=1, dose_per_frame_e_per_A2=300.0, dtype="uint16", motion=STILL, seed=3,
        defocus_u_A=14000.0, defocus_v_A=10000.0, defocus_angle_deg=30.0, radiation_damage=False,
        b_factor_A2=0.0, n_particles=0, ice_noise=3.0, **FLAT,
    )  # fmt: skip
    frame = simulate_movie(spec).frame(0).astype(np.float64)
    spectrum = np.abs(scipy.fft.fft2(frame - frame.mean())) ** 2
    ky, kx = np.meshgrid(scipy.fft.fftfreq(1024), scipy.fft.fftfreq(1024), indexing="ij")
    k, angle = np.hypot(ky, kx), np.rad2deg(np.arctan2(ky, kx))
    wavelength = electron_wavelength_A(300.0)

    def depth(direction: float, defocus: float) -> float:
        """Power at the first zero that ``defocus`` gives over that a little inside, in one direction."""
        zero = np.sqrt((1 - np.arcsin(0.07) / np.pi) / (wavelength * defocus))
        wedge = np.abs((angle - direction + 90) % 180 - 90) < 8
        at = spectrum[wedge & (np.abs(k - zero) < 0.001)].mean()
        inside = spectrum[wedge & (np.abs(k - 0.75 * zero) < 0.003)].mean()
        return at / inside

    assert depth(30.0, 14000.0) < 0.5 * depth(30.0, 10000.0)
    assert depth(-60.0, 10000.0) < 0.5 * depth(-60.0, 14000.0)


def test_particles_are_dark_where_the_truth_puts_them():
    spec = MovieSpec(
        shape=(768, 768), n_frames=1, dose_per_frame_e_per_A2=100.0, dtype="uint16", motion=STILL, seed=4,
        defocus_u_A=20000.0, defocus_v_A=20000.0, particle_spacing_A=250.0, **FLAT,
    )  # fmt: skip
    movie = simulate_movie(spec)
    frame = scipy.ndimage.gaussian_filter(movie.frame(0).astype(np.float64), 4)
    centres = movie.truth.particles_px
    assert len(centres) > 5
    y, x = np.ogrid[:768, :768]
    inner = [c for c in centres if c.min() > 80 and c.max() < 688]
    for cy, cx in inner:
        distance = np.hypot(y - cy, x - cx)
        assert frame[distance < 55].mean() < frame[(distance > 65) & (distance < 80)].mean()


def test_truth_survives_json():
    truth = simulate_movie(MovieSpec(shape=(256, 256), n_frames=3, seed=9)).truth
    again = Truth.from_dict(json.loads(json.dumps(truth.to_dict())))
    assert again.spec == truth.spec
    assert np.array_equal(again.particles_px, truth.particles_px)
    grid = np.arange(0.0, 256.0, 50.0)
    assert np.array_equal(again.motion.at(2, grid, grid), truth.motion.at(2, grid, grid))


def test_an_empty_hole_has_no_particles_and_still_images():
    movie = simulate_movie(MovieSpec(shape=(128, 128), n_frames=1, n_particles=0))
    assert movie.truth.particles_px.shape == (0, 2)
    assert movie.frame(0).std() > 0


def test_carbon_and_crystals_darken_and_keep_particles_off():
    plain = MovieSpec(shape=(768, 768), n_frames=1, seed=2, **FLAT)
    dirty = plain.model_copy(update={"carbon_edge": True, "n_ice_crystals": 6})
    clean_movie, dirty_movie = simulate_movie(plain), simulate_movie(dirty)
    assert dirty_movie.sum().mean() < 0.97 * clean_movie.sum().mean()
    local = scipy.ndimage.gaussian_filter(dirty_movie.sum(), 8)
    at = local[tuple(np.clip(np.round(dirty_movie.truth.particles_px).astype(int), 0, 767).T)]
    assert at.mean() > local.mean()


def test_damage_fades_fine_detail_more_than_coarse():
    spec = MovieSpec(shape=(256, 256), n_frames=12, dose_per_frame_e_per_A2=3.0, motion=STILL, seed=2)
    movie = simulate_movie(spec)
    early, late = (np.abs(scipy.fft.rfft2(movie.contrast(i))) for i in (0, 11))
    n = early.shape[0]
    k = np.hypot(scipy.fft.fftfreq(n)[:, None], scipy.fft.rfftfreq(n)[None])[:, : early.shape[1]]
    coarse, fine = (k > 0.02) & (k < 0.04), (k > 0.2) & (k < 0.25)
    assert late[fine].sum() / early[fine].sum() < 0.2
    assert late[coarse].sum() / early[coarse].sum() > 0.5


def test_motion_reads_back_from_its_record():
    motion = Motion(np.array([[0.0, 0.0], [1.0, -2.0]]), np.zeros((2, 2, 6)), (10, 20))
    assert np.allclose(Motion.from_dict(motion.to_dict(), (10, 20)).global_shifts_px, motion.global_shifts_px)
