"""Say in words what a file is, and what is wrong with it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from vitriflow.errors import BadFile
from vitriflow.formats._mrc_header import HEADER_BYTES, MrcHeader, parse_header
from vitriflow.formats._raw import RawFile
from vitriflow.formats.completeness import State
from vitriflow.formats.ctffind import (
    looks_like_ctf_table,
    looks_like_ctffind,
    read_avrot,
    read_ctf_results,
)
from vitriflow.formats.defects import SERIALEM_WORDS
from vitriflow.formats.epu import read_epu_xml
from vitriflow.formats.exposure import ExposureMetadata
from vitriflow.formats.gain import read_gain
from vitriflow.formats.mdoc import read_mdoc
from vitriflow.formats.movie import Movie
from vitriflow.formats.opening import check_complete, open_movie, read_image, sniff
from vitriflow.formats.star import read_star
from vitriflow.kernels.ctf_outside import doubt_of_neighbours, doubts_of_numbers

_SHOWN = {
    "pixel_size_A": "pixel size {:.4g} A",
    "voltage_kV": "{:.4g} kV",
    "nominal_magnification": "magnification {:.0f} x",
    "exposure_time_s": "exposure {:.4g} s",
    "n_fractions": "{} fractions",
    "dose_e_per_A2": "dose {:.4g} e/A^2",
    "dose_per_frame_e_per_A2": "{:.4g} e/A^2 a fraction",
    "nominal_defocus_A": "asked for a defocus of {:.0f} A",
    "tilt_angle_deg": "tilt {:.2f} degrees",
    "acquired_at": "acquired {}",
    "movie_name": "movie {}",
}


@dataclass
class Report:
    """What a file is.

    Attributes
    ----------
    kind
        ``movie``, ``image``, ``gain reference``, ``STAR``, ``mdoc``, ``EPU metadata``,
        ``defect list``, ``CTF results``, or ``unknown``.
    format
        ``mrc``, ``tiff``, ``eer``, ``png``, ``jpeg``, ``dm``, ``star``, ``mdoc``, ``xml``,
        ``text``, or ``unknown``.
    lines
        What there is to say, a sentence each.
    problems
        What is wrong, a sentence each; empty when nothing is.
    """

    kind: str
    format: str
    lines: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def describe(path: Path) -> Report:
    """Look at a file and say what it is; never raises for what the file holds.

    A movie's first and last frames are decoded, the others only located.
    """
    path = Path(path)
    report = Report("unknown", "unknown")
    try:
        _describe(path, report)
    except BadFile as error:
        text = "; ".join(part for part in (error.found, error.remedy) if part)
        expected = f"expected {error.expected}, found " if error.expected else ""
        report.problems.append(f"{expected}{text} [{error.reason}]")
    return report


def _describe(path: Path, report: Report) -> None:
    by_suffix: dict[str, tuple[str, str, Callable[[Path, Report], None]]] = {
        ".star": ("STAR", "star", _star),
        ".mdoc": ("mdoc", "mdoc", _mdoc),
        ".xml": ("EPU metadata", "xml", _epu),
        ".dm3": ("gain reference", "dm", _gain),
        ".dm4": ("gain reference", "dm", _gain),
        ".gain": ("gain reference", "tiff", _gain),
    }
    if path.suffix.lower() in by_suffix:
        report.kind, report.format, function = by_suffix[path.suffix.lower()]
        function(path, report)
        return
    with RawFile(path) as raw:
        report.format = sniff(raw)
        head = raw.read(0, 65536)
        parsed = parse_header(head[:HEADER_BYTES]) if report.format == "mrc" else None
    if report.format == "unknown":
        _text(path, head, report)
        return
    _images(path, report, parsed if isinstance(parsed, MrcHeader) else None)


def _images(path: Path, report: Report, header: MrcHeader | None) -> None:
    report.kind = "movie" if report.format not in {"png", "jpeg"} else "image"
    state = check_complete(path)
    if state.state is not State.COMPLETE:
        wait = " (or still being written)" if state.state is State.GROWING else ""
        report.problems.append(f"{state.text}{wait} [{state.reason}]")
        return
    if header is not None and not header.has_map_id:
        report.problems.append("the letters MAP are missing from its header: some programs will refuse it")
    if report.kind == "image":
        array = read_image(path).array
        report.lines.append(f"a {report.format.upper()} picture of {array.shape[1]} x {array.shape[0]}")
        return
    with open_movie(path) as movie:
        _movie(path, movie, report)
    if header is not None and header.is_volume:
        report.kind = "volume"
        report.lines.append("its header calls it a volume: a map, not a movie")


def _movie(path: Path, movie: Movie, report: Report) -> None:
    height, width = movie.shape
    frames = "image" if movie.n_frames == 1 else f"movie of {movie.n_frames} frames"
    report.kind = "image" if movie.n_frames == 1 else "movie"
    report.lines.append(
        f"{movie.format.upper()} {frames}, {width} x {height} (width x height), values {movie.dtype.name}"
    )
    if movie.format == "eer":
        report.lines.append(
            f"{movie.n_raw_frames} raw frames; grouped by {movie.raw_frames_per_frame} unless told otherwise"
        )
    size = movie.pixel_size_A
    report.lines.append("pixel size not said" if size is None else f"pixel size {size:.4g} A")
    report.lines += [f"{name}: {text}" for name, text in movie.metadata.items()]
    for index in sorted({0, movie.n_frames - 1}):
        frame = movie.frame(index)
        with np.errstate(all="ignore"):  # what isn't finite is said below
            mean, low, high = float(frame.mean(dtype=np.float64)), float(frame.min()), float(frame.max())
        name = "its only frame" if movie.n_frames == 1 else f"frame {index + 1}"
        report.lines.append(f"{name}: mean {mean:.4g}, from {low:.4g} to {high:.4g}")
        if not np.isfinite(mean):
            report.problems.append(f"{name} holds values that aren't finite numbers")
        elif low == high:
            report.problems.append(f"{name} is {low:g} everywhere")
    if "gain" in path.stem.lower() and movie.n_frames == 1:
        _gain(path, report)


def _gain(path: Path, report: Report) -> None:
    report.kind = "gain reference"
    gain = read_gain(path)
    height, width = gain.array.shape
    good = gain.array[~gain.defects]
    report.lines.append(
        f"gain reference of {width} x {height} (width x height), mean {float(good.mean(dtype=np.float64)):.4g}, "
        f"from {float(good.min()):.4g} to {float(good.max()):.4g}"
    )
    n_defects = int(gain.defects.sum())
    if n_defects:
        report.lines.append(f"{n_defects} pixels are zero: defects")
    if n_defects > gain.array.size // 10:
        report.problems.append(f"{100 * n_defects / gain.array.size:.0f} % of its pixels are zero")


def _star(path: Path, report: Report) -> None:
    for name, block in read_star(path).items():
        if isinstance(block, dict):
            report.lines.append(f"data_{name}: {len(block)} values: {', '.join(map(str, block))}")
        else:
            columns = ", ".join(map(str, block.columns))
            report.lines.append(f"data_{name}: a table of {len(block)} rows: {columns}")
            if len(block) == 0:
                report.problems.append(f"data_{name} has no rows")
        if looks_like_ctf_table(block) and len(block):
            _ctf(path, report)


def _ctf(path: Path, report: Report) -> None:
    """CTF results of another program; what is wrong with them is told of the first three."""
    results = read_ctf_results(path)
    report.lines.append(f"CTF of {len(results)} micrographs" if len(results) > 1 else "CTF of one micrograph")
    bad = 0
    for index, ctf in enumerate(results):
        doubts = [*doubts_of_numbers(ctf), doubt_of_neighbours(index, results)]
        said = "; ".join(text for text in doubts if text)
        if index < 3:
            report.lines.append(
                f"{ctf.name}: defocus {ctf.defocus_u_A:.0f} and {ctf.defocus_v_A:.0f} A, "
                f"angle {ctf.angle_deg:.1f} degrees"
            )
        if said and (bad := bad + 1) <= 3:
            report.problems.append(f"the CTF of {ctf.name} is doubtful: {said}")
    if bad > 3:
        report.problems.append(f"and that of {bad - 3} others; 'ctf.import' holds each against its spectrum")


def _shown(exposure: ExposureMetadata) -> list[str]:
    values = [(form, getattr(exposure, name)) for name, form in _SHOWN.items()]
    return [form.format(value) for form, value in values if value is not None]


def _mdoc(path: Path, report: Report) -> None:
    mdoc = read_mdoc(path)
    software = mdoc.exposures[0].software or "unknown software"
    report.lines.append(f"mdoc of a {mdoc.kind} by {software}, {len(mdoc.exposures)} sections")
    report.lines += mdoc.titles
    report.lines.append("first section: " + ", ".join(_shown(mdoc.exposures[0])))
    tilts = [e.tilt_angle_deg for e in mdoc.exposures if e.tilt_angle_deg is not None]
    if mdoc.kind == "tilt series":
        report.lines.append(f"tilts from {min(tilts):.1f} to {max(tilts):.1f} degrees")
    report.problems += mdoc.problems
    for exposure in mdoc.exposures:
        report.problems += [f"section {exposure.tilt_order}: {text}" for text in exposure.problems]


def _epu(path: Path, report: Report) -> None:
    exposure = read_epu_xml(path)
    report.lines.append("EPU metadata: " + ", ".join(_shown(exposure)))
    report.problems += exposure.problems


def _text(path: Path, head: bytes, report: Report) -> None:
    """Defect lists have no suffix of their own: their words or their four numbers a line tell."""
    report.format = "text" if head and b"\0" not in head else "unknown"
    lines = head.decode("utf-8", "replace").splitlines()
    words = [line.replace(",", " ").split("#")[0].split() for line in lines]
    rows = [row for row in words if row]
    if looks_like_ctffind(lines[0] if lines else ""):
        report.kind = "CTF results"
        if path.stem.endswith("_avrot"):
            report.lines.append(f"ctffind's curves, {len(read_avrot(path).fit)} points")
        else:
            _ctf(path, report)
        return
    if report.format == "text" and any(SERIALEM_WORDS.match(line) for line in lines):
        report.kind = "defect list"
        report.lines.append("SerialEM's list of camera defects")
    elif report.format == "text" and rows and all(len(r) == 4 and _whole(r) for r in rows[:-1] or rows):
        report.kind = "defect list"
        report.lines.append(f"a list of defects as x y w h, {len(rows)} lines or more")
    else:
        report.problems.append(
            "isn't a file that vitriflow knows (MRC, TIFF, EER, STAR, mdoc, EPU XML, gain, defect list)"
            if head
            else "is empty [file.empty]"
        )


def _whole(words: list[str]) -> bool:
    return all(word.lstrip("-").isdigit() for word in words)
