"""DigitalMicrograph files (.dm3, .dm4): the largest image inside, and its pixel size.

The file is a tree of named tags, big-endian but for the values. Source: Chris Boothroyd's
description of DM3 and DM4, http://www.er-c.org/cbb/info/dmformat/.
"""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitriflow.errors import BadFile, Reason
from vitriflow.formats._raw import RawFile

_VALUE_TYPES = {
    2: "i2", 3: "i4", 4: "u2", 5: "u4", 6: "f4", 7: "f8", 8: "u1", 9: "i1", 10: "u1", 11: "i8", 12: "u8",
}  # fmt: skip
_STRUCT, _STRING, _ARRAY = 15, 18, 20
_GROUP, _DATA, _END = 20, 21, 0
_DEEPEST = 64
_MOST_TAGS = 1_000_000
_KEPT_VALUES = 64  # longer arrays are only located, not read


class _Damaged(Exception):
    """The tree can't be followed any further."""


@dataclass(frozen=True)
class _Located:
    """An array of numbers that stays in the file until it's wanted."""

    offset: int
    count: int
    dtype: np.dtype[Any]


class _Reader:
    """Walks the tags of one file."""

    def __init__(self, raw: RawFile) -> None:
        self.raw = raw
        self.size = raw.size()
        self.at = 0
        self.n_tags = 0
        (version,) = self.unpack(">I")
        if version not in {3, 4}:
            raise _Damaged(f"its version is {version}, not 3 or 4")
        self.word = "Q" if version == 4 else "I"
        self.unpack(">" + self.word)
        (little,) = self.unpack(">I")
        self.order = "<" if little else ">"
        self.version = int(version)

    def take(self, n_bytes: int) -> bytes:
        data = self.raw.read(self.at, n_bytes)
        if len(data) < n_bytes:
            raise _Damaged("it ends in the middle of a tag")
        self.at += n_bytes
        return data

    def unpack(self, form: str) -> tuple[int, ...]:
        return struct.unpack(form, self.take(struct.calcsize(form)))

    def group(self, depth: int = 0) -> dict[str, Any]:
        if depth > _DEEPEST:
            raise _Damaged("its tags are nested too deep")
        _, _, n_tags = self.unpack(">BB" + self.word)
        found: dict[str, Any] = {}
        for position in range(n_tags):
            self.n_tags += 1
            if self.n_tags > _MOST_TAGS:
                raise _Damaged("it claims too many tags")
            kind, name_length = self.unpack(">BH")
            if kind == _END:
                break
            name = self.take(name_length).decode("latin-1") or str(position)
            if self.version == 4:
                self.unpack(">Q")
            if kind == _GROUP:
                found[name] = self.group(depth + 1)
            elif kind == _DATA:
                found[name] = self.value()
            else:
                raise _Damaged(f"tag '{name}' is of unknown kind {kind}")
        return found

    def value(self) -> Any:
        mark = self.take(4)
        (n_info,) = self.unpack(">" + self.word)
        if mark != b"%%%%" or not 1 <= n_info <= 4096:
            raise _Damaged("a tag's value doesn't begin with %%%%")
        info = self.unpack(f">{n_info}{self.word}")
        if info[0] == _ARRAY and n_info >= 3:
            return self.array(info[1:])
        if info[0] == _STRUCT:
            return [self.number(kind) for kind in info[4::2]]
        if info[0] == _STRING and n_info >= 2:
            self.skip(info[1])
            return None
        return self.number(info[0])

    def number(self, kind: int) -> Any:
        dtype = self.dtype(kind)
        return np.frombuffer(self.take(dtype.itemsize), dtype)[0].item()

    def dtype(self, kind: int) -> np.dtype[Any]:
        if kind not in _VALUE_TYPES:
            raise _Damaged(f"a value is of unknown type {kind}")
        return np.dtype(self.order + _VALUE_TYPES[kind])

    def array(self, info: tuple[int, ...]) -> Any:
        count = info[-1]
        if info[0] == _STRUCT:  # arrays of structures (colour tables, annotations) aren't needed
            self.skip(count * sum(self.dtype(kind).itemsize for kind in info[4:-1:2]))
            return None
        dtype = self.dtype(info[0])
        located = _Located(self.at, count, dtype)
        if count > _KEPT_VALUES:
            self.skip(count * dtype.itemsize)
            return located
        data = self.take(count * dtype.itemsize)
        if dtype.itemsize == 2 and dtype.kind == "u":  # short texts are stored like this
            return data.decode("utf-16-le" if self.order == "<" else "utf-16-be", "replace")
        return located

    def skip(self, n_bytes: int) -> None:
        if n_bytes > self.size - self.at:
            raise _Damaged("it ends in the middle of a tag's value")
        self.at += n_bytes


def read_dm(path: Path) -> tuple[NDArray[Any], float | None]:
    """The largest two-dimensional image of a .dm3 or .dm4 file, and its pixel size (A) or None.

    Row 0 of the file is the top of the picture; the array is flipped in y into MRC order, as
    IMOD's dm2mrc does.

    Raises
    ------
    BadFile
        When the file is damaged, cut short, or holds no image.
    """
    with RawFile(path) as raw:
        try:
            images = _Reader(raw).group().get("ImageList", {})
            found = [_image(entry) for entry in images.values() if isinstance(entry, dict)]
            best = max((image for image in found if image), key=lambda image: image[0].count, default=None)
            if best is None:
                raise _Damaged("it holds no two-dimensional image")
            located, height, width, size = best
            n_bytes = height * width * located.dtype.itemsize
            data = raw.read(located.offset, n_bytes)
            if len(data) < n_bytes:
                raise _Damaged("its image is cut short")
        except (_Damaged, struct.error, ValueError) as error:
            raise BadFile(
                Reason.UNREADABLE,
                str(path),
                expected="a DigitalMicrograph image (.dm3, .dm4)",
                found=str(error),
                remedy="Copy it again, or convert it to MRC with IMOD's dm2mrc.",
            ) from error
    array = np.frombuffer(data, located.dtype).reshape(height, width)
    return np.ascontiguousarray(array[::-1], dtype=located.dtype.newbyteorder("=")), size


def _image(entry: dict[str, Any]) -> tuple[_Located, int, int, float | None] | None:
    """Where an image of the list lies, and its height, width and pixel size."""
    block = entry.get("ImageData")
    if not isinstance(block, dict):
        return None
    located, dimensions = block.get("Data"), block.get("Dimensions")
    if not isinstance(located, _Located) or not isinstance(dimensions, dict):
        return None
    sides = [int(side) for side in dimensions.values() if isinstance(side, int)]
    if len(sides) < 2 or any(side != 1 for side in sides[2:]) or min(sides) < 1:
        return None
    width, height = sides[:2]
    if width * height != located.count:
        return None
    return located, height, width, _pixel_size_A(block)


def _pixel_size_A(block: dict[str, Any]) -> float | None:
    calibration = block.get("Calibrations")
    axes = calibration.get("Dimension") if isinstance(calibration, dict) else None
    first = next(iter(axes.values()), None) if isinstance(axes, dict) else None
    if not isinstance(first, dict):
        return None
    scale, unit = first.get("Scale"), first.get("Units")
    factor = {"nm": 10.0, "A": 1.0, "\u00c5": 1.0, "\u00b5m": 1e4, "um": 1e4}.get(unit or "")
    if factor is None or not isinstance(scale, float) or not scale > 0:
        return None
    return scale * factor
