"""The CTF itself: phase, sign, layout and the direction of its angle."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vitriflow.errors import BadParameter
from vitriflow.kernels import ctf_2d, ctf_phase

OPTICS = {"voltage_kV": 300.0, "cs_mm": 2.7, "amplitude_contrast": 0.1}


def at(ky: float, kx: float, **changes: float) -> float:
    values = {"defocus_u_A": 12000.0, "defocus_v_A": 10000.0, "angle_deg": 0.0} | OPTICS | changes
    one = torch.tensor([ky], dtype=torch.float64), torch.tensor([kx], dtype=torch.float64)
    return float(ctf_phase(*one, **values))


def test_the_phase_is_the_textbook_s() -> None:
    wavelength = 0.0196875  # A, 300 kV, relativistic, from any textbook
    expected = math.pi * wavelength * 12000 * 0.01 - 0.5 * math.pi * 2.7e7 * wavelength**3 * 1e-4
    assert at(0.0, 0.1) == pytest.approx(expected + math.asin(0.1), rel=1e-4)


def test_the_larger_defocus_lies_along_the_angle_from_x_towards_y() -> None:
    k = 0.1
    direction = math.radians(35.0)
    along = at(k * math.sin(direction), k * math.cos(direction), angle_deg=35.0)
    across = at(k * math.cos(direction), -k * math.sin(direction), angle_deg=35.0)
    assert along == pytest.approx(at(0.0, k), abs=1e-9)
    assert across == pytest.approx(at(0.0, k, defocus_u_A=10000.0), abs=1e-9)


def test_a_phase_plate_adds_its_shift() -> None:
    assert at(0.0, 0.1, phase_shift_deg=90.0) - at(0.0, 0.1) == pytest.approx(math.pi / 2)


def test_dense_matter_is_dark_at_underfocus() -> None:
    image = ctf_2d((64, 64), 2.0, 10000.0, 10000.0, 0.0, **OPTICS)
    assert float(image[0, 0]) == pytest.approx(-0.1, abs=1e-6)
    assert float(image[0, 1]) < 0


def test_half_and_full_layouts_agree() -> None:
    full = ctf_2d((48, 50), 1.3, 15000.0, 12000.0, 25.0, **OPTICS, half=False)
    half = ctf_2d((48, 50), 1.3, 15000.0, 12000.0, 25.0, **OPTICS)
    assert half.shape == (48, 26)
    torch.testing.assert_close(half[:, :25], full[:, :25])


@given(
    angle=st.floats(-90, 90),
    defocus=st.floats(1000, 50000),
    astigmatism=st.floats(0, 3000),
)
@settings(max_examples=30, deadline=None)
def test_turning_the_angle_by_180_degrees_changes_nothing(
    angle: float, defocus: float, astigmatism: float
) -> None:
    values = (defocus + astigmatism, defocus)
    one = ctf_2d((32, 32), 2.0, *values, angle, **OPTICS, dtype=torch.float64)
    two = ctf_2d((32, 32), 2.0, *values, angle + 180.0, **OPTICS, dtype=torch.float64)
    np.testing.assert_allclose(one.numpy(), two.numpy(), atol=1e-7)


@pytest.mark.parametrize(
    ("name", "value"),
    [("voltage_kV", 300000.0), ("cs_mm", -1.0), ("amplitude_contrast", 7.0), ("voltage_kV", math.nan)],
)
def test_optics_that_no_microscope_has_are_refused(name: str, value: float) -> None:
    with pytest.raises(BadParameter, match="Give the microscope's own value"):
        at(0.0, 0.1, **{name: value})
