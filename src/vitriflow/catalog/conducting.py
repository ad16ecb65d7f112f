"""Tables of conducted processing: what was handed to a workflow engine, and what it asked for."""

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Index, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from vitriflow.catalog.tables import Base, BigId


class LotState(StrEnum):
    """Where a lot stands."""

    OFFERED = "offered"  # made, and no run was started for it yet
    TRIGGERED = "triggered"  # the engine has a run for it
    GOING = "going"  # that run has asked for something


class Conducted(Base):
    """A processing whose coordinator starts only what an engine (Airflow) asks for.

    Without a row, or once ``released_at`` is set, the coordinator starts everything by itself.
    """

    __tablename__ = "conducted"
    processing_id: Mapped[int] = mapped_column(ForeignKey("processing.id"), primary_key=True)
    dag: Mapped[str] = mapped_column(String(250), index=True)
    revisions: Mapped[dict[str, Any]]  # hashes of template, parameters and configuration when it began
    created_at: Mapped[datetime]
    released_at: Mapped[datetime | None]  # vitriflow conducts it itself from then on


class Lot(Base):
    """Exposures that one run of a DAG carries: a micro-batch."""

    __tablename__ = "lot"
    __table_args__ = (
        UniqueConstraint("processing_id", "number"),
        UniqueConstraint("dag", "run"),
    )
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    processing_id: Mapped[int] = mapped_column(ForeignKey("processing.id"))
    number: Mapped[int]  # from 1
    dag: Mapped[str] = mapped_column(String(250))
    run: Mapped[str] = mapped_column(String(250))
    state: Mapped[str] = mapped_column(String(16), default=LotState.OFFERED)
    n_exposures: Mapped[int]
    created_at: Mapped[datetime]
    active_at: Mapped[datetime]  # when it was last offered, triggered or asked for


class LotMember(Base):
    """An exposure of a lot. In one processing it's in one lot only."""

    __tablename__ = "lot_member"
    __table_args__ = (UniqueConstraint("processing_id", "exposure_id"),)
    lot_id: Mapped[int] = mapped_column(ForeignKey("lot.id"), primary_key=True)
    exposure_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    processing_id: Mapped[int] = mapped_column(ForeignKey("processing.id"))


class Ask(Base):
    """One try of a DAG's task: run a node, and those behind it in the same call, for a lot.

    It's written by the web server; the coordinator alone starts, retries and records.
    """

    __tablename__ = "ask"
    __table_args__ = (
        UniqueConstraint("lot_id", "node", "try_number"),
        Index("ix_ask_processing", "processing_id", "id"),
    )
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    processing_id: Mapped[int] = mapped_column(ForeignKey("processing.id"))
    lot_id: Mapped[int] = mapped_column(ForeignKey("lot.id"))
    node: Mapped[str] = mapped_column(String(64))
    nodes: Mapped[list[Any]]  # the node, and those that run in one call with it
    try_number: Mapped[int]
    revisions: Mapped[dict[str, Any]]  # of the DAG, the template, the parameters and the configuration
    redo: Mapped[bool]  # a person cleared the task, or the engine tries again: what isn't done is done anew
    redo_before: Mapped[datetime | None]  # results older than this are made anew as well
    author: Mapped[str] = mapped_column(String(64), default="")
    at: Mapped[datetime]
    applied_at: Mapped[datetime | None]  # the coordinator has taken it up
    finished_at: Mapped[datetime | None]
    outcome: Mapped[dict[str, Any] | None]  # counts by state, when it was finished
