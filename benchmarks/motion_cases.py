"""The movies of the motion benchmark: cameras, doses, seeds, and what is hard."""

from typing import Any

from benchmarks.inputs import Case
from vitriflow.simulate import FileFormat, MotionSpec, MovieSpec

FALCON = MovieSpec(
    shape=(4096, 4096), n_frames=40, dose_per_frame_e_per_A2=1.0, defocus_u_A=12200, defocus_v_A=11800
)
K3 = FALCON.model_copy(update={"shape": (4092, 5760)})
K2 = FALCON.model_copy(update={"shape": (3710, 3838), "dtype": "uint16"})
_STRONG_DOMING = MotionSpec(doming_A=10.0)


def short_cases() -> list[Case]:
    """One movie of the size that issue B names, and small ones for the error."""
    small = FALCON.model_copy(update={"shape": (2048, 2048), "n_frames": 16})
    return [
        Case("falcon-1.0", FALCON.model_copy(update={"seed": 101})),
        Case("small-0.5", small.model_copy(update={"seed": 102, "dose_per_frame_e_per_A2": 0.5})),
        Case("small-1.0", small.model_copy(update={"seed": 103})),
        Case("small-2.0", small.model_copy(update={"seed": 104, "dose_per_frame_e_per_A2": 2.0})),
        Case("small-doming", small.model_copy(update={"seed": 105, "motion": _STRONG_DOMING})),
    ]


_FLAT = {"gain_spread": 0.0, "n_dead_columns": 0, "n_dead_pixels": 0}
# Name, camera, format, and what is said of the gain. EER counts without a pattern.
# The first movie of all is the one whose time is told: a Falcon's TIFF at 1 e/px/frame.
CAMERAS: tuple[tuple[str, MovieSpec, FileFormat, str], ...] = (
    ("falcon-lzw", FALCON, FileFormat.TIFF_LZW, "given"),
    ("falcon-eer", FALCON.model_copy(update=_FLAT), FileFormat.EER, "none"),
    ("k3-lzw", K3, FileFormat.TIFF_LZW, "given"),
    ("k2-mrc", K2, FileFormat.MRC, "given"),
)
DOSES = (1.0, 0.5, 2.0)
# What is hard for every camera: name, what of the simulator's settings makes it so, and the gain.
HARD: tuple[tuple[str, dict[str, Any], str | None], ...] = (
    ("8-frames", {"n_frames": 8}, None),
    ("8-frames-0.5", {"n_frames": 8, "dose_per_frame_e_per_A2": 0.5}, None),
    ("strong-doming", {"motion": _STRONG_DOMING}, None),
    ("hot-pixels", {"n_hot_pixels": 2000, "n_dead_columns": 4}, None),
    ("gain-withheld", {"gain_spread": 0.03}, "withheld"),
    ("gain-noisy", {"gain_spread": 0.03}, "noisy"),
)
# What the camera has nothing to do with.
_ONCE: tuple[tuple[str, dict[str, Any]], ...] = (
    ("8-frames-5e", {"n_frames": 8, "dose_per_frame_e_per_A2": 5.0}),
    ("80-frames", {"n_frames": 80, "dose_per_frame_e_per_A2": 0.5}),
    ("carbon-edge", {"carbon_edge": True}),
    ("empty-hole", {"n_particles": 0}),
)
SEEDS, HARD_SEEDS = (201, 202, 203), (301, 302)


def full_cases() -> list[Case]:
    """Cameras by doses by seeds, then what is hard."""
    cases = []
    for name, spec, form, gain in CAMERAS:
        for dose in DOSES:
            for seed in SEEDS:
                update = {"seed": seed, "dose_per_frame_e_per_A2": dose}
                cases.append(Case(f"{name}-{dose}-{seed}", spec.model_copy(update=update), form, gain))
        for hard, changes, bad_gain in HARD:
            if bad_gain == "noisy" and form is FileFormat.EER:
                continue  # its reference divides, and RELION scales it: another question
            for seed in HARD_SEEDS:
                made = spec.model_copy(update={**changes, "seed": seed})
                cases.append(Case(f"{name}-{hard}-{seed}", made, form, bad_gain or gain))
    for name, changes in _ONCE:
        for seed in HARD_SEEDS:
            cases.append(Case(f"{name}-{seed}", FALCON.model_copy(update={**changes, "seed": seed})))
    return [*cases, super_resolution_case(), *real_motion_cases()]


def super_resolution_case() -> Case:
    """A K3 that counts on a grid twice as fine; RELION needs about 20 GB for it."""
    update = {"shape": (8184, 11520), "pixel_size_A": 0.5, "mtf_at_nyquist": 0.3, "seed": 501}
    return Case("k3-super-resolution", K3.model_copy(update=update), bin_factor=2.0)


# Optics, frames and dose of EMPIAR-10204.
_AS_SEEN: dict[str, Any] = {
    "n_frames": 24,
    "pixel_size_A": 0.885,
    "voltage_kV": 200.0,
    "spherical_aberration_mm": 1.4,
    "dose_per_frame_e_per_A2": 1.277,
}


def real_motion_cases() -> list[Case]:
    """Movies that move as real ones did (EMPIAR-10204), where those curves are at hand."""
    from benchmarks.picking import data_folder

    stars = sorted((data_folder() / "empiar-10204-relion5" / "MotionCorr").glob("*.star"))
    cases = []
    for name, spec, form, gain in CAMERAS:
        # All curves on the camera that they were seen with, two on each of the others.
        for number, star in enumerate(stars if spec is K2 else stars[:2]):
            made = spec.model_copy(
                update={**_AS_SEEN, "seed": 401 + number, "motion": MotionSpec(relion_star=star)}
            )
            cases.append(Case(f"real-motion-{name}-{star.stem}", made, form, gain))
    return cases
