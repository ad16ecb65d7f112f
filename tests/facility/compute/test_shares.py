"""Who gets the next free slot: nobody starves, weights count, limits hold."""

from collections import Counter
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from vitriflow.config import CallLimits, ComputeSection
from vitriflow.facility.compute import FairQueue, Party

NO_LIMITS = CallLimits()


def filled(queue: FairQueue[int], calls: dict[Party, int], gpu: bool = False) -> None:
    for party, number in calls.items():
        for item in range(number):
            queue.put(party, gpu, item)


def one_slot(queue: FairQueue[int], turns: int, limits: CallLimits = NO_LIMITS) -> list[str]:
    """Whose call ran at each turn of a single slot."""
    order = []
    for _ in range(turns):
        found = queue.take(False, limits)
        if found is None:
            break
        order.append(found[0].experiment)
        queue.done(found[0], False)
    return order


def test_one_slot_goes_round_however_many_calls_somebody_has() -> None:
    queue: FairQueue[int] = FairQueue()
    filled(queue, {Party("big"): 1000, Party("small"): 3, Party("other"): 3})
    order = one_slot(queue, 9)
    assert Counter(order) == {"big": 3, "small": 3, "other": 3}
    assert all(len(set(order[start : start + 3])) == 3 for start in (0, 3, 6))


def test_a_newcomer_is_served_at_once_and_not_for_longer_than_its_share() -> None:
    queue: FairQueue[int] = FairQueue()
    filled(queue, {Party("old"): 200})
    one_slot(queue, 100)
    filled(queue, {Party("new"): 100})
    order = one_slot(queue, 20)
    assert "new" in order[:2]
    assert Counter(order) == {"old": 10, "new": 10}


def test_slots_are_shared_by_the_weights_of_projects() -> None:
    queue: FairQueue[int] = FairQueue()
    filled(queue, {Party("a", "heavy", 3.0): 50, Party("b", "light", 1.0): 50})
    taken = Counter(found[0].experiment for _ in range(8) if (found := queue.take(False, NO_LIMITS)))
    assert taken == {"a": 6, "b": 2}


def test_experiments_of_one_project_share_what_the_project_gets() -> None:
    queue: FairQueue[int] = FairQueue()
    filled(queue, {Party("a1", "p"): 50, Party("a2", "p"): 50, Party("alone"): 50})
    taken = Counter(found[0].experiment for _ in range(8) if (found := queue.take(False, NO_LIMITS)))
    assert taken == {"a1": 2, "a2": 2, "alone": 4}


def test_cpu_and_gpu_calls_are_shared_out_separately() -> None:
    queue: FairQueue[int] = FairQueue()
    filled(queue, {Party("a"): 5})
    filled(queue, {Party("a"): 5, Party("b"): 5}, gpu=True)
    for _ in range(4):
        queue.take(False, NO_LIMITS)
    taken = Counter(found[0].experiment for _ in range(4) if (found := queue.take(True, NO_LIMITS)))
    assert taken == {"a": 2, "b": 2}


def test_limits_of_all_of_an_experiment_and_of_a_project_hold() -> None:
    def most(limits: CallLimits, *parties: Party) -> int:
        queue: FairQueue[int] = FairQueue()
        filled(queue, dict.fromkeys(parties, 20))
        return sum(queue.take(False, limits) is not None for _ in range(100))

    assert most(CallLimits(cpu_calls=7), Party("a"), Party("b")) == 7
    assert most(CallLimits(experiment_cpu_calls=2), Party("a"), Party("b")) == 4
    assert most(CallLimits(project_cpu_calls=3), Party("a", "p"), Party("b", "p"), Party("c")) == 3 + 20
    assert most(NO_LIMITS, Party("a", "p", 1.0, 5), Party("b", "p", 1.0, 5)) == 5
    assert most(CallLimits(cpu_calls=0), Party("a")) == 0
    assert most(CallLimits(gpu_calls=0), Party("a")) == 20


def test_a_shutdown_has_its_own_limits_and_ends() -> None:
    start = datetime(2026, 12, 20, 8, tzinfo=UTC)
    compute = ComputeSection.model_validate(
        {
            "cpu_calls": 100,
            "experiment_cpu_calls": 10,
            "shutdowns": [
                {"name": "winter", "starts": start, "ends": start + timedelta(days=2), "cpu_calls": 4}
            ],
        }
    )
    before, during = compute.limits_at(start - timedelta(seconds=1)), compute.limits_at(start)
    assert (before.cpu_calls, before.experiment_cpu_calls) == (100, 10)
    assert (during.cpu_calls, during.experiment_cpu_calls) == (4, 10)
    assert compute.limits_at(start + timedelta(days=2)).cpu_calls == 100
    assert compute.shutdown_at(start) == "winter"
    assert compute.shutdown_at(start + timedelta(days=2)) is None


PARTIES = st.lists(
    st.builds(
        Party,
        experiment=st.sampled_from("abcdef"),
        project=st.sampled_from(["", "", "p", "q"]),
        weight=st.just(1.0),
    ),
    min_size=1,
    max_size=6,
    unique_by=lambda party: party.experiment,
)
LIMITS = st.builds(
    CallLimits,
    cpu_calls=st.none() | st.integers(0, 8),
    experiment_cpu_calls=st.none() | st.integers(0, 4),
    project_cpu_calls=st.none() | st.integers(0, 4),
)


@given(PARTIES, LIMITS, st.data())
def test_whatever_happens_limits_hold_and_no_slot_stays_empty_without_need(
    parties: list[Party], limits: CallLimits, data: st.DataObject
) -> None:
    queue: FairQueue[int] = FairQueue()
    running: list[Party] = []
    waiting: Counter[str] = Counter()
    for number in range(30):
        what = data.draw(st.sampled_from(["put", "put", "take", "done"]))
        if what == "put":
            party = data.draw(st.sampled_from(parties))
            queue.put(party, False, number)
            waiting[party.experiment] += 1
        elif what == "done" and running:
            queue.done(running.pop(data.draw(st.integers(0, len(running) - 1))), False)
        elif what == "take":
            found = queue.take(False, limits)
            if found is not None:
                running.append(found[0])
                waiting[found[0].experiment] -= 1
            else:
                assert not any(waiting[p.experiment] and free(p, running, limits) for p in parties)
        assert queue.waiting(False) == waiting.total()
        assert queue.running(False) == len(running)
        assert limits.cpu_calls is None or len(running) <= limits.cpu_calls
        each = Counter(party.experiment for party in running)
        projects = Counter(party.project for party in running if party.project)
        assert all(
            limits.experiment_cpu_calls is None or n <= limits.experiment_cpu_calls for n in each.values()
        )
        assert all(
            limits.project_cpu_calls is None or n <= limits.project_cpu_calls for n in projects.values()
        )


def free(party: Party, running: list[Party], limits: CallLimits) -> bool:
    """Whether a call of this party may run beside these."""
    checks = [(limits.cpu_calls, len(running))]
    checks.append((limits.experiment_cpu_calls, sum(p.experiment == party.experiment for p in running)))
    if party.project:
        checks.append((limits.project_cpu_calls, sum(p.project == party.project for p in running)))
    return all(most is None or now < most for most, now in checks)


@given(st.lists(st.sampled_from("abcde"), min_size=1, max_size=40), st.lists(st.booleans(), max_size=60))
def test_nobody_waits_for_longer_than_a_turn_of_each_other(arrivals: list[str], takes: list[bool]) -> None:
    queue: FairQueue[int] = FairQueue()
    since: dict[str, int] = {}  # turns that each has waited for
    waiting: Counter[str] = Counter()
    coming = iter(arrivals)
    for take in [*takes, *([True] * 60)]:
        name = next(coming, None)
        if name is not None:
            queue.put(Party(name), False, 0)
            waiting[name] += 1
            since.setdefault(name, 0)
        if take and (found := queue.take(False, NO_LIMITS)):
            queue.done(found[0], False)
            served = found[0].experiment
            waiting[served] -= 1
            since.pop(served, None)
            for other in [name for name, number in waiting.items() if number]:
                since[other] = since.get(other, 0) + (other != served)
                assert since[other] <= 2 * 5, (other, since)
    assert not waiting.total()
