"""Takes the sting out of single pixels that no picture holds: saturated, hit by cosmic rays, dead."""

import math

import torch

__all__ = ["tamed"]

_SAMPLE = 200_000  # pixels that quantiles are taken from
_OUTER = 0.001  # part of the pixels, at either end, that may be anything


def tamed(image: torch.Tensor) -> torch.Tensor:
    """Pull values far outside those of nearly all pixels back to where others end.

    Binning in Fourier space would smear one pixel of 65535 counts over the whole image.

    Parameters
    ----------
    image
        ``(height, width)``, float32, finite.

    Returns
    -------
    torch.Tensor
        The same tensor where there's nothing to do. Limits are the 0.1 % and 99.9 % quantiles,
        each moved out by the distance between them.
    """
    flat = image.reshape(-1)
    values = flat[:: max(1, math.ceil(flat.numel() / _SAMPLE))].sort().values
    last = values.numel() - 1
    low, high = float(values[round(_OUTER * last)]), float(values[round((1.0 - _OUTER) * last)])
    span = high - low
    if span <= 0:
        return image
    least, most = (float(value) for value in image.aminmax())
    if least >= low - span and most <= high + span:
        return image
    return image.clamp(low - span, high + span)
