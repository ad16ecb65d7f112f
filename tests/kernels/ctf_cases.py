"""Micrographs with a known CTF, and images without one, made on the spot and seeded."""

import io
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from vitriflow.kernels.ctf import ctf_2d

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Case:
    """One micrograph: white scattering through a CTF, under white counting noise.

    ``ssnr`` is signal over noise power where the CTF is 1, before the envelope exp(-B k^2 / 2).
    0.3 and 60 A^2 is what about 40 e/A^2 of a good detector give in 30 nm of ice.
    """

    mean_A: float
    astigmatism_A: float = 0.0
    angle_deg: float = 0.0
    voltage_kV: float = 300.0
    cs_mm: float = 2.7
    phase_shift_deg: float = 0.0
    pixel_size_A: float = 1.0
    shape: tuple[int, int] = (3072, 3072)
    ssnr: float = 0.3
    b_factor_A2: float = 60.0
    seed: int = 1

    def __str__(self) -> str:
        return f"{self.mean_A:.0f}A-{self.astigmatism_A:.0f}A-{self.voltage_kV:.0f}kV-{self.phase_shift_deg:.0f}deg"


AMPLITUDE_CONTRAST = 0.07


def micrograph(case: Case) -> torch.Tensor:
    """The image, (height, width) float32."""
    generator = torch.Generator().manual_seed(case.seed)
    height, width = case.shape
    ky = torch.fft.fftfreq(height, case.pixel_size_A)[:, None]
    kx = torch.fft.rfftfreq(width, case.pixel_size_A)[None]
    squared = ky**2 + kx**2
    power = case.ssnr * torch.exp(-0.5 * case.b_factor_A2 * squared)
    power *= 1.0 + 8.0 * torch.exp(-900.0 * squared)  # particles scatter most at low resolution
    half = 0.5 * case.astigmatism_A
    ctf = ctf_2d(
        case.shape,
        case.pixel_size_A,
        case.mean_A + half,
        case.mean_A - half,
        case.angle_deg,
        case.voltage_kV,
        case.cs_mm,
        AMPLITUDE_CONTRAST,
        case.phase_shift_deg,
    )
    scattered = torch.fft.rfft2(torch.randn(case.shape, generator=generator)) * power.sqrt() * ctf
    return torch.fft.irfft2(scattered, s=case.shape) + torch.randn(case.shape, generator=generator)


def _filtered(image: Floats, response: Floats) -> Floats:
    return np.asarray(np.fft.irfft2(np.fft.rfft2(image) * response, image.shape))


def _frequency(size: int) -> Floats:
    return np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None])


def ringless(size: int = 1280, seed: int = 0) -> Iterator[tuple[str, Floats]]:
    """Images that carry no Thon rings, some of which carry other rings."""
    random = np.random.default_rng(seed)
    k = _frequency(size)
    y, x = np.mgrid[:size, :size]

    def noise() -> Floats:
        return random.standard_normal((size, size))

    yield "counting noise", noise()
    yield "noise that falls with frequency", _filtered(noise(), 1.0 / (k + 0.002))
    bumps = 0.8 + 0.5 * np.exp(-(((k - 0.1) / 0.02) ** 2)) + 0.4 * np.exp(-(((k - 0.2) / 0.03) ** 2))
    yield "two broad bumps", _filtered(noise(), bumps)
    yield "carbon with lines", 0.5 * noise() + np.sin(y / 4.0) + np.sign(np.sin(y / 11.0))
    slanted = y + 0.6 * x
    yield "slanted lines", 0.5 * noise() + np.sin(slanted / 4.0) + np.sign(np.sin(slanted / 9.0))
    yield "low-passed and padded", np.pad(_filtered(noise(), k < 0.2), 160, mode="edge")
    yield "low-passed under faint noise", _filtered(noise(), k < 0.1) + 0.01 * noise()
    yield "enlarged twice", np.kron(noise()[::2, ::2], np.ones((2, 2)))
    yield "crystal", noise() + 0.5 * np.sin(0.9 * x) + 0.5 * np.sin(0.45 * x + 0.78 * y)
    grey = _filtered(noise(), 1.0 / (k + 0.02))
    grey = (255 * (grey - grey.min()) / (grey.max() - grey.min())).astype(np.uint8)
    packed = io.BytesIO()
    Image.fromarray(grey).save(packed, "JPEG", quality=40)
    yield "JPEG blocks", np.asarray(Image.open(packed), dtype=np.float64)
    for radius in (12, 30, 45):
        yield f"discs of {radius} px", discs(size, radius, random) + 0.3 * noise()


def discs(size: int, radius: int, random: np.random.Generator) -> Floats:
    """Round particles of one size: their form factor has rings of its own."""
    image = np.zeros((size, size))
    around = np.arange(-radius, radius + 1)
    disc = np.hypot(around[:, None], around[None]) <= radius
    for cy, cx in random.integers(0, size - disc.shape[0], (180, 2)):
        image[cy : cy + disc.shape[0], cx : cx + disc.shape[1]][disc] = 1.0
    return image


def angle_between(one_deg: float, two_deg: float) -> float:
    """Difference of two axes, -90 to 90 degrees."""
    return (one_deg - two_deg + 90.0) % 180.0 - 90.0
