"""Patches of moving frames, each compared with the sum of the same patch over the other frames."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from vitriflow.kernels.fourier import frequencies, good_size, taper
from vitriflow.kernels.frames import in_threads
from vitriflow.kernels.motion_patches_numba import move_and_sum, slopes
from vitriflow.kernels.motion_search import b_factor_weight

__all__ = ["Cutter", "Patches"]

_OVERLAP = 1.25  # side of a patch relative to the distance between patches
_RIM = 0.1
_HIGH_PASS = 2.0  # periods to a patch
_SOFTEN = 3.0  # blur of the first look: a wider peak for patches that are far off
_LONGEST_STEP_PX = 8.0  # of the movie: a Newton step past it has left the peak it started on


@dataclass(frozen=True)
class Patches:
    """Where patches lie on the pooled frames.

    Attributes
    ----------
    grid
        ``(n_y, n_x)`` patches.
    starts
        ``(n_patches, 2)`` first row and column of each (pooled px).
    size
        ``(height, width)`` of one (pooled px).
    """

    grid: tuple[int, int]
    starts: NDArray[np.int64]
    size: tuple[int, int]

    @classmethod
    def lay(cls, shape: tuple[int, int], grid: tuple[int, int]) -> "Patches":
        """Spread ``grid`` patches evenly over pooled frames of ``shape``, overlapping a little."""
        sides, firsts = [], []
        for length, count in zip(shape, grid, strict=True):
            side = min(length - length % 2, good_size(int(_OVERLAP * length / count)))
            sides.append(side)
            firsts.append(np.rint(np.linspace(0, length - side, count)).astype(np.int64))
        starts = np.stack(np.meshgrid(*firsts, indexing="ij"), axis=-1).reshape(-1, 2)
        return cls(grid, starts, (sides[0], sides[1]))

    def centres_px(self, pool: int) -> NDArray[np.float64]:
        """Centres ``(n_patches, 2)``, y then x, in pixels of the frames before pooling."""
        middle = self.starts + (np.array(self.size) - 1) / 2
        return np.asarray(pool * middle + (pool - 1) / 2)


class Cutter:
    """Cuts patches out of moving frames and compares them with their own sums.

    Parameters
    ----------
    pooled
        ``(n, height, width)`` frames, float32.
    layout
        Where the patches lie.
    pool
        Pixels of the movie to one of these, along a side.
    b_factor
        Of the first weight (px^2 of the movie).
    threads
        CPU threads, one patch each at a time.
    """

    def __init__(
        self, pooled: torch.Tensor, layout: Patches, pool: int, b_factor: float, threads: int
    ) -> None:
        self.pooled = pooled
        self.layout = layout
        self.pool = pool
        self._threads = threads if pooled.device.type == "cpu" else 1
        device = pooled.device
        height, width = layout.size
        self._window = taper(layout.size, _RIM, device)
        self._ky, self._kx = frequencies(layout.size, device)
        squared = self._ky**2 + self._kx**2
        cycles2 = (self._ky * height) ** 2 + (self._kx * width) ** 2
        self._high_pass = 1.0 - torch.exp(-cycles2 / (2 * _HIGH_PASS**2))
        # A half spectrum holds each frequency once; all but the outer columns stand for two.
        self._double = torch.full((1, width // 2 + 1), 2.0, device=device)
        self._double[:, 0] = self._double[:, -1] = 1.0
        b_pooled = _SOFTEN * b_factor / pool**2
        self.first_weight = b_factor_weight(self._ky, self._kx, b_pooled) * self._high_pass
        rings = min(layout.size) // 2
        self._ring = (torch.sqrt(squared) * 2 * rings).round().to(torch.int64).clamp(max=rings)
        doubled = self._double.expand(squared.shape).reshape(-1)
        count = torch.bincount(self._ring.reshape(-1), weights=doubled, minlength=rings + 1)
        self._ring_count = np.maximum(count.cpu().numpy().astype(np.float64), 1.0)
        self.frequency = np.arange(rings + 1) / (2.0 * rings) / pool
        """``(n_rings,)`` spatial frequency of the rings (cycles per px of the movie)."""

    def newton(
        self, shifts_px: NDArray[np.float64], weight: torch.Tensor
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """One Newton step of the weighted correlation, for each patch and frame.

        Parameters
        ----------
        shifts_px
            ``(n_patches, n, 2)`` where the field now puts them (px of the movie).
        weight
            ``(h, w // 2 + 1)``.

        Returns
        -------
        tuple
            Steps ``(n_patches, n, 2)`` (px of the movie), mean curvatures ``(n_patches, 2)``, and the
            power in rings ``(2, n_rings)``: of the sums, and the sum of the frames' own.
        """
        weight = weight * self._double
        n_patches, n = shifts_px.shape[:2]
        steps = np.zeros((n_patches, n, 2))
        curvatures = np.zeros((n_patches, 2))
        power = np.zeros((n_patches, 2, len(self.frequency)))

        def work(patch: int) -> None:
            spectra, rest = self._cut(patch, shifts_px[patch] / self.pool)
            slope, bend, power[patch] = self.compare(spectra, rest, weight)
            mean = bend.mean(axis=0)  # one frame alone is too noisy to give a curvature
            determinant = mean[0] * mean[1] - mean[2] ** 2
            if mean[0] > 0 and mean[1] > 0 and determinant > 0:
                inverse = np.array([[mean[1], -mean[2]], [-mean[2], mean[0]]]) / determinant
                limit = _LONGEST_STEP_PX / self.pool
                steps[patch] = self.pool * np.clip(slope @ inverse, -limit, limit)
                curvatures[patch] = mean[:2]

        in_threads(work, n_patches, self._threads)
        # All frames step towards the others at once, so each goes but its part of the way.
        steps *= (n - 1) / n
        return steps, curvatures, power.sum(axis=0)

    def _cut(self, patch: int, shifts: NDArray[np.float64]) -> tuple[torch.Tensor, NDArray[np.float64]]:
        """Transforms ``(n, h, w // 2 + 1)`` of one patch of all frames, followed to the whole pixel.

        Also returns what is left to shift, ``(n, 2)`` (pooled px).
        """
        height, width = self.layout.size
        full_y, full_x = self.pooled.shape[1:]
        y0, x0 = (int(v) for v in self.layout.starts[patch])
        cuts = torch.empty((len(self.pooled), height, width), device=self.pooled.device)
        rest = np.empty_like(shifts)
        for i, (dy, dx) in enumerate(shifts):
            y = min(max(y0 - round(dy), 0), full_y - height)
            x = min(max(x0 - round(dx), 0), full_x - width)
            cuts[i] = self.pooled[i, y : y + height, x : x + width]
            rest[i] = dy - (y0 - y), dx - (x0 - x)
        cuts -= cuts.mean(dim=(1, 2), keepdim=True)
        cuts *= self._window
        return torch.fft.rfft2(cuts), rest

    def compare(
        self, spectra: torch.Tensor, rest: NDArray[np.float64], weight: torch.Tensor
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Shift ``spectra`` by ``rest``, and compare each with the sum of the others.

        Returns
        -------
        tuple
            Gradient ``(n, 2)`` and curvature ``(n, 3)`` (yy, xx, yx; negative second derivative) of
            the weighted correlation, and ring powers ``(2, n_rings)``.
        """
        move = torch.as_tensor(rest, dtype=torch.float32, device=spectra.device)
        phase_y = torch.exp(-2j * torch.pi * move[:, 0, None] * self._ky[:, 0])
        phase_x = torch.exp(-2j * torch.pi * move[:, 1, None] * self._kx[0])
        if spectra.device.type == "cpu":
            return self._compare_cpu(spectra, phase_y, phase_x, weight)
        return self.compare_torch(spectra, phase_y, phase_x, weight)

    def _compare_cpu(
        self, spectra: torch.Tensor, phase_y: torch.Tensor, phase_x: torch.Tensor, weight: torch.Tensor
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        n = len(spectra)
        total = np.zeros(spectra.shape[1:], dtype=np.complex64)
        rings = np.zeros((2, len(self.frequency)))
        values = spectra.numpy()
        move_and_sum(values, phase_y.numpy(), phase_x.numpy(), self._ring.numpy(), total, rings)
        gradient, curvature = np.zeros((n, 2)), np.zeros((n, 3))
        wy = (2 * np.pi * self._ky[:, 0]).numpy()
        wx = (2 * np.pi * self._kx[0]).numpy()
        slopes(values, total, weight.numpy(), wy, wx, gradient, curvature)
        return gradient, curvature, rings

    def compare_torch(
        self, spectra: torch.Tensor, phase_y: torch.Tensor, phase_x: torch.Tensor, weight: torch.Tensor
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """What :meth:`compare` does on a GPU; the parity test runs it on the CPU."""
        moved = spectra * phase_y[:, :, None] * phase_x[:, None, :]
        total = moved.sum(dim=0)
        own = torch.view_as_real(moved).square().sum(dim=3)
        rings = torch.stack([self._rings(total.abs().square()), self._rings(own.sum(dim=0))])
        cross = (weight * total).conj() * moved
        product = torch.complex(cross.real - weight * own, cross.imag)
        wy, wx = 2 * torch.pi * self._ky[:, 0], 2 * torch.pi * self._kx[0]
        rows, columns = product.sum(dim=2), product.sum(dim=1)
        gradient = torch.stack([rows.imag @ wy, columns.imag @ wx], dim=1)
        mixed = (product.real @ wx) @ wy
        curvature = torch.stack([rows.real @ wy**2, columns.real @ wx**2, mixed], dim=1)
        return tuple(part.cpu().numpy().astype(np.float64) for part in (gradient, curvature, rings))  # type: ignore[return-value]

    def _rings(self, image: torch.Tensor) -> torch.Tensor:
        doubled = (image * self._double).reshape(-1).to(torch.float64)
        return torch.bincount(self._ring.reshape(-1), weights=doubled, minlength=len(self.frequency))

    def look(self, shifts_px: NDArray[np.float64], patches: NDArray[np.int64]) -> NDArray[np.float64]:
        """Ring powers of some patches alone: what :meth:`split_power` needs before the first step."""
        part = Cutter.__new__(Cutter)
        part.__dict__.update(self.__dict__)
        part.layout = Patches(self.layout.grid, self.layout.starts[patches], self.layout.size)
        return part.newton(shifts_px[patches], self.first_weight)[2]

    def split_power(
        self, power: NDArray[np.float64], n_patches: int
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Signal and noise power of one frame's patch, ring by ring, from the powers of ``n_patches``."""
        n = len(self.pooled)
        coherent, whole = power / self._ring_count / n_patches
        signal = (coherent - whole) / max(n * (n - 1), 1)
        return signal, np.maximum(whole / n - signal, 1e-30)

    def best_weight(
        self, signal: NDArray[np.float64], noise: NDArray[np.float64], n_patches: int
    ) -> torch.Tensor:
        """The weight of a maximum-likelihood comparison of a frame with the sum of the others.

        ``S / (N ((n - 1) S + N))``: the others' sum is a Wiener estimate of the specimen, the
        frame's noise has power N. Rings between Thon rings, where S is nothing, weigh nothing.
        """
        n = len(self.pooled)
        kernel = np.array([1.0, 2.0, 3.0, 2.0, 1.0]) / 9.0
        smooth = np.convolve(np.pad(signal, 2, mode="edge"), kernel, mode="valid")
        # One standard deviation of the estimate is taken off: rings of noise alone are left out.
        smooth = np.maximum(smooth - noise / (np.sqrt(self._ring_count * n_patches) * n), 0.0)
        ratio = smooth / (noise * ((n - 1) * smooth + noise))
        if not np.any(ratio > 0):
            return self.first_weight
        table = torch.as_tensor(ratio / ratio.max(), dtype=torch.float32, device=self.pooled.device)
        weight: torch.Tensor = table[self._ring] * self._high_pass
        return weight
