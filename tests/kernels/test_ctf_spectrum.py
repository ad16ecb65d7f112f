"""Power spectra of micrographs: layout, scale, and what isn't let through."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vitriflow.errors import BadImage, BadParameter, Reason
from vitriflow.kernels.spectrum import full_amplitude, power_spectrum, tile_layout


def noise(height: int, width: int, seed: int = 0) -> torch.Tensor:
    return torch.randn((height, width), generator=torch.Generator().manual_seed(seed))


def test_the_unfolded_half_is_the_whole_transform() -> None:
    image = noise(64, 64)
    whole = torch.fft.fftshift(torch.fft.fft2(image).abs())
    half = torch.fft.rfft2(image).abs().square()
    torch.testing.assert_close(full_amplitude(half), whole, rtol=1e-4, atol=1e-3)


def test_a_wave_stands_where_its_frequency_is() -> None:
    y, x = torch.meshgrid(torch.arange(1500.0), torch.arange(1400.0), indexing="ij")
    wave = torch.sin(2 * math.pi * (0.05 * y + 0.10 * x)) + 0.1 * noise(1500, 1400)
    spectrum = power_spectrum(wave, 1.0)
    box = spectrum.amplitude.shape[0]
    peak = int(torch.argmax(spectrum.amplitude))
    row, column = peak // box - box // 2, peak % box - box // 2
    sign = 1 if column > 0 else -1
    step = 1.0 / (box * spectrum.pixel_size_A)
    assert sign * row * step == pytest.approx(0.05, abs=step)
    assert sign * column * step == pytest.approx(0.10, abs=step)


def test_counting_noise_is_flat() -> None:
    amplitude = power_spectrum(noise(2048, 2048), 1.0).amplitude
    centre = amplitude[226:286, 226:286].mean()
    rim = amplitude[:60, :60].mean()
    assert float(centre / rim) == pytest.approx(1.0, abs=0.02)


@given(
    height=st.integers(400, 900),
    width=st.integers(400, 900),
    pixel_A=st.floats(0.5, 8.0),
)
@settings(max_examples=15, deadline=None)
def test_any_shape_gives_a_finite_symmetric_square(height: int, width: int, pixel_A: float) -> None:
    spectrum = power_spectrum(noise(height, width), pixel_A, box=128)
    amplitude = spectrum.amplitude
    assert amplitude.shape[0] == amplitude.shape[1]
    assert torch.isfinite(amplitude).all()
    assert spectrum.pixel_size_A >= min(pixel_A, 1.3)
    torch.testing.assert_close(amplitude[1:, 1:], amplitude[1:, 1:].flip(0, 1), rtol=1e-3, atol=1e-4)


def test_fine_pixels_are_cut_at_1_4_A_and_coarse_ones_kept() -> None:
    assert tile_layout((4096, 4096), 0.7)[1:] == (512, pytest.approx(1.4, abs=0.03))
    assert tile_layout((4096, 4096), 2.5) == (512, 512, 2.5)


def test_a_speck_of_dirt_does_not_rule_the_spectrum() -> None:
    clean = noise(2048, 2048)
    dirty = clean.clone()
    dirty[:300, :300] *= 300.0
    one, two = power_spectrum(clean, 1.4).amplitude, power_spectrum(dirty, 1.4).amplitude
    ratio = (two / two.mean()) / (one / one.mean())
    assert float(ratio.std()) < 0.15


def test_padding_without_contrast_is_left_out() -> None:
    image = torch.zeros((2048, 2048))
    image[:1024] = noise(1024, 2048)
    whole = power_spectrum(noise(2048, 2048), 1.4).n_tiles
    assert 0 < power_spectrum(image, 1.4).n_tiles < whole


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (torch.zeros(600, 600), Reason.ALL_ZERO),
        (torch.full((600, 600), 7.0), Reason.CONSTANT),
        (torch.full((600, 600), math.nan), Reason.NOT_FINITE),
        (
            noise(600, 600).index_put((torch.tensor([5]), torch.tensor([6])), torch.tensor(math.inf)),
            Reason.NOT_FINITE,
        ),
        (noise(60, 4000), Reason.WRONG_SIZE),
        (noise(4, 600)[None], Reason.WRONG_SIZE),
    ],
)
def test_an_image_that_holds_no_picture_is_refused_by_name(image: torch.Tensor, reason: Reason) -> None:
    with pytest.raises(BadImage) as caught:
        power_spectrum(image, 1.0)
    assert caught.value.reason == reason


@pytest.mark.parametrize(("pixel_A", "box"), [(0.0, 512), (math.nan, 512), (1.0, 100), (1.0, 513)])
def test_a_box_or_pixel_that_cannot_be_is_refused(pixel_A: float, box: int) -> None:
    with pytest.raises(BadParameter):
        power_spectrum(noise(600, 600), pixel_A, box=box)
