"""Power of sums of a few aligned frames, averaged: what the CTF is fitted to.

Frames are too noisy one by one, and the sum of all has lost its fine detail to damage; sums of about
16 e/A^2 show the most rings (groups as such: Rohou and Grigorieff 2015, CTFFIND4; their dose was tried
out on simulated movies, since rings stand out of the counting noise with the root of it).
"""

import numpy as np
import torch

from vitriflow.errors import BadImage
from vitriflow.kernels.fourier import fourier_crop, taper
from vitriflow.kernels.frames import in_threads
from vitriflow.kernels.spectrum import Spectrum, full_amplitude, tile_layout
from vitriflow.kernels.warp import spline_response

__all__ = ["GroupSpectra"]

_RIM = 0.125
_BOX = 512
_TARGET_PIXEL_A = 1.4


class GroupSpectra:
    """Averages the power of group sums over tiles that cover the image.

    Each tile counts relative to its own variance, so that dirt and carbon don't outweigh the rest.

    Parameters
    ----------
    shape
        ``(height, width)`` of the sums.
    pixel_size_A
        Of the sums.
    threads
        CPU threads.
    device
        Where the sums live.
    sharpened
        Whether they're free of the spline's response already.
    """

    def __init__(
        self,
        shape: tuple[int, int],
        pixel_size_A: float,
        threads: int,
        device: str,
        *,
        sharpened: bool = False,
    ) -> None:
        self.warnings: list[str] = []
        self._sharpened = sharpened
        self._pixel_size_A = pixel_size_A
        self._threads = threads if device == "cpu" else 1
        self._count = 0
        try:
            self._tile, self._box, self._spectrum_pixel = tile_layout(
                shape, pixel_size_A, _BOX, _TARGET_PIXEL_A
            )
        except BadImage as error:
            self.warnings.append(f"no power spectrum: {error}")
            return
        self._window = taper((self._tile, self._tile), _RIM, device)
        rows, columns = (
            np.linspace(0, size - self._tile, -(-size // self._tile)).round().astype(int) for size in shape
        )
        self._corners = [(int(y), int(x)) for y in rows for x in columns]
        self._power = torch.zeros((self._box, self._box // 2 + 1), dtype=torch.float32, device=device)

    def take(self, total: torch.Tensor) -> None:
        """Use the sum of one group, ``(height, width)``."""
        if self.warnings:
            return
        tile, box = self._tile, self._box
        # One sum for each share of the tiles, so that the result doesn't depend on the threads.
        shares = 4
        parts = torch.zeros((shares, *self._power.shape), dtype=torch.float32, device=total.device)
        counts = [0] * shares

        def work(share: int) -> None:
            for y, x in self._corners[share::shares]:
                cut = total[y : y + tile, x : x + tile]
                variance, mean = torch.var_mean(cut)
                if float(variance) <= 0:
                    continue
                spectrum = torch.fft.rfft2((cut - mean) * self._window)
                kept = torch.view_as_real(fourier_crop(spectrum, (tile, tile), (box, box)))
                parts[share].add_(kept.square().sum(dim=-1).mul_(1.0 / variance))
                counts[share] += 1

        in_threads(work, shares, self._threads)
        self._power += parts.sum(dim=0)
        self._count += sum(counts)

    def result(self) -> Spectrum | None:
        """The averaged amplitude, freed of the spline's response; None where the image is too small."""
        if self.warnings or self._count == 0:
            return None
        power = self._power / self._count
        box = self._box
        if box < self._tile:  # the crop left its Nyquist lines empty: take their neighbours
            power[box // 2] = power[box // 2 - 1]
            power[:, -1] = power[:, -2]
        amplitude = full_amplitude(power) / (self._tile * self._tile)
        if self._sharpened:
            return Spectrum(amplitude, self._spectrum_pixel, len(self._corners))
        # Frequencies of the box in cycles per pixel of the movie.
        axis = torch.fft.fftshift(torch.fft.fftfreq(box, device=power.device))
        axis = axis * (self._pixel_size_A / self._spectrum_pixel)
        line = spline_response(axis)
        return Spectrum(amplitude / (line[:, None] * line[None, :]), self._spectrum_pixel, len(self._corners))
