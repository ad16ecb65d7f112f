"""Programs that a YAML file alone describes: what may stand in it, and reading it with errors by line."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from string import Formatter
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from vitriflow.errors import BadTemplate
from vitriflow.formats.marked import MarkedText, read_marked
from vitriflow.formats.picks import PICK_READERS

KINDS = ("motion", "ctf", "pick")
INPUTS = {"motion": "movie", "ctf": "micrograph", "pick": "micrograph"}
FOLDERS = {"motion": "MotionCorr", "ctf": "CtfFind", "pick": "AutoPick"}
KNOWN = ("input", "stem", "gpu", "threads", "pixel_size_A", "folder")
_MOTION = ("n_frames", "dose_per_frame_e_per_A2", "gain", "defects")
_NAME = re.compile(r"[a-z][a-z0-9_]*(\.[a-z0-9][a-z0-9_-]*)+")
_PARAMETER = re.compile(r"[a-z][A-Za-z0-9_]*")


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class DescribedParameter(_Part):
    """One parameter: its type, unit, default and limits."""

    type: Literal["float", "int", "bool", "text", "path", "choice"]
    meaning: str = Field(min_length=3)
    unit: str = ""
    default: Any = None
    required: bool = False
    least: float | None = None
    most: float | None = None
    choices: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _sense(self) -> "DescribedParameter":
        if self.type == "choice" and not self.choices:
            raise ValueError("choices for a parameter of type choice")
        if self.required and self.default is not None:
            raise ValueError("either required or a default, not both")
        return self


class DescribedVersion(_Part):
    """How the version is found: asked with arguments, or in what it says as it works."""

    arguments: tuple[str, ...] | None = None
    pattern: str = r"[Vv]ersion\s*:?\s*v?(\d+(?:\.\d+)+)"
    least: str | None = Field(default=None, pattern=r"^\d+(\.\d+)*$")
    below: str | None = Field(default=None, pattern=r"^\d+(\.\d+)*$")

    @field_validator("pattern")
    @classmethod
    def _with_a_group(cls, value: str) -> str:
        return checked_pattern(value)


class When(_Part):
    """Arguments that stand only where a value is set (or true), or only where it isn't."""

    when: str | None = None
    unless: str | None = None
    arguments: tuple[str, ...]

    @model_validator(mode="after")
    def _one(self) -> "When":
        if (self.when is None) == (self.unless is None):
            raise ValueError("either when or unless")
        return self

    @property
    def of(self) -> str:
        """The value that decides."""
        return str(self.when or self.unless)

    def holds(self, value: Any) -> bool:
        """Whether the arguments stand, with this value."""
        there = value not in (None, False, "")
        return there if self.when is not None else not there


class DescribedOutput(_Part):
    """What the program writes, or says, and how it's read."""

    file: str | None = Field(
        default=None, description="its name in the working folder; {stem} and * may stand in it"
    )
    reader: Literal["star", "box", "topaz", "xy", "ctffind", "shifts", "image"] | None = None
    pattern: str | None = Field(
        default=None, description="regular expression with one group, over all it says"
    )
    scale: float = 1.0

    @field_validator("pattern")
    @classmethod
    def _with_a_group(cls, value: str | None) -> str | None:
        return None if value is None else checked_pattern(value)

    @model_validator(mode="after")
    def _one_of_them(self) -> "DescribedOutput":
        if (self.reader is None) == (self.pattern is None):
            raise ValueError("either a reader or a pattern")
        if self.reader is not None and self.reader != "shifts" and self.file is None:
            raise ValueError("the file that the reader reads")
        return self


def checked_pattern(value: str) -> str:
    """A regular expression with exactly one group."""
    try:
        groups = re.compile(value, re.M).groups
    except re.error as error:
        raise ValueError(f"a regular expression: {error}") from error
    if groups != 1:
        raise ValueError(f"a regular expression with one group, this has {groups}")
    return value


class Description(_Part):
    """A whole YAML program."""

    name: str
    version: str = Field(default="1", coerce_numbers_to_str=True)
    summary: str = Field(min_length=3)
    kind: Literal["motion", "ctf", "pick"]
    program: str = Field(pattern=r"^[a-z][a-z0-9_-]*$", description="its name in [programs] of facility.toml")
    title: str = ""
    executables: tuple[str, ...] = Field(min_length=1)
    source: str = ""
    gpu: bool = False
    time_limit_s: float = Field(default=600.0, gt=0)
    version_of: DescribedVersion = DescribedVersion()
    parameters: dict[str, DescribedParameter] = Field(default_factory=dict)
    command: tuple[str | When, ...] = ()
    answers: tuple[str | When, ...] = ()
    outputs: dict[str, DescribedOutput]

    @field_validator("name")
    @classmethod
    def _dotted(cls, value: str) -> str:
        if not _NAME.fullmatch(value):
            raise ValueError("a name such as pick.cryolo: small letters, digits, - and _, with a dot")
        return value

    @field_validator("parameters")
    @classmethod
    def _names(cls, value: dict[str, DescribedParameter]) -> dict[str, DescribedParameter]:
        for name in value:
            if not _PARAMETER.fullmatch(name):
                raise ValueError(f"names of letters, digits and _, not {name!r}")
        return value

    @property
    def placeholders(self) -> tuple[str, ...]:
        """What may stand in braces."""
        return (*KNOWN, *(_MOTION if self.kind == "motion" else ()), *COMMON[self.kind], *self.parameters)


# What each kind has anyway, whether the file says it or not
COMMON: Mapping[str, tuple[str, ...]] = {
    "motion": ("voltage_kV", "patches_x", "patches_y", "bin_factor", "b_factor_px2", "pre_exposure_e_per_A2"),
    "ctf": (
        "voltage_kV",
        "spherical_aberration_mm",
        "amplitude_contrast",
        "min_defocus_A",
        "max_defocus_A",
        "defocus_step_A",
        "max_astigmatism_A",
        "min_resolution_A",
        "max_resolution_A",
        "box_size",
    ),
    "pick": ("particle_diameter_A", "max_picks"),
}
_NEEDED = {
    "motion": ("micrograph", "shifts"),
    "ctf": (),
    "pick": ("coordinates",),
}
_READERS = {
    "micrograph": ("image",),
    "micrograph_unweighted": ("image",),
    "shifts": ("shifts",),
    "coordinates": tuple(PICK_READERS),
    "ctf": ("ctffind",),
}
_CTF_VALUES = ("defocus_u_A", "defocus_v_A", "angle_deg", "phase_deg", "cross_correlation", "resolution_A")
_PORTS: Mapping[str, tuple[str, ...]] = {
    "motion": ("micrograph", "micrograph_unweighted", "shifts"),
    "ctf": ("ctf", *_CTF_VALUES),
    "pick": ("coordinates",),
}


@dataclass(frozen=True)
class Described:
    """A description with the file it came from."""

    description: Description
    source: str


_WANTED = (
    "a mapping with name, kind, program, command and outputs",
    "Start from a shipped one: docs/how-to/outside-programs.md shows all that may stand in it.",
)


def read_description(text: str, source: str) -> Described:
    """Read and check one YAML program.

    Raises
    ------
    BadTemplate
        Naming the file, the line, what was expected and what was found.
    """
    marked = read_marked(text, source, _WANTED)
    try:
        description = Description.model_validate(marked.data)
    except ValidationError as error:
        raise _explained(marked, error) from error
    _check_words(marked, description)
    _check_outputs(marked, description)
    return Described(description, source)


def _explained(marked: MarkedText, error: ValidationError) -> BadTemplate:
    # Of a union (a word, or words with a condition) the deepest place says most, and that it's no word least
    first = max(error.errors(), key=lambda one: (len(one["loc"]), one["type"] != "string_type"))
    place = tuple(part for part in first["loc"] if part not in ("str", "When"))
    name = ".".join(map(str, place)) or "program"
    unknown = first["type"] == "extra_forbidden"
    wanted = first["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    return BadTemplate(
        f"{marked.at(place)}: {name}",
        expected="a known name" if unknown else wanted,
        found="nothing" if first["type"] == "missing" else repr(first["input"])[:120],
        remedy="Compare it with a shipped one: docs/how-to/outside-programs.md shows all that may stand in it.",
    )


def fields_of(text: str) -> list[str]:
    """Names in braces.

    Raises
    ------
    ValueError
        When the braces don't fit, or hold more than a name.
    """
    names = []
    for _, name, form, conversion in Formatter().parse(text):
        if name is None:
            continue
        if not _PARAMETER.fullmatch(name) or conversion or form:
            raise ValueError(
                f"a plain name in braces, not {{{name}{'!' + conversion if conversion else ''}}}"
            )
        names.append(name)
    return names


def _check_words(marked: MarkedText, description: Description) -> None:
    known = description.placeholders
    for part in ("command", "answers"):
        for index, item in enumerate(getattr(description, part)):
            place: tuple[str | int, ...] = (part, index)
            if isinstance(item, When) and item.of not in known:
                raise _unknown(marked, place, item.of, known)
            for word in item.arguments if isinstance(item, When) else (item,):
                try:
                    names = fields_of(word)
                except ValueError as error:
                    raise BadTemplate(
                        f"{marked.at(place)}: {word!r}",
                        "names in braces; {{ and }} for braces themselves",
                        str(error),
                        "No expressions, no formats: adapt the value with a parameter instead.",
                    ) from error
                for name in names:
                    if name not in known:
                        raise _unknown(marked, place, name, known)


def _unknown(
    marked: MarkedText, place: tuple[str | int, ...], name: str, known: tuple[str, ...]
) -> BadTemplate:
    return BadTemplate(
        f"{marked.at(place)}: {{{name}}}",
        "one of " + ", ".join(known),
        name,
        "Add it under parameters, or correct it.",
    )


def _check_outputs(marked: MarkedText, description: Description) -> None:
    ports = _PORTS[description.kind]
    for name, output in description.outputs.items():
        place = ("outputs", name)
        if name not in ports:
            raise BadTemplate(f"{marked.at(place)}: {name}", "one of " + ", ".join(ports), name, "")
        allowed = _READERS.get(name, ())
        if output.reader is not None and output.reader not in allowed:
            raise BadTemplate(
                f"{marked.at((*place, 'reader'))}: {name}",
                "a reader of " + (", ".join(allowed) or "none: a pattern"),
                output.reader,
                "",
            )
        if output.reader is None and name not in _CTF_VALUES:
            raise BadTemplate(
                f"{marked.at(place)}: {name}", "a reader", "a pattern", "Only single numbers have one."
            )
        for field in fields_of(output.file or ""):
            if field != "stem":
                raise BadTemplate(f"{marked.at((*place, 'file'))}: {output.file}", "{stem} alone", field, "")
    needed = _NEEDED[description.kind]
    if description.kind == "ctf" and "ctf" not in description.outputs:
        needed = ("defocus_u_A", "defocus_v_A", "angle_deg")
    for name in needed:
        if name not in description.outputs:
            raise BadTemplate(
                f"{marked.at(('outputs',))}: outputs", f"{name}", ", ".join(description.outputs), ""
            )


def shipped() -> dict[str, Described]:
    """The programs that come with vitriflow, by step name."""
    found = {}
    folder = resources.files("vitriflow.steps").joinpath("program_files")
    for file in sorted(folder.iterdir(), key=lambda one: one.name):
        if file.name.endswith(".yaml"):
            one = read_description(file.read_text("utf-8"), file.name)
            found[one.description.name] = one
    return found


def in_folder(folder: Path) -> tuple[dict[str, Described], dict[str, BadTemplate]]:
    """Programs of a facility's folder by step name, and what's wrong with the others by file name."""
    found: dict[str, Described] = {}
    wrong: dict[str, BadTemplate] = {}
    try:
        files = sorted((*folder.glob("*.yaml"), *folder.glob("*.yml")))
    except OSError as error:
        return found, {str(folder): BadTemplate(str(folder), "a folder that can be read", str(error))}
    for path in files:
        try:
            one = read_description(path.read_text(encoding="utf-8"), str(path))
        except BadTemplate as error:
            wrong[path.name] = error
            continue
        except (OSError, UnicodeDecodeError) as error:
            wrong[path.name] = BadTemplate(str(path), "readable text in UTF-8", str(error))
            continue
        name = one.description.name
        if name in found:
            wrong[path.name] = BadTemplate(str(path), "a name of its own", f"{name}, as {found[name].source}")
            continue
        found[name] = one
    return found, wrong
