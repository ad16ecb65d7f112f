"""The chain of directories in a TIFF or BigTIFF file, walked without decoding a pixel.

Made for files that are being written: the walk says where the chain stops and why, and never
believes a number that it didn't check. Source: TIFF 6.0 (1992), and BigTIFF as in libtiff.
"""

import struct
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitriflow.errors import Reason
from vitriflow.formats._raw import RawFile
from vitriflow.formats.completeness import Completeness, State, broken, growing

WIDTH, HEIGHT, BITS, COMPRESSION = 256, 257, 258, 259
STRIP_OFFSETS, SAMPLES, ROWS_PER_STRIP, STRIP_BYTES = 273, 277, 278, 279
X_RESOLUTION, RESOLUTION_UNIT, PREDICTOR = 282, 296, 317
TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_BYTES, SAMPLE_FORMAT = 322, 323, 324, 325, 339
MAGICS = {b"II*\0": ("<", False), b"MM\0*": (">", False), b"II+\0": ("<", True), b"MM\0+": (">", True)}

# Type code -> (bytes, numpy type). 5 and 10 are rationals: two numbers each.
_TYPES: dict[int, tuple[int, str]] = {
    1: (1, "u1"), 2: (1, "u1"), 3: (2, "u2"), 4: (4, "u4"), 5: (8, "u4"), 6: (1, "i1"), 7: (1, "u1"),
    8: (2, "i2"), 9: (4, "i4"), 10: (8, "i4"), 11: (4, "f4"), 12: (8, "f8"), 13: (4, "u4"),
    16: (8, "u8"), 17: (8, "i8"), 18: (8, "u8"),
}  # fmt: skip
_MOST_TAGS = 4096
_MOST_VALUES = 16_000_000
_MOST_PAGES = 1_000_000
_BLOCK = 2048
_MOST_PIXELS = 1 << 32
_MOST_IN_TILE = 1 << 26
_LAYOUT_TAGS = (
    WIDTH, HEIGHT, BITS, COMPRESSION, SAMPLES, ROWS_PER_STRIP, PREDICTOR, TILE_WIDTH, TILE_HEIGHT,
    SAMPLE_FORMAT,
)  # fmt: skip


class _Stop(Exception):
    """The walk can't go on; carries what to say."""

    def __init__(self, verdict: Completeness) -> None:
        super().__init__(verdict.text)
        self.verdict = verdict


@dataclass(frozen=True)
class Tag:
    """One entry of a directory; its value lies at ``offset`` in the file."""

    kind: int
    count: int
    offset: int


@dataclass
class Page:
    """One directory: an image and where its data lie."""

    number: int
    tags: dict[int, Tag]
    layout: tuple[int, ...] = ()
    width: int = 0
    height: int = 0
    compression: int = 1
    offsets: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    sizes: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))


class TiffChain:
    """All directories of a file, and how the chain ends.

    Attributes
    ----------
    pages
        The whole pages: directory readable and all data inside the file.
    verdict
        ``complete`` when the chain closes and every piece of data lies inside the file.
    """

    def __init__(self, raw: RawFile, max_pages: int = _MOST_PAGES) -> None:
        self.raw = raw
        self.size = raw.size()
        self.pages: list[Page] = []
        self.byte_order = "<"
        self.big = False
        self.cut = False
        self._block_at = 0
        self._block = b""
        try:
            self._walk(max_pages)
            self.verdict = self._complete()
        except _Stop as stop:
            self.verdict = stop.verdict

    def _complete(self) -> Completeness:
        first = self.pages[0]
        n_pages = len(self.pages)
        text = f"holds {n_pages} pages of {first.width} x {first.height}; its chain of pages is closed"
        return Completeness(State.COMPLETE, None, text, n_pages, (first.height, first.width))

    def _shape(self) -> tuple[int, int] | None:
        return (self.pages[0].height, self.pages[0].width) if self.pages else None

    def _growing(self, text: str) -> _Stop:
        n_pages = len(self.pages)
        whole = f"; the {n_pages} pages before it are whole" if n_pages else ""
        return _Stop(growing(text + whole, n_pages, self._shape()))

    def _broken(self, text: str, reason: Reason = Reason.UNREADABLE) -> _Stop:
        return _Stop(broken(reason, text, len(self.pages)))

    def _bytes(self, offset: int, n_bytes: int, what: str) -> bytes:
        start = offset - self._block_at
        if not 0 <= start <= len(self._block) - n_bytes:
            wanted = max(n_bytes, _BLOCK)  # a directory and its values mostly lie together: one read
            self._block = self.raw.read(offset, wanted)
            self._block_at = offset
            start = 0
        if len(self._block) < start + n_bytes:
            raise self._growing(f"{what} lies past the end of the file")
        return self._block[start : start + n_bytes]

    def _walk(self, max_pages: int) -> None:
        head = self.raw.read(0, 16)
        if not head:
            raise _Stop(growing("is empty", reason=Reason.EMPTY))
        if not any(head):
            raise self._growing("its first bytes are still zeros")
        magic = next((m for m in MAGICS if m[: len(head)] == head[:4]), None)
        if magic is None:
            raise self._broken(f"isn't a TIFF file: it begins with {head[:4]!r}, not with II or MM")
        if len(head) < 4:
            raise self._growing(f"holds {len(head)} bytes of the header of a TIFF file")
        self.byte_order, self.big = MAGICS[magic]
        where = self._first_offset(head)
        seen: set[int] = set()
        while where:
            if where in seen:
                raise self._broken(f"its chain of pages runs in a circle at page {len(self.pages) + 1}")
            if len(self.pages) >= max_pages:
                self.cut = True
                return
            seen.add(where)
            where = self._page(where)
        if not self.pages:
            raise self._growing("no page has been written yet")

    def _first_offset(self, head: bytes) -> int:
        if not self.big:
            if len(head) < 8:
                raise self._growing("its header is cut short")
            return int(struct.unpack(self.byte_order + "I", head[4:8])[0])
        if len(head) < 16:
            raise self._growing("its header is cut short")
        word, zero, offset = struct.unpack(self.byte_order + "HHQ", head[4:16])
        if (word, zero) != (8, 0):
            raise self._broken(f"its BigTIFF header makes no sense: offsets of {word} bytes")
        return int(offset)

    def _page(self, where: int) -> int:
        """Read the directory at ``where``, keep the page, and return where the next one is."""
        number = len(self.pages) + 1
        order, big = self.byte_order, self.big
        count_bytes, entry_bytes, link_bytes = (8, 20, 8) if big else (2, 12, 4)
        name = f"the directory of page {number}"
        n_tags = int(struct.unpack(order + ("Q" if big else "H"), self._bytes(where, count_bytes, name))[0])
        if n_tags == 0:
            raise self._growing(f"{name} is still empty")
        if n_tags > _MOST_TAGS:
            raise self._broken(f"{name} claims {n_tags} entries")
        data = self._bytes(where + count_bytes, n_tags * entry_bytes + link_bytes, name)
        tags: dict[int, Tag] = {}
        for i in range(n_tags):
            at = i * entry_bytes
            code, kind, count = struct.unpack_from(order + ("HHQ" if big else "HHI"), data, at)
            value_at = at + (12 if big else 8)
            inline = 8 if big else 4
            if kind not in _TYPES:
                continue  # the standard says to skip types that one doesn't know
            offset = where + count_bytes + value_at
            if count * _TYPES[kind][0] > inline:
                offset = int(struct.unpack_from(order + ("Q" if big else "I"), data, value_at)[0])
            tags[code] = Tag(kind, count, offset)
        link = int(struct.unpack_from(order + ("Q" if big else "I"), data, n_tags * entry_bytes)[0])
        page = Page(number, tags)
        self._place(page)
        self.pages.append(page)
        return link

    def values(self, page: Page, code: int) -> NDArray[Any] | None:
        """Values of a tag (two for each rational), or None when the page has no such tag.

        Raises
        ------
        BadFile
            When the values lie outside the file.
        """
        try:
            return self._values(page, code)
        except _Stop as stop:
            raise stop.verdict.as_error(self.raw.path) from None

    def number(self, page: Page, code: int, default: int) -> int:
        """First value of a tag as an integer; raises as ``values`` does."""
        values = self.values(page, code)
        return default if values is None or len(values) == 0 else int(values[0])

    def _values(self, page: Page, code: int) -> NDArray[Any] | None:
        tag = page.tags.get(code)
        if tag is None:
            return None
        n_bytes, letter = _TYPES[tag.kind]
        if tag.count > _MOST_VALUES:
            raise self._broken(f"tag {code} of page {page.number} claims {tag.count} values")
        data = self._bytes(tag.offset, tag.count * n_bytes, f"tag {code} of page {page.number}")
        return np.frombuffer(data, dtype=np.dtype(self.byte_order + letter))

    def _number(self, page: Page, code: int, default: int) -> int:
        values = self._values(page, code)
        return default if values is None or len(values) == 0 else int(values[0])

    def _place(self, page: Page) -> None:
        """Check a page's size and that its data lie inside the file."""
        page.width = self._number(page, WIDTH, 0)
        page.height = self._number(page, HEIGHT, 0)
        page.compression = self._number(page, COMPRESSION, 1)
        if page.width < 1 or page.height < 1 or page.width * page.height > _MOST_PIXELS:
            raise self._broken(f"page {page.number} claims a size of {page.width} x {page.height}")
        page.layout = tuple(self._number(page, code, 0) for code in _LAYOUT_TAGS)
        tiled = TILE_OFFSETS in page.tags
        if tiled and self._number(page, TILE_WIDTH, 0) * self._number(page, TILE_HEIGHT, 0) > _MOST_IN_TILE:
            raise self._broken(f"page {page.number} claims tiles of more than {_MOST_IN_TILE} pixels")
        offsets = self._values(page, TILE_OFFSETS if tiled else STRIP_OFFSETS)
        sizes = self._values(page, TILE_BYTES if tiled else STRIP_BYTES)
        if offsets is None or sizes is None or len(offsets) == 0 or len(offsets) != len(sizes):
            raise self._broken(f"page {page.number} doesn't say where its data lie")
        page.offsets = offsets.astype(np.float64).clip(0, 2**62).astype(np.int64)
        page.sizes = sizes.astype(np.float64).clip(0, 2**62).astype(np.int64)
        if (page.offsets == 0).any() or (page.sizes == 0).any():
            raise self._growing(f"data of page {page.number} aren't written yet")
        ends = page.offsets.astype(np.float64) + page.sizes
        if ends.max() > self.size:
            inside = int((ends <= self.size).sum())
            pieces = f"{inside} of the {len(ends)} pieces of" if len(ends) > 1 else "only a part of"
            raise self._growing(f"{pieces} page {page.number} lie inside the file")
