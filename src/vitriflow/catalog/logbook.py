"""Tables of the electronic logbook: grids and boxes, entries and their files, what people mark and set."""

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Index, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from vitriflow.catalog.tables import Base, BigId


class GridState(StrEnum):
    """Where a grid is in its life."""

    AVAILABLE = "available"
    LOADED = "loaded"  # on a microscope now
    USED = "used"
    DISCARDED = "discarded"


class GridBox(Base):
    """A box of grids that an experiment brought, and the container that it stands in."""

    __tablename__ = "grid_box"
    __table_args__ = (UniqueConstraint("experiment_id", "name"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    experiment_id: Mapped[int] = mapped_column(ForeignKey("experiment.id"))
    name: Mapped[str] = mapped_column(String(64))  # what's written on the box
    container: Mapped[str] = mapped_column(String(64), default="")  # puck, cassette, dewar
    comment: Mapped[str] = mapped_column(Text, default="")
    created_at: Mapped[datetime]


class Grid(Base):
    """One grid in a box."""

    __tablename__ = "grid"
    __table_args__ = (UniqueConstraint("box_id", "position"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    box_id: Mapped[int] = mapped_column(ForeignKey("grid_box.id"))
    position: Mapped[int]
    name: Mapped[str] = mapped_column(String(64), default="")
    sample_id: Mapped[int | None] = mapped_column(ForeignKey("sample.id"))
    state: Mapped[str] = mapped_column(String(16), default=GridState.AVAILABLE)
    comment: Mapped[str] = mapped_column(Text, default="")


class LogEntry(Base):
    """What somebody wrote, or the system did. Entries are struck out, never deleted."""

    __tablename__ = "log_entry"
    __table_args__ = (Index("ix_log_entry_experiment", "experiment_id", "id"),)
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    experiment_id: Mapped[int] = mapped_column(ForeignKey("experiment.id"))
    sample_id: Mapped[int | None] = mapped_column(ForeignKey("sample.id"))
    session_id: Mapped[int | None] = mapped_column(ForeignKey("session.id"))
    exposure_id: Mapped[int | None] = mapped_column(BigInteger)
    at: Mapped[datetime]
    author: Mapped[str] = mapped_column(String(64))  # login; "vitriflow" for what the system did
    automatic: Mapped[bool] = mapped_column(default=False)
    text: Mapped[str] = mapped_column(Text)  # Markdown
    tags: Mapped[list[Any]] = mapped_column(default=list)
    edited_at: Mapped[datetime | None]
    struck_at: Mapped[datetime | None]
    struck_by: Mapped[str | None] = mapped_column(String(64))


class LogFile(Base):
    """A file or image that belongs to an entry; its bytes are below the storage root."""

    __tablename__ = "log_file"
    __table_args__ = (Index("ix_log_file_entry", "entry_id"),)
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    entry_id: Mapped[int] = mapped_column(ForeignKey("log_entry.id"))
    name: Mapped[str] = mapped_column(String(255))  # as it was uploaded; never used as a path
    media_type: Mapped[str] = mapped_column(String(128))
    size: Mapped[int] = mapped_column(BigInteger)
    blake3: Mapped[str] = mapped_column(String(64))
    path: Mapped[str] = mapped_column(String(255))  # below the storage root, named by its hash


class Mark(Base):
    """What a person said of one exposure: keep, reject, or a comment. Undone, never deleted."""

    __tablename__ = "mark"
    __table_args__ = (Index("ix_mark_exposure", "exposure_id", "id"), Index("ix_mark_session", "session_id"))
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    session_id: Mapped[int] = mapped_column(ForeignKey("session.id"))
    exposure_id: Mapped[int] = mapped_column(BigInteger)
    kind: Mapped[str] = mapped_column(String(16))  # keep, reject, comment
    text: Mapped[str] = mapped_column(Text, default="")
    author: Mapped[str] = mapped_column(String(64))
    at: Mapped[datetime]
    undone_at: Mapped[datetime | None]
    undone_by: Mapped[str | None] = mapped_column(String(64))


class Limits(Base):
    """Thresholds that people set on a processing's results; the newest row counts."""

    __tablename__ = "limits"
    __table_args__ = (Index("ix_limits_processing", "processing_id", "id"),)
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    processing_id: Mapped[int] = mapped_column(ForeignKey("processing.id"))
    values: Mapped[dict[str, Any]] = mapped_column(default=dict)  # quantity -> [low or null, high or null]
    author: Mapped[str] = mapped_column(String(64))
    at: Mapped[datetime]
