"""Small pictures that look like what they stand for: particles on ice, rings of a spectrum."""

from functools import cache
from io import BytesIO

import numpy as np
from PIL import Image

MICROGRAPH = 4096
PREVIEW = 1024
THUMBNAIL = 256
PIXEL_A = 0.93
DIAMETER_A = 150.0


@cache
def _ice(variant: int) -> np.ndarray:
    rng = np.random.default_rng(variant)
    coarse = rng.normal(0, 1, (24, 24))
    wide = np.asarray(
        Image.fromarray(coarse.astype(np.float32)).resize((PREVIEW, PREVIEW), Image.Resampling.BICUBIC)
    )
    return np.asarray(136 + 7 * wide + rng.normal(0, 15, (PREVIEW, PREVIEW)))


def micrograph_pictures(positions: np.ndarray, number: int) -> tuple[bytes, bytes]:
    """Dark discs where the particles are, on noisy ice: PNGs of the picture and its thumbnail."""
    picture = _ice(number % 4).copy()
    radius = int(DIAMETER_A / PIXEL_A / 2 * PREVIEW / MICROGRAPH)
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    ring = 34 * np.exp(-(((np.hypot(y, x) - 0.75 * radius) / (0.3 * radius)) ** 2))
    for px, py in positions * PREVIEW / MICROGRAPH:
        top, left = int(py) - radius, int(px) - radius
        picture[top : top + 2 * radius + 1, left : left + 2 * radius + 1] -= ring
    whole = Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8))
    return _png(whole), _png(whole.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX))


@cache
def spectrum_picture(defocus: float) -> bytes:
    """Rings: noisy in the left half, clean in the right."""
    y, x = np.mgrid[-256:256, -256:256] / 256 * 0.3
    k2 = x**2 + y**2
    wave = np.cos(2 * np.pi * 0.0197 * defocus / 2 * k2) * np.exp(-30 * k2)
    noise = np.random.default_rng(3).normal(0, 0.5, wave.shape)
    return _png(
        Image.fromarray(np.clip(110 + 80 * (wave + np.where(x < 0, noise, 0)), 0, 255).astype(np.uint8))
    )


def _png(image: Image.Image) -> bytes:
    buffer = BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
