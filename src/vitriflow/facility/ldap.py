"""The little of LDAP that vitriflow needs: connect safely, escape, search, bind, change a group."""

import math
import ssl
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from vitriflow.errors import BadConfig, VitriflowError

with warnings.catch_warnings():
    # ldap3 2.9 asks pyasn1 for names that it calls deprecated.
    warnings.simplefilter("ignore", DeprecationWarning)
    import ldap3
    from ldap3.core.exceptions import LDAPException, LDAPInvalidCredentialsResult
    from ldap3.utils.conv import escape_filter_chars
    from ldap3.utils.dn import escape_rdn, safe_dn


class DirectoryAway(VitriflowError):
    """The directory doesn't answer, or not as it should."""


class Connecting(Protocol):
    """What is asked of settings to connect: both LDAP sections have it."""

    @property
    def url(self) -> str: ...  # noqa: D102
    @property
    def start_tls(self) -> bool: ...  # noqa: D102
    @property
    def ca_file(self) -> Path | None: ...  # noqa: D102
    @property
    def check_certificate(self) -> bool: ...  # noqa: D102
    @property
    def timeout_s(self) -> float: ...  # noqa: D102


class _Tls(ldap3.Tls):  # type: ignore[misc]
    """ldap3's own does without what OpenSSL checks itself today: the certificate's name in the handshake."""

    def __init__(self, ca_file: Path | None, check: bool) -> None:
        super().__init__(validate=ssl.CERT_REQUIRED if check else ssl.CERT_NONE)
        self._ca_file, self._check = ca_file, check

    def wrap_socket(self, connection: Any, do_handshake: bool = False) -> None:
        """Put TLS around a connection's socket."""
        context = ssl.create_default_context(cafile=str(self._ca_file) if self._ca_file else None)
        if not self._check:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        connection.socket = context.wrap_socket(
            connection.socket, server_hostname=connection.server.host, do_handshake_on_connect=do_handshake
        )


def in_filter(text: str) -> str:
    """Text as it may stand in a search filter (RFC 4515)."""
    return str(escape_filter_chars(text))


def in_dn(text: str) -> str:
    """Text as it may stand as a value in a DN (RFC 4514)."""
    return str(escape_rdn(text))


def same_dn(one: str, other: str) -> bool:
    """Whether two DNs name the same entry, whatever their case and spaces."""
    try:
        return bool(safe_dn(one).lower() == safe_dn(other).lower())
    except LDAPException:
        return one.lower() == other.lower()


def read_password(path: Path | None) -> str:
    """The password in a file, without the line's end.

    Raises
    ------
    BadConfig
        When the file can't be read, or others may read it.
    """
    if path is None:
        return ""
    try:
        if path.stat().st_mode & 0o007:
            raise BadConfig(
                str(path), "a file that others can't read", "one that all can", f"chmod 600 {path}"
            )
        return path.read_text(encoding="utf-8").rstrip("\r\n")
    except OSError as error:
        raise BadConfig(str(path), "a file with a password", error.strerror or str(error)) from error


@contextmanager
def connected(settings: Connecting, user: str | None, password: str) -> Iterator[Any]:
    """A connection bound as ``user`` (None: as nobody); gives None when the password is wrong.

    Raises
    ------
    DirectoryAway
        When the directory can't be reached, or its certificate isn't trusted.
    """
    try:
        connection = _bind(settings, user, password)
    except LDAPInvalidCredentialsResult:
        connection = None
    except (LDAPException, OSError) as error:
        raise _away(settings, error) from error
    try:
        yield connection
    except LDAPException as error:
        raise _away(settings, error) from error
    finally:
        if connection is not None:
            connection.unbind()


def _bind(settings: Connecting, user: str | None, password: str) -> Any:
    tls = _Tls(settings.ca_file, settings.check_certificate)
    server = ldap3.Server(
        settings.url,
        use_ssl=settings.url.startswith("ldaps:"),
        tls=tls,
        connect_timeout=settings.timeout_s,
        get_info=ldap3.NONE,
    )
    connection = ldap3.Connection(
        server,
        user=user,
        password=password if user else None,
        authentication=ldap3.SIMPLE if user else ldap3.ANONYMOUS,
        auto_bind=ldap3.AUTO_BIND_NONE,
        receive_timeout=math.ceil(settings.timeout_s),  # ldap3 takes whole seconds only
        raise_exceptions=True,
        auto_referrals=False,
    )
    try:
        connection.open()
        if settings.start_tls:
            connection.start_tls()
        connection.bind()
    except Exception:
        with suppress(LDAPException, OSError):
            connection.strategy.close()
        if connection.socket is not None:  # ldap3 forgets the one that never got through
            connection.socket.close()
        raise
    return connection


def _away(settings: Connecting, error: Exception) -> DirectoryAway:
    return DirectoryAway(
        f"directory {settings.url}",
        "an answer",
        str(error)[:200] or type(error).__name__,
        "Local accounts still work. Check the directory, its certificate, and the LDAP section of facility.toml.",
    )


def search(
    connection: Any, base: str, query: str, attributes: list[str]
) -> list[tuple[str, dict[str, list[str]]]]:
    """Entries found below ``base``: their DNs and the attributes asked for, as text."""
    connection.search(base, query, search_scope=ldap3.SUBTREE, attributes=attributes, size_limit=50)
    return _entries(connection)


def read_entry(connection: Any, dn: str, attributes: list[str]) -> dict[str, list[str]] | None:
    """Attributes of one entry, or None when it isn't there (or may not be read)."""
    try:
        connection.search(dn, "(objectClass=*)", search_scope=ldap3.BASE, attributes=attributes)
    except ldap3.core.exceptions.LDAPNoSuchObjectResult:
        return None
    found = _entries(connection)
    return found[0][1] if found else None


def change_values(connection: Any, dn: str, attribute: str, add: list[str], remove: list[str]) -> None:
    """Add and remove values of one attribute in one step."""
    changes = [(ldap3.MODIFY_ADD, add)] if add else []
    changes += [(ldap3.MODIFY_DELETE, remove)] if remove else []
    connection.modify(dn, {attribute: changes})


def _entries(connection: Any) -> list[tuple[str, dict[str, list[str]]]]:
    found = []
    for entry in connection.response or []:
        if entry.get("type") != "searchResEntry":
            continue
        raw = entry["raw_attributes"]
        values = {name: [one.decode("utf-8", "replace") for one in many] for name, many in raw.items()}
        found.append((str(entry["dn"]), values))
    return found
