"""Late corrections: a parameter that turns out wrong is put right, and just what hangs on it is done anew."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import select

from vitriflow.catalog import Catalog, Change, Processing, Session
from vitriflow.elogbook.audit import audit
from vitriflow.elogbook.permissions import Caller
from vitriflow.errors import BadParameter, Busy
from vitriflow.pipeline import Coordinator, Touched, ask_change, ask_verdict, what_changes


@dataclass(frozen=True)
class Correction:
    """A correction that was asked for.

    ``carried_out`` says whether it has taken effect; else the running pipeline does so within seconds.
    """

    number: int
    processing: str
    touched: Touched
    carried_out: bool

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return asdict(self)


def find_processing(catalog: Catalog, key: str, name: str | None) -> tuple[int, str]:
    """Number and name of a session's processing: the one named, or the only one.

    Raises
    ------
    BadParameter
        When there's no such session or processing, or several and none was named.
    """
    query = (
        select(Processing.id, Processing.name)
        .join(Session, Session.id == Processing.session_id)
        .where(Session.key == key)
        .order_by(Processing.id)
    )
    rows = catalog.read(lambda orm: orm.execute(query).all())
    found: dict[str, int] = {name: number for number, name in rows}
    if not found:
        raise BadParameter("session", "the key of a session that is processed", repr(key)[:80])
    if name is None and len(found) == 1:
        (name,) = found
    if name is None or name not in found:
        said = "several and none named" if name is None else repr(name)[:80]
        raise BadParameter("processing", ", ".join(found), said, "Say which with --processing.")
    return found[name], name


def preview(
    catalog: Catalog,
    key: str,
    parameters: Mapping[str, Any],
    restart: Sequence[str] = (),
    processing: str | None = None,
) -> tuple[str, Touched]:
    """Which nodes and results a correction touches; nothing is changed. The processing's name stands before it.

    Raises
    ------
    BadParameter
        When a value can't be used, or nothing would change.
    """
    number, name = find_processing(catalog, key, processing)
    return name, what_changes(catalog, number, parameters, restart)


def correct(
    catalog: Catalog,
    caller: Caller,
    key: str,
    parameters: Mapping[str, Any],
    restart: Sequence[str] = (),
    processing: str | None = None,
) -> Correction:
    """Put parameters right: what hangs on them is done anew as a new revision, and all else stays.

    Raises
    ------
    BadParameter
        As :func:`preview`; nothing was asked for then.
    """
    number, name = find_processing(catalog, key, processing)
    change, touched = ask_change(catalog, number, parameters, restart, caller.login)
    _note(catalog, caller, key, name, {"parameters": dict(parameters), "restart": list(restart)})
    return Correction(change, name, touched, _carry_out(catalog, number, change))


def give_verdict(
    catalog: Catalog,
    caller: Caller,
    key: str,
    node: str,
    exposures: Sequence[int],
    accept: bool | None,
    processing: str | None = None,
) -> bool:
    """Let a person's word stand instead of a gate's; whether it has taken effect already.

    Raises
    ------
    BadParameter
        When the node isn't a gate, or an exposure isn't of this session.
    """
    number, name = find_processing(catalog, key, processing)
    change = ask_verdict(catalog, number, node, exposures, accept, caller.login)
    _note(catalog, caller, key, name, {"gate": node, "exposures": len(exposures), "accept": accept})
    return _carry_out(catalog, number, change)


def _note(catalog: Catalog, caller: Caller, key: str, processing: str, what: dict[str, Any]) -> None:
    details = {"processing": processing, **what}
    catalog.write(lambda orm: audit(orm, caller, "processing.correct", f"session {key}", details))


def _carry_out(catalog: Catalog, number: int, change: int) -> bool:
    """Do it here when no pipeline runs; else that one does it at its next look.

    Raises
    ------
    BadParameter
        When it was refused since it was asked for.
    """
    with ThreadPoolExecutor(1) as idle:
        try:
            Coordinator(catalog, number, idle).carry_out_changes()
        except Busy:
            return False
    row = catalog.read(lambda orm: orm.get_one(Change, change))
    if row.refused is not None:
        raise BadParameter("the correction", "one that can be carried out", row.refused)
    return row.applied_at is not None
