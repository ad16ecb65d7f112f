"""MRC movies, stacks and images."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitriflow.errors import BadFile, Reason
from vitriflow.formats._mrc_header import HEADER_BYTES, MODE_4_BIT, MrcHeader, judge, parse_header
from vitriflow.formats._raw import RawFile
from vitriflow.formats.completeness import Completeness, State
from vitriflow.formats.movie import Movie


def check_mrc(raw: RawFile) -> Completeness:
    """Whether an MRC file is as long as its header announces."""
    header = parse_header(raw.read(0, HEADER_BYTES))
    return header if isinstance(header, Completeness) else judge(header, raw.size())


def read_header(raw: RawFile) -> MrcHeader:
    """Header of a complete MRC file.

    Raises
    ------
    BadFile
        When it isn't MRC, is too short or too long, or holds values that aren't images.
    """
    header = parse_header(raw.read(0, HEADER_BYTES))
    if isinstance(header, Completeness):
        raise header.as_error(raw.path)
    state = judge(header, raw.size())
    if state.state is not State.COMPLETE:
        raise state.as_error(raw.path)
    return header


class MrcMovie(Movie):
    """A movie or stack in MRC: modes 0 (signed, or unsigned with IMOD's flag), 1, 2, 6, 12 and 101."""

    format = "mrc"

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._raw = RawFile(path)
        try:
            self._header = read_header(self._raw)
        except BadFile:
            self._raw.close()
            raise
        self.shape = (self._header.height, self._header.width)
        self.dtype = self._header.dtype or self.dtype
        self.n_frames = self.n_raw_frames = self._header.n_frames
        self.pixel_size_A = self._header.pixel_size_A
        self.metadata = {f"label {i}": text for i, text in enumerate(self._header.labels)}

    def _read(self, index: int) -> NDArray[Any]:
        header = self._header
        offset = header.data_offset + index * header.frame_bytes
        if header.mode == MODE_4_BIT:
            packed = np.empty((header.height, header.row_bytes), np.uint8)
            self._fill(packed, offset, index)
            return _unpack_4_bit(packed, header.width)
        frame = np.empty(self.shape, self.dtype.newbyteorder(header.byte_order))
        self._fill(frame, offset, index)
        return frame if frame.dtype.isnative else frame.astype(self.dtype)

    def _fill(self, array: NDArray[Any], offset: int, index: int) -> None:
        view = array.reshape(-1).view(np.uint8).data
        n_read = self._raw.read_into(view, offset)
        if n_read < len(view):
            raise BadFile(
                Reason.CHANGED,
                str(self.path),
                expected=f"{len(view)} bytes for frame {index + 1} of {self.n_frames}",
                found=f"{n_read} bytes: the file became shorter while it was read",
                remedy="Copy it again from the source.",
            )

    def close(self) -> None:
        """Let go of the file."""
        self._raw.close()


def _unpack_4_bit(packed: NDArray[np.uint8], width: int) -> NDArray[np.uint8]:
    """Two pixels a byte, the first in the low four bits (IMOD mode 101)."""
    frame = np.empty((packed.shape[0], 2 * packed.shape[1]), np.uint8)
    frame[:, 0::2] = packed & 15
    frame[:, 1::2] = packed >> 4
    return np.ascontiguousarray(frame[:, :width])
