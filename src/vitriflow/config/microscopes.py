"""What facility.toml says about each microscope."""

from pathlib import Path
from typing import Any

from pydantic import Field

from vitriflow.config.sections import Section


class MicroscopeSection(Section):
    """What is fixed about an instrument. Values given here overrule what its files say."""

    voltage_kV: float | None = Field(default=None, gt=0, le=1500, description="acceleration voltage (kV)")
    spherical_aberration_mm: float | None = Field(default=None, ge=0, le=20, description="Cs (mm)")
    amplitude_contrast: float | None = Field(
        default=None, ge=0, le=1, description="fraction, usually 0.07 to 0.1"
    )
    pixel_size_A: float | None = Field(default=None, gt=0, le=100, description="calibrated pixel size (A)")
    gain_reference: Path | None = Field(default=None, description="gain reference file")
    gain_orientation: str | None = Field(default=None, description="how the gain is turned onto the movies")
    defects: Path | None = Field(default=None, description="defect list or map")

    def step_parameters(self) -> dict[str, Any]:
        """The values that were given, by the names that steps use."""
        return self.model_dump(exclude_none=True)
