"""Motion correction on an NVIDIA GPU: time with and without decoding, memory, and how near the floor.

The floor is what memory traffic alone would take: each pixel of each frame read as counts and
written as float32 (5 bytes), warped (8), transformed in two passes (16), and added with its weight
into two sums (20), at the bandwidth that a copy on the same GPU reaches.
"""

import argparse
import functools
import statistics
import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.inputs import Case, Made, make_movie
from benchmarks.measure import table, workspace
from benchmarks.motion import field_error
from benchmarks.motion_cases import FALCON, K3
from vitriflow.formats import open_movie, read_gain
from vitriflow.kernels import Corrected, MotionSettings, correct_movie, gain_factor
from vitriflow.simulate import MovieSpec

BYTES_PER_PIXEL_AND_FRAME = 49
_THREADS = 8
_COPIED = 1 << 30

Frames = Callable[[], Iterable[NDArray[Any]]]


def run(
    full: bool,
    *,
    device: str | None = None,
    specs: Iterable[tuple[str, MovieSpec]] | None = None,
    threads: int = _THREADS,
) -> tuple[str, dict[str, Any]]:
    """Correct movies on ``device``; without a GPU say so, which is no failure."""
    if device is None and not torch.cuda.is_available():
        return "## GPU\n\nNo CUDA GPU here, so nothing was measured on one.\n", {"device": None}
    device = device or "cuda:0"
    chosen = list(specs) if specs is not None else _specs(full)
    with workspace("gpu") as folder:
        rows = [_one(make_movie(Case(name, spec), folder), device, threads) for name, spec in chosen]
    bandwidth = _bandwidth(device)
    for row in rows:
        row["floor_s"] = row["bytes_at_least"] / bandwidth
        row["fraction_of_floor"] = row["floor_s"] / row["without_decode_s"]
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else device
    data = {"device": name, "copy_bandwidth_GB_s": bandwidth / 1e9, "movies": rows}
    return _report(data), data


def _specs(full: bool) -> list[tuple[str, MovieSpec]]:
    chosen = [("falcon", FALCON.model_copy(update={"seed": 101}))]
    return [*chosen, ("k3", K3.model_copy(update={"seed": 102}))] if full else chosen


def _one(made: Made, device: str, threads: int) -> dict[str, Any]:
    spec = made.case.spec
    settings = MotionSettings(
        pixel_size_A=spec.pixel_size_A,
        voltage_kV=spec.voltage_kV,
        dose_per_frame=spec.dose_per_frame_e_per_A2,
    )
    with open_movie(made.path) as movie:
        decoded = list(movie.frames(0, movie.n_frames, workers=threads))
        from_memory = _times(lambda: decoded, made, settings, device, threads)
        read = functools.partial(movie.frames, 0, movie.n_frames, workers=threads)
        from_file = _times(read, made, settings, device, threads)
        started = time.perf_counter()
        for _ in movie.frames(0, movie.n_frames, workers=threads):
            pass
        decode_s = time.perf_counter() - started
    on_cpu = _correct(lambda: decoded, made, settings, "cpu", threads)
    return {
        "movie": made.case.name,
        "shape": list(spec.shape),
        "n_frames": spec.n_frames,
        "without_decode_s": from_memory["seconds"],
        "with_decode_s": from_file["seconds"],
        "decode_alone_s": decode_s,
        "peak_GB": from_memory["peak_GB"],
        "error_px": field_error(from_memory["result"].motion, made.truth).blurring_px,
        "against_cpu_px": _difference(from_memory["result"], on_cpu),
        "bytes_at_least": BYTES_PER_PIXEL_AND_FRAME * spec.n_frames * spec.shape[0] * spec.shape[1],
    }


def _times(source: Frames, made: Made, settings: MotionSettings, device: str, threads: int) -> dict[str, Any]:
    """Median of three after one that warms up, and the GPU's peak memory."""
    _correct(source, made, settings, device, threads)
    on_gpu = device.startswith("cuda")
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(device)
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        result = _correct(source, made, settings, device, threads)
        if on_gpu:
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - started)
    peak = torch.cuda.max_memory_allocated(device) / 1e9 if on_gpu else None
    return {"seconds": statistics.median(seconds), "peak_GB": peak, "result": result}


def _correct(source: Frames, made: Made, settings: MotionSettings, device: str, threads: int) -> Corrected:
    gain = defects = None
    if made.gain is not None:
        reference = read_gain(made.gain, made.case.spec.shape)
        gain, defects = gain_factor(reference.multiplier())
    spec = made.case.spec
    return correct_movie(
        source,
        spec.n_frames,
        spec.shape,
        settings,
        gain=gain,
        defects=defects,
        device=device,
        threads=threads,
    )


def _difference(one: Corrected, other: Corrected) -> float:
    """RMS difference of two motions over the field (px)."""
    height, width = one.motion.shape
    grid = (np.arange(8) + 0.5) / 8
    y, x = np.meshgrid(grid * height, grid * width, indexing="ij")
    return float(np.sqrt(np.mean((one.motion.at(y, x) - other.motion.at(y, x)) ** 2)))


def _bandwidth(device: str) -> float:
    """Bytes a second of a copy on the device, reading and writing counted."""
    size = _COPIED if device.startswith("cuda") else _COPIED >> 4
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    best = float("inf")
    for _ in range(5):
        started = time.perf_counter()
        target.copy_(source)
        if device.startswith("cuda"):
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - started)
    return 2 * size / best


def _report(data: dict[str, Any]) -> str:
    rows = [
        (
            row["movie"],
            f"{row['shape'][1]} x {row['shape'][0]} x {row['n_frames']}",
            f"{row['without_decode_s']:.2f}",
            f"{row['with_decode_s']:.2f}",
            f"{row['decode_alone_s']:.2f}",
            "-" if row["peak_GB"] is None else f"{row['peak_GB']:.2f}",
            f"{row['fraction_of_floor']:.1%}",
            f"{row['error_px']:.3f}",
            f"{row['against_cpu_px']:.4f}",
        )
        for row in data["movies"]
    ]
    head = (
        *("movie", "size", "s from memory", "s from the file", "s decoding alone", "GPU memory GB"),
        *("of the floor", "error px", "against CPU px"),
    )
    return "\n".join(
        [
            "## GPU",
            "",
            (__doc__ or "").split("\n\n", 1)[1].strip(),
            "",
            f"{data['device']}, copying at {data['copy_bandwidth_GB_s']:.0f} GB/s; times include the way from the "
            "CPU's memory to the GPU's and back:",
            "",
            table(head, rows),
            "",
        ]
    )


_TINY = MovieSpec(shape=(512, 512), n_frames=6, dose_per_frame_e_per_A2=4.0, seed=2, n_views=8)


def main() -> None:
    """``python -m benchmarks.gpu [--device cpu] [--tiny] [--threads N]``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--device", help="cuda:0 where there is one; cpu shows that the benchmark runs")
    parser.add_argument(
        "--tiny", action="store_true", help="a movie of 512 x 512 x 6 in place of 4096 x 4096 x 40"
    )
    parser.add_argument(
        "--threads", type=int, default=_THREADS, help="that decode, and that compute on a CPU"
    )
    asked = parser.parse_args()
    specs = [("tiny", _TINY)] if asked.tiny else None
    print(run(full=False, device=asked.device, specs=specs, threads=asked.threads)[0])


if __name__ == "__main__":
    main()
