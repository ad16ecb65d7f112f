"""What must hold of the images that ``motion.native`` makes, whatever the movie was."""

from typing import TYPE_CHECKING

import numpy as np

from vitriflow.errors import BrokenInvariant, Reason

if TYPE_CHECKING:
    import torch

    from vitriflow.kernels import Corrected

_MEAN_TOLERANCE = 0.05
_UNLIKE = 0.5  # rank correlation of coarse pictures below which another way up is looked for, ...
_CLEARLY = 0.3  # ... and by how much it has to be better
_REPORT = "This is an error in the motion step: report it with the movie."


def check_images(corrected: "Corrected", bin_factor: float) -> None:
    """Check all images against the movie they were made of, and against each other.

    Raises
    ------
    BrokenInvariant
        ``file.wrong_size`` (another shape, sides swapped), ``image.not_finite``, ``image.constant``,
        ``image.intensity`` (a half or the plain sum hasn't the frames' electrons),
        ``image.orientation`` (the picture lies in another way than the frames'),
        ``motion.halves_disagree``.
    """
    images = {
        "micrograph": corrected.micrograph,
        "plain sum": corrected.unweighted,
        "sum of odd frames": corrected.odd,
        "sum of even frames": corrected.even,
    }
    made = {name: image for name, image in images.items() if image is not None}
    for name, image in made.items():
        check_shape(name, image, corrected.motion.shape, bin_factor)
        check_values(name, image)
    _check_means(corrected, made)
    if corrected.seen is not None:
        check_pictures(corrected.seen, made)


def check_shape(name: str, image: "torch.Tensor", shape: tuple[int, int], bin_factor: float) -> None:
    """An image has the movie's shape ``(height, width)``, over the binning."""
    height, width = (size / bin_factor for size in shape)
    # Binned sizes are rounded to what suits a transform
    if abs(image.shape[0] - height) > 2 or abs(image.shape[1] - width) > 2:
        raise BrokenInvariant(
            Reason.WRONG_SIZE,
            f"corrected {name}",
            expected=f"{height:.0f} x {width:.0f} px (y x x)",
            found=f"{image.shape[0]} x {image.shape[1]} px",
            remedy=_REPORT,
        )


def check_values(name: str, image: "torch.Tensor") -> None:
    """An image is finite and has contrast."""
    low, high = (float(value) for value in image.aminmax())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise BrokenInvariant(
            Reason.NOT_FINITE, f"corrected {name}", "finite values", "NaN or infinity", _REPORT
        )
    if low == high:
        raise BrokenInvariant(
            Reason.CONSTANT, f"corrected {name}", "contrast", f"{low:g} everywhere", _REPORT
        )


def _check_means(corrected: "Corrected", made: "dict[str, torch.Tensor]") -> None:
    """Sums have the frames' electrons; the weighted one of all is checked with the record."""
    live = [i for i in range(len(corrected.frame_means)) if i not in corrected.skipped]
    shares = {
        "plain sum": live,
        "sum of odd frames": [i for i in live if i % 2 == 0],  # frames count from 1
        "sum of even frames": [i for i in live if i % 2 == 1],
    }
    for name, frames in shares.items():
        if name not in made or not frames:
            continue
        expected = float(corrected.frame_means[frames].sum())
        if corrected.dose_weighted and name != "plain sum":
            expected /= float(np.sqrt(len(live)))  # at frequency zero all weights are equal
        found = float(np.mean(made[name].double().cpu().numpy()))
        if abs(found - expected) > _MEAN_TOLERANCE * abs(expected):
            raise BrokenInvariant(
                Reason.INTENSITY,
                f"mean of the corrected {name}",
                expected=f"{expected:g}, as the frames' means say",
                found=f"{found:g}",
                remedy=_REPORT,
            )


def check_pictures(
    seen: "np.ndarray[tuple[int, ...], np.dtype[np.float64]]", made: "dict[str, torch.Tensor]"
) -> None:
    """The coarse picture is the frames' own, the same way up, and the halves show the same."""
    from vitriflow.kernels.likeness import blocks, likeness, likeness_by_turn

    pictures = {name: blocks(image) for name, image in made.items()}
    for name, picture in pictures.items():
        if picture.shape != seen.shape:
            continue
        if likeness(seen, picture) >= _UNLIKE:
            continue
        found = likeness_by_turn(seen, picture)
        best = max(found, key=lambda turn: found[turn])
        if found[best] > found["as it is"] + _CLEARLY:
            raise BrokenInvariant(
                Reason.ORIENTATION,
                f"corrected {name}",
                expected=f"the picture that the frames show (likeness {found['as it is']:.2f} of 1)",
                found=f"that picture {best} (likeness {found[best]:.2f})",
                remedy=_REPORT,
            )
    odd, even = pictures.get("sum of odd frames"), pictures.get("sum of even frames")
    if odd is None or even is None or odd.shape != even.shape:
        return
    # Where neither half is like the frames there is too little to see: nothing can be said
    trust = [likeness(seen, half) for half in (odd, even)]
    if max(trust) >= _UNLIKE and min(trust) < max(trust) - 2 * _CLEARLY:
        raise BrokenInvariant(
            Reason.HALVES_DISAGREE,
            "sums of odd and of even frames",
            expected="the same picture in both",
            found=f"a likeness of {likeness(odd, even):.2f}; to all frames {trust[0]:.2f} and {trust[1]:.2f}",
            remedy=_REPORT,
        )
