"""CTF results of other programs: ctffind 4 and 5 text files, and STAR tables as RELION writes them.

Numbers are read as they stand; :mod:`vitriflow.kernels.ctf_outside` says whether to believe them.
"""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitriflow.errors import BadFile, Reason
from vitriflow.formats._raw import RawFile
from vitriflow.formats.star import read_star
from vitriflow.kernels.ctf_outside import OutsideCtf

_LARGEST = 64 * 1024**2
_NUMBER = r"([-+0-9.eE]+)"
_OPTICS = {
    "pixel_size_A": re.compile(rf"Pixel size:\s*{_NUMBER}", re.I),
    "voltage_kV": re.compile(rf"acceleration voltage:\s*{_NUMBER}", re.I),
    "cs_mm": re.compile(rf"spherical aberration:\s*{_NUMBER}", re.I),
    "amplitude_contrast": re.compile(rf"amplitude contrast:\s*{_NUMBER}", re.I),
}
_INPUT = re.compile(r"Input file:\s*(.+?)\s*;")
_COLUMN = re.compile(r"#(\d+)\s*-\s*([^;]+)")
# what ctffind's own header calls its columns, by the words that tell them apart
_WORDS = {
    "defocus 1": "defocus_u_A",
    "defocus 2": "defocus_v_A",
    "azimuth": "angle_deg",
    "phase shift": "phase_rad",
    "cross correlation": "cross_correlation",
    "score": "cross_correlation",
    "spacing": "resolution_A",
    "tilt axis": "tilt_axis_deg",
    "tilt angle": "tilt_deg",
}
_PLAIN = (
    "number",
    "defocus_u_A",
    "defocus_v_A",
    "angle_deg",
    "phase_rad",
    "cross_correlation",
    "resolution_A",
)
_STAR = {
    "defocus_u_A": "rlnDefocusU",
    "defocus_v_A": "rlnDefocusV",
    "angle_deg": "rlnDefocusAngle",
    "phase_deg": "rlnPhaseShift",
    "cross_correlation": "rlnCtfFigureOfMerit",
    "resolution_A": "rlnCtfMaxResolution",
}
_STAR_OPTICS = {
    "pixel_size_A": ("rlnMicrographPixelSize", "rlnMicrographOriginalPixelSize"),
    "voltage_kV": ("rlnVoltage",),
    "cs_mm": ("rlnSphericalAberration",),
    "amplitude_contrast": ("rlnAmplitudeContrast",),
}


@dataclass(frozen=True)
class Avrot:
    """Curves of ctffind's ``_avrot.txt``, all of one length.

    Attributes
    ----------
    spatial_frequency_per_A
        In 1/A.
    spectrum, fit, correlation
        Equiphase average, squared CTF, and their correlation where the file has it.
    """

    spatial_frequency_per_A: list[float]
    spectrum: list[float]
    fit: list[float]
    correlation: list[float]


def looks_like_ctffind(head: str) -> bool:
    """Whether a text begins as ctffind's own output does."""
    return head.lstrip().lower().startswith("# output from ctffind")


def looks_like_ctf_table(columns: Iterable[object]) -> bool:
    """Whether a STAR block holds a CTF for each micrograph (not for particles)."""
    names = set(map(str, columns))
    return {"rlnDefocusU", "rlnDefocusV"} <= names and "rlnCoordinateX" not in names


def read_ctf_results(path: Path) -> list[OutsideCtf]:
    """Read the CTF results of another program.

    Parameters
    ----------
    path
        A ctffind ``.txt``, a STAR with ``rlnDefocusU`` and so on (RELION's ``micrographs_ctf.star``, or
        cryoSPARC's results converted to STAR), or a folder of these. ``_avrot.txt`` files are passed over.

    Returns
    -------
    list of OutsideCtf
        At least one, in the order of the files' names and of the rows.

    Raises
    ------
    BadFile
        When there is no such result there, or a number in it can't be one.
    """
    path = Path(path)
    if path.is_dir():
        names = sorted(path.glob("*.txt")) + sorted(path.glob("*.star"))
        found = [ctf for name in names if _is_result(name) for ctf in read_ctf_results(name)]
        if not found:
            raise BadFile(
                Reason.METADATA_MISSING,
                str(path),
                "ctffind's .txt files, or a STAR with rlnDefocusU",
                f"{len(names)} text and STAR files, none of them a CTF result",
                "Name the folder that the CTF job wrote (CtfFind/job005/Movies, say).",
            )
        return found
    return _from_star(path) if path.suffix.lower() == ".star" else _from_text(path)


def _is_result(path: Path) -> bool:
    if path.suffix == ".star":
        try:
            return any(looks_like_ctf_table(block) for block in read_star(path).values())
        except BadFile:
            return False  # a folder may hold other files, broken ones too
    if path.stem.endswith("_avrot"):
        return False
    with RawFile(path) as raw:
        return looks_like_ctffind(raw.read(0, min(raw.size(), 200)).decode("utf-8", "replace"))


def _text(path: Path) -> list[str]:
    with RawFile(path) as raw:
        data = raw.read(0, min(raw.size(), _LARGEST))
    if not data.strip():
        raise BadFile(Reason.EMPTY, str(path), "ctffind's output", "an empty file", "Did ctffind stop early?")
    return data.decode("utf-8", "replace").splitlines()


def _broken(path: Path, expected: str, found: str) -> BadFile:
    return BadFile(
        Reason.METADATA_BROKEN, str(path), expected, found, "Run ctffind again, or leave the file out."
    )


def _numbers(path: Path, line: str, where: str) -> list[float]:
    try:
        return [float(word) for word in line.split()]
    except ValueError as error:
        raise _broken(path, f"numbers in {where}", repr(line[:80])) from error


def _from_text(path: Path) -> list[OutsideCtf]:
    lines = _text(path)
    comments = [line for line in lines if line.startswith("#")]
    rows = [line for line in lines if line.strip() and not line.startswith("#")]
    header = "\n".join(comments)
    if not looks_like_ctffind(header):
        raise _broken(path, "a text that begins with '# Output from CTFFind'", repr(lines[0][:60]))
    if "6 lines per micrograph" in header:
        raise _broken(
            path,
            "ctffind's table of defoci",
            "ctffind's curves (_avrot.txt): the table is the .txt beside it",
        )
    if not rows:
        raise _broken(path, "a row of numbers", "the header alone")
    optics: dict[str, float] = {}
    for name, pattern in _OPTICS.items():
        said = pattern.search(header)
        if said:
            optics[name] = _numbers(path, said.group(1), name)[0]
    source = _INPUT.search(header)
    base = Path(source.group(1)).stem if source else path.stem
    columns = _columns(header)
    results = []
    for number, row in enumerate(rows, 1):
        values = _numbers(path, row, f"row {number}")
        if len(values) < 6:
            raise _broken(path, "at least 6 numbers a row", f"{len(values)} in row {number}")
        named = dict(zip(columns, values, strict=False))
        named["phase_deg"] = math.degrees(named.pop("phase_rad", 0.0))
        name = base if len(rows) == 1 else f"{base}_{number}"
        results.append(_checked(path, name, named, optics))
    return results


def _columns(header: str) -> list[str]:
    """What each column is, from the header's own words."""
    line = next((text for text in header.splitlines() if "Columns:" in text), "")
    found = {}
    for number, words in _COLUMN.findall(line):
        key = next((name for word, name in _WORDS.items() if word in words.lower()), f"other {number}")
        found[int(number)] = key
    if not found:
        return list(_PLAIN)
    return [found.get(number, f"other {number}") for number in range(1, max(found) + 1)]


def _checked(
    path: Path, name: str, named: Mapping[str, float | None], optics: Mapping[str, float]
) -> OutsideCtf:
    """One result, U the larger, its numbers finite."""
    for key in ("defocus_u_A", "defocus_v_A", "angle_deg"):
        value = named.get(key)
        if value is None or not math.isfinite(value):
            raise _broken(path, f"a finite {key} for {name}", "nothing" if value is None else f"{value}")
    u, v = float(named["defocus_u_A"] or 0.0), float(named["defocus_v_A"] or 0.0)
    angle = float(named["angle_deg"] or 0.0)
    if v > u:  # the same ellipse, told by its other axis
        u, v, angle = v, u, angle + 90.0

    def finite(key: str) -> float | None:
        value = named.get(key)
        return float(value) if value is not None and math.isfinite(value) and value < 1e6 else None

    resolution = finite("resolution_A")
    return OutsideCtf(
        name=name,
        defocus_u_A=u,
        defocus_v_A=v,
        angle_deg=(angle + 90.0) % 180.0 - 90.0,
        phase_deg=finite("phase_deg") or 0.0,
        cross_correlation=finite("cross_correlation"),
        resolution_A=resolution if resolution is not None and resolution > 0 else None,
        tilt_deg=finite("tilt_deg"),
        tilt_axis_deg=finite("tilt_axis_deg"),
        **{key: value for key, value in optics.items() if math.isfinite(value)},
    )


def _from_star(path: Path) -> list[OutsideCtf]:
    blocks = read_star(path)
    tables = [block for block in blocks.values() if looks_like_ctf_table(block)]
    if not tables:
        raise BadFile(
            Reason.METADATA_MISSING,
            str(path),
            "a table of micrographs with rlnDefocusU and rlnDefocusV",
            "data_" + ", data_".join(blocks),
            "Name the micrographs' STAR of a CTF job (micrographs_ctf.star).",
        )
    groups = _optics_groups(blocks.get("optics"))
    results = []
    for row in _rows(tables[0]):
        optics = groups.get(str(row.get("rlnOpticsGroup", "")), {}) | _optics_of(row)
        named = {key: _maybe(path, row.get(label)) for key, label in _STAR.items()}
        name = Path(str(row.get("rlnMicrographName", path.stem))).stem
        results.append(_checked(path, name, named, optics))
    return results


def _rows(block: Any) -> list[dict[str, Any]]:
    return [block] if isinstance(block, dict) else block.to_dict("records")


def _maybe(path: Path, value: Any) -> float | None:
    if value is None:
        return None
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise _broken(path, "numbers in the columns of the CTF", repr(value)) from error


def _optics_of(row: Mapping[str, Any]) -> dict[str, float]:
    found = {}
    for key, labels in _STAR_OPTICS.items():
        for label in labels:
            if isinstance(row.get(label), int | float):
                found[key] = float(row[label])
                break
    return found


def _optics_groups(block: Any) -> dict[str, dict[str, float]]:
    if block is None:
        return {}
    return {str(row.get("rlnOpticsGroup", "")): _optics_of(row) for row in _rows(block)}


def read_avrot(path: Path) -> Avrot:
    """Read the curves that ctffind writes beside its numbers (``_avrot.txt``), of the first micrograph.

    Raises
    ------
    BadFile
        When they aren't six lines of equally many numbers.
    """
    path = Path(path)
    lines = [line for line in _text(path) if line.strip() and not line.startswith("#")]
    if len(lines) < 6:
        raise _broken(path, "6 lines of curves a micrograph", f"{len(lines)} lines of numbers")
    curves = [_numbers(path, line, f"line {number}") for number, line in enumerate(lines[:6], 1)]
    lengths = sorted({len(curve) for curve in curves})
    if len(lengths) > 1:
        raise _broken(path, "curves of one length", f"lengths from {lengths[0]} to {lengths[-1]}")
    return Avrot(curves[0], curves[2], curves[3], curves[4])
