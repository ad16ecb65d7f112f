"""Open a movie or an image by what the file is, not by what its name says, where possible."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

from vitriflow.errors import BadFile, Reason
from vitriflow.formats._ifd import MAGICS, TiffChain
from vitriflow.formats._raw import RawFile
from vitriflow.formats.completeness import Completeness, State, broken, growing
from vitriflow.formats.eer import EerMovie, event_pages, is_eer, read_metadata
from vitriflow.formats.movie import Movie
from vitriflow.formats.mrc import MrcMovie, check_mrc
from vitriflow.formats.tiff import TiffMovie

MRC_SUFFIXES = {".mrc", ".mrcs", ".mrci", ".st", ".map", ".ali", ".rec"}
TIFF_SUFFIXES = {".tif", ".tiff"}
EER_SUFFIXES = {".eer", ".ecc"}
_PICTURES = {b"\x89PNG\r\n\x1a\n": "png", b"\xff\xd8\xff": "jpeg"}
_PACKED = {b"BZh": "bzip2", b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"PK\x03\x04": "zip"}
_COUNTED = 2  # pages needed to tell EER from TIFF


def sniff(raw: RawFile) -> str:
    """What a file is: ``mrc``, ``tiff``, ``eer``, ``png``, ``jpeg``, or ``unknown``.

    The first bytes decide; the name decides only while they don't say (a file that has just
    been created, MRC files without the letters MAP).
    """
    head = raw.read(0, 212)
    suffix = raw.path.suffix.lower()
    if head[:4] in MAGICS:
        if suffix in EER_SUFFIXES:
            return "eer"
        return "eer" if is_eer(TiffChain(raw, max_pages=_COUNTED)) else "tiff"
    for magic, name in _PICTURES.items():
        if head.startswith(magic):
            return name
    if head[208:211] == b"MAP" or suffix in MRC_SUFFIXES:
        return "mrc"
    if suffix in EER_SUFFIXES:
        return "eer"
    return "tiff" if suffix in TIFF_SUFFIXES else "unknown"


def _not_a_movie(raw: RawFile) -> BadFile:
    head = raw.read(0, 8)
    packed = next((name for magic, name in _PACKED.items() if head.startswith(magic)), None)
    if packed:
        return BadFile(
            Reason.UNSUPPORTED,
            str(raw.path),
            expected="a movie in MRC, TIFF or EER",
            found=f"a file packed with {packed}",
            remedy="Unpack it first.",
        )
    return BadFile(
        Reason.NOT_A_MOVIE,
        str(raw.path),
        expected="a movie in MRC, TIFF or EER",
        found=f"a file that begins with {head!r}" if head else "an empty file",
        remedy="Look at it with 'vitriflow validate'.",
    )


def open_movie(path: Path, *, eer_frames_per_fraction: int | None = None, eer_upsampling: int = 1) -> Movie:
    """Open a movie; use it in a ``with`` block.

    Parameters
    ----------
    path
        An MRC, TIFF, BigTIFF or EER file.
    eer_frames_per_fraction
        EER only: raw frames summed into one frame; None takes what gives about 40 frames.
    eer_upsampling
        EER only: 1 for the sensor's grid, 2 or 3 for grids two or four times as fine.

    Raises
    ------
    BadFile
        When it isn't a movie, is cut short, is damaged, or is gone.
    BadParameter
        When the EER parameters don't suit the file.
    """
    path = Path(path)
    with RawFile(path) as raw:
        kind = sniff(raw)
        if kind == "unknown" or kind in _PICTURES.values():
            raise _not_a_movie(raw)
    if kind == "mrc":
        return MrcMovie(path)
    if kind == "tiff":
        return TiffMovie(path)
    return EerMovie(path, eer_frames_per_fraction, eer_upsampling)


def check_complete(path: Path) -> Completeness:
    """How far a movie or image file is, by its structure; no pixel is decoded.

    MRC: the size must be that of header, extended header and frames. TIFF and EER: the chain
    of pages must close and every piece of data must lie inside the file. A camera that closes
    the chain after every frame looks complete in between: that's why a short quiet time follows.

    Raises
    ------
    BadFile
        When the file can't be opened or read at all.
    """
    with RawFile(Path(path)) as raw:
        size = raw.size()
        if size == 0:
            return growing("is empty", reason=Reason.EMPTY)
        kind = sniff(raw)
        if kind == "mrc":
            return check_mrc(raw)
        if kind in {"tiff", "eer"}:
            return _check_tiff(raw, kind)
        if kind in _PICTURES.values():
            return _check_picture(raw, kind, size)
        if not any(raw.read(0, 4096)):
            return growing("its first bytes are still zeros")
        return broken(Reason.NOT_A_MOVIE, str(_not_a_movie(raw)))


def _check_tiff(raw: RawFile, kind: str) -> Completeness:
    chain = TiffChain(raw)
    verdict = chain.verdict
    if kind == "tiff" or not chain.pages:
        return verdict
    pages = event_pages(chain)
    text = verdict.text
    if verdict.reason is None:
        announced = read_metadata(chain).get("numberOfFrames", "")
        first = pages[0]
        text = f"holds {len(pages)} raw frames of {first.width} x {first.height}"
        if announced.isdigit() and int(announced) != len(pages):
            text += f" (its metadata announce {announced})"
    return Completeness(verdict.state, verdict.reason, text, len(pages), verdict.shape)


def _check_picture(raw: RawFile, kind: str, size: int) -> Completeness:
    tail = raw.read(max(0, size - 64), 64)
    whole = b"IEND" in tail if kind == "png" else b"\xff\xd9" in tail
    if not whole:
        return growing(f"its {kind.upper()} data don't end")
    return Completeness(State.COMPLETE, None, f"is a whole {kind.upper()} picture", 1, None)


@dataclass(frozen=True)
class Image:
    """A single image.

    Attributes
    ----------
    array
        ``(height, width)`` in MRC order (row 0 is the bottom of the picture), values as stored.
    pixel_size_A
        What the file says, or None.
    format
        ``mrc``, ``tiff``, ``png`` or ``jpeg``.
    """

    array: NDArray[Any]
    pixel_size_A: float | None
    format: str


def read_image(path: Path) -> Image:
    """Read a single image from MRC, TIFF, PNG or JPEG, whole.

    Raises
    ------
    BadFile
        When it isn't an image, is cut short or damaged, or holds more than one frame.
    """
    path = Path(path)
    with RawFile(path) as raw:
        kind = sniff(raw)
    if kind in _PICTURES.values():
        return Image(_read_picture(path), None, kind)
    with open_movie(path) as movie:
        if movie.n_frames != 1:
            raise BadFile(
                Reason.WRONG_SIZE,
                str(path),
                expected="a single image",
                found=f"{movie.n_frames} frames",
                remedy="Movies go through open_movie, or through a motion step.",
            )
        return Image(movie.frame(0), movie.pixel_size_A, movie.format)


open_image = read_image


def _read_picture(path: Path) -> NDArray[Any]:
    try:
        with PillowImage.open(path) as picture:
            grey = picture if picture.mode in {"L", "I;16", "I;16B", "I", "F"} else picture.convert("L")
            array = np.asarray(grey)
    except (OSError, ValueError, SyntaxError, PillowImage.DecompressionBombError) as error:
        raise BadFile(
            Reason.UNREADABLE,
            str(path),
            expected="a PNG or JPEG picture",
            found=str(error),
            remedy="Copy the file again from the source.",
        ) from error
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    return np.ascontiguousarray(array[::-1])  # pictures have row 0 at the top, MRC at the bottom
