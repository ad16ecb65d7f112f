"""The full micrograph in pieces, so that a page can look at every pixel without fetching all of them."""

import threading
from collections import OrderedDict
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Query, Request
from fastapi import Path as InPath
from fastapi.responses import Response
from numpy.typing import NDArray
from sqlalchemy.orm import Session as OrmSession

from vitriflow.errors import ItemError
from vitriflow.formats import read_image
from vitriflow.web.api import ExposureId, ProcessingName, SessionKey
from vitriflow.web.auth import needs
from vitriflow.web.detail import Detail, find_detail, micrograph_path
from vitriflow.web.files import allowed_file
from vitriflow.web.lookup import find_scene
from vitriflow.web.problems import NotFound
from vitriflow.web.site import site_of

TILE = 512
DEEPEST = 6  # binned by 64
_KEEP = 3  # micrographs that stay in memory: up to 100 MB each for the largest cameras
_SAMPLE = 1_000_000
router = APIRouter(prefix="/api")
Grey = NDArray[np.uint8]


@dataclass(frozen=True)
class Pyramid:
    """A micrograph in grey at full size, and binned by two as often as it takes to fit one tile."""

    levels: list[Grey]

    def tile(self, level: int, column: int, row: int) -> Grey | None:
        """One piece, or None outside of the picture."""
        if level >= len(self.levels):
            return None
        part = self.levels[level][row * TILE : (row + 1) * TILE, column * TILE : (column + 1) * TILE]
        return part if part.size else None


def make_pyramid(image: NDArray[Any]) -> Pyramid:
    """Stretch the contrast at each size between its own 0.5 and 99.5 percentiles, row 0 at the top."""
    shrunk = image.astype(np.float32, copy=False)
    levels = [_grey(shrunk)]
    while max(shrunk.shape) > TILE and len(levels) <= DEEPEST:
        height, width = (length // 2 * 2 for length in shrunk.shape)
        even = shrunk[:height, :width]
        shrunk = (even[::2, ::2] + even[1::2, ::2] + even[::2, 1::2] + even[1::2, 1::2]) * np.float32(0.25)
        levels.append(_grey(shrunk))
    return Pyramid(levels)


def _grey(image: NDArray[np.float32]) -> Grey:
    sample = image.ravel()[:: max(1, image.size // _SAMPLE)]
    sample = sample[np.isfinite(sample)]
    black, white = np.percentile(sample, (0.5, 99.5)) if len(sample) else (0.0, 0.0)
    if white <= black:
        return np.full(image.shape, 128, dtype=np.uint8)
    scaled = (image - np.float32(black)) * np.float32(255.0 / (white - black))
    return np.asarray(np.nan_to_num(scaled).clip(0, 255), dtype=np.uint8)


class PyramidStore:
    """The micrographs that were looked at last; one is read at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[Path, int, int], Pyramid] = OrderedDict()

    def find(self, path: Path) -> Pyramid:
        """The pyramid of a file as it is now.

        Raises
        ------
        BadFile
            When it can't be read.
        """
        stat = path.stat()
        key = (path, stat.st_mtime_ns, stat.st_size)
        with self._lock:
            if key not in self._kept:
                self._kept[key] = make_pyramid(read_image(path).array)
            self._kept.move_to_end(key)
            while len(self._kept) > _KEEP:
                self._kept.popitem(last=False)
            return self._kept[key]


_STORE = PyramidStore()


@router.get(
    "/sessions/{key}/exposures/{exposure_id}/tile/{level}/{column}/{row}",
    dependencies=[needs("session.read")],
    response_class=Response,
    responses={200: {"content": {"image/jpeg": {}}}},
)
def tile(
    request: Request,
    key: SessionKey,
    exposure_id: ExposureId,
    level: Annotated[int, InPath(ge=0, le=DEEPEST, description="binned by two so often")],
    column: Annotated[int, InPath(ge=0, le=1000)],
    row: Annotated[int, InPath(ge=0, le=1000)],
    processing: ProcessingName = None,
    result: Annotated[int | None, Query(ge=0, description="the result it's of; for caching only")] = None,
) -> Response:
    """A piece of the micrograph, 512 px on a side (less at the right and bottom edges)."""
    site = site_of(request)

    def work(db: OrmSession) -> Detail:
        return find_detail(db, find_scene(site, db, key, processing), exposure_id)

    detail = site.read(work)
    path = micrograph_path(detail)
    if path is None:
        raise NotFound(
            "micrograph", f"one of exposure {exposure_id}", "none yet", "Wait for its motion step."
        )
    real = allowed_file(path, detail.scene.session, detail.scene.processing)
    try:
        part = _STORE.find(real).tile(level, column, row)
    except (ItemError, OSError) as error:
        found = error.found if isinstance(error, ItemError) else type(error).__name__
        raise NotFound("micrograph", "an image that can be read", found, "Process it again.") from error
    if part is None:
        raise NotFound("tile", "one inside the picture", f"level {level}, column {column}, row {row}")
    from PIL import Image

    buffer = BytesIO()
    Image.fromarray(part).save(buffer, "JPEG", quality=88)
    keep = "private, max-age=31536000, immutable" if result else "no-cache"
    return Response(buffer.getvalue(), media_type="image/jpeg", headers={"cache-control": keep})
