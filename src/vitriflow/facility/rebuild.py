"""Makes a catalog anew from what stands beside the data, below the storage root."""

from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import orjson
from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session as OrmSession

from vitriflow.catalog import Catalog, Event, Session, now
from vitriflow.config import Config
from vitriflow.errors import BadParameter, VitriflowError
from vitriflow.facility.journal import SMALL
from vitriflow.facility.rebuild_rows import Numbers, SessionRows, catch_up_sequences

_UNKNOWN = (
    "People, their memberships, sign-ins and tokens don't stand beside the data: enter them again, or "
    "restore a backup.",
    "Files that weren't proved are found again when their session is watched.",
    "Exposures that were being processed are processed again.",
    "When a file was first seen, complete and copied is taken to be when it was proved.",
)


@dataclass
class SessionFound:
    """What stands in one session's folder."""

    session: str
    root: str
    rows: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


@dataclass
class RebuildReport:
    """What was found, or made: session by session, and what can't be known."""

    dry_run: bool
    sessions: list[SessionFound] = field(default_factory=list)
    unknown: tuple[str, ...] = _UNKNOWN

    @property
    def rows(self) -> dict[str, int]:
        """Rows of all sessions by table."""
        total: Counter[str] = Counter()
        for one in self.sessions:
            total.update(one.rows)
        return dict(total)

    def as_json(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "dry_run": self.dry_run,
            "rows": self.rows,
            "sessions": [asdict(one) for one in self.sessions],
            "not_known": list(self.unknown),
        }


def rebuild(
    config: Config, catalog: Catalog | None, root: Path | None = None, *, dry_run: bool = False
) -> RebuildReport:
    """Make the catalog from session.json, catalog.json, manifests and result files.

    Parameters
    ----------
    catalog
        An empty one, with its tables; None for a dry run without any.
    root
        Where sessions are; the storage root without.
    dry_run
        Say what there is, and write nothing.

    Raises
    ------
    BadParameter
        When the catalog isn't empty, or there's no session below the root.
    """
    where = (root or config.storage.root).absolute()
    records = sorted(where.glob("*/*/*/*/session.json"), key=_age)
    if not records:
        raise BadParameter(
            str(where),
            "sessions: <YYYYMM>/<experiment>_<microscope>/<sample>/<session>/session.json",
            "none",
            "",
        )
    if catalog is not None and not dry_run:
        _refuse_full(catalog)
    report = RebuildReport(dry_run)
    numbers = Numbers()
    for record in records:
        found = SessionFound(record.parent.name, str(record.parent))
        report.sessions.append(found)
        try:
            rows = SessionRows.read(record.parent, config.storage.root, numbers, found.problems)
            found.session = rows.key
            found.rows = rows.counts()
            if catalog is not None and not dry_run:
                catalog.write(lambda orm, rows=rows: rows.insert(orm))  # type: ignore[misc]
        except (VitriflowError, OSError, SQLAlchemyError, ValueError, KeyError, TypeError) as error:
            found.rows = {}
            found.problems.append(f"left out: {type(error).__name__}: {str(error)[:500]}")
    if catalog is not None and not dry_run:
        catalog.write(lambda orm: _tell(orm, report))
    return report


def _tell(orm: OrmSession, report: RebuildReport) -> None:
    """Last, since events get numbers of their own."""
    catch_up_sequences(orm)
    for found in report.sessions:
        number = orm.scalar(select(Session.id).where(Session.key == found.session))
        if number is None or not found.rows:
            continue
        said = ", ".join(f"{rows} {name}" for name, rows in found.rows.items())
        text = f"The catalog was rebuilt from the files of this session: {said}"
        orm.add(Event(at=now(), session_id=number, text=text))


def _refuse_full(catalog: Catalog) -> None:
    number = catalog.read(lambda orm: orm.scalar(select(func.count(Session.id)))) or 0
    if number:
        raise BadParameter(
            f"catalog {catalog.url}",
            "an empty one",
            f"one with {number} sessions",
            "Name an empty database with [catalog] url, or move catalog.db away if it's really lost.",
        )


def _age(record: Path) -> tuple[int, str]:
    """Sessions in the order in which they were made: those whose number is known first."""
    try:
        small = orjson.loads((record.parent / SMALL).read_bytes())
        return int(small["tables"]["session"][0]["id"]), ""
    except (OSError, orjson.JSONDecodeError, KeyError, IndexError, TypeError, ValueError):
        return 2**62, str(record)
