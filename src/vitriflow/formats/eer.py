"""EER movies: electron events in a BigTIFF container, rendered and summed into fractions.

One directory is one raw camera frame; its data are runs of empty pixels (7 or 8 bits, or as
many as tag 65007 says), each followed by the position of the electron inside its pixel. The
container may begin with an ordinary image, the sum, which isn't a frame. Sources: EER file
format 3.0 (Thermo Fisher Scientific, 2023) as in imagecodecs; github.com/fei-company/EerReaderLib;
RELION's renderEER.cpp.

RELION doesn't flip EER in y: the first event of the stream is row 0, as in MRC. It doesn't
flip ``.gain`` references either, but it does flip TIFF gain references. We do the same.
"""

import xml.parsers.expat
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from vitriflow.errors import BadFile, BadParameter, Reason
from vitriflow.formats._ifd import Page, TiffChain
from vitriflow.formats._raw import RawFile
from vitriflow.formats._xml import parse_xml
from vitriflow.formats.movie import Movie
from vitriflow.formats.tiff import EER_COMPRESSIONS, read_chain

_SKIP_BITS, _HORIZONTAL_BITS, _VERTICAL_BITS = 65007, 65008, 65009
_METADATA_TAGS = range(65001, 65007)
_AIM_FRACTIONS = 40


def event_pages(chain: TiffChain) -> list[Page]:
    """Pages of a chain that hold events; an ordinary image before them is left out."""
    pages = chain.pages
    if len(pages) > 1 and pages[0].compression not in EER_COMPRESSIONS:
        pages = pages[1:]
    return pages


def is_eer(chain: TiffChain) -> bool:
    """Whether the pages of a TIFF container hold electron events."""
    return any(page.compression in EER_COMPRESSIONS for page in chain.pages[:2])


def default_grouping(n_raw_frames: int) -> int:
    """Raw frames summed into a fraction when nobody said: about 40 fractions."""
    return max(1, n_raw_frames // _AIM_FRACTIONS)


def read_metadata(chain: TiffChain) -> dict[str, str]:
    """Items of the acquisition metadata in the first page; empty when there are none."""
    found: dict[str, str] = {}
    for page in chain.pages[:2]:
        for code in _METADATA_TAGS:
            tag = page.tags.get(code)
            if tag is None or tag.kind not in {1, 2, 7} or not 16 < tag.count < 1 << 22:
                continue
            text = chain.raw.read(tag.offset, tag.count).rstrip(b"\0")
            if not text.lstrip().startswith(b"<"):
                continue
            try:
                root = parse_xml(text)
            except (xml.parsers.expat.ExpatError, ValueError):
                continue  # metadata that can't be read must not cost the movie
            for item in root.iter("item"):
                found[item.get("name", "")] = (item.text or "").strip()
    return found


class EerMovie(Movie):
    """A movie in EER, its raw frames summed into fractions.

    Parameters
    ----------
    path
        The file.
    frames_per_fraction
        Raw frames summed into one frame. None takes what gives about 40. As in RELION, raw
        frames at the end that don't fill a fraction are left out.
    upsampling
        1 renders on the sensor's own grid, 2 on a grid twice as fine, 3 on one four times as
        fine (RELION's numbering).
    """

    format = "eer"

    def __init__(self, path: Path, frames_per_fraction: int | None = None, upsampling: int = 1) -> None:
        super().__init__(path)
        if upsampling not in {1, 2, 3}:
            raise BadParameter(
                "eer_upsampling", "1 (4K), 2 (8K) or 3 (16K)", str(upsampling), "Use 1 unless you know why."
            )
        self._raw = RawFile(path)
        try:
            chain = read_chain(self._raw)
            self._pages = event_pages(chain)
            self._check_uniform()
            self._bits = self._code_bits(chain)
            self.metadata = read_metadata(chain)
            self._group(frames_per_fraction)
        except (BadFile, BadParameter):
            self._raw.close()
            raise
        self._superres = upsampling - 1
        scale = 1 << self._superres
        self.shape = (self._pages[0].height * scale, self._pages[0].width * scale)

    def _group(self, asked: int | None) -> None:
        self.n_raw_frames = len(self._pages)
        group = default_grouping(self.n_raw_frames) if asked is None else asked
        if not 1 <= group <= self.n_raw_frames:
            raise BadParameter(
                f"eer_frames_per_fraction for {self.path.name}",
                expected=f"1 to {self.n_raw_frames}, the raw frames in the file",
                found=str(group),
                remedy="Choose it so that a fraction holds 0.5 to 1.25 e/A^2.",
            )
        self.raw_frames_per_frame = group
        self.n_frames = self.n_raw_frames // group
        # A raw frame has at most one event in a pixel, so that a fraction can't overflow.
        self.dtype = np.dtype(np.uint8 if group <= 255 else np.uint16)

    def _check_uniform(self) -> None:
        first = self._pages[0]
        for page in self._pages:
            same = (page.width, page.height, page.compression)
            if same != (first.width, first.height, first.compression) or (
                page.compression not in EER_COMPRESSIONS
            ):
                raise BadFile(
                    Reason.WRONG_SIZE if page.compression == first.compression else Reason.UNSUPPORTED,
                    str(self.path),
                    expected="raw frames of electron events, all of one size",
                    found=f"page {page.number} of {page.width} x {page.height}, "
                    f"compression {page.compression}",
                    remedy="Look at the file with 'vitriflow validate' and copy it again from the source.",
                )

    def _code_bits(self, chain: TiffChain) -> tuple[int, int, int]:
        page = self._pages[0]
        if page.compression != 65002:
            return (8 if page.compression == 65000 else 7, 2, 2)
        skip = chain.number(page, _SKIP_BITS, 7)
        horizontal = chain.number(page, _HORIZONTAL_BITS, 2)
        vertical = chain.number(page, _VERTICAL_BITS, 2)
        if not (4 <= skip <= 14 and 1 <= horizontal <= 4 and 1 <= vertical <= 4):
            raise BadFile(
                Reason.UNSUPPORTED,
                str(self.path),
                expected="4 to 14 bits a run and 1 to 4 bits a sub-pixel position",
                found=f"{skip}, {horizontal} and {vertical} bits",
            )
        return skip, horizontal, vertical

    def _read(self, index: int) -> NDArray[Any]:
        fraction = np.zeros(self.shape, self.dtype)
        first = index * self.raw_frames_per_frame
        for page in self._pages[first : first + self.raw_frames_per_frame]:
            self._add(page, fraction)
        return fraction

    def _add(self, page: Page, fraction: NDArray[Any]) -> None:
        parts = [
            self._raw.read(int(at), int(size)) for at, size in zip(page.offsets, page.sizes, strict=True)
        ]
        data = b"".join(parts)
        if len(data) < page.sizes.sum():
            raise BadFile(
                Reason.CHANGED,
                str(self.path),
                expected=f"{page.sizes.sum()} bytes for raw frame {page.number}",
                found=f"{len(data)} bytes: the file became shorter while it was read",
                remedy="Copy it again from the source.",
            )
        if len(data) % 2:
            data += b"\0"  # the decoder takes whole 16-bit words
        try:
            imagecodecs.eer_decode(data, self.shape, *self._bits, superres=self._superres, out=fraction)
        except (RuntimeError, ValueError) as error:
            raise BadFile(
                Reason.UNREADABLE,
                str(self.path),
                expected=f"raw frame {page.number} as a stream of electron events",
                found=f"{type(error).__name__}: {error}",
                remedy="The data are damaged: copy the file again from the source.",
            ) from error

    def close(self) -> None:
        """Let go of the file."""
        self._raw.close()
