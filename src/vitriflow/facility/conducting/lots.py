"""Lots: exposures handed to the engine, one DAG run each. One exposure when it's quiet, more when they pile up."""

import math
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import exists, func, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session as OrmSession

from vitriflow.catalog import (
    Catalog,
    Conducted,
    Lot,
    LotMember,
    LotState,
    Measure,
    Microscope,
    Processing,
    Session,
    SessionState,
    now,
)
from vitriflow.config import Config
from vitriflow.errors import BadParameter

STALE = timedelta(minutes=5)  # a lot whose run has asked for nothing for so long is offered again
_SILENT = timedelta(minutes=15)  # one whose run stopped asking takes a place for so long
_OLDEST_EVERY = 4  # every so many lots hold the oldest exposures, so that a backlog drains


@dataclass(frozen=True)
class Offer:
    """One lot, for the engine to start a run for."""

    lot: int
    dag: str
    run: str
    exposures: int

    def as_json(self) -> dict[str, Any]:
        """Ready for JSON."""
        return asdict(self)


def size_of(waiting: int, places: int, largest: int) -> int:
    """How many exposures the next lot gets: one when each waiting one can have its own run, else a fair part.

    Parameters
    ----------
    waiting
        Exposures that aren't in a lot yet.
    places
        Runs that may be started now.
    largest
        Most exposures of one lot.
    """
    return min(largest, waiting, math.ceil(waiting / places)) if waiting and places > 0 else 0


def peek(config: Config, catalog: Catalog, microscope: str) -> bool:
    """Whether :func:`offer` would have something, without making anything."""

    def look(orm: OrmSession) -> bool:
        for row in orm.scalars(_conducted(microscope)):
            if orm.scalar(_offered(row.processing_id).limit(1)) is not None:
                return True
            waits = orm.scalar(_waiting(row.processing_id).limit(1)) is not None
            if waits and _places(orm, row.processing_id, config.airflow.runs) > 0:
                return True
        return False

    return catalog.read(look)


def offer(config: Config, catalog: Catalog, microscope: str) -> list[Offer]:
    """Make lots of a microscope's exposures that wait, as many as may run, and give all that have no run yet.

    A lot is given again until it's acknowledged, so nothing is lost when the engine stops in between;
    the run's name is the lot's own, so that it's never started twice.
    """

    def work(orm: OrmSession) -> None:
        for row in orm.scalars(_conducted(microscope)):
            make_lots(orm, row, config.airflow.runs, config.airflow.largest_batch)

    with suppress(IntegrityError):  # another request made lots of the same just now: they're given below
        catalog.write(work)

    def given(orm: OrmSession) -> list[Offer]:
        found = []
        for row in orm.scalars(_conducted(microscope)):
            lots = orm.scalars(_offered(row.processing_id).order_by(Lot.id))
            found += [Offer(lot.id, lot.dag, lot.run, lot.n_exposures) for lot in lots]
        return found

    return catalog.read(given)


def acknowledge(catalog: Catalog, lot_id: int) -> None:
    """Note that the engine has a run for a lot.

    Raises
    ------
    BadParameter
        When there's no such lot.
    """

    def work(orm: OrmSession) -> None:
        lot = orm.get(Lot, lot_id)
        if lot is None:
            raise BadParameter("lot", "the number of a lot that was offered", str(lot_id))
        if lot.state == LotState.OFFERED:
            lot.state = LotState.TRIGGERED
        lot.active_at = now()

    catalog.write(work)


def make_lots(orm: OrmSession, row: Conducted, runs: int, largest: int, run: str | None = None) -> list[Lot]:
    """Make lots of what waits in one processing; with ``run`` one lot for that run, whatever others there are."""
    number = orm.scalar(select(func.max(Lot.number)).where(Lot.processing_id == row.processing_id)) or 0
    made: list[Lot] = []
    places = 1 if run else _places(orm, row.processing_id, runs)
    waiting = orm.scalar(select(func.count()).select_from(_waiting(row.processing_id).subquery())) or 0
    while size := size_of(waiting, places, largest):
        number += 1
        oldest = number % _OLDEST_EVERY == 0
        query = _waiting(row.processing_id)
        order = Measure.exposure_id.asc() if oldest else Measure.exposure_id.desc()
        chosen = list(orm.scalars(query.order_by(order).limit(size)))
        made.append(_make(orm, row, number, chosen, run))
        waiting -= size
        places -= 1
    return made


def waiting_for(orm: OrmSession, processing_id: int) -> int:
    """How many exposures of a processing aren't in a lot yet."""
    return int(orm.scalar(select(func.count()).select_from(_waiting(processing_id).subquery())) or 0)


def _make(orm: OrmSession, row: Conducted, number: int, exposures: list[int], run: str | None) -> Lot:
    moment = now()
    lot = Lot(
        processing_id=row.processing_id,
        number=number,
        dag=row.dag,
        run=run or f"lot-{row.processing_id}-{number:06d}",
        state=LotState.TRIGGERED if run else LotState.OFFERED,
        n_exposures=len(exposures),
        created_at=moment,
        active_at=moment,
    )
    orm.add(lot)
    orm.flush()
    members = [
        {"lot_id": lot.id, "exposure_id": one, "processing_id": row.processing_id} for one in exposures
    ]
    orm.connection().execute(insert(LotMember), members)
    return lot


def has_open(processing_id: Any) -> Any:
    """Whether an exposure of a processing isn't dealt with: one look into an index."""
    return exists().where(Measure.processing_id == processing_id, Measure.status == "open")


def _conducted(microscope: str) -> Any:
    """Conducted processings of a microscope's sessions with anything to do, the newest first.

    Of all that a microscope ever had these are few, so asking often costs little.
    """
    return (
        select(Conducted)
        .join(Processing, Processing.id == Conducted.processing_id)
        .join(Session, Session.id == Processing.session_id)
        .join(Microscope, Microscope.id == Session.microscope_id)
        .where(
            Microscope.name == microscope,
            Conducted.released_at.is_(None),
            Processing.state == "running",
            Session.state != SessionState.NEW,
            has_open(Conducted.processing_id),
        )
        .order_by(Processing.id.desc())
    )


def _waiting(processing_id: int) -> Any:
    taken = exists().where(
        LotMember.processing_id == processing_id, LotMember.exposure_id == Measure.exposure_id
    )
    return select(Measure.exposure_id).where(
        Measure.processing_id == processing_id, Measure.status == "open", ~taken
    )


def _offered(processing_id: int, moment: datetime | None = None) -> Any:
    """Lots without a run, and those whose run hasn't asked for anything for a long time."""
    silent = (Lot.state == LotState.TRIGGERED) & (Lot.active_at < (moment or now()) - STALE)
    return select(Lot).where(
        Lot.processing_id == processing_id, (Lot.state == LotState.OFFERED) | silent, _is_open()
    )


def _is_open() -> Any:
    return exists().where(
        LotMember.lot_id == Lot.id,
        Measure.processing_id == LotMember.processing_id,
        Measure.exposure_id == LotMember.exposure_id,
        Measure.status == "open",
    )


def _places(orm: OrmSession, processing_id: int, runs: int) -> int:
    """How many more runs may be started: those that go on take a place each, silent ones don't for ever."""
    busy = select(func.count(Lot.id)).where(
        Lot.processing_id == processing_id, Lot.active_at > now() - _SILENT, _is_open()
    )
    return max(0, runs - int(orm.scalar(busy) or 0))


def touch(orm: OrmSession, lot_id: int) -> None:
    """Note that a lot's run was heard of."""
    orm.execute(update(Lot).where(Lot.id == lot_id).values(state=LotState.GOING, active_at=now()))
