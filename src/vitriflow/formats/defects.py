"""Lists and maps of camera pixels that are no good."""

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vitriflow.errors import BadFile, Reason
from vitriflow.formats._raw import RawFile
from vitriflow.formats.opening import read_image, sniff

SERIALEM_WORDS = re.compile(
    r"^\s*(CameraSize[XY]|RotationAndFlip|WasScaled|K2Type|FalconType|NumToAvgSuperRes|UsableArea"
    r"|(?:Partial)?Bad(?:Column|Row|Pixel)s?)\b"
)
_LARGEST_TEXT = 16 * 1024 * 1024


def read_defects(path: Path, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Mask of bad pixels, True where bad, ``(height, width)`` in MRC order.

    Three kinds are known by their content:

    - SerialEM's list (``CameraSizeX``, ``BadColumns``, ``PartialBadRow``, ...): counted from the
      top of the picture, so flipped in y; doubled for movies at twice the camera's size.
    - Lines of ``x y w h`` as for MotionCor: counted in the array as read, not flipped, as RELION
      does it.
    - A map in MRC or TIFF of the movie's size, 1 where bad; TIFF is flipped in y as always.

    Raises
    ------
    BadFile
        When a line can't be understood (its number is said) or a size doesn't fit.
    """
    path = Path(path)
    with RawFile(path) as raw:
        kind = sniff(raw)
        data = raw.read(0, _LARGEST_TEXT) if kind == "unknown" else b""
    if kind in {"mrc", "tiff", "png"}:
        return _read_map(path, shape)
    if not data or b"\0" in data:
        raise _unknown(path, "an empty file" if not data else "binary data of unknown kind")
    lines = data.decode("utf-8", "replace").splitlines()
    if any(SERIALEM_WORDS.match(line) for line in lines):
        return _read_serialem(path, lines, shape)
    return _read_boxes(path, lines, shape)


def _unknown(path: Path, found: str) -> BadFile:
    return BadFile(
        Reason.UNREADABLE,
        str(path),
        expected="a defect list (SerialEM's, or lines of x y w h) or a map in MRC or TIFF",
        found=found,
        remedy="Give the defect file that belongs to the camera.",
    )


def _read_map(path: Path, shape: tuple[int, int]) -> NDArray[np.bool_]:
    array = read_image(path).array
    if array.shape != tuple(shape):
        raise _size_differs(path, (array.shape[0], array.shape[1]), shape)
    return np.asarray(array != 0)


def _size_differs(path: Path, found: tuple[int, int], shape: tuple[int, int]) -> BadFile:
    return BadFile(
        Reason.WRONG_SIZE,
        str(path),
        expected=f"defects of a camera of {shape[1]} x {shape[0]} (width x height), as the movie",
        found=f"{found[1]} x {found[0]}",
        remedy="Give the defect file that belongs to these movies.",
    )


def _numbers(path: Path, number: int, line: str, words: list[str]) -> list[int]:
    try:
        return [int(word) for word in words]
    except ValueError:
        raise _unknown(path, f"line {number}: {line.strip()[:80]!r}") from None


def _read_boxes(path: Path, lines: list[str], shape: tuple[int, int]) -> NDArray[np.bool_]:
    mask = np.zeros(shape, np.bool_)
    n_boxes = 0
    for number, line in enumerate(lines, 1):
        words = line.replace(",", " ").split("#")[0].split()
        if not words:
            continue
        box = _numbers(path, number, line, words)
        if len(box) != 4 or box[2] < 0 or box[3] < 0:
            raise _unknown(path, f"line {number}: {line.strip()[:80]!r}, not x y w h")
        x, y, width, height = box
        mask[max(0, y) : max(0, y + height), max(0, x) : max(0, x + width)] = True
        n_boxes += 1
    if n_boxes == 0:
        raise _unknown(path, "no box in it")
    return mask


def _read_serialem(path: Path, lines: list[str], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """SerialEM's list; ends are included. Read as IMOD's CorrectDefects.cpp understands it."""
    entries: list[tuple[str, list[int]]] = []
    for number, line in enumerate(lines, 1):
        words = line.split("#")[0].split()
        if words and SERIALEM_WORDS.match(line):
            entries.append((words[0], _numbers(path, number, line, words[1:])))
    sizes = {name: values[0] for name, values in entries if name.startswith("CameraSize") and values}
    camera = (sizes.get("CameraSizeY", shape[0]), sizes.get("CameraSizeX", shape[1]))
    scale = next((factor for factor in (1, 2, 4) if _times(camera, factor) == tuple(shape)), None)
    if scale is None and _times(shape, 2) != camera:
        raise _size_differs(path, camera, shape)
    mask: NDArray[np.bool_] = np.zeros(camera, np.bool_)
    for name, values in entries:
        _mark(mask, name, values)
    mask = mask[::-1]
    if scale is None:
        return np.asarray(mask.reshape(shape[0], 2, shape[1], 2).any(axis=(1, 3)))
    return np.ascontiguousarray(np.repeat(np.repeat(mask, scale, axis=0), scale, axis=1))


def _times(shape: tuple[int, int], factor: int) -> tuple[int, int]:
    return shape[0] * factor, shape[1] * factor


def _mark(mask: NDArray[np.bool_], name: str, values: list[int]) -> None:
    """Mark one entry of SerialEM's list on the camera, row 0 at the top."""
    height, width = mask.shape
    inside = [max(0, value) for value in values]
    if name == "BadColumns":
        mask[:, [x for x in values if 0 <= x < width]] = True
    elif name == "BadRows":
        mask[[y for y in values if 0 <= y < height]] = True
    elif name == "BadPixels":
        for x, y in zip(values[0::2], values[1::2], strict=False):
            if 0 <= x < width and 0 <= y < height:
                mask[y, x] = True
    elif name == "PartialBadColumn" and len(inside) >= 4:
        x, n_columns, first, last = inside[:4]
        mask[first : last + 1, x : x + n_columns] = True
    elif name == "PartialBadRow" and len(inside) >= 4:
        y, n_rows, first, last = inside[:4]
        mask[y : y + n_rows, first : last + 1] = True
    elif name == "UsableArea" and len(inside) >= 4:
        top, left, bottom, right = inside[:4]
        usable = np.zeros_like(mask)
        usable[top : bottom + 1 if bottom else height, left : right + 1 if right else width] = True
        mask |= ~usable
