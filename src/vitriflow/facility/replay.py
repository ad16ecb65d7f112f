"""Runs exposures of the past again with this version, and says what moved beyond tolerance."""

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from sqlalchemy import select

import vitriflow
from vitriflow.catalog import Catalog, Exposure, Measure, Processing, ResultRow, Session, views
from vitriflow.errors import BadParameter
from vitriflow.pipeline import Coordinator, Settings, parse_template, start_processing
from vitriflow.storage import SessionFolder

# How far a value may be from what it was: absolute, or relative to what it was; the larger counts. The
# numbers are what two runs of good software may differ by on the same movie.
TOLERANCES: Mapping[str, tuple[float, float]] = {
    "early_A": (0.5, 0.1),
    "total_A": (1.0, 0.1),
    "max_frame_A": (0.5, 0.1),
    "mean_intensity": (0.0, 0.005),
    "defocus_A": (60.0, 0.005),
    "astigmatism_A": (80.0, 0.1),
    "phase_shift_deg": (5.0, 0.0),
    "fit_resolution_A": (0.3, 0.05),
    "cross_correlation": (0.02, 0.05),
    "ice_ring": (0.05, 0.05),
    "n_picks": (5.0, 0.05),
    "n_particles": (5.0, 0.05),
}


@dataclass(frozen=True)
class Moved:
    """One value of one exposure that isn't what it was."""

    exposure: str
    value: str
    before: float | str | None
    now: float | str | None


@dataclass(frozen=True)
class Replay:
    """What came of a replay.

    ``compared`` counts exposures by value; ``medians`` has the median difference of each (now minus before).
    ``skipped`` are exposures whose file isn't there: recall them first.
    """

    against: str
    processing: str
    version: str
    exposures: int
    compared: dict[str, int] = field(default_factory=dict)
    medians: dict[str, float] = field(default_factory=dict)
    moved: list[Moved] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return asdict(self)


def replay(
    catalog: Catalog,
    key: str,
    against: str,
    executor: Executor,
    most: int = 50,
    settings: Settings | None = None,
) -> Replay:
    """Process exposures of a session again as they were, and compare.

    Parameters
    ----------
    key
        The session.
    against
        Name of a processing, or a version of vitriflow: the processing whose results it made.
    executor
        Where calls run.
    most
        How many exposures: evenly spread over those that were done.

    Raises
    ------
    BadParameter
        When there's no such session, processing or version, or none of its exposures is at hand.
    """
    base, root, session_id = _base(catalog, key, against)
    chosen, skipped = _choose(catalog, base.id, most)
    if not chosen:
        raise BadParameter(
            f"exposures of '{base.name}'",
            "some that are done, and whose files are there",
            f"{len(skipped)} whose files are away" if skipped else "none that are done",
            "Recall them with 'vitriflow recall'." if skipped else "",
        )
    name = _free_name(catalog, session_id)
    template = parse_template(base.template, f"template of processing '{base.name}'")
    selection = views.as_selection(chosen, f"replay of {base.name}")
    number = start_processing(
        catalog,
        session_id,
        name,
        template,
        base.parameters,
        SessionFolder(Path(root)).processed(name),
        selection,
    )
    Coordinator(catalog, number, executor, settings).run(threading.Event(), until_idle=True)
    return _compared(catalog, base, number, name, chosen, skipped)


def _base(catalog: Catalog, key: str, against: str) -> tuple[Processing, str, int]:
    def work(orm: Any) -> tuple[Processing, str, int]:
        session = orm.scalar(select(Session).where(Session.key == key))
        if session is None:
            raise BadParameter("session", "the key of a session", repr(key)[:80])
        found = list(orm.scalars(select(Processing).where(Processing.session_id == session.id)))
        versions: list[str] = []
        for one in reversed(found):
            if one.name == against:
                return one, session.root, session.id
            query = select(ResultRow.record).where(
                ResultRow.processing_id == one.id, ResultRow.revision == 1, ResultRow.item_type == "exposure"
            )
            record = orm.scalars(query.limit(1)).first() or {}
            version = (record.get("provenance") or {}).get("vitriflow_version")
            if version == against:
                return one, session.root, session.id
            versions += [version] if version else []
        known = ", ".join([one.name for one in found] + sorted(set(versions)))
        raise BadParameter(
            "--against", f"a processing or a version: {known or 'none yet'}", repr(against)[:80]
        )

    return catalog.read(work)


def _choose(catalog: Catalog, processing_id: int, most: int) -> tuple[list[int], list[str]]:
    """Exposures that are done and at hand, evenly spread; and keys of those that aren't at hand."""
    query = (
        select(Exposure.id, Exposure.key, Exposure.path)
        .join(Measure, Measure.exposure_id == Exposure.id)
        .where(Measure.processing_id == processing_id, Measure.status.in_(("done", "rejected")))
        .order_by(Exposure.id)
    )
    rows = catalog.read(lambda orm: orm.execute(query).all())
    step = max(1, len(rows) // max(most, 1))
    spread = rows[::step][:most]
    there = [row.id for row in spread if Path(row.path).is_file()]
    return there, [row.key for row in spread if row.id not in set(there)]


def _free_name(catalog: Catalog, session_id: int) -> str:
    query = select(Processing.name).where(Processing.session_id == session_id)
    taken = set(catalog.read(lambda orm: list(orm.scalars(query))))
    version = vitriflow.__version__.split("+")[0]
    number = 1
    while (name := f"replay-{version}-{number}"[:64]) in taken:
        number += 1
    return name


def _compared(
    catalog: Catalog, base: Processing, number: int, name: str, chosen: Sequence[int], skipped: list[str]
) -> Replay:
    columns = [getattr(Measure, value) for value in TOLERANCES]
    query = select(Measure.exposure_id, Measure.processing_id, Measure.status, Exposure.key, *columns).join(
        Exposure, Exposure.id == Measure.exposure_id
    )
    query = query.where(
        Measure.processing_id.in_((base.id, number)), Measure.exposure_id.in_(chosen)
    ).order_by(Measure.exposure_id)
    pairs: dict[int, dict[int, Any]] = {}
    for row in catalog.read(lambda orm: orm.execute(query).all()):
        pairs.setdefault(row.exposure_id, {})[row.processing_id] = row
    made = Replay(base.name, name, vitriflow.__version__, len(pairs), skipped=skipped)
    differences: dict[str, list[float]] = {}
    for pair in pairs.values():
        before, after = pair.get(base.id), pair.get(number)
        if before is None or after is None:
            continue
        if before.status != after.status:
            made.moved.append(Moved(before.key, "status", before.status, after.status))
        for value in TOLERANCES:
            old, new = getattr(before, value), getattr(after, value)
            if old is None and new is None:
                continue
            made.compared[value] = made.compared.get(value, 0) + 1
            if old is None or new is None or _differs(value, old, new):
                made.moved.append(Moved(before.key, value, old, new))
            if old is not None and new is not None:
                differences.setdefault(value, []).append(new - old)
    made.medians.update({value: median(found) for value, found in differences.items()})
    return made


def _differs(value: str, old: float, new: float) -> bool:
    absolute, relative = TOLERANCES[value]
    return abs(new - old) > max(absolute, relative * abs(old))
