"""What a gain diagnosis says to people."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vitriflow.kernels.gain_diagnosis import GainDiagnosis

_LIES = {
    "as_is": "already the right way up as it is stored",
    "rotated_90": "turned by 90 degrees",
    "rotated_180": "turned by 180 degrees",
    "rotated_270": "turned by 90 degrees",
    "flipped_y": "upside down",
    "flipped_x": "mirrored left to right",
    "rotated_90_flipped_y": "turned and mirrored",
    "rotated_90_flipped_x": "turned and mirrored",
}
_WRONG_SIZE = (
    "The gain reference hasn't the size of the movies, turned or not: give the reference of this camera "
    "and of this mode (counting or super-resolution)."
)
_NOT_NEEDED = "The movies are gain-corrected already, and no gain reference is set: that is right."
_RETAKE = "Take a new gain reference before the next session."


def put_in_words(d: "GainDiagnosis") -> str:
    """One or two sentences: what was found, and what to set or do."""
    texts = {
        "right": _right,
        "wrong_orientation": _orientation,
        "wrong_convention": _convention,
        "corrected_already": _corrected,
        "other_camera": _other_camera,
        "flat": _flat,
        "missing": _missing,
        "undecided": _undecided,
    }
    fixed = {"wrong_size": _WRONG_SIZE, "not_needed": _NOT_NEEDED}
    return fixed[d.verdict] if d.verdict in fixed else texts[d.verdict](d)


def _percent(value: float) -> str:
    return f"{100.0 * value:.2g} %"


def _pattern(d: "GainDiagnosis") -> str:
    return "a fixed pattern" + (f" of {_percent(d.movies.pixels.rms)}" if d.movies else "")


def _right(d: "GainDiagnosis") -> str:
    text = "The gain reference fits these movies as it is used"
    if d.left is None or d.severity == "info":
        return text + "."
    rows, columns = d.left.rows, d.left.columns
    lines = max(rows, columns, key=lambda level: level.low)
    kind = "rows" if lines is rows else "columns"
    if lines.low > 0.5 * d.left.pixels.low:
        return f"{text}, but whole {kind} still differ by {_percent(lines.rms)} after it. {_RETAKE}"
    return (
        f"{text}, but leaves {_percent(d.left.pixels.rms)} of difference from pixel to pixel: it is old or "
        f"noisy. {_RETAKE}"
    )


def _settings(d: "GainDiagnosis") -> str:
    """What to set, for all that's used wrongly."""
    wanted = []
    if d.set_orientation != d.used_orientation:
        wanted.append(f"gain_orientation = {d.set_orientation}")
    if d.set_convention != d.used_convention:
        wanted.append(f"gain_convention = {d.set_convention}")
    return " and ".join(wanted)


def _orientation(d: "GainDiagnosis") -> str:
    if d.used_orientation == "as_is":
        return f"The gain reference is {_LIES[d.set_orientation or 'as_is']}: set {_settings(d)}."
    return (
        f"The gain reference is laid on the movies wrongly (gain_orientation = {d.used_orientation}): "
        f"set {_settings(d)}."
    )


def _convention(d: "GainDiagnosis") -> str:
    wrong = "multiplied by" if d.used_convention == "multiply" else "divided by"
    right = "multiplied by" if d.set_convention == "multiply" else "divided by"
    return (
        f"Counts are {wrong} the gain reference and have to be {right} it, or the camera's pattern is "
        f"doubled: set {_settings(d)}."
    )


def _corrected(d: "GainDiagnosis") -> str:
    noisy = d.scores and d.scores[0].fit < -0.1 and d.scores[0].sigmas > 8.0
    left = " (what is left is the noise of a weak reference)" if noisy else ""
    return f"The movies are gain-corrected already{left}: set no gain_reference, or they are corrected twice."


def _other_camera(d: "GainDiagnosis") -> str:
    best = d.scores[0]
    share = f"at best {100.0 * max(abs(best.fit), 0.0):.0f} % of it" if abs(best.fit) > 0.1 else "none of it"
    return (
        f"The gain reference isn't that of these movies: they carry {_pattern(d)}, and the reference explains "
        f"{share} in any orientation. Give the reference of this camera, of this mode and of these days."
    )


def _flat(d: "GainDiagnosis") -> str:
    if d.severity == "alarm":
        return (
            f"The gain reference is flat and corrects nothing, but the movies carry {_pattern(d)}: give the "
            "reference of this camera."
        )
    return "The gain reference is flat and so are the movies: it changes nothing, in any orientation."


def _missing(d: "GainDiagnosis") -> str:
    return (
        f"The movies carry {_pattern(d)} from pixel to pixel, and no gain reference is set: they aren't "
        "gain-corrected, or badly. Set gain_reference."
    )


def _undecided(d: "GainDiagnosis") -> str:
    seen = f"{d.n_movies} movie{'s' if d.n_movies != 1 else ''}"
    if d.more_movies is not None:
        movies = f"about {d.more_movies} more movie{'s' if d.more_movies != 1 else ''}"
        return f"Can't tell yet from {seen} whether the gain reference is right: {movies} will show it."
    return (
        f"Can't tell from {seen} whether the gain reference is right: the patterns are too weak to compare. "
        "Compare the corrected micrographs by eye."
    )
