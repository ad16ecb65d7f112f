"""The field of view: particles, ice, carbon and crystals, as the contrast that the optics make of them."""

from dataclasses import dataclass

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from vitriflow.simulate import optics
from vitriflow.simulate.motion import Motion
from vitriflow.simulate.spec import MovieSpec
from vitriflow.simulate.specimen import load_stamps
from vitriflow.simulate.workers import n_threads

Float = NDArray[np.float32]
Mask = NDArray[np.bool_]

CARBON_SCATTERERS_PER_A3 = 0.1  # amorphous carbon, 2 g/cm^3
CARBON_THICKNESS_A = 150.0
CARBON_TRANSMISSION = 0.82
CRYSTAL_TRANSMISSION = 0.55
_VIEW_SEED = 7  # orientations belong to the specimen, not to one movie


@dataclass(frozen=True)
class Field:
    """The specimen as the microscope shows it, before motion and counting.

    Attributes
    ----------
    spectrum
        Half-plane Fourier transform of the contrast I / I0 - 1 over the canvas.
    canvas
        Height and width of the canvas: the frame and a margin all around.
    margin
        Pixels of canvas before the frame's first row and column.
    particles_px
        ``(n, 2)``, y then x, centres within the frame, in its coordinates.
    beam_slope
        Relative change of illumination over the field in y and x.
    """

    spectrum: NDArray[np.complex64]
    canvas: tuple[int, int]
    margin: int
    particles_px: NDArray[np.float64]
    beam_slope: tuple[float, float]


def make_field(spec: MovieSpec, motion: Motion) -> Field:
    """Draw the specimen of one movie and pass it through the optics."""
    rng = np.random.default_rng([spec.seed, 2])
    global_px, local_px = motion.largest_px()
    # both move what a pixel sees; 4 px for the interpolation and 20 to keep the wrapped rim away
    margin = int(np.ceil(global_px + local_px)) + 24
    canvas = (
        scipy.fft.next_fast_len(spec.shape[0] + 2 * margin, real=True),
        scipy.fft.next_fast_len(spec.shape[1] + 2 * margin, real=True),
    )
    ky, kx = optics.frequency_axes(canvas, spec.pixel_size_A)
    k2 = kx * kx + ky * ky
    angle = rng.uniform(0, 2 * np.pi)
    slope = (float(spec.beam_gradient * np.sin(angle)), float(spec.beam_gradient * np.cos(angle)))

    carbon = _carbon(spec, canvas, rng) if spec.carbon_edge else None
    crystals = _crystals(spec, canvas, rng) if spec.n_ice_crystals else None
    blocked: Mask = np.zeros(canvas, dtype=np.bool_)
    if carbon is not None:
        blocked |= carbon > 0.1
    if crystals is not None:
        blocked |= crystals > 0.1

    phases = np.zeros(canvas, dtype=np.float32)
    centres = _stamp(spec, phases, blocked, margin, rng)
    if carbon is not None:
        phases += _carbon_phase(spec, canvas, k2, rng) * carbon
    spectrum = scipy.fft.rfft2(phases, workers=n_threads())
    if spec.ice_thickness_A > 0 and spec.ice_noise > 0:
        spectrum += _noise(canvas, optics.ice_amplitude(spec, k2) / np.float32(spec.pixel_size_A), rng)
    spectrum[0, 0] = 0.0
    spectrum *= optics.contrast_transfer(spec, ky, kx)
    spectrum *= optics.envelope(spec, k2)
    if carbon is not None or crystals is not None:
        spectrum = _darken(spectrum, canvas, carbon, crystals)
    return Field(spectrum.astype(np.complex64, copy=False), canvas, margin, centres, slope)


def _noise(canvas: tuple[int, int], amplitude: Float, rng: np.random.Generator) -> NDArray[np.complex64]:
    """Transform of Gaussian noise whose standard deviation at each frequency is ``amplitude`` per pixel."""
    white = rng.standard_normal(canvas, dtype=np.float32)
    spectrum: NDArray[np.complex64] = scipy.fft.rfft2(white, workers=n_threads())
    spectrum *= amplitude
    return spectrum


def _stamp(
    spec: MovieSpec, phases: Float, blocked: Mask, margin: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Add particles to ``phases`` in place; return the centres (y, x) that lie in the frame."""
    area = spec.shape[0] * spec.shape[1] * spec.pixel_size_A**2
    wanted = spec.n_particles
    if wanted is None:
        wanted = round(area / spec.particle_spacing_A**2)
    if wanted == 0:
        return np.zeros((0, 2))
    stamps = load_stamps(
        spec.specimen, spec.particle_diameter_A, spec.pixel_size_A, spec.voltage_kV, spec.n_views, _VIEW_SEED
    )
    height, width = phases.shape
    # as dense in the margin as in the frame: a particle half in view is no special case
    density = wanted / (spec.shape[0] * spec.shape[1])
    centres = _places(spec, (height, width), round(density * height * width), blocked, rng)
    views = rng.integers(0, len(stamps.phases), len(centres))
    half = stamps.box // 2
    steps = np.arange(stamps.box) - half
    for (y, x), view in zip(centres, views, strict=True):
        rows, columns = (y + steps) % height, (x + steps) % width
        phases[np.ix_(rows, columns)] += np.float32(spec.contrast) * stamps.phases[view]
    truth = centres + stamps.offsets_px[views] - margin
    inside = np.all((truth > -0.5) & (truth < np.array(spec.shape) - 0.5), axis=1)
    return np.asarray(truth[inside], dtype=np.float64)


def _places(
    spec: MovieSpec, canvas: tuple[int, int], wanted: int, blocked: Mask, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Whole-pixel centres (y, x), no two nearer than a diameter, none on carbon or crystals."""
    nearest = 1.05 * spec.particle_diameter_A / spec.pixel_size_A
    size = np.array(canvas)
    kept = np.empty((wanted, 2), dtype=np.int64)
    n = 0
    for candidate in rng.integers(0, size, size=(60 * wanted, 2)):
        if n == wanted:
            break
        if blocked[candidate[0], candidate[1]]:
            continue
        apart = np.abs(kept[:n] - candidate)
        apart = np.minimum(apart, size - apart)
        if n and (apart[:, 0] ** 2 + apart[:, 1] ** 2).min() < nearest**2:
            continue
        kept[n] = candidate
        n += 1
    return kept[:n]


def _carbon(spec: MovieSpec, canvas: tuple[int, int], rng: np.random.Generator) -> Float:
    """Share of carbon at each pixel, 0 to 1: the rim of a hole of 1.2 um crossing the field."""
    radius = 6000.0 / spec.pixel_size_A
    height, width = canvas
    depth = 0.25 * min(canvas)  # of the rim beyond the centre
    angle = rng.uniform(0, 2 * np.pi)
    centre_y = 0.5 * height - (radius - depth) * np.sin(angle)
    centre_x = 0.5 * width - (radius - depth) * np.cos(angle)
    y, x = np.ogrid[:height, :width]
    distance = np.hypot(y - centre_y, x - centre_x)
    around = np.arctan2(y - centre_y, x - centre_x)
    ragged = 1.0 + 0.004 * np.sin(63 * around + rng.uniform(0, 6))
    share: Float = (1.0 / (1.0 + np.exp(-(distance - radius * ragged) / 3.0))).astype(np.float32)
    return share


def _carbon_phase(spec: MovieSpec, canvas: tuple[int, int], k2: Float, rng: np.random.Generator) -> Float:
    """Phase noise (rad) of an amorphous carbon film: random atoms, so strong rings far out."""
    one = optics.phase_per_scattering_length(spec.voltage_kV) * optics.scattering_factor("C", k2)
    per_area = CARBON_SCATTERERS_PER_A3 * CARBON_THICKNESS_A
    amplitude = (np.sqrt(per_area) * one / spec.pixel_size_A).astype(np.float32)
    noise = scipy.fft.irfft2(_noise(canvas, amplitude, rng), s=canvas, workers=n_threads())
    return np.asarray(noise, dtype=np.float32)


def _crystals(spec: MovieSpec, canvas: tuple[int, int], rng: np.random.Generator) -> Float:
    """Share of ice contamination at each pixel, 0 to 1: ragged dark blobs of 120 to 500 A."""
    share = np.zeros(canvas, dtype=np.float32)
    for _ in range(spec.n_ice_crystals):
        radius = rng.uniform(60.0, 250.0) / spec.pixel_size_A
        cy, cx = rng.uniform(0, canvas[0]), rng.uniform(0, canvas[1])
        y0, y1 = max(int(cy - 1.5 * radius), 0), min(int(cy + 1.5 * radius) + 1, canvas[0])
        x0, x1 = max(int(cx - 1.5 * radius), 0), min(int(cx + 1.5 * radius) + 1, canvas[1])
        y, x = np.ogrid[y0:y1, x0:x1]
        angle = np.arctan2(y - cy, x - cx)
        rim = radius * (1 + 0.12 * np.sin(3 * angle + rng.uniform(0, 6)) + 0.08 * np.sin(5 * angle))
        blob = 1.0 / (1.0 + np.exp((np.hypot(y - cy, x - cx) - rim) / (6.0 / spec.pixel_size_A)))
        np.maximum(share[y0:y1, x0:x1], blob, out=share[y0:y1, x0:x1], casting="same_kind")
    return share


def _darken(
    spectrum: NDArray[np.complex64], canvas: tuple[int, int], carbon: Float | None, crystals: Float | None
) -> NDArray[np.complex64]:
    """Let carbon and crystals take electrons away, then return to Fourier space."""
    contrast = scipy.fft.irfft2(spectrum, s=canvas, workers=n_threads())
    passed = np.ones(canvas, dtype=np.float32)
    if carbon is not None:
        passed *= 1.0 - np.float32(1.0 - CARBON_TRANSMISSION) * carbon
    if crystals is not None:
        passed *= 1.0 - np.float32(1.0 - CRYSTAL_TRANSMISSION) * crystals
    level = np.float32(passed.mean())
    rim = _taper(canvas[0])[:, None] * _taper(canvas[1])[None, :]
    passed = level + (passed - level) * rim
    dark = np.asarray(passed * (1.0 + contrast) - 1.0, dtype=np.float32)
    return np.asarray(scipy.fft.rfft2(dark, workers=n_threads()), dtype=np.complex64)


def _taper(length: int, rim: int = 16) -> Float:
    """One inside, falling to zero over the last ``rim`` pixels at both ends: the canvas wraps there."""
    ramp = np.sin(0.5 * np.pi * (np.arange(rim) + 0.5) / rim) ** 2
    window = np.ones(length, dtype=np.float32)
    window[:rim], window[-rim:] = ramp, ramp[::-1]
    return window
