"""Tables of custody: every file of a session from the microscope's disk to proved copies, and what hangs on it."""

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import JSON, BigInteger, ForeignKey, Index, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from vitriflow.catalog.tables import Base, BigId


class FileState(StrEnum):
    """Where one file stands on its way from the microscope's disk to a proved copy."""

    SEEN = "seen"  # it exists, and may still be growing
    COMPLETE = "complete"  # whole; waits to be copied
    COPIED = "copied"  # written and synced under its own name; not yet read back
    PROVED = "proved"  # read back past the page cache and found equal
    PROBLEM = "problem"  # set aside: problem_code and problem say why; never freed
    REPLACED = "replaced"  # another file came under the same name; see the next generation


class SourceFile(Base):
    """One file that a session's source folder holds or held. Rows are never deleted.

    ``generation`` is 1 for the first file of that name, and grows when other bytes come under the
    same name. ``stamp`` (the source's own change time, ns) and ``size`` are its identity on
    the source: they're only compared with earlier values of themselves, never with a clock.
    """

    __tablename__ = "source_file"
    __table_args__ = (
        UniqueConstraint("session_id", "key", "generation"),
        Index("ix_source_file_state", "session_id", "state", "id"),
    )
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    session_id: Mapped[int] = mapped_column(ForeignKey("session.id"))
    key: Mapped[str] = mapped_column(String(512))  # path below the source folder
    generation: Mapped[int] = mapped_column(default=1)
    kind: Mapped[str] = mapped_column(String(24))  # acquisition.FileKind
    software: Mapped[str] = mapped_column(String(32), default="")
    state: Mapped[str] = mapped_column(String(16), default=FileState.SEEN)
    problem_code: Mapped[str | None] = mapped_column(String(64))
    problem: Mapped[str | None] = mapped_column(Text)
    size: Mapped[int] = mapped_column(BigInteger, default=0)
    stamp: Mapped[int] = mapped_column(BigInteger, default=0)
    blake3: Mapped[str | None] = mapped_column(String(64))
    destination: Mapped[str | None] = mapped_column(String(600))  # path below the session's folder
    decodable: Mapped[bool | None]  # its own format's check; None where a kind has none
    attempts: Mapped[int] = mapped_column(default=0)
    not_before: Mapped[datetime | None]  # the next try waits until then
    first_seen_at: Mapped[datetime]
    complete_at: Mapped[datetime | None]
    copied_at: Mapped[datetime | None]
    proved_at: Mapped[datetime | None]
    freed_at: Mapped[datetime | None]  # removed from the microscope's disk, by permit
    gone_at: Mapped[datetime | None]  # seen to be missing from the source, not freed by us


class OpticsGroup(Base):
    """A cluster of beam shifts. A number that was given once never changes its meaning."""

    __tablename__ = "optics_group"
    __table_args__ = (UniqueConstraint("session_id", "number"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    session_id: Mapped[int] = mapped_column(ForeignKey("session.id"))
    number: Mapped[int]
    name: Mapped[str] = mapped_column(String(64))
    basis: Mapped[str] = mapped_column(String(16))  # beam_shift, image_shift, name, none
    centre_x: Mapped[float | None]
    centre_y: Mapped[float | None]
    details: Mapped[dict[str, Any]] = mapped_column(default=dict)


class Place(Base):
    """A grid square, foil hole or atlas of a session, with where it is and the images of it."""

    __tablename__ = "place"
    __table_args__ = (UniqueConstraint("session_id", "kind", "name"),)
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    session_id: Mapped[int] = mapped_column(ForeignKey("session.id"))
    kind: Mapped[str] = mapped_column(String(16))  # grid_square, foil_hole, atlas
    name: Mapped[str] = mapped_column(String(128))
    parent: Mapped[str | None] = mapped_column(String(128))  # a foil hole's grid square
    stage_x_um: Mapped[float | None]
    stage_y_um: Mapped[float | None]
    image: Mapped[str | None] = mapped_column(String(512))  # key of its best image
    details: Mapped[dict[str, Any]] = mapped_column(default=dict)


class TiltSeries(Base):
    """Exposures of one position at several tilts; each exposure names its series."""

    __tablename__ = "tilt_series"
    __table_args__ = (UniqueConstraint("session_id", "name"),)
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    session_id: Mapped[int] = mapped_column(ForeignKey("session.id"))
    name: Mapped[str] = mapped_column(String(256))
    software: Mapped[str] = mapped_column(String(32), default="")
    details: Mapped[dict[str, Any]] = mapped_column(default=dict)


class ArchiveCopy(Base):
    """One copy of a session's files in an archive tier."""

    __tablename__ = "archive_copy"
    __table_args__ = (Index("ix_archive_copy_session", "session_id", "tier"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    session_id: Mapped[int] = mapped_column(ForeignKey("session.id"))
    tier: Mapped[str] = mapped_column(String(64))  # name of the tier in facility.toml
    state: Mapped[str] = mapped_column(String(16))  # writing, proved, failed, recalling
    location: Mapped[str] = mapped_column(Text)
    n_files: Mapped[int] = mapped_column(default=0)
    n_bytes: Mapped[int] = mapped_column(BigInteger, default=0)
    manifest_blake3: Mapped[str | None] = mapped_column(String(64))
    problem: Mapped[str | None] = mapped_column(Text)
    details: Mapped[dict[str, Any]] = mapped_column(default=dict)  # progress, and what its tier notes
    started_at: Mapped[datetime]
    proved_at: Mapped[datetime | None]
    checked_at: Mapped[datetime | None]


class Hold(Base):
    """Somebody said that nothing of this session may be freed or removed, until it's lifted."""

    __tablename__ = "hold"
    id: Mapped[int] = mapped_column(primary_key=True)
    session_id: Mapped[int] = mapped_column(ForeignKey("session.id"))
    reason: Mapped[str] = mapped_column(Text)
    placed_by: Mapped[str] = mapped_column(String(128))
    placed_at: Mapped[datetime]
    lifted_by: Mapped[str | None] = mapped_column(String(128))
    lifted_at: Mapped[datetime | None]


class Node(Base):
    """A service process of this facility and when it was last alive."""

    __tablename__ = "node"
    name: Mapped[str] = mapped_column(String(192), primary_key=True)  # host and service
    service: Mapped[str] = mapped_column(String(32))  # acquire, process, serve
    started_at: Mapped[datetime]
    seen_at: Mapped[datetime]
    details: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)


class Alarm(Base):
    """Something that's wrong until it's over: one row from raised to cleared."""

    __tablename__ = "alarm"
    __table_args__ = (Index("ix_alarm_open", "cleared_at", "rule"),)
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    rule: Mapped[str] = mapped_column(String(64))  # silence, disk_full, copy_behind, ...
    subject: Mapped[str] = mapped_column(String(192))  # microscope:tem1, session:KEY, node:NAME
    session_id: Mapped[int | None] = mapped_column(ForeignKey("session.id"))
    microscope: Mapped[str | None] = mapped_column(String(64))
    severity: Mapped[str] = mapped_column(String(16), default="warning")  # info, warning, alarm
    text: Mapped[str] = mapped_column(Text)
    value: Mapped[float | None]
    raised_at: Mapped[datetime]
    cleared_at: Mapped[datetime | None]
    acknowledged_by: Mapped[str | None] = mapped_column(String(128))
    acknowledged_at: Mapped[datetime | None]
    told: Mapped[list[Any]] = mapped_column(default=list)  # who was told, by which way, when
