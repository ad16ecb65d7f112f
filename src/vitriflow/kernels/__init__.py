"""Arrays in, arrays out: no files, no tables, no settings.

What is named here is imported when it's first asked for, so that a step loads no more than it needs.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vitriflow.kernels.ctf import ctf_2d, ctf_phase
    from vitriflow.kernels.ctf_compare import Comparison, compare_ctf
    from vitriflow.kernels.ctf_curves import diagnostic_image
    from vitriflow.kernels.ctf_fit import CtfFit, fit_ctf
    from vitriflow.kernels.ctf_outside import OutsideCtf
    from vitriflow.kernels.ctf_rings import Optics
    from vitriflow.kernels.ctf_tilt import KnownTilt, TiltFit, fit_tilt, known_tilt
    from vitriflow.kernels.dose import critical_dose, dose_weights
    from vitriflow.kernels.gain import find_hot_pixels, gain_factor, plan_repairs
    from vitriflow.kernels.motion import Corrected, MotionSettings, correct_movie
    from vitriflow.kernels.motion_field import MotionField
    from vitriflow.kernels.spectrum import Spectrum, full_amplitude, power_spectrum
    from vitriflow.kernels.warp import warp_accumulate

_HOMES = {
    "ctf": ("ctf_2d", "ctf_phase"),
    "ctf_compare": ("Comparison", "compare_ctf"),
    "ctf_curves": ("diagnostic_image",),
    "ctf_fit": ("CtfFit", "fit_ctf"),
    "ctf_outside": ("OutsideCtf",),
    "ctf_rings": ("Optics",),
    "ctf_tilt": ("KnownTilt", "TiltFit", "fit_tilt", "known_tilt"),
    "dose": ("critical_dose", "dose_weights"),
    "gain": ("find_hot_pixels", "gain_factor", "plan_repairs"),
    "motion": ("Corrected", "MotionSettings", "correct_movie"),
    "motion_field": ("MotionField",),
    "spectrum": ("Spectrum", "full_amplitude", "power_spectrum"),
    "warp": ("warp_accumulate",),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "Comparison",
    "Corrected",
    "CtfFit",
    "KnownTilt",
    "MotionField",
    "MotionSettings",
    "Optics",
    "OutsideCtf",
    "Spectrum",
    "TiltFit",
    "compare_ctf",
    "correct_movie",
    "critical_dose",
    "ctf_2d",
    "ctf_phase",
    "diagnostic_image",
    "dose_weights",
    "find_hot_pixels",
    "fit_ctf",
    "fit_tilt",
    "full_amplitude",
    "gain_factor",
    "known_tilt",
    "plan_repairs",
    "power_spectrum",
    "warp_accumulate",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
