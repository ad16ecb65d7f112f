"""Coarse global alignment: whole frames, and the peak of a blurred cross-correlation."""

import math

import numpy as np
import torch

from vitriflow.kernels.fourier import fourier_crop, frequencies, shift_phases, taper
from vitriflow.kernels.frames import in_threads

__all__ = ["b_factor_weight", "search_shifts"]

_SOFTEN = 4.0  # the search blurs this much more than the refinement, for a peak that can't be missed
_NEGLIGIBLE = 1e-2  # weights below this are cut off
_LARGEST_MAP = 320  # px to a side
_ROUNDS = 6
_SETTLED = 0.25  # samples of the map
_RIM = 0.06
_HIGH_PASS = 4.0  # periods to the image; what's below is illumination, not specimen


def b_factor_weight(ky: torch.Tensor, kx: torch.Tensor, b_px2: float) -> torch.Tensor:
    """``exp(-2 B |k|^2)``, k in cycles/px, B in px^2: weight of a cross-correlation, zero at k = 0."""
    weight = torch.exp(-2.0 * b_px2 * (ky * ky + kx * kx))
    weight[0, 0] = 0.0
    return weight


def search_shifts(
    pooled: torch.Tensor, *, b_factor: float, max_shift: float, group: int = 1, threads: int = 1
) -> torch.Tensor:
    """Shifts that bring frames onto each other, good enough for a refinement to start from.

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
    threads
        CPU threads, some frames each at a time.

    Returns
    -------
    torch.Tensor
        ``(n, 2)`` shifts, y then x (px), added to a frame's coordinates to bring it onto the first.
    """
    if group > 1:
        return _search_groups(pooled, b_factor, max_shift, group, threads)
    n, height, width = pooled.shape
    # Large frames have signal to spare: there the blur is whatever a small map can hold.
    widest = _LARGEST_MAP / (2 * max(height, width))
    b = max(_SOFTEN * b_factor, -math.log(_NEGLIGIBLE) / (2 * widest**2))
    edge = min(0.5, math.sqrt(-math.log(_NEGLIGIBLE) / (2 * b)))
    cut_y, cut_x = (min(size, max(16, 2 * math.ceil(edge * size))) for size in (height, width))
    search = _Search(pooled, (cut_y, cut_x), b, max_shift, threads)
    best, best_score = torch.zeros((n, 2), device=pooled.device), -math.inf
    starts = [search.grow()] if n <= 2 else [torch.zeros_like(best), search.grow()]
    for start in starts:
        shifts = search.settle(start)
        score = search.coherence(shifts)
        if score > best_score:
            best, best_score = shifts, score
    return best - best[0]


def _search_groups(
    pooled: torch.Tensor, b_factor: float, max_shift: float, group: int, threads: int
) -> torch.Tensor:
    parts = torch.split(pooled, group)
    means = torch.stack([part.mean(dim=0) for part in parts])
    coarse = search_shifts(means, b_factor=b_factor, max_shift=max_shift, threads=threads)
    lengths = np.array([len(part) for part in parts])
    centres = np.cumsum(lengths) - (lengths + 1) / 2
    numbers = np.arange(len(pooled))
    found = coarse.cpu().numpy().astype(np.float64)
    # Half a group at either end lies outside of the centres: go on as between the nearest two.
    velocity = np.gradient(found, centres, axis=0) if len(parts) > 1 else np.zeros_like(found)
    fine = np.stack([np.interp(numbers, centres, found[:, axis]) for axis in (0, 1)], axis=1)
    fine += np.minimum(numbers - centres[0], 0.0)[:, None] * velocity[0]
    fine += np.maximum(numbers - centres[-1], 0.0)[:, None] * velocity[-1]
    return torch.as_tensor(fine - fine[:1], dtype=torch.float32, device=pooled.device)


class _Search:
    """Cropped spectra of all frames, and maps of their correlation with sums of each other.

    On a CPU frames go one by one, shared out to threads: each fits into a core's cache, and no core
    waits for another inside of small operations. On a GPU all go at once.
    """

    def __init__(
        self, pooled: torch.Tensor, size: tuple[int, int], b_factor: float, max_shift: float, threads: int
    ) -> None:
        shape = (pooled.shape[1], pooled.shape[2])
        n, device = len(pooled), pooled.device
        on_cpu = device.type == "cpu"
        self._threads = threads if on_cpu else 1
        together = 1 if on_cpu else n
        self._parts = [slice(i, i + together) for i in range(0, n, together)]
        window = taper(shape, _RIM, device)
        self.size = size
        self.step = (shape[0] / size[0], shape[1] / size[1])
        self.spectra = torch.empty((n, size[0], size[1] // 2 + 1), dtype=torch.complex64, device=device)

        def transform(part: int) -> None:
            frames = pooled[self._parts[part]]
            flat = (frames - frames.mean(dim=(1, 2), keepdim=True)) * window
            self.spectra[self._parts[part]] = fourier_crop(torch.fft.rfft2(flat), shape, size)

        in_threads(transform, len(self._parts), self._threads)
        ky, kx = frequencies(size, device)
        self.ky, self.kx = ky / self.step[0], kx / self.step[1]  # cycles per px of the pooled frames
        cycles2 = (self.ky * shape[0]) ** 2 + (self.kx * shape[1]) ** 2
        high_pass = 1.0 - torch.exp(-cycles2 / _HIGH_PASS**2)
        self.weight = b_factor_weight(self.ky, self.kx, b_factor) * high_pass
        # Twice the bound: frames are compared with a sum that can be as far off on the other side.
        self.reach = [
            max(1, min(math.ceil(2 * max_shift / s), n // 2 - 1))
            for n, s in zip(size, self.step, strict=True)
        ]

    def grow(self) -> torch.Tensor:
        """Shifts from a sum that grows from the middle frame outwards."""
        n = len(self.spectra)
        middle = n // 2
        shifts = torch.zeros((n, 2), device=self.spectra.device)
        total = self.spectra[middle].clone()

        def work(_: int) -> None:
            for distance in range(1, n):
                for i in (middle + distance, middle - distance):
                    if 0 <= i < n:
                        shifts[i] = self._peaks((self.weight * total * self.spectra[i].conj())[None])[0]
                        total.add_(self.spectra[i] * shift_phases(shifts[i : i + 1], self.ky, self.kx)[0])

        in_threads(work, 1, self._threads)
        return shifts

    def settle(self, shifts: torch.Tensor) -> torch.Tensor:
        """Align each frame to the sum of the others until nothing moves."""
        for _ in range(_ROUNDS):
            step = self._peaks_of_all(shifts) - shifts
            # The others move as well, so each goes but its part of the way: two frames would swap places.
            step *= (len(shifts) - 1) / len(shifts)
            step -= step.mean(dim=0)
            change = step.abs().max()
            shifts = shifts + step
            if change < _SETTLED * min(self.step):
                break
        return shifts

    def coherence(self, shifts: torch.Tensor) -> float:
        """Weighted power of the sum of all frames moved by ``shifts``."""
        return float((self.weight * self._sum(shifts).abs() ** 2).sum())

    def _moved(self, shifts: torch.Tensor, part: slice) -> torch.Tensor:
        return self.spectra[part] * shift_phases(shifts[part], self.ky, self.kx)

    def _sum(self, shifts: torch.Tensor) -> torch.Tensor:
        """The sum of all frames moved by ``shifts``, always added up in the same order."""
        parts = torch.empty(
            (len(self._parts), *self.spectra.shape[1:]), dtype=torch.complex64, device=self.spectra.device
        )

        def work(part: int) -> None:
            parts[part] = self._moved(shifts, self._parts[part]).sum(dim=0)

        in_threads(work, len(self._parts), self._threads)
        return parts.sum(dim=0)

    def _peaks_of_all(self, shifts: torch.Tensor) -> torch.Tensor:
        """Where each frame, not moved, correlates best with the sum of the others, moved by ``shifts``."""
        total = self._sum(shifts)
        found = torch.empty_like(shifts)

        def work(part: int) -> None:
            frames = self._parts[part]
            # The peak of others x conj(frame) lies at the whole shift of the frame.
            others = (total - self._moved(shifts, frames)).mul_(self.weight)
            found[frames] = self._peaks(others.mul_(self.spectra[frames].conj()))

        in_threads(work, len(self._parts), self._threads)
        return found

    def _peaks(self, cross: torch.Tensor) -> torch.Tensor:
        """Where correlations peak within reach, ``(n, 2)`` (px of the pooled frames)."""
        maps = torch.fft.irfft2(cross, s=self.size)
        ry, rx = self.reach
        near = torch.cat([maps[:, -ry:], maps[:, : ry + 1]], dim=1)
        near = torch.cat([near[:, :, -rx:], near[:, :, : rx + 1]], dim=2)
        n, height, width = near.shape
        index = near.reshape(n, -1).argmax(dim=1)
        y, x = index // width, index % width
        rows = torch.arange(n, device=cross.device)
        inner_y, inner_x = y.clamp(1, height - 2), x.clamp(1, width - 2)
        fine_y = _parabola(*(near[rows, inner_y + d, x] for d in (-1, 0, 1)))
        fine_x = _parabola(*(near[rows, y, inner_x + d] for d in (-1, 0, 1)))
        fine_y = torch.where(y == inner_y, fine_y, torch.zeros_like(fine_y))
        fine_x = torch.where(x == inner_x, fine_x, torch.zeros_like(fine_x))
        return torch.stack([(y - ry + fine_y) * self.step[0], (x - rx + fine_x) * self.step[1]], dim=1)


def _parabola(before: torch.Tensor, middle: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    """Where the parabola through three samples peaks, from the middle one, within half a sample."""
    curvature = before + after - 2.0 * middle
    offset = 0.5 * (before - after) / torch.where(curvature < 0, curvature, torch.full_like(curvature, -1e30))
    return offset.clamp(-0.5, 0.5)
