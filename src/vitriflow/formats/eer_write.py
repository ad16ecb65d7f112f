"""EER written raw frame by raw frame: electron events as run lengths in a BigTIFF container.

Compression 65001: each event is 7 bits of empty pixels before it, then 2 bits of x and 2 bits
of y inside the pixel (both with the upper bit inverted); 127 empty pixels without an event are
7 bits alone. Bits fill bytes from the low end. Checked against imagecodecs and RELION 3.1.
Source: EER file format 3.0 (Thermo Fisher Scientific, 2023), as read by those two.
"""

import struct
from pathlib import Path
from types import TracebackType
from typing import Self
from xml.sax.saxutils import escape, quoteattr

import numpy as np
from numpy.typing import NDArray

from vitriflow.errors import BadParameter

SUB_PIXELS = 4
_INVERTED = 0b1010  # y and x are stored with their upper bits flipped
_COMPRESSION = 65001
_SHORT, _LONG, _LONG8, _UNDEFINED = 3, 4, 16, 7


def encode_events(
    positions: NDArray[np.int64], sub_pixels: NDArray[np.int64], n_pixels: int, skip_bits: int = 7
) -> bytes:
    """Encode the events of one raw frame.

    Parameters
    ----------
    positions
        Pixel of each event, ``y * width + x``, ascending and without repeats.
    sub_pixels
        ``4 * y + x`` inside the pixel, each 0 to 3.
    n_pixels
        Pixels of the frame.
    skip_bits
        Bits of a run length.
    """
    full = (1 << skip_bits) - 1
    ends = np.append(positions, n_pixels)
    gaps = np.diff(ends, prepend=-1) - 1
    n_full = gaps // full
    # Codes in order: for each gap its full runs, then the rest with (but for the last) a position.
    first = np.concatenate([[0], np.cumsum(n_full + 1)])
    n_codes = int(first[-1])
    codes = np.full(n_codes, full, np.int64)
    bits = np.full(n_codes, skip_bits, np.int64)
    event_at = first[1:] - 1
    codes[event_at] = gaps % full
    codes[event_at[:-1]] |= (sub_pixels ^ _INVERTED) << skip_bits
    bits[event_at[:-1]] += 4
    starts = np.cumsum(bits) - bits
    n_bits = int(starts[-1] + bits[-1])
    n_words = n_bits // 32 + 3  # a word to spare: RELION reads ahead
    word, shift = starts >> 5, starts & 31
    spread = codes << shift
    low = np.bincount(word, weights=spread & 0xFFFFFFFF, minlength=n_words)
    high = np.bincount(word + 1, weights=spread >> 32, minlength=n_words)
    # Codes don't overlap, so the sums are exact and below 2**32.
    return (low + high).astype(np.uint64).astype("<u4").tobytes()


class EerWriter:
    """Write an EER movie raw frame by raw frame; use it in a ``with`` block.

    EER isn't flipped in y: row 0 of the array is the first row of the stream, as in RELION.
    RELION reads only 4096 x 4096.

    Parameters
    ----------
    path
        Where to write; an existing file is replaced.
    shape
        ``(height, width)`` of the sensor in pixels.
    metadata
        Items for the acquisition metadata of the first page (``exposureTime``, ...).
    """

    def __init__(self, path: Path, shape: tuple[int, int], metadata: dict[str, str] | None = None) -> None:
        self.path = Path(path)
        self.shape = (int(shape[0]), int(shape[1]))
        self._metadata = metadata or {}
        self.n_written = 0
        self._file = self.path.open("wb")
        self._file.write(struct.pack("<2sHHHQ", b"II", 43, 8, 0, 0))
        self._link_at = 8
        self._file.flush()

    def write(self, frame: NDArray[np.generic]) -> None:
        """Append a raw frame of zeros and ones: the sensor's size, or four times as fine.

        On the sensor's grid events lie in the middle of their pixels. On the finer grid a pixel
        of the sensor can hold one event, as in the camera.

        Raises
        ------
        BadParameter
            When the shape is neither, or a pixel of the sensor holds more than one event.
        """
        frame = np.asarray(frame)
        height, width = self.shape
        if frame.shape == (height, width):
            y, x = np.nonzero(frame)
            y, x = y * SUB_PIXELS + 2, x * SUB_PIXELS + 2
        elif frame.shape == (height * SUB_PIXELS, width * SUB_PIXELS):
            y, x = np.nonzero(frame)
        else:
            raise BadParameter(
                f"a raw frame of {self.path.name}",
                expected=f"{height} x {width}, or four times as fine",
                found=f"{frame.shape}",
            )
        if frame.size and frame.max() > 1:
            raise BadParameter(
                f"a raw frame of {self.path.name}",
                expected="at most one event a pixel",
                found=f"{frame.max()}",
                remedy="Spread the electrons over more raw frames.",
            )
        self.write_events(y, x)

    def write_events(self, y: NDArray[np.integer], x: NDArray[np.integer]) -> None:
        """Append a raw frame from the positions of its events on the grid four times as fine.

        Raises
        ------
        BadParameter
            When an event lies outside, or two lie in one pixel of the sensor.
        """
        height, width = self.shape
        rows, columns = np.asarray(y, np.int64), np.asarray(x, np.int64)
        inside = (rows >= 0) & (rows < height * SUB_PIXELS) & (columns >= 0) & (columns < width * SUB_PIXELS)
        if not inside.all():
            raise BadParameter(f"events of {self.path.name}", "all inside the sensor", "some outside")
        positions = (rows // SUB_PIXELS) * width + columns // SUB_PIXELS
        order = np.argsort(positions, kind="stable")
        positions = positions[order]
        if (np.diff(positions) == 0).any():
            raise BadParameter(
                f"a raw frame of {self.path.name}",
                expected="at most one event in a pixel of the sensor",
                found="two",
                remedy="Spread the electrons over more raw frames.",
            )
        sub_pixels = ((rows % SUB_PIXELS) * SUB_PIXELS + columns % SUB_PIXELS)[order]
        self._append(encode_events(positions, sub_pixels, height * width))

    def _append(self, data: bytes) -> None:
        """Write the data, then the directory, and only then the link that makes the page count."""
        file = self._file
        data_at = file.seek(0, 2)
        file.write(data)
        height, width = self.shape
        entries = [
            (256, _LONG, 1, width),
            (257, _LONG, 1, height),
            (258, _SHORT, 1, 1),
            (259, _SHORT, 1, _COMPRESSION),
            (262, _SHORT, 1, 1),
            (273, _LONG8, 1, data_at),
            (277, _SHORT, 1, 1),
            (278, _LONG, 1, height),
            (279, _LONG8, 1, len(data)),
        ]
        if self.n_written == 0 and self._metadata:
            text = self._metadata_xml()
            entries.append((65001, _UNDEFINED, len(text), file.tell()))
            file.write(text)
        file.write(b"\0" * (-file.tell() % 8))
        directory_at = file.tell()
        packed = b"".join(struct.pack("<HHQQ", *entry) for entry in entries)
        file.write(struct.pack("<Q", len(entries)) + packed + struct.pack("<Q", 0))
        next_link_at = file.tell() - 8
        file.flush()
        file.seek(self._link_at)
        file.write(struct.pack("<Q", directory_at))
        file.flush()
        self._link_at = next_link_at
        self.n_written += 1

    def _metadata_xml(self) -> bytes:
        items = "".join(
            f"<item name={quoteattr(name)}>{escape(value)}</item>" for name, value in self._metadata.items()
        )
        return f"<metadata>{items}</metadata>".encode()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
