"""Numbers, times, quantities and reasons in words: what pages, reports and alarms say and how they say it."""

from datetime import UTC, datetime
from typing import NamedTuple

from vitriflow.errors import Reason

DASH = "\N{EN DASH}"  # where there's no value
MINUS = "\N{MINUS SIGN}"


class Quantity(NamedTuple):
    """How a measured column is shown."""

    label: str
    unit: str
    digits: int


QUANTITIES: dict[str, Quantity] = {
    "early_A": Quantity("Early motion", "Å", 1),
    "late_A": Quantity("Late motion", "Å", 1),
    "total_A": Quantity("Total motion", "Å", 1),
    "net_A": Quantity("Net drift", "Å", 1),
    "mean_intensity": Quantity("Mean intensity", "counts/px/frame", 3),
    "defocus_A": Quantity("Defocus", "Å", 0),
    "astigmatism_A": Quantity("Astigmatism", "Å", 0),
    "defocus_angle_deg": Quantity("Astigmatism angle", "°", 1),
    "phase_shift_deg": Quantity("Phase shift", "°", 1),
    "cross_correlation": Quantity("CTF correlation", "", 3),
    "fit_resolution_A": Quantity("Fit resolution", "Å", 2),
    "ice_ring": Quantity("Ice ring", "", 2),
    "n_picks": Quantity("Picks", "", 0),
    "latency_s": Quantity("Latency", "s", 1),
}

REASONS: dict[str, str] = {
    Reason.TRUNCATED: "File cut short",
    Reason.EMPTY: "Empty file",
    Reason.UNREADABLE: "File can't be read",
    Reason.WRONG_SIZE: "File of the wrong size",
    Reason.VANISHED: "File vanished",
    Reason.CHANGED: "File changed after it was complete",
    Reason.DUPLICATE_NAME: "Name used twice",
    Reason.NOT_A_MOVIE: "Not a movie",
    Reason.UNSUPPORTED: "Format not supported",
    Reason.NAME: "Name can't be written down",
    Reason.CONFLICT: "Other bytes stand at its destination",
    Reason.CORRUPT: "The disk gave other bytes back",
    Reason.REFUSED: "Can't be written to the session's folder",
    Reason.METADATA_BROKEN: "Metadata file broken",
    Reason.METADATA_MISSING: "Metadata file missing",
    Reason.PARAMETER: "Bad parameter",
    Reason.ALL_ZERO: "Image is all zero",
    Reason.CONSTANT: "Image is constant",
    Reason.NOT_FINITE: "Image has values that are not numbers",
    Reason.INTENSITY: "Intensity is not what the dose says",
    Reason.ORIENTATION: "Image turned or flipped",
    Reason.GAIN_MISSING: "Gain reference missing",
    Reason.GAIN_SIZE: "Gain reference of the wrong size",
    Reason.GAIN_BAD: "Gain reference doesn't fit",
    Reason.FIXED_PATTERN: "Fixed pattern pins the alignment",
    Reason.SHIFT_BOUNDS: "Shifts out of bounds",
    Reason.TOO_FEW_FRAMES: "Too few frames",
    Reason.HALVES_DISAGREE: "Odd and even halves disagree",
    Reason.NO_RINGS: "No CTF rings found",
    Reason.CTF_BOUNDS: "CTF out of bounds",
    Reason.CTF_DOUBTFUL: "CTF fit doubtful",
    Reason.NO_PICKS: "No particles found",
    Reason.PICKS_OUTSIDE: "Picks outside the image",
    Reason.DISK_FULL: "Disk full",
    Reason.TIME_LIMIT: "Took too long",
    Reason.WORKER_DIED: "Worker died",
    Reason.OUT_OF_MEMORY: "Out of memory",
    Reason.STEP_ERROR: "Step stopped with an error",
    Reason.PROGRAM_MISSING: "Outside program missing",
    Reason.PROGRAM_VERSION: "Outside program of another version",
    Reason.PROGRAM_LICENCE: "Outside program without a licence",
    Reason.PROGRAM_FAILED: "Outside program failed",
    Reason.PROGRAM_HUNG: "Outside program hung, and was killed",
    Reason.PROGRAM_NO_OUTPUT: "Outside program left no output",
    Reason.PROGRAM_EMPTY_OUTPUT: "Outside program left an empty file",
    Reason.PROGRAM_NONSENSE: "Outside program gave numbers that can't be",
}

STATUS_WORDS = {
    "open": "open",
    "done": "done",
    "rejected": "rejected",
    "quarantined": "quarantined",
    "failed": "failed",
    "waiting": "waiting",
    "ready": "ready",
    "running": "running",
    "stopped": "not reached",
}

STATUS_HELP = {
    "open": "on its way: waiting, running, or still being written",
    "done": "all nodes finished",
    "rejected": "finished, but outside a limit that was set",
    "quarantined": "set aside with a reason: the data can't be used as it is",
    "failed": "set aside after its retries: the processing went wrong, not the data",
    "waiting": "its inputs are not there yet",
    "ready": "queued",
    "running": "a worker has it",
    "stopped": "a node before it set the exposure aside",
}


def reason_words(code: str | None) -> str:
    """A reason code as a few words; an unknown code (a facility's own) as it stands."""
    if not code:
        return "No reason given"
    return REASONS.get(code, code)


def number(value: float | int | None, digits: int = 0) -> str:
    """A number with thousands separated, or a dash where there's none."""
    if value is None or value != value:  # NaN
        return DASH
    text = f"{value:,.{digits}f}"
    return text.replace("-", MINUS)


def quantity(name: str, value: float | None) -> str:
    """A measured value with its unit."""
    shown = QUANTITIES[name]
    text = number(value, shown.digits)
    if value is None or not shown.unit:
        return text
    return f"{text}{shown.unit}" if shown.unit == "°" else f"{text} {shown.unit}"


def plural(count: int, one: str, many: str | None = None) -> str:
    """``3 files``, ``1 file``."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def duration(seconds: float | None) -> str:
    """A length of time as a person says it: ``8.2 s``, ``3 min``, ``5 h 20 min``, ``2 days``."""
    if seconds is None or seconds != seconds:
        return DASH
    seconds = max(seconds, 0.0)
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    if seconds < 48 * 3600:
        hours, minutes = divmod(round(seconds / 60), 60)
        return f"{hours} h {minutes:02d} min"
    return f"{seconds / 86400:.0f} days"


def ago(seconds: float | None) -> str:
    """How long since: ``12 s ago``."""
    if seconds is None or seconds != seconds:
        return DASH
    return "just now" if seconds < 2 else f"{duration(seconds)} ago"


def size(count: int) -> str:
    """Bytes as a person says them (powers of 1000)."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 999.5:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.3g} {unit}"
        value /= 1000.0
    return f"{value:.3g} TB"


def utc(moment: datetime | None) -> str:
    """A timestamp for people, in UTC."""
    return DASH if moment is None else moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def iso(moment: datetime | None) -> str:
    """A timestamp for programs (and for the page's script, which shows it in the reader's zone)."""
    return "" if moment is None else moment.astimezone(UTC).isoformat()
