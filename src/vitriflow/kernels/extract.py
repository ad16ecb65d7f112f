"""Particles cut out of a micrograph: boxes, CTF, size, grey values, and whether there's anything inside."""

import math
from dataclasses import dataclass

import torch

from vitriflow.errors import BadParameter
from vitriflow.kernels.fourier import fourier_crop

__all__ = ["Boxes", "apply_ctf", "cut_boxes", "inside_contrast", "normalise", "remove_dust", "shrink"]


@dataclass(frozen=True)
class Boxes:
    """Boxes cut out of one micrograph.

    Attributes
    ----------
    images
        ``(n, box, box)`` float32; the pick stands at pixel ``box // 2``.
    kept
        ``(n,)``: which of the given coordinates they are.
    over_edge
        How many were left out because they reach over the edge.
    """

    images: torch.Tensor
    kept: torch.Tensor
    over_edge: int


def cut_boxes(micrograph: torch.Tensor, yx: torch.Tensor, box: int, edge: str = "skip") -> Boxes:
    """Cut boxes about whole-pixel coordinates.

    Parameters
    ----------
    micrograph
        ``(height, width)``.
    yx
        ``(n, 2)``: y, x from the first pixel's centre (px); what stands behind the point is cut off, as RELION does.
    box
        Side (px), even.
    edge
        ``skip`` leaves out what reaches over the edge; ``pad`` repeats the micrograph mirrored at its edge, for
        picks that lie inside it.
    """
    if edge not in ("skip", "pad"):
        raise BadParameter("edge", "skip or pad", repr(edge), "Correct it.")
    if box < 8 or box % 2:
        raise BadParameter("box", "an even number of pixels from 8", str(box), "Round it up.")
    height, width = micrograph.shape
    first = torch.floor(yx.double()).long() - box // 2
    size = torch.tensor([height, width])
    whole = ((first >= 0) & (first + box <= size)).all(dim=1)
    if edge == "pad":
        middle = first + box // 2
        use = ((middle >= 0) & (middle < size)).all(dim=1)
    else:
        use = whole
    kept = torch.nonzero(use)[:, 0]
    steps = torch.arange(box)
    rows = _mirrored(first[kept, 0, None] + steps, height)
    columns = _mirrored(first[kept, 1, None] + steps, width)
    on = micrograph.device
    images = micrograph[rows.to(on)[:, :, None], columns.to(on)[:, None, :]].to(torch.float32)
    return Boxes(images, kept, int(len(yx) - len(kept)))


def _mirrored(index: torch.Tensor, size: int) -> torch.Tensor:
    """Indices past an edge, mirrored there (the edge's own pixel isn't repeated)."""
    if size == 1:
        return torch.zeros_like(index)
    period = 2 * (size - 1)
    index = torch.remainder(index, period)
    return torch.where(index < size, index, period - index)


def apply_ctf(images: torch.Tensor, ctf: torch.Tensor, how: str) -> torch.Tensor:
    """Multiply images ``(n, box, box)`` by their CTF ``(n or 1, box, box // 2 + 1)``, or by its sign.

    ``how`` is ``flip`` or ``multiply``. The CTF is the one that is positive at low frequencies, so that
    grey values keep their sense.
    """
    if how not in ("flip", "multiply"):
        raise BadParameter("CTF correction", "flip or multiply", repr(how), "Correct it.")
    factor = torch.sign(ctf) if how == "flip" else ctf
    corrected: torch.Tensor = torch.fft.irfft2(torch.fft.rfft2(images) * factor, s=images.shape[-2:])
    return corrected


def shrink(images: torch.Tensor, box: int) -> torch.Tensor:
    """Images ``(n, old, old)`` at fewer pixels ``(n, box, box)`` by cutting their spectrum; grey values stay."""
    old = int(images.shape[-1])
    if box > old or box < 8 or box % 2:
        raise BadParameter(
            "scaled box", f"an even number from 8 to {old} px", str(box), "Only smaller boxes can be made."
        )
    if box == old:
        return images
    spectrum = fourier_crop(torch.fft.rfft2(images), (old, old), (box, box))
    small: torch.Tensor = torch.fft.irfft2(spectrum, s=(box, box))
    return small * (box / old) ** 2


def _ring(box: int, radius_px: float, device: torch.device) -> torch.Tensor:
    at = torch.arange(box, device=device, dtype=torch.float32) - box // 2
    return (at[:, None] ** 2 + at[None, :] ** 2) > radius_px**2


def _checked_ring(box: int, radius_px: float, device: torch.device) -> torch.Tensor:
    ring = _ring(box, radius_px, device)
    if int(ring.sum()) < 32:
        raise BadParameter(
            "background radius",
            f"less than {0.5 * box:.0f} px, half of the box",
            f"{radius_px:.1f} px",
            "Take a larger box: 1.5 times the particle's diameter.",
        )
    return ring


def normalise(
    images: torch.Tensor, radius_px: float, *, ramp: bool = True, invert: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """Bring the background, all outside a circle, to mean 0 and standard deviation 1.

    Parameters
    ----------
    images
        ``(n, box, box)``.
    radius_px
        Of the circle (px).
    ramp
        Take off a plane fitted to the background first: thickness of ice changes over a box.
    invert
        Turn dark into bright.

    Returns
    -------
    tuple
        The images, and ``(n,)`` bool: False where the background is constant or not finite; these are zero.
    """
    box = int(images.shape[-1])
    ring = _checked_ring(box, radius_px, images.device)
    values = images.double()[:, ring]
    good = torch.isfinite(images).all(dim=-1).all(dim=-1)
    values = torch.where(good[:, None], values, torch.zeros_like(values))
    at = (torch.arange(box, device=images.device, dtype=torch.float64) - box // 2) / box
    y, x = torch.meshgrid(at, at, indexing="ij")
    one = torch.ones_like(y)
    terms = torch.stack([one, y, x] if ramp else [one])  # (terms, box, box)
    on_ring = terms[:, ring]
    plane = torch.linalg.solve(on_ring @ on_ring.T, on_ring @ values.T)  # (terms, n)
    spread = (values - plane.T @ on_ring).square().mean(dim=1).sqrt()
    scale = values.abs().amax(dim=1)
    good &= spread > 1e-6 * scale.clamp(min=1e-30)
    spread = torch.where(good, spread, torch.ones_like(spread)) * (-1.0 if invert else 1.0)
    flat = (plane.T @ terms.reshape(len(terms), -1)).reshape(images.shape)
    result = ((torch.nan_to_num(images.double()) - flat) / spread[:, None, None]).float()
    return torch.where(good[:, None, None], result, torch.zeros_like(result)), good


def remove_dust(
    images: torch.Tensor,
    radius_px: float,
    white_sigma: float | None,
    black_sigma: float | None,
    seed: int = 0,
) -> tuple[torch.Tensor, int]:
    """Replace pixels far from the background's mean by noise like the background's.

    Parameters
    ----------
    images
        ``(n, box, box)``, normalised.
    radius_px
        Of the circle outside of which is background (px); noise is made after its mean and deviation.
    white_sigma, black_sigma
        Deviations above and below from which a pixel is dust; None for never.
    seed
        Of the noise.

    Returns
    -------
    tuple
        The images, and how many pixels were replaced.
    """
    ring = _checked_ring(int(images.shape[-1]), radius_px, images.device)
    mean = images[:, ring].median(dim=1).values[:, None, None]
    deviation = (images[:, ring] - mean[:, :, 0]).abs().median(dim=1).values[:, None, None] * 1.4826
    dust = torch.zeros_like(images, dtype=torch.bool)
    if white_sigma is not None:
        dust |= images > mean + white_sigma * deviation
    if black_sigma is not None:
        dust |= images < mean - black_sigma * deviation
    count = int(dust.sum())
    if not count:
        return images, 0
    draw = torch.Generator().manual_seed(seed)
    noise = torch.randn(images.shape, generator=draw).to(images.device) * deviation + mean
    return torch.where(dust, noise, images), count


def inside_contrast(images: torch.Tensor, radius_px: float) -> torch.Tensor:
    """How much more there is inside a circle than outside, at the size of the particle ``(n,)``.

    Images are smoothed by a Gaussian of a sixth of the circle's diameter. The result is the difference
    of means plus the spread inside, over the smoothed background's deviation: about 1 for noise alone.
    """
    box = int(images.shape[-1])
    ring = _checked_ring(box, radius_px, images.device)
    k = torch.fft.fftfreq(box, device=images.device)[:, None]
    l = torch.fft.rfftfreq(box, device=images.device)[None, :]  # noqa: E741
    sigma = radius_px / 3.0
    smooth: torch.Tensor = torch.fft.irfft2(
        torch.fft.rfft2(images) * torch.exp(-2.0 * (math.pi * sigma) ** 2 * (k * k + l * l)), s=(box, box)
    )
    outside, inside = smooth[:, ring], smooth[:, ~ring]
    level = outside.mean(dim=1)
    spread = outside.std(dim=1).clamp(min=1e-12)
    return (inside - level[:, None]).square().mean(dim=1).sqrt() / spread
