"""Errors that name the thing, what was expected, what was found, and what to do."""

from enum import StrEnum


class Reason(StrEnum):
    """Why an item was set aside: a stable code for tables, with a sentence beside it for people."""

    TRUNCATED = "file.truncated"
    EMPTY = "file.empty"
    UNREADABLE = "file.unreadable"
    WRONG_SIZE = "file.wrong_size"
    VANISHED = "file.vanished"
    CHANGED = "file.changed"
    DUPLICATE_NAME = "file.duplicate_name"
    NOT_A_MOVIE = "file.not_a_movie"
    UNSUPPORTED = "file.unsupported"
    NAME = "file.name"
    CONFLICT = "copy.conflict"
    CORRUPT = "copy.corrupt"
    REFUSED = "copy.refused"
    METADATA_BROKEN = "metadata.broken"
    METADATA_MISSING = "metadata.missing"
    PARAMETER = "parameter.bad"
    ALL_ZERO = "image.all_zero"
    CONSTANT = "image.constant"
    NOT_FINITE = "image.not_finite"
    INTENSITY = "image.intensity"
    ORIENTATION = "image.orientation"
    GAIN_MISSING = "gain.missing"
    GAIN_SIZE = "gain.wrong_size"
    GAIN_BAD = "gain.bad"
    FIXED_PATTERN = "motion.fixed_pattern"
    SHIFT_BOUNDS = "motion.shift_bounds"
    TOO_FEW_FRAMES = "motion.too_few_frames"
    HALVES_DISAGREE = "motion.halves_disagree"
    NO_RINGS = "ctf.no_rings"
    CTF_BOUNDS = "ctf.bounds"
    CTF_DOUBTFUL = "ctf.doubtful"
    NO_PICKS = "pick.none"
    PICKS_OUTSIDE = "pick.outside"
    DISK_FULL = "disk.full"
    TIME_LIMIT = "worker.time_limit"
    WORKER_DIED = "worker.died"
    OUT_OF_MEMORY = "worker.out_of_memory"
    STEP_ERROR = "step.error"
    PROGRAM_MISSING = "program.missing"
    PROGRAM_VERSION = "program.version"
    PROGRAM_LICENCE = "program.licence"
    PROGRAM_FAILED = "program.failed"
    PROGRAM_HUNG = "program.hung"
    PROGRAM_NO_OUTPUT = "program.no_output"
    PROGRAM_EMPTY_OUTPUT = "program.empty_output"
    PROGRAM_NONSENSE = "program.nonsense"


class VitriflowError(Exception):
    """An error a person can act on.

    Parameters
    ----------
    thing
        What the error is about: a file, a field, a parameter, a service.
    expected
        What should have been there.
    found
        What was there instead.
    remedy
        What the reader can do about it.
    """

    def __init__(self, thing: str, expected: str = "", found: str = "", remedy: str = "") -> None:
        self.thing = thing
        self.expected = expected
        self.found = found
        self.remedy = remedy
        parts = [thing]
        if expected:
            parts.append(f"expected {expected}")
        if found:
            parts.append(f"found {found}")
        text = "; ".join(parts)
        super().__init__(f"{text}. {remedy}" if remedy else text)


class BadConfig(VitriflowError):
    """facility.toml or an environment setting can't be used as it stands."""


class BadTemplate(VitriflowError):
    """A pipeline template or its parameters can't be run as they stand."""


class BadParameter(VitriflowError):
    """A parameter given by a person is missing, unknown or out of range."""


class CatalogError(VitriflowError):
    """The catalog can't be opened, is of another version, or refused a change."""


class Busy(VitriflowError):
    """Somebody else holds what was asked for (a second process on one session)."""


class ItemError(VitriflowError):
    """One item (file, exposure) can't go on; the others can.

    ``reason`` is the stable code under which the item is counted. Raised by formats,
    kernels and steps; a step that raises it leaves its item quarantined.
    """

    def __init__(
        self, reason: Reason, thing: str, expected: str = "", found: str = "", remedy: str = ""
    ) -> None:
        self.reason = reason
        super().__init__(thing, expected, found, remedy)

    def __reduce__(self) -> tuple[type["ItemError"], tuple[Reason, str, str, str, str]]:
        """Survive the trip back from a worker process."""
        return type(self), (self.reason, self.thing, self.expected, self.found, self.remedy)


class BadFile(ItemError):
    """A file isn't what its name or its header says."""


class ProgramError(ItemError):
    """An outside program is missing, is another version, failed, hung, or left nothing that can be used."""


class BadImage(ItemError):
    """An image or a movie whose values can't be right (zero, constant, not finite)."""


class BrokenInvariant(ItemError):
    """A step's own output fails its own check, so it's never passed on."""
