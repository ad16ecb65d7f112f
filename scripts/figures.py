"""Draws the pictures in docs/images from simulated movies: ``python scripts/figures.py [NAME ...]``.

Everything is seeded and no real data is used. A movie of 1024 x 1024 px is enough to see each
algorithm at work; whole set: a minute or two.
"""

import sys
import tempfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from vitriflow.formats import State, check_complete, open_movie
from vitriflow.kernels import (
    Corrected,
    MotionField,
    MotionSettings,
    correct_movie,
    fit_ctf,
    gain_factor,
    power_spectrum,
)
from vitriflow.kernels.ctf_curves import diagnostic_image
from vitriflow.kernels.ctf_rings import Optics
from vitriflow.kernels.gain_diagnosis import FrameSums, diagnose_gain
from vitriflow.kernels.gain_diagnosis_pattern import count_pattern, gain_pattern, orient
from vitriflow.kernels.pick import pick
from vitriflow.kernels.pick_prepare import prepare
from vitriflow.kernels.pick_scores import blob_scores, find_peaks, learnt_scores
from vitriflow.pipeline.ready import ReadyQueue
from vitriflow.simulate import FileFormat, MotionSpec, MovieSpec, SessionSpec, simulate_movie
from vitriflow.simulate.detector import make_camera
from vitriflow.simulate.writing import write_movie

OUT = Path(__file__).resolve().parents[1] / "docs" / "images"
LARGEST_BYTES = 200_000
BLUE, RED, GREY = "#0b6fa4", "#c8403c", "#8a8f98"
STILL = MotionSpec(settling_A=0, drift_A=0, jitter_A=0, doming_A=0, blur=False)
Image_ = NDArray[np.float32]


def binned(image: NDArray[Any], factor: int) -> Image_:
    height, width = (side // factor * factor for side in image.shape)
    tiles = image[:height, :width].reshape(height // factor, factor, width // factor, factor)
    return np.asarray(tiles.mean(axis=(1, 3)), dtype=np.float32)


def show(axes: Axes, image: NDArray[Any], title: str, percent: tuple[float, float] = (1, 99)) -> None:
    """Grey picture with row 0 at the bottom, as in MRC."""
    low, high = np.percentile(image, percent)
    axes.imshow(image, cmap="gray", vmin=low, vmax=high, origin="lower", interpolation="nearest")
    axes.set_title(title, fontsize=9)
    axes.set_xticks([])
    axes.set_yticks([])


def save(figure: Figure, name: str) -> None:
    """Write a PNG with few colours, which is half the size and looks the same."""
    path = OUT / f"{name}.png"
    with tempfile.TemporaryDirectory() as folder:
        rough = Path(folder) / "rough.png"
        figure.savefig(rough, dpi=100, metadata={"Software": None})
        plt.close(figure)
        with Image.open(rough) as picture:
            picture.convert("RGB").quantize(96, dither=Image.Dither.NONE).save(path, optimize=True)
    size = path.stat().st_size
    if size > LARGEST_BYTES:
        raise ValueError(f"{path.name} has {size} bytes; {LARGEST_BYTES} are allowed")
    sys.stdout.write(f"{path.name}: {size // 1000} kB\n")


@lru_cache(maxsize=1)
def moving() -> tuple[MovieSpec, NDArray[Any], Image_, MotionField, Corrected]:
    """A movie that moves and domes, its frames, gain, true motion, and what the kernel made of it."""
    spec = MovieSpec(
        shape=(1024, 1024), n_frames=16, seed=4, motion=MotionSpec(doming_A=5.0, settling_A=10.0)
    )
    made = simulate_movie(spec)
    true = made.truth.motion
    coefficients = true.local_coefficients_px.copy()
    coefficients[:, :, 0] += true.global_shifts_px
    frames = np.stack(list(made))
    gain, defects = gain_factor(made.gain)
    corrected = correct_movie(
        lambda: iter(frames),
        len(frames),
        spec.shape,
        MotionSettings(spec.pixel_size_A, dose_per_frame=spec.dose_per_frame_e_per_A2, unweighted=True),
        gain=gain.copy(),
        defects=defects,
        threads=2,
    )
    return spec, frames, gain, MotionField(coefficients - coefficients[:1], spec.shape), corrected


def simulator() -> None:
    spec, frames, gain, truth, _ = moving()
    figure, axes = plt.subplots(1, 4, figsize=(11, 3.1), layout="constrained")
    show(
        axes[0],
        frames[0][300:364, 300:364],
        f"64 x 64 px of a frame, {spec.dose_per_pixel:g} electrons/px",
        (0, 100),
    )
    axes[0].images[0].set_clim(0, 6)
    show(axes[1], binned(make_camera(spec).gain, 4), "gain reference (4 x binned)", (2, 98))
    show(axes[2], binned(frames.sum(axis=0) * gain, 4), "sum, gain-corrected, not aligned")
    place = (np.arange(7) + 0.5) / 7 * 1024
    y, x = np.meshgrid(place, place, indexing="ij")
    shift = truth.at(y, x)
    local = -(shift[-1] - truth.mean_shifts()[-1])  # where the specimen goes
    axes[3].quiver(x, y, local[..., 1], local[..., 0], color=BLUE, angles="xy", scale_units="xy", scale=0.025)
    axes[3].set_title("true local motion at the end (40 x)", fontsize=9)
    axes[3].set_aspect("equal")
    axes[3].set_xlim(0, 1024)
    axes[3].set_ylim(0, 1024)
    axes[3].set_xticks([])
    axes[3].set_yticks([])
    save(figure, "simulator")


def motion() -> None:
    spec, frames, gain, truth, corrected = moving()
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.7), layout="constrained")
    found = corrected.motion
    centre = (np.array([512.0]), np.array([512.0]))
    corner = (np.array([60.0]), np.array([60.0]))
    for (y, x), colour, where in ((centre, BLUE, "centre"), (corner, RED, "corner")):
        true, got = truth.at(y, x)[:, 0], found.at(y, x)[:, 0]
        axes[0].plot(true[:, 1], true[:, 0], color=colour, lw=1, label=f"{where}, true")
        axes[0].plot(got[:, 1], got[:, 0], "o", color=colour, ms=3.5, label=f"{where}, found")
    axes[0].set_xlabel("shift in x (px)")
    axes[0].set_ylabel("shift in y (px)")
    axes[0].axis("equal")
    axes[0].legend(fontsize=7, frameon=False)
    axes[0].set_title("shift tracks", fontsize=9)

    grid = (np.arange(10) + 0.5) / 10 * 1024
    y, x = np.meshgrid(grid, grid, indexing="ij")
    error = found.at(y, x) - truth.at(y, x)
    rms = np.sqrt((error**2).mean(axis=(1, 2)))
    moved = np.sqrt((truth.at(y, x) ** 2).mean(axis=(1, 2, 3)))
    number = np.arange(1, spec.n_frames + 1)
    axes[1].semilogy(number[1:], moved[1:], color=GREY, label="motion itself")
    for axis, colour in ((0, BLUE), (1, RED)):
        axes[1].semilogy(number[1:], rms[1:, axis], "o-", ms=3, color=colour, label=f"error in {'yx'[axis]}")
    axes[1].set_xlabel("frame")
    axes[1].set_ylabel("px, RMS over the field")
    axes[1].legend(fontsize=7, frameon=False)
    whole = float(np.sqrt((error**2).mean()))
    axes[1].set_title(f"error over the field: {whole:.3f} px RMS in all", fontsize=9)

    plain = (frames.sum(axis=0) * gain).astype(np.float32)
    plain = np.where((plain > 2 * plain.mean()) | (plain < 0.3 * plain.mean()), plain.mean(), plain)
    aligned = corrected.unweighted
    assert aligned is not None
    for image, colour, label in ((plain, GREY, "frames as they are"), (aligned.numpy(), BLUE, "moved back")):
        axes[2].plot(*radial_power(image), color=colour, lw=1, label=label)
    axes[2].set_xlim(0.02, 0.25)
    axes[2].set_ylim(0.6, 3)
    axes[2].set_xlabel("spatial frequency (1/A)")
    axes[2].set_ylabel("power of the sum / counting noise")
    axes[2].legend(fontsize=7, frameon=False)
    axes[2].set_title("what alignment gives back", fontsize=9)
    save(figure, "motion")


def radial_power(image: NDArray[Any]) -> tuple[Image_, Image_]:
    """Power by frequency (cycles/px), in units of counting noise: a count's variance is its mean."""
    power = np.abs(np.fft.rfft2(image - image.mean())) ** 2 / (image.size * image.mean())
    radius = np.hypot(np.fft.fftfreq(image.shape[0])[:, None], np.fft.rfftfreq(image.shape[1])[None, :])
    ring = np.rint(radius * 256).astype(int)
    mean = np.bincount(ring.ravel(), power.ravel()) / np.bincount(ring.ravel())
    return np.arange(mean.size) / 256, mean


def ctf() -> None:
    spec = MovieSpec(
        shape=(2048, 2048), n_frames=1, dose_per_frame_e_per_A2=30.0, motion=STILL, dtype="float32",
        gain_applied=True, n_dead_columns=0, n_dead_pixels=0, n_hot_pixels=0, seed=6,
        defocus_u_A=13400.0, defocus_v_A=11600.0, defocus_angle_deg=35.0,
    )  # fmt: skip
    image = torch.from_numpy(np.asarray(simulate_movie(spec).frame(0), dtype=np.float32))
    spectrum = power_spectrum(image, spec.pixel_size_A)
    fit = fit_ctf(spectrum.amplitude, spectrum.pixel_size_A, 300.0, 2.7, spec.amplitude_contrast)
    picture = diagnostic_image(
        spectrum.amplitude, spectrum.pixel_size_A, (fit.defocus_u_A, fit.defocus_v_A), fit.defocus_angle_deg,
        0.0, Optics(300.0, 2.7, spec.amplitude_contrast), fit.fit_resolution_A,
    ).numpy()  # fmt: skip
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), width_ratios=(1, 1.9), layout="constrained")
    show(left, picture[96:-96, 96:-96], "left: spectrum; right: the fit", (0, 100))
    k = np.array(fit.curves["spatial_frequency_per_A"])
    right.plot(
        k,
        fit.curves["spectrum"],
        color=GREY,
        lw=1,
        label="spectrum without background, equal phases averaged",
    )
    right.plot(k, fit.curves["fit"], color=BLUE, lw=1.2, label="squared CTF of the fit")
    right.plot(
        k, fit.curves["correlation"], color=RED, lw=1, ls="--", label="their correlation in a moving window"
    )
    if fit.fit_resolution_A is not None:
        right.axvline(1 / fit.fit_resolution_A, color="k", lw=0.7, ls=":")
        right.text(1 / fit.fit_resolution_A, 1.32, f" {fit.fit_resolution_A:.1f} A", fontsize=8)
    right.set_ylim(-0.6, 1.75)
    right.set_xlim(k[0], k[-1])
    right.set_xlabel("spatial frequency (1/A)")
    right.legend(fontsize=7, frameon=False, ncols=2, loc="upper left")
    right.set_title(
        f"true: U 13400, V 11600 A, 35.0 degrees; found: U {fit.defocus_u_A:.0f}, V {fit.defocus_v_A:.0f} A, "
        f"{fit.defocus_angle_deg:.1f} degrees ({fit.quality})",
        fontsize=9,
    )
    save(figure, "ctf")


def picking() -> None:
    spec = MovieSpec(
        shape=(1536, 1536), n_frames=1, dose_per_frame_e_per_A2=20.0, motion=STILL, dtype="float32",
        gain_applied=True, n_dead_columns=0, n_dead_pixels=0, n_hot_pixels=0, seed=11, carbon_edge=True,
        defocus_u_A=15100.0, defocus_v_A=14900.0,
    )  # fmt: skip
    movie = simulate_movie(spec)
    image = np.asarray(movie.frame(0), dtype=np.float32)
    picks = pick(image, 1.0, spec.particle_diameter_A)
    prepared = prepare(image, 1.0, spec.particle_diameter_A)
    scores = learnt_scores(prepared, blob_scores(prepared, (12.0, 17.0), "dog"))
    assert scores is not None
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.8), layout="constrained")
    small = binned(image, 6)
    show(axes[0], small, "circles: picks; crosses: true centres; red: left out", (30, 99.8))
    mask = np.ma.masked_equal(picks.mask.astype(float), 0)
    axes[0].imshow(
        mask,
        extent=(-0.5, 255.5, -0.5, 255.5),
        origin="lower",
        cmap="autumn",
        alpha=0.25,
        interpolation="nearest",
    )
    at, true = picks.accepted / 6, movie.truth.particles_px / 6
    axes[0].scatter(at[:, 1], at[:, 0], s=150, facecolors="none", edgecolors="#4cc9f0", linewidths=1)
    axes[0].scatter(true[:, 1], true[:, 0], s=10, marker="+", color="#ffd166", linewidths=0.8)
    axes[0].set_xlim(0, 255)
    axes[0].set_ylim(0, 255)
    show(axes[1], scores.numpy(), "scores of the learnt template", (1, 99.8))
    rim = int(0.5 * prepared.diameter)
    allowed = prepared.good.clone()
    allowed[:rim] = allowed[-rim:] = False
    allowed[:, :rim] = allowed[:, -rim:] = False
    distance = 0.6 * prepared.diameter
    bins = np.linspace(0.5, 7, 40)
    for sign, colour, label in ((1, BLUE, "peaks"), (-1, GREY, "peaks of the inverted scores (decoys)")):
        heights = find_peaks(sign * scores, allowed, distance, 0.5).heights
        axes[2].hist(heights, bins, color=colour, alpha=0.75, label=label)
    axes[2].axvline(picks.threshold, color=RED, lw=1.2, label=f"threshold {picks.threshold:.2f}")
    axes[2].set_xlabel("score (standard deviations)")
    axes[2].set_ylabel("number")
    axes[2].legend(fontsize=7, frameon=False)
    axes[2].set_title(f"{picks.n_picks} picks by '{picks.method}'", fontsize=9)
    save(figure, "picking")


def engine() -> None:
    """The order of work under a backlog, by the engine's own queue and a clock that is only counted."""
    figure, axes = plt.subplots(1, 2, figsize=(11, 3.6), layout="constrained", sharey=True)
    for place, share, title in (
        (axes[0], 0, "freshest first alone"),
        (axes[1], 4, "every fourth is the oldest (the default)"),
    ):
        queue, arrived = ReadyQueue(share), {}
        waiting = [(0.0, n) for n in range(40)] + [(6.0 * (n - 39), n) for n in range(40, 70)]
        free, started = [0.0, 0.0], {}
        while len(started) < 70:
            worker = int(np.argmin(free))
            moment = free[worker]
            while waiting and waiting[0][0] <= moment:
                when, number = waiting.pop(0)
                arrived[number] = when
                queue.add((number, 0))
            work = queue.take()
            if work is None:
                free[worker] = waiting[0][0]
                continue
            started[work[0]] = moment
            free[worker] = moment + 8.0
        for number, moment in started.items():
            place.plot([arrived[number], moment], [number, number], color=GREY, lw=0.8)
            place.plot([moment, moment + 8], [number, number], color=BLUE if number >= 40 else RED, lw=2)
        place.set_title(title, fontsize=9)
        place.set_xlabel("time (s)")
    axes[0].set_ylabel("exposure")
    axes[0].text(
        140, 42, "backlog of 40 at the start (red)\none new every 6 s (blue)\n2 workers, 8 s each", fontsize=8
    )
    save(figure, "engine")


def formats() -> None:
    """EER events become frames; and what is known of a file from as much of it as is there."""
    spec = MovieSpec(shape=(256, 256), n_frames=8, seed=2, n_particles=2, dose_per_frame_e_per_A2=4.0)
    movie = simulate_movie(spec)
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.4), width_ratios=(1, 1, 1.6), layout="constrained")
    with tempfile.TemporaryDirectory() as folder:
        for kind, colour, label in (
            (FileFormat.TIFF_LZW, BLUE, "TIFF, LZW (8 frames)"),
            (FileFormat.EER, RED, "EER (160 raw frames)"),
        ):
            whole = Path(folder) / f"whole.{kind.value.split('-')[0]}"
            write_movie(movie, whole, SessionSpec(movie=spec, format=kind, eer_frames_per_fraction=20), None)
            data, cut = whole.read_bytes(), whole.with_stem("cut")
            shares, found, last = np.linspace(0, 1, 201), [], 8 if kind is FileFormat.TIFF_LZW else 160
            for share in shares:
                cut.write_bytes(data[: int(len(data) * share)])
                verdict = check_complete(cut)
                assert (verdict.state is State.COMPLETE) == (share == 1.0)
                found.append(100 * (verdict.n_frames or 0) / last)
            axes[2].plot(100 * shares, found, color=colour, lw=1, label=label)
        for place, group, title in (
            (axes[0], 1, "EER: one raw frame"),
            (axes[1], 20, "20 raw frames summed"),
        ):
            with open_movie(whole, eer_frames_per_fraction=group) as eer:
                show(place, eer.frame(0)[:96, :96], title, (0, 100))
    axes[2].plot([100], [100], "ko", ms=5, label="called complete: here only")
    axes[2].set_xlabel("bytes of the file that are there (%)")
    axes[2].set_ylabel("frames found whole (%)")
    axes[2].set_title("what the structure says of a growing file", fontsize=9)
    axes[2].legend(fontsize=7, frameon=False)
    save(figure, "formats")


def gain() -> None:
    """The sum of five movies, what its pixels have of their own, and how each orientation explains it."""
    shape, sums = (512, 512), FrameSums((512, 512))
    movies = [simulate_movie(MovieSpec(shape=shape, seed=n, n_views=8, gain_spread=0.04)) for n in range(5)]
    for movie in movies:
        sums.add(movie, len(movie))
    stored = movies[0].gain[::-1]
    found = diagnose_gain(sums.total, sums.n_frames, stored, parts=sums.parts, n_movies=sums.n_movies)
    figure, axes = plt.subplots(1, 4, figsize=(11, 2.9), width_ratios=(1, 1, 1, 1.3), layout="constrained")
    show(axes[0], binned(sums.total, 2), "sum of 5 movies")
    near = (slice(8, 40), slice(8, 40))
    show(axes[1], count_pattern(sums.total).deviation[near], "its pattern (32 x 32 px)")
    show(axes[2], orient(gain_pattern(stored)[0], "flipped_y")[near], "the reference's, flipped_y")
    scores = found.scores[::-1]
    fits, bars = [score.fit for score in scores], [3 * score.error for score in scores]
    colours = [BLUE if score.orientation in found.alike else GREY for score in scores]
    axes[3].barh([score.orientation for score in scores], fits, xerr=bars, color=colours)
    axes[3].axvline(1.0, color=GREY, lw=0.8, ls=":")
    axes[3].set_xlim(-0.15, 1.15)
    axes[3].tick_params(labelsize=7)
    axes[3].set_title("fit, with 3 standard deviations", fontsize=9)
    save(figure, "gain")


FIGURES: dict[str, Callable[[], None]] = {
    function.__name__: function for function in (simulator, motion, ctf, picking, engine, formats, gain)
}


def main() -> None:
    OUT.mkdir(exist_ok=True)
    wanted = sys.argv[1:] or list(FIGURES)
    if unknown := set(wanted) - FIGURES.keys():
        raise SystemExit(f"no figure {', '.join(sorted(unknown))}; there are {', '.join(FIGURES)}")
    for name in wanted:
        FIGURES[name]()


if __name__ == "__main__":
    main()
