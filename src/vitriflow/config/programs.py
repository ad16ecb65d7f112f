"""Where outside programs are and how they're started: the section ``[programs]``."""

from pathlib import Path
from typing import Any

from pydantic import ConfigDict, Field, field_validator, model_validator

from vitriflow.config.sections import Section


class ProgramSection(Section):
    """One program. ``ctffind4 = "/opt/ctffind/ctffind"`` alone gives its path."""

    path: str | None = Field(
        default=None, description="absolute path, or a name looked up on PATH; none tries the usual names"
    )
    environment: dict[str, str] = Field(
        default_factory=dict, description="environment variables that are set for it"
    )
    modules: tuple[str, ...] = Field(default=(), description="environment modules that are loaded before it")
    wrapper: tuple[str, ...] = Field(
        default=(),
        description="arguments put before its own, such as a container's: ['apptainer', 'exec', 'x.sif']",
    )
    any_version: bool = Field(
        default=False, description="use it also where its version isn't one that was tried"
    )

    @model_validator(mode="before")
    @classmethod
    def _path_alone(cls, value: Any) -> Any:
        return {"path": value} if isinstance(value, str) else value

    @field_validator("path")
    @classmethod
    def _absolute_or_a_name(cls, value: str | None) -> str | None:
        if value is not None and "/" in value and not value.startswith(("/", "~")):
            raise ValueError(f"an absolute path, or a name without folders, not {value!r}")
        return value


class ProgramsSection(Section):
    """Outside programs by name (``motioncor2``, ``ctffind4``, ``relion`` ...), and a folder of YAML programs."""

    model_config = ConfigDict(extra="allow", frozen=True)
    __pydantic_extra__: dict[str, ProgramSection] = Field(init=False)

    folder: Path | None = Field(
        default=None, description="folder with YAML files, each of which adds a program as a step"
    )

    @property
    def named(self) -> dict[str, ProgramSection]:
        """What is said of each program, by its name."""
        return dict(self.__pydantic_extra__ or {})
