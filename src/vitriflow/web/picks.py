"""Particle positions of one micrograph, as the page draws them."""

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitriflow.errors import BadFile, ItemError, Reason
from vitriflow.formats import read_star
from vitriflow.web.detail import Detail, picks_path
from vitriflow.web.files import allowed_file
from vitriflow.web.problems import NotFound

MOST_PICKS = 20_000


@lru_cache(maxsize=64)
def _read(path: Path, _stamp: tuple[int, int]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Positions (n, 2), y then x in micrograph pixels, and scores (n,), highest first.

    RELION counts from the first pixel's centre, as we do, so nothing is added.
    """
    for block in read_star(path).values():
        if "rlnCoordinateX" not in block or "rlnCoordinateY" not in block:
            continue
        x, y = (np.atleast_1d(np.asarray(block[f"rlnCoordinate{axis}"], dtype=np.float64)) for axis in "XY")
        scores = np.full(len(x), np.nan)
        if "rlnAutopickFigureOfMerit" in block:
            scores = np.atleast_1d(np.asarray(block["rlnAutopickFigureOfMerit"], dtype=np.float64))
        finite = np.isfinite(x) & np.isfinite(y)
        positions, scores = np.stack([y, x], axis=1)[finite], scores[finite]
        order = np.argsort(-scores, kind="stable")[:MOST_PICKS]
        return positions[order], scores[order]
    raise BadFile(
        Reason.METADATA_BROKEN,
        str(path),
        expected="a table with rlnCoordinateX and rlnCoordinateY",
        found="none",
        remedy="Pick this exposure again.",
    )


def picks_answer(detail: Detail, min_score: float | None) -> dict[str, Any]:
    """What ``/picks`` answers: all candidates, or those with at least a score.

    Raises
    ------
    NotFound
        When there's no coordinates file, or it can't be read.
    """
    path = picks_path(detail)
    if path is None:
        raise NotFound(
            "picks",
            expected="a finished picking node",
            found="none for this exposure",
            remedy="Wait for it, or see the exposure's page for why it was set aside.",
        )
    real = allowed_file(path, detail.scene.session, detail.scene.processing)
    status = real.stat()
    try:
        positions, scores = _read(real, (status.st_mtime_ns, status.st_size))
    except (ItemError, ValueError, TypeError) as error:
        found = error if isinstance(error, ItemError) else BadFile(Reason.METADATA_BROKEN, "", "", str(error))
        raise NotFound(
            "picks", found.expected or "numbers", found.found, found.remedy or "Pick this exposure again."
        ) from error
    if min_score is not None:
        keep = ~(scores < min_score)
        positions, scores = positions[keep], scores[keep]
    record = detail.records["pick"]
    motion = detail.records.get("motion", {})
    ctf = detail.records.get("ctf", {})
    return {
        "threshold": record.get("threshold"),
        "particle_diameter_A": record.get("particle_diameter_A") or None,
        "pixel_size_A": motion.get("pixel_size_A") or ctf.get("pixel_size_A") or None,
        "x": np.round(positions[:, 1], 2),
        "y": np.round(positions[:, 0], 2),
        "score": [None if score != score else round(score, 5) for score in scores.tolist()],
    }
