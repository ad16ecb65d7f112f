"""Finds what isn't specimen in a micrograph: padded rims, carbon film, ice crystals and dirt.

Contamination and the edge of a carbon film have one thing in common that particles lack: a step
in grey value that is steep at the scale of a particle and longer or larger than one. So the mask
is drawn from the gradient after blurring by half a particle, thresholded against the image's own
gradients; a region that such a step cuts off and that is darker than the rest is carbon.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

__all__ = ["artefact_mask", "blank_rim"]

Float = NDArray[np.float32]
Bool = NDArray[np.bool_]

# Steepness of a step, in robust deviations of the image's own gradients, from which it's an artefact
EDGE_SEED, EDGE_GROW = 11.0, 5.5
# A step reaches to this part of its steepest nearby
EDGE_RIDGE = 0.35
# ... and against the gradients at the image's own particle-sized dark spots
EDGE_OVER_SPOTS = 2.5
BLOCKS, SPOTS_A_BLOCK = 4, 3
# A cut-off region is carbon when darker than the brightest large one by this part of the step
CARBON_STEP = 0.25
LARGE_REGION = 0.1
# Padding: neighbouring lines that differ by less than this part of the usual, in the outer part
DEAD_LINE, REVIVED_LINE, OUTER_PART = 0.2, 0.7, 0.15


def blank_rim(micrograph: torch.Tensor) -> tuple[int, int, int, int]:
    """How many rows and columns at each side carry no data of their own.

    Programs pad micrographs by constants or by repeating the last good row; then neighbouring
    rows differ by (almost) nothing.

    Parameters
    ----------
    micrograph
        ``(height, width)``.

    Returns
    -------
    tuple
        Blank pixels at the first rows, last rows, first columns and last columns.
    """

    def padding(differences: Float) -> int:
        """Index of the first line that lives, after the last dead run in the outer part."""
        outer = differences[: max(2, round(OUTER_PART * differences.size))]
        dead = outer < DEAD_LINE * usual
        runs = dead[:-1] & dead[1:]
        if not runs.any():
            return 0
        line = int(np.flatnonzero(runs)[-1]) + 2
        while line < outer.size and outer[line] < REVIVED_LINE * usual:
            line += 1
        return line + 1

    step_y, step_x = (max(1, size // 512) for size in micrograph.shape)
    rows = micrograph[:, ::step_x]
    columns = micrograph[::step_y, :]
    by_row = (rows[1:] - rows[:-1]).abs().mean(dim=1).cpu().numpy()
    by_column = (columns[:, 1:] - columns[:, :-1]).abs().mean(dim=0).cpu().numpy()
    found: list[int] = []
    for differences in (by_row, by_column):
        usual = float(np.median(differences))
        found += [padding(differences), padding(differences[::-1])]
    return found[0], found[1], found[2], found[3]


def _robust(values: Float) -> Float:
    middle = float(np.median(values))
    spread = 1.4826 * float(np.median(np.abs(values - middle)))
    return np.asarray((values - middle) / max(spread, 1e-12), dtype=np.float32)


def _spot_gradient(image: Float, steepness: Float, diameter: float) -> float:
    """Gradient beside the image's strongest particle-sized spots: what an artefact must exceed."""
    fine = ndimage.gaussian_filter(image, 0.25 * diameter) - ndimage.gaussian_filter(image, 0.5 * diameter)
    window = max(3, round(diameter) | 1)
    spots = fine == ndimage.minimum_filter(fine, window)
    values = fine[spots]
    nearby = ndimage.maximum_filter(steepness, window)[spots]
    # A long edge of carbon has many strong spots; taken by block it can't outvote the rest
    row, column = np.nonzero(spots)
    block = BLOCKS * row // image.shape[0] * BLOCKS + BLOCKS * column // image.shape[1]
    order = np.lexsort((values, block))
    first = np.searchsorted(block[order], np.arange(BLOCKS**2))
    chosen = [
        order[i : i + SPOTS_A_BLOCK][block[order[i : i + SPOTS_A_BLOCK]] == b] for b, i in enumerate(first)
    ]
    picked = np.concatenate(chosen)
    return float(np.median(nearby[picked])) if picked.size else 0.0


def _edges(image: Float, diameter: float) -> Bool:
    """Long or large steep steps: ``(height, width)``."""
    steepness = _robust(ndimage.gaussian_gradient_magnitude(image, 0.5 * diameter))
    over = max(1.0, EDGE_OVER_SPOTS * _spot_gradient(image, steepness, diameter) / EDGE_SEED)
    # Blurring spreads a very steep step beyond where it is: count only the ridge of each
    ridge = EDGE_RIDGE * ndimage.maximum_filter(steepness, max(3, round(2.0 * diameter) | 1))
    grown, _ = ndimage.label(steepness > np.maximum(EDGE_GROW * over, ridge))
    areas = np.bincount(grown.ravel())
    peaks = ndimage.maximum(steepness, grown, np.arange(areas.size))
    # the blurred gradient of one particle covers about pi (0.9 d)^2
    keep = (np.asarray(peaks) > EDGE_SEED * over) & (areas > 2.0 * diameter**2)
    keep[0] = False
    return np.asarray(keep[grown], dtype=np.bool_)


def _cut_off(image: Float, edges: Bool, diameter: float) -> Bool:
    """Regions behind an edge that are darker than the largest bright one, or too small to use."""
    regions, count = ndimage.label(~edges)
    if count < 2:
        return np.zeros_like(edges)
    index = np.arange(1, count + 1)
    areas = np.bincount(regions.ravel(), minlength=count + 1)[1:]
    means = np.asarray(ndimage.mean(image, regions, index))
    large = areas >= LARGE_REGION * areas.sum()
    main = float(means[large].max()) if large.any() else float(means[areas.argmax()])
    step = float(np.std(ndimage.gaussian_filter(image, 0.5 * diameter)[edges]))
    dark = means < main - CARBON_STEP * step
    small = areas < (2.0 * diameter) ** 2
    bad = np.concatenate([[False], dark | small])
    return np.asarray(bad[regions], dtype=np.bool_)


def artefact_mask(image: Float, diameter: float) -> Bool:
    """Where carbon, ice crystals and dirt are.

    Parameters
    ----------
    image
        ``(height, width)``, protein dark, without blank rim, binned so that a particle is about
        20 pixels.
    diameter
        Of the particle (px of this image).

    Returns
    -------
    numpy.ndarray
        ``(height, width)``, True on artefacts.
    """
    height, width = image.shape
    # A particle of 10 pixels is enough to see artefacts by, and four times as quick
    even = image[: height // 2 * 2, : width // 2 * 2]
    coarse = even.reshape(height // 2, 2, width // 2, 2).mean(axis=(1, 3), dtype=np.float32)
    edges = _edges(coarse, 0.5 * diameter)
    if not edges.any():
        return np.zeros(image.shape, dtype=np.bool_)
    reach = max(1, round(0.25 * diameter))
    padded = np.pad(edges, reach, mode="edge")
    closed = ndimage.binary_closing(padded, iterations=reach)[reach:-reach, reach:-reach]
    bad = closed | _cut_off(coarse, closed, 0.5 * diameter)
    full = np.kron(bad, np.ones((2, 2), dtype=np.bool_))
    return np.pad(full, ((0, height % 2), (0, width % 2)), mode="edge")
