"""Tables of streaming: batches that a trigger released, and changes that people asked of a processing."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Index, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from vitriflow.catalog.tables import Base, BigId


class Batch(Base):
    """Exposures that went on together. It's the item of tasks with item type ``batch`` or ``session``.

    Its own members are those that came since the batch before (:class:`BatchMember`). With mode
    ``growing`` and ``session`` the members of all earlier ones count too.
    """

    __tablename__ = "batch"
    __table_args__ = (UniqueConstraint("processing_id", "node", "revision", "number"),)
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    processing_id: Mapped[int] = mapped_column(ForeignKey("processing.id"))
    node: Mapped[str] = mapped_column(String(64))  # the trigger, or the step of scope session itself
    revision: Mapped[int] = mapped_column(default=1)
    number: Mapped[int]  # from 1
    mode: Mapped[str] = mapped_column(String(16))  # once, growing, batches, session
    cause: Mapped[str] = mapped_column(String(16))  # micrographs, particles, time, end, stop
    n_items: Mapped[int]  # members, those of earlier batches included where they count
    n_new: Mapped[int]
    particles: Mapped[int]  # of its new members
    created_at: Mapped[datetime]


class BatchMember(Base):
    """An exposure that came with a batch for the first time."""

    __tablename__ = "batch_member"
    __table_args__ = (Index("ix_batch_member_exposure", "exposure_id"),)
    batch_id: Mapped[int] = mapped_column(ForeignKey("batch.id"), primary_key=True)
    exposure_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)


class Change(Base):
    """A change that a person asked of a processing: a moved threshold, a restart, a verdict taken back.

    People's programs write it; the coordinator, which alone writes tasks and results, carries it out.
    """

    __tablename__ = "change_request"
    __table_args__ = (Index("ix_change_request_open", "processing_id", "applied_at"),)
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    processing_id: Mapped[int] = mapped_column(ForeignKey("processing.id"))
    kind: Mapped[str] = mapped_column(String(16))  # restart, threshold, verdict
    details: Mapped[dict[str, Any]]
    author: Mapped[str] = mapped_column(String(64), default="")
    at: Mapped[datetime]
    applied_at: Mapped[datetime | None]  # carried out or refused; None while it waits
    refused: Mapped[str | None] = mapped_column(Text)  # why it couldn't be carried out
    outcome: Mapped[dict[str, Any] | None]  # what it did, in numbers
