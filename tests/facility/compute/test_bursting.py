"""When work goes to a second pool: the known case, and what the gate does with a real queue."""

import json
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.facility.command import until
from vitriflow.config import BurstSection, ComputeSection
from vitriflow.facility.compute import BurstGate, SharedPool, Site, StagedPool, copy_checked, decide
from vitriflow.pipeline import GroupCall, GroupReturn, NodeCall, Promise
from vitriflow.pipeline.worker import run_group
from vitriflow.steps import Artifact, Kind

SIZE = 1_700_000_000
# 1.7 GB take 84 s to transfer, then 297 s there, against 350 s on a cluster node and 440 s on a local server.
CLOUD = Site("cloud", 297.0, bandwidth_bytes_per_s=SIZE / 84.0)
NODE = Site("cluster node", 350.0)
SERVER = Site("local server", 440.0)


def test_the_known_case_transfer_is_counted() -> None:
    assert CLOUD.transfer_s(SIZE) == pytest.approx(84.0)
    assert CLOUD.ready_s(SIZE) == pytest.approx(84.0 + 297.0)
    # An idle cluster node (350 s) is sooner than the cloud (381 s), though a call itself takes longer there.
    assert decide(SIZE, NODE, [CLOUD], delay_limit_s=300.0).site is NODE
    # Against a local server (440 s) the cloud is sooner, and is used once that is too long.
    assert decide(SIZE, SERVER, [CLOUD], delay_limit_s=300.0).site is CLOUD
    assert decide(SIZE, SERVER, [CLOUD], delay_limit_s=440.0).site is SERVER
    # Of both, the node.
    assert decide(SIZE, SERVER, [CLOUD, NODE], delay_limit_s=300.0).site is NODE


def test_the_known_case_with_a_queue() -> None:
    waiting = Site("cluster node", 350.0, waiting=1)
    chosen = decide(SIZE, waiting, [CLOUD], delay_limit_s=600.0)
    assert chosen.site is CLOUD
    assert (chosen.ready_s, chosen.transfer_s) == (pytest.approx(381.0), pytest.approx(84.0))
    assert "381 s on cloud (84 s of it transfer), 700 s on cluster node" in chosen.why
    # a line there counts as well, and data move while others run
    assert Site("cloud", 297.0, waiting=1, bandwidth_bytes_per_s=SIZE / 84.0).ready_s(SIZE) == 594.0
    # the same data over a thin line: not worth it
    thin = Site("cloud", 297.0, bandwidth_bytes_per_s=SIZE / 840.0)
    assert decide(SIZE, waiting, [thin], delay_limit_s=600.0).site is waiting


def test_cost_is_counted_and_a_budget_holds() -> None:
    paid = Site("cloud", 297.0, bandwidth_bytes_per_s=SIZE / 84.0, cost_per_s=0.001, cost_per_byte=0.02e-9)
    chosen = decide(SIZE, SERVER, [paid], delay_limit_s=300.0)
    assert chosen.cost == pytest.approx((84 + 297) * 0.001 + 1.7 * 0.02)
    assert decide(SIZE, SERVER, [paid], delay_limit_s=300.0, budget=0.4).site is SERVER
    assert "costs more than is left" in decide(SIZE, SERVER, [paid], 300.0, budget=0.4).why
    assert decide(SIZE, SERVER, [paid], delay_limit_s=300.0, budget=0.5).site is paid


SITES = st.builds(
    Site,
    name=st.just("x"),
    run_s=st.floats(1, 1e4),
    waiting=st.integers(0, 1000),
    slots=st.integers(1, 100),
    bandwidth_bytes_per_s=st.none() | st.floats(1e5, 1e10),
    cost_per_s=st.floats(0, 1),
)


@given(st.integers(0, 10**11), SITES, st.lists(SITES, max_size=3), st.floats(0, 1e5))
def test_burst_never_makes_a_result_later(size: int, home: Site, others: list[Site], limit: float) -> None:
    chosen = decide(size, home, others, limit)
    assert chosen.ready_s <= home.ready_s(size)
    if home.ready_s(size) <= limit:
        assert chosen.site is home


class Slots(ThreadPoolExecutor):
    """Threads that say how many they are."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.slots = {"cpu": number, "gpu": 0}


def told(seconds: float) -> GroupReturn:
    """A call's return whose records say how long it took."""
    return GroupReturn({"a": {"seconds": seconds}}, threading.current_thread().name)


def test_only_what_overflows_too_far_goes_to_the_second_pool_and_it_stops_when_the_backlog_is_gone() -> None:
    section = BurstSection(pool="cloud", delay_limit_s=150.0, bandwidth_bytes_per_s=1e9, stage=False)
    gate = BurstGate(section, Slots(2), cost_per_node_h=3600.0)
    pool = SharedPool(Slots(1), ComputeSection(), gate)
    try:
        hold = threading.Event()
        assert pool.submit(told, 40.0).result(60).records  # it's known now how long a call takes
        held: list[Future[Any]] = [pool.submit(hold.wait, 60) for _ in range(2)]
        assert gate.details()["calls"] == 0, "two calls of 40 s are within the limit"
        pool.note_backlog(5)
        more = pool.submit(told, 40.0)
        assert more.result(60).records, "the first pool is held, so it ran on the second"
        assert gate.details()["calls"] >= 1
        assert gate.details()["cost"] >= 0
        pool.note_backlog(0)
        hold.set()
        assert all(one.result(60) for one in held)
        before = gate.details()["calls"]
        assert pool.submit(told, 40.0).result(60).records
        assert gate.details()["calls"] == before
    finally:
        pool.shutdown(cancel_futures=True)


def test_inputs_are_staged_there_and_results_come_back_under_their_own_names(tmp_path: Path) -> None:
    movie = tmp_path / "source" / "m_Data.mrc"
    movie.parent.mkdir()
    movie.write_bytes(b"frames" * 1000)
    out = tmp_path / "root" / "MotionCorr" / "job002"
    artifact = Artifact(kind=Kind.MOVIE, path=movie)
    call = GroupCall(
        exposure_id=1,
        item="sub/m_Data",
        nodes=(
            NodeCall("a", "debug.noop", {"write": True}, {"movie": artifact}, frozenset({"movie"}), str(out)),
            NodeCall(
                "b",
                "debug.noop",
                {"write": True},
                {"micrograph": Promise("a", "micrograph")},
                frozenset(),
                str(tmp_path / "root" / "b"),
            ),
        ),
        metadata={},
    )
    there: list[str] = []
    moved: list[int] = []

    def run(staged: GroupCall) -> GroupReturn:
        there.extend(str(node.inputs["movie"].path) for node in staged.nodes[:1])
        return run_group(staged)

    pool = StagedPool(Slots(1), tmp_path / "site", moved.append)
    try:
        back = pool.submit(run, call).result(60)
    finally:
        pool.shutdown()
    assert there[0].startswith(str(tmp_path / "site"))
    assert moved == [6000]
    made = out / "sub" / "m_Data.txt"
    assert made.read_text() == "sub/m_Data\n"
    assert back.records["a"]["outputs"]["micrograph"]["path"] == str(made)
    assert str(tmp_path / "site") not in json.dumps(back.records)
    assert not (tmp_path / "site").exists(), "nothing stays behind there"


def test_a_broken_copy_is_never_taken_for_a_file(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"x" * 10)
    with pytest.raises(OSError, match=r"file|directory"):
        copy_checked(source, source / "below" / "target")
    assert copy_checked(source, tmp_path / "there" / "target") == 10
    assert [path.name for path in (tmp_path / "there").iterdir()] == ["target"]


def test_shares_hold_with_real_threads_and_what_waits_can_be_cancelled() -> None:
    pool = SharedPool(Slots(1), ComputeSection(experiment_cpu_calls=1))
    try:
        big, small = pool.for_experiment("big"), pool.for_experiment("small")
        order: list[str] = []
        hold = threading.Event()
        first = big.submit(hold.wait, 60)
        until(first.running)
        many = [big.submit(order.append, "big") for _ in range(10)]
        few = [small.submit(order.append, "small") for _ in range(2)]
        assert many[-1].cancel()
        assert many[-1].cancelled()
        assert not many[0].running()
        hold.set()
        for future in [*many[:-1], *few]:
            future.result(60)
        assert set(order[:3]) == {"big", "small"}, order
        assert order.count("small") == 2
        assert order.index("small") <= 1
        assert len(order) == 11
        assert pool.details()["waiting"] == {"cpu": 0, "gpu": 0}
    finally:
        pool.shutdown(cancel_futures=True)


def test_calls_that_are_held_by_a_shutdown_go_on_when_it_ends() -> None:
    from datetime import UTC, datetime, timedelta

    moment = [datetime(2026, 12, 20, 12, tzinfo=UTC)]
    period = {
        "name": "winter",
        "starts": moment[0] - timedelta(days=1),
        "ends": moment[0] + timedelta(days=1),
    }
    compute = ComputeSection.model_validate({"shutdowns": [{**period, "cpu_calls": 0}]})
    pool = SharedPool(Slots(2), compute, clock=lambda: moment[0])
    try:
        future = pool.for_experiment("a").submit(time.time)
        assert pool.details()["shutdown"] == "winter"
        assert not future.done()
        moment[0] += timedelta(days=2)
        assert future.result(60)
    finally:
        pool.shutdown(cancel_futures=True)
