"""Particle images on rings in Fourier space, where turning is a shift along the ring.

Images are taken as their Hartley transform ``sum f(x) cas(2 pi k x)``: as much as the Fourier
transform says, in real numbers. On a ring ``r`` (Fourier pixels) at angles ``theta``:

- turning an image by ``phi`` (from x towards y) moves it along theta by phi;
- moving an image by ``t`` turns ``H(k)`` into ``cos(2 pi k t) H(k) + sin(2 pi k t) H(-k)``, and -k
  stands half a turn further on the same ring;
- a CTF multiplies.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import torch

from vitriflow.kernels.ctf import check_optics
from vitriflow.units import ANGSTROM_PER_MM, electron_wavelength_A

__all__ = ["PolarGrid", "ctf_on_rings", "disc", "harmonics", "moved", "turned"]

_RIM = 3.0  # width of the mask's soft edge (px)


def disc(box: int, radius_px: float, device: torch.device | str = "cpu") -> torch.Tensor:
    """A disc ``(box, box)`` about pixel ``box // 2`` that falls to zero by a cosine over 3 px past its radius."""
    at = torch.arange(box, device=device, dtype=torch.float32) - box // 2
    distance = torch.sqrt(at[:, None] ** 2 + at[None, :] ** 2)
    past = ((distance - radius_px) / _RIM).clamp(0.0, 1.0)
    return 0.5 + 0.5 * torch.cos(math.pi * past)


@dataclass(frozen=True)
class PolarGrid:
    """Rings of 1 Fourier pixel, the first at 1, with equal angles on each.

    Attributes
    ----------
    box
        Side of the images (px).
    radius_px
        Of the disc that the images are masked with (px).
    n_rings, n_angles
        Rings, and angles of a full turn on each (even).
    device
        Where tensors live.
    """

    box: int
    radius_px: float
    n_rings: int
    n_angles: int
    device: str = "cpu"

    @cached_property
    def mask(self) -> torch.Tensor:
        """``(box, box)``, the soft disc."""
        return disc(self.box, self.radius_px, self.device)

    @cached_property
    def mask_energy(self) -> float:
        """Sum of the squared mask: how many pixels of noise a masked image holds."""
        return float((self.mask**2).sum())

    @cached_property
    def rings(self) -> torch.Tensor:
        """``(n_rings,)``: 1, 2, ... in Fourier pixels."""
        return torch.arange(1, self.n_rings + 1, device=self.device, dtype=torch.float32)

    @cached_property
    def angles(self) -> torch.Tensor:
        """``(n_angles,)`` in radians, from x towards y."""
        steps = torch.arange(self.n_angles, device=self.device, dtype=torch.float32)
        return steps * (2.0 * math.pi / self.n_angles)

    @cached_property
    def weights(self) -> torch.Tensor:
        """``(n_rings,)``: independent numbers that each ring stands for in a masked image."""
        return 2.0 * math.pi * self.rings * (self.mask_energy / self.box**2)

    @cached_property
    def _matrix(self) -> torch.Tensor:
        """``(n_pixels, n_rings * n_angles)``: from the masked pixels to the rings."""
        at = torch.arange(self.box, device=self.device, dtype=torch.float32) - self.box // 2
        y, x = torch.meshgrid(at, at, indexing="ij")
        inside = self.mask > 0
        k = self.rings[:, None] / self.box
        ky, kx = (k * self.angles.sin()).reshape(-1), (k * self.angles.cos()).reshape(-1)
        phase = 2.0 * math.pi * (y[inside][:, None] * ky + x[inside][:, None] * kx)
        matrix = torch.cos(phase)
        matrix += phase.sin_()
        return matrix

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images ``(n, box, box)`` on the rings ``(n, n_rings, n_angles)``.

        White noise of variance 1 in the pixels has variance 1 on the rings.
        """
        inside = self.mask > 0
        pixels = images[:, inside] * (self.mask[inside] / math.sqrt(self.mask_energy))
        return (pixels @ self._matrix).reshape(len(images), self.n_rings, self.n_angles)

    def backward(self, on_rings: torch.Tensor) -> torch.Tensor:
        """Images ``(n, box, box)`` of what stands on the rings, inside the mask, mean zero at its rim.

        The integral over the rings by the trapezoid rule; what lies within the first ring isn't known.
        """
        area = (2.0 * math.pi / self.n_angles) * self.rings[:, None] / self.box**2
        values = (on_rings * area).reshape(len(on_rings), -1) @ self._matrix.T
        inside = self.mask > 0
        images = torch.zeros((len(on_rings), self.box, self.box), device=self.device)
        images[:, inside] = values * math.sqrt(self.mask_energy)
        rim = inside & (self.mask < 1)
        images -= images[:, rim].mean(dim=1)[:, None, None]
        return images * self.mask

    def ramps(self, shifts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosines and sines that move images by ``shifts (..., 2)``, y then x (px).

        Returns
        -------
        tuple
            Two of ``(..., n_rings, n_angles)``, for :func:`moved`.
        """
        k = (2.0 * math.pi / self.box) * self.rings[:, None]
        phase = shifts[..., 0, None, None] * (k * self.angles.sin())
        phase = phase + shifts[..., 1, None, None] * (k * self.angles.cos())
        return torch.cos(phase), torch.sin(phase)

    def coarse(self, n_rings: int, n_angles: int) -> "PolarGrid":
        """The same images with fewer rings and angles; ``n_angles`` has to divide those of this grid."""
        if self.n_angles % n_angles:
            raise ValueError(f"{n_angles} doesn't divide {self.n_angles}")
        return PolarGrid(self.box, self.radius_px, min(n_rings, self.n_rings), n_angles, self.device)

    def cut(self, on_rings: torch.Tensor, coarse: "PolarGrid") -> torch.Tensor:
        """What stands on this grid, as the coarse one has it: ``(n, coarse.n_rings, coarse.n_angles)``."""
        return on_rings[..., : coarse.n_rings, :: self.n_angles // coarse.n_angles]


def moved(on_rings: torch.Tensor, ramps: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Images moved by what the ramps stand for; shapes broadcast, the last two are rings and angles."""
    cos, sin = ramps
    opposite = torch.roll(on_rings, on_rings.shape[-1] // 2, dims=-1)
    return torch.addcmul(on_rings * cos, opposite, sin)


def harmonics(on_rings: torch.Tensor) -> torch.Tensor:
    """Fourier coefficients along the angle ``(..., n_angles // 2)``, independent of the number of angles."""
    spectrum: torch.Tensor = torch.fft.rfft(on_rings, dim=-1, norm="forward")
    return spectrum[..., : on_rings.shape[-1] // 2]


def turned(coefficients: torch.Tensor, angle: torch.Tensor) -> torch.Tensor:
    """Harmonics ``(n, n_rings, m)`` turned by ``angle (n,)`` (radians, from x towards y)."""
    order = torch.arange(coefficients.shape[-1], device=coefficients.device, dtype=torch.float32)
    phase = angle[:, None] * order
    return coefficients * torch.polar(torch.ones_like(phase), -phase)[:, None, :]


def ctf_on_rings(
    grid: PolarGrid, pixel_size_A: float, defocus: torch.Tensor, optics: torch.Tensor
) -> torch.Tensor:
    """CTF of particles on the rings, positive at low frequencies: for images where protein is bright.

    Parameters
    ----------
    grid
        The rings.
    pixel_size_A
        Of the images (A).
    defocus
        ``(n, 4)``: U, V (A), angle from x towards y (degrees), phase shift (degrees).
    optics
        ``(n, 3)``: voltage (kV), Cs (mm), amplitude contrast.

    Returns
    -------
    torch.Tensor
        ``(n, n_rings, n_angles)``, sin(chi) of :mod:`vitriflow.kernels.ctf`.

    Raises
    ------
    BadParameter
        When the optics can't be.
    """
    kinds, which = optics.double().cpu().unique(dim=0, return_inverse=True)  # type: ignore[no-untyped-call]
    constants = []
    for voltage_kV, cs_mm, contrast in kinds.tolist():
        check_optics(voltage_kV, cs_mm, contrast)
        wavelength = electron_wavelength_A(voltage_kV)
        aberration = 0.5 * math.pi * cs_mm * ANGSTROM_PER_MM * wavelength**3
        constants.append((math.pi * wavelength, aberration, math.asin(contrast)))
    rows = torch.tensor(constants, dtype=torch.float64).reshape(-1, 3)[which].to(grid.device)
    squared = (grid.rings.double() / (grid.box * pixel_size_A)) ** 2
    u, v, angle, phase = defocus.to(grid.device).double().unbind(dim=1)
    twice = 2.0 * (grid.angles.double()[None, :] - torch.deg2rad(angle)[:, None])
    height = 0.5 * (u + v)[:, None] + 0.5 * (u - v)[:, None] * torch.cos(twice)
    chi = (rows[:, 0, None] * squared)[:, :, None] * height[:, None, :]
    chi = chi - (rows[:, 1, None] * squared**2)[:, :, None]
    return torch.sin(chi + (rows[:, 2] + torch.deg2rad(phase))[:, None, None]).float()
