"""Who works on what now: leases taken, renewed and given back by compare-and-set, without server locks.

The epoch grows each time that a lease changes hands. Whoever holds it says its epoch again in
every transaction (:meth:`LeaseHandle.fence`), so that one who was away too long, and has been
replaced meanwhile, can't write any more.
"""

import os
import socket
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from sqlalchemy import CursorResult, Update, insert, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session as OrmSession

from vitriflow.catalog.engine import Catalog, now
from vitriflow.catalog.tables import Lease
from vitriflow.errors import Busy


@dataclass(frozen=True)
class LeaseHandle:
    """A lease that was taken. ``ttl_s`` is how long it lasts without being renewed (s)."""

    name: str
    owner: str
    epoch: int
    ttl_s: float

    def fence(self, session: OrmSession) -> None:
        """Renew the lease as part of this transaction; the transaction can't commit without it.

        Raises
        ------
        Busy
            When somebody else has taken the lease over.
        """
        expires = now() + timedelta(seconds=self.ttl_s)
        held = update(Lease).where(
            Lease.name == self.name, Lease.owner == self.owner, Lease.epoch == self.epoch
        )
        if _rows(session, held.values(expires_at=expires)) != 1:
            other = session.get(Lease, self.name)
            raise Busy(
                f"lease '{self.name}'",
                expected=f"to be held by {self.owner}",
                found=f"taken over by {other.owner}" if other and other.owner else "given up",
                remedy="This process was away for too long and has been replaced; it stops.",
            )

    def renew(self, catalog: Catalog) -> None:
        """Renew the lease in a transaction of its own. Raises Busy when it was lost."""
        catalog.write(self.fence)

    def release(self, catalog: Catalog) -> None:
        """Give the lease back, so that the next can take it at once. Does nothing if it was lost."""
        held = update(Lease).where(
            Lease.name == self.name, Lease.owner == self.owner, Lease.epoch == self.epoch
        )
        catalog.write(lambda session: session.execute(held.values(owner="", expires_at=now())))


def this_owner(label: str = "") -> str:
    """A name for this process that tells others on this machine whether it still lives.

    It holds the host, the boot, the PID namespace, the process id and the process's start time.
    """
    pid = os.getpid()
    parts = (socket.gethostname(), _machine(), str(pid), _start_ticks(pid) or "0", label)
    return ":".join(parts)


def take_lease(catalog: Catalog, name: str, owner: str, ttl_s: float) -> LeaseHandle:
    """Take a lease that is free, has run out, or whose owner has died on this machine.

    Parameters
    ----------
    name
        What is to be held, for example ``processing/3``.
    owner
        Who holds it: :func:`this_owner`.
    ttl_s
        For how long without renewal (s).

    Raises
    ------
    Busy
        When another holds it; names who, and until when.
    """

    def take(session: OrmSession) -> LeaseHandle:
        moment = now()
        expires = moment + timedelta(seconds=ttl_s)
        row = session.get(Lease, name)
        if row is None:
            session.execute(insert(Lease).values(name=name, owner=owner, epoch=1, expires_at=expires))
            return LeaseHandle(name, owner, 1, ttl_s)
        if row.expires_at > moment and row.owner != owner and not _has_died(row.owner):
            raise _busy(name, row.owner, row.expires_at)
        seen = row.epoch
        change = update(Lease).where(Lease.name == name, Lease.epoch == seen)
        if _rows(session, change.values(owner=owner, epoch=seen + 1, expires_at=expires)) != 1:
            raise _busy(name, "another process, just now", expires)
        return LeaseHandle(name, owner, seen + 1, ttl_s)

    try:
        return catalog.write(take)
    except IntegrityError:
        return catalog.write(take)  # another process made the row first: now it can be read


def _busy(name: str, owner: str, expires: datetime) -> Busy:
    host, _, rest = owner.partition(":")
    pid = rest.split(":")[1] if rest.count(":") >= 2 else ""
    who = f"process {pid} on {host}" if pid else owner
    return Busy(
        name,
        expected="that nobody else works on it",
        found=f"{who}, which holds it until {expires:%Y-%m-%d %H:%M:%S} UTC unless it renews",
        remedy=f"Let {who} do the work, or stop it first.",
    )


def _rows(session: OrmSession, statement: Update) -> int:
    result = session.execute(statement)
    assert isinstance(result, CursorResult)
    return result.rowcount


def _has_died(owner: str) -> bool:
    """True only when the owner surely ran here, in this boot and namespace, and is gone."""
    parts = owner.split(":")
    if len(parts) < 4 or parts[0] != socket.gethostname() or parts[1] != _machine():
        return owner == ""
    return parts[2].isdigit() and _start_ticks(int(parts[2])) != parts[3]


def _machine() -> str:
    """Boot and PID namespace: within these, a process id means something."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.stat('/proc/self/ns/pid').st_ino}"  # noqa: PTH116  (follows the magic link)
    except OSError:
        return "unknown"


def _start_ticks(pid: int) -> str | None:
    """Start time of a process in clock ticks since boot (proc(5), stat field 22); None when it's gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat[stat.rindex(")") + 2 :].split()
    return None if fields[0] in ("Z", "X") else fields[19]
