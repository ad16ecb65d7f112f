"""Tables of the catalog: what is known. Words are those of the architecture's word list.

Everything an item is asked about often (state, counts, plots) stands in plain columns; full
records are JSON beside them. All timestamps are UTC with zone, on our own clock.
"""

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import JSON, BigInteger, ForeignKey, Index, Integer, String, Text, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from vitriflow.catalog.types import UtcDateTime

BigId = BigInteger().with_variant(Integer, "sqlite")


class Base(DeclarativeBase):
    """Parent of all tables."""

    type_annotation_map = {  # noqa: RUF012  (SQLAlchemy reads it from the class)
        datetime: UtcDateTime,
        dict[str, Any]: JSON,
        list[Any]: JSON,
    }


class SessionState(StrEnum):
    """Where a session stands."""

    NEW = "new"
    ACTIVE = "active"
    PAUSED = "paused"
    CLOSED = "closed"


class ExposureState(StrEnum):
    """Where an exposure stands on its way in."""

    SEEN = "seen"  # it exists, and may still be growing
    COMPLETE = "complete"  # its own structure says that it's whole; ready for processing
    PROBLEM = "problem"  # set aside before any step ran: problem_code and problem say why


class TaskState(StrEnum):
    """Where one node stands for one item."""

    WAITING = "waiting"  # its inputs aren't there yet
    READY = "ready"
    RUNNING = "running"
    DONE = "done"
    REJECTED = "rejected"
    QUARANTINED = "quarantined"
    FAILED = "failed"
    STOPPED = "stopped"  # never came in: a node it needs was quarantined, rejected or failed


class Microscope(Base):
    """tem1 ...: what is fixed about an instrument."""

    __tablename__ = "microscope"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(64), unique=True)
    settings: Mapped[dict[str, Any]] = mapped_column(default=dict)


class Experiment(Base):
    """An award of time to people."""

    __tablename__ = "experiment"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(64), unique=True)
    title: Mapped[str] = mapped_column(Text, default="")
    pi_person_id: Mapped[int | None]  # person.id; no foreign key: SQLite can't add one to a table in use
    starts_at: Mapped[datetime | None]
    ends_at: Mapped[datetime | None]
    state: Mapped[str] = mapped_column(String(16), default="open", server_default="open")  # or closed
    created_at: Mapped[datetime]


class Sample(Base):
    """What is on the grid."""

    __tablename__ = "sample"
    __table_args__ = (UniqueConstraint("experiment_id", "name"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    experiment_id: Mapped[int] = mapped_column(ForeignKey("experiment.id"))
    name: Mapped[str] = mapped_column(String(128))
    settings: Mapped[dict[str, Any]] = mapped_column(default=dict)  # imaging parameters, by their names
    title: Mapped[str] = mapped_column(Text, default="", server_default="")
    description: Mapped[str] = mapped_column(Text, default="", server_default="")
    state: Mapped[str] = mapped_column(String(16), default="new", server_default="new")  # active, stopped
    cloned_from: Mapped[int | None]
    created_at: Mapped[datetime | None]


class Session(Base):
    """One stretch of collection of one sample on one microscope."""

    __tablename__ = "session"
    id: Mapped[int] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(String(128), unique=True)
    microscope_id: Mapped[int] = mapped_column(ForeignKey("microscope.id"))
    sample_id: Mapped[int] = mapped_column(ForeignKey("sample.id"))
    state: Mapped[str] = mapped_column(String(16), default=SessionState.NEW)
    source: Mapped[str] = mapped_column(Text)  # folder that the microscope writes
    root: Mapped[str] = mapped_column(Text)  # the session's own folder
    settings: Mapped[dict[str, Any]] = mapped_column(default=dict)  # imaging parameters, as asked
    survey: Mapped[dict[str, Any]] = mapped_column(default=dict)  # counts of files by what they are
    mode: Mapped[str] = mapped_column(String(16), default="in_place", server_default="in_place")  # or copy
    residence: Mapped[str] = mapped_column(
        String(16), default="resident", server_default="resident"
    )  # resident, archived, both: where its raw files are
    created_at: Mapped[datetime]
    closed_at: Mapped[datetime | None]


class Exposure(Base):
    """One movie (or ready micrograph) with its metadata: the unit that streams."""

    __tablename__ = "exposure"
    __table_args__ = (
        UniqueConstraint("session_id", "key"),
        Index("ix_exposure_intake", "session_id", "state", "id"),
    )
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    session_id: Mapped[int] = mapped_column(ForeignKey("session.id"))
    key: Mapped[str] = mapped_column(String(512))  # path below the source folder, with suffix
    item: Mapped[str] = mapped_column(String(512))  # key without suffix: names the outputs
    path: Mapped[str] = mapped_column(Text)  # where it's read from
    kind: Mapped[str] = mapped_column(String(16), default="movie")  # movie or micrograph
    software: Mapped[str] = mapped_column(String(32), default="")
    state: Mapped[str] = mapped_column(String(16), default=ExposureState.SEEN)
    problem_code: Mapped[str | None] = mapped_column(String(64))
    problem: Mapped[str | None] = mapped_column(Text)
    size: Mapped[int] = mapped_column(BigInteger, default=0)
    blake3: Mapped[str | None] = mapped_column(String(64))
    optics_group: Mapped[int] = mapped_column(default=1)
    grid_square: Mapped[str | None] = mapped_column(String(128))
    foil_hole: Mapped[str | None] = mapped_column(String(128))
    tilt_series: Mapped[str | None] = mapped_column(String(256))
    tilt_angle_deg: Mapped[float | None]
    details: Mapped[dict[str, Any]] = mapped_column("metadata", JSON, default=dict)
    first_seen_at: Mapped[datetime]
    complete_at: Mapped[datetime | None]
    copied_at: Mapped[datetime | None]
    proved_at: Mapped[datetime | None]


class Processing(Base):
    """One pipeline, its parameters frozen, applied to one session."""

    __tablename__ = "processing"
    __table_args__ = (UniqueConstraint("session_id", "name"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    session_id: Mapped[int] = mapped_column(ForeignKey("session.id"))
    name: Mapped[str] = mapped_column(String(64))
    template: Mapped[str] = mapped_column(Text)  # the YAML as loaded
    parameters: Mapped[dict[str, Any]] = mapped_column(default=dict)
    root: Mapped[str] = mapped_column(Text)  # the RELION project folder
    state: Mapped[str] = mapped_column(String(16), default="running")  # running, paused, finished
    change: Mapped[int] = mapped_column(BigInteger, default=0)  # grows with every commit that pages show
    jobs: Mapped[dict[str, Any] | None]  # job numbers of nodes that were restarted: their files lie elsewhere
    selection: Mapped[dict[str, Any] | None]  # the exposures it's for; None: all, those that come later too
    created_at: Mapped[datetime]


class Task(Base):
    """One node of a processing for one item, with state and times."""

    __tablename__ = "task"
    __table_args__ = (
        UniqueConstraint("processing_id", "node", "revision", "item_type", "item_id"),
        Index("ix_task_state", "processing_id", "state", "node", "revision"),
        Index("ix_task_item", "processing_id", "item_type", "item_id"),
    )
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    processing_id: Mapped[int] = mapped_column(ForeignKey("processing.id"))
    node: Mapped[str] = mapped_column(String(64))
    revision: Mapped[int] = mapped_column(default=1)
    item_type: Mapped[str] = mapped_column(String(16), default="exposure")
    item_id: Mapped[int] = mapped_column(BigInteger)
    state: Mapped[str] = mapped_column(String(16), default=TaskState.WAITING)
    attempts: Mapped[int] = mapped_column(default=0)
    not_before: Mapped[datetime | None]  # a retry waits until then
    reason_code: Mapped[str | None] = mapped_column(String(64))
    reason: Mapped[str | None] = mapped_column(Text)
    queued_at: Mapped[datetime | None]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    worker: Mapped[str | None] = mapped_column(String(128))


class Attempt(Base):
    """An attempt that didn't end well, kept with its reason."""

    __tablename__ = "attempt"
    __table_args__ = (Index("ix_attempt_task", "task_id"),)
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    task_id: Mapped[int] = mapped_column(ForeignKey("task.id"))
    number: Mapped[int]
    reason_code: Mapped[str] = mapped_column(String(64))
    reason: Mapped[str] = mapped_column(Text)
    started_at: Mapped[datetime | None]
    ended_at: Mapped[datetime]


class ResultRow(Base):
    """The typed record that a finished task left. Unique by (processing, node, revision, item)."""

    __tablename__ = "result"
    __table_args__ = (UniqueConstraint("processing_id", "node", "revision", "item_type", "item_id"),)
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    processing_id: Mapped[int] = mapped_column(ForeignKey("processing.id"))
    node: Mapped[str] = mapped_column(String(64))
    revision: Mapped[int] = mapped_column(default=1)
    item_type: Mapped[str] = mapped_column(String(16), default="exposure")
    item_id: Mapped[int] = mapped_column(BigInteger)
    status: Mapped[str] = mapped_column(String(16))
    record: Mapped[dict[str, Any]]  # steps.records.Result as JSON, provenance included
    created_at: Mapped[datetime]


class Measure(Base):
    """What pages plot: one row per exposure of a processing, columns only.

    ``status`` is the exposure's own: open, done, rejected, quarantined or failed; these five
    always add up to the number of rows. ``change`` is the processing's change number at the
    last write, so that a page asks only for what is new.
    """

    __tablename__ = "measure"
    __table_args__ = (
        Index("ix_measure_status", "processing_id", "status"),
        Index("ix_measure_change", "processing_id", "change"),
    )
    processing_id: Mapped[int] = mapped_column(ForeignKey("processing.id"), primary_key=True)
    exposure_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    change: Mapped[int] = mapped_column(BigInteger, default=0)
    status: Mapped[str] = mapped_column(String(16), default="open")
    reason_code: Mapped[str | None] = mapped_column(String(64))
    reason: Mapped[str | None] = mapped_column(Text)
    early_A: Mapped[float | None]
    late_A: Mapped[float | None]
    total_A: Mapped[float | None]
    net_A: Mapped[float | None]
    mean_intensity: Mapped[float | None]
    defocus_A: Mapped[float | None]  # mean of u and v
    astigmatism_A: Mapped[float | None]
    defocus_angle_deg: Mapped[float | None]
    phase_shift_deg: Mapped[float | None]
    cross_correlation: Mapped[float | None]
    fit_resolution_A: Mapped[float | None]
    ice_ring: Mapped[float | None]
    ctf_quality: Mapped[str | None] = mapped_column(String(16))
    n_picks: Mapped[int | None]
    n_particles: Mapped[int | None]  # boxes that were extracted
    max_frame_A: Mapped[float | None]  # largest shift from one frame to the next
    tilt_deg: Mapped[float | None]
    masked_fraction: Mapped[float | None]
    complete_at: Mapped[datetime | None]  # the file was seen whole
    first_result_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    latency_s: Mapped[float | None]  # complete_at to finished_at


class Event(Base):
    """What happened that people are told: append-only."""

    __tablename__ = "event"
    __table_args__ = (Index("ix_event_session", "session_id", "id"),)
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    at: Mapped[datetime]
    session_id: Mapped[int | None] = mapped_column(ForeignKey("session.id"))
    processing_id: Mapped[int | None] = mapped_column(ForeignKey("processing.id"))
    severity: Mapped[str] = mapped_column(String(16), default="info")  # info, warning, alarm
    text: Mapped[str] = mapped_column(Text)


class Lease(Base):
    """Who works on what now. Taken and renewed by compare-and-set on ``epoch``; no server-side locks."""

    __tablename__ = "lease"
    name: Mapped[str] = mapped_column(String(128), primary_key=True)
    owner: Mapped[str] = mapped_column(String(256))
    epoch: Mapped[int] = mapped_column(BigInteger, default=0)
    expires_at: Mapped[datetime]
