"""What the API of people, tokens, access, audit and files takes and gives."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid")


class LoginRequest(_Asked):
    """A login and its password, for a token."""

    login: str = Field(min_length=1, max_length=64)
    password: str = Field(min_length=1, max_length=1024)
    name: str = Field(default="command line", max_length=64, description="what the token is called")
    scopes: list[str] = Field(default=["read"], max_length=5)
    days: float = Field(default=30.0, gt=0, le=366)


class TokenRequest(_Asked):
    """A token to be made for oneself."""

    name: str = Field(min_length=1, max_length=64)
    scopes: list[str] = Field(default=["read"], max_length=5)
    days: float = Field(default=90.0, gt=0, le=366)
    experiment: str = Field(default="", max_length=64, description="only for this experiment; empty for all")


class MemberRequest(_Asked):
    """The role that somebody is to have in an experiment."""

    role: str = Field(max_length=16, description="operator, collaborator or researcher")


class TokenMade(BaseModel):
    """A new token; its secret is told this once."""

    token: str
    name: str
    scopes: list[str]
    expires_at: datetime


class TokenView(BaseModel):
    """A token, without its secret."""

    id: int
    name: str
    scopes: list[str]
    created_at: datetime
    expires_at: datetime
    used_at: datetime | None


class TokensAnswer(BaseModel):
    """One's own tokens."""

    tokens: list[TokenView]


class MeAnswer(BaseModel):
    """Who asks."""

    login: str
    name: str
    way: str
    facility_role: str
    scopes: list[str]
    experiments: dict[str, str]


class EntryView(BaseModel):
    """Somebody who may log in, and why."""

    login: str
    name: str
    unix_name: str | None
    why: str


class AccessAnswer(BaseModel):
    """Who may log in to a microscope now."""

    microscope: str
    session: str | None
    experiment: str | None
    unix_names: list[str]
    people: list[EntryView]


class MemberView(BaseModel):
    """Somebody who belongs to an experiment."""

    login: str
    name: str
    role: str


class MembersAnswer(BaseModel):
    """Who belongs to an experiment."""

    experiment: str
    members: list[MemberView]


class HelpersAnswer(BaseModel):
    """Who may log in for a session besides operators and collaborators."""

    session: str
    helpers: list[str]


class AuditView(BaseModel):
    """One thing that somebody did."""

    id: int
    at: datetime
    login: str
    action: str
    subject: str
    details: dict[str, Any]
    address: str


class AuditAnswer(BaseModel):
    """What was done, newest first."""

    rows: list[AuditView]


class FileView(BaseModel):
    """A file or folder of a session."""

    name: str
    path: str
    kind: str = Field(description="file or folder")
    size: int | None
    blake3: str | None = Field(description="as proved when it was taken in; null where nobody proved it")


class FilesAnswer(BaseModel):
    """What a folder of a session holds."""

    session: str
    path: str
    files: list[FileView]
