"""Arrays in, arrays out: no files, no tables, no settings."""

from vitriflow.kernels.ctf import ctf_2d, ctf_phase
from vitriflow.kernels.ctf_curves import diagnostic_image
from vitriflow.kernels.ctf_fit import CtfFit, fit_ctf
from vitriflow.kernels.ctf_rings import Optics
from vitriflow.kernels.dose import critical_dose, dose_weights
from vitriflow.kernels.gain import find_hot_pixels, gain_factor, plan_repairs
from vitriflow.kernels.motion import Corrected, MotionSettings, correct_movie
from vitriflow.kernels.motion_field import MotionField
from vitriflow.kernels.spectrum import Spectrum, full_amplitude, power_spectrum
from vitriflow.kernels.warp import warp_accumulate

__all__ = [
    "Corrected",
    "CtfFit",
    "MotionField",
    "MotionSettings",
    "Optics",
    "Spectrum",
    "correct_movie",
    "critical_dose",
    "ctf_2d",
    "ctf_phase",
    "diagnostic_image",
    "dose_weights",
    "find_hot_pixels",
    "fit_ctf",
    "full_amplitude",
    "gain_factor",
    "plan_repairs",
    "power_spectrum",
    "warp_accumulate",
]
