"""Shapes of what the queries give: plain values, good after their transaction."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

EXPOSURE = "exposure"

#: Columns of ``Measure`` that are numbers to plot or to sort by.
QUANTITIES = (
    "early_A",
    "late_A",
    "total_A",
    "net_A",
    "mean_intensity",
    "defocus_A",
    "astigmatism_A",
    "defocus_angle_deg",
    "phase_shift_deg",
    "cross_correlation",
    "fit_resolution_A",
    "ice_ring",
    "n_picks",
    "latency_s",
)


@dataclass(frozen=True)
class SessionView:
    """A session with the names that a page shows beside it."""

    id: int
    key: str
    state: str
    source: str
    root: str
    microscope: str
    sample: str
    experiment: str
    experiment_title: str
    settings: dict[str, Any]
    survey: dict[str, Any]
    created_at: datetime
    closed_at: datetime | None
    residence: str = "resident"  # archived, or both: where its raw files are


@dataclass(frozen=True)
class ProcessingView:
    """A processing without its template."""

    id: int
    name: str
    state: str
    change: int
    root: str
    parameters: dict[str, Any]
    created_at: datetime
    selected: int | None = None  # how many exposures it's for; None: all
    selection: str = ""  # how they were chosen, in words


@dataclass(frozen=True)
class NodeView:
    """How many tasks of a node stand where, for its newest revision."""

    node: str
    revision: int
    counts: dict[str, int]


@dataclass(frozen=True)
class ExposureView:
    """What is known of one exposure before any step ran."""

    id: int
    key: str
    item: str
    kind: str
    software: str
    state: str
    problem_code: str | None
    problem: str | None
    path: str
    size: int
    blake3: str | None
    optics_group: int
    details: dict[str, Any]
    first_seen_at: datetime
    complete_at: datetime | None
    copied_at: datetime | None
    proved_at: datetime | None


@dataclass(frozen=True)
class AttemptView:
    """An attempt that didn't end well."""

    number: int
    reason_code: str
    reason: str
    ended_at: datetime


@dataclass(frozen=True)
class TaskView:
    """One node for one item, with the record it left (None while it's open)."""

    node: str
    revision: int
    state: str
    attempts: int
    reason_code: str | None
    reason: str | None
    queued_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    worker: str | None
    result_id: int | None
    record: dict[str, Any] | None
    failed_attempts: tuple[AttemptView, ...] = ()


@dataclass(frozen=True)
class Pulse:
    """What changes when a session's page has something new to show."""

    processing_id: int | None
    change: int
    state: str
    last_event: int
    arrivals: tuple[int, ...]  # newest exposure in each state of intake
    people: tuple[int, ...] = ()  # marks made and undone, limits set
