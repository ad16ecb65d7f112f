"""XML that EPU and Tomo 5 write beside a movie, turned from SI units into ours."""

import math
import xml.parsers.expat
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

from vitriflow.errors import BadFile, Reason
from vitriflow.formats._raw import RawFile
from vitriflow.formats._xml import parse_xml
from vitriflow.formats.exposure import ExposureMetadata, names_from_path
from vitriflow.units import ANGSTROM_PER_M, dose_per_A2_from_SI

_LARGEST = 64 * 1024 * 1024
_UM_PER_M = 1e6


def read_epu_xml(path: Path) -> ExposureMetadata:
    """Read ``*.xml`` (MicroscopeImage) or ``*_Fractions.xml`` (Acquisition) of EPU or Tomo 5.

    Raises
    ------
    BadFile
        ``metadata.broken`` with the line when it isn't well formed or declares entities, or
        when it is XML of another kind; ``file.empty``; or why it can't be read.
    """
    path = Path(path)
    with RawFile(path) as raw:
        data = raw.read(0, min(raw.size(), _LARGEST + 1))
    if not data.strip(b"\0 \r\n\t"):
        raise BadFile(
            Reason.EMPTY, str(path), "EPU metadata in XML", "nothing yet", "Wait, or copy it again."
        )
    try:
        root = parse_xml(data)
    except xml.parsers.expat.ExpatError as error:
        raise _broken(path, f"line {error.lineno}: {xml.parsers.expat.ErrorString(error.code)}") from error
    except ValueError as error:
        raise _broken(path, str(error)) from error
    if root.tag == "MicroscopeImage":
        found = _microscope_image(root)
    elif root.tag == "Acquisition":
        found = _acquisition(root)
    else:
        raise _broken(path, f"XML whose first element is '{root.tag}'")
    found.source = str(path)
    for name, value in names_from_path(path).items():
        setattr(found, name, value)
    return found


def _broken(path: Path, found: str) -> BadFile:
    return BadFile(
        Reason.METADATA_BROKEN,
        str(path),
        expected="EPU metadata: XML with MicroscopeImage or Acquisition",
        found=found,
        remedy="If the microscope is still writing it, try again; else copy it again.",
    )


class _Fields:
    """Collects values, and a sentence for each that can't be understood."""

    def __init__(self, root: Element) -> None:
        self.root = root
        self.values: dict[str, Any] = {}
        self.problems: list[str] = []
        self.extra = _key_values(root)

    def put(self, name: str, text: str | None, convert: Callable[[str], Any], where: str) -> None:
        if text is None or not text.strip():
            return
        try:
            self.values[name] = convert(text.strip())
        except (ValueError, OverflowError):
            self.problems.append(f"{where} says {text.strip()[:60]!r}, which isn't what belongs there")

    def at(self, name: str, where: str, convert: Callable[[str], Any]) -> None:
        """Take the text at a path of element names."""
        self.put(name, self.root.findtext(where), convert, where)

    def key(self, name: str, key: str, convert: Callable[[str], Any]) -> None:
        """Take the value of a key of the CustomData or CameraSpecificInput lists."""
        self.put(name, self.extra.get(key), convert, key)

    def pair(self, name: str, where: str) -> None:
        """Take x and y below a path."""
        x, y = self.root.findtext(f"{where}/_x"), self.root.findtext(f"{where}/_y")
        if x is not None and y is not None:
            self.put(name, f"{x} {y}", _two_numbers, where)

    def done(self) -> ExposureMetadata:
        return ExposureMetadata(**self.values, problems=self.problems)


def _key_values(root: Element) -> dict[str, str]:
    found: dict[str, str] = {}
    for entry in root.iter("KeyValueOfstringanyType"):
        key, value = entry.findtext("Key"), entry.find("Value")
        if key and value is not None and len(value) == 0:
            found[key] = value.text or ""
    return found


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


def _positive(text: str) -> float:
    value = _number(text)
    if value <= 0:
        raise ValueError(text)
    return value


def _two_numbers(text: str) -> tuple[float, float]:
    x, y = text.split()
    return _number(x), _number(y)


def _truth(text: str) -> bool:
    if text.lower() not in {"true", "false"}:
        raise ValueError(text)
    return text.lower() == "true"


def _microscope_image(root: Element) -> ExposureMetadata:
    fields = _Fields(root)
    data = "microscopeData"
    camera = f"{data}/acquisition/camera"
    fields.at(
        "pixel_size_A", "SpatialScale/pixelSize/x/numericValue", lambda t: _positive(t) * ANGSTROM_PER_M
    )
    fields.at("voltage_kV", f"{data}/gun/AccelerationVoltage", lambda t: _positive(t) / 1e3)
    fields.at("nominal_magnification", f"{data}/optics/TemMagnification/NominalMagnification", _positive)
    fields.at("exposure_time_s", f"{camera}/ExposureTime", _positive)
    fields.at("binning", f"{camera}/Binning/x", _positive)
    fields.at("camera", f"{camera}/Name", str)
    fields.at("image_width", f"{camera}/ReadoutArea/width", int)
    fields.at("image_height", f"{camera}/ReadoutArea/height", int)
    fields.at("acquired_at", f"{data}/acquisition/acquisitionDateTime", datetime.fromisoformat)
    fields.at("software", f"{data}/core/ApplicationSoftware", str)
    fields.at("software_version", f"{data}/core/ApplicationSoftwareVersion", str)
    fields.at("microscope", f"{data}/instrument/InstrumentModel", str)
    for name, axis in (("stage_x_um", "X"), ("stage_y_um", "Y"), ("stage_z_um", "Z")):
        fields.at(name, f"{data}/stage/Position/{axis}", lambda t: _number(t) * _UM_PER_M)
    fields.at("stage_alpha_deg", f"{data}/stage/Position/A", lambda t: math.degrees(_number(t)))
    fields.pair("beam_shift", f"{data}/optics/BeamShift")
    fields.pair("image_shift", f"{data}/optics/ImageShift")
    fields.pair("beam_tilt", f"{data}/optics/BeamTilt")
    fields.key("dose_e_per_A2", "Dose", lambda t: dose_per_A2_from_SI(_positive(t)))
    fields.key("dose_on_camera_e_per_px", "DoseOnCamera", _positive)
    fields.key("phase_plate_used", "PhasePlateUsed", _truth)
    fields.key("detector", "BinaryResult.Detector", str)
    # EPU writes underfocus as negative metres; "+ 0.0" keeps a zero from becoming minus zero.
    fields.key("nominal_defocus_A", "AppliedDefocus", lambda t: -_number(t) * ANGSTROM_PER_M + 0.0)
    fields.key("super_resolution_factor", "SuperResolutionFactor", int)
    _energy_filter(fields, f"{data}/optics/EnergyFilter")
    _fractions(fields)
    return fields.done()


def _energy_filter(fields: _Fields, where: str) -> None:
    element = fields.root.find(where)
    if element is None:
        return
    inserted = next((element.findtext(n) for n in ("EnergySelectionSlitInserted", "SlitInserted")), None)
    if inserted is not None and inserted.strip().lower() == "false":
        return
    for name in ("EnergySelectionSlitWidth", "SlitWidth"):
        if (text := element.findtext(name)) is not None:
            fields.put("energy_slit_eV", text, _number, f"{where}/{name}")
            return


def _fractions(fields: _Fields) -> None:
    """Fractions as planned, in the camera's own settings."""
    definitions = [
        (_whole(entry.findtext("StartFrameNumber")), _whole(entry.findtext("EndFrameNumber")))
        for entry in fields.root.iter("anyType")
        if entry.find("StartFrameNumber") is not None
    ]
    spans = [end - start + 1 for start, end in definitions if start is not None and end is not None]
    if len(spans) == len(definitions):
        _count_fractions(fields, spans)
    else:
        fields.problems.append("the list of dose fractions can't be understood")
    element = next(fields.root.iter("NumberOffractions"), None)  # EPU with K3 and newer Falcons
    if not definitions and element is not None:
        fields.put("n_fractions", element.text, int, "NumberOffractions")


def _count_fractions(fields: _Fields, spans: list[int]) -> None:
    if not spans:
        return
    fields.values["n_fractions"] = len(spans)
    fields.values["n_raw_frames"] = sum(spans)
    if len(set(spans)) == 1:
        fields.values["frames_per_fraction"] = spans[0]
    dose = fields.values.get("dose_e_per_A2")
    if dose is not None:
        fields.values["dose_per_frame_e_per_A2"] = dose / len(spans)


def _whole(text: str | None) -> int | None:
    try:
        return int(text) if text is not None else None
    except ValueError:
        return None


def _acquisition(root: Element) -> ExposureMetadata:
    """``_Fractions.xml``: what the camera really recorded."""
    fields = _Fields(root)
    fields.at("detector", "Info/Detector", str)
    fields.at("image_width", "Info/RegionOfInterest/Width", int)
    fields.at("image_height", "Info/RegionOfInterest/Height", int)
    fields.at("binning", "Info/Binning", _positive)
    fields.at("acquired_at", "Info/DateTimeWithTimeZone", datetime.fromisoformat)
    frames = [_whole(entry.findtext("NumberOfFrames")) for entry in root.iterfind("Fractions/Fraction")]
    spans = [count for count in frames if count is not None]
    _count_fractions(fields, spans)
    times = [entry.findtext("ExposureTime") for entry in root.iterfind("Fractions/Fraction")]
    try:
        seconds = [_positive(text) for text in times if text]
        fields.values.update({"exposure_time_s": sum(seconds)} if seconds else {})
    except ValueError:
        fields.problems.append("the exposure time of a fraction can't be understood")
    expected = _whole(root.findtext("Info/ExpectedNumberOfFractions"))
    if expected is not None and spans and expected != len(spans):
        fields.problems.append(f"{expected} fractions were expected and {len(spans)} recorded")
    bad = [
        e.findtext("Index")
        for e in root.iterfind("Fractions/Fraction")
        if e.findtext("Checksum") == "Invalid"
    ]
    if bad:
        fields.problems.append(
            f"the camera calls the checksum of fraction {', '.join(map(str, bad))} invalid"
        )
    return fields.done()
