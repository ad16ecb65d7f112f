"""Secrets: passwords, browser sessions and API tokens. At rest there are only hashes."""

import hashlib
import hmac
import secrets
from collections.abc import Collection
from datetime import timedelta
from functools import cache

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from sqlalchemy import select
from sqlalchemy.orm import Session as OrmSession

from vitriflow.catalog import ApiToken, Person, WebSession, now
from vitriflow.elogbook.people import caller_of
from vitriflow.elogbook.permissions import Caller, Scope
from vitriflow.errors import BadParameter

SHORTEST_PASSWORD = 10
LONGEST_PASSWORD = 1024
LONGEST_TOKEN_DAYS = 366
PREFIX = "vitriflow_"  # so that scanners of leaked secrets know what they see
_USED_EVERY = timedelta(minutes=1)  # how often a token's last use is written


@cache
def _hasher() -> PasswordHasher:
    return PasswordHasher()


@cache
def _nobodys_hash() -> str:
    return _hasher().hash(secrets.token_hex(16))


def hash_password(password: str) -> str:
    """Argon2id hash of a password.

    Raises
    ------
    BadParameter
        When it's too short or far too long.
    """
    if not SHORTEST_PASSWORD <= len(password) <= LONGEST_PASSWORD:
        raise BadParameter(
            "password",
            f"{SHORTEST_PASSWORD} to {LONGEST_PASSWORD} characters",
            f"{len(password)}",
            "Four or five random words are easy to remember and hard to guess.",
        )
    return _hasher().hash(password)


def password_fits(hashed: str | None, password: str) -> bool:
    """Whether a password is the one of a hash. Takes as long for nobody (None) as for somebody."""
    if len(password) > LONGEST_PASSWORD:
        return False
    try:
        return _hasher().verify(hashed or _nobodys_hash(), password) and hashed is not None
    except (VerificationError, InvalidHashError):
        return False


def new_password() -> str:
    """A random password that can be read aloud."""
    alphabet = "abcdefghjkmnpqrstuvwxyz23456789"
    return "-".join("".join(secrets.choice(alphabet) for _ in range(5)) for _ in range(4))


def hash_secret(secret: str) -> str:
    """Hash under which a long random secret is kept; it needs no salt and no slowness."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def start_session(orm: OrmSession, person: Person, hours: float, address: str = "") -> tuple[str, WebSession]:
    """Sign somebody's browser in: the secret for its cookie, and the row. Always a new secret."""
    secret = secrets.token_urlsafe(32)
    stamp = now()
    row = WebSession(
        token_hash=hash_secret(secret),
        person_id=person.id,
        csrf=secrets.token_urlsafe(24),
        address=address[:64],
        created_at=stamp,
        expires_at=stamp + timedelta(hours=hours),
    )
    for old in orm.scalars(select(WebSession).where(WebSession.expires_at < stamp).limit(1000)):
        orm.delete(old)
    orm.add(row)
    person.last_sign_in_at = stamp
    return secret, row


def caller_of_session(orm: OrmSession, secret: str, address: str = "") -> Caller | None:
    """Who a cookie belongs to; None when it's unknown, over, or its person isn't active."""
    hashed = hash_secret(secret)
    row = orm.get(WebSession, hashed)
    if row is None or not hmac.compare_digest(row.token_hash, hashed) or row.expires_at <= now():
        return None
    person = orm.get(Person, row.person_id)
    if person is None or not person.active:
        return None
    return caller_of(orm, person, "cookie", address=address, csrf=row.csrf)


def end_session(orm: OrmSession, secret: str) -> None:
    """Sign a browser out."""
    row = orm.get(WebSession, hash_secret(secret))
    if row is not None:
        orm.delete(row)


def make_token(
    orm: OrmSession,
    person: Person,
    name: str,
    scopes: Collection[str],
    days: float,
    experiment_id: int | None = None,
) -> tuple[str, ApiToken]:
    """Make a token: its secret, which is shown once, and the row.

    Raises
    ------
    BadParameter
        When the name, the scopes or the days can't be right.
    """
    name = name.strip()
    if not name or len(name) > 64 or not name.isprintable():
        raise BadParameter("token's name", "1 to 64 printable characters", repr(name)[:80])
    unknown = [scope for scope in scopes if scope not in tuple(Scope)]
    if unknown or not scopes:
        raise BadParameter(
            "scopes", "some of " + ", ".join(Scope), ", ".join(map(str, scopes))[:80] or "none"
        )
    if not 0 < days <= LONGEST_TOKEN_DAYS:
        raise BadParameter("days", f"more than 0 and at most {LONGEST_TOKEN_DAYS}", f"{days:g}")
    secret = PREFIX + secrets.token_urlsafe(32)
    stamp = now()
    row = ApiToken(
        person_id=person.id,
        name=name,
        token_hash=hash_secret(secret),
        scopes=[str(scope) for scope in Scope if scope in scopes],
        experiment_id=experiment_id,
        created_at=stamp,
        expires_at=stamp + timedelta(days=days),
    )
    orm.add(row)
    orm.flush()
    return secret, row


def token_of(orm: OrmSession, secret: str) -> ApiToken | None:
    """The row of a token that may be used now; None for any other."""
    hashed = hash_secret(secret)
    row = orm.scalar(select(ApiToken).where(ApiToken.token_hash == hashed))
    if row is None or not hmac.compare_digest(row.token_hash, hashed):
        return None
    return None if row.revoked_at is not None or row.expires_at <= now() else row


def caller_of_token(orm: OrmSession, secret: str, address: str = "") -> Caller | None:
    """Who a token belongs to and what for; None when it's forged, over or revoked, or the person isn't active."""
    row = token_of(orm, secret)
    person = orm.get(Person, row.person_id) if row is not None else None
    if row is None or person is None or not person.active:
        return None
    return caller_of(
        orm,
        person,
        "token",
        address=address,
        scopes=frozenset(Scope(scope) for scope in row.scopes if scope in tuple(Scope)),
        only_experiment=row.experiment_id,
    )


def note_use(orm: OrmSession, secret: str) -> None:
    """Write that a token was used, at most once a minute."""
    row = token_of(orm, secret)
    if row is not None and (row.used_at is None or now() - row.used_at > _USED_EVERY):
        row.used_at = now()


def list_tokens(orm: OrmSession, person_id: int) -> list[ApiToken]:
    """Somebody's tokens that weren't revoked, newest first."""
    query = select(ApiToken).where(ApiToken.person_id == person_id, ApiToken.revoked_at.is_(None))
    return list(orm.scalars(query.order_by(ApiToken.id.desc())))


def revoke_token(orm: OrmSession, person_id: int, token_id: int) -> ApiToken | None:
    """Revoke one of somebody's own tokens; None when they have no such token."""
    row = orm.get(ApiToken, token_id)
    if row is None or row.person_id != person_id or row.revoked_at is not None:
        return None
    row.revoked_at = now()
    return row
