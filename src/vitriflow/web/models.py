"""Shapes of the API's answers, for OpenAPI and for those who write clients."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, Field


class ErrorFacts(BaseModel):
    """What went wrong."""

    what: str = Field(description="what the error is about")
    expected: str
    found: str
    remedy: str = Field(description="what the reader can do about it")


class ErrorAnswer(BaseModel):
    """Every error of the API looks like this."""

    error: ErrorFacts


class CountsAnswer(BaseModel):
    """Exposures that came in: ``total`` is the sum of the other five."""

    total: int
    done: int
    failed: int
    rejected: int
    quarantined: int
    open: int
    growing: int = Field(description="part of open: seen on disk, still being written")
    reconciles: bool


class NodeCounts(BaseModel):
    """Tasks of one node by state."""

    node: str
    revision: int
    counts: dict[str, int]


class ProblemCount(BaseModel):
    """Exposures set aside for one reason."""

    code: str
    text: str
    status: str
    count: int
    newest: list[int] = Field(description="ids of the newest exposures concerned")


class VerdictAnswer(BaseModel):
    """A sentence on the session."""

    level: str = Field(description="good, fair, poor or none")
    sentence: str
    reasons: list[str]
    stop: bool = Field(default=False, description="going on would waste the microscope's time")
    advice: str = Field(default="", description="what to do now, for somebody at the microscope")


class PeopleAnswer(BaseModel):
    """What people did: exposures rejected, kept, commented; how many pass the limits that they set."""

    rejected: int
    kept: int
    commented: int
    passing: int | None = Field(description="null while no limits are set")
    outside: int = Field(description="done, but outside the limits")
    ended: int


class SummaryAnswer(BaseModel):
    """A session in numbers."""

    counts: CountsAnswer
    usable: int
    doubtful: int
    rate_per_h: float | None
    latency_p50_s: float | None = Field(description="file complete to last result, median (s)")
    latency_p95_s: float | None
    scan_interval_s: float | None = Field(description="how often the source folder is looked at (s)")
    last: datetime | None = Field(description="when the newest exposure's file was complete")
    problems: list[ProblemCount]
    verdict: VerdictAnswer
    people: PeopleAnswer


class ProcessingAnswer(BaseModel):
    """One pipeline applied to a session."""

    name: str
    state: str
    change: int
    created_at: datetime
    selected: int | None = None  # how many exposures it's for; null: all
    selection: str = ""  # how those were chosen


class SessionAnswer(BaseModel):
    """A session."""

    key: str
    state: str
    microscope: str
    sample: str
    experiment: str
    created_at: datetime
    closed_at: datetime | None
    residence: str = Field(
        default="resident", description="where its raw files are: resident, archived or both"
    )
    processings: list[ProcessingAnswer]
    summary: SummaryAnswer


class AlarmAnswer(BaseModel):
    """Something that's wrong and isn't over."""

    id: int
    rule: str
    subject: str
    microscope: str | None
    severity: str
    text: str
    value: float | None
    raised_at: datetime
    acknowledged_by: str | None
    acknowledged_at: datetime | None


class SpanAnswer(BaseModel):
    """How long exposures took from being first seen to one moment (s)."""

    n: int
    p50_s: float
    p95_s: float


class SessionDetailAnswer(SessionAnswer):
    """A session with its nodes, imaging parameters and what its folder holds."""

    settings: dict[str, Any]
    survey: dict[str, Any]
    unknown: list[str]  # the newest 50 files that no recogniser claims
    nodes: list[NodeCounts]
    alarms: list[AlarmAnswer]  # of this session, and of disks and services
    spans: dict[str, SpanAnswer]  # complete, copied, proved, queued, finished; over its newest exposures


class SessionsAnswer(BaseModel):
    """A page of sessions, newest first."""

    total: int
    sessions: list[SessionAnswer]


class QuantityColumns(BaseModel):
    """One quantity over exposures: parallel lists, and statistics over all exposures."""

    label: str
    unit: str
    digits: int
    count: int
    median: float | None
    p5: float | None
    p95: float | None
    id: list[int]
    n: list[int] = Field(description="number of the exposure in the session, from 1")
    t: list[float | None] = Field(description="when its file was complete (s since 1970 UTC)")
    y: list[float]
    k: list[int] = Field(description="0: itself or the median of its run; -1, 1: lowest, highest of it")
    thinned: bool = Field(description="whether runs of exposures are shown by three values each")
    s: list[str] = Field(description="the exposure's status")


class ColumnsAnswer(BaseModel):
    """Values to plot."""

    change: int = Field(description="give this as 'since' next time")
    total: int = Field(description="exposures known; give this as 'known' next time")
    reset: bool = Field(description="true: replace what you have; false: add to it")
    points: int
    quantities: dict[str, QuantityColumns]


class CardAnswer(BaseModel):
    """One exposure in a list."""

    id: int
    number: int
    name: str
    status: str
    reason_code: str
    reason: str
    quality: str
    values: dict[str, float | None]
    complete_at: float | None
    thumbnail: str | None
    mark: str = Field(description="keep or reject, as people said; empty when nobody did")
    commented: bool
    passes: bool = Field(description="within the limits that people set; true while there are none")


class ExposuresAnswer(BaseModel):
    """A window on the exposures that pass a filter."""

    total: int
    offset: int
    limit: int
    exposures: list[CardAnswer]


class PicksAnswer(BaseModel):
    """Particle positions on one micrograph: parallel lists, highest score first."""

    threshold: float | None = Field(description="score above which a candidate counts as a pick")
    particle_diameter_A: float | None
    pixel_size_A: float | None
    x: list[float] = Field(description="micrograph pixels from the first pixel's centre")
    y: list[float] = Field(description="micrograph pixels; row 0 is the first row as stored")
    score: list[float | None]


class EventAnswer(BaseModel):
    """Something that people are told."""

    id: int
    at: datetime
    severity: str
    text: str


class EventsAnswer(BaseModel):
    """Events, newest first."""

    events: list[EventAnswer]


class ExposureAnswer(BaseModel):
    """One exposure with everything known of it; ``nodes[].result`` is the typed record of its step."""

    id: int
    number: int | None
    key: str
    item: str
    kind: str
    software: str
    state: str
    size_bytes: int
    blake3: str | None
    optics_group: int
    metadata: dict[str, Any]
    first_seen_at: datetime
    complete_at: datetime | None
    copied_at: datetime | None
    proved_at: datetime | None
    status: str
    reason_code: str | None
    reason: str | None
    warnings: list[dict[str, str]]
    values: dict[str, float | None]
    ctf_quality: str | None
    first_result_at: datetime | None
    finished_at: datetime | None
    previous: int | None
    next: int | None
    pictures: dict[str, str]
    preview: dict[str, float | None]
    full: dict[str, int] | None = Field(description="width and height of the micrograph (px), and its result")
    has_picks: bool
    nodes: list[dict[str, Any]]


class HealthAnswer(BaseModel):
    """The server answers."""

    status: str
    version: str
    catalog: str
