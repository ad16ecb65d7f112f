"""Small things that every kernel in Fourier space needs."""

import math

import numpy as np
import torch
from numpy.typing import NDArray

from vitriflow.kernels import fourier_numba
from vitriflow.kernels.frames import in_pieces

__all__ = ["add_times_curve", "fourier_crop", "frequencies", "good_size", "shift_phases", "taper"]

_SMALL_PRIMES = (2, 3, 5)


def good_size(at_least: int) -> int:
    """The smallest even number, not below ``at_least``, that has only 2, 3 and 5 as prime factors."""
    size = max(2, at_least + at_least % 2)
    while True:
        rest = size
        for prime in _SMALL_PRIMES:
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return size
        size += 2


def frequencies(
    shape: tuple[int, int], device: torch.device | str = "cpu"
) -> tuple[torch.Tensor, torch.Tensor]:
    """Spatial frequencies of a half spectrum, in cycles per pixel.

    Parameters
    ----------
    shape
        ``(height, width)`` of the image (px).
    device
        Where the tensors live.

    Returns
    -------
    tuple
        ``ky (height, 1)`` and ``kx (1, width // 2 + 1)``.
    """
    ky = torch.fft.fftfreq(shape[0], device=device, dtype=torch.float32)
    kx = torch.fft.rfftfreq(shape[1], device=device, dtype=torch.float32)
    return ky[:, None], kx[None, :]


def fourier_crop(spectrum: torch.Tensor, shape: tuple[int, int], new_shape: tuple[int, int]) -> torch.Tensor:
    """Cut the high frequencies off a half spectrum: what binning by Fourier cropping does.

    Parameters
    ----------
    spectrum
        ``(..., height, width // 2 + 1)``, as ``torch.fft.rfft2`` gives it.
    shape
        ``(height, width)`` of the image that it's the transform of.
    new_shape
        ``(new_height, new_width)``, not above ``shape``.

    Returns
    -------
    torch.Tensor
        ``(..., new_height, new_width // 2 + 1)``, not rescaled: multiply by the ratio of the
        numbers of pixels to keep grey values. For even new sizes the Nyquist row and column are
        zero, since half of each lies outside.
    """
    height, width = new_shape
    if height > shape[0] or width > shape[1]:
        raise ValueError(f"can't crop {shape} to the larger {new_shape}")
    if new_shape == shape:
        return spectrum.clone()
    above = (height + 1) // 2
    below = height // 2
    columns = width // 2 + 1
    cropped = torch.cat(
        [spectrum[..., :above, :columns], spectrum[..., shape[0] - below :, :columns]], dim=-2
    )
    if height % 2 == 0 and height < shape[0]:
        cropped[..., above, :] = 0
    if width % 2 == 0 and width < shape[1]:
        cropped[..., :, -1] = 0
    return cropped


def shift_phases(shifts: torch.Tensor, ky: torch.Tensor, kx: torch.Tensor) -> torch.Tensor:
    """Phase ramps that move images by ``shifts``.

    Parameters
    ----------
    shifts
        ``(n, 2)``, y then x (px): where what was at 0 goes to.
    ky, kx
        Frequencies from :func:`frequencies` (cycles/px).

    Returns
    -------
    torch.Tensor
        ``(n, height, width // 2 + 1)``, complex64.
    """
    along_y = torch.exp(-2j * math.pi * shifts[:, 0, None, None] * ky)
    along_x = torch.exp(-2j * math.pi * shifts[:, 1, None, None] * kx)
    return along_y * along_x


def taper(shape: tuple[int, int], rim: float, device: torch.device | str = "cpu") -> torch.Tensor:
    """A window that falls to zero at the edges by a raised cosine over a part ``rim`` of each side.

    Returns ``(height, width)``, float32.
    """
    sides = []
    for size in shape:
        distance = (torch.arange(size, device=device, dtype=torch.float32) + 0.5) / size
        distance = torch.minimum(distance, 1.0 - distance) / max(rim, 1e-6)
        sides.append(0.5 - 0.5 * torch.cos(math.pi * distance.clamp(max=1.0)))
    return sides[0][:, None] * sides[1][None, :]


def add_times_curve(
    total: torch.Tensor,
    spectrum: torch.Tensor,
    curve: NDArray[np.floating],
    samples_per_cycle: float,
    ky: torch.Tensor,
    kx: torch.Tensor,
    *,
    threads: int = 1,
) -> None:
    """``total += spectrum * curve(|k|)``, in place, with the curve's nearest sample.

    Parameters
    ----------
    total, spectrum
        ``(height, width // 2 + 1)``, complex64.
    curve
        ``(n_k,)`` at equal steps of frequency from zero; its last value holds beyond.
    samples_per_cycle
        Samples of the curve to one cycle/px.
    ky, kx
        ``(height, 1)`` and ``(1, width // 2 + 1)`` (cycles/px).
    threads
        CPU threads.
    """
    if total.device.type != "cpu":
        add_times_curve_torch(total, spectrum, curve, samples_per_cycle, ky, kx)
        return
    table_ = np.ascontiguousarray(curve, dtype=np.float32)
    rows, columns = ky[:, 0].contiguous().numpy(), kx[0].contiguous().numpy()
    whole, part = total.numpy(), spectrum.numpy()
    in_pieces(
        lambda first, last: fourier_numba.add_times_curve(
            whole, part, table_, np.float32(samples_per_cycle), rows, columns, first, last
        ),
        len(whole),
        threads,
    )


def add_times_curve_torch(
    total: torch.Tensor,
    spectrum: torch.Tensor,
    curve: NDArray[np.floating],
    samples_per_cycle: float,
    ky: torch.Tensor,
    kx: torch.Tensor,
) -> None:
    """:func:`add_times_curve` in plain torch, for any device; the parity test runs it on the CPU."""
    radius = torch.sqrt(ky * ky + kx * kx)
    index = (radius * samples_per_cycle + 0.5).to(torch.int64).clamp_(max=len(curve) - 1)
    table = torch.as_tensor(curve, dtype=torch.float32, device=total.device)
    total += spectrum * table[index]
