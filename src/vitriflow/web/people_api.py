"""People by REST: add, change, new passwords. What the pages of people do, for programs."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session as OrmSession

from vitriflow.catalog import Person
from vitriflow.elogbook.audit import audit
from vitriflow.elogbook.people import add_person, find_person, replace_password, set_person
from vitriflow.elogbook.permissions import Caller
from vitriflow.elogbook.tokens import hash_password, new_password
from vitriflow.errors import BadParameter
from vitriflow.web.auth import needs
from vitriflow.web.models import ErrorAnswer
from vitriflow.web.problems import NotFound
from vitriflow.web.site import site_of

_ERRORS: dict[int | str, dict[str, Any]] = {
    code: {"model": ErrorAnswer} for code in (401, 403, 404, 422, 503)
}
router = APIRouter(prefix="/api", responses=_ERRORS, tags=["people"])
Writer = Annotated[Caller, needs("people.write")]
Login = Annotated[str, Path(min_length=1, max_length=64, pattern=r"^[^\x00-\x1f\x7f]+$")]


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid")


class PersonRequest(_Asked):
    """Somebody new."""

    login: str = Field(min_length=1, max_length=64)
    name: str = Field(default="", max_length=256)
    email: str = Field(default="", max_length=256)
    facility_role: str = Field(default="", max_length=16, description="administrator, operator or empty")
    unix_name: str = Field(default="", max_length=64, description="account on the facility's machines")
    source: str = Field(default="local", max_length=16, description="where the password is kept")


class PersonChange(_Asked):
    """What's to change; what's left out stays."""

    name: str | None = Field(default=None, max_length=256)
    email: str | None = Field(default=None, max_length=256)
    facility_role: str | None = Field(default=None, max_length=16)
    unix_name: str | None = Field(default=None, max_length=64)
    active: bool | None = None


class PersonAnswer(BaseModel):
    """Somebody; a new password is told this once."""

    login: str
    name: str
    email: str
    facility_role: str
    source: str
    unix_name: str | None
    active: bool
    password: str | None = None


def _shown(person: Person, password: str = "") -> PersonAnswer:
    names = ("login", "name", "email", "facility_role", "source", "unix_name", "active")
    return PersonAnswer(**{name: getattr(person, name) for name in names}, password=password or None)


def _find(orm: OrmSession, login: str) -> Person:
    try:
        return find_person(orm, login)
    except BadParameter as error:
        raise NotFound(error.thing, error.expected, error.found) from error


@router.post("/people", status_code=201)
def add(request: Request, caller: Writer, asked: PersonRequest) -> PersonAnswer:
    """Add somebody; a local account gets a password, which is told this once."""
    secret = new_password() if asked.source == "local" else ""
    hashed = hash_password(secret) if secret else None

    def work(orm: OrmSession) -> PersonAnswer:
        person = add_person(
            orm,
            asked.login,
            name=asked.name,
            email=asked.email,
            facility_role=asked.facility_role,
            password_hash=hashed,
            source=asked.source,
            unix_name=asked.unix_name,
        )
        details = {"role": asked.facility_role, "source": asked.source}
        audit(orm, caller, "people.add", f"person {person.login}", details)
        return _shown(person, secret)

    return site_of(request).catalog.write(work)


@router.patch("/people/{login}")
def change(request: Request, caller: Writer, login: Login, asked: PersonChange) -> PersonAnswer:
    """Change somebody's details, role, or whether they may come in at all."""
    values = {
        name: value for name, value in asked.model_dump(exclude_unset=True).items() if value is not None
    }

    def work(orm: OrmSession) -> PersonAnswer:
        person = _find(orm, login)
        changed = set_person(orm, person, values)
        audit(orm, caller, "people.change", f"person {person.login}", changed)
        return _shown(person)

    return site_of(request).catalog.write(work)


@router.post("/people/{login}/password")
def reset_password(request: Request, caller: Writer, login: Login) -> PersonAnswer:
    """Give a local account a new password, told this once, and sign it out everywhere."""
    secret = new_password()
    hashed = hash_password(secret)

    def work(orm: OrmSession) -> PersonAnswer:
        person = _find(orm, login)
        replace_password(orm, caller, person, hashed)
        return _shown(person, secret)

    return site_of(request).catalog.write(work)
