"""Readies a micrograph for picking: binned, flattened, of even contrast, artefacts marked."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import pad

from vitriflow.errors import BadImage, Reason
from vitriflow.kernels.fourier import fourier_crop, frequencies
from vitriflow.kernels.mask import artefact_mask, blank_rim
from vitriflow.kernels.outliers import tamed

__all__ = ["Prepared", "blur", "prepare"]

# A binned particle is this many pixels across: about 8 A/px for one of 160 A
BINNED_DIAMETER = 20.0
MIN_DIAMETER_PX = 6.0
CLAMP = 4.0  # a pixel counts for no more than this many local deviations


@dataclass(frozen=True)
class Prepared:
    """A micrograph ready for picking.

    Attributes
    ----------
    image
        ``(h, w)``, protein positive, background 0, local deviation about 1, 0 on artefacts.
    good
        ``(h, w)``: False on artefacts.
    origin
        Full-size pixel (y, x) of this image's first pixel.
    scale
        Full-size pixels for one of this image, (y, x).
    diameter
        Particle diameter in pixels of this image.
    """

    image: torch.Tensor
    good: torch.Tensor
    origin: tuple[float, float]
    scale: tuple[float, float]
    diameter: float


def blur(image: torch.Tensor, sigma: float) -> torch.Tensor:
    """Gaussian blur of ``(h, w)`` by ``sigma`` pixels, mirrored at the edges."""
    height, width = image.shape
    reach = min(math.ceil(3.0 * sigma), height - 1, width - 1)
    padded = pad(image[None, None], (reach, reach, reach, reach), mode="reflect")[0, 0]
    ky, kx = frequencies((padded.shape[0], padded.shape[1]), image.device)
    transfer = torch.exp(-2.0 * (math.pi * sigma) ** 2 * (ky**2 + kx**2))
    smooth: torch.Tensor = torch.fft.irfft2(torch.fft.rfft2(padded) * transfer, s=padded.shape)
    return smooth[reach : reach + height, reach : reach + width]


def _check(micrograph: torch.Tensor, diameter: float) -> None:
    if micrograph.ndim != 2:
        raise BadImage(
            Reason.WRONG_SIZE, "micrograph", "one image (height, width)", f"shape {tuple(micrograph.shape)}"
        )
    # A sum shows any NaN or infinity, in a quarter of the time of looking at each pixel
    if not math.isfinite(float(micrograph.sum(dtype=torch.float64))):
        bad = int((~torch.isfinite(micrograph)).sum())
        raise BadImage(
            Reason.NOT_FINITE,
            "micrograph",
            "finite values",
            f"{bad} pixels that are NaN or infinite",
            "Look at the step that made it; a micrograph with such pixels can't be picked.",
        )
    low, high = (float(value) for value in micrograph.aminmax())
    if low == high:
        zero = low == 0.0
        raise BadImage(
            Reason.ALL_ZERO if zero else Reason.CONSTANT,
            "micrograph",
            "an image",
            f"{low:g} in every pixel",
            "Nothing was recorded, or the step that made it failed.",
        )
    smallest = min(micrograph.shape)
    if not MIN_DIAMETER_PX <= diameter <= 0.25 * smallest:
        raise BadImage(
            Reason.PARAMETER,
            f"particle diameter of {diameter:.1f} px",
            f"{MIN_DIAMETER_PX:g} to {0.25 * smallest:.0f} px for an image of "
            f"{micrograph.shape[0]} x {micrograph.shape[1]}",
            remedy="Check particle_diameter_A and pixel_size_A.",
        )


def _binned(micrograph: torch.Tensor, factor: float) -> torch.Tensor:
    height, width = micrograph.shape
    if factor <= 1.0:
        return micrograph - micrograph.mean()
    new = (max(2, 2 * round(height / factor / 2)), max(2, 2 * round(width / factor / 2)))
    new = (min(new[0], height), min(new[1], width))
    spectrum = torch.fft.rfft2(micrograph - micrograph.mean())
    cropped = fourier_crop(spectrum, (height, width), new)
    image: torch.Tensor = torch.fft.irfft2(cropped, s=new) * (new[0] * new[1] / (height * width))
    return image


def _flatten(image: torch.Tensor, good: torch.Tensor, diameter: float) -> torch.Tensor:
    """Take away the background and even out the contrast, looking at good pixels only."""
    weight = good.to(image.dtype)
    # One particle's own darkness mustn't be called background: look two diameters far
    near = blur(weight, diameter).clamp(min=1e-3)
    flat = (image - blur(image * weight, diameter) / near) * weight
    spread = flat[good].std()
    flat = flat.clamp(-CLAMP * spread, CLAMP * spread)
    far = blur(weight, 2.0 * diameter).clamp(min=1e-3)
    variance = blur(flat**2, 2.0 * diameter) / far
    # Nearly empty parts (a hole) keep their low contrast instead of being blown up to noise
    floor = 0.5 * variance[good].median()
    return (flat / torch.maximum(variance, floor).sqrt()).clamp(-CLAMP, CLAMP)


def prepare(
    micrograph: torch.Tensor | NDArray[np.generic],
    pixel_size_A: float,
    particle_diameter_A: float,
    contrast: str = "dark",
    device: torch.device | str | None = None,
) -> Prepared:
    """Bin, flatten and mask a micrograph.

    Parameters
    ----------
    micrograph
        ``(height, width)``, any real dtype.
    pixel_size_A
        Of the micrograph (A).
    particle_diameter_A
        Longest extent of the particle (A).
    contrast
        ``dark`` (cryo) or ``bright`` (negative stain, inverted) protein.
    device
        Where to compute; None: where the micrograph is.

    Raises
    ------
    BadImage
        For a micrograph that is constant, not finite or not one image, and for a diameter that
        makes no sense on it.
    """
    full = torch.as_tensor(micrograph, device=device).to(torch.float32)
    diameter = particle_diameter_A / pixel_size_A
    _check(full, diameter)
    top, bottom, left, right = blank_rim(full)
    inner = full[top : full.shape[0] - bottom, left : full.shape[1] - right]
    if min(inner.shape) < 4.0 * diameter:
        raise BadImage(
            Reason.CONSTANT,
            "micrograph",
            "an image over most of its area",
            f"only {inner.shape[0]} x {inner.shape[1]} pixels that aren't padding",
        )
    image = _binned(tamed(inner), diameter / BINNED_DIAMETER)
    scale = (inner.shape[0] / image.shape[0], inner.shape[1] / image.shape[1])
    binned_diameter = diameter / math.sqrt(scale[0] * scale[1])
    if contrast == "bright":
        image = -image
    bad = artefact_mask(image.cpu().numpy(), binned_diameter)
    good = torch.from_numpy(~bad).to(image.device)
    if bad.mean() > 0.9:
        return Prepared(torch.zeros_like(image), good, (top, left), scale, binned_diameter)
    return Prepared(-_flatten(image, good, binned_diameter), good, (top, left), scale, binned_diameter)
