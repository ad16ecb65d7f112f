"""TIFF and BigTIFF movies and images, flipped in y on reading so that row 0 is the bottom."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from vitriflow.errors import BadFile, Reason
from vitriflow.formats._ifd import RESOLUTION_UNIT, X_RESOLUTION, Page, TiffChain
from vitriflow.formats._raw import RawFile
from vitriflow.formats.completeness import State
from vitriflow.formats.movie import Movie

EER_COMPRESSIONS = {65000, 65001, 65002}
_LZW, _NO_PREDICTOR = 5, 1
_LARGE = 1 << 20  # pixels; loading our own decoder takes longer than a smaller image
# tifffile logs what it dislikes of a file; we say it in our own words, as an error.
logging.getLogger("tifffile").addHandler(logging.NullHandler())
_ANGSTROM_PER_UNIT = {2: 2.54e8, 3: 1.0e8}  # inch, centimetre


def read_chain(raw: RawFile) -> TiffChain:
    """Directories of a complete TIFF file.

    Raises
    ------
    BadFile
        When the chain of pages doesn't close or data lie outside the file.
    """
    chain = TiffChain(raw)
    if chain.verdict.state is not State.COMPLETE:
        raise chain.verdict.as_error(raw.path)
    return chain


def pixel_size_A(chain: TiffChain) -> float | None:
    """Pixel size from the resolution tags; None for values that no electron microscope has."""
    page = chain.pages[0]
    try:
        ratio = chain.values(page, X_RESOLUTION)
        unit = _ANGSTROM_PER_UNIT.get(chain.number(page, RESOLUTION_UNIT, 2))
    except BadFile:
        return None  # a damaged resolution must not cost the movie
    if ratio is None or unit is None or len(ratio) < 2 or ratio[0] == 0:
        return None
    size = unit * float(ratio[1]) / float(ratio[0])
    return size if 1e-2 < size < 1e3 else None  # 72 dots an inch, the usual filler, is far outside


def _undecodable(path: Path, where: str, error: Exception) -> BadFile:
    return BadFile(
        Reason.UNREADABLE,
        str(path),
        expected=f"{where} that can be decoded",
        found=f"{type(error).__name__}: {error}",
        remedy="The data are damaged: copy the file again from the source.",
    )


class TiffDecoder:
    """Decodes any page that is laid out as the first is. Safe to call from several threads."""

    def __init__(self, path: Path, page_index: int = 0) -> None:
        self._path = path
        try:
            with tifffile.TiffFile(path) as tiff:
                page = tiff.pages[page_index]
                if not isinstance(page, tifffile.TiffPage):
                    page = page.aspage()
                self._decode = page.decode
                self._strip: tuple[int, np.dtype[Any]] | None = _lzw_strips(page, tiff.byteorder)
                dtype = page.dtype
                self.shape = (int(page.imagelength), int(page.imagewidth))
                samples = int(page.samplesperpixel)
                bits = page.bitspersample
        except (MemoryError, BadFile):
            raise
        except Exception as error:  # tifffile meets damaged headers with many kinds of exception
            raise _undecodable(path, "a first page", error) from error
        if samples != 1 or dtype is None or dtype.kind not in "uif":
            raise BadFile(
                Reason.UNSUPPORTED,
                str(path),
                expected="one number a pixel",
                found=f"{samples} numbers a pixel of {bits} bits",
                remedy="Save it as a greyscale TIFF of 8, 16 or 32 bits.",
            )
        self.dtype: np.dtype[Any] = dtype.newbyteorder("=")

    def __call__(self, raw: RawFile, page: Page) -> NDArray[Any]:
        """The page as ``(height, width)``, row 0 being the bottom of the picture."""
        if len(page.offsets) == 1:  # a frame in one strip, as cameras write it: no copy but the flip
            return self._flipped(self._piece(raw, page, 0)[0])
        image = np.zeros(self.shape, self.dtype)
        for index in range(len(page.offsets)):
            piece, top, left = self._piece(raw, page, index)
            height = min(piece.shape[0], self.shape[0] - top)
            width = min(piece.shape[1], self.shape[1] - left)
            image[top : top + height, left : left + width] = piece[:height, :width]
        return self._flipped(image)

    def _flipped(self, image: NDArray[Any]) -> NDArray[Any]:
        height, width = self.shape
        if image.shape[0] < height or image.shape[1] < width:
            raise _undecodable(self._path, "a whole page", ValueError(f"only {image.shape} decoded"))
        return np.ascontiguousarray(image[height - 1 :: -1, :width], dtype=self.dtype)

    def _piece(self, raw: RawFile, page: Page, index: int) -> tuple[NDArray[Any], int, int]:
        """One strip or tile, and the row and column where it belongs."""
        size = int(page.sizes[index])
        data = raw.read(int(page.offsets[index]), size)
        if len(data) < size:
            raise BadFile(
                Reason.CHANGED,
                str(self._path),
                expected=f"{size} bytes for page {page.number}",
                found=f"{len(data)} bytes: the file became shorter while it was read",
                remedy="Copy it again from the source.",
            )
        if self._strip is not None and (strip := self._lzw(data, index, *self._strip)) is not None:
            return strip
        try:
            segment, (_, _, top, left, _), _ = self._decode(data, index)
            if segment is None:
                raise ValueError("no data")
            return segment[0, :, :, 0], int(top), int(left)
        except MemoryError:
            raise
        except Exception as error:  # each codec has its own exceptions
            raise _undecodable(self._path, f"page {page.number}", error) from error

    def _lzw(
        self, data: bytes, index: int, rows: int, stored: np.dtype[Any]
    ) -> tuple[NDArray[Any], int, int] | None:
        """The strip by our own decoder; None leaves it to tifffile, which also says what's wrong."""
        from vitriflow.formats._lzw import decode_lzw

        height, width = self.shape
        top = index * rows
        rows = min(rows, height - top)
        found = decode_lzw(data, rows * width * stored.itemsize)
        return None if found is None else (found.view(stored).reshape(rows, width), top, 0)


def _lzw_strips(page: tifffile.TiffPage, byte_order: str) -> tuple[int, "np.dtype[Any]"] | None:
    """Rows of a strip and the type as stored, where all is as our own LZW decoder takes it."""
    plain = (
        page.compression == _LZW
        and page.predictor == _NO_PREDICTOR
        and page.fillorder == 1
        and page.samplesperpixel == 1
        and not page.is_tiled
        and page.dtype is not None
        and page.bitspersample == 8 * page.dtype.itemsize
        and page.imagelength * page.imagewidth >= _LARGE
    )
    if not plain or page.dtype is None:
        return None
    return min(int(page.rowsperstrip), int(page.imagelength)), page.dtype.newbyteorder(byte_order)  # type: ignore[arg-type]


def read_first_page(path: Path) -> NDArray[Any]:
    """The first page of a TIFF, whatever follows it, as ``(height, width)`` in MRC order.

    Raises
    ------
    BadFile
        When the file is cut short or the page can't be decoded.
    """
    with RawFile(path) as raw:
        chain = read_chain(raw)
        return TiffDecoder(path)(raw, chain.pages[0])


class TiffMovie(Movie):
    """A movie or image in TIFF or BigTIFF, with any compression that tifffile decodes."""

    format = "tiff"

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._raw = RawFile(path)
        try:
            chain = read_chain(self._raw)
            self._pages = chain.pages
            self._check_uniform()
            self._decoder = TiffDecoder(path)
            self.pixel_size_A = pixel_size_A(chain)
        except BadFile:
            self._raw.close()
            raise
        self.shape = self._decoder.shape
        self.dtype = self._decoder.dtype
        self.n_frames = self.n_raw_frames = len(self._pages)

    def _check_uniform(self) -> None:
        first = self._pages[0]
        for page in self._pages:
            if page.layout != first.layout or len(page.offsets) != len(first.offsets):
                raise BadFile(
                    Reason.WRONG_SIZE,
                    str(self.path),
                    expected=f"pages all like the first, {first.width} x {first.height}",
                    found=f"page {page.number} of {page.width} x {page.height}, stored differently",
                    remedy="A movie's frames must be alike; split the file or save it again.",
                )

    def _read(self, index: int) -> NDArray[Any]:
        return self._decoder(self._raw, self._pages[index])

    def close(self) -> None:
        """Let go of the file."""
        self._raw.close()
