"""Takes exposures of a session into a processing, whoever registered them."""

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import and_, exists, or_, select
from sqlalchemy.orm import Session as OrmSession

from vitriflow.catalog import (
    Exposure,
    ExposureState,
    Measure,
    Processing,
    Session,
    SessionState,
    Task,
    now,
)
from vitriflow.catalog.views import selection_of
from vitriflow.errors import Reason
from vitriflow.pipeline import rows
from vitriflow.pipeline.changes import open_changes
from vitriflow.pipeline.judges import Sitting
from vitriflow.pipeline.lanes import Draft
from vitriflow.pipeline.ledger import Ledger
from vitriflow.pipeline.measures import BLANK
from vitriflow.pipeline.progress import first_states
from vitriflow.pipeline.ready import Work
from vitriflow.pipeline.recording import Recorder

_ENDED = (ExposureState.COMPLETE.value, ExposureState.PROBLEM.value)


Known = tuple[str, str | None, datetime | None]  # status, reason and time of completion of a plotted row


@dataclass
class News:
    """What a look at the catalog found: exposures to take in, and the processing's own state."""

    exposures: list[int] = field(default_factory=list)
    state: str = "running"
    closed: bool = False  # the session is: nothing more will come for now
    changes: bool = False  # somebody asks for one


class Intake:
    """Finds exposures that are to come in, and makes their tasks.

    A look costs what is new, not what is known: it asks for exposures above the highest number seen,
    and for those that stood aside at the last look. Now and then (``sweep``) all exposures are
    compared with what was taken in, for numbers that were given out of order.

    Parameters
    ----------
    ledger
        The processing's ledger.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._first = first_states(ledger.plan)
        judged = {node.name for node in ledger.plan.judged}
        self._judges = any(state == "ready" and name in judged for name, state in self._first.items())
        self._highest = 0
        self._aside: dict[int, str] = {}  # exposures that are seen or a problem, at the last look
        self._next_sweep = 0.0
        # None: for all of the session. It was chosen when the processing began, and stays.
        self._chosen = ledger.catalog.read(lambda session: selection_of(session, ledger.id))

    def look(self, sweep: bool = False) -> News:
        """Ask the catalog for exposures that are to come in.

        Parameters
        ----------
        sweep
            Compare all exposures with what was taken in, whenever that was done last.
        """
        due = time.monotonic() >= self._next_sweep
        news, aside, highest = self._ledger.catalog.read(lambda s: self._look(s, sweep or due))
        self._aside, self._highest = aside, max(highest, self._highest)
        if sweep or due:
            self._next_sweep = time.monotonic() + self._ledger.settings.sweep_s
        if self._chosen is not None:
            news.exposures = [number for number in news.exposures if number in self._chosen]
            news.closed = True  # nothing can come to those that were chosen
        return news

    def _look(self, session: OrmSession, sweep: bool) -> tuple[News, dict[int, str], int]:
        mine = Exposure.session_id == self._ledger.session_id
        query = (
            select(Processing.state, Session.state)
            .join(Session, Session.id == Processing.session_id)
            .where(Processing.id == self._ledger.id)
        )
        state, home = session.execute(query).one()
        closed = home == SessionState.CLOSED
        changes = bool(open_changes(session, self._ledger.id))
        parked = (ExposureState.SEEN.value, ExposureState.PROBLEM.value)
        there = select(Exposure.id, Exposure.state).where(mine, Exposure.state.in_(parked))
        aside: dict[int, str] = dict(session.execute(there).all())
        if sweep:
            missing = self._missing(session)
            return News(missing, state, closed, changes), aside, max(missing, default=0)
        complete = and_(mine, Exposure.state == ExposureState.COMPLETE.value, Exposure.id > self._highest)
        found = set(session.scalars(select(Exposure.id).where(complete)))
        highest = max(found, default=0)
        found |= {n for n, how in aside.items() if how in _ENDED and self._aside.get(n) != how}
        found |= self._aside.keys() - aside.keys()  # they were aside, and have become complete
        return News(sorted(found), state, closed, changes), aside, highest

    def _missing(self, session: OrmSession) -> list[int]:
        """All exposures that have ended and weren't taken in, or as something that they no longer are."""
        ours = and_(Measure.processing_id == self._ledger.id, Measure.exposure_id == Exposure.id)
        kind = Exposure.kind == self._ledger.plan.item
        solved = and_(
            Exposure.state == ExposureState.COMPLETE.value,
            kind,
            Measure.status == "quarantined",
            ~self._tasks(),
        )
        changed = and_(
            Exposure.state == ExposureState.COMPLETE.value,
            Measure.status != "open",
            Measure.complete_at != Exposure.complete_at,
        )
        spoilt = and_(
            Exposure.state == ExposureState.PROBLEM.value, Measure.status.not_in(("open", "quarantined"))
        )
        query = (
            select(Exposure.id)
            .outerjoin(Measure, ours)
            .where(
                Exposure.session_id == self._ledger.session_id,
                Exposure.state.in_(_ENDED),
                or_(Measure.exposure_id.is_(None), solved, changed, spoilt),
            )
            .order_by(Exposure.id)
        )
        return list(session.scalars(query))

    def _tasks(self) -> Any:
        return exists().where(
            Task.processing_id == self._ledger.id,
            Task.item_type == rows.ITEM,
            Task.item_id == Exposure.id,
            Task.revision == rows.REVISION,
        )

    def forget(self) -> None:
        """Compare all exposures at the next look: what the last one found may not have come in."""
        self._next_sweep = 0.0

    def take_in(self, exposures: Sequence[int]) -> list[Work]:
        """Make the tasks and the plotted row of exposures, in one transaction.

        One that is a problem gets a row that says so, and no task. One that was a problem and is
        complete now comes in anew, and so does one whose file changed after it was dealt with: its
        results become those of an earlier revision. One that is in already is left alone.

        Returns
        -------
        What can start.
        """

        def work(session: OrmSession) -> tuple[list[Work], Sitting, Draft]:
            moment = now()
            sitting, draft = self._ledger.bench.sitting(moment), self._ledger.book.draft()
            return self._take_in(session, exposures, sitting, draft), sitting, draft

        found, sitting, draft = self._ledger.catalog.write(work)
        self._ledger.bench.adopt(sitting)
        self._ledger.book.adopt(draft)
        return found

    def _take_in(
        self, session: OrmSession, exposures: Sequence[int], sitting: Sitting, draft: Draft
    ) -> list[Work]:
        self._ledger.fence(session)
        moment = sitting.moment
        known, busy = self._known(session, exposures)
        accepted: list[int] = []
        fresh: list[dict[str, Any]] = []
        again: dict[int, dict[str, Any]] = {}
        change = 0
        ended = _ended(session, exposures)
        stale = [row.id for row in ended if row.id in busy and _is_another(row, known.get(row.id))]
        rows.supersede(session, self._ledger.id, stale)
        for row in ended:
            if row.id in busy and row.id not in stale:
                continue
            problem = self._problem(row)
            columns = _columns(row, problem, moment)
            if known.get(row.id, ())[:2] == (columns["status"], columns["reason"]):
                continue
            change = change or rows.bump_change(session, self._ledger.id)
            columns["change"] = change
            if problem is None:
                accepted.append(row.id)
            if row.id in known:
                again[row.id] = columns
            else:
                fresh.append({"processing_id": self._ledger.id, "exposure_id": row.id, **columns})
        rows.insert_measures(session, fresh)
        rows.update_measures(session, self._ledger.id, again, moment)
        rows.insert_tasks(session, self._ledger.id, accepted, self._first, moment)
        if self._judges:
            states = rows.load_states(session, self._ledger.id, accepted)
            recorder = Recorder(self._ledger.plan, self._ledger.settings, self._ledger.id, moment)
            complete = {row.id: row.complete_at for row in ended}
            change = change or rows.bump_change(session, self._ledger.id)
            ready = self._ledger.go_on(session, states, recorder, sitting, draft, complete, change)
            self._ledger.book.release(session, draft, moment, ending=False)
            return [work for work, _ in ready]
        starting = {g.number for g in self._ledger.groups if any(self._first[n] == "ready" for n in g.nodes)}
        return [(exposure, number) for exposure in accepted for number in sorted(starting)]

    def _known(self, session: OrmSession, exposures: Collection[int]) -> tuple[dict[int, Known], set[int]]:
        """Exposures that have a row already, and those that have tasks."""
        known: dict[int, Known] = {}
        busy: set[int] = set()
        for part in rows.chunks(sorted(exposures)):
            columns = (Measure.exposure_id, Measure.status, Measure.reason, Measure.complete_at)
            query = select(*columns).where(
                Measure.processing_id == self._ledger.id, Measure.exposure_id.in_(part)
            )
            known.update(
                {number: (status, why, when) for number, status, why, when in session.execute(query)}
            )
            tasks = select(Task.item_id).where(
                Task.processing_id == self._ledger.id,
                Task.item_type == rows.ITEM,
                Task.item_id.in_(part),
                Task.revision == rows.REVISION,
            )
            busy.update(session.scalars(tasks))
        return known, busy

    def _problem(self, row: Any) -> tuple[str, str] | None:
        """Why an exposure can't be processed here; None when it can."""
        if row.state == ExposureState.PROBLEM.value:
            return row.problem_code or str(
                Reason.UNREADABLE
            ), row.problem or "set aside when it was registered"
        wanted = self._ledger.plan.item
        if row.kind != wanted:
            code = Reason.NOT_A_MOVIE if wanted == "movie" else Reason.UNSUPPORTED
            return str(code), f"{row.item} is a {row.kind}; this pipeline takes {wanted}s"
        return None


def _is_another(row: Any, known: Known | None) -> bool:
    """Whether an exposure that was dealt with is another file now: whole at another time, or broken."""
    if known is None or known[0] == "open":
        return False  # while it runs it's left alone; the next sweep looks again
    if row.state == ExposureState.PROBLEM.value:
        return known[0] != "quarantined"
    return bool(known[2] != row.complete_at)


def _ended(session: OrmSession, exposures: Sequence[int]) -> list[Any]:
    found: list[Any] = []
    for part in rows.chunks(sorted(exposures)):
        query = select(
            Exposure.id,
            Exposure.state,
            Exposure.kind,
            Exposure.item,
            Exposure.problem_code,
            Exposure.problem,
            Exposure.complete_at,
        ).where(Exposure.id.in_(part), Exposure.state.in_(_ENDED))
        found.extend(session.execute(query))
    return found


def _columns(row: Any, problem: tuple[str, str] | None, moment: datetime) -> dict[str, Any]:
    code, reason = problem or (None, None)
    return {
        **BLANK,
        "status": "quarantined" if problem else "open",
        "reason_code": code,
        "reason": reason,
        "complete_at": row.complete_at,
        "finished_at": moment if problem else None,
    }
