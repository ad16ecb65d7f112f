"""facility.toml: one typed configuration file, with errors that name the line and the remedy."""

import os
import re
import tomllib
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from vitriflow.errors import BadConfig

ENVIRONMENT = "VITRIFLOW_CONFIG"
FILE_NAME = "facility.toml"
DEFAULT_ROOT = "vitriflow-data"


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FacilitySection(_Section):
    """Who runs this installation."""

    name: str = Field(default="my facility", min_length=1, description="shown on pages and in reports")


class StorageSection(_Section):
    """Where sessions live."""

    root: Path = Field(
        default=Path(DEFAULT_ROOT), description="folder below which every session gets its own"
    )
    reserve_bytes: int = Field(
        default=2 * 1024**3, ge=0, description="processing pauses when less than this is free (bytes)"
    )


class CatalogSection(_Section):
    """What is known, by URL alone."""

    url: str | None = Field(
        default=None, description="SQLAlchemy URL; without one, catalog.db (SQLite) below storage.root"
    )


class ComputeSection(_Section):
    """How this machine works."""

    workers: int | None = Field(
        default=None, ge=1, le=512, description="processes side by side; one for every 2 cores without"
    )
    threads_per_worker: int | None = Field(
        default=None, ge=1, le=256, description="threads of each; the cores shared out without"
    )
    gpus: list[int] | None = Field(
        default=None, description="GPU numbers to use; all found without, [] for none"
    )

    def resolved(self, cores: int) -> tuple[int, int]:
        """Workers and threads of each on a machine with that many cores."""
        workers = self.workers or max(1, cores // 2)
        return workers, self.threads_per_worker or max(1, cores // workers)


class AcquisitionSection(_Section):
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


class WebSection(_Section):
    """Where the pages are served."""

    host: str = Field(default="127.0.0.1", description="address to listen on; only this machine by default")
    port: int = Field(default=8300, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    names: tuple[str, ...] = Field(
        default=(), description="host names that browsers may use besides localhost; others are refused"
    )


class ProcessingSection(_Section):
    """What is done with each exposure."""

    template: str = Field(
        default="auto",
        description="a shipped template's name, a YAML file, or auto: by what the folder holds",
    )
    parameters: dict[str, Any] = Field(
        default_factory=dict, description="values for the template's steps; one that no step uses is an error"
    )


class MicroscopeSection(_Section):
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


_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


class Config(_Section):
    """All of facility.toml. Every section may be left out."""

    facility: FacilitySection = FacilitySection()
    storage: StorageSection = StorageSection()
    catalog: CatalogSection = CatalogSection()
    compute: ComputeSection = ComputeSection()
    acquisition: AcquisitionSection = AcquisitionSection()
    web: WebSection = WebSection()
    processing: ProcessingSection = ProcessingSection()
    microscopes: dict[str, MicroscopeSection] = Field(default_factory=dict)

    @field_validator("microscopes")
    @classmethod
    def _names_are_safe(cls, value: dict[str, MicroscopeSection]) -> dict[str, MicroscopeSection]:
        for name in value:
            if not _NAME.fullmatch(name):
                raise ValueError(f"a microscope's name has letters, digits, - and _ only, not {name!r}")
        return value

    @property
    def catalog_url(self) -> str:
        """URL of the catalog, the default filled in."""
        return self.catalog.url or f"sqlite:///{self.storage.root / 'catalog.db'}"

    def with_root(self, root: Path) -> "Config":
        """The same configuration with another storage root (and so another default catalog)."""
        storage = self.storage.model_copy(update={"root": root.absolute()})
        return self.model_copy(update={"storage": storage})


def find_config() -> Path | None:
    """The file that a command uses when none is named: $VITRIFLOW_CONFIG, else ./facility.toml, else none."""
    named = os.environ.get(ENVIRONMENT)
    if named:
        return Path(named)
    here = Path(FILE_NAME)
    return here if here.is_file() else None


def load_config(path: Path | None = None) -> Config:
    """Read facility.toml; without a path look for it, and without any file use the defaults.

    Relative paths in the file are below the file's own folder.

    Raises
    ------
    BadConfig
        Naming the file, the line, what was expected and what was found.
    """
    path = path or find_config()
    if path is None:
        return _anchored(Config(), Path.cwd())
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadConfig(
            str(path),
            "a readable TOML file in UTF-8",
            str(error),
            "Make one with 'vitriflow init', or name another with --config.",
        ) from error
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadConfig(
            str(path), "TOML", str(error), "Compare the line with the example that 'vitriflow init' writes."
        ) from error
    try:
        config = Config.model_validate(values)
    except ValidationError as error:
        raise _explained(path, text, error) from error
    return _anchored(config, path.parent.absolute())


_FILES = ("gain_reference", "defects")


def _anchored(config: Config, folder: Path) -> Config:
    storage = config.storage.model_copy(update={"root": folder / config.storage.root.expanduser()})
    microscopes = {
        name: scope.model_copy(
            update={
                field: folder / value.expanduser()
                for field in _FILES
                if (value := getattr(scope, field)) is not None
            }
        )
        for name, scope in config.microscopes.items()
    }
    parameters = {
        name: str(folder / Path(value).expanduser()) if name in _FILES and isinstance(value, str) else value
        for name, value in config.processing.parameters.items()
    }
    processing = config.processing.model_copy(update={"parameters": parameters})
    return config.model_copy(
        update={"storage": storage, "microscopes": microscopes, "processing": processing}
    )


def _explained(path: Path, text: str, error: ValidationError) -> BadConfig:
    first = error.errors()[0]
    where = tuple(str(part) for part in first["loc"])
    line = _line_of(text, where)
    more = len(error.errors()) - 1
    thing = f"{path}, line {line}: {'.'.join(where)}" if line else f"{path}: {'.'.join(where)}"
    remedy = "Correct the value" if first["type"] != "extra_forbidden" else _suggestion(where)
    if more:
        remedy += f". {more} more problem{'s' if more > 1 else ''} in this file"
    expected = (
        "a known name"
        if first["type"] == "extra_forbidden"
        else first["msg"].removeprefix("Input should be ")
    )
    return BadConfig(thing, expected, repr(first["input"]), remedy + ".")


def _suggestion(where: tuple[str, ...]) -> str:
    model: Any = Config
    for part in where[:-1]:
        field = model.model_fields.get(part) if hasattr(model, "model_fields") else None
        model = field.annotation if field is not None else MicroscopeSection
    names = ", ".join(getattr(model, "model_fields", {}))
    return f"Known here: {names}" if names else "Remove it"


def _line_of(text: str, where: tuple[str, ...]) -> int | None:
    """Line on which a value stands: the deepest part of ``where`` that the text shows."""
    table: tuple[str, ...] = ()
    best: tuple[int, int] | None = None
    for number, raw in enumerate(text.splitlines(), start=1):
        line = raw.strip()
        header = re.fullmatch(r"\[+\s*([^\]]+?)\s*\]+\s*(#.*)?", line)
        if header:
            table = tuple(part.strip().strip("\"'") for part in header.group(1).split("."))
            here = table
        else:
            key = re.match(r"([A-Za-z0-9_.\"'-]+)\s*=", line)
            if not key:
                continue
            here = table + tuple(part.strip("\"'") for part in key.group(1).split("."))
        if where[: len(here)] == here and (best is None or len(here) > best[0]):
            best = (len(here), number)
    return best[1] if best else None


def example_config() -> str:
    """A commented facility.toml: what ``vitriflow init`` writes. Loading it gives the defaults."""
    return EXAMPLE


EXAMPLE = """\
# vitriflow: configuration of one facility. Everything is optional; what is commented out is the default.
# Relative paths are below the folder of this file. Check with: vitriflow doctor

[facility]
name = "my facility"

[storage]
root = "vitriflow-data"           # every session gets a folder of its own below this one
# reserve_bytes = 2147483648      # processing pauses when less than this is free

[catalog]
# url = "postgresql+psycopg://vitriflow@localhost/vitriflow"   # default: SQLite, <storage.root>/catalog.db

[compute]
# workers = 1                     # processes side by side; default: one for every 2 cores
# threads_per_worker = 2
# gpus = [0]                      # default: all that are found; [] for none

[acquisition]
# scan_interval_s = 1.0           # time between two looks at a microscope's folder
# quiet_s = 2.0                   # a whole file must have stopped changing for this long
# patience_s = 60.0               # an incomplete file that stopped growing is given up after this

[web]
# host = "127.0.0.1"              # only this machine; "0.0.0.0" for all (put a proxy with sign-in before it)
# port = 8300
# names = ["cryo.example.org"]    # host names that browsers may use besides localhost

[processing]
# template = "auto"               # by what the folder holds; or a shipped name, or a YAML file

[processing.parameters]
# particle_diameter_A = 150.0
# dose_per_frame_e_per_A2 = 1.0   # default: what the microscope's files say

[microscopes.tem1]
# voltage_kV = 300.0              # given here, these overrule what the files say
# spherical_aberration_mm = 2.7
# amplitude_contrast = 0.1
# pixel_size_A = 0.83
# gain_reference = "gain.mrc"
# gain_orientation = "as-is"
"""
