"""Shapes of what the elogbook's API takes and gives."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

Short = Annotated[str, Field(max_length=200)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)


class _Dated(_Body):
    starts_at: datetime | None = Field(default=None, description="with zone; UTC without one")
    ends_at: datetime | None = None

    @field_validator("starts_at", "ends_at")
    @classmethod
    def _with_zone(cls, value: datetime | None) -> datetime | None:
        from datetime import UTC

        return value.replace(tzinfo=UTC) if value is not None and value.tzinfo is None else value


class ExperimentBody(_Dated):
    """A new experiment."""

    name: Short = Field(description="letters, digits, . _ and -")
    title: str = Field(default="", max_length=500)
    pi: Short | None = Field(default=None, description="login of its principal investigator")


class ExperimentChange(_Dated):
    """What's to be changed of an experiment; what's left out stays."""

    title: str | None = Field(default=None, max_length=500)
    pi: Short | None = None
    state: Literal["open", "closed"] | None = None


class SampleBody(_Body):
    """A new sample. ``settings`` are imaging parameters by name, as /api/session-form lists them."""

    name: Short
    title: str = Field(default="", max_length=500)
    description: str = Field(default="", max_length=20_000)
    settings: dict[str, Any] = Field(default_factory=dict, max_length=200)


class SampleChange(_Body):
    """What's to be changed of a sample; ``settings`` replace all that were there."""

    title: str | None = Field(default=None, max_length=500)
    description: str | None = Field(default=None, max_length=20_000)
    settings: dict[str, Any] | None = Field(default=None, max_length=200)


class CloneBody(_Body):
    """The clone's name."""

    name: Short


class ActivateBody(_Body):
    """Where a sample is to be imaged."""

    microscope: Short | None = Field(default=None, description="needed where there are several")
    source: str = Field(default="auto", max_length=1000, description="folder of this session, or auto")
    mode: Literal["copy", "in_place"] | None = None


class BoxBody(_Body):
    """A new grid box."""

    name: Short
    container: str = Field(default="", max_length=64)
    n_grids: int = Field(default=4, ge=1, le=64)
    comment: str = Field(default="", max_length=5000)


class GridChange(_Body):
    """What's to be changed of a grid."""

    name: str | None = Field(default=None, max_length=64)
    sample: Short | None = Field(default=None, description="a sample's name; empty for none")
    state: Short | None = None
    comment: str | None = Field(default=None, max_length=5000)


class EntryBody(_Body):
    """A new log entry, in Markdown."""

    text: str = Field(max_length=100_000)
    tags: list[Annotated[str, Field(max_length=60)]] = Field(default_factory=list, max_length=20)
    sample: Short | None = None
    session: Short | None = None
    exposure_id: int | None = Field(default=None, ge=1, le=2**63 - 1)


class EntryChange(_Body):
    """A log entry's new words."""

    text: str = Field(max_length=100_000)
    tags: list[Annotated[str, Field(max_length=60)]] | None = Field(default=None, max_length=20)


class FormFieldAnswer(BaseModel):
    """One question of a sample's form."""

    name: str
    title: str
    help: str
    group: str
    kind: str
    unit: str
    default: Any
    choices: list[str] | None
    least: float | None
    least_is_allowed: bool
    most: float | None
    most_is_allowed: bool
    required: bool
    acts: str = Field(description="pipeline, template, check or record: what an answer does")
    advanced: bool
    nodes: list[str]


class FormAnswer(BaseModel):
    """All questions for sessions that a template will process."""

    template: str
    templates: list[str]
    fields: list[FormFieldAnswer]


class SessionStarted(BaseModel):
    """The session that was started."""

    key: str
    state: str
    microscope: str
    source: str
    mode: str
