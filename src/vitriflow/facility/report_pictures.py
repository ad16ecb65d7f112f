"""Best and typical micrographs of a report, small and inside the page."""

import base64
import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from sqlalchemy.orm import Session as OrmSession

from vitriflow import words
from vitriflow.catalog import views
from vitriflow.facility.report_numbers import Columns

_SIDE = 420  # px
_MOST_PIXELS = 64_000_000
_QUALITY = 82


def choose(columns: Columns, number: int) -> dict[str, list[int]]:
    """Rows of the best and of typical usable exposures: by fit resolution, its smallest and its middle."""
    fit = columns.values["fit_resolution_A"]
    rows = np.flatnonzero(columns.usable & np.isfinite(fit))
    if not len(rows):
        rows = np.flatnonzero(columns.usable)
        return {
            "best": [],
            "typical": [int(row) for row in rows[:: max(len(rows) // max(number, 1), 1)][:number]],
        }
    order = rows[np.argsort(fit[rows], kind="stable")]
    best = [int(row) for row in order[:number]]
    middle = np.median(fit[rows])
    near = [int(row) for row in rows[np.argsort(np.abs(fit[rows] - middle), kind="stable")]]
    return {"best": best, "typical": [row for row in near if row not in best][:number]}


def pictures(
    orm: OrmSession,
    session: views.SessionView,
    processing: views.ProcessingView | None,
    columns: Columns,
    number: int,
) -> dict[str, list[dict[str, Any]]]:
    """For best and typical: name, values in words, and the path of each picture (None where there's none)."""
    chosen = choose(columns, number) if processing is not None else {"best": [], "typical": []}
    ids = [int(columns.ids[row]) for rows in chosen.values() for row in rows]
    names = views.exposure_names(orm, session.id, ids)
    records: dict[int, tuple[int, dict[str, Any]]] = {}
    if processing is not None and ids:
        samples = views.sample_records(orm, processing.id)
        node = next((name for name, record in samples.items() if "scale" in record), None)
        records = views.records_of(orm, processing.id, node, ids) if node else {}
    found: dict[str, list[dict[str, Any]]] = {}
    for kind, rows in chosen.items():
        found[kind] = [
            {
                "name": names.get(int(columns.ids[row]), f"exposure {columns.ids[row]}"),
                "values": _values(columns, row),
                "path": _path(records.get(int(columns.ids[row]), (0, {}))[1], session, processing),
            }
            for row in rows
        ]
    return found


def _values(columns: Columns, row: int) -> str:
    shown = [
        f"{words.QUANTITIES[name].label.lower()} {words.quantity(name, float(columns.values[name][row]))}"
        for name in ("fit_resolution_A", "defocus_A", "total_A", "n_picks")
        if np.isfinite(columns.values[name][row])
    ]
    return ", ".join(shown)


def _path(
    record: dict[str, Any], session: views.SessionView, processing: views.ProcessingView | None
) -> Path | None:
    """A picture's file, when it lies inside the session once links are followed."""
    outputs = record.get("outputs") or {}
    for port in ("micrograph", "thumbnail"):
        said = (outputs.get(port) or {}).get("path") if isinstance(outputs.get(port), dict) else None
        if not isinstance(said, str):
            continue
        roots = [root for root in (session.root, processing.root if processing else "") if root]
        try:
            real = Path(said).resolve(strict=True)
            if real.is_file() and any(real.is_relative_to(Path(root).resolve()) for root in roots):
                return real
        except (OSError, ValueError, RuntimeError):
            continue
    return None


def as_data(path: Path | None) -> str:
    """A picture as a small JPEG in a data address; empty where it can't be read."""
    if path is None:
        return ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as opened:
                if opened.width * opened.height > _MOST_PIXELS:
                    return ""
                small = opened.convert("L")
                small.thumbnail((_SIDE, _SIDE))
        target = io.BytesIO()
        small.save(target, "JPEG", quality=_QUALITY)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombWarning, Image.DecompressionBombError):
        return ""
    return "data:image/jpeg;base64," + base64.b64encode(target.getvalue()).decode()
