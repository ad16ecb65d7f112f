"""Stacks of particles whose classes are known: a few views of one body, turned, moved, imaged, in noise."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from vitriflow.units import ANGSTROM_PER_MM, electron_wavelength_A

__all__ = ["SimulatedParticles", "simulate_particles"]

Float = NDArray[np.float32]

_BLOBS = 200
_STEP_A, _BLOB_A = 7.0, 3.0  # of the chain of blobs that the body is, and each one's sigma
_VOLTAGE_KV, _CS_MM, _CONTRAST = 300.0, 2.7, 0.1


@dataclass(frozen=True)
class SimulatedParticles:
    """Particles and the truth about them.

    Attributes
    ----------
    images
        ``(n, box, box)``: protein bright, noise of standard deviation 1.
    defocus
        ``(n, 4)``: U, V (A), angle from x towards y (degrees), phase shift (degrees).
    class_of
        ``(n,)``: view of each, from 0; -1 for images of noise alone.
    turn_deg
        ``(n,)``: from the view to the image, from x towards y (degrees).
    shift_px
        ``(n, 2)``: where the particle lies from the middle of the box, y then x (px).
    views
        ``(n_classes, box, box)``: the views, without CTF and noise.
    pixel_size_A, voltage_kV, cs_mm, amplitude_contrast
        Of the images.
    """

    images: Float
    defocus: NDArray[np.float64]
    class_of: NDArray[np.int64]
    turn_deg: NDArray[np.float64]
    shift_px: NDArray[np.float64]
    views: Float
    pixel_size_A: float
    voltage_kV: float = _VOLTAGE_KV
    cs_mm: float = _CS_MM
    amplitude_contrast: float = _CONTRAST


def _body(rng: np.random.Generator, diameter_A: float) -> NDArray[np.float64]:
    """Blobs ``(n, 3)`` along a chain that stays within a ball, so that no two views look alike."""
    radius = 0.5 * diameter_A - 2.0 * _BLOB_A
    points = [np.zeros(3)]
    while len(points) < _BLOBS:
        step = rng.normal(size=3)
        following = points[-1] + _STEP_A * step / np.linalg.norm(step)
        if np.linalg.norm(following * np.array([1.0, 1.4, 1.0])) < radius:
            points.append(following)
    body = np.stack(points)
    centred: NDArray[np.float64] = body - body.mean(axis=0)
    return centred


def _orientations(rng: np.random.Generator, count: int) -> list[Rotation]:
    """Random orientations whose views lie apart, from each other and from each other's mirror image."""
    least = np.cos(np.deg2rad(60.0 / np.sqrt(max(count, 4) / 4.0)))
    found: list[Rotation] = []
    for tried in range(1000 * count):
        one = Rotation.random(rng=rng)
        axis = one.as_matrix()[2]
        # Where so many don't fit, they may lie closer after a while
        if all(abs(axis @ other.as_matrix()[2]) < least + tried / (1000 * count) for other in found):
            found.append(one)
        if len(found) == count:
            break
    return found


def _project(points: NDArray[np.float64], box: int, pixel_size_A: float) -> Float:
    """Sum of the blobs' projections ``(box, box)``; ``points (n, 2)`` are y, x from the middle (A)."""
    at = (np.arange(box) - box // 2) * pixel_size_A
    y, x = (np.exp(-0.5 * ((at[None] - points[:, i, None]) / _BLOB_A) ** 2) for i in (0, 1))
    image: Float = (y.T @ x).astype(np.float32)
    return image


def _transfer(box: int, pixel_size_A: float, defocus: NDArray[np.float64]) -> NDArray[np.float64]:
    """CTF ``(box, box // 2 + 1)`` of one particle, positive at low frequencies."""
    ky = np.fft.fftfreq(box, pixel_size_A)[:, None]
    kx = np.fft.rfftfreq(box, pixel_size_A)[None]
    squared, theta = ky**2 + kx**2, np.arctan2(ky, kx)
    u, v, angle, phase = defocus
    height = 0.5 * (u + v) + 0.5 * (u - v) * np.cos(2.0 * (theta - np.deg2rad(angle)))
    wavelength = electron_wavelength_A(_VOLTAGE_KV)
    chi = np.pi * wavelength * height * squared
    chi -= 0.5 * np.pi * _CS_MM * ANGSTROM_PER_MM * wavelength**3 * squared**2
    transfer: NDArray[np.float64] = np.sin(chi + np.arcsin(_CONTRAST) + np.deg2rad(phase))
    return transfer


def simulate_particles(
    n: int,
    *,
    n_classes: int = 8,
    box: int = 64,
    pixel_size_A: float = 3.5,
    diameter_A: float = 150.0,
    snr: float = 0.1,
    max_shift_px: float = 3.0,
    noise_share: float = 0.0,
    seed: int = 0,
) -> SimulatedParticles:
    """Particles in a few views of one body.

    Parameters
    ----------
    n
        Particles.
    n_classes
        Views, all as frequent.
    box, pixel_size_A, diameter_A
        Box (px), its pixels (A), and the body's longest extent (A).
    snr
        Variance of the imaged particle over that of the noise, in the whole box.
    max_shift_px
        Largest distance from the middle of the box, per axis (px).
    noise_share
        Part of the images that hold no particle, 0 to 1.
    seed
        Of everything.
    """
    rng = np.random.default_rng([seed, 0xC1A5])
    body = _body(rng, diameter_A)
    turned = [one.apply(body)[:, 1::-1] for one in _orientations(rng, n_classes)]
    class_of = rng.permutation(np.arange(n) % n_classes)
    class_of[rng.random(n) < noise_share] = -1
    turn = rng.uniform(0.0, 360.0, n)
    shift = rng.uniform(-max_shift_px, max_shift_px, (n, 2))
    mean = rng.uniform(8000.0, 25000.0, n)
    half_astigmatism = rng.uniform(50.0, 200.0, n)
    angle = rng.uniform(-90.0, 90.0, n)
    defocus = np.stack([mean + half_astigmatism, mean - half_astigmatism, angle, np.zeros(n)], axis=1)
    images = np.zeros((n, box, box), np.float32)
    for i in np.flatnonzero(class_of >= 0):
        c, s = np.cos(np.deg2rad(turn[i])), np.sin(np.deg2rad(turn[i]))
        y, x = turned[class_of[i]].T
        points = np.stack([c * y + s * x, c * x - s * y], axis=1) + shift[i] * pixel_size_A
        spectrum = np.fft.rfft2(_project(points, box, pixel_size_A))
        images[i] = np.fft.irfft2(spectrum * _transfer(box, pixel_size_A, defocus[i]), s=(box, box))
    with_particle = images[class_of >= 0]
    if len(with_particle):
        images *= np.sqrt(snr / with_particle.var(axis=(1, 2)).mean())
    images += rng.normal(size=images.shape).astype(np.float32)
    views = np.stack([_project(points, box, pixel_size_A) for points in turned])
    return SimulatedParticles(images, defocus, class_of, turn, shift, views, pixel_size_A)
