"""What files beside a movie say of its exposure, each quantity once, in one unit."""

import re
from datetime import datetime
from pathlib import PurePath

from pydantic import BaseModel, ConfigDict, Field

_EPU_NAME = re.compile(
    r"FoilHole_(?P<hole>\d+)_Data_(?P<area>\d+)(?:_(?P<shot>\d+))?_(?P<date>\d{8})_(?P<time>\d{4,6})"
)
_TOMO_NAME = re.compile(r"(?P<position>Position_\d+(?:_\d+)??)_(?P<order>\d{3})_(?P<tilt>-?\d+\.\d+)_")
_GRID_SQUARE = re.compile(r"GridSquare_(\d+)")


class ExposureMetadata(BaseModel):
    """One exposure as its own files describe it. None means: not said.

    Defocus is positive for underfocus. Shifts and tilts of the beam are in the units of the
    program that wrote them (EPU's are its own, SerialEM's image shift is um).
    """

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    source: str = Field(default="", description="the file that said so")
    movie_name: str | None = Field(default=None, description="name of the movie without folders")
    movie_path: str | None = Field(
        default=None, description="name of the movie as the microscope's PC writes it"
    )
    pixel_size_A: float | None = None
    voltage_kV: float | None = None
    spherical_aberration_mm: float | None = None
    amplitude_contrast: float | None = None
    nominal_magnification: float | None = None
    exposure_time_s: float | None = None
    n_fractions: int | None = Field(default=None, description="frames of the movie, where said rightly")
    frames_per_fraction: int | None = Field(default=None, description="raw frames, when all alike")
    n_raw_frames: int | None = None
    dose_e_per_A2: float | None = None
    dose_per_frame_e_per_A2: float | None = None
    dose_on_camera_e_per_px: float | None = Field(
        default=None, description="as written by EPU; a rate for some versions"
    )
    prior_dose_e_per_A2: float | None = None
    nominal_defocus_A: float | None = Field(default=None, description="asked for, underfocus positive (A)")
    beam_shift: tuple[float, float] | None = Field(default=None, description="x, y; the program's units")
    image_shift: tuple[float, float] | None = Field(default=None, description="x, y; the program's units")
    beam_tilt: tuple[float, float] | None = Field(default=None, description="x, y; the program's units")
    stage_x_um: float | None = None
    stage_y_um: float | None = None
    stage_z_um: float | None = None
    stage_alpha_deg: float | None = None
    binning: float | None = None
    super_resolution_factor: int | None = None
    phase_plate_used: bool | None = None
    energy_slit_eV: float | None = None
    acquired_at: datetime | None = Field(
        default=None, description="the microscope's clock, with a zone where the file gives one; display only"
    )
    software: str | None = None
    software_version: str | None = None
    camera: str | None = None
    detector: str | None = None
    microscope: str | None = None
    image_width: int | None = Field(default=None, description="camera area that was read (px)")
    image_height: int | None = Field(default=None, description="camera area that was read (px)")
    gain_reference: str | None = Field(default=None, description="name of the gain reference, where said")
    grid_square: str | None = None
    foil_hole: str | None = None
    position: str | None = None
    tilt_angle_deg: float | None = None
    tilt_axis_deg: float | None = Field(default=None, description="as written; check against an alignment")
    rotation_angle_deg: float | None = Field(default=None, description="RotationAngle of mdoc files, as is")
    tilt_order: int | None = Field(default=None, description="section number in the file, from 0")
    problems: list[str] = Field(default_factory=list, description="what couldn't be understood")


def names_from_path(path: PurePath) -> dict[str, str]:
    """Grid square, foil hole and position from folder and file names (EPU, Tomo 5).

    Returns
    -------
    A dict with those of ``grid_square``, ``foil_hole``, ``position`` that the path says.
    """
    found: dict[str, str] = {}
    for part in reversed(path.parts[:-1]):
        if match := _GRID_SQUARE.fullmatch(part):
            found["grid_square"] = match.group(1)
            break
    if match := _EPU_NAME.search(path.name):
        found["foil_hole"] = match.group("hole")
        shot = match.group("shot")
        found["position"] = match.group("area") + (f"_{shot}" if shot else "")
    elif match := _TOMO_NAME.search(path.name):
        found["position"] = match.group("position")
    return found
