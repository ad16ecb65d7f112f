"""Boxes cut out of micrographs."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vitriflow.errors import BadParameter
from vitriflow.kernels.extract import (
    apply_ctf,
    cut_boxes,
    inside_contrast,
    normalise,
    remove_dust,
    shrink,
)


def noise(n: int, box: int, seed: int = 0) -> torch.Tensor:
    return torch.randn((n, box, box), generator=torch.Generator().manual_seed(seed))


def blob(box: int, sigma: float) -> torch.Tensor:
    at = torch.arange(box, dtype=torch.float32) - box // 2
    return torch.exp(-(at[:, None] ** 2 + at[None] ** 2) / (2 * sigma**2))


def test_a_pick_stands_in_the_middle_of_its_box() -> None:
    micrograph = torch.zeros(60, 80)
    micrograph[20, 50] = 7.0
    boxes = cut_boxes(micrograph, torch.tensor([[20.9, 50.2]]), 16)
    assert boxes.images[0, 8, 8] == 7.0
    assert boxes.images.sum() == 7.0


@settings(max_examples=40)
@given(y=st.floats(0, 59), x=st.floats(0, 79), edge=st.sampled_from(["skip", "pad"]))
def test_boxes_over_the_edge_are_left_out_or_mirrored_but_never_wrap(y: float, x: float, edge: str) -> None:
    micrograph = torch.arange(60 * 80, dtype=torch.float32).reshape(60, 80)
    boxes = cut_boxes(micrograph, torch.tensor([[y, x]], dtype=torch.float64), 16, edge)
    row, column = math.floor(y), math.floor(x)
    whole = 8 <= row <= 52 and 8 <= column <= 72
    assert len(boxes.images) == (1 if whole or edge == "pad" else 0)
    assert boxes.over_edge == 1 - len(boxes.images)
    if len(boxes.images):
        assert boxes.images[0, 8, 8] == micrograph[row, column]
        padded = np.pad(micrograph.numpy(), 16, mode="reflect")
        expected = padded[row + 8 : row + 24, column + 8 : column + 24]
        assert np.array_equal(boxes.images[0].numpy(), expected)


def test_padding_keeps_no_pick_from_outside_the_micrograph() -> None:
    boxes = cut_boxes(torch.ones(40, 40), torch.tensor([[-3.0, 5.0], [40.0, 5.0]]), 16, "pad")
    assert boxes.over_edge == 2


def test_scaling_keeps_grey_values_and_the_middle() -> None:
    image = blob(64, 6.0)[None] * 3.0
    small = shrink(image, 32)
    assert small.shape == (1, 32, 32)
    assert float(small[0, 16, 16]) == pytest.approx(3.0, abs=0.02)
    assert float(small.mean()) == pytest.approx(float(image.mean()), rel=1e-4)


def test_scaling_up_is_refused() -> None:
    with pytest.raises(BadParameter, match="Only smaller boxes"):
        shrink(noise(1, 32), 64)


def test_the_background_gets_mean_zero_and_deviation_one_also_on_a_slope() -> None:
    at = torch.linspace(-5, 5, 64)
    images = 3.0 + 2.0 * noise(4, 64) + at[None, :, None] * 4.0
    levelled, good = normalise(images, 24.0)
    y = torch.arange(64) - 32
    outside = (y[:, None] ** 2 + y[None] ** 2) > 24.0**2
    assert good.all()
    assert levelled[:, outside].mean(dim=1).abs().max() < 1e-4
    assert levelled[:, outside].square().mean(dim=1).sqrt().sub(1).abs().max() < 1e-4


def test_inverting_makes_dark_protein_bright() -> None:
    images = noise(1, 64) - 20.0 * blob(64, 8.0)
    levelled, _ = normalise(images, 26.0, invert=True)
    assert float(levelled[0, 32, 32]) > 10.0


def test_constant_and_broken_boxes_are_named_and_become_zero() -> None:
    images = noise(3, 32)
    images[0] = 5.0
    images[1, 3, 3] = torch.nan
    levelled, good = normalise(images, 10.0)
    assert good.tolist() == [False, False, True]
    assert torch.isfinite(levelled).all()


def test_a_background_circle_as_large_as_the_box_is_refused() -> None:
    with pytest.raises(BadParameter, match="larger box"):
        normalise(noise(1, 32), 40.0)


def test_dust_goes_and_the_particle_stays() -> None:
    images = noise(2, 64)
    images[0, 5, 5], images[1, 60, 9] = 40.0, -40.0
    clean, count = remove_dust(images, 24.0, 8.0, 8.0, seed=3)
    assert count == 2
    assert clean.abs().max() < 8.0
    assert torch.equal(clean, remove_dust(images, 24.0, 8.0, 8.0, seed=3)[0])
    assert remove_dust(images, 24.0, None, None)[1] == 0


def test_flipping_phases_turns_only_what_the_ctf_turned() -> None:
    image = blob(64, 3.0)[None]
    transfer = torch.ones(1, 64, 33)
    transfer[:, 4:61] = -0.5
    imaged = torch.fft.irfft2(torch.fft.rfft2(image) * transfer, s=(64, 64))
    flipped = apply_ctf(imaged, transfer, "flip")
    spectrum, wanted = torch.fft.rfft2(flipped), torch.fft.rfft2(image) * transfer.abs()
    assert torch.allclose(spectrum, wanted, atol=1e-3)


def test_a_particle_has_more_contrast_than_noise() -> None:
    images, _ = normalise(noise(40, 64, 1), 24.0)
    empty = inside_contrast(images, 24.0)
    filled = inside_contrast(images + 0.8 * blob(64, 8.0), 24.0)
    assert float(empty.mean()) == pytest.approx(1.0, abs=0.25)
    assert float(filled.min()) > float(empty.max())
