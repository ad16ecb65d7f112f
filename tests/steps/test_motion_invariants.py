"""Images that can't be what the movie shows are never passed on."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.kernels.motion_movies import movie
from vitriflow.errors import BrokenInvariant, Reason
from vitriflow.kernels import Corrected, MotionSettings, correct_movie, gain_factor
from vitriflow.steps.motion_invariants import check_images

Spoil = Callable[[Corrected], Corrected]


@pytest.fixture(scope="module", params=[(384, 512), (400, 400)], ids=["oblong", "square"])
def corrected(request: pytest.FixtureRequest) -> Corrected:
    case = movie(n_frames=6, dose=4.0, shape=request.param)
    gain, defects = gain_factor(case.gain)
    settings = MotionSettings(pixel_size_A=1.0, dose_per_frame=4.0, unweighted=True, halves=True)
    frames = case.frames
    return correct_movie(lambda: iter(frames), 6, case.shape, settings, gain=gain, defects=defects)


def test_a_sound_movie_passes(corrected: Corrected) -> None:
    check_images(corrected, 1.0)


def _black(image: torch.Tensor | None) -> torch.Tensor:
    assert image is not None
    return torch.zeros_like(image)


def _nan(image: torch.Tensor) -> torch.Tensor:
    spoilt = image.clone()
    spoilt[17, 23] = float("nan")
    return spoilt


def _noise(image: torch.Tensor | None) -> torch.Tensor:
    assert image is not None
    random = torch.from_numpy(np.random.default_rng(2).standard_normal(tuple(image.shape)))
    return (image.mean() + image.std() * random).to(torch.float32)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda c: replace(c, odd=_black(c.odd)), Reason.CONSTANT),
        (lambda c: replace(c, even=c.even + 1e-3 * _noise(c.even) - c.even), Reason.INTENSITY),
        (lambda c: replace(c, odd=c.odd / 16), Reason.INTENSITY),
        (lambda c: replace(c, unweighted=16 * c.unweighted), Reason.INTENSITY),
        (lambda c: replace(c, micrograph=_nan(c.micrograph)), Reason.NOT_FINITE),
        (lambda c: replace(c, even=_nan(c.even)), Reason.NOT_FINITE),
        (lambda c: replace(c, micrograph=c.micrograph.flip(0)), Reason.ORIENTATION),
        (lambda c: replace(c, odd=c.odd.flip(1)), Reason.ORIENTATION),
        (lambda c: replace(c, even=torch.rot90(c.even, 2)), Reason.ORIENTATION),
        (lambda c: replace(c, even=_noise(c.even)), Reason.HALVES_DISAGREE),
        (lambda c: replace(c, micrograph=c.micrograph[::2, ::2]), Reason.WRONG_SIZE),
    ],
    ids=[
        "black half",
        "nearly black half",
        "half off by 16",
        "sum off by 16",
        "NaN",
        "NaN in a half",
        "flipped in y",
        "half flipped in x",
        "half turned",
        "half of another movie",
        "binned",
    ],
)
def test_spoilt_images_are_refused_by_name(corrected: Corrected, spoil: Spoil, reason: Reason) -> None:
    with pytest.raises(BrokenInvariant) as caught:
        check_images(spoil(corrected), 1.0)
    assert caught.value.reason is reason


def test_swapped_axes_are_refused(corrected: Corrected) -> None:
    square = corrected.micrograph.shape[0] == corrected.micrograph.shape[1]
    with pytest.raises(BrokenInvariant) as caught:
        check_images(replace(corrected, micrograph=corrected.micrograph.T.contiguous()), 1.0)
    assert caught.value.reason is (Reason.ORIENTATION if square else Reason.WRONG_SIZE)
    if square:
        assert "y and x swapped" in str(caught.value)
