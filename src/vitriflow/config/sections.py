"""What facility.toml may hold: one typed section each."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

DEFAULT_ROOT = "vitriflow-data"


class Section(BaseModel):
    """Parent of all sections: unknown names are errors, values don't change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class TierSection(BaseModel):
    """One archive. What else stands here belongs to its kind: see the how-to on archives."""

    model_config = ConfigDict(extra="allow", frozen=True)

    kind: str = Field(default="directory", description="directory, hsm, or one that a plug-in brings")


class FacilitySection(Section):
    """Who runs this installation."""

    name: str = Field(default="my facility", min_length=1, description="shown on pages and in reports")


class StorageSection(Section):
    """Where sessions live."""

    root: Path = Field(
        default=Path(DEFAULT_ROOT), description="folder below which every session gets its own"
    )
    reserve_bytes: int = Field(
        default=2 * 1024**3, ge=0, description="processing pauses when less than this is free (bytes)"
    )
    copies: tuple[str, ...] = Field(
        default=("disk",),
        min_length=1,
        description="where each raw file has to be before the microscope's is freed: disk, and names of tiers",
    )
    tiers: dict[str, TierSection] = Field(default_factory=dict, description="archives, by name")


class CatalogSection(Section):
    """What is known, by URL alone."""

    url: str | None = Field(
        default=None, description="SQLAlchemy URL; without one, catalog.db (SQLite) below storage.root"
    )


class AcquisitionSection(Section):
    """How a microscope's folder is watched."""

    scan_interval_s: float = Field(default=1.0, gt=0, le=3600, description="time between two looks (s)")
    quiet_s: float = Field(
        default=2.0, ge=0, le=3600, description="a whole file must have stopped changing for this long (s)"
    )
    patience_s: float = Field(
        default=60.0,
        gt=0,
        le=86400,
        description="an incomplete file that stopped growing is given up after (s)",
    )
    parallel_copies: int = Field(default=4, ge=1, le=64, description="files of a session copied side by side")
    bandwidth_bytes_per_s: float | None = Field(
        default=None, ge=1e5, description="cap on what all copies of a session read together (bytes/s)"
    )


class WebSection(Section):
    """Where the pages are served."""

    host: str = Field(default="127.0.0.1", description="address to listen on; only this machine by default")
    port: int = Field(default=8300, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    names: tuple[str, ...] = Field(
        default=(), description="host names that browsers may use besides localhost; others are refused"
    )


class ProcessingSection(Section):
    """What is done with each exposure."""

    template: str = Field(
        default="auto",
        description="a shipped template's name, a YAML file, or auto: by what the folder holds",
    )
    parameters: dict[str, Any] = Field(
        default_factory=dict, description="values for the template's steps; one that no step uses is an error"
    )
