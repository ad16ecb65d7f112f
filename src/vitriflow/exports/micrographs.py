"""The finished micrographs of a processing as one STAR: all of them, or those within people's limits."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from sqlalchemy.orm import Session as OrmSession

from vitriflow.catalog import Catalog, views
from vitriflow.elogbook.limits import for_export, within_all
from vitriflow.elogbook.marks import verdicts_of
from vitriflow.errors import BadParameter
from vitriflow.exports._star import write_if_changed
from vitriflow.exports._tables import Table
from vitriflow.exports.relion import RelionProject

_STATUS, _FIRST_VALUE = 2, 8  # places in a row of ``views.measures_since``


@dataclass(frozen=True)
class Micrographs:
    """A STAR of micrographs, and what isn't in it.

    Attributes
    ----------
    text
        The file; its names are relative to the processing's folder, which is RELION's project.
    count
        Micrographs in it.
    rejected
        Finished ones that people rejected: never in it.
    outside
        Finished ones outside people's limits, and so not in it; 0 when all were asked for.
    source
        The table of the project that it's taken from, such as ``CtfFind/job003/micrographs_ctf.star``.
    """

    text: str
    count: int
    rejected: int
    outside: int
    source: str


def micrographs_star(catalog: Catalog, processing_id: int, *, passing: bool) -> Micrographs:
    """The finished micrographs, with CTF where there is one, and without those that people rejected.

    Parameters
    ----------
    catalog
        The catalog.
    processing_id
        The processing.
    passing
        Only those within the limits that people set, and those that a person keeps; else all.

    Raises
    ------
    BadParameter
        When there's no such processing, or no micrograph of it yet.
    """
    project = RelionProject(catalog, processing_id)
    wanted, rejected, outside = catalog.read(lambda db: _wanted(db, project, processing_id, passing))
    project.fill(sorted(wanted))
    table = _best(project.tables)
    if table is None:
        raise BadParameter(
            "micrographs to export",
            "at least one that's finished" + (", within the limits and not rejected" if passing else ""),
            f"none; {rejected} are rejected by people, {outside} outside the limits",
            "Wait for results, or change the limits; --all leaves the limits out.",
        )
    return Micrographs(project.text_of(table), len(table.rows), rejected, outside, table.path)


def write_star_text(text: str, path: Path) -> Path:
    """Put a STAR on disk, whole or not at all.

    Raises
    ------
    BadParameter
        When it can't be written there.
    """
    try:
        write_if_changed(path, text)
    except OSError as error:
        raise BadParameter(
            str(path), "a file that can be written", error.strerror or str(error), "Name another with --to."
        ) from error
    return path


def _wanted(
    db: OrmSession, project: RelionProject, processing_id: int, passing: bool
) -> tuple[set[int], int, int]:
    rows = [tuple(row) for row in views.measures_since(db, processing_id, -1)]
    ids = np.array([row[0] for row in rows], dtype=np.int64)
    status = np.array([row[_STATUS] for row in rows], dtype="U16")
    values = {
        name: np.array([row[_FIRST_VALUE + place] for row in rows], dtype=np.float64)
        for place, name in enumerate(views.QUANTITIES)
    }
    said = verdicts_of(db, project.session_id)
    keep, reject = (
        np.isin(ids, [number for number, one in said.items() if one == kind]) for kind in ("keep", "reject")
    )
    limits = (views.newest_limits(db, processing_id) or {"values": {}})["values"] if passing else {}
    finished = (status == "done") | ((status == "rejected") & keep)
    chosen = for_export(within_all(values, limits, len(ids)), keep, reject)
    outside = int(np.count_nonzero(finished & ~reject & ~chosen))
    return set(ids[finished & chosen].tolist()), int(np.count_nonzero(finished & reject)), outside


def _best(tables: list[Table]) -> Table | None:
    """The table of micrographs that knows most of each: with CTF, else corrected, else as they came."""
    for name in ("micrographs_ctf.star", "corrected_micrographs.star", "micrographs.star"):
        found = [one for one in tables if one.file == name and one.rows]
        if found:
            return replace(max(found, key=lambda one: (len(one.rows), one.job)))
    return None
