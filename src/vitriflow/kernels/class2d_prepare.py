"""Particle images brought to what the classifier compares: smaller, on rings, whitened, times their CTF."""

import math
from dataclasses import dataclass, field

import torch

from vitriflow.errors import BadParameter
from vitriflow.kernels.class2d_match import Particles
from vitriflow.kernels.class2d_polar import PolarGrid, ctf_on_rings
from vitriflow.kernels.class2d_seed import noise_on_rings
from vitriflow.kernels.fourier import fourier_crop, good_size

__all__ = ["Class2DSettings", "ParticleCtf", "Preparation", "shift_grid"]

_LARGEST_BOX = 64
_FINE_ANGLES, _COARSE_ANGLES, _COARSE_RINGS = 128, 64, 14
_LARGE_VALUE = 60000.0  # held as half floats


@dataclass(frozen=True)
class Class2DSettings:
    """What the classifier is told. Lengths in A.

    Attributes
    ----------
    pixel_size_A
        Of the particle images.
    particle_diameter_A
        Of the mask.
    n_classes
        At most so many.
    max_resolution_A
        Finest detail compared; what the box can't hold is left out.
    max_shift_A
        How far a particle may lie from the middle of its box; None: 0.15 of the diameter.
    first
        Particles to wait for before there are classes.
    held
        Particles kept at hand; the rest live on in the sums.
    most_per_update
        Particles used of one update; more are drawn from and the rest counted.
    passes
        Rounds of expectation maximisation over the held ones with each update.
    seed
        Of every draw.
    ctf
        What was done to the images before: ``none``, ``flipped`` or ``multiplied``.
    """

    pixel_size_A: float
    particle_diameter_A: float
    n_classes: int = 50
    max_resolution_A: float = 8.0
    max_shift_A: float | None = None
    first: int = 300
    held: int = 4000
    most_per_update: int = 20000
    passes: int = 1
    seed: int = 0
    ctf: str = "none"
    device: str = "cpu"

    def __post_init__(self) -> None:
        for name in ("pixel_size_A", "particle_diameter_A", "max_resolution_A"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise BadParameter(name, "a length above 0 A", f"{value:g}", "Give it in angstroms.")
        if self.n_classes < 1 or self.first < 20 or self.held < self.first:
            raise BadParameter(
                "classes and particles of the classifier",
                "n_classes from 1, first from 20, held not below first",
                f"n_classes {self.n_classes}, first {self.first}, held {self.held}",
                "Leave first and held out to have 300 and 4000.",
            )
        if self.ctf not in ("none", "flipped", "multiplied"):
            raise BadParameter("ctf", "none, flipped or multiplied", repr(self.ctf), "Correct it.")


@dataclass(frozen=True)
class ParticleCtf:
    """CTF of particles.

    Attributes
    ----------
    defocus
        ``(n, 4)``: U, V (A), angle from x towards y (degrees), phase shift (degrees).
    optics
        ``(n, 3)``: voltage (kV), Cs (mm), amplitude contrast.
    """

    defocus: torch.Tensor
    optics: torch.Tensor

    @classmethod
    def of(
        cls, defocus: torch.Tensor, voltage_kV: float, cs_mm: float, amplitude_contrast: float
    ) -> "ParticleCtf":
        """With the same optics for all."""
        optics = torch.tensor([[voltage_kV, cs_mm, amplitude_contrast]], dtype=torch.float64)
        return cls(defocus, optics.expand(len(defocus), 3))

    def some(self, index: torch.Tensor) -> "ParticleCtf":
        """That of some of the particles."""
        return ParticleCtf(self.defocus[index], self.optics[index])


@dataclass
class Preparation:
    """How images of one box become particles on rings; knows the noise once it has seen images."""

    settings: Class2DSettings
    box: int
    noise: torch.Tensor | None = None
    fine: PolarGrid = field(init=False)
    coarse: PolarGrid = field(init=False)
    work_box: int = field(init=False)
    pixel_A: float = field(init=False)

    def __post_init__(self) -> None:
        settings = self.settings
        # 3 px to the finest detail are enough; more would only cost
        wanted = math.ceil(self.box * settings.pixel_size_A * 3.0 / settings.max_resolution_A)
        self.work_box = min(self.box, good_size(min(max(wanted, 32), _LARGEST_BOX)))
        self.pixel_A = settings.pixel_size_A * self.box / self.work_box
        radius = min(0.5 * settings.particle_diameter_A / self.pixel_A, 0.5 * self.work_box - 4.0)
        if radius < 4.0:
            raise BadParameter(
                "particle_diameter_A",
                f"at least 8 px, {8 * self.pixel_A:.0f} A here",
                f"{settings.particle_diameter_A:g} A in a box of {self.box} px",
                "Check particle_diameter_A and pixel_size_A; extract with a smaller pixel.",
            )
        reach = self.work_box * self.pixel_A / settings.max_resolution_A
        rings = max(6, min(int(reach), self.work_box // 2 - 2))
        angles = _FINE_ANGLES if rings > _COARSE_RINGS else _COARSE_ANGLES
        self.fine = PolarGrid(self.work_box, radius, rings, angles, settings.device)
        self.coarse = self.fine.coarse(_COARSE_RINGS, _COARSE_ANGLES)

    @property
    def max_shift_px(self) -> float:
        """How far from the middle a particle may lie (px of the work box)."""
        given = self.settings.max_shift_A
        shift_A = 0.15 * self.settings.particle_diameter_A if given is None else given
        return max(1.0, shift_A / self.pixel_A)

    def shrink(self, images: torch.Tensor) -> torch.Tensor:
        """Images ``(n, box, box)`` in the work box, grey values kept."""
        if self.work_box == self.box:
            return images.float().to(self.settings.device)
        size, new = (self.box, self.box), (self.work_box, self.work_box)
        # The middle stays pixel box // 2: half sizes are whole numbers for even boxes
        spectrum = fourier_crop(torch.fft.rfft2(images.float()), size, new)
        small: torch.Tensor = torch.fft.irfft2(spectrum, s=new)
        return (small * (self.work_box / self.box) ** 2).to(self.settings.device)

    def _transfer(self, n: int, ctf: ParticleCtf | None) -> torch.Tensor:
        """CTF of ``n`` images on the rings, as it stands in them."""
        grid = self.fine
        if ctf is None:
            return torch.ones((n, grid.n_rings, grid.n_angles), device=grid.device)
        c = ctf_on_rings(grid, self.pixel_A, ctf.defocus, ctf.optics)
        return c.abs() if self.settings.ctf == "flipped" else c

    def learn_noise(self, images: torch.Tensor, ctf: ParticleCtf | None, share: float) -> torch.Tensor:
        """Let images count for a share of what is known of the noise; returns the old power over the new one."""
        noise = noise_on_rings(self.shrink(images), self.fine)
        if self.settings.ctf == "multiplied":
            noise = noise / self._transfer(len(images), ctf).square().mean(dim=(0, 2)).clamp(min=0.05)
        before = noise if self.noise is None else self.noise
        self.noise = (1.0 - share) * before + share * noise
        return before / self.noise

    def particles(self, images: torch.Tensor, ctf: ParticleCtf | None) -> tuple[Particles, torch.Tensor]:
        """Images ``(n, box, box)`` as particles, and their power on the rings ``(n, n_rings)``, noise being 1."""
        small = self.shrink(images)
        grid = self.fine
        c = self._transfer(len(small), ctf)
        c2 = c.square()
        if self.noise is None:
            self.learn_noise(images, ctf, 1.0)
            assert self.noise is not None
        y = grid.forward(small) / self.noise.sqrt()[:, None]
        power = y.square().mean(dim=-1)
        if self.settings.ctf == "multiplied":
            power = power / c2.mean(dim=-1).clamp(min=0.05)
        else:
            y = y * c
        z = y.clamp(-_LARGE_VALUE, _LARGE_VALUE).half()
        nowhere = torch.zeros((len(small), 2), device=grid.device)
        return Particles(z, c2.mean(dim=-1), nowhere), power


def shift_grid(reach_px: float, step_px: float, device: str = "cpu") -> torch.Tensor:
    """Shifts ``(n, 2)`` of a square grid with that step inside a circle; (0, 0) is the first."""
    count = math.floor(reach_px / step_px + 1e-6)
    line = torch.arange(-count, count + 1, dtype=torch.float32, device=device) * step_px
    y, x = torch.meshgrid(line, line, indexing="ij")
    points = torch.stack([y.reshape(-1), x.reshape(-1)], dim=1)
    far = points.square().sum(dim=1)
    order = torch.argsort(far, stable=True)
    return points[order][far[order] <= reach_px**2 * 1.0001 + 1e-6]
