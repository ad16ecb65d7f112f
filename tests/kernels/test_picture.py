"""Pictures for pages: same place, good contrast, named refusals."""

import numpy as np
import pytest
import torch

from vitriflow.errors import BadImage, Reason
from vitriflow.kernels.picture import grey, halves_grey, shrink, spectrum_grey


def test_shrinking_keeps_places_means_and_shape() -> None:
    y, x = np.mgrid[:900, :1200]
    image = 10.0 + 50.0 * np.exp(-((y - 300) ** 2 + (x - 900) ** 2) / 2000.0)
    small = shrink(image, 400).numpy()
    assert small.shape == (300, 400)
    assert np.unravel_index(small.argmax(), small.shape) == (100, 300)
    assert small.mean() == pytest.approx(image.mean(), rel=1e-5)


def test_a_small_image_stays_as_it_is() -> None:
    image = torch.arange(12.0).reshape(3, 4)
    assert torch.equal(shrink(image, 100), image)


def test_row_zero_stays_on_top() -> None:
    image = np.zeros((64, 64), dtype=np.float32)
    image[:8] = 1.0
    picture = grey(image, 0.0, 1.0).numpy()
    assert (picture[:8] == 255).all()
    assert (picture[8:] == 0).all()


def test_a_few_odd_pixels_do_not_dim_the_rest() -> None:
    image = np.random.default_rng(0).normal(size=(256, 256)).astype(np.float32)
    image[3, 3] = 1e6
    assert grey(image).numpy().std() > 40


def test_a_constant_image_is_mid_grey() -> None:
    assert (grey(np.full((8, 8), 3.0)).numpy() == 128).all()


def test_rings_are_seen_at_the_edge_of_a_spectrum_as_well_as_inside() -> None:
    y, x = np.mgrid[-128:128, -128:128]
    radius = np.hypot(y, x)
    rng = np.random.default_rng(1)
    background = 1000.0 * np.exp(-radius / 30.0) + 1.0
    rings = 0.2 * np.cos(radius**2 / 300.0)
    picture = spectrum_grey(background * (1.0 + rings) + 0.02 * rng.normal(size=radius.shape)).numpy()
    for low, high in ((40, 60), (90, 110)):
        band = (radius > low) & (radius < high)
        assert np.corrcoef(picture[band].astype(float), rings[band])[0, 1] > 0.7


def test_each_half_of_a_diagnostic_has_its_own_contrast() -> None:
    data = np.random.default_rng(2).normal(0.0, 1e-3, (64, 32))
    fit = np.tile(np.linspace(0.0, 1.0, 64)[:, None], (1, 32))
    picture = halves_grey(np.concatenate([data, fit], axis=1)).numpy()
    assert picture[:, :32].std() > 40
    assert picture[:, 32:].std() > 40


@pytest.mark.parametrize("make", [lambda image: shrink(image, 16), grey, spectrum_grey, halves_grey])
def test_pixels_that_are_not_finite_are_refused(make: object) -> None:
    image = np.ones((32, 32), dtype=np.float32)
    image[4, 5] = np.nan
    with pytest.raises(BadImage) as refused:
        make(image)  # type: ignore[operator]
    assert refused.value.reason == Reason.NOT_FINITE


def test_a_stack_is_refused() -> None:
    with pytest.raises(BadImage):
        shrink(np.zeros((2, 8, 8)), 4)
