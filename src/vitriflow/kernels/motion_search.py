"""Coarse global alignment: whole frames, whole pixels of a blurred cross-correlation."""

import math

import numpy as np
import torch

from vitriflow.kernels.fourier import fourier_crop, frequencies, shift_phases, taper

__all__ = ["b_factor_weight", "search_shifts"]

_SOFTEN = 4.0  # the search blurs this much more than the refinement, for a peak that can't be missed
_NEGLIGIBLE = 1e-2  # weights below this are cut off
_LARGEST_MAP = 320  # px to a side
_ROUNDS = 6
_RIM = 0.06


def b_factor_weight(ky: torch.Tensor, kx: torch.Tensor, b_px2: float) -> torch.Tensor:
    """``exp(-2 B |k|^2)``, k in cycles/px, B in px^2: weight of a cross-correlation, zero at k = 0."""
    squared = ky * ky + kx * kx
    weight = torch.exp(-2.0 * b_px2 * squared)
    weight[0, 0] = 0.0
    return weight


def search_shifts(
    pooled: torch.Tensor, *, b_factor: float, max_shift: float, group: int = 1, high_pass: float = 4.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Shifts that bring frames onto each other, to about a quarter of a pixel of the blurred peak.

    Two beginnings are tried, and the one with the more coherent sum wins: all frames as they are,
    each against the sum of the others; and a sum grown from the middle frame outwards, which a
    drift of many pixels can't smear.

    Parameters
    ----------
    pooled
        ``(n, height, width)`` frames, float32.
    b_factor
        For pixels of these frames (px^2).
    max_shift
        Largest shift against the first frame, along each axis (px of these frames).
    group
        So many neighbouring frames are searched as one, where one is too weak; the shifts of
        single frames are interpolated.
    high_pass
        Frequencies below this many periods to the image count little: illumination, not specimen.

    Returns
    -------
    tuple
        ``(n, 2)`` shifts, y then x (px), added to a frame's coordinates to bring it onto the first;
        and ``(n,)`` the height of each frame's peak over the noise of its map (standard deviations).
    """
    if group > 1:
        return _search_groups(pooled, b_factor, max_shift, group, high_pass)
    n, height, width = pooled.shape
    # Large frames have signal to spare: there the blur is whatever a small map can hold.
    widest = _LARGEST_MAP / (2 * max(height, width))
    b = max(_SOFTEN * b_factor, -math.log(_NEGLIGIBLE) / (2 * widest**2))
    edge = min(0.5, math.sqrt(-math.log(_NEGLIGIBLE) / (2 * b)))
    cut_y, cut_x = (min(size, max(16, 2 * math.ceil(edge * size))) for size in (height, width))
    small = (cut_y, cut_x)
    window = taper((height, width), _RIM, pooled.device)
    spectra = torch.stack(
        [fourier_crop(torch.fft.rfft2((f - f.mean()) * window), (height, width), small) for f in pooled]
    )
    ky, kx = frequencies(small, pooled.device)
    ky, kx = ky * (small[0] / height), kx * (small[1] / width)  # cycles per px of the pooled frames
    weight = b_factor_weight(ky, kx, b)
    cycles2 = (ky * height) ** 2 + (kx * width) ** 2
    weight *= 1.0 - torch.exp(-cycles2 / high_pass**2)
    step = (height / small[0], width / small[1])
    finder = _PeakFinder(small, step, 2.0 * max_shift)

    starts = [torch.zeros((n, 2), device=pooled.device), _grow(spectra, weight, ky, kx, finder)]
    best, best_score, heights = starts[0], -math.inf, torch.zeros(n, device=pooled.device)
    for start in starts if n > 2 else starts[1:]:
        shifts, peaks = _settle(spectra, weight, ky, kx, finder, start)
        score = float((weight * _sum(spectra, shifts, ky, kx).abs() ** 2).sum())
        if score > best_score:
            best, best_score, heights = shifts, score, peaks
    return best - best[0], heights


def _search_groups(
    pooled: torch.Tensor, b_factor: float, max_shift: float, group: int, high_pass: float
) -> tuple[torch.Tensor, torch.Tensor]:
    parts = torch.split(pooled, group)
    means = torch.stack([part.mean(dim=0) for part in parts])
    coarse, heights = search_shifts(means, b_factor=b_factor, max_shift=max_shift, high_pass=high_pass)
    lengths = [len(part) for part in parts]
    centres = np.cumsum(lengths) - (np.array(lengths) + 1) / 2
    numbers = np.arange(len(pooled))
    found = coarse.cpu().numpy().astype(np.float64)
    fine = np.stack([np.interp(numbers, centres, found[:, axis]) for axis in (0, 1)], axis=1)
    shifts = torch.as_tensor(fine - fine[:1], dtype=torch.float32, device=pooled.device)
    counts = torch.tensor(lengths, device=pooled.device)
    return shifts, torch.repeat_interleave(heights, counts)


class _PeakFinder:
    """Finds the peak of a cross-correlation within a range, to a fraction of a sample."""

    def __init__(self, size: tuple[int, int], step: tuple[float, float], max_shift: float) -> None:
        self.size = size
        self.step = step
        self.reach = tuple(
            max(1, min(math.ceil(max_shift / s), n // 2 - 1)) for n, s in zip(size, step, strict=True)
        )

    def __call__(self, cross: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Peaks of ``(n, height, width // 2 + 1)`` cross-spectra: shifts ``(n, 2)`` in px, and heights."""
        maps = torch.fft.irfft2(cross, s=self.size)
        ry, rx = self.reach
        near = torch.roll(maps, (ry, rx), dims=(-2, -1))[:, : 2 * ry + 1, : 2 * rx + 1]
        n, height, width = near.shape
        flat = near.reshape(n, -1)
        value, index = flat.max(dim=1)
        y, x = index // width, index % width
        rows = torch.arange(n, device=cross.device)
        inner_y, inner_x = y.clamp(1, height - 2), x.clamp(1, width - 2)
        fine_y = _parabola(*(near[rows, inner_y + d, x] for d in (-1, 0, 1)))
        fine_x = _parabola(*(near[rows, y, inner_x + d] for d in (-1, 0, 1)))
        fine_y = torch.where(y == inner_y, fine_y, torch.zeros_like(fine_y))
        fine_x = torch.where(x == inner_x, fine_x, torch.zeros_like(fine_x))
        shifts = torch.stack([(y - ry + fine_y) * self.step[0], (x - rx + fine_x) * self.step[1]], dim=1)
        spread = maps.reshape(n, -1).std(dim=1).clamp(min=1e-30)
        return shifts, value / spread


def _parabola(before: torch.Tensor, middle: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    """Where the parabola through three samples peaks, from the middle one, within half a sample."""
    curvature = before + after - 2.0 * middle
    offset = 0.5 * (before - after) / torch.where(curvature < 0, curvature, torch.full_like(curvature, -1e30))
    return offset.clamp(-0.5, 0.5)


def _sum(spectra: torch.Tensor, shifts: torch.Tensor, ky: torch.Tensor, kx: torch.Tensor) -> torch.Tensor:
    total = torch.zeros_like(spectra[0])
    for spectrum, shift in zip(spectra, shifts, strict=True):
        total += spectrum * shift_phases(shift[None], ky, kx)[0]
    return total


def _settle(
    spectra: torch.Tensor,
    weight: torch.Tensor,
    ky: torch.Tensor,
    kx: torch.Tensor,
    finder: _PeakFinder,
    start: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Align each frame to the sum of the others until nothing moves."""
    shifts = start.clone()
    peaks = torch.zeros(len(shifts), device=spectra.device)
    for _ in range(_ROUNDS):
        total = _sum(spectra, shifts, ky, kx)
        found = torch.empty_like(shifts)
        for i, spectrum in enumerate(spectra):
            others = total - spectrum * shift_phases(shifts[i : i + 1], ky, kx)[0]
            # The peak of others x conj(frame) lies at the whole shift of the frame.
            one, height = finder((weight * others * spectrum.conj())[None])
            found[i], peaks[i] = one[0], height[0]
        found -= found.mean(dim=0)
        change = (found - shifts + shifts.mean(dim=0)).abs().max()
        shifts = found
        if change < 0.25 * min(finder.step):
            break
    return shifts, peaks


def _grow(
    spectra: torch.Tensor, weight: torch.Tensor, ky: torch.Tensor, kx: torch.Tensor, finder: _PeakFinder
) -> torch.Tensor:
    """Shifts from a sum that grows from the middle frame outwards."""
    n = len(spectra)
    middle = n // 2
    shifts = torch.zeros((n, 2), device=spectra.device)
    total = spectra[middle].clone()
    for distance in range(1, n):
        for i in (middle + distance, middle - distance):
            if not 0 <= i < n:
                continue
            one, _ = finder((weight * total * spectra[i].conj())[None])
            shifts[i] = one[0]
            total += spectra[i] * shift_phases(one, ky, kx)[0]
    return shifts
