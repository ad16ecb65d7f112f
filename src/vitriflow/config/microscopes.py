"""What facility.toml says about each microscope."""

import re
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from vitriflow.config.sections import Section

_DRIVE = re.compile(r"[A-Za-z]:|\\\\[^\\/:]+\\[^\\/:]+")
_CAMERA = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


class CameraSection(Section):
    """One camera of a microscope: its calibrated pixel sizes, and its gain references."""

    names: tuple[str, ...] = Field(
        default=(),
        description="what the acquisition software calls this camera, such as EF-CCD or BM-Falcon; any part "
        "of it will do. None needed with one camera",
    )
    pixel_sizes_A: dict[str, float] = Field(
        default_factory=dict,
        description='calibrated pixel size by nominal magnification, such as {"81000" = 1.06} (A); it '
        "overrules what files say. Images that are binned or super-resolution by 2, 4 ... against it are recognised",
    )
    gain_folder: Path | None = Field(
        default=None, description="folder of this camera's gain references; overrules the microscope's"
    )

    @field_validator("pixel_sizes_A")
    @classmethod
    def _are_sizes(cls, value: dict[str, float]) -> dict[str, float]:
        for magnification, size in value.items():
            if not magnification.isdigit() or int(magnification) == 0:
                raise ValueError(f'a magnification in quotes such as "81000", not {magnification!r}')
            if not 0.05 < size < 100:
                raise ValueError(f"a pixel size between 0.05 and 100 A at {magnification} x, not {size:g}")
        return value


class LimitsSection(Section):
    """Limits of a microscope; people are told when a session passes one."""

    copy_bytes_per_s: float | None = Field(
        default=None,
        gt=0,
        description="most that is read from its disk at a time (bytes/s); no limit without",
    )
    session_bytes: int | None = Field(
        default=None, gt=0, description="an alarm is raised when a session's files are more than this (bytes)"
    )


class MicroscopeSection(Section):
    """What is fixed about an instrument. Values given here overrule what its files say."""

    voltage_kV: float | None = Field(default=None, gt=0, le=1500, description="acceleration voltage (kV)")
    spherical_aberration_mm: float | None = Field(default=None, ge=0, le=20, description="Cs (mm)")
    amplitude_contrast: float | None = Field(
        default=None, ge=0, le=1, description="fraction, usually 0.07 to 0.1"
    )
    pixel_size_A: float | None = Field(
        default=None,
        gt=0,
        le=100,
        description="calibrated pixel size where no camera has one for the magnification (A)",
    )
    software: Literal["", "epu", "serialem", "tomo5"] = Field(
        default="",
        description="acquisition software, where it's always the same: people are told when another "
        "program's files arrive",
    )
    sources: tuple[Path, ...] = Field(
        default=(),
        description="folders that it writes its sessions to: a mounted share for each camera server",
    )
    mode: Literal["copy", "in_place"] | None = Field(
        default=None,
        description="copy files to storage and prove them, or register them where they are; copy without "
        "it, where sources are given",
    )
    drives: dict[str, Path] = Field(
        default_factory=dict,
        description='where the microscope\'s own drives are here, such as {"X:" = "/mnt/k3"}: its files name '
        "each other by these",
    )
    cameras: dict[str, CameraSection] = Field(
        default_factory=dict, description="its cameras: [microscopes.NAME.cameras.CAMERA]"
    )
    gain_folder: Path | None = Field(
        default=None,
        description="folder of gain references: where none is named, the newest that fits the first movie is used",
    )
    gain_reference: Path | None = Field(default=None, description="gain reference file")
    gain_orientation: str | None = Field(default=None, description="how the gain is turned onto the movies")
    defects: Path | None = Field(default=None, description="defect list or map")
    limits: LimitsSection = Field(default=LimitsSection(), description="limits: [microscopes.NAME.limits]")

    @field_validator("drives")
    @classmethod
    def _are_drives(cls, value: dict[str, Path]) -> dict[str, Path]:
        for drive in value:
            if not _DRIVE.fullmatch(drive):
                raise ValueError(f"a drive such as 'X:' or '\\\\server\\share', not {drive!r}")
        return value

    @field_validator("cameras")
    @classmethod
    def _are_named(cls, value: dict[str, CameraSection]) -> dict[str, CameraSection]:
        for name in value:
            if not _CAMERA.fullmatch(name):
                raise ValueError(f"a camera's name has letters, digits, ., - and _ only, not {name!r}")
        return value

    @property
    def transfer(self) -> Literal["copy", "in_place"]:
        """How its files come in: as said, else copied where it has sources."""
        return self.mode or ("copy" if self.sources else "in_place")

    def step_parameters(self) -> dict[str, Any]:
        """The files that were given, by the names that steps use."""
        return self.model_dump(include={"gain_reference", "gain_orientation", "defects"}, exclude_none=True)

    def table(self) -> dict[str, Any]:
        """What's known of its optics, ready for JSON: see :func:`vitriflow.steps.facility_values`."""
        fixed = {"voltage_kV", "spherical_aberration_mm", "amplitude_contrast", "pixel_size_A"}
        found: dict[str, Any] = self.model_dump(include=fixed, exclude_none=True)
        cameras = {
            name: {"names": list(camera.names), "pixel_sizes_A": dict(camera.pixel_sizes_A)}
            for name, camera in self.cameras.items()
            if camera.pixel_sizes_A
        }
        return found | ({"cameras": cameras} if cameras else {})
