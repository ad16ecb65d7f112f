"""Tables of people: who they are, what they belong to, how they come in, and what they did."""

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index, String, UniqueConstraint, event
from sqlalchemy.engine import Connection
from sqlalchemy.orm import Mapped, Mapper, mapped_column

from vitriflow.catalog.tables import Base, BigId
from vitriflow.errors import CatalogError


class Person(Base):
    """Somebody who may sign in. Rows are never deleted: what they did names them."""

    __tablename__ = "person"
    id: Mapped[int] = mapped_column(primary_key=True)
    login: Mapped[str] = mapped_column(String(64), unique=True)  # lower case
    name: Mapped[str] = mapped_column(String(128))
    email: Mapped[str] = mapped_column(String(254), default="")
    facility_role: Mapped[str] = mapped_column(String(16), default="")  # administrator, operator or none
    password_hash: Mapped[str | None] = mapped_column(String(256))  # argon2; None: can't sign in locally
    source: Mapped[str] = mapped_column(String(16), default="local")  # local, ldap, oidc
    unix_name: Mapped[str | None] = mapped_column(String(32))  # account on the facility's machines
    active: Mapped[bool] = mapped_column(default=True)
    created_at: Mapped[datetime]
    last_sign_in_at: Mapped[datetime | None]


class Membership(Base):
    """A person belongs to an experiment from ``since`` until ``until`` (None: still)."""

    __tablename__ = "membership"
    __table_args__ = (
        Index("ix_membership_person", "person_id"),
        Index("ix_membership_experiment", "experiment_id"),
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    experiment_id: Mapped[int] = mapped_column(ForeignKey("experiment.id"))
    person_id: Mapped[int] = mapped_column(ForeignKey("person.id"))
    role: Mapped[str] = mapped_column(String(16))  # operator, collaborator, researcher
    since: Mapped[datetime]
    until: Mapped[datetime | None]


class Helper(Base):
    """Somebody an operator lets log in to the microscope for one session."""

    __tablename__ = "helper"
    __table_args__ = (Index("ix_helper_session", "session_id"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    session_id: Mapped[int] = mapped_column(ForeignKey("session.id"))
    person_id: Mapped[int] = mapped_column(ForeignKey("person.id"))
    added_by: Mapped[str] = mapped_column(String(64))  # login
    added_at: Mapped[datetime]
    revoked_at: Mapped[datetime | None]


class WebSession(Base):
    """A browser that's signed in. Only the hash of its cookie is kept."""

    __tablename__ = "web_session"
    __table_args__ = (Index("ix_web_session_person", "person_id"),)
    token_hash: Mapped[str] = mapped_column(String(64), primary_key=True)
    person_id: Mapped[int] = mapped_column(ForeignKey("person.id"))
    csrf: Mapped[str] = mapped_column(String(64))
    address: Mapped[str] = mapped_column(String(64), default="")
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]


class ApiToken(Base):
    """A token that a person made for programs. Only its hash is kept."""

    __tablename__ = "api_token"
    __table_args__ = (UniqueConstraint("token_hash"), Index("ix_api_token_person", "person_id"))
    id: Mapped[int] = mapped_column(primary_key=True)
    person_id: Mapped[int] = mapped_column(ForeignKey("person.id"))
    name: Mapped[str] = mapped_column(String(64))
    token_hash: Mapped[str] = mapped_column(String(64))
    scopes: Mapped[list[Any]]  # of read, write, control, admin
    experiment_id: Mapped[int | None] = mapped_column(
        ForeignKey("experiment.id")
    )  # None: all of the person's
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    revoked_at: Mapped[datetime | None]
    used_at: Mapped[datetime | None]


class Audit(Base):
    """Who did what, when and from where: append-only."""

    __tablename__ = "audit"
    __table_args__ = (Index("ix_audit_at", "at"), Index("ix_audit_login", "login", "id"))
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    at: Mapped[datetime]
    person_id: Mapped[int | None] = mapped_column(ForeignKey("person.id"))
    login: Mapped[str] = mapped_column(String(64))  # as it was then; "" for nobody, "local" in open mode
    action: Mapped[str] = mapped_column(String(64))
    subject: Mapped[str] = mapped_column(String(255), default="")
    details: Mapped[dict[str, Any]] = mapped_column(default=dict)
    address: Mapped[str] = mapped_column(String(64), default="")


@event.listens_for(Audit, "before_update")
@event.listens_for(Audit, "before_delete")
def _refuse(_mapper: Mapper[Any], _connection: Connection, _row: Audit) -> None:
    raise CatalogError("audit", "rows that are only added", "a change of one", "Add a row that corrects it.")
