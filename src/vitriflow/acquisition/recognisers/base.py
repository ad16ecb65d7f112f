"""What a recogniser is: a name and rules. A rule is data: a pattern on the path, and what it means."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Any

from vitriflow.errors import BadConfig


class FileKind(StrEnum):
    """What a file is for."""

    MOVIE = "movie"
    GAIN = "gain"
    METADATA = "metadata"
    ATLAS = "atlas"
    GRID_SQUARE_IMAGE = "grid_square_image"
    FOIL_HOLE_IMAGE = "foil_hole_image"
    PREVIEW = "preview"
    SESSION = "session"
    MONTAGE = "montage"
    TEMPORARY = "temporary"
    UNKNOWN = "unknown"


# What a name can say of a file, with the type that it's stored in.
FIELDS: dict[str, Callable[[str], Any]] = {
    "grid_square": str,
    "foil_hole": str,
    "position": str,  # which shot of a hole, or which position of a tilt series
    "tilt_series": str,
    "tilt_angle_deg": lambda text: float(text.replace(",", ".")),
    "tilt_order": int,
    "shift_position": str,  # names the beam's position in a pattern, when no number says it
}


@dataclass(frozen=True)
class Recognised:
    """What a file is, and who wrote it, as far as its name tells.

    Attributes
    ----------
    kind, software
        What it is for; the program (``epu``, ``serialem``, ``tomo5``, a facility's own, or nothing).
    fields
        What else the name says: see ``FIELDS``.
    rule
        The rule that claimed it, for people; empty when none did.
    """

    kind: FileKind
    software: str
    fields: Mapping[str, Any] = field(default_factory=dict, hash=False)
    rule: str = ""


@dataclass(frozen=True)
class Rule:
    """Paths that match ``pattern`` are files of one kind.

    Parameters
    ----------
    kind
        A :class:`FileKind`, or its name.
    pattern
        A regular expression, searched in the path below the source folder (forward slashes),
        without regard to case. Named groups become fields: ``grid_square``, ``foil_hole``,
        ``position``, ``tilt_series``, ``tilt_angle_deg``, ``tilt_order``, ``shift_position``.
        Groups whose names begin with ``_`` are for ``fields``.
    means
        What such a file is, in words.
    fields
        A function from the match to more fields, for what groups can't say.
    software
        Overrules the recogniser's.
    """

    kind: str
    pattern: str
    means: str
    fields: Callable[[re.Match[str]], Mapping[str, Any]] | None = None
    software: str | None = None

    @cached_property
    def compiled(self) -> re.Pattern[str]:
        """The pattern, ready to search with."""
        return re.compile(self.pattern, re.IGNORECASE)


@dataclass(frozen=True)
class Recogniser:
    """Rules for the files of one program; the first that matches wins.

    Parameters
    ----------
    name
        Name of the program, which files carry as their ``software``. Empty for none.
    rules
        In order.
    """

    name: str
    rules: tuple[Rule, ...]

    def check(self) -> None:
        """Check every rule.

        Raises
        ------
        BadConfig
            Naming the recogniser and the rule that can't be used.
        """
        for number, rule in enumerate(self.rules, 1):
            where = f"recogniser '{self.name}', rule {number} ({rule.means})"
            if rule.kind not in set(FileKind):
                kinds = ", ".join(sorted(FileKind))
                raise BadConfig(where, f"a kind: {kinds}", repr(rule.kind), "Correct the rule's kind.")
            try:
                groups = {name for name in rule.compiled.groupindex if not name.startswith("_")}
            except re.error as error:
                raise BadConfig(
                    where, "a regular expression", f"{rule.pattern!r}: {error}", "Correct the pattern."
                ) from error
            strange = sorted(groups - FIELDS.keys())
            if strange:
                raise BadConfig(
                    where,
                    "named groups among " + ", ".join(FIELDS),
                    ", ".join(strange),
                    "Rename the group, or leave its name out.",
                )

    def recognise(self, key: str) -> Recognised | None:
        """What the file at this path is; None when no rule claims it.

        Raises
        ------
        BadConfig
            When a rule fails, naming it.
        """
        for number, rule in enumerate(self.rules, 1):
            match = rule.compiled.search(key)
            if match is None:
                continue
            try:
                groups = match.groupdict().items()
                said = {name: text for name, text in groups if text and not name.startswith("_")}
                found = {name: FIELDS[name](text) for name, text in said.items()}
                if rule.fields is not None:
                    found.update(rule.fields(match))
            except Exception as error:  # a facility's own function may fail in any way
                raise BadConfig(
                    f"recogniser '{self.name}', rule {number} ({rule.means})",
                    "a rule that can be used on any path that it matches",
                    f"{type(error).__name__}: {error} for {key!r}",
                    "Correct the rule, or remove the package that brings it.",
                ) from error
            software = self.name if rule.software is None else rule.software
            return Recognised(FileKind(rule.kind), software, found, f"{self.name or 'plain'} {number}")
        return None
