"""What a simulated movie is made of: every knob with its unit, its default and its limits."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

DType = Literal["uint8", "int8", "uint16", "int16", "float32"]

LARGEST = {"uint8": 255, "int8": 127, "uint16": 65535, "int16": 32767, "float32": 65535}


class MotionSpec(BaseModel):
    """How the specimen moves while it's exposed.

    The model is an exponential settling (fast at first, as real specimens are), a steady drift, a
    small random walk, and doming: a displacement that grows away from a point, plus a random
    smooth part, both quadratic in the position so that RELION's local model can follow them.
    With ``relion_star`` the motion of a real movie is replayed instead.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    settling_A: float = Field(default=8.0, ge=0, description="path of the exponential settling (A)")
    settling_dose_e_per_A2: float = Field(
        default=4.0, gt=0, description="dose after which 1 - 1/e of the settling is done (e/A^2)"
    )
    drift_A: float = Field(default=4.0, ge=0, description="steady drift over the whole movie (A)")
    jitter_A: float = Field(default=0.15, ge=0, description="standard deviation of a random step a frame (A)")
    doming_A: float = Field(
        default=2.0, ge=0, description="local displacement of a corner against the centre at the end (A)"
    )
    direction_deg: float | None = Field(
        default=None, description="of the settling, from x towards y (degrees); None draws it from the seed"
    )
    relion_star: Path | None = Field(
        default=None, description="a RELION motion STAR to replay, global shifts and local model"
    )
    blur: bool = Field(default=True, description="smear each frame by the motion during it")


class MovieSpec(BaseModel):
    """One movie: optics, specimen, motion, detector. Reproducible from this record alone."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    shape: tuple[int, int] = Field(default=(2048, 2048), description="height, width (px)")
    n_frames: int = Field(default=16, ge=1, le=4000, description="frames written")
    pixel_size_A: float = Field(default=1.0, gt=0.1, lt=20, description="at the specimen (A/px)")
    seed: int = Field(default=1, ge=0, description="everything random follows from it")

    voltage_kV: float = Field(default=300.0, gt=20, le=1500, description="acceleration voltage (kV)")
    spherical_aberration_mm: float = Field(default=2.7, ge=0, le=20, description="Cs (mm)")
    amplitude_contrast: float = Field(default=0.07, ge=0, le=1, description="fraction, 0 to 1")
    defocus_u_A: float = Field(default=10200.0, description="larger defocus, positive underfocus (A)")
    defocus_v_A: float = Field(default=9800.0, description="smaller defocus, positive underfocus (A)")
    defocus_angle_deg: float = Field(
        default=30.0, description="of the larger defocus, from x towards y as stored (degrees)"
    )
    phase_shift_deg: float = Field(default=0.0, ge=0, le=180, description="of a phase plate (degrees)")
    b_factor_A2: float = Field(default=60.0, ge=0, description="envelope exp(-B k^2 / 4) of amplitudes (A^2)")

    dose_per_frame_e_per_A2: float = Field(default=1.2, gt=0, le=1000, description="detected (e/A^2/frame)")
    radiation_damage: bool = Field(
        default=True, description="fade high resolution with dose (Grant & Grigorieff 2015, critical dose)"
    )
    mtf_at_nyquist: float = Field(
        default=0.6, gt=0, le=1, description="detector MTF at Nyquist, 1 is perfect"
    )

    specimen: Path | None = Field(
        default=None, description="PDB or mmCIF coordinates; None takes the built-in octahedral phantom"
    )
    particle_diameter_A: float = Field(
        default=120.0, gt=20, le=3000, description="of the phantom, and for spacing particles (A)"
    )
    n_particles: int | None = Field(
        default=None,
        ge=0,
        description="in the field; None fills it at particle_spacing_A, 0 is an empty hole",
    )
    particle_spacing_A: float = Field(default=170.0, gt=20, description="mean distance of neighbours (A)")
    n_views: int = Field(default=64, ge=1, le=5000, description="different orientations in the field")
    contrast: float = Field(default=1.25, ge=0, description="multiplies the specimen's physical phase")
    ice_thickness_A: float = Field(default=350.0, ge=0, le=5000, description="vitreous ice (A)")
    ice_noise: float = Field(default=1.0, ge=0, description="multiplies the ice's physical phase noise")
    carbon_edge: bool = Field(default=False, description="a carbon film reaches into the field")
    n_ice_crystals: int = Field(default=0, ge=0, le=500, description="dark ice contamination")
    beam_gradient: float = Field(
        default=0.05, ge=0, lt=1, description="relative change of illumination across the field"
    )
    motion: MotionSpec = Field(default_factory=MotionSpec)

    dtype: DType = Field(default="uint8", description="of the frames as recorded")
    gain_spread: float = Field(
        default=0.06, ge=0, lt=0.3, description="relative spread of pixel gains; 0 is flat"
    )
    gain_applied: bool = Field(
        default=False, description="frames are written gain-corrected already (use a float32 dtype)"
    )
    gain_seed: int = Field(default=0, ge=0, description="the camera: movies of one session share it")
    n_dead_columns: int = Field(default=1, ge=0, description="columns that count nothing; gain 0 there")
    n_dead_pixels: int = Field(default=20, ge=0, description="pixels that count nothing; gain 0 there")
    n_hot_pixels: int = Field(default=20, ge=0, description="pixels that always count far too much")

    @model_validator(mode="after")
    def _agree(self) -> "MovieSpec":
        if min(self.shape) < 32:
            raise ValueError(f"shape must be at least 32 x 32 px, found {self.shape}")
        if self.defocus_v_A > self.defocus_u_A:
            raise ValueError("defocus_u_A is the larger: swap the two and add 90 degrees to the angle")
        if self.gain_applied and self.dtype != "float32":
            raise ValueError("gain-corrected frames aren't whole numbers: use dtype float32")
        brightest = 1.5 * self.dose_per_pixel
        if brightest + 6.0 * brightest**0.5 > LARGEST[self.dtype]:
            raise ValueError(f"{self.dose_per_pixel:.4g} electrons a pixel and frame don't fit {self.dtype}")
        return self

    @property
    def total_dose_e_per_A2(self) -> float:
        """Dose of all frames (e/A^2)."""
        return self.dose_per_frame_e_per_A2 * self.n_frames

    @property
    def dose_per_pixel(self) -> float:
        """Mean electrons per pixel and frame."""
        return self.dose_per_frame_e_per_A2 * self.pixel_size_A**2
