"""What a facility knows better than a microscope's files: its calibrated table, applied to one exposure."""

import math
from collections.abc import Mapping
from typing import Any

_FIXED = ("voltage_kV", "spherical_aberration_mm", "amplitude_contrast", "pixel_size_A")
# Binning and super-resolution are powers of two; a file's own pixel size says which, if it isn't
# further off than this. Uncalibrated values are off by some percent.
_SAME = 0.15


def facility_values(table: Mapping[str, Any], metadata: Mapping[str, Any]) -> dict[str, float]:
    """Values that overrule what an exposure's files say.

    Parameters
    ----------
    table
        From the configuration of the microscope: ``voltage_kV``, ``spherical_aberration_mm``,
        ``amplitude_contrast``, ``pixel_size_A``, and ``cameras`` by name, each with ``names`` and
        ``pixel_sizes_A`` by nominal magnification.
    metadata
        What the exposure's files say.

    Returns
    -------
    Values by name. The pixel size is the camera's at the exposure's nominal magnification, else the
    microscope's; times the power of two by which the file's own pixel size differs from it.
    """
    found = {name: float(table[name]) for name in _FIXED if isinstance(table.get(name), int | float)}
    calibrated = _by_magnification(table.get("cameras") or {}, metadata)
    if calibrated is not None:
        found["pixel_size_A"] = calibrated * _binning(calibrated, metadata.get("pixel_size_A"))
    return found


def _by_magnification(cameras: Mapping[str, Any], metadata: Mapping[str, Any]) -> float | None:
    """The calibrated pixel size of this exposure's camera; None when there's none, or cameras disagree."""
    magnification = metadata.get("nominal_magnification")
    if not isinstance(magnification, int | float) or not math.isfinite(magnification):
        return None
    said = [str(metadata[name]).lower() for name in ("camera", "detector") if metadata.get(name)]
    named = [
        camera
        for camera in cameras.values()
        if any(name.lower() in word for name in camera.get("names", ()) for word in said)
    ]
    unnamed = [camera for camera in cameras.values() if not camera.get("names")]
    key = str(round(magnification))
    sizes = {
        float(camera["pixel_sizes_A"][key])
        for camera in named or unnamed
        if key in camera.get("pixel_sizes_A", {})
    }
    return sizes.pop() if len(sizes) == 1 else None


def _binning(calibrated: float, said: Any) -> float:
    if not isinstance(said, int | float) or not math.isfinite(said) or said <= 0:
        return 1.0
    nearest = 2.0 ** round(math.log2(said / calibrated))
    return nearest if abs(said / (calibrated * nearest) - 1.0) <= _SAME else 1.0
