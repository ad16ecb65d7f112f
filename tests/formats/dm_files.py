"""Writes small DigitalMicrograph files for tests, from the description of the format."""

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

CODES = {"int16": 2, "int32": 3, "uint16": 4, "uint32": 5, "float32": 6, "float64": 7, "uint8": 10}


class DmBytes:
    """Builds the bytes of a .dm3 (version 3) or .dm4 (version 4) file."""

    def __init__(self, version: int = 4, little: bool = True) -> None:
        self.version = version
        self.word = "Q" if version == 4 else "I"
        self.order = "<" if little else ">"
        self.little = little

    def words(self, *values: int) -> bytes:
        return struct.pack(f">{len(values)}{self.word}", *values)

    def value(self, value: Any) -> bytes:
        if isinstance(value, str):
            text = value.encode("utf-16-le" if self.little else "utf-16-be")
            return b"%%%%" + self.words(3, 20, 4, len(value)) + text
        if isinstance(value, np.ndarray):
            code = CODES[value.dtype.name]
            data = value.astype(value.dtype.newbyteorder(self.order)).tobytes()
            return b"%%%%" + self.words(3, 20, code, value.size) + data
        if isinstance(value, tuple):  # a structure of two float32
            head = b"%%%%" + self.words(7, 15, 0, 2, 0, 6, 0, 6)
            return head + struct.pack(self.order + "2f", *value)
        if isinstance(value, float):
            return b"%%%%" + self.words(1, 6) + struct.pack(self.order + "f", value)
        return b"%%%%" + self.words(1, 5) + struct.pack(self.order + "I", value)

    def tag(self, name: str, value: Any) -> bytes:
        body = self.group(value) if isinstance(value, dict) else self.value(value)
        length = self.words(len(body)) if self.version == 4 else b""
        kind = 20 if isinstance(value, dict) else 21
        return struct.pack(">BH", kind, len(name)) + name.encode("latin-1") + length + body

    def group(self, tags: dict[str, Any]) -> bytes:
        # Names that are numbers stand for tags without a name, as in lists.
        body = b"".join(self.tag("" if name.isdigit() else name, value) for name, value in tags.items())
        return struct.pack(">BB", 1, 0) + self.words(len(tags)) + body

    def file(self, image: NDArray[Any], unit: str = "nm", scale: float = 0.05) -> bytes:
        """A file with a small thumbnail first and the image second, as DigitalMicrograph writes."""

        def block(array: NDArray[Any]) -> dict[str, Any]:
            axis = {"Origin": 0.0, "Scale": scale, "Units": unit}
            return {
                "ImageData": {
                    "Calibrations": {"Dimension": {"0": axis, "1": axis}},
                    "Data": array.ravel(),
                    "DataType": 2,
                    "Dimensions": {"0": array.shape[1], "1": array.shape[0]},
                    "PixelDepth": 4,
                }
            }

        thumbnail = np.zeros((8, 12), np.uint8)
        tree = {
            "ApplicationBounds": (1.0, 2.0),
            "ImageList": {"0": block(thumbnail), "1": block(image)},
        }
        body = self.group(tree)
        head = struct.pack(">I", self.version) + self.words(len(body)) + struct.pack(">I", self.little)
        return head + body + bytes(8)
