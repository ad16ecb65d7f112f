"""Specimen tilt from the defocus over the field."""

import math

import pytest
import torch

from tests.kernels.ctf_cases import AMPLITUDE_CONTRAST, angle_between
from vitriflow.errors import BadImage, BadParameter
from vitriflow.kernels import CtfFit, Optics, ctf_2d, fit_ctf, fit_tilt, known_tilt, power_spectrum

OPTICS = Optics(300.0, 2.7, AMPLITUDE_CONTRAST)
PIXEL_A = 1.5


def tilted(mean_A: float, tilt_deg: float, axis_deg: float, seed: int, size: int = 2048) -> torch.Tensor:
    """White scatterers on a tilted plane: the field is blended from images at 16 defoci."""
    generator = torch.Generator().manual_seed(seed)
    ky = torch.fft.fftfreq(size, PIXEL_A)[:, None]
    kx = torch.fft.rfftfreq(size, PIXEL_A)[None]
    squared = ky**2 + kx**2
    power = 0.3 * torch.exp(-30.0 * squared) * (1.0 + 8.0 * torch.exp(-900.0 * squared))
    scattered = torch.fft.rfft2(torch.randn((size, size), generator=generator)) * power.sqrt()
    place = (torch.arange(size) - 0.5 * size) * PIXEL_A
    uphill = math.radians(axis_deg + 90.0)
    height = math.tan(math.radians(tilt_deg)) * (
        place[:, None] * math.sin(uphill) + place[None, :] * math.cos(uphill)
    )
    levels = torch.linspace(float(height.min()), float(height.max()) + 1e-3, 16)
    step = float(levels[1] - levels[0])
    image = torch.zeros((size, size))
    for level in levels.tolist():
        ctf = ctf_2d(
            (size, size), PIXEL_A, mean_A + 300 + level, mean_A - 300 + level, 30.0, 300.0, 2.7, 0.07
        )
        share = (1.0 - (height - level).abs() / step).clamp(min=0.0)
        image += share * torch.fft.irfft2(scattered * ctf, s=(size, size))
    return image + torch.randn((size, size), generator=generator)


def fitted(image: torch.Tensor) -> CtfFit:
    spectrum = power_spectrum(image, PIXEL_A)
    return fit_ctf(spectrum.amplitude, spectrum.pixel_size_A, 300.0, 2.7, AMPLITUDE_CONTRAST)


@pytest.mark.slow
def test_a_tilt_is_found_within_4_degrees_and_its_axis_within_8() -> None:
    tilt, axis, mean = 50.0, 70.0, 25000.0
    image = tilted(mean, tilt, axis, seed=62)
    before = fitted(image)
    found = fit_tilt(image, PIXEL_A, before, OPTICS)
    assert found.tilt_deg == pytest.approx(tilt, abs=4.0)
    assert abs((found.axis_deg - axis + 180.0) % 360.0 - 180.0) < 8.0
    assert abs(found.tilt_deg - tilt) < 3.5 * found.tilt_uncertainty_deg
    assert found.gain > 5.0
    after = fit_ctf(found.spectrum.amplitude, found.spectrum.pixel_size_A, 300.0, 2.7, AMPLITUDE_CONTRAST)
    assert after.fit_resolution_A is not None
    assert before.fit_resolution_A is not None
    assert after.fit_resolution_A < 0.75 * before.fit_resolution_A  # the blur is gone
    assert 0.5 * (after.defocus_u_A + after.defocus_v_A) == pytest.approx(mean, abs=0.005 * mean)
    assert abs(angle_between(after.defocus_angle_deg, 30.0)) < 5.0


def test_a_flat_specimen_is_called_flat() -> None:
    image = tilted(15000.0, 0.0, 0.0, seed=63, size=1536)
    found = fit_tilt(image, PIXEL_A, fitted(image), OPTICS)
    assert found.tilt_deg < 4.0
    assert found.gain < 3.0


def test_a_field_too_small_for_patches_is_refused_by_name() -> None:
    image = tilted(15000.0, 0.0, 0.0, seed=64, size=640)
    with pytest.raises(BadImage, match="Leave estimate_tilt out"):
        fit_tilt(image, PIXEL_A, fitted(image), OPTICS)


def test_with_a_known_tilt_the_blur_is_gone_and_the_centre_is_right() -> None:
    image = tilted(25000.0, 50.0, 70.0, seed=66, size=1536)
    before = fitted(image)
    known = known_tilt(image, PIXEL_A, before, OPTICS, 50.0, 70.0, (2000.0, 50000.0))
    assert known.defocus_A == pytest.approx(25000.0, abs=250.0)
    assert known.gain > 3.0
    assert known.other_way < -5.0
    after = fit_ctf(known.spectrum.amplitude, known.spectrum.pixel_size_A, 300.0, 2.7, AMPLITUDE_CONTRAST)
    assert 0.5 * (after.defocus_u_A + after.defocus_v_A) == pytest.approx(25000.0, abs=125.0)
    assert before.fit_resolution_A is not None
    assert after.fit_resolution_A is not None
    assert after.fit_resolution_A < 0.75 * before.fit_resolution_A


def test_a_tilt_steeper_than_any_stage_goes_is_refused() -> None:
    image = torch.randn((640, 640), generator=torch.Generator().manual_seed(1))
    with pytest.raises(BadParameter, match="tilt_angle_deg"):
        known_tilt(image, PIXEL_A, fitted(image), OPTICS, 85.0, 0.0, (2000.0, 50000.0))
