"""The 1024-byte header of MRC files, read with suspicion: the file may be half-written.

Source: https://www.ccpem.ac.uk/mrc_format/mrc2014.php; IMOD's additions (unsigned bytes in mode
0, 4-bit mode 101): https://bio3d.colorado.edu/imod/doc/mrc_format.txt.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from mrcfile.dtypes import HEADER_DTYPE

from vitriflow.errors import Reason
from vitriflow.formats.completeness import Completeness, State, broken, growing

HEADER_BYTES = 1024
IMOD_STAMP = 1146047817  # the letters IMOD
MODE_4_BIT = 101
MODES: dict[int, Any] = {0: np.int8, 1: np.int16, 2: np.float32, 6: np.uint16, 12: np.float16}
_KNOWN_MODES = {*MODES, 3, 4, MODE_4_BIT}
_LARGEST_SIDE = 100_000
_LARGEST_STACK = 10_000_000
_LARGEST_EXTENDED = 1 << 30


@dataclass(frozen=True)
class MrcHeader:
    """What we need of an MRC header.

    ``dtype`` is None for modes that we don't read. ``byte_order`` is ``<`` or ``>``.
    """

    width: int
    height: int
    n_frames: int
    mode: int
    dtype: np.dtype[Any] | None
    byte_order: Literal["<", ">"]
    data_offset: int
    pixel_size_A: float | None
    has_map_id: bool
    is_volume: bool
    labels: tuple[str, ...]
    extended_type: str

    @property
    def row_bytes(self) -> int:
        """Bytes of one row; rows of 4-bit files are padded to whole bytes."""
        if self.mode == MODE_4_BIT:
            return (self.width + 1) // 2
        item = 4 if self.mode == 3 else 8 if self.mode == 4 else np.dtype(MODES[self.mode]).itemsize
        return self.width * item

    @property
    def frame_bytes(self) -> int:
        """Bytes of one frame."""
        return self.row_bytes * self.height

    @property
    def file_bytes(self) -> int:
        """Bytes of the whole file as the header announces it."""
        return self.data_offset + self.frame_bytes * self.n_frames


def _sane(record: Any) -> bool:
    """Whether the numbers that place the data make sense in this byte order."""
    return (
        int(record["mode"]) in _KNOWN_MODES
        and 0 < int(record["nx"]) <= _LARGEST_SIDE
        and 0 < int(record["ny"]) <= _LARGEST_SIDE
        and 0 <= int(record["nz"]) <= _LARGEST_STACK
        and 0 <= int(record["nsymbt"]) <= _LARGEST_EXTENDED
    )


def _pixel_size_A(record: Any) -> float | None:
    n_cells = int(record["mx"])
    length = float(record["cella"]["x"])
    if n_cells <= 0 or not math.isfinite(length):
        return None
    size = length / n_cells
    return size if 1e-3 < size < 1e5 else None


def _dtype(record: Any, byte_order: str) -> np.dtype[Any] | None:
    mode = int(record["mode"])
    if mode == MODE_4_BIT:
        return np.dtype(np.uint8)
    if mode not in MODES:
        return None
    if mode == 0:
        stamp, flags = np.frombuffer(record["extra2"].tobytes(), dtype=f"{byte_order}i4", count=12)[10:12]
        unsigned = int(stamp) == IMOD_STAMP and not int(flags) & 1
        return np.dtype(np.uint8 if unsigned else np.int8)
    plain: np.dtype[Any] = np.dtype(MODES[mode])
    return plain


def _labels(record: Any) -> tuple[str, ...]:
    n_labels = max(0, min(10, int(record["nlabl"])))
    texts = (bytes(label).decode("ascii", "replace").strip("\0 ") for label in record["label"][:n_labels])
    return tuple(text for text in texts if text)


def parse_header(data: bytes) -> MrcHeader | Completeness:
    """Read the first 1024 bytes of a file that should be MRC.

    Returns
    -------
    The header, or what is wrong: ``growing`` while there is too little, ``broken`` when the
    numbers can't be those of an MRC file.
    """
    if len(data) == 0:
        return growing("is empty", reason=Reason.EMPTY)
    if len(data) < HEADER_BYTES:
        return growing(f"holds {len(data)} of the 1024 bytes of an MRC header")
    if not any(data):
        return growing("its header is still all zeros")
    for byte_order in ("<", ">"):
        record = np.frombuffer(data, dtype=HEADER_DTYPE.newbyteorder(byte_order), count=1)[0]
        if _sane(record):
            break
    else:
        return _explain(data)
    axes = tuple(int(record[name]) for name in ("mapc", "mapr", "maps"))
    if axes not in {(1, 2, 3), (0, 0, 0)}:
        return broken(Reason.UNSUPPORTED, f"its axes are stored in the order {axes}, not x, y, z (1, 2, 3)")
    if int(record["nz"]) == 0:
        return growing("its header announces no frames yet")
    return MrcHeader(
        width=int(record["nx"]),
        height=int(record["ny"]),
        n_frames=int(record["nz"]),
        mode=int(record["mode"]),
        dtype=_dtype(record, byte_order),
        byte_order="<" if byte_order == "<" else ">",
        data_offset=HEADER_BYTES + int(record["nsymbt"]),
        pixel_size_A=_pixel_size_A(record),
        has_map_id=bytes(record["map"])[:3] == b"MAP",
        is_volume=int(record["ispg"]) == 1 and int(record["nz"]) == int(record["nx"]),
        labels=_labels(record),
        extended_type=bytes(record["exttyp"]).decode("ascii", "replace").strip("\0 "),
    )


def _explain(data: bytes) -> Completeness:
    """Say which number of a header that makes no sense is wrong."""
    if data[208:211] != b"MAP":
        return broken(Reason.UNREADABLE, "isn't an MRC file: the letters MAP aren't at byte 208")
    record = np.frombuffer(data, dtype=HEADER_DTYPE.newbyteorder("<"), count=1)[0]
    names = ("nx", "ny", "nz", "mode", "nsymbt")
    numbers = ", ".join(f"{name} = {int(record[name])}" for name in names)
    return broken(Reason.UNREADABLE, f"its MRC header makes no sense: {numbers}")


def judge(header: MrcHeader, size: int) -> Completeness:
    """Compare the size of a file with what its header announces."""
    shape = (header.height, header.width)
    if header.dtype is None:
        text = f"holds values of MRC mode {header.mode} (complex), which aren't images"
        return broken(Reason.UNSUPPORTED, text, header.n_frames)
    plural = "frame" if header.n_frames == 1 else "frames"
    if size < header.file_bytes:
        there = max(0, size - header.data_offset) / header.frame_bytes
        there = min(math.floor(there * 10) / 10, header.n_frames - 0.1)  # never rounded up to "all"
        text = f"holds {there:.1f} of the {header.n_frames} {plural} that its header announces"
        return growing(text, header.n_frames, shape)
    if size > header.file_bytes:
        extra = size - header.file_bytes
        text = (
            f"is {extra} bytes longer than the {header.n_frames} {plural} of "
            f"{header.width} x {header.height} that its header announces"
        )
        return broken(Reason.WRONG_SIZE, text, header.n_frames)
    text = f"holds all {header.n_frames} {plural} of {header.width} x {header.height}"
    return Completeness(State.COMPLETE, None, text, header.n_frames, shape)
