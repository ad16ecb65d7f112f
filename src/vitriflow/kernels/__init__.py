"""Arrays in, arrays out: no files, no tables, no settings."""

from vitriflow.kernels.dose import critical_dose, dose_weights
from vitriflow.kernels.gain import find_hot_pixels, gain_factor, plan_repairs
from vitriflow.kernels.motion import Corrected, MotionSettings, correct_movie
from vitriflow.kernels.motion_field import MotionField
from vitriflow.kernels.warp import warp_accumulate

__all__ = [
    "Corrected",
    "MotionField",
    "MotionSettings",
    "correct_movie",
    "critical_dose",
    "dose_weights",
    "find_hot_pixels",
    "gain_factor",
    "plan_repairs",
    "warp_accumulate",
]
