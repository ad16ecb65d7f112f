"""Fine alignment: the whole motion field at once, from many patches.

Each patch of each frame is compared with the sum of the same patch over the other frames. One
Newton step of the weighted cross-correlation gives a small shift and how well it's known (the
curvature). All of them together are explained by a field that is smooth in space (RELION's six
terms) and as smooth in time as the evidence asks for. So no patch has to be aligned by itself:
what one patch can't tell, its neighbours in space and time do.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from vitriflow.kernels.fourier import frequencies, good_size, taper
from vitriflow.kernels.frames import in_threads
from vitriflow.kernels.motion_field import N_TERMS, MotionField, spatial_terms
from vitriflow.kernels.motion_search import b_factor_weight
from vitriflow.kernels.motion_smooth import smooth_track

__all__ = ["Patches", "Refinement", "refine_field"]

_OVERLAP = 1.15  # side of a patch relative to the distance between patches
_RIM = 0.15
_LEAST_PATCHES = 4  # to a side, for the estimate of noise, where the field itself is global
_HIGH_PASS = 2.0  # periods to a patch
_WORST = 3.0  # a patch whose misfit is this many times the usual is left out
_LONGEST_STEP = 2.0  # pooled px: a Newton step past it has left the peak it started on
_SOFT_FIRST = 3.0  # blur of the first round: a wider peak for patches that are far off


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


@dataclass(frozen=True)
class Refinement:
    """What fine alignment found.

    Attributes
    ----------
    field
        The motion field.
    patches
        The patches that it was asked of.
    good
        ``(n_patches,)``: False where a patch couldn't be followed and the field was fitted without it.
    noise_px
        Standard deviation of one patch's shift in one frame (px).
    signal
        ``(n_k,)`` and ``noise``: radial power of the specimen and of the noise of one frame's patch.
    frequency
        ``(n_k,)`` their spatial frequency (cycles per unpooled px).
    pool
        Pixels pooled to a side.
    rounds
        Newton rounds done.
    """

    field: MotionField
    patches: Patches
    good: NDArray[np.bool_]
    noise_px: float
    signal: NDArray[np.float64]
    noise: NDArray[np.float64]
    frequency: NDArray[np.float64]
    pool: int
    rounds: int


def refine_field(
    pooled: torch.Tensor,
    start: NDArray[np.float64],
    *,
    pool: int,
    shape: tuple[int, int],
    grid: tuple[int, int],
    b_factor: float,
    roughness: NDArray[np.float64] | None = None,
    threads: int = 1,
    max_rounds: int = 5,
    tolerance_px: float = 0.02,
) -> Refinement:
    """Refine global shifts into a motion field.

    Parameters
    ----------
    pooled
        ``(n, height // pool, width // pool)`` frames, float32.
    start
        ``(n, 2)`` global shifts, y then x (unpooled px).
    pool
        Pixels pooled to a side.
    shape
        ``(height, width)`` of the unpooled frames.
    grid
        Patches in y and x; (0, 0) asks for a global shift alone.
    b_factor
        Of the cross-correlation's weight (unpooled px^2), for the first round; afterwards the
        weight follows from the signal and noise that are found, and never exceeds this in reach.
    roughness
        See :func:`vitriflow.kernels.motion_smooth.smooth_track`.
    threads
        CPU threads, one patch each at a time.
    max_rounds, tolerance_px
        Stop after so many rounds, or when the field changes by less (RMS, px).

    Returns
    -------
    Refinement
    """
    local = min(grid) > 0
    n = len(pooled)
    layout = Patches.lay(
        (pooled.shape[1], pooled.shape[2]), grid if local else (_LEAST_PATCHES, _LEAST_PATCHES)
    )
    centres = layout.centres_px(pool)
    terms = spatial_terms(centres[:, 0], centres[:, 1], shape)[:, : N_TERMS if local else 1]
    coefficients = np.zeros((n, 2, N_TERMS))
    coefficients[:, :, 0] = start - start[:1]
    field = MotionField(coefficients, shape)
    cutter = _Cutter(pooled, layout, b_factor / pool**2, threads)
    weight = cutter.first_weight * cutter.soften
    fit = _Fit(field, np.ones(len(centres), dtype=bool), 0.0)
    spectrum = None
    rounds = 0
    for rounds in range(1, max_rounds + 1):
        shifts = np.moveaxis(fit.field.at(centres[:, 0], centres[:, 1]), 0, 1) / pool
        steps, curvature, power = cutter.newton(shifts, weight)
        observed = pool * (shifts + steps)
        previous = fit.field
        fit = _fit_field(observed, curvature, terms, shape, roughness)
        spectrum = cutter.split_power(power)
        weight = cutter.best_weight(*spectrum)
        change = fit.field.at(centres[:, 0], centres[:, 1]) - previous.at(centres[:, 0], centres[:, 1])
        if rounds > 1 and np.sqrt(np.mean(change**2)) < tolerance_px:
            break
    assert spectrum is not None
    return Refinement(
        fit.field,
        layout,
        fit.good,
        fit.noise_px,
        spectrum[0],
        spectrum[1],
        cutter.ring_frequency / pool,
        pool,
        rounds,
    )


class _Cutter:
    """Cuts patches out of moving frames and compares them with their own sums."""

    def __init__(self, pooled: torch.Tensor, layout: Patches, b_factor: float, threads: int) -> None:
        self.pooled = pooled
        self.threads = threads if pooled.device.type == "cpu" else 1
        self.layout = layout
        device = pooled.device
        height, width = layout.size
        self.window = taper(layout.size, _RIM, device)
        self.ky, self.kx = frequencies(layout.size, device)
        cycles2 = (self.ky * height) ** 2 + (self.kx * width) ** 2
        high_pass = 1.0 - torch.exp(-cycles2 / (2 * _HIGH_PASS**2))
        # A half spectrum holds each frequency once; all but the outer columns stand for two.
        self.double = torch.full((1, width // 2 + 1), 2.0, device=device)
        self.double[:, 0] = 1.0
        self.double[:, -1] = 1.0
        self.first_weight = b_factor_weight(self.ky, self.kx, b_factor) * high_pass
        self.soften = torch.exp(-2.0 * (_SOFT_FIRST - 1.0) * b_factor * (self.ky**2 + self.kx**2))
        self.high_pass = high_pass
        radius = torch.sqrt(self.ky**2 + self.kx**2)
        self.n_rings = min(layout.size) // 2
        self.ring = (radius * 2 * self.n_rings).round().to(torch.int64).clamp(max=self.n_rings)
        self.ring_frequency = np.arange(self.n_rings + 1) / (2.0 * self.n_rings)
        self.ring_count = torch.bincount(
            self.ring.reshape(-1), weights=self.double.expand_as(radius).reshape(-1)
        ).clamp(min=1.0)

    def _spectra(self, patch: int, shifts: NDArray[np.float64]) -> torch.Tensor:
        """Transforms ``(n, h, w // 2 + 1)`` of one patch of all frames, moved by ``shifts (n, 2)``."""
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
        cuts *= self.window
        spectra = torch.fft.rfft2(cuts)
        move = torch.as_tensor(rest, dtype=torch.float32, device=spectra.device)
        along_y = torch.exp(-2j * torch.pi * move[:, 0, None] * self.ky[:, 0])
        along_x = torch.exp(-2j * torch.pi * move[:, 1, None] * self.kx[0])
        spectra *= along_y[:, :, None]
        spectra *= along_x[:, None, :]
        moved: torch.Tensor = spectra
        return moved

    def newton(
        self, shifts: NDArray[np.float64], weight: torch.Tensor
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], torch.Tensor]:
        """One Newton step for each patch and frame.

        Parameters
        ----------
        shifts
            ``(n_patches, n, 2)`` where the field now puts them (pooled px).
        weight
            ``(h, w // 2 + 1)``.

        Returns
        -------
        tuple
            Steps ``(n_patches, n, 2)`` (pooled px), mean curvatures ``(n_patches, 2)``, and ring sums
            of the coherent and of the whole power ``(2, n_rings + 1)``.
        """
        weight = weight * self.double
        n_patches, n = shifts.shape[:2]
        steps = np.zeros((n_patches, n, 2))
        curvatures = np.zeros((n_patches, 2))
        power = torch.zeros((n_patches, 2, self.n_rings + 1), dtype=torch.float64, device=weight.device)

        def work(patch: int) -> None:
            spectra = self._spectra(patch, shifts[patch])
            total = spectra.sum(dim=0)
            own = torch.view_as_real(spectra).square().sum(dim=3)
            power[patch, 0] = self._rings(total.abs().square())
            power[patch, 1] = self._rings(own.sum(dim=0))
            gradient, curvature = self._slopes(spectra, total, own, weight)
            mean = curvature.mean(dim=0)  # one frame alone is too noisy to give a curvature
            determinant = mean[0] * mean[1] - mean[2] ** 2
            if mean[0] > 0 and mean[1] > 0 and determinant > 0:
                inverse = torch.stack([mean[1], -mean[2], -mean[2], mean[0]]).reshape(2, 2) / determinant
                steps[patch] = (gradient @ inverse).clamp(-_LONGEST_STEP, _LONGEST_STEP).cpu().numpy()
                curvatures[patch] = mean[:2].cpu().numpy()

        in_threads(work, n_patches, self.threads)
        return steps, curvatures, power.sum(dim=0)

    def _slopes(
        self, spectra: torch.Tensor, total: torch.Tensor, own: torch.Tensor, weight: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Gradient ``(n, 2)`` and curvatures ``(n, 3)`` (yy, xx, yx) of the weighted correlation at zero."""
        cross = (weight * total).conj() * spectra
        product = torch.complex(cross.real - weight * own, cross.imag)
        wy, wx = 2 * torch.pi * self.ky[:, 0], 2 * torch.pi * self.kx[0]
        rows, columns = product.sum(dim=2), product.sum(dim=1)
        gradient = torch.stack([rows.imag @ wy, columns.imag @ wx], dim=1)
        mixed = (product.real @ wx) @ wy
        return gradient, torch.stack([rows.real @ wy**2, columns.real @ wx**2, mixed], dim=1)

    def _rings(self, image: torch.Tensor) -> torch.Tensor:
        doubled = (image * self.double).reshape(-1).to(torch.float64)
        return torch.bincount(self.ring.reshape(-1), weights=doubled, minlength=self.n_rings + 1)

    def split_power(self, power: torch.Tensor) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Signal and noise power of one frame's patch, ring by ring, from coherent and whole power."""
        n, n_patches = len(self.pooled), len(self.layout.starts)
        coherent, whole = (p / self.ring_count / n_patches for p in power)
        signal = (coherent - whole) / max(n * (n - 1), 1)
        noise = (whole / n - signal).clamp(min=1e-30)
        return signal.cpu().numpy(), noise.cpu().numpy()

    def best_weight(self, signal: NDArray[np.float64], noise: NDArray[np.float64]) -> torch.Tensor:
        """The weight of a maximum-likelihood comparison of a frame with the sum of the others.

        ``S / (N ((n - 1) S + N))``: the others' sum is a Wiener estimate of the specimen, the
        frame's noise has power N. Rings between Thon rings, where S is nothing, weigh nothing.
        """
        kernel = np.array([1.0, 2.0, 3.0, 2.0, 1.0]) / 9.0
        padded = np.pad(signal, 2, mode="edge")
        smooth = np.convolve(padded, kernel, mode="valid")
        # One standard deviation of the estimate is taken off: rings of noise alone are left out.
        count = self.ring_count.cpu().numpy() * len(self.layout.starts)
        smooth = np.maximum(smooth - noise / (np.sqrt(count) * len(self.pooled)), 0.0)
        n = len(self.pooled)
        ratio = smooth / (noise * ((n - 1) * smooth + noise))
        if not np.any(ratio > 0):
            return self.first_weight
        table = torch.as_tensor(ratio / ratio.max(), dtype=torch.float32, device=self.pooled.device)
        weight: torch.Tensor = table[self.ring] * self.high_pass
        return weight


@dataclass(frozen=True)
class _Fit:
    field: MotionField
    good: NDArray[np.bool_]
    noise_px: float


def _fit_field(
    observed: NDArray[np.float64],
    curvature: NDArray[np.float64],
    terms: NDArray[np.float64],
    shape: tuple[int, int],
    roughness: NDArray[np.float64] | None,
) -> _Fit:
    """Explain shifts ``(n_patches, n, 2)`` of known weight ``(n_patches, 2)`` by a field."""
    n_patches, n, _ = observed.shape
    known = curvature.mean(axis=1)
    good = known > 0.02 * np.median(known[known > 0]) if (known > 0).any() else known > 0
    n_terms = terms.shape[1]
    for _ in range(3):
        if good.sum() < max(2 * n_terms, n_patches // 2):
            break
        misfit = np.zeros(n_patches)
        for axis in (0, 1):
            weights = np.where(good, curvature[:, axis], 0.0)
            fitted, _ = _least_squares(observed[:, :, axis], weights, terms)
            residual = observed[:, :, axis] - terms @ fitted
            misfit += (residual**2).mean(axis=1) * curvature[:, axis]
        typical = np.median(misfit[good])
        bad = good & (misfit > _WORST**2 * typical)
        if not bad.any():
            break
        good = good & ~bad
    if good.sum() < max(2 * n_terms, n_patches // 2):
        # Too few patches can be followed for a local field: the mean over all that tell anything.
        terms = terms[:, :1]
        n_terms = 1
        good = known > 0
    coefficients = np.zeros((n, 2, N_TERMS))
    variances = []
    for axis in (0, 1):
        weights = np.where(good, curvature[:, axis], 0.0)
        fitted, root = _least_squares(observed[:, :, axis], weights, terms)
        residual = observed[:, :, axis] - terms @ fitted
        freedom = max(n * (int(good.sum()) - n_terms), 1)
        variance = float((weights[:, None] * residual**2).sum() / freedom)
        tracks = root.T @ fitted  # independent of each other, each with that variance
        smooth = np.stack([smooth_track(track, variance, roughness) for track in tracks])
        coefficients[:, axis, :n_terms] = np.linalg.solve(root.T, smooth).T
        variances.append(variance / max(float(np.median(weights[good])), 1e-30) if good.any() else 0.0)
    coefficients -= coefficients[:1]
    return _Fit(MotionField(coefficients, shape), good, float(np.sqrt(np.mean(variances))))


def _least_squares(
    observed: NDArray[np.float64], weights: NDArray[np.float64], terms: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Factors ``(n_terms, n)`` of the terms, and the Cholesky root of their information matrix."""
    scale = max(float(weights.max()), 1e-30)
    information = (terms * weights[:, None]).T @ terms + 1e-9 * scale * np.eye(terms.shape[1])
    root = np.linalg.cholesky(information)
    right = (terms * weights[:, None]).T @ observed
    return np.asarray(np.linalg.solve(information, right), dtype=np.float64), np.asarray(
        root, dtype=np.float64
    )
