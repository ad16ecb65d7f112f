"""Random histories of a processing: at every step the counts reconcile, and the rows agree with each other."""

import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule
from sqlalchemy import func, select

from tests.databases import new_sqlite
from tests.pipeline.conftest import House, chain
from vitriflow.catalog import Exposure, Measure, ResultRow, Task, TaskState
from vitriflow.errors import Reason
from vitriflow.pipeline import GroupReturn, Settings
from vitriflow.pipeline.intake import Intake
from vitriflow.pipeline.ledger import Ledger
from vitriflow.pipeline.recording import Outcome, Sent
from vitriflow.pipeline.starting import plan_of

ENDS = ["done", "quarantined", "rejected", "failed", "flaky", "missing"]


class Bookkeeping(RuleBasedStateMachine):
    """Exposures come, calls start and end in every way, outcomes are written once or twice, coordinators crash."""

    flying = Bundle("flying")

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory(prefix="vf-book-")
        folder = Path(self._folder.name)
        catalog = new_sqlite(folder / "c.db")
        self.house = House(catalog, folder)
        self.house.start(chain())
        self.n = 0
        self.restart()

    def teardown(self) -> None:
        self.house.catalog.close()
        self._folder.cleanup()

    @rule()
    def restart(self) -> None:
        """The coordinator is killed and another starts: what flew is forgotten."""
        plan = plan_of(self.house.catalog, self.house.processing_id)
        house = self.house
        self.ledger = Ledger(house.catalog, house.processing_id, plan, False, Settings(backoff_s=0), 1)
        self.intake = Intake(self.ledger)
        self.ready = [work for work, _ in self.ledger.recover()]
        self.alive: set[int] = set()

    @rule(state=st.sampled_from(["complete", "problem", "seen"]), number=st.integers(1, 3))
    def register(self, state: str, number: int) -> None:
        self.house.add(*(f"m{self.n + i}" for i in range(number)), state=state)
        self.n += number

    @rule(data=st.data(), state=st.sampled_from(["complete", "problem"]))
    def change(self, data: Any, state: str) -> None:
        if self.n:
            self.house.change(f"m{data.draw(st.integers(0, self.n - 1))}", state=state)

    @rule(sweep=st.booleans())
    def look(self, sweep: bool) -> None:
        self.ready += self.intake.take_in(self.intake.look(sweep).exposures)

    @rule(target=flying, number=st.integers(1, 3))
    def start(self, number: int) -> list[Sent]:
        wanted, self.ready = self.ready[:number], self.ready[number:]
        sent, _ = self.ledger.turn([], wanted)
        self.alive |= {id(one) for one in sent}
        return sent

    @rule(calls=flying, data=st.data(), twice=st.booleans())
    def end(self, calls: list[Sent], data: Any, twice: bool) -> None:
        outcomes = []
        for call in calls:
            if id(call) not in self.alive:
                continue  # it belonged to a coordinator that was killed
            self.alive.remove(id(call))
            outcomes.append(self._outcome(call, data))
        for _ in range(2 if twice else 1):  # twice: the commit's answer was lost on the way
            _, ready = self.ledger.turn(outcomes, [])
        self.ready += [work for work, _ in ready if work not in self.ready]

    def _outcome(self, call: Sent, data: Any) -> Outcome:
        if data.draw(st.booleans()) and data.draw(st.booleans()):
            return Outcome(call, failure=(str(Reason.WORKER_DIED), "killed"))
        records: dict[str, dict[str, Any]] = {}
        for node in call.call.nodes:
            end = data.draw(st.sampled_from(ENDS))
            if end == "missing":
                break
            outputs = {port: {"kind": port, "path": "/x"} for port in ("micrograph", "ctf")}
            records[node.node] = {
                "status": "failed" if end == "flaky" else end,
                "reason_code": str(Reason.UNREADABLE) if end == "flaky" else None,
                "reason": end,
                "outputs": outputs if end == "done" else {},
            }
            if end != "done":
                break
        return Outcome(call, back=GroupReturn(records, "here"))

    @invariant()
    def everything_adds_up(self) -> None:
        counts = self.house.counts()  # asserts that it reconciles
        with self.house.catalog.engine.connect() as c:
            number = c.scalar(select(func.count()).select_from(Exposure))
            assert number == counts.exposures.came_in + counts.arriving == self.n
            ended = c.scalar(
                select(func.count()).where(Task.state.in_(["done", "rejected", "quarantined", "failed"]))
            )
            assert ended == c.scalar(select(func.count()).select_from(ResultRow))
            flying = c.scalar(select(func.count()).where(Task.state == TaskState.RUNNING))
            assert (flying > 0) == bool(self.alive)
            closed = set(c.scalars(select(Measure.exposure_id).where(Measure.status != "open")))
            unfinished = set(
                c.scalars(select(Task.item_id).where(Task.state.in_(["waiting", "ready", "running"])))
            )
            assert not closed & unfinished


TestBookkeeping = Bookkeeping.TestCase
TestBookkeeping.settings = settings(
    max_examples=15, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
