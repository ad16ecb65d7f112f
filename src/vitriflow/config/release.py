"""When a microscope's disk is freed."""

from pydantic import Field, model_validator

from vitriflow.config.sections import Section


class ReleaseSection(Section):
    """When files are removed from a microscope's disk. Nothing is that isn't proved."""

    automatic: bool = Field(
        default=False, description="free without being asked; otherwise only 'vitriflow release --free' does"
    )
    min_age_h: float = Field(
        default=24.0, ge=0, le=87600, description="a file is freed so long after it was proved (h)"
    )
    high_water: float = Field(
        default=0.85, gt=0, le=1, description="above this the disk is full: younger files go too (fraction)"
    )
    low_water: float = Field(
        default=0.70, ge=0, le=1, description="then it's freed down to this (fraction of the disk)"
    )
    interval_s: float = Field(
        default=600.0, gt=0, le=86400, description="time between two automatic rounds (s)"
    )
    copies: tuple[str, ...] | None = Field(
        default=None,
        min_length=1,
        description="copies that have to be proved before freeing; storage.copies without",
    )

    @model_validator(mode="after")
    def _marks_in_order(self) -> "ReleaseSection":
        if self.low_water > self.high_water:
            raise ValueError(
                f"low_water at or below high_water, not {self.low_water:g} above {self.high_water:g}"
            )
        return self
