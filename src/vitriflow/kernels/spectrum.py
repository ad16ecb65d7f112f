"""Amplitude spectra of micrographs, averaged over overlapping tiles.

The result has the layout of RELION's ``_PS.mrc``: a full square, amplitude, zero frequency at
(box // 2, box // 2), rows as the rows of the micrograph.
"""

import math
from dataclasses import dataclass

import torch

from vitriflow.errors import BadImage, BadParameter, Reason
from vitriflow.kernels.frames import in_threads

SMALLEST_BOX = 128
_SHARES = 4
_TAPER = 0.125  # part of a tile's width that fades to zero, on each side


@dataclass(frozen=True)
class Spectrum:
    """An amplitude spectrum and what its pixels mean.

    Attributes
    ----------
    amplitude
        (box, box) amplitude, zero frequency at (box // 2, box // 2), without a unit.
    pixel_size_A
        Pixel size (A) that an image of this box would have: the frequency step is
        ``1 / (box * pixel_size_A)``, the edge is at ``1 / (2 * pixel_size_A)``.
    n_tiles
        How many tiles were averaged.
    """

    amplitude: torch.Tensor
    pixel_size_A: float
    n_tiles: int


def _smooth_even(size: float) -> int:
    """The even number without prime factors past 5 that is nearest to ``size``."""
    best = 2
    for two in (2**power for power in range(1, 14)):
        for three in (3**power for power in range(9)):
            for five in (5**power for power in range(6)):
                number = two * three * five
                if abs(number - size) < abs(best - size):
                    best = number
    return best


def tile_layout(
    shape: tuple[int, int], pixel_size_A: float, box: int = 512, target_pixel_A: float = 1.4
) -> tuple[int, int, float]:
    """Size of a tile, of its spectrum's box, and the pixel size that this box stands for.

    Tiles are cut at ``box * target_pixel_A`` angstroms and their spectra cropped to ``box``, so
    that the edge lies at the Nyquist frequency of ``target_pixel_A``. Pixels that are larger
    already aren't cropped. A micrograph smaller than one tile gets a smaller box.

    Parameters
    ----------
    shape
        (height, width) of the micrograph in pixels.
    pixel_size_A
        Its pixel size (A).
    box
        Wanted size of the spectrum (pixels).
    target_pixel_A
        Wanted pixel size of the spectrum (A).

    Returns
    -------
    tuple
        (tile in micrograph pixels, box in pixels, pixel size of the box in A).

    Raises
    ------
    BadParameter
        When the box is too small or odd, or a pixel size isn't positive.
    BadImage
        When the micrograph is too small for a spectrum with rings in it.
    """
    if box < SMALLEST_BOX or box % 2:
        raise BadParameter("box_size", f"an even number from {SMALLEST_BOX} px", str(box))
    if not (math.isfinite(pixel_size_A) and pixel_size_A > 0):
        raise BadParameter("pixel_size_A", "a positive number of angstroms", f"{pixel_size_A}")
    scale = max(1.0, target_pixel_A / pixel_size_A)
    tile = box if scale == 1.0 else max(box, _smooth_even(box * scale))
    smallest = min(shape)
    if tile > smallest:
        tile = smallest - smallest % 2
        box = tile if scale == 1.0 else int(tile / scale) // 2 * 2
    if box < SMALLEST_BOX:
        raise BadImage(
            Reason.WRONG_SIZE,
            f"micrograph of {shape[0]} x {shape[1]} px at {pixel_size_A:g} A/px",
            expected=f"at least {math.ceil(SMALLEST_BOX * scale)} px along each side",
            found=f"{smallest} px",
            remedy="Check the pixel size; a crop this small holds too few Thon rings to fit.",
        )
    return tile, box, pixel_size_A * tile / box


def _starts(length: int, tile: int, overlap: float) -> list[int]:
    """Where tiles begin along one axis, spread evenly so that both ends are covered."""
    steps = math.ceil((length - tile) / (tile * (1.0 - overlap)))
    if steps <= 0:
        return [(length - tile) // 2]
    return [round(index * (length - tile) / steps) for index in range(steps + 1)]


def _taper(tile: int, device: torch.device) -> torch.Tensor:
    """Flat in the middle, raised cosine at the rim: little leakage, little loss of fine rings."""
    position = (torch.arange(tile, device=device, dtype=torch.float32) + 0.5) / tile
    distance = torch.minimum(position, 1.0 - position) / _TAPER
    line = 0.5 - 0.5 * torch.cos(math.pi * distance.clamp(max=1.0))
    return line[:, None] * line[None, :]


def _crop(power: torch.Tensor, box: int) -> torch.Tensor:
    """Keep the central (box, box // 2 + 1) frequencies of rfft2 layouts (n, tile, tile // 2 + 1)."""
    if power.shape[-2] == box:
        return power
    half = box // 2
    return torch.cat([power[:, :half, : half + 1], power[:, -half:, : half + 1]], dim=1)


def full_amplitude(power: torch.Tensor) -> torch.Tensor:
    """Square-root and unfold a half-plane power spectrum into the centred full amplitude.

    Parameters
    ----------
    power
        (box, box // 2 + 1) power in ``rfft2`` layout.

    Returns
    -------
    torch.Tensor
        (box, box) amplitude, zero frequency at (box // 2, box // 2).
    """
    box = power.shape[0]
    half = box // 2
    amplitude = torch.fft.fftshift(power.clamp(min=0).sqrt(), dim=0)  # rows -half .. half - 1
    left = amplitude[:, 1:].flip(1)  # columns -half .. -1: the point mirrored through the origin
    left = torch.roll(left.flip(0), 1, dims=0)  # row -half has no mirror but itself
    return torch.cat([left, amplitude[:, :half]], dim=1)


def check_image(image: torch.Tensor, thing: str = "micrograph") -> None:
    """Refuse an image that can't hold a picture.

    Raises
    ------
    BadImage
        Not two-dimensional, not finite, all zero, or constant.
    """
    if image.ndim != 2:
        raise BadImage(
            Reason.WRONG_SIZE,
            thing,
            "one two-dimensional image",
            f"{image.ndim} dimensions {tuple(image.shape)}",
        )
    low, high = (float(value) for value in torch.aminmax(image))
    if not (math.isfinite(low) and math.isfinite(high)):
        raise BadImage(
            Reason.NOT_FINITE, thing, "finite values", "NaN or infinity", "The step that wrote it went wrong."
        )
    if low == high:
        reason = Reason.ALL_ZERO if low == 0 else Reason.CONSTANT
        raise BadImage(
            reason, thing, "an image with contrast", f"{low:g} in every pixel", "Look at the camera."
        )


def power_spectrum(
    micrograph: torch.Tensor,
    pixel_size_A: float,
    box: int = 512,
    target_pixel_A: float = 1.4,
    overlap: float = 0.5,
    batch: int = 4,
    threads: int = 2,
) -> Spectrum:
    """Amplitude spectrum of a micrograph: root of the power averaged over overlapping tiles.

    Each tile is divided by its own mean power past a quarter of the box's edge, so that a few
    tiles with dirt or carbon don't outweigh the rest. Tiles without contrast are left out.

    Parameters
    ----------
    micrograph
        (height, width), any real type, on any device.
    pixel_size_A
        Pixel size (A).
    box, target_pixel_A
        Size (px) and pixel size (A) of the spectrum; see :func:`tile_layout`.
    overlap
        Part of a tile that it shares with the next, 0 to 0.9.
    batch
        Tiles transformed at once; more needs more memory.
    threads
        CPU threads.

    Returns
    -------
    Spectrum
        The (box, box) amplitude, on the micrograph's device.

    Raises
    ------
    BadImage
        When the image is too small, not finite, zero, constant or not two-dimensional.
    """
    check_image(micrograph)
    height, width = micrograph.shape
    tile, box, spectrum_pixel = tile_layout((height, width), pixel_size_A, box, target_pixel_A)
    corners = [(y, x) for y in _starts(height, tile, overlap) for x in _starts(width, tile, overlap)]
    device = micrograph.device
    taper = _taper(tile, device)
    ky = torch.fft.fftfreq(box, device=device)[:, None]
    kx = torch.fft.rfftfreq(box, device=device)[None, :]
    outer = (torch.hypot(ky, kx) > 0.125).to(torch.float32)
    outer /= outer.sum()
    # A thread for each share of the batches, torch on one core in each; on a GPU one thread feeds it.
    # The shares are always as many, so that the sum doesn't depend on the threads.
    totals = torch.zeros((_SHARES, box, box // 2 + 1), dtype=torch.float32, device=device)
    counts = [0] * _SHARES

    def work(share: int) -> None:
        # one buffer for all batches: fresh memory costs more here than the transforms
        buffer = torch.empty((min(batch, len(corners)), tile, tile), dtype=torch.float32, device=device)
        for first in range(share * batch, len(corners), _SHARES * batch):
            chosen = corners[first : first + batch]
            tiles = buffer[: len(chosen)]
            for place, (y, x) in zip(tiles, chosen, strict=True):
                place.copy_(micrograph[y : y + tile, x : x + tile])
            tiles.sub_(tiles.mean(dim=(1, 2), keepdim=True)).mul_(taper)
            transform = _crop(torch.fft.rfft2(tiles), box)
            power = torch.view_as_real(transform).square_().sum(dim=-1)
            level = torch.einsum("nyx,yx->n", power, outer)
            live = level > 1e-12 * power.amax(dim=(1, 2)).clamp(min=1e-30)
            if bool(live.any()):
                weight = torch.where(live, 1.0 / level, 0.0)
                totals[share] += torch.einsum("nyx,n->yx", power, weight)
                counts[share] += int(live.sum())

    in_threads(work, _SHARES, threads if device.type == "cpu" else 1)
    total, used = totals.sum(dim=0), sum(counts)
    if used == 0:
        raise BadImage(Reason.CONSTANT, "micrograph", "tiles with contrast", "none", "Look at the camera.")
    return Spectrum(full_amplitude(total / used), spectrum_pixel, used)
