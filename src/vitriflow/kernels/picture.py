"""Turns micrographs and power spectra into small grey pictures for people.

Pictures are as stored: row 0 of the array is the top row, so that positions drawn over them need
scaling only. (MRC has row 0 at the bottom of what other viewers show; theirs are upside down
against ours.)
"""

from typing import Any

import torch
from numpy.typing import NDArray

from vitriflow.errors import BadImage, Reason
from vitriflow.kernels.fourier import fourier_crop
from vitriflow.kernels.outliers import tamed

__all__ = ["grey", "halves_grey", "shrink", "spectrum_grey"]

Grey = torch.Tensor  # (height, width), uint8

_SAMPLE = 200_000  # pixels that quantiles are taken from


def _image(array: torch.Tensor | NDArray[Any], what: str) -> torch.Tensor:
    image = torch.as_tensor(array).to(torch.float32)
    if image.ndim != 2 or min(image.shape) < 2:
        raise BadImage(Reason.WRONG_SIZE, what, "one image (height, width)", f"shape {tuple(image.shape)}")
    # A sum shows any NaN or infinity
    if not bool(torch.isfinite(image.sum(dtype=torch.float64))):
        raise BadImage(Reason.NOT_FINITE, what, "finite values", "NaN or infinite pixels")
    return image


def _quantiles(image: torch.Tensor, low: float, high: float) -> tuple[float, float]:
    flat = image.flatten()
    step = max(1, flat.numel() // _SAMPLE)
    values = flat[::step].sort().values
    last = values.numel() - 1
    return float(values[round(low * last)]), float(values[round(high * last)])


def shrink(array: torch.Tensor | NDArray[Any], longest: int) -> torch.Tensor:
    """Make an image small by Fourier cropping, which low-passes it without aliases.

    Parameters
    ----------
    array
        ``(height, width)``, any real dtype.
    longest
        Pixels of the longer side of the result; a smaller image stays as it is.

    Returns
    -------
    torch.Tensor
        ``(new_height, new_width)``, float32, grey values kept. Pixel (0, 0) stays where it was;
        one new pixel is ``height / new_height`` old ones.

    Raises
    ------
    BadImage
        When it isn't one image of finite values.
    """
    image = _image(array, "image to shrink")
    height, width = image.shape
    factor = max(height, width) / longest
    if factor <= 1.0:
        return image
    new = (max(2, round(height / factor)), max(2, round(width / factor)))
    spectrum = torch.fft.rfft2(tamed(image))
    cropped = fourier_crop(spectrum, (height, width), new)
    small: torch.Tensor = torch.fft.irfft2(cropped, s=new) * (new[0] * new[1] / (height * width))
    return small


def grey(array: torch.Tensor | NDArray[Any], low: float = 0.005, high: float = 0.995) -> Grey:
    """Stretch contrast between two quantiles, so that a few odd pixels don't dim the rest.

    Parameters
    ----------
    array
        ``(height, width)``.
    low, high
        Parts of the pixels below black and below white, 0 to 1.

    Returns
    -------
    torch.Tensor
        ``(height, width)`` uint8. A constant image becomes mid-grey.
    """
    image = _image(array, "image to show")
    black, white = _quantiles(image, low, high)
    if white <= black:
        return torch.full(image.shape, 128, dtype=torch.uint8)
    return ((image - black) * (255.0 / (white - black))).round().clamp(0, 255).to(torch.uint8)


def _radius(shape: tuple[int, int], device: torch.device) -> torch.Tensor:
    y = torch.arange(shape[0], device=device) - shape[0] // 2
    x = torch.arange(shape[1], device=device) - shape[1] // 2
    return (y[:, None].square() + x[None, :].square()).sqrt()


def spectrum_grey(array: torch.Tensor | NDArray[Any]) -> Grey:
    """A power spectrum as a picture in which rings are seen out to the edge.

    The smooth fall-off (ring averages, themselves averaged over several) is taken away and each
    radius is brought to the same contrast.

    Parameters
    ----------
    array
        ``(height, width)``, amplitude or power, zero frequency at (height // 2, width // 2).

    Returns
    -------
    torch.Tensor
        ``(height, width)`` uint8.
    """
    image = _image(array, "power spectrum")
    shape = (image.shape[0], image.shape[1])
    ring = _radius(shape, image.device).round().long()
    count = torch.bincount(ring.flatten()).clamp(min=1).to(torch.float32)

    def averages(values: torch.Tensor) -> torch.Tensor:
        total = torch.zeros(count.numel(), device=image.device)
        return total.index_add_(0, ring.flatten(), values.flatten()) / count

    def smooth(curve: torch.Tensor, width: int) -> torch.Tensor:
        padded = torch.nn.functional.pad(curve[None, None], (width, width), mode="replicate")
        return torch.nn.functional.avg_pool1d(padded, 2 * width + 1, stride=1)[0, 0]

    width = max(2, min(shape) // 16)
    flat = image - smooth(averages(image), width)[ring]
    spread = smooth(averages(flat.square()), width)[ring].sqrt()
    floor = 1e-6 * float(spread.max()) + 1e-30
    return grey(flat / spread.clamp(min=floor), 0.02, 0.998)


def halves_grey(diagnostic: torch.Tensor | NDArray[Any]) -> Grey:
    """A CTF diagnostic (left half data, right half fit), each half stretched by itself.

    Parameters
    ----------
    diagnostic
        ``(height, width)``, zero frequency at (height // 2, width // 2).

    Returns
    -------
    torch.Tensor
        ``(height, width)`` uint8.
    """
    image = _image(diagnostic, "CTF diagnostic")
    middle = image.shape[1] // 2
    return torch.cat([grey(image[:, :middle], 0.02, 0.995), grey(image[:, middle:], 0.0, 1.0)], dim=1)
