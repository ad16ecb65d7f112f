"""mdoc files of SerialEM and Tomo 5, through the mdocfile package, in our units."""

import logging
import math
import re
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING, Any

from vitriflow.errors import BadFile, Reason
from vitriflow.formats._raw import RawFile
from vitriflow.formats.exposure import ExposureMetadata, names_from_path
from vitriflow.units import ANGSTROM_PER_UM

if TYPE_CHECKING:
    from mdocfile.data_models import MdocSectionData

_LARGEST = 256 * 1024 * 1024
_SECTION = re.compile(r"^\[(ZValue|MontSection|FrameSet)\s*=\s*(-?\d+)\s*\]")
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_AXIS = re.compile(r"tilt\s*axis\s*angle\s*=\s*(-?[\d.]+)", re.IGNORECASE)
# mdocfile logs every field that it doesn't know, one line a section.
logging.getLogger("mdocfile").setLevel(logging.ERROR)


@dataclass
class Mdoc:
    """A whole mdoc file.

    Attributes
    ----------
    path
        The file.
    kind
        ``tilt series``, ``frame set``, ``montage``, or ``images`` for other stacks.
    titles
        The lines of text in square brackets at its head.
    image_file
        Name of the stack that it belongs to, if any.
    exposures
        One for each section, in the order of the file.
    problems
        What is odd about the file as a whole.
    """

    path: Path
    kind: str
    titles: list[str]
    image_file: str | None
    exposures: list[ExposureMetadata]
    problems: list[str] = field(default_factory=list)


def read_mdoc(path: Path) -> Mdoc:
    """Read an mdoc of a tilt series, a frame set, a montage or a stack of images.

    Raises
    ------
    BadFile
        ``metadata.broken`` with the line, ``file.empty``, or why it can't be read.
    """
    path = Path(path)
    with RawFile(path) as raw:
        data = raw.read(0, min(raw.size(), _LARGEST))
    if not data.strip(b"\0 \r\n\t"):
        raise BadFile(Reason.EMPTY, str(path), "an mdoc file", "nothing yet", "Wait, or copy it again.")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        text = data.decode("latin-1")  # names typed on a microscope's Windows
    lines = [line.strip() for line in text.splitlines()]
    starts = [i for i, line in enumerate(lines) if _SECTION.match(line)]
    if not starts or "\0" in text:
        raise _broken(path, "no section such as [ZValue = 0] or [FrameSet = 0]")
    head, titles = _head(path, lines[: starts[0]])
    sections = [
        (start, _section(path, start, lines[start:stop]))
        for start, stop in zip(starts, [*starts[1:], len(lines)], strict=True)
    ]
    return _assemble(path, head, titles, sections)


def _broken(path: Path, found: str) -> BadFile:
    return BadFile(
        Reason.METADATA_BROKEN,
        str(path),
        expected="an mdoc file of SerialEM or Tomo 5",
        found=found,
        remedy="If the microscope is still writing it, try again; else copy it again.",
    )


def _head(path: Path, lines: list[str]) -> tuple[dict[str, str], list[str]]:
    """Lines before the first section: values, and titles as texts."""
    values: dict[str, str] = {}
    titles: list[str] = []
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        if line.startswith(("[T =", "[T=", "T =")):
            titles.append(line.strip("[] ").partition("=")[2].strip())
        elif "=" in line and not line.startswith("["):
            key, _, value = line.partition("=")
            values[key.strip()] = value.strip()
        else:
            raise _broken(path, f"line {number}: {line[:80]!r}")
    return values, titles


def _section(path: Path, start: int, lines: list[str]) -> "MdocSectionData":
    from mdocfile.data_models import MdocSectionData
    from pydantic import ValidationError

    for number, line in enumerate(lines[1:], start + 2):
        if line and "=" not in line and not line.startswith("["):
            raise _broken(path, f"line {number}: {line[:80]!r}, without '='")
    try:
        return MdocSectionData.from_lines(lines)
    except ValidationError as error:
        name = str(error.errors()[0]["loc"][0])
        numbers = [n for n, line in enumerate(lines, start + 1) if line.strip("[").startswith(name[:-1])]
        found = f"line {numbers[0] if numbers else start + 1}: {name}: {error.errors()[0]['msg']}"
        raise _broken(path, found) from error
    except (ValueError, TypeError, IndexError) as error:
        raise _broken(path, f"section at line {start + 1}: {error}") from error


def _assemble(path: Path, head: dict[str, str], titles: list[str], sections: list[tuple[int, Any]]) -> Mdoc:
    problems: list[str] = []
    software = _software(titles)
    year_first = software[0] == "Tomo 5"
    axis = next((_float(m.group(1)) for title in titles if (m := _AXIS.search(title))), None)
    exposures = [
        _exposure(path, index, section, head, year_first) for index, (_, section) in enumerate(sections)
    ]
    for exposure in exposures:
        exposure.software, exposure.microscope = software
        exposure.tilt_axis_deg = _tilt_axis(software[0], axis, exposure.rotation_angle_deg)
        exposure.source = str(path)
    names = Counter(e.movie_name for e in exposures if e.movie_name)
    doubles = sorted(name for name, count in names.items() if count > 1)
    if doubles:
        problems.append(f"{len(doubles)} movies are named more than once, first {doubles[0]}")
    image_file = head.get("ImageFile")
    return Mdoc(path, _kind(head, sections), titles, image_file, exposures, problems)


def _tilt_axis(software: str | None, title: float | None, rotation: float | None) -> float | None:
    """Angle of the tilt axis from the images' y axis (degrees, -180 to 180), as written: unproved.

    SerialEM gives it in a title, and RotationAngle is 90 degrees more; in Tomo 5's files
    RotationAngle is the axis and the title is 90 degrees off.
    """
    if software == "Tomo 5":
        return rotation if rotation is not None else title
    if title is not None or rotation is None:
        return title
    return (rotation - 90.0 + 180.0) % 360.0 - 180.0


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _kind(head: dict[str, str], sections: list[tuple[int, Any]]) -> str:
    if any(section.FrameSet is not None for _, section in sections):
        return "frame set"
    if head.get("Montage") == "1" or any(section.PieceCoordinates is not None for _, section in sections):
        return "montage"
    tilts = [section.TiltAngle for _, section in sections if section.TiltAngle is not None]
    return "tilt series" if len(tilts) > 2 and max(tilts) - min(tilts) > 2.0 else "images"


def _software(titles: list[str]) -> tuple[str | None, str | None]:
    """Program and microscope from the first title: ``SerialEM: name  date``, ``Tomography: name  date``."""
    for title in titles:
        program, colon, rest = title.partition(":")
        if colon and program.strip() in {"SerialEM", "Tomography"}:
            name = re.split(r"\s{2,}", rest.strip())[0].removeprefix("Digitized on ").strip()
            return ("Tomo 5" if program.strip() == "Tomography" else "SerialEM"), name or None
    return None, None


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _positive(value: float | None) -> float | None:
    """SerialEM writes 0 for a dose or time that it doesn't know."""
    value = _finite(value)
    return value if value is not None and value > 0 else None


def _exposure(
    path: Path, index: int, section: Any, head: dict[str, str], year_first: bool
) -> ExposureMetadata:
    found = ExposureMetadata(tilt_order=section.ZValue if section.ZValue is not None else index)
    voltage = section.Voltage if section.Voltage is not None else _float(head.get("Voltage"))
    found.voltage_kV = _positive(voltage)
    pixel_size = (
        section.PixelSpacing if section.PixelSpacing is not None else _float(head.get("PixelSpacing"))
    )
    found.pixel_size_A = _positive(pixel_size)
    found.nominal_magnification = _positive(section.Magnification)
    found.exposure_time_s = _positive(section.ExposureTime)
    found.dose_e_per_A2 = _positive(section.ExposureDose)
    found.prior_dose_e_per_A2 = _finite(section.PriorRecordDose)
    if (defocus := _finite(section.TargetDefocus)) is not None:
        found.nominal_defocus_A = -defocus * ANGSTROM_PER_UM + 0.0  # um, negative is under
    found.binning = _positive(section.Binning)
    found.tilt_angle_deg = found.stage_alpha_deg = _finite(section.TiltAngle)
    found.rotation_angle_deg = _finite(section.RotationAngle)
    if section.StagePosition is not None:
        found.stage_x_um, found.stage_y_um = map(_finite, section.StagePosition)
    found.stage_z_um = _finite(section.StageZ)
    if section.ImageShift is not None and all(map(math.isfinite, section.ImageShift)):
        found.image_shift = section.ImageShift
    if section.FilterSlitAndLoss is not None:
        found.energy_slit_eV = _positive(section.FilterSlitAndLoss[0])
    _frames(found, section)
    extra = section.model_extra or {}
    if extra.get("GainReference"):
        found.gain_reference = PureWindowsPath(extra["GainReference"]).name
    if section.DateTime:
        found.acquired_at = _when(section.DateTime, year_first)
        if found.acquired_at is None:
            found.problems.append(f"DateTime says {section.DateTime!r}, which isn't a date")
    if section.SubFramePath is not None:
        found.movie_path = str(section.SubFramePath)
        found.movie_name = PureWindowsPath(found.movie_path).name
        for name, value in names_from_path(Path(found.movie_name)).items():
            setattr(found, name, value)
    if found.position is None and (match := re.match(r"Position_\d+(?:_\d+)?", path.name)):
        found.position = match.group(0)
    return found


def _frames(found: ExposureMetadata, section: Any) -> None:
    """Frames and dose of each; Tomo 5 writes NumSubFrames = 1 whatever the file holds: the file knows better."""
    doses = section.FrameDosesAndNumbers or []
    total = sum(number for _, number in doses)
    name = str(section.SubFramePath or "").lower()
    if section.NumSubFrames in {None, 1} and (total <= 1 or name.endswith((".eer", ".ecc"))):
        return
    found.n_fractions = section.NumSubFrames
    if total and len(doses) == 1 and doses[0][0] > 0:
        found.dose_per_frame_e_per_A2 = doses[0][0]
    elif found.dose_e_per_A2 and found.n_fractions:
        found.dose_per_frame_e_per_A2 = found.dose_e_per_A2 / found.n_fractions
    if total and found.n_fractions and total != found.n_fractions:
        found.problems.append(f"NumSubFrames says {found.n_fractions}, FrameDosesAndNumber {total}")


def _float(text: str | None) -> float | None:
    return float(text) if text is not None and _is_number(text) else None


def _when(text: str, year_first: bool) -> datetime | None:
    """``08-Oct-21  07:39:08`` of SerialEM or ``22-Feb-04  23:02:05`` of Tomo 5; neither has a zone.

    SerialEM writes day-month-year, Tomo 5 year-month-day. A four-digit year decides by itself,
    and so does a date that makes sense in one order only. ISO 8601 is taken as it is.
    """
    try:
        return datetime.fromisoformat(text.strip())
    except ValueError:
        pass
    match = re.fullmatch(r"(\d{1,4})-([A-Za-z]{3})-(\d{1,4})\s+(\d{1,2}):(\d{2}):(\d{2})", text.strip())
    if match is None or match.group(2).lower() not in _MONTHS:
        return None
    month = _MONTHS.index(match.group(2).lower()) + 1
    first, last = match.group(1), match.group(3)
    orders = [(first, last), (last, first)]  # year, day
    if len(last) == 4 or (len(first) != 4 and not year_first):
        orders.reverse()
    hour, minute, second = (int(match.group(i)) for i in (4, 5, 6))
    for year_text, day_text in orders:
        year = int(year_text) + (2000 if len(year_text) < 4 else 0)
        try:
            return datetime(year, month, int(day_text), hour, minute, second)
        except ValueError:
            continue
    return None
