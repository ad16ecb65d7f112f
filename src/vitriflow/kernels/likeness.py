"""Whether two images show the same picture, the same way up.

Both are brought to a few blocks a side, where noise is gone and illumination, carbon and ice are
left. Ranks are compared, so that neither weighting nor a few odd blocks matter.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import adaptive_avg_pool2d

__all__ = ["TURNS", "blocks", "likeness", "likeness_by_turn"]

BLOCKS = 24
# What of (rotations by 90 degrees, then a flip along y) turns the second picture onto the first
TURNS: dict[str, tuple[int, bool]] = {
    "as it is": (0, False),
    "turned by 90 degrees": (1, False),
    "turned by 180 degrees": (2, False),
    "turned by 270 degrees": (3, False),
    "flipped in y": (0, True),
    "with y and x swapped": (1, True),
    "flipped in x": (2, True),
    "with y and x swapped and turned": (3, True),
}

Picture = NDArray[np.float64]


def blocks(image: torch.Tensor) -> Picture:
    """Means of an image ``(height, width)`` over at most 24 x 24 blocks, always as many in y as in x."""
    side = min(BLOCKS, *image.shape)
    pooled = adaptive_avg_pool2d(image.detach().to(torch.float32)[None, None], side)[0, 0]
    return np.asarray(pooled.cpu().numpy(), dtype=np.float64)


def _ranks(picture: Picture) -> Picture:
    order = np.argsort(picture.ravel(), kind="stable")
    ranks: Picture = np.empty(order.size)
    ranks[order] = np.arange(order.size) - 0.5 * (order.size - 1)
    return ranks


def likeness(one: Picture, other: Picture) -> float:
    """Correlation of ranks, -1 to 1; two unrelated pictures of ``n`` blocks have about ``n ** -0.5``."""
    a, b = _ranks(one), _ranks(other)
    return float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum()))


def likeness_by_turn(one: Picture, other: Picture) -> dict[str, float]:
    """:func:`likeness` for each of the eight ways to lay ``other`` (square) on ``one``."""
    found = {}
    for name, (quarters, flip) in TURNS.items():
        laid = np.rot90(other, quarters)
        found[name] = likeness(one, np.ascontiguousarray(laid[::-1] if flip else laid))
    return found
